"""Capabilities: none, of any kind, and no way to any.

Room: root, child side. Runs after the last user namespace was entered, because entering one grants every capability in
it and resets bounding set and securebits (user_namespaces(7), set_cred_user_ns in the kernel).
"""

from __future__ import annotations

import errno

from sandboxd.builder import linux

# NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE set and locked, KEEP_CAPS locked off (capabilities(7)).
_SECUREBITS = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80


def drop_all_in_child() -> None:
    """Empty all five sets and lock the securebits; what the kernel then holds is read back."""
    for capability in range(64):
        try:
            linux.prctl(linux.PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: past the last capability of this kernel
                raise
            break
    linux.prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_CLEAR_ALL)
    linux.prctl(linux.PR_SET_SECUREBITS, _SECUREBITS)
    linux.capset_none()
    if any(linux.capget()) or linux.prctl(linux.PR_GET_SECUREBITS) != _SECUREBITS:
        raise OSError(errno.EPERM, "capabilities are still there")
    if linux.prctl(linux.PR_CAPBSET_READ, 0):
        raise OSError(errno.EPERM, "the bounding set is not empty")


def no_new_privs_in_child() -> None:
    """No execve of this process or its children gains anything (PR_SET_NO_NEW_PRIVS)."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if linux.prctl(linux.PR_GET_NO_NEW_PRIVS) != 1:
        raise OSError(errno.EPERM, "no_new_privs is not set")
