"""The interpreter as a zygote: booted once, forked for every environment.

Room: guest, without privilege. May: fork. Its presence in an image tells the builder that the runtime can be forked.
"""

import os
import stat
import sys

_LADDER = "/proc/self/fd/4"
_kept: list[object] = []  # to free a module is to write to the pages that all children share


def serve() -> None:
    """As a zygote, whose descriptor 3 is a socket, fork when asked to; return in the children, and where it is none."""
    try:
        if not stat.S_ISSOCK(os.fstat(3).st_mode):
            return
    except OSError:
        return
    known = set(sys.modules)
    sys.path.insert(0, _LADDER)
    import ladder

    sys.path.remove(_LADDER)
    sys.path_importer_cache.pop(_LADDER, None)
    ladder.serve()
    for name in sys.modules.keys() - known:  # a function finds what it finds where there is no zygote
        _kept.append(sys.modules.pop(name))
