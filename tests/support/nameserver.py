"""A DNS server of a test's own: answers what the test says, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Datagrams = Callable[[dns.message.Message], list[bytes]]


class NameServer:
    """Listens in the network namespace of the thread that makes it. `records`: texts "OWNER TTL TYPE VALUE" by name
    asked; a list of such lists is given one after another, the last one for ever. `before`: what is sent ahead."""

    def __init__(self, address: str) -> None:
        self.records: dict[str, list[str] | list[list[str]]] = {}
        self.asked: list[str] = []
        self.before: Datagrams = lambda question: []
        self.silent = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._thread = threading.Thread(target=self._serve, name="name server")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                return
            question = dns.message.from_wire(data)
            self.asked.append(question.question[0].name.to_text(omit_final_dot=True))
            if self.silent:
                continue
            for datagram in self.before(question):
                self._socket.sendto(datagram, peer)
            self._socket.sendto(self.answer(question).to_wire(), peer)

    def answer(self, question: dns.message.Message, records: list[str] | None = None) -> dns.message.Message:
        """The answer to a question, with the records that are there for it or with others."""
        answer = dns.message.make_response(question, recursion_available=True)
        name = question.question[0].name.to_text(omit_final_dot=True).lower()
        if records is None:
            records = self._next(name)
        if records is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        for record in records or ():
            owner, ttl, kind, value = record.split()
            value += "." if kind == "CNAME" else ""
            answer.answer.append(dns.rrset.from_text(owner + ".", int(ttl), "IN", kind, value))
        return answer

    def _next(self, name: str) -> list[str] | None:
        records = self.records.get(name)
        if records and isinstance(records[0], list):
            return list(records.pop(0) if len(records) > 1 else records[0])
        return records  # type: ignore[return-value]

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, though the socket has no peer
        self._thread.join(5)
        self._socket.close()
