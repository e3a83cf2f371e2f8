"""Logs on a real disk."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path

import pytest

from sandboxd.environment import logs as module
from sandboxd.environment.logs import Logs
from tests.environment.loopback import run

ACCOUNT = "000000000000"


def kept_files(directory: Path, function: str = "f", version: str = "$LATEST") -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted((directory / function / version).glob("*"))}


async def flushed(logs: Logs) -> None:
    for _ in range(200):
        if not logs._dirty and logs._writing is None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not written")


def test_what_is_appended_can_be_read_at_once_and_is_written_soon(tmp_path: Path) -> None:
    async def main() -> None:
        logs = Logs(tmp_path, ACCOUNT)
        stream = logs.stream(ACCOUNT, "f", "$LATEST")
        stream.append(b"one\n")
        assert list(tmp_path.iterdir()) == []  # nothing on disk on the path of an invocation
        assert logs.read(ACCOUNT, "f", "$LATEST", 0, 100) == (4, b"one\n")
        await flushed(logs)
        assert kept_files(tmp_path) == {"00000000000000000000.log": 4}
        assert (tmp_path / "f" / "$LATEST").stat().st_mode & 0o077 == 0
        stream.append(b"two\n")
        assert logs.read(ACCOUNT, "f", "$LATEST", 0, 100) == (8, b"one\ntwo\n")
        assert logs.read(ACCOUNT, "f", "$LATEST", 2, 4) == (6, b"e\ntw")
        assert logs.read(ACCOUNT, "f", "$LATEST", -3, 100) == (8, b"wo\n")
        assert logs.read(ACCOUNT, "f", "$LATEST", -300, 100) == (8, b"one\ntwo\n")
        assert logs.read(ACCOUNT, "f", "$LATEST", 8, 100) == (8, b"")
        assert logs.read(ACCOUNT, "f", "$LATEST", 800, 100) == (8, b"")
        assert logs.read(ACCOUNT, "f", "7", 0, 100) == (0, b"")
        logs.close()

    run(main())


def test_offsets_go_on_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        for number in range(3):
            logs = Logs(tmp_path, ACCOUNT)
            assert logs.read(ACCOUNT, "f", "1", 0, 100)[0] == number * 5
            logs.stream(ACCOUNT, "f", "1").append(b"line\n")
            logs.close()  # writes without having been asked to
        assert kept_files(tmp_path, version="1") == {"00000000000000000000.log": 15}

    run(main())


def test_old_segments_go_and_offsets_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1000)

    async def main() -> None:
        logs = Logs(tmp_path, ACCOUNT)
        stream = logs.stream(ACCOUNT, "f", "$LATEST")
        for number in range(500):
            stream.append(b"%08d\n" % number)
            if number % 60 == 0:
                await flushed(logs)
        await flushed(logs)
        assert kept_files(tmp_path) == {"00000000000000003000.log": 1000, "00000000000000004000.log": 500}
        after, data = logs.read(ACCOUNT, "f", "$LATEST", 0, 1 << 20)
        assert (after, len(data)) == (4500, 1500)  # what is kept begins in the middle
        assert data.endswith(b"00000499\n")
        position, whole = 3000, b""
        while position < 4500:
            position, piece = logs.read(ACCOUNT, "f", "$LATEST", position, 77)
            whole += piece
        assert whole == data
        again = Logs(tmp_path, ACCOUNT)
        assert again.read(ACCOUNT, "f", "$LATEST", 0, 1 << 20) == (4500, data)
        again.close()
        logs.close()

    run(main())


def test_waiting_ends_with_news_or_time(tmp_path: Path) -> None:
    async def main() -> None:
        logs = Logs(tmp_path, ACCOUNT)
        began = time.monotonic()
        await logs.wait(ACCOUNT, "f", "$LATEST", 0, 0.1)
        assert 0.09 < time.monotonic() - began < 1
        readers = [asyncio.ensure_future(logs.wait(ACCOUNT, "f", "$LATEST", 0, 60)) for _ in range(3)]
        await asyncio.sleep(0)
        readers[0].cancel()
        await asyncio.sleep(0.01)
        assert not readers[1].done()
        logs.stream(ACCOUNT, "f", "$LATEST").append(b"x")
        await asyncio.wait_for(asyncio.gather(*readers[1:]), 1)
        await logs.wait(ACCOUNT, "f", "$LATEST", 0, 60)  # there is something already
        logs.close()

    run(main())


def test_forgetting_takes_everything_and_what_comes_late_goes_nowhere(tmp_path: Path) -> None:
    async def main() -> None:
        logs = Logs(tmp_path, ACCOUNT)
        old = logs.stream(ACCOUNT, "f", "$LATEST")
        old.append(b"old\n")
        logs.stream(ACCOUNT, "g", "$LATEST").append(b"other\n")
        await flushed(logs)
        old.append(b"waiting\n")
        reader = asyncio.ensure_future(logs.wait(ACCOUNT, "f", "$LATEST", 100, 60))
        await asyncio.sleep(0)
        logs.forget(ACCOUNT, "f")
        await asyncio.wait_for(reader, 1)
        old.append(b"late\n")
        new = logs.stream(ACCOUNT, "f", "$LATEST")
        assert new is not old
        assert logs.read(ACCOUNT, "f", "$LATEST", 0, 100) == (0, b"")
        new.append(b"new\n")
        await flushed(logs)
        assert logs.read(ACCOUNT, "f", "$LATEST", 0, 100) == (4, b"new\n")
        logs.forget(ACCOUNT, "never-there")
        logs.close()
        assert sorted(os.listdir(tmp_path)) == ["f", "g"]

    run(main())


def test_forgetting_while_it_is_written(tmp_path: Path) -> None:
    async def main() -> None:
        for _ in range(20):
            logs = Logs(tmp_path, ACCOUNT)
            logs.stream(ACCOUNT, "f", "$LATEST").append(b"x" * (1 << 20))
            logs._flush()
            logs.forget(ACCOUNT, "f")
            logs.close()
            assert os.listdir(tmp_path) == []

    run(main())


def test_a_forgotten_log_that_was_not_removed_goes_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / ".forgotten-0" / "$LATEST").mkdir(parents=True)

    async def main() -> None:
        Logs(tmp_path, ACCOUNT).close()
        assert os.listdir(tmp_path) == []

    run(main())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b", "ä", "x" * 141, "a b"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        logs = Logs(tmp_path, ACCOUNT)
        for call in (
            lambda: logs.stream(ACCOUNT, name, "$LATEST"), lambda: logs.stream(ACCOUNT, "f", name),
            lambda: logs.forget(ACCOUNT, name), lambda: logs.stream(name, "f", "$LATEST"),
            lambda: logs.forget(name, "f"), lambda: logs.forget_account(name),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="names no log"):
                call()
        logs.close()

    run(main())


def test_a_link_in_the_place_of_a_segment_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"secret")

    async def main() -> None:
        (tmp_path / "logs" / "f" / "$LATEST").mkdir(parents=True)
        (tmp_path / "logs" / "f" / "$LATEST" / "00000000000000000000.log").symlink_to(victim)
        logs = Logs(tmp_path / "logs", ACCOUNT)
        with pytest.raises(OSError) as raised:
            logs.read(ACCOUNT, "f", "$LATEST", 0, 100)
        assert raised.value.errno == errno.ELOOP
        logs.stream(ACCOUNT, "f", "$LATEST").append(b"x")
        logs.close()
        assert victim.read_bytes() == b"secret"

    run(main())


def test_memory_is_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        logs = Logs(tmp_path, ACCOUNT)
        block = b"x" * (1 << 20)
        taken = sum(logs.stream(ACCOUNT, "f", str(n % 20)).append(block) for n in range(400))
        assert taken == 64  # all streams together; the loop had no turn to write any
        logs2 = Logs(tmp_path / "other", ACCOUNT)
        assert sum(logs2.stream(ACCOUNT, "f", "1").append(block) for n in range(400)) == 8  # one stream
        logs.close()
        logs2.close()

    run(main())


def test_a_full_disk_loses_bytes_and_no_offsets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        logs = Logs(tmp_path, ACCOUNT)
        stream = logs.stream(ACCOUNT, "f", "$LATEST")
        stream.append(b"first\n")
        await flushed(logs)
        directory = tmp_path / "f" / "$LATEST"
        aside = tmp_path / "aside"
        directory.rename(aside)
        directory.write_bytes(b"")  # no directory can be made here
        stream.append(b"lost\n")
        await flushed(logs)
        directory.unlink()
        aside.rename(directory)
        stream.append(b"third\n")
        await flushed(logs)
        assert kept_files(tmp_path) == {"00000000000000000000.log": 6, "00000000000000000011.log": 6}
        assert logs.read(ACCOUNT, "f", "$LATEST", 0, 100) == (17, b"first\nthird\n")
        logs.close()

    run(main())
    assert "5 bytes of log are lost" in caplog.text


def test_accounts_have_logs_of_their_own(tmp_path: Path) -> None:
    other = "222222222222"

    async def main() -> None:
        logs = Logs(tmp_path, ACCOUNT)
        logs.stream(ACCOUNT, "f", "1").append(b"ours\n")
        logs.stream(other, "f", "1").append(b"theirs\n")
        logs.stream(ACCOUNT, other, "1").append(b"a function of such a name\n")
        assert logs.read(other, "f", "1", 0, 100)[1] == b"theirs\n"
        logs.close()
        logs = Logs(tmp_path, ACCOUNT)
        assert logs.read(ACCOUNT, "f", "1", 0, 100)[1] == b"ours\n"
        assert logs.read(ACCOUNT, other, "1", 0, 100)[1] == b"a function of such a name\n"
        assert logs.read(other, "f", "1", 0, 100)[1] == b"theirs\n"
        logs.forget(other, "f")
        assert logs.read(other, "f", "1", 0, 100) == (0, b"")
        assert logs.read(ACCOUNT, "f", "1", 0, 100)[1] == b"ours\n"
        logs.forget_account(other)
        logs.close()

    run(main())
    Path(tmp_path / "@222222222222" / ".forgotten-9").mkdir(parents=True)
    again = {path.name for path in tmp_path.iterdir()}
    assert again == {"f", other, "@222222222222"}
    run(_start(tmp_path))
    assert list((tmp_path / "@222222222222").iterdir()) == []


async def _start(directory: Path) -> None:
    Logs(directory, ACCOUNT).close()
