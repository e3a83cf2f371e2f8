"""Where records of events go that are no function's: what the configuration names behind an ARN.

Room: model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandboxd.model import endpoint
from sandboxd.model.endpoint import Endpoint

_SPOOL = re.compile(r"file:([A-Za-z0-9][A-Za-z0-9._-]{0,63})")
ALLOWED = '"file:NAME", or "http://HOST:PORT/PATH", or the same with https'


@dataclass(frozen=True, slots=True)
class Spool:
    """A directory below `service_dir/spool` that gets a file for each record."""

    name: str


Destination = Spool | Endpoint  # which every record is POSTed to


def parse(text: str) -> Destination:
    """The destination that the configuration writes as `text`. Raises ValueError with what is allowed."""
    spool = _SPOOL.fullmatch(text)
    if spool:
        return Spool(spool[1])
    try:
        return endpoint.parse(text)
    except ValueError:
        raise ValueError(ALLOWED) from None
