"""AWS Signature Version 4, the checking side, for requests that are signed in their headers.

Room: service. May: read a request's head, the store's keys. May not: see what the request is for.

botocore only signs. What it would canonicalise is a dozen lines; signer and verifier are held together by tests that
sign with botocore.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

from sandboxd.errors import ApiError

_ALGORITHM = "AWS4-HMAC-SHA256"
_TERMINATOR = "aws4_request"
_SKEW = 300  # seconds
_CACHED_KEYS = 1024
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+")
_ISO_BASIC = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z")
_SPACES = re.compile(" +")


class Verifier:
    """Checks signatures made with keys that `secret_of` knows by id and session token, for one region of lambda."""

    def __init__(
        self, secret_of: Callable[[str, str | None], str | None], region: str, now: Callable[[], float] = time.time
    ) -> None:
        self._secret_of, self._region, self._now = secret_of, region, now
        self._signing_keys: dict[tuple[str, str], bytes] = {}

    def verify(self, method: str, target: str, headers: Mapping[str, str], payload_hash: str) -> str:
        """The id of the key that signed the request. Raises ApiError in AWS's words.

        `payload_hash` is the SHA-256 of the body in hex.
        """
        key_id, secret, scope, timestamp, signed_names, signature = self.check_head(headers)
        self._check_coverage(headers, signed_names, payload_hash)
        canonical = _canonical_request(method, target, headers, signed_names, payload_hash)
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        signed = f"{_ALGORITHM}\n{timestamp}\n{'/'.join(scope)}\n{digest}"
        expected = hmac.digest(self._signing_key(secret, scope[0]), signed.encode("latin-1"), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature.encode("latin-1")):
            raise _invalid(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                "Access Key and signing method. Consult the service documentation for details."
            )
        return key_id

    def check_head(self, headers: Mapping[str, str]) -> tuple[str, str, list[str], str, list[str], str]:
        """What can be judged before the body is there: that a known key signed lately, and for this service.

        The key's id and secret, the scope, the timestamp, the signed headers' names and the signature, which is not
        checked. Raises ApiError.
        """
        authorization = headers.get("authorization")
        if authorization is None:
            raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        credential, signed_names, signature = _parse(authorization, headers)
        parts = credential.split("/")
        if len(parts) != 5:
            raise _incomplete(f"Credential must have exactly 5 slash-delimited elements, got: {credential[:200]!r}")
        secret = self._secret_of(parts[0], headers.get("x-amz-security-token"))
        if secret is None:
            text = "The security token included in the request is invalid."
            raise ApiError("UnrecognizedClientException", text, 403)
        timestamp = _timestamp(headers)
        self._check_scope(parts[1:], timestamp)
        self._check_clock(timestamp)
        return parts[0], secret, parts[1:], timestamp, signed_names, signature

    def _check_scope(self, scope: list[str], timestamp: str) -> None:
        date, region, service, terminator = scope
        if terminator != _TERMINATOR:
            raise _invalid(f"Credential should be scoped with a valid terminator: '{_TERMINATOR}'.")
        if service != "lambda":
            raise _invalid("Credential should be scoped to correct service: 'lambda'.")
        if region != self._region:
            raise _invalid(f"Credential should be scoped to a valid region: '{self._region}'.")
        if date != timestamp[:8]:
            raise _invalid(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{date[:20]}' != '{timestamp[:8]}', from '{timestamp}'."
            )

    def _check_clock(self, timestamp: str) -> None:
        match = _ISO_BASIC.fullmatch(timestamp)
        assert match is not None
        try:
            signed_at = calendar.timegm(tuple(map(int, match.groups())))
        except ValueError:
            raise _incomplete(f"Date must be in ISO-8601 'basic format'. Got '{timestamp}'.") from None
        now = self._now()
        if signed_at < now - _SKEW:
            limit = f"{_iso(now - _SKEW)} ({_iso(now)} - 5 min.)"
            raise _invalid(f"Signature expired: {timestamp} is now earlier than {limit}")
        if signed_at > now + _SKEW:
            limit = f"{_iso(now + _SKEW)} ({_iso(now)} + 5 min.)"
            raise _invalid(f"Signature not yet current: {timestamp} is still later than {limit}")

    def _check_coverage(self, headers: Mapping[str, str], signed_names: list[str], payload_hash: str) -> None:
        # A header that changes what a request means has to be under the signature, or whoever stands between could
        # add it.
        unsigned = [name for name in headers if name.startswith("x-amz-") and name not in signed_names]
        if "host" not in signed_names or unsigned:
            names = ", ".join(unsigned) or "host"
            raise _invalid(f"There were headers present in the request which were not signed: {names}")
        if any(name not in headers for name in signed_names):
            raise _invalid("A header named in SignedHeaders is not in the request.")
        if headers.get("x-amz-content-sha256", payload_hash) != payload_hash:
            raise _invalid("The provided 'x-amz-content-sha256' header does not match what was computed.")

    def _signing_key(self, secret: str, date: str) -> bytes:
        key = self._signing_keys.get((secret, date))
        if key is None:
            key = ("AWS4" + secret).encode()
            for part in (date, self._region, "lambda", _TERMINATOR):
                key = hmac.digest(key, part.encode("latin-1"), "sha256")
            if len(self._signing_keys) >= _CACHED_KEYS:
                self._signing_keys.clear()
            self._signing_keys[secret, date] = key
        return key


def _parse(authorization: str, headers: Mapping[str, str]) -> tuple[str, list[str], str]:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != _ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{algorithm[:100]}'.")
    fields = {}
    for field in rest.split(","):
        name, _, value = field.strip().partition("=")
        fields[name] = value
    wanted = ("Credential", "Signature", "SignedHeaders")
    missing = [f"Authorization header requires '{name}' parameter." for name in wanted if not fields.get(name)]
    if "x-amz-date" not in headers and "date" not in headers:
        missing.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if missing:
        raise _incomplete(" ".join(missing))
    return fields["Credential"], fields["SignedHeaders"].split(";"), fields["Signature"]


def _timestamp(headers: Mapping[str, str]) -> str:
    text = headers.get("x-amz-date", "")
    if not text and "date" in headers:
        try:
            text = _iso(parsedate_to_datetime(headers["date"]).timestamp())
        except (ValueError, OverflowError):
            text = headers["date"]
    if not _ISO_BASIC.fullmatch(text):
        raise _incomplete(f"Date must be in ISO-8601 'basic format'. Got '{text[:100]}'.")
    return text


def _canonical_request(
    method: str, target: str, headers: Mapping[str, str], signed_names: list[str], payload_hash: str
) -> str:
    path, _, query = target.partition("?")
    if not _PLAIN_PATH.fullmatch(path):
        path = _canonical_path(path)
    lines = [f"{name}:{_SPACES.sub(' ', headers[name].strip())}" for name in signed_names]
    return "\n".join(
        (method, path, _canonical_query(query), *lines, "", ";".join(signed_names), payload_hash),
    )


def _canonical_path(path: str) -> str:
    # What stands in the request line is encoded once; every service but S3 has it encoded once more to sign it.
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            segments[-1:] = []
        elif segment not in ("", "."):
            segments.append(segment)
    slash = "/" if segments and path.endswith("/") else ""
    return quote("/" + "/".join(segments) + slash, safe="/~", encoding="latin-1")


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, value in sorted((_encode(p[0]), _encode(p[2])) for p in pairs))


def _encode(text: str) -> str:
    return quote(unquote(text, "latin-1"), safe="-_.~", encoding="latin-1")


def _iso(moment: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))


def _invalid(text: str) -> ApiError:
    return ApiError("InvalidSignatureException", text, 403)


def _incomplete(text: str) -> ApiError:
    return ApiError("IncompleteSignatureException", text, 403)
