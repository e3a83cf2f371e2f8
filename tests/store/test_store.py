"""The store: what it keeps, what it removes, and what a sudden end leaves."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Coroutine
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from sandboxd.config import Config
from sandboxd.errors import PackageRejected, SandboxdError
from sandboxd.model.egress import EgressRule, HostRule
from sandboxd.model.function import FunctionVersion, Policy
from sandboxd.store.database import DiskFull
from sandboxd.store.functions import FunctionExists
from sandboxd.store.schema import MIGRATIONS, migrate
from sandboxd.store.store import Stores
from tests.store.unpacker import InProcessUnpacker


def configured(directory: Path) -> Config:
    config = Config(data_dir=directory)
    for path in (config.images_dir, config.code_dir, config.service_dir):
        path.mkdir(exist_ok=True)
    return config


async def opened(config: Config) -> Stores:
    return await Stores.open(config, InProcessUnpacker(config.code_dir))


def package(text: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("app.py"), text)
    return target.getvalue()


def version(name: str, digest: str, **members: Any) -> FunctionVersion:
    standing: dict[str, Any] = {
        "version": "$LATEST", "arn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}",
        "runtime": "python3.13", "role": "r", "handler": "app.handler",
        "code_size": 1, "memory_size": 128, "timeout": 3, "revision_id": "1", "last_modified": "now",
    }  # fmt: skip
    return FunctionVersion(**(standing | {"name": name, "code_digest": digest} | members))


def names(directory: Path) -> set[str]:
    return {path.name.removesuffix(".zip") for path in directory.iterdir()}


def run(work: Coroutine[Any, Any, Any]) -> None:
    asyncio.run(work)


def test_every_field_survives(tmp_path: Path) -> None:
    config = configured(tmp_path)
    policy = Policy((EgressRule(IPv4Network("10.0.0.0/8"), 1, 443),), (HostRule("*.example.org", 443),), invoke=True)
    full = version(
        "f", hashlib.sha256(package("1")).hexdigest(), state="Active", last_update_status="Successful",
        variables=(("A", "ü"), ("B", "")), policy=policy, settings=(("TracingConfig", '{"Mode": "Active"}'),),
        description="d", architectures=("arm64",), ephemeral_storage=1024,
    )  # fmt: skip

    async def work() -> None:
        store = await opened(config)
        async with store.code.hold(package("1")):
            await store.own.functions.create(full)
            with pytest.raises(FunctionExists):
                await store.own.functions.create(full)
        key = await store.own.keys.create("mine")
        store.close()
        again = await opened(config)
        assert list(again.own.functions.all()) == [full]
        assert again.own.functions.resolve("f") == again.own.functions.resolve("f", "$LATEST") == full
        assert again.own.functions.resolve("f", "1") is None
        assert again.own.keys.all() == [key]
        assert key.secret not in repr(key)
        again.close()

    run(work())
    for suffix in ("", "-wal", "-shm"):
        path = config.service_dir / f"sandboxd.db{suffix}"
        assert not path.exists() or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_functions_left_on_the_way_arrive(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        store = await opened(config)
        async with store.code.hold(package("1")) as digest:
            await store.own.functions.create(version("pending", digest))
            await store.own.functions.create(version("updating", digest, state="Active"))
        store.close()
        again = await opened(config)
        for shown in again.own.functions.all():
            assert (shown.state, shown.last_update_status) == ("Active", "Successful")
            assert shown.revision_id != "1"
        again.close()

    run(work())


def test_a_function_whose_package_is_lost_has_failed(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        store = await opened(config)
        async with store.code.hold(package("1")) as digest:
            await store.own.functions.create(version("f", digest))
        store.close()
        (config.service_dir / "zips" / f"{digest}.zip").unlink()
        os.rename(config.code_dir / digest, config.code_dir / "moved")
        again = await opened(config)
        (shown,) = again.own.functions.all()
        assert (shown.state, shown.state_reason) == ("Failed", "its code package is lost")
        again.close()
        os.rename(config.code_dir / "moved", config.code_dir / digest)
        healed = await opened(config)
        assert next(healed.own.functions.all()).state == "Active"
        healed.close()

    run(work())


def test_code_is_unpacked_again_where_it_is_missing(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        store = await opened(config)
        async with store.code.hold(package("1")) as digest:
            await store.own.functions.create(version("f", digest))
        store.close()
        InProcessUnpacker(config.code_dir).remove_code(bytes.fromhex(digest))
        again = await opened(config)
        assert (config.code_dir / digest / "app.py").exists()
        assert next(again.own.functions.all()).state == "Active"
        again.close()

    run(work())


def test_orphans_are_removed_at_the_start(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (config.service_dir / "zips").mkdir()
    (config.service_dir / "zips" / ("a" * 64 + ".zip")).write_bytes(b"")
    (config.service_dir / "zips" / ("b" * 64 + ".0123456789abcdef")).write_bytes(b"cut short")
    (config.service_dir / "zips" / "strange.zip").write_bytes(b"")
    (config.code_dir / ("c" * 64)).mkdir()
    (config.code_dir / "not-a-digest").mkdir()

    async def work() -> None:
        (await opened(config)).close()

    run(work())
    assert names(config.service_dir / "zips") == set()
    assert names(config.code_dir) == {"not-a-digest"}


def test_what_no_function_uses_goes_with_the_upload(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        store = await opened(config)
        async with store.code.hold(package("1")) as digest:
            assert names(config.code_dir) == names(config.service_dir / "zips") == {digest}
        assert names(config.code_dir) == names(config.service_dir / "zips") == set()
        with pytest.raises(PackageRejected):
            async with store.code.hold(b"no zip"):
                pass
        assert names(config.service_dir / "zips") == set()
        store.close()

    run(work())


def test_uploads_of_the_same_package_at_one_time(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        unpacker = InProcessUnpacker(config.code_dir)
        store = await Stores.open(config, unpacker)
        unpacker.gate.clear()

        async def upload(name: str, keep: bool) -> None:
            async with store.code.hold(package("1")) as digest:
                assert (config.code_dir / digest).exists()
                if keep:
                    await store.own.functions.create(version(name, digest))

        uploads = [asyncio.create_task(upload(f"f{n}", keep=n == 2)) for n in range(5)]
        await asyncio.sleep(0.05)
        unpacker.gate.set()
        await asyncio.gather(*uploads)
        assert len(unpacker.unpacked) == 1
        assert len(names(config.code_dir)) == 1
        await store.own.delete_function("f2")
        store.code.drop_unused(*names(config.code_dir))
        assert names(config.code_dir) == names(config.service_dir / "zips") == set()
        assert not store.code._locks and not store.code._held
        store.close()

    run(work())


def test_an_update_serves_only_when_it_is_done(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        store = await opened(config)
        async with store.code.hold(package("1")) as digest:
            first = version("f", digest)
            await store.own.functions.create(first)
            second = replace(first, revision_id="2")
            await store.own.functions.describe(second)
            assert (store.own.functions.resolve("f"), store.own.functions.described("f")) == (first, second)
            await store.own.functions.serve(second)
            assert store.own.functions.resolve("f") == second
            await store.own.delete_function("f")
            assert store.own.functions.resolve("f") is None and len(store.own.functions) == 0
        store.close()

    run(work())


def test_a_full_disk_keeps_no_change_from_its_end(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        store = await opened(config)
        async with store.code.hold(package("1")) as digest:
            first = version("f", digest, last_update_status="InProgress")
            await store.own.functions.create(first)
        store.own.database._connection.execute("PRAGMA max_page_count = 1")  # which means: as many as there are
        published = replace(first, version="1")
        large = replace(first, description="x" * 20_000, last_update_status="Successful")
        with pytest.raises(DiskFull):
            await store.own.functions.publish(large, published)
        with pytest.raises(DiskFull):
            await store.own.functions.serve(large)
        assert store.own.functions.versions("f") == [first]
        await store.own.functions.settle(large)
        assert store.own.functions.resolve("f") == store.own.functions.described("f") == large
        store.close()
        again = await opened(config)
        recovered = again.own.functions.resolve("f")
        assert recovered == replace(
            first, state="Active", last_update_status="Successful", revision_id=recovered.revision_id
        )
        again.close()

    run(work())


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        store = await opened(config)

        def fail(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO access_keys VALUES ('id', 's', 'd', 'now', 'admin')")
            raise ValueError("after the insert")

        with pytest.raises(ValueError, match="after the insert"):
            await store.own.database.write(fail)
        assert store.own.database.read("SELECT * FROM access_keys") == []
        store.close()

    run(work())


def test_a_database_of_the_first_version(tmp_path: Path) -> None:
    config = configured(tmp_path)
    fields = dataclasses.asdict(version("f", "0" * 64)) | {"extra": [["Tags", '{"a": "b"}']]}
    for name in ("settings", "layers", "unzipped"):
        del fields[name]
    connection = sqlite3.connect(config.service_dir / "sandboxd.db", isolation_level=None)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    row = ("f", "$LATEST", "0" * 64, json.dumps(fields))
    connection.execute("INSERT INTO function_versions VALUES (?, ?, ?, ?)", row)
    connection.execute("INSERT INTO access_keys VALUES ('AKIA', 'secret', '', 'now')")
    connection.execute("PRAGMA user_version = 1")
    connection.close()

    async def work() -> None:
        store = await opened(config)
        (function,) = store.own.functions.all()
        assert (function.name, function.settings, function.layers) == ("f", (), ())
        assert store.own.settings.get("Tags", "f") == {"a": "b"}
        assert store.own.keys.user("AKIA") == "admin"
        store.close()

    run(work())


def test_an_account_that_the_configuration_takes_for_its_own(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        stores = await opened(config)
        await stores.create("222222222222")
        stores.close()
        with pytest.raises(SandboxdError, match="account_id"):
            await opened(replace(config, account_id="222222222222"))

    run(work())


def test_users_of_other_accounts_move_into_theirs(tmp_path: Path) -> None:
    config, other = configured(tmp_path), "222222222222"
    connection = sqlite3.connect(config.service_dir / "sandboxd.db", isolation_level=None)
    migrate(connection, MIGRATIONS[:2])
    for name, account in (("alice", ""), ("bob", other), ("carol", config.account_id)):
        record = {"name": name, "account": account, "create_date": "now", "documents": {}}
        connection.execute("INSERT INTO principals VALUES ('user', ?, ?)", (name, json.dumps(record)))
        connection.execute("INSERT INTO access_keys VALUES (?, 's', 'd', 'now', ?)", (name.upper(), name))
    connection.close()

    async def work() -> None:
        for _ in range(2):
            stores = await opened(config)
            assert {store.account for store in stores} == {config.account_id, other}
            assert [user.name for user in stores.own.users.all()] == ["admin", "alice", "carol"]
            theirs = stores.get(other)
            assert theirs is not None and [user.name for user in theirs.users.all()] == ["admin", "bob"]
            whose = {key_id: stores.key(key_id) for key_id in ("ALICE", "BOB", "CAROL")}
            assert {key and (key.account, key.user) for key in whose.values()} == {
                (config.account_id, "alice"), (other, "bob"), (config.account_id, "carol"),
            }  # fmt: skip
            assert [key.id for key in stores.own.keys.all()] == ["ALICE", "CAROL"]
            stores.close()

    run(work())


def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    config = configured(tmp_path)
    connection = sqlite3.connect(config.service_dir / "sandboxd.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SandboxdError, match="schema 99"):
        run(opened(config))


def test_keys_of_before_there_were_users_are_the_administrators(tmp_path: Path) -> None:
    config = configured(tmp_path)
    connection = sqlite3.connect(config.service_dir / "sandboxd.db", isolation_level=None)
    migrate(connection, MIGRATIONS[:1])
    connection.execute("INSERT INTO access_keys VALUES ('id', 's', 'd', '2026')")
    connection.close()

    async def work() -> None:
        store = await opened(config)
        assert [(key.id, key.user) for key in store.own.keys.all()] == [("id", "admin")]
        (admin,) = store.own.users.all()
        assert admin.name == "admin" and len(admin.policies()) == 1
        store.close()

    run(work())


CREATE_UNTIL_KILLED = """
import asyncio, itertools, sys
from pathlib import Path
from tests.store.test_store import configured, opened, package, version
async def main():
    config = configured(Path(sys.argv[1]))
    store = await opened(config)
    for number in itertools.count(1 + max((int(shown.name[1:]) for shown in store.own.functions.all()), default=-1)):
        async with store.code.hold(package(str(number))) as digest:
            await store.own.functions.create(version(f"f{number}", digest))
        print(number, flush=True)
        if number % 3 == 2:
            await store.own.delete_function(f"f{number - 1}")
            store.code.drop_unused(__import__("hashlib").sha256(package(str(number - 1))).hexdigest())
asyncio.run(main())
"""


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    """What was acknowledged is there, what was not is there as a whole or not at all, and nothing else is."""
    config = configured(tmp_path)
    moments = random.Random(9)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", CREATE_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first
        time.sleep(moments.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        acknowledged = (first + process.stdout.read()).split()
        process.wait()
        process.stdout.close()

        async def look(last: list[str]) -> None:
            store = await opened(config)
            used = {shown.code_digest for shown in store.own.functions.all()}
            assert names(config.code_dir) == names(config.service_dir / "zips") == used
            for shown in store.own.functions.all():
                assert shown.state == "Active"
                with contextlib.closing(store.code.read(shown.code_digest)) as pieces:
                    data = b"".join([piece async for piece in pieces])
                assert hashlib.sha256(data).hexdigest() == shown.code_digest
            assert store.own.functions.resolve(f"f{last[-1]}") is not None
            store.close()

        run(look(acknowledged))
