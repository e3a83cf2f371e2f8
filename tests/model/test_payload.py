"""What is JSON: the collector takes no part in finding it out."""

import gc

import pytest

from sandboxd.model.payload import check_json


def test_lists_by_the_million_are_checked_without_the_collector() -> None:
    ran: list[str] = []
    gc.callbacks.append(lambda phase, _: ran.append(phase))
    try:
        check_json(b"[" + b"[]," * 1_000_000 + b"[]]")
        with pytest.raises(ValueError, match="nesting depth"):
            check_json(b"[" * 100_000)
    finally:
        gc.callbacks.pop()
    assert ran == [] and gc.isenabled()
