"""The service's end of the door when the builder is gone."""

from __future__ import annotations

import asyncio

import pytest

from sandboxd.privsep import channel as door
from sandboxd.privsep.client import BuilderGone, Client


def test_whoever_asks_a_builder_that_ended_is_told_so() -> None:
    async def work() -> None:
        ours, theirs = door.pair()
        gone: list[str] = []
        client = Client(ours, on_exited=lambda _: None, on_gone=gone.append)
        theirs.close()
        client.remove_code(bytes(32))  # nobody waits for an answer, and nothing is raised
        assert gone
        with pytest.raises(BuilderGone):
            await client.destroy(1)
        client.close()
        client.remove_code(bytes(32))

    asyncio.run(work())
