"""Where something answers HTTP, as the configuration writes it.

Room: model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

_URL = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[A-Za-z0-9.-]{1,253})(?::(\d{1,5}))?(/[!\"$-~]{0,1024})?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host name or address, a port, a path with its query, and whether it is spoken to by TLS."""

    host: str
    port: int
    path: str
    tls: bool = False

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def scheme(self) -> str:
        """`https` or `http`."""
        return "https" if self.tls else "http"


def parse(text: str) -> Endpoint:
    """The endpoint of a URL. Raises ValueError."""
    url = _URL.fullmatch(text)
    if url is None:
        raise ValueError(text)
    scheme, host, port = url[1], url[2], int(url[3] or _PORTS[url[1]])
    if not 0 < port < 1 << 16:
        raise ValueError(text)
    # What ends in a number is an address to everybody who looks names up (https://url.spec.whatwg.org/#ends-in-a-number-checker).
    if host.startswith("[") or host.rpartition(".")[2].isdigit():
        host = str(ip_address(host.strip("[]")))
    elif not _NAME.fullmatch(host):
        raise ValueError(text)
    return Endpoint(host, port, url[4] or "/", scheme == "https")
