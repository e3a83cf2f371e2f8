"""Lists in pages: each item has a position, a text that sorts as the list does, and a marker holds the last one's.

Room: service. May: read markers that a client sends back, and trust nothing of them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar

from sandboxd.api.errors import invalid_parameter

T = TypeVar("T")

LARGEST = 50  # https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctions.html


def read_marker(members: Mapping[str, Any]) -> str:
    """The position behind which a page begins; it is before every other where there is no marker."""
    try:
        return base64.b64decode(members.get("Marker", ""), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid_parameter("Invalid Marker") from None


def page(
    items: Iterable[T], members: Mapping[str, Any], position: Callable[[T], str], largest: int = LARGEST
) -> tuple[list[T], dict[str, str]]:
    """The first of `items`, which begin behind the marker, and NextMarker where there are more."""
    count = min(members.get("MaxItems", largest), largest)
    found = list(islice(items, count + 1))
    if len(found) <= count:
        return found, {}
    return found[:count], {"NextMarker": base64.urlsafe_b64encode(position(found[count - 1]).encode()).decode()}
