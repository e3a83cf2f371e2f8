"""Packages that requests bring: kept for their length, or refused in AWS's words.

Room: service. May: what the store's packages may.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Mapping
from typing import Any

from sandboxd.api.errors import invalid_parameter, not_offered_member
from sandboxd.errors import ApiError, PackageRejected
from sandboxd.model.limits import Limits
from sandboxd.store.code import Code

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


def package_of(code: Mapping[str, Any], limits: Limits) -> bytes:
    """The zip in the members of a request. Raises ApiError where there is none, or one too large."""
    for member in ("S3Bucket", "S3Key", "S3ObjectVersion", "S3ObjectStorageMode", "ImageUri", "SourceKMSKeyArn"):
        if member in code:
            raise not_offered_member(f"{member} as a source of code (ZipFile is)")
    package = code.get("ZipFile")
    if package is None:
        raise invalid_parameter("Please provide a source for function code.")
    if not package:
        raise invalid_parameter(_EMPTY)
    if len(package) > limits.zip_bytes:
        text = f"Zipped size must be smaller than {limits.zip_bytes} bytes"
        raise ApiError("RequestEntityTooLargeException", text, 413)
    assert isinstance(package, bytes)
    return package


@contextlib.asynccontextmanager
async def held(code: Code, package: bytes, limits: Limits) -> AsyncIterator[str]:
    """`Code.hold`, with AWS's errors."""
    try:
        async with code.hold(package) as digest:
            yield digest
    except (PackageRejected, OSError) as error:
        raise package_error(error, limits) from error


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
