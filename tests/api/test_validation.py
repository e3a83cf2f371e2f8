"""Documents of requests: what would take many times its bytes is not made."""

import tracemalloc

import pytest

from sandboxd.api.validation import read_json
from sandboxd.errors import ApiError


def test_a_document_of_millions_of_elements_is_not_made() -> None:
    body = b'{"Tags": [' + b"[]," * 1_000_000 + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="more than 10000 members and elements"):
            read_json(body)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
