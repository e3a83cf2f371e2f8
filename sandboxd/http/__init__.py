"""HTTP/1.1 for the two hot doors, the endpoint and the Runtime API: one asyncio protocol on httptools.

Room: service. May: parse and frame. May not: know what a path means.

A framework costs more than the whole warm path of an invocation (docs/architecture.md has the figures), so a request
goes from the parser to its handler in one call: no task, no copy of headers, no middleware. Bodies are buffered up to
the door's limit and against one budget for the whole host, or handed on as they come.
"""

from sandboxd.http.server import Server, serve
from sandboxd.http.values import Budget, Chunks, CutShort, Handler, HttpLimits, Request, Response, Sink, Streaming

__all__ = [
    "Budget",
    "Chunks",
    "CutShort",
    "Handler",
    "HttpLimits",
    "Request",
    "Response",
    "Server",
    "Sink",
    "Streaming",
    "serve",
]
