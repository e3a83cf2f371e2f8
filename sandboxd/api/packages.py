"""Packages that requests bring, or name in a bucket: kept for their length, or refused in AWS's words.

Room: service. May: what the store's packages may, ask S3. May not: hold a package of a bucket in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from sandboxd.api.errors import invalid_parameter, not_offered_member, s3_denied
from sandboxd.errors import ApiError, PackageRejected
from sandboxd.model.limits import Limits
from sandboxd.services.s3 import S3, S3Object
from sandboxd.services.signed import ServiceError
from sandboxd.store.code import Code

_FETCHED_AT_ONCE = 8
_FETCH_SECONDS = 300  # for a whole object
_AROUND_FILES = 16 << 20  # bytes of a zip that are no file's content: names, the directory
_NOT_A_ZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."
_EMPTY = "Uploaded file must be a non-empty zip"
_REASONS = {
    "ABSOLUTE_NAME": "an entry has an absolute name",
    "PARENT_NAME": "an entry has .. in its name",
    "LINK": "an entry is a link",
    "SPECIAL_FILE": "an entry is a device, a socket or a pipe",
    "DUPLICATE_NAME": "two entries have the same name",
    "BAD_NAME": "an entry has a name that no file can have",
}


_log = logging.getLogger("sandboxd.api")

Source = bytes | S3Object


class Packages:
    """Where packages come from: out of requests, and from the buckets at the services' endpoint, if there is one."""

    def __init__(self, code: Code, limits: Limits, s3: S3 | None) -> None:
        self._code, self._limits, self._s3 = code, limits, s3
        self._turns = asyncio.Semaphore(_FETCHED_AT_ONCE)

    def source(self, members: Mapping[str, Any]) -> Source:
        """The source that the members of a request name. Raises ApiError where there is none, or one too large."""
        for member in ("S3ObjectStorageMode", "ImageUri", "SourceKMSKeyArn"):
            if member in members:
                raise not_offered_member(f"{member} as a source of code (ZipFile is)")
        found = [member for member in ("S3Bucket", "S3Key", "S3ObjectVersion") if member in members]
        package = members.get("ZipFile")
        if package is None:
            return self._object(members, found)
        if found:
            raise invalid_parameter("Please do not provide other FunctionCode parameters when providing a ZipFile.")
        if not package:
            raise invalid_parameter(_EMPTY)
        if len(package) > self._limits.zip_bytes:
            text = f"Zipped size must be smaller than {self._limits.zip_bytes} bytes"
            raise ApiError("RequestEntityTooLargeException", text, 413)
        assert isinstance(package, bytes)
        return package

    @contextlib.asynccontextmanager
    async def held(self, source: Source) -> AsyncIterator[tuple[str, int]]:
        """A package, durable and unpacked for the length of the block: its digest in hex, and its size in bytes.

        Raises ApiError in AWS's words, which are S3's where the package is there.
        """
        try:
            if isinstance(source, bytes):
                async with self._code.hold(source) as digest:
                    yield digest, len(source)
            else:
                async with (
                    contextlib.aclosing(self._fetch(source)) as pieces,
                    self._code.hold_pieces(pieces) as (digest, size),
                ):
                    yield digest, size
        except (PackageRejected, OSError) as error:
            raise package_error(error, self._limits) from error

    def _object(self, members: Mapping[str, Any], found: list[str]) -> S3Object:
        if found and self._s3 is None:
            raise invalid_parameter(
                f"sandboxd does not offer {found[0]} as a source of code (ZipFile is): its configuration names no "
                "endpoint_url under [services]"
            )
        if "S3Bucket" not in found or "S3Key" not in found:
            raise invalid_parameter("Please provide a source for function code.")
        wanted = S3Object(members["S3Bucket"], members["S3Key"], members.get("S3ObjectVersion"))
        try:
            wanted.target  # noqa: B018
        except ValueError as error:
            raise not_offered_member(f"{error} in S3Key") from None
        return wanted

    async def _fetch(self, wanted: S3Object) -> AsyncGenerator[bytes, None]:
        """An object as it comes. Raises ApiError."""
        assert self._s3 is not None
        size, limit, clock = 0, self._limits.unzipped_bytes + _AROUND_FILES, asyncio.get_running_loop().time
        try:
            async with self._turns, self._s3.get(wanted) as answer:
                deadline = clock() + _FETCH_SECONDS
                announced = int(answer.headers.get("content-length", 0))
                async for piece in answer.pieces():
                    size += len(piece)
                    if max(size, announced) > limit:
                        raise PackageRejected("TOO_LARGE")
                    if clock() > deadline:
                        raise TimeoutError(errno.ETIMEDOUT, f"it took longer than {_FETCH_SECONDS} s")
                    yield piece
        except ServiceError as error:
            raise _refused(error, wanted) from None
        except OSError as error:
            _log.warning("%s/%s: %s", wanted.bucket, wanted.key, error)
            text = "Error occurred while GetObject: the endpoint of S3 gave no answer, or not all of it."
            raise ApiError("ServiceException", text, 500, fault="Service") from None


def _refused(error: ServiceError, wanted: S3Object) -> ApiError:
    """AWS's words around S3's."""
    words = f"S3 Error Code: {error.code}. S3 Error Message: {error.message}"
    if error.status == 403:
        return s3_denied(wanted.bucket, wanted.key, words)
    text = f"Error occurred while GetObject. {words}"
    return invalid_parameter(text) if error.status < 500 else ApiError("ServiceException", text, 500, fault="Service")


def package_error(error: PackageRejected | OSError, limits: Limits) -> ApiError:
    """The answer where a package could not be kept or unpacked. An OSError that is not the disk's is raised again."""
    if isinstance(error, OSError):
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        return _disk_full("code packages")
    match error.reason:
        case "TOO_LARGE":
            return invalid_parameter(f"Unzipped size must be smaller than {limits.unzipped_bytes} bytes")
        case "TOO_MANY_ENTRIES":
            return invalid_parameter(f"{_NOT_A_ZIP} Reason: it has more than {limits.zip_entries} entries.")
        case "EMPTY":
            return invalid_parameter(_EMPTY)
        case "NOT_A_ZIP" | "CORRUPT":
            return invalid_parameter(_NOT_A_ZIP)
        case "DISK_FULL":
            return _disk_full("unpacked code")
        case reason if reason in _REASONS:
            return invalid_parameter(f"{_NOT_A_ZIP} Reason: {_REASONS[reason]}.")
    return ApiError("ServiceException", "The code package could not be unpacked.", 500, fault="Service")


def _disk_full(what: str) -> ApiError:
    return ApiError("CodeStorageExceededException", f"Code storage limit exceeded: the disk for {what} is full.")
