"""The system-call filters of what the builder makes: OCI profiles compiled once to BPF.

Room: root. `compile_profile` runs in the builder as it starts; `load_in_child` in each environment, last before user
code, and in each extractor, last before a stranger's zip.
"""

from __future__ import annotations

import tempfile
from typing import Any

from sandboxd.seccomp import make_filter, read_profile

DEFAULT_PROFILE = "default.json"
EXTRACTOR_PROFILE = "extractor.json"


def profile(name: str = DEFAULT_PROFILE) -> dict[str, Any]:
    """A profile that ships with the builder, as its JSON says."""
    return read_profile("sandboxd.builder.profiles", name)


def zygotes_profile() -> dict[str, Any]:
    """What a zygote may call: all that an environment may, which is its children's in the end, and their way there."""
    document, more = profile(), profile("zygote.json")["syscalls"]
    allowed = {name for rule in more for name in rule["names"]}
    others = [rule | {"names": [n for n in rule["names"] if n not in allowed]} for rule in document["syscalls"]]
    return document | {"syscalls": others + more}


def compile_profile(document: dict[str, Any]) -> bytes:
    """The BPF program of an OCI profile: struct sock_filter[]. Raises SandboxdError as `make_filter` does."""
    with tempfile.TemporaryFile() as file:
        make_filter(document).export_bpf(file)
        file.seek(0)
        return file.read()
