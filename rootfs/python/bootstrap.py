"""Prepare the interpreter as AWS's own bootstrap does, then run AWS's runtime client, unmodified.

Room: guest, the function's own process. May: import the standard library and awslambdaric, as little as can be: every
import here is part of every cold start.

Source: /var/runtime/bootstrap and bootstrap.py of AWS's base images public.ecr.aws/lambda/python, and
https://docs.aws.amazon.com/lambda/latest/dg/python-package.html#python-package-searchpath
"""

import concurrent.futures.thread
import contextlib
import gc
import importlib
import json
import logging
import os
import site
import sys

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
LAYER_DIRECTORIES = (f"/opt/python/lib/{VERSION}/site-packages", "/opt/python")


def run_wrapper() -> None:
    """Hand over to the script that AWS_LAMBDA_EXEC_WRAPPER names, which starts this file again; return where none is.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-modify.html#runtime-wrapper
    """
    wrapper = os.environ.get("AWS_LAMBDA_EXEC_WRAPPER")
    if not wrapper:
        return
    if not os.path.isfile(wrapper):
        print(f"{wrapper}: does not exist", file=sys.stderr)
        sys.exit(127)
    if not os.access(wrapper, os.X_OK):
        print(f"{wrapper}: is not an executable", file=sys.stderr)
        sys.exit(126)
    os.execv(wrapper, [wrapper, f"/usr/bin/{VERSION}", "/var/runtime/bootstrap.py"])


def prepare_paths() -> None:
    """Put the function's code first, then its layers, unless the function's own PYTHONPATH says otherwise."""
    task_root = os.environ["LAMBDA_TASK_ROOT"]
    layers = () if "PYTHONPATH" in os.environ else LAYER_DIRECTORIES
    sys.path[:0] = [task_root, *layers]
    known = set(sys.path)  # handed over, or site would look at every directory of the path each time
    for directory in (task_root, *layers):
        site.addsitedir(directory, known)  # for the .pth files in it
    os.environ.setdefault("PYTHONPATH", os.environ["LAMBDA_RUNTIME_DIR"])


def main() -> None:
    """Serve invocations until the sandbox ends."""
    os.environ["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{VERSION}"
    run_wrapper()
    serve()


def await_orders() -> None:
    """As a stem, booted before there is a function: wait for its variables; its code is in place when they come.

    Descriptor 3 is open only in a stem. It brings `KEY=VALUE` with a NUL behind each, and a NUL behind all.
    """
    variables = b""
    try:
        os.fstat(3)
        while not variables.endswith(b"\0\0"):
            variables += os.read(3, 65536) or sys.exit(0)  # nothing more: there will be no function
    except OSError:
        return
    os.close(3)
    for variable in variables.split(b"\0")[:-2]:
        key, _, value = variable.partition(b"=")
        os.environb[key] = value
    os.environ["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{VERSION}"
    os.chdir(os.environ["LAMBDA_TASK_ROOT"])


def rehearse() -> None:
    """As a stem, touch what lies on the way to the first event.

    A page that a fork shares is copied when it is first written to, which every reference to an object does. That is
    most of what a first invocation would take, and here nobody waits yet.
    """
    try:
        os.fstat(3)
    except OSError:
        return
    os.environb[b"_"] = b""
    del os.environb[b"_"]
    task_root = os.environ["LAMBDA_TASK_ROOT"]
    site.addsitedir(task_root, {task_root})
    with contextlib.suppress(ImportError):
        importlib.import_module("no.such_module")
    exec(compile("def handler(event, context):\n    return event\n", "rehearsal", "exec"), {})
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(json.loads, '{"a": "b"}').result()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().removeHandler(handler)


def serve() -> None:
    """Become the runtime client, which takes the handler's name as its argument."""
    # Before the function's own directories are on the path: its json.py must not become the client's.
    gc.disable()  # nothing of 60 modules is garbage: half a millisecond of every cold start
    import awslambdaric.lambda_literals  # noqa: F401
    import zygote
    from awslambdaric.__main__ import main as client

    gc.enable()
    del sys.modules["zygote"]  # a function may have a module of that name
    zygote.serve()
    rehearse()
    await_orders()
    prepare_paths()
    client([os.environ["LAMBDA_TASK_ROOT"], os.environ["_HANDLER"]])


if __name__ == "__main__":
    serve()
