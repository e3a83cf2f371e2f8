"""Clients that call without a pause and count what comes back."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.support.daemon import FUNCTIONS


class Load:
    """Four clients for each way to connect, half of them on one kept-alive connection, half on one for each call.

    They call a function that sleeps for `{"seconds": ...}`; `results` has "ok" and, in their words, all failures.
    """

    def __init__(self, ways: Sequence[Callable[[], http.client.HTTPConnection]], name: str, clients: int = 4) -> None:
        self.results: Counter[str] = Counter()
        self._path = f"{FUNCTIONS}/{name}/invocations"
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(connect(), number % 2 == 0))
            for connect in ways
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait(self, calls: int) -> None:
        """Return after so many more calls."""
        enough = self.results.total() + calls
        while self.results.total() < enough:
            time.sleep(0.02)

    def _call(self, connection: http.client.HTTPConnection, keep: bool) -> None:
        while not self._over.is_set():
            try:
                connection.request("POST", self._path, json.dumps({"seconds": random.choice((0, 0.01, 0.2))}))
                answer = connection.getresponse()
                body = answer.read()
                self.results["ok" if answer.status == 200 and b"slept" in body else f"{answer.status} {body!r}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.results[repr(error)] += 1
            if not keep:
                connection.close()
        connection.close()
