"""Links under which a function's package can be fetched for ten minutes, as GetFunction's Code.Location.

Room: service. May: sign and check.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable

PREFIX = "/sandboxd/code/"
_SECONDS = 600  # https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html: the link is valid for 10 minutes
_TARGET = re.compile(re.escape(PREFIX) + r"([0-9a-f]{64})\?Expires=(\d{1,12})&Signature=([0-9a-f]{64})")


class Downloads:
    """Makes and checks links. The key lives as long as the process, which a link need not outlive."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._key, self._now = secrets.token_bytes(32), now

    def target(self, digest: str) -> str:
        """Path and query of a link to the package with this digest."""
        expires = str(int(self._now()) + _SECONDS)
        return f"{PREFIX}{digest}?Expires={expires}&Signature={self._signature(digest, expires)}"

    def digest(self, target: str) -> str | None:
        """The digest that a link is for, or None where it is not ours or has expired."""
        match = _TARGET.fullmatch(target)
        if match is None or int(match[2]) < self._now():
            return None
        return match[1] if hmac.compare_digest(self._signature(match[1], match[2]), match[3]) else None

    def _signature(self, digest: str, expires: str) -> str:
        return hmac.digest(self._key, f"{digest} {expires}".encode(), "sha256").hex()
