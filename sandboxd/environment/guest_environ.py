"""The environment variables of the function's process, as AWS gives them, in a sealed memfd.

Room: service. May: make a memfd. May not: leave it writable: the builder passes it on unread.

Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from types import MappingProxyType

from sandboxd.model.function import FunctionVersion

RUNTIME_API = "127.0.0.1:9001"
INVOKE_DOOR = "127.0.0.1:9002"

# What a function's configuration may not set.
RESERVED = frozenset({
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "TZ",
})  # fmt: skip

_ORDINARY = {
    "LANG": "en_US.UTF-8",
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
}

_EVERYWHERE = {
    "AWS_LAMBDA_RUNTIME_API": RUNTIME_API,
    "LAMBDA_TASK_ROOT": "/var/task",
    "LAMBDA_RUNTIME_DIR": "/var/runtime",
    "TZ": ":UTC",
}

_AT_EXEC = (
    "LD_", "LC_", "LANG", "LOCPATH", "GCONV_", "GLIBC_", "MALLOC_", "PATH", "PYTHON", "NODE_", "UV_", "OPENSSL_",
    "AWS_LAMBDA_",
)  # fmt: skip

# The door inside the sandbox knows its function by the descriptor; an SDK signs with these all the same.
_PLACEHOLDER_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "ASIASANDBOXDINVOKE00",
    "AWS_SECRET_ACCESS_KEY": "placeholder-the-door-asks-for-no-signature",
    "AWS_SESSION_TOKEN": "placeholder",
    "AWS_ENDPOINT_URL_LAMBDA": f"http://{INVOKE_DOOR}",
}

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def variables(
    function: FunctionVersion,
    region: str,
    log_stream: str,
    ahead: bool = False,
    credentials: Mapping[str, str] = MappingProxyType({}),
    services: str = "",
) -> dict[str, str]:
    """The whole process environment of a function version; the function's own variables override nothing reserved.

    `ahead`: it is initialised before there is an invocation for it. `credentials` are those of its role, if any.
    `services`: where its clients of AWS's services find these, unless it says so itself.
    """
    elsewhere = {"AWS_ENDPOINT_URL": services} if services else {}
    door = _PLACEHOLDER_CREDENTIALS if function.policy.invoke else {}
    reserved = {
        "_HANDLER": function.handler,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency" if ahead else "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
    }
    if boots_ahead(function.runtime):  # not of a runtime that the function brings along
        reserved["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{function.runtime}"
    own = {key: value for key, value in function.variables or () if key not in RESERVED}
    return _ORDINARY | elsewhere | door | own | dict(credentials) | reserved | _logging(function) | _EVERYWHERE


def of_stem(memory_mb: int) -> dict[str, str]:
    """The environment variables of a runtime that is booted ahead; those of its function come when it has one.

    `memory_mb` is what `told_at_boot` says of its functions.
    """
    told = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb)} if memory_mb else {}
    return _ORDINARY | told | _EVERYWHERE


def told_at_boot(function: FunctionVersion) -> int:
    """What a function's runtime has to know of its memory as it boots, in MB; 0: nothing.

    V8 takes the limits of its heap when it makes it, and never again.
    """
    return function.memory_size if function.runtime.startswith("nodejs") else 0


def boots_ahead(runtime: str) -> bool:
    """Whether the runtime is the image's, and not a program in the function's package."""
    return not runtime.startswith("provided.")


def read_at_exec(function: FunctionVersion) -> bool:
    """Whether the function has a part in how its runtime starts: its program, or a variable that is read then."""
    own = any(key.startswith(_AT_EXEC) for key, _ in function.variables or ())
    return own or not boots_ahead(function.runtime) or function.logging.get("LogFormat") == "JSON"


def _logging(function: FunctionVersion) -> dict[str, str]:
    """What tells the runtime client in which form, and from which level on, to write what the function logs."""
    logging = function.logging
    found = {"AWS_LAMBDA_LOG_GROUP_NAME": logging["LogGroup"]} if "LogGroup" in logging else {}
    if logging.get("LogFormat") == "JSON":
        found |= {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": logging["ApplicationLogLevel"]}
    return found


def log_stream_name(date: str, version: str) -> str:
    """The name of an environment's log stream: `date` as YYYY/MM/DD, then version and a number of its own."""
    return f"{date}/[{version}]{os.urandom(16).hex()}"


def encode(environ: Mapping[str, str]) -> bytes:
    """The bytes that the builder passes to execve, `KEY=VALUE\\0` each. Raises ValueError where one cannot be said."""
    for key, value in environ.items():
        if not key or "=" in key or "\0" in key or "\0" in value:
            raise ValueError(f"environment variable {key!r} cannot be given to a process")
    return "".join([f"{key}={value}\0" for key, value in environ.items()]).encode("utf-8", "replace")


def sealed(environ: Mapping[str, str]) -> int:
    """A memfd that holds the variables and that nobody can change any more; the caller's to close."""
    data = encode(environ)
    descriptor = os.memfd_create("environ", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, data)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
