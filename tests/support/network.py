"""A little world for egress tests: a server's network namespace, and one outside it that plays the internet.

A daemon started in the server's namespace finds a link, a default route, addresses of every kind and listeners behind
them, and no packet leaves the machine: the two namespaces are joined by one veth pair and by nothing else. They have no
names and hold no process, so they end with this object's descriptors.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from sandboxd.builder import linux
from tests.support import images
from tests.support.daemon import Daemon

METADATA = ("169.254.169.254", "100.100.100.200", "168.63.129.16")
PRIVATE = ("10.20.0.5", "10.21.0.5", "172.16.5.5", "192.168.77.5", "100.64.0.5", "198.18.0.5", "169.254.7.7")
PUBLIC = ("203.0.113.5", "203.0.113.6", "8.8.8.8")
HOST_WAN, HOST_PUBLIC, HOST_LAN, HOST_BRIDGE = "203.0.113.1", "198.51.100.1", "10.20.0.1", "172.17.0.1"
HOST = (HOST_WAN, HOST_PUBLIC, HOST_LAN, HOST_BRIDGE)
BROADCASTS = ("203.0.113.255", "10.20.0.255")
PORTS = (80, 81)
OUTSIDE_IPV6, HOST_IPV6 = "2001:db8::5", "2001:db8::1"
OWN = ("10.210.0.1", "10.210.0.2", "10.210.0.3", "10.210.0.7", "169.254.1.1")  # the uplink, its broadcast, the gateway
EVERY_ADDRESS = (
    *PUBLIC, *PRIVATE, *METADATA, *HOST, *BROADCASTS, *OWN, OUTSIDE_IPV6, HOST_IPV6,
    "192.0.0.8", "224.0.0.1", "240.0.0.1", "255.255.255.255", "0.0.0.0",
)  # fmt: skip
EVERYTHING = [(kind, address, port) for kind in ("tcp", "udp") for address in EVERY_ADDRESS for port in PORTS]


class Namespace:
    """A network namespace that a descriptor of this process keeps."""

    def __init__(self) -> None:
        ordinary = _current()
        linux.unshare(linux.CLONE_NEWNET)
        self.descriptor = _current()
        linux.setns(ordinary, linux.CLONE_NEWNET)
        os.close(ordinary)
        self.run("ip", "link", "set", "lo", "up")

    @classmethod
    def of(cls, pid: int) -> Namespace:
        """The one that a process is in."""
        namespace = cls.__new__(cls)
        namespace.descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        return namespace

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, the sockets it makes and the processes it starts are in the namespace meanwhile."""
        ordinary = _current()
        linux.setns(self.descriptor, linux.CLONE_NEWNET)
        try:
            yield
        finally:
            linux.setns(ordinary, linux.CLONE_NEWNET)
            os.close(ordinary)

    def run(self, *command: str) -> str:
        """What a command prints that is run in here; fails with what it says where it fails."""
        with self.entered():
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def links(self) -> set[str]:
        """The names of the links."""
        return {line.split(":")[1].split("@")[0].strip() for line in self.run("ip", "-o", "link").splitlines()}

    def rules(self) -> list[str]:
        """Every rule and every chain that is not built in, counters left out."""
        lines = [
            line for table in ("raw", "filter", "nat") for line in self.run("iptables", "-t", table, "-S").splitlines()
        ]
        return [line for line in lines if not line.startswith("-P") or not line.endswith("ACCEPT")]

    def switch(self, name: str, value: str | None = None) -> str:
        """Read, or set, what is below /proc/sys/net."""
        path = Path("/proc/sys/net", name)
        with self.entered():
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()

    def close(self) -> None:
        """Give the namespace up; it ends when no process is in it."""
        os.close(self.descriptor)


def _current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Listeners:
    """TCP and UDP services at many addresses: each answers with its place and its caller's address."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int]] = []  # what reached anybody: kind, place, port
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        self._selector.register(self._stopped, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, name="listeners")

    def listen(self, place: str, address: str, port: int) -> None:
        """Listen at an address of the namespace that the caller has entered; `place` is what the answer says."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind, number in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
            sock = socket.socket(family, number)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            if kind == "tcp":
                sock.listen(64)
            self._selector.register(sock, selectors.EVENT_READ, (kind, place, port))

    def start(self) -> None:
        self._thread.start()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                assert isinstance(key.fileobj, socket.socket)
                self.heard.append(key.data)
                with contextlib.suppress(OSError):
                    self._answer(key.fileobj, *key.data)

    def _answer(self, sock: socket.socket, kind: str, place: str, port: int) -> None:
        if kind == "tcp":
            connection, caller = sock.accept()
            with connection:
                connection.send(f"{place}:{port} to {caller[0]}".encode())
        else:
            _, caller = sock.recvfrom(200)
            sock.sendto(f"{place}:{port} to {caller[0]}".encode(), caller)

    def close(self) -> None:
        self._stop.close()
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


class World:
    """The server's namespace, the outside, their link, and listeners at every address on PORTS."""

    def __init__(self) -> None:
        self.server, self.outside = Namespace(), Namespace()
        self.listeners = Listeners()
        self._link()
        with self.outside.entered():
            for address in (*PUBLIC, *PRIVATE, *METADATA, OUTSIDE_IPV6):
                for port in PORTS:
                    self.listeners.listen(address, address, port)
        with self.server.entered():
            for port in PORTS:
                self.listeners.listen("host", "0.0.0.0", port)
                self.listeners.listen("host", HOST_IPV6, port)
        self.listeners.start()

    def _link(self) -> None:
        server, outside = self.server.run, self.outside.run
        self.server.switch("ipv4/ip_forward", "0")
        server("ip", "link", "add", "wan", "type", "veth", "peer", "name", "world", "netns", self.outside.path)
        for address in (f"{HOST_WAN}/24", f"{HOST_LAN}/24"):
            server("ip", "addr", "add", address, "brd", "+", "dev", "wan")
        for address in (HOST_PUBLIC, HOST_BRIDGE):
            server("ip", "addr", "add", f"{address}/32", "dev", "lo")
        for address in (f"{PUBLIC[0]}/24", f"{PRIVATE[0]}/24"):
            outside("ip", "addr", "add", address, "dev", "world")
        for address in (*PUBLIC[1:], *PRIVATE[1:], *METADATA):
            outside("ip", "addr", "add", f"{address}/32", "dev", "world")
        server("ip", "addr", "add", f"{HOST_IPV6}/64", "dev", "wan", "nodad")
        outside("ip", "addr", "add", f"{OUTSIDE_IPV6}/64", "dev", "world", "nodad")
        outside("ip", "link", "set", "world", "up")
        server("ip", "link", "set", "wan", "up")
        server("ip", "route", "add", "default", "via", PUBLIC[0])

    def close(self) -> None:
        self.listeners.close()
        for namespace in (self.server, self.outside):
            namespace.close()


class NetworkedDaemon(Daemon):
    """A daemon whose host is the server of a World."""

    def __init__(self, world: World, **settings: object) -> None:
        super().__init__(**{"network.pool": "10.210.0.0/16"} | settings)
        self.world = world

    def spawn(self) -> subprocess.Popen[bytes]:
        images.built()  # in the ordinary namespace, as building them may need the real network
        with self.world.server.entered():
            return super().spawn()

    @property
    def uplink(self) -> str:
        """The host's end of the link to the router."""
        return f"sbx-{self.instance}"

    def router(self) -> psutil.Process | None:
        """The router, if a permission has woken it."""
        for child in self.room("builder").children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "".join(child.cmdline()) == "sandboxd: router":
                    return child
        return None

    @contextlib.contextmanager
    def in_router(self) -> Iterator[Namespace]:
        """The router's namespace, to look into."""
        router = self.router()
        assert router is not None, "no permission has been used yet"
        with router_namespace(router.pid, self.world) as namespace:
            yield namespace

    def end_suddenly(self) -> None:
        """kill -9 of the keeper, and wait until nothing of the daemon runs any more; its router is not even asked."""
        assert self.process is not None
        if router := self.router():
            router.suspend()
        everything = psutil.Process(self.process.pid).children(recursive=True)
        self.kill("keeper")
        _, alive = psutil.wait_procs(everything, timeout=10)
        assert not alive

    def permissions(self) -> list[str]:
        """The entries of the router's sets that stand for a permission."""
        return [
            row
            for row in self._entries()
            if row.startswith(("exact ", "named ", "public ", "anywhere ", "opened ", "numbers "))
        ]

    def closed_by_host(self) -> set[str]:
        """The networks that the router closes because its host takes them for itself."""
        return {row.partition(" ")[2] for row in self._entries() if row.startswith("host ")}

    def _entries(self) -> list[str]:
        with self.in_router() as router:
            lines = router.run("ipset", "save").splitlines()
        return [line.removeprefix("add ") for line in lines if line.startswith("add ")]

    def inner_links(self) -> dict[str, str]:
        """The links to environments that the router has, and the address behind each."""
        with self.in_router() as router:
            routes = [line.split() for line in router.run("ip", "route").splitlines()]
            links = {name: "" for name in router.links() if name not in ("lo", "uplink")}
        return links | {row[2]: row[0] for row in routes if row[2] in links}

    def permit(self, function: str, *rules: str) -> None:
        """Replace what a function may reach."""
        answer = self.admin("PUT", f"/functions/{function}/policy", {"AllowEgress": list(rules)})
        assert answer.status == 200, answer
        self.wait_settled(function)

    def cli_at_server(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The sandboxd command as a person at the server types it."""
        with self.world.server.entered():
            return self.cli(*arguments)


@contextlib.contextmanager
def router_namespace(pid: int, world: World) -> Iterator[Namespace]:
    """The namespace that a router made."""
    while os.readlink(f"/proc/{pid}/ns/net") == os.readlink(world.server.path):
        continue  # it looks after the host's rules just now
    namespace = Namespace.of(pid)
    try:
        yield namespace
    finally:
        namespace.close()


def knock(daemon: NetworkedDaemon, function: str, *places: tuple[str, str, int]) -> dict[str, str]:
    """What a function gets from every place."""
    answer = daemon.invoke(function, {"knock": places})
    assert answer.status == 200 and "x-amz-function-error" not in answer.headers, answer
    return dict(answer.json["answers"])


def open_ones(answers: dict[str, str]) -> set[str]:
    """The places where somebody answered."""
    return {key for key, text in answers.items() if " to " in text}


def reaches(daemon: NetworkedDaemon, function: str) -> bool:
    """Whether a function gets to 8.8.8.8:80."""
    return bool(open_ones(knock(daemon, function, ("tcp", "8.8.8.8", 80))))
