"""The page of operations says what there is."""

from __future__ import annotations

import pytest

from tests.api.conftest import Endpoint
from tests.support.api_page import PAGE, page


def test_the_page_is_that_of_the_code(endpoint: Endpoint) -> None:
    assert PAGE.read_text() == page(endpoint.api.offered), "python -m tests.support.api_page >docs/api.md"


def test_a_page_that_does_not_fit_is_refused(endpoint: Endpoint) -> None:
    with pytest.raises(ValueError, match="CreateFunction"):
        page(endpoint.api.offered - {"CreateFunction"})
    with pytest.raises(ValueError, match="ListAliases"):
        page(endpoint.api.offered - {"ListAliases"})
    with pytest.raises(ValueError, match="InvokeAsync"):
        page(endpoint.api.offered | {"InvokeAsync"})
