"""Names of runtimes, and what AWS says of those it does not take.

Room: service. May: words.
"""

from __future__ import annotations

import platform

from sandboxd.api.errors import invalid_parameter
from sandboxd.store.images import Images

# In the order in which AWS's own message lists them.
RUNTIMES = (
    "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10, "
    "python3.11, java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, "
    "java11, dotnet6, nodejs18.x, provided.al2, java8.al2"
)
_KNOWN = frozenset(RUNTIMES.split(", "))
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html#runtimes-deprecated
_DEPRECATED = frozenset(
    (
        "dotnet5.0",
        "dotnet7",
        "dotnetcore1.0",
        "dotnetcore2.0",
        "dotnetcore2.1",
        "dotnetcore3.1",
        "go1.x",
        "java8",
        "nodejs",
        "nodejs10.x",
        "nodejs12.x",
        "nodejs14.x",
        "nodejs4.3",
        "nodejs4.3-edge",
        "nodejs6.10",
        "nodejs8.10",
        "provided",
        "python2.7",
        "python3.6",
        "python3.7",
        "ruby2.5",
        "ruby2.7",
    )
)

ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def check_runtime(runtime: str, images: Images) -> None:
    """Raise InvalidParameterValueException unless an image serves the runtime; AWS takes no deprecated one."""
    if runtime in _DEPRECATED:
        raise invalid_parameter(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        )
    if runtime not in _KNOWN and images.digest(runtime) is None:
        raise invalid_parameter(
            f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
            f"[{RUNTIMES}] or be a valid ARN"
        )
    if images.digest(runtime) is None:
        raise invalid_parameter(
            f"The runtime {runtime} has no image on this server. Build it with: sandboxd image build "
            + images.serving(runtime)
        )


def check_architectures(architectures: list[str]) -> None:
    """Raise InvalidParameterValueException unless this server's processor is the one asked for."""
    if architectures != [ARCHITECTURE]:
        raise invalid_parameter(f"This server runs functions for {ARCHITECTURE}, not for {', '.join(architectures)}")
