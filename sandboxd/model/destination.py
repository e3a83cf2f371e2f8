"""Where records of events go that are no function's: what the configuration names behind an ARN.

Room: model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

_SPOOL = re.compile(r"file:([A-Za-z0-9][A-Za-z0-9._-]{0,63})")
_ENDPOINT = re.compile(r"http://(\[[0-9a-f:]+\]|[0-9.]+):(\d{1,5})(/[!-~]{0,1024})?")
ALLOWED = '"file:NAME" or "http://ADDRESS:PORT/PATH"'


@dataclass(frozen=True, slots=True)
class Spool:
    """A directory below `service_dir/spool` that gets a file for each record."""

    name: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An HTTP endpoint that every record is POSTed to."""

    host: str
    port: int
    path: str


Destination = Spool | Endpoint


def parse(text: str) -> Destination:
    """The destination that the configuration writes as `text`. Raises ValueError with what is allowed.

    An endpoint has an address, not a name: the service asks nobody for names of its own.
    """
    spool = _SPOOL.fullmatch(text)
    if spool:
        return Spool(spool[1])
    endpoint = _ENDPOINT.fullmatch(text)
    if endpoint is None or not 0 < int(endpoint[2]) < 1 << 16:
        raise ValueError(ALLOWED)
    try:
        host = str(ip_address(endpoint[1].strip("[]")))
    except ValueError:
        raise ValueError(ALLOWED) from None
    return Endpoint(host, int(endpoint[2]), endpoint[3] or "/")
