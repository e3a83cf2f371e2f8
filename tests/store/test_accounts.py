"""Accounts of the store: databases of their own, packages that they share, and what a sudden end leaves."""

from __future__ import annotations

import asyncio
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandboxd.errors import SandboxdError
from sandboxd.store import store as module
from sandboxd.store.store import AccountExists
from tests.store.test_store import configured, names, opened, package, run, version

OTHER = "222222222222"


def test_an_account_is_made_found_again_and_removed(tmp_path: Path) -> None:
    config = configured(tmp_path)
    directory = config.service_dir / "accounts"

    async def work() -> None:
        stores = await opened(config)
        made = await stores.create(OTHER)
        with pytest.raises(AccountExists):
            await stores.create(OTHER)
        for bad in ("", "1", "../" + OTHER, OTHER + "\n", "٢" * 12):
            with pytest.raises(ValueError, match="12 digits"):
                await stores.create(bad)
        key = await made.keys.create("theirs")
        assert stores.key(key.id) == key and stores.own.keys.all() == []
        for path in (directory, directory / OTHER):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / OTHER / "sandboxd.db").stat().st_mode) == 0o600
        stores.close()
        (directory / ".gone-1").mkdir()
        (directory / ".gone-1" / "sandboxd.db").touch()
        stores = await opened(config)
        assert {path.name for path in directory.iterdir()} == {OTHER}
        again = stores.get(OTHER)
        assert again is not None and again.incarnation != made.incarnation and stores.key(key.id) == key
        assert stores.owner(f"arn:aws:sqs:us-east-1:{OTHER}:q") == OTHER
        for arn in ("arn:aws:sqs:us-east-1:333333333333:q", "arn:aws:s3:::bucket"):
            assert stores.owner(arn) == config.account_id
        before = again.generation.number
        await stores.delete(OTHER)
        assert stores.get(OTHER) is None and stores.key(key.id) is None and again.generation.number != before
        assert list(directory.iterdir()) == []
        await stores.create(OTHER)
        stores.close()

    run(work())


def test_there_is_a_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ACCOUNTS", 2)

    async def work() -> None:
        stores = await opened(configured(tmp_path))
        await stores.create(OTHER)
        with pytest.raises(SandboxdError, match="2 accounts"):
            await stores.create("333333333333")
        stores.close()

    run(work())


def test_a_package_stays_while_any_account_has_it(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        stores = await opened(config)
        theirs = await stores.create(OTHER)
        async with stores.code.hold(package("1")) as digest:
            await theirs.functions.create(version("f", digest), None)
        stores.close()
        stores = await opened(config)
        assert names(config.code_dir) == {digest}
        theirs = stores.get(OTHER) or theirs
        (function,) = theirs.functions.all()
        assert (function.account, function.state) == (OTHER, "Active")
        async with stores.code.hold(package("1")):
            await stores.own.functions.create(version("f", digest), None)
        await stores.own.delete_function("f")
        stores.code.drop_unused(digest)
        assert names(config.code_dir) == {digest}
        await theirs.delete_function("f")
        stores.code.drop_unused(digest)
        assert names(config.code_dir) == names(config.service_dir / "zips") == set()
        stores.close()

    run(work())


ACCOUNTS_UNTIL_KILLED = """
import asyncio, itertools, sys
from pathlib import Path
from tests.store.test_store import configured, opened
async def main():
    stores = await opened(configured(Path(sys.argv[1])))
    for number in itertools.count(int(sys.argv[2])):
        account = f"{number:012}"
        await (await stores.create(account)).keys.create(account)
        print("+" + account, flush=True)
        if number % 2:
            await stores.delete(account)
            print("-" + account, flush=True)
asyncio.run(main())
"""


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    """An account that was acknowledged is there, one whose end was is not, and whatever is there is whole."""
    config, moments, begin = configured(tmp_path), random.Random(4), 1
    for _ in range(4):
        command = [sys.executable, "-c", ACCOUNTS_UNTIL_KILLED, str(tmp_path), str(begin)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(moments.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        lines = (first + process.stdout.read()).split()
        process.wait()
        process.stdout.close()
        kept = {line[1:] for line in lines if line[0] == "+" and int(line) % 2 == 0}
        gone = {line[1:] for line in lines if line[0] == "-"}
        assert lines

        async def look(kept: set[str], gone: set[str]) -> int:
            stores = await opened(config)
            found = {store.account: store for store in stores}
            assert kept <= found.keys() and not gone & found.keys()
            assert all(found[account].keys.all() for account in kept)
            assert all([user.name for user in store.users.all()] == ["admin"] for store in stores)
            stores.close()
            return max(int(account) for account in found | dict.fromkeys(gone))

        begin = asyncio.run(look(kept, gone)) + 1
