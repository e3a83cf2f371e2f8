"""The user namespace in which an image is built: its root is an unprivileged user of the host.

Room: image maker, root. May: make namespaces, through util-linux. May not: run anything of an image outside of them.

A holder process lives as pid 1 of the namespace's processes for as long as it can read from a pipe of ours: however the
maker ends, the kernel closes the pipe, the holder ends, and with it every process of the build and its mounts.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from sandboxd.config import UIDS_PER_INSTANCE
from sandboxd.images.recipe import ImageError

# The block after those of the 2,048 instances (Config.uid_base): no environment ever runs as any of these.
UID_BASE = (1 << 30) + UIDS_PER_INSTANCE * 2048
UIDS = range(UID_BASE, UID_BASE + UIDS_PER_INSTANCE)

_TAIL_LINES = 30
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


class StepFailedInNamespace(ImageError):
    """A program of the build that ended with an error; `output` is the end of what it printed."""

    def __init__(self, program: str, status: int, output: str) -> None:
        self.output = output
        lines = output.splitlines()
        reasons = [line for line in lines if line.startswith("E: ")] or lines[-5:]  # as apt and mmdebstrap mark them
        super().__init__("\n".join([f"{program} failed with status {status}", *reasons]))


class Namespace:
    """Runs programs as root of the build's namespace; /tmp is there the directory that was given."""

    def __init__(self, holder: subprocess.Popen[bytes]) -> None:
        namespaces = Path(f"/proc/{holder.pid}/ns")
        self._enter = [
            "nsenter",
            f"--user={namespaces}/user",
            f"--mount={namespaces}/mnt",
            f"--ipc={namespaces}/ipc",
            f"--uts={namespaces}/uts",
            f"--pid={namespaces}/pid_for_children",
            "--setuid=0",
            "--setgid=0",
        ]
        self._holder = holder

    def mount_tmp(self) -> None:
        """Show the holder's working directory, and nothing of the host's, as /tmp."""
        # By the holder's working directory and uncanonicalized: directories above it may be closed to the namespace.
        command = [
            *self._enter,
            f"--wd=/proc/{self._holder.pid}/cwd",
            "mount",
            "--no-canonicalize",
            "--bind",
            ".",
            "/tmp",
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StepFailedInNamespace("mount", done.returncode, done.stderr.strip())

    def run(self, command: list[str], line: Callable[[str], None], **variables: str) -> None:
        """Run a program to its end, each line that it prints handed to `line`; raises StepFailedInNamespace."""
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/tmp/scratch"}
        environ["TMPDIR"] = environ["HOME"]
        environ |= {name: value for name, value in os.environ.items() if name.lower() in _PROXIES}
        process = subprocess.Popen(
            [*self._enter, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd="/",
            env=environ | variables,
            start_new_session=True,  # an interrupt from the terminal comes to the maker, which ends everything
        )
        tail: list[str] = []
        assert process.stdout is not None
        with process, process.stdout:
            try:
                for text in process.stdout:
                    line(text.rstrip())
                    tail = [*tail[1 - _TAIL_LINES :], text.rstrip()]
            except BaseException:
                self.end()
                raise
        if process.returncode:
            raise StepFailedInNamespace(command[0], process.returncode, "\n".join(tail))

    def end(self) -> None:
        """End every process in the namespace; nothing runs in it any more."""
        # By its pid 1 and never one by one: a killed nsenter would leave its child to a parent outside of the pid
        # namespace, and pid 1 cannot end before that parent has reaped the child.
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait()


@contextlib.contextmanager
def build_namespace(directory: Path) -> Iterator[Namespace]:
    """Namespaces for one build, with `directory` as /tmp, where their root may write below rootfs/ and scratch/ only.

    When this returns no process of theirs is left.
    """
    for name in ("rootfs", "scratch"):
        (directory / name).mkdir(mode=0o755)
        os.chown(directory / name, UID_BASE, UID_BASE)
    unshare = ["unshare", "--user", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    holder = subprocess.Popen(
        [*unshare, "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=directory,
        start_new_session=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    with holder:
        if holder.stdout.readline() != b"ready\n":
            raise ImageError("a user namespace cannot be made here; see sandboxd doctor")
        for ids in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{ids}").write_text(f"0 {UID_BASE} {UIDS_PER_INSTANCE}\n")
        namespace = Namespace(holder)
        namespace.mount_tmp()
        try:
            yield namespace
        finally:
            namespace.end()
