"""Layers in the store: numbers that are given once, packages that are held, and what a sudden end leaves."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandboxd.model.layer import AttachedLayer, LayerVersion, Unzipped
from sandboxd.store.store import Stores
from tests.store.test_store import configured, names, opened, package, run, version


async def publish(store: Stores, text: str, layer: str = "l", **members: Any) -> LayerVersion:
    """Publish a layer as the API does."""
    async with store.code.hold(package(text)) as digest:
        unzipped = store.code.unzipped(digest)
        return await store.own.layers.publish(LayerVersion(layer, 0, digest, 1, unzipped, "now", **members))


async def drop(store: Stores, published: LayerVersion) -> None:
    """Delete a version as the API does."""
    await store.own.layers.delete(published)
    store.code.drop_unused(published.digest)


def test_every_field_survives_and_no_number_comes_twice(tmp_path: Path) -> None:
    config = configured(tmp_path)
    members: dict[str, Any] = {
        "description": "d", "license_info": "MIT", "runtimes": ("python3.13",), "architectures": (), "policy": "{}",
        "policy_revision": "1",
    }  # fmt: skip

    async def work() -> None:
        store = await opened(config)
        first = await publish(store, "one", **members)
        assert first == LayerVersion("l", 1, first.digest, 1, Unzipped(3, 1), "now", **members)
        second = await publish(store, "two")
        await drop(store, second)
        store.close()
        again = await opened(config)
        assert again.own.layers.versions("l") == [first] and list(again.own.layers.names("")) == ["l"]
        assert again.code.unzipped(first.digest) == Unzipped(3, 1)
        await drop(again, first)
        await again.own.layers.delete(first)  # another request was quicker
        await again.own.layers.update(replace(first, policy=""))
        assert again.own.layers.versions("l") == [] and not again.own.layers.uses(first.digest)
        assert names(config.code_dir) == set()
        assert (await publish(again, "three")).version == 3
        again.close()

    run(work())


def test_a_function_holds_its_layers(tmp_path: Path) -> None:
    config = configured(tmp_path)

    async def work() -> None:
        store = await opened(config)
        layer = await publish(store, "layer")
        attached = AttachedLayer("arn:l:1", layer.digest, 1, layer.unzipped)
        async with store.code.hold(package("code")) as digest:
            made = version("f", digest, layers=(attached,), unzipped=Unzipped(4, 1), state="Active")
            await store.own.functions.create(replace(made, last_update_status="Successful"))
        await drop(store, layer)
        assert names(config.code_dir) == {layer.digest, digest}
        store.close()
        (config.service_dir / "zips" / f"{layer.digest}.zip").rename(config.service_dir / "aside")
        (config.code_dir / layer.digest).rename(config.service_dir / "moved")
        lost = await opened(config)
        (shown,) = lost.own.functions.all()
        assert (shown.state, shown.state_reason) == ("Failed", "its layer arn:l:1 is lost")
        assert shown.layers == (attached,)
        lost.close()
        (config.service_dir / "aside").rename(config.service_dir / "zips" / f"{layer.digest}.zip")
        healed = await opened(config)
        assert next(healed.own.functions.all()).state == "Active"
        assert (config.code_dir / layer.digest / "app.py").read_text() == "layer"
        assert healed.code.unzipped(layer.digest) == Unzipped(5, 1)
        await healed.own.delete_function("f")
        healed.code.drop_unused(layer.digest)
        assert names(config.code_dir) == {digest}
        healed.close()

    run(work())


PUBLISH_UNTIL_KILLED = """
import asyncio, itertools, sys
from pathlib import Path
from tests.store.test_layers import configured, drop, opened, publish
async def main():
    store = await opened(configured(Path(sys.argv[1])))
    for number in itertools.count():
        published = await publish(store, str(number))
        print(published.version, flush=True)
        if number % 3 == 2:
            await drop(store, published)
asyncio.run(main())
"""


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    """What was acknowledged is there, what was not is there as a whole or not at all, and nothing else is."""
    config = configured(tmp_path)
    moments, last = random.Random(10), 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISH_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        assert int(first) > last, "a number came twice"
        time.sleep(moments.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        acknowledged = [int(number) for number in (first + process.stdout.read()).split()]
        process.wait()
        process.stdout.close()
        last = acknowledged[-1]

        async def look(numbers: list[int]) -> None:
            store = await opened(config)
            used = {published.digest for published in store.own.layers.every_version()}
            assert names(config.code_dir) == names(config.service_dir / "zips") == used
            dropped = set(numbers[2::3])
            assert set(numbers) - dropped <= {published.version for published in store.own.layers.versions("l")}
            store.close()

        run(look(acknowledged))
