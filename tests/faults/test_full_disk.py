"""A disk that fills under a running daemon: what needs room says so, the rest goes on, nothing is left half-made.

The disk is a small file system of the test's own, mounted as `data_dir` in a mount namespace that only the daemon has.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import ANSWER_SECONDS, Faults, eventually, running
from tests.support import packages
from tests.support.daemon import FUNCTIONS, Answer, Daemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts the daemon")

MOUNT = """set -e
mount -o loop "$1" "$2"
mkdir -p "$2/images"
mount --bind "$3/images" "$2/images"
mount --move "$2" "$3"
shift 3
exec "$@"
"""
LEFT = [0, 4096, 16_384, 32_768, 65_536, 131_072]  # bytes: each lets another step find no room


class SmallDisk(Daemon):
    """A daemon whose data_dir has 64 MB."""

    def __init__(self) -> None:
        super().__init__(disk_floor=1, keep_alive=600)
        image, place = self.base / "disk.img", self.base / "disk"
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", image], check=True)
        files = [str(path) for path in (image, place, self.data_dir)]
        self.under = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", *files]

    def start(self) -> None:
        super().start()
        assert self.process is not None
        self.data_dir = Path(f"/proc/{self.process.pid}/root{self.data_dir}")  # as the daemon sees it

    @property
    def ballast(self) -> Path:
        return self.data_dir / "ballast"

    def fill(self, left: int) -> None:
        """Leave so many bytes free, or a few less."""
        with self.ballast.open("ab") as file:
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), 1 << 20)
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), 4096)
            os.ftruncate(file.fileno(), file.seek(0, os.SEEK_END) - left)
            os.fsync(file.fileno())


@pytest.fixture(scope="module")
def small(alone: None) -> Iterator[Faults]:
    with running(SmallDisk()) as faults:
        yield faults


def told(answer: Answer) -> bool:
    """Whether it was done; if not, that is said in AWS's shape, and the disk is the reason."""
    if answer.status < 300:
        assert "x-amz-function-error" not in answer.headers, answer
        return True
    if answer.status in (500, 400):
        assert answer.code == ("ServiceException" if answer.status == 500 else "CodeStorageExceededException"), answer
        assert "disk" in answer.message or "No space left" in answer.message, answer
    else:  # what could not be made is not there, and what could not be deleted is
        assert answer.status in (404, 409) and answer.message.startswith("Function "), answer
    return False


def everything(faults: Faults) -> dict[str, bool]:
    """Do whatever writes, and what has to go on without; what was done."""
    daemon = faults.daemon
    done = {"warm": told(faults.invoke("fast"))}
    done["create"] = told(faults.create("new", {"app.py": f"def handler(*_):\n    return {time.time_ns()}\n"}))
    code = packages.zip_of({"app.py": f"def handler(*_):\n    return {time.time_ns()}\n"})
    for kind, method, path, body in (
        ("code", "PUT", "new/code", {"ZipFile": base64.b64encode(code).decode()}),
        ("configuration", "PUT", "fast/configuration", {"Timeout": 7}),
        ("publish", "POST", "fast/versions", {}),
    ):
        for name in ("new", "fast"):
            settled(faults, name)
        done[kind] = told(daemon.request(method, f"{FUNCTIONS}/{path}", body))
    done["policy"] = told(faults.retire()[1].result(ANSWER_SECONDS).answer)
    done["key"] = told(daemon.admin("POST", "/keys", {}))
    for number in range(4):  # more than stand ready
        done[f"cold {number}"] = told(faults.invoke("slow"))
        told(faults.retire()[1].result(ANSWER_SECONDS).answer)
    assert daemon.admin("GET", "/functions/fast/logs").status == 200
    settled(faults, "new")
    done["delete"] = told(faults.delete()[0].result(ANSWER_SECONDS).answer)
    return done


def settled(faults: Faults, name: str) -> None:
    if faults.daemon.request("GET", f"{FUNCTIONS}/{name}").status == 200:
        configuration = faults.daemon.wait_settled(name)
        assert (configuration["State"], configuration["LastUpdateStatus"]) == ("Active", "Successful")


def test_a_disk_that_fills(small: Faults) -> None:
    rooms = [small.find(room) for room in ("builder", "service")]
    for left in LEFT:
        small.daemon.fill(left)
        done = everything(small)
        if not left:
            assert done["warm"] and not done["create"] and not done["policy"] and not done["delete"]
    assert not done["cold 3"], "there is less than disk_floor"
    small.daemon.ballast.unlink()
    small.rest()
    assert all(everything(small).values())
    assert rooms == [small.find(room) for room in ("builder", "service")]
    assert "Traceback" not in small.daemon.log()
    small.is_whole()


def test_a_room_that_ends_on_a_full_disk(small: Faults) -> None:
    small.daemon.fill(0)
    generation = small.find("service")
    os.kill(generation.pid, signal.SIGKILL)
    eventually(lambda: not generation.is_running())
    call = small.warm()[0].result(ANSWER_SECONDS)
    assert call.answer is not None and not told(call.answer)
    small.daemon.ballast.unlink()
    small.serves_again("service", time.monotonic())
    assert "Traceback" not in small.daemon.log()
    small.is_whole()
