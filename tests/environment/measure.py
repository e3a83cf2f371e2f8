"""What a warm invocation costs in the service: `.venv/bin/python -m tests.environment.measure [COUNT]`.

Prints medians, in microseconds, of Environment.run alone and through the Scheduler: with AWS's client as the runtime,
and with a runtime that does nothing but the two requests on a blocking socket.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from sandboxd.environment.logs import Logs
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult
from sandboxd.scheduler.scheduler import Scheduler
from tests.environment.loopback import (
    IMAGE,
    RUNTIME,
    LoopbackBuilder,
    Stage,
    make_config,
    make_function,
    make_invocation,
    no_door,
    run,
)

BARE = """
import os, socket
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
s = socket.create_connection((host, int(port)))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while True:
    s.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    event = s.recv(65536)
    at = event.index(b"Aws-Request-Id: ") + 16
    number = event[at : at + 36]
    s.sendall(b"POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\\r\\nContent-Length: 2\\r\\n\\r\\n{}" % number)
    s.recv(65536)
"""
HANDLER = "def handler(event, context): return {}"
Run = Callable[[Invocation], Awaitable[InvocationResult]]


async def median(function: FunctionVersion, run_one: Run, count: int, rest: Callable[[], None], pause: float) -> str:
    took = []
    cpu = time.process_time()
    for _ in range(count):
        call = make_invocation(function, tail=False)
        began = time.perf_counter()
        await run_one(call)
        took.append(time.perf_counter() - began)
        rest()
        if pause:
            await asyncio.sleep(pause)
    cpu = (time.process_time() - cpu) / count
    p50, p90 = statistics.median(took), statistics.quantiles(took, n=10)[8]
    return f"p50 {p50 * 1e6:6.0f} us   p90 {p90 * 1e6:6.0f} us   service cpu {cpu * 1e6:4.0f} us"


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    for name, command in (("awslambdaric", RUNTIME), ("bare socket", (sys.executable, "-c", BARE))):
        for pause in (0.0, 0.002):
            directory = Path(tempfile.mkdtemp())
            async with Stage(directory, command) as stage:
                environment = stage.environment(stage.function(HANDLER, timeout=60))
                await environment.start(10)
                line = await median(environment.function, environment.run, count, environment.rest, pause)
                print(f"Environment.run    {name:13} pause {pause * 1000:.0f} ms   {line}", flush=True)
            directory = Path(tempfile.mkdtemp())
            builder, logs = LoopbackBuilder(directory, command), Logs(directory / "logs", "000000000000")
            scheduler = Scheduler(make_config(directory), builder, logs, lambda runtime: IMAGE, no_door)
            builder.on_exited = scheduler.on_exited
            function = make_function(directory, HANDLER, timeout=60)
            await scheduler.invoke(make_invocation(function))
            line = await median(function, scheduler.invoke, count, lambda: None, pause)
            print(f"Scheduler.invoke   {name:13} pause {pause * 1000:.0f} ms   {line}", flush=True)
            await scheduler.drain(1)
            logs.close()


if __name__ == "__main__":
    run(main())
