"""Temporary credentials of functions whose role is kept here: made for an environment, judged without being kept.

Room: service. May: make keys of a secret that dies with the process, as every environment does.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp.html
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sandboxd.errors import ApiError
from sandboxd.model.function import FunctionVersion

SECONDS = 12 * 3600  # how long credentials are good for


@dataclass(frozen=True, slots=True)
class Session:
    """Whose credentials are: a function with its role, while its account's store is the one of then."""

    role: str
    name: str
    arn: str
    store: str

    @property
    def account(self) -> str:
        """The function's account."""
        return self.arn.split(":", 5)[4]


class Sessions:
    """Makes session tokens, and reads them: what a token says is under a code that only this process can make."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._key, self._now = os.urandom(32), now

    def credentials(self, function: FunctionVersion, store: str) -> dict[str, str]:
        """New credentials, as environment variables. `store` is the incarnation of that of the function's account."""
        session = Session(function.role, function.name, function.arn, store)
        says = json.dumps(asdict(session) | {"expires": int(self._now()) + SECONDS}).encode()
        token = f"{_text(says)}.{_text(self._code(says, 'token'))}"
        key_id, secret = self._pair(says)
        return {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}

    def secret(self, key_id: str, token: str) -> str | None:
        """The secret of a key's id with its token, None where that is none of ours. Raises ApiError where it is old."""
        says = self._read(token)
        if says is None:
            return None
        if json.loads(says)["expires"] < self._now():
            raise ApiError("ExpiredTokenException", "The security token included in the request is expired", 403)
        known, secret = self._pair(says)
        return secret if hmac.compare_digest(known.encode(), key_id.encode()) else None

    def session(self, token: str) -> Session:
        """Whose a token is, after `secret` found it good."""
        says = self._read(token)
        assert says is not None
        members = json.loads(says)
        return Session(members["role"], members["name"], members["arn"], members["store"])

    def _read(self, token: str) -> bytes | None:
        text, _, code = token.partition(".")
        try:
            says, given = base64.urlsafe_b64decode(text), base64.urlsafe_b64decode(code)
        except ValueError:  # of other letters, or not of base64
            return None
        return says if hmac.compare_digest(given, self._code(says, "token")) else None

    def _pair(self, says: bytes) -> tuple[str, str]:
        digits = base64.b32encode(self._code(says, "id")).decode()
        return f"ASIA{digits[:16]}", base64.b64encode(self._code(says, "secret")).decode()[:40]

    def _code(self, says: bytes, use: str) -> bytes:
        return hmac.digest(self._key, use.encode() + b"\0" + says, "sha256")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
