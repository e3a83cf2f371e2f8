"""The host's share of the network: one link, three rules with one chain of ours, and the forwarding switch.

Room: root, in the host's network namespace. May: iptables on what carries this instance's name. May not: anything else.

`run_dir/network` is there while any of it is: it holds what the forwarding switch was before. Instances share that
switch: each says in a comment of its chain what it was before the first of them, and the last one puts it back.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from sandboxd.config import Config
from sandboxd.errors import StepFailed

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
UPLINK_PREFIX = 29
_COMMENT = "sandboxd: forwarding was "


def link_name(instance: str) -> str:
    """Name of the host's end of the uplink (15 characters at most)."""
    return f"sbx-{instance}"


def router_addresses(config: Config) -> tuple[IPv4Address, IPv4Address]:
    """The router's two, on the uplink: of every flow, and of those to addresses that a policy names exactly."""
    return config.network_pool[2], config.network_pool[3]


def _chain(instance: str) -> str:
    return f"SANDBOXD-{instance}"


def _record(config: Config) -> Path:
    return config.run_dir / "network"


def _rules(config: Config) -> list[list[str]]:
    """The rules in the host's own chains: chain, match and target, table last.

    The first closes whatever the host takes for itself from the moment that it does, before anybody's DNAT; the router
    hears of it only thereafter.
    """
    link, (_, exact) = link_name(config.instance), router_addresses(config)
    own = ["!", "-s", f"{exact}/32", "-m", "addrtype", "!", "--dst-type", "UNICAST"]
    return [
        ["PREROUTING", "-i", link, *own, "-j", "DROP", "-t", "raw"],
        ["FORWARD", "-j", _chain(config.instance), "-t", "filter"],
        ["POSTROUTING", "-s", _both(config), "!", "-o", link, "-j", "MASQUERADE", "-t", "nat"],
    ]


def _both(config: Config) -> str:
    """The router's addresses as one network."""
    return str(IPv4Network((router_addresses(config)[0], 31)))


def _content(config: Config, before: str) -> list[list[str]]:
    """Our chain: what comes from the router goes out, and answers to it come back."""
    link, chain, router = link_name(config.instance), _chain(config.instance), _both(config)
    comment = ["-m", "comment", "--comment", _COMMENT + before]
    return [
        [chain, "-i", link, "-s", router, *comment, "-j", "ACCEPT"],
        [chain, "-o", link, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"],
    ]


def ensure(config: Config) -> None:
    """Put whatever is missing of it in place; others' rules are theirs. Raises StepFailed where iptables refuses."""
    with _forwarding_alone():
        record = _record(config)
        if not record.exists():
            record.write_text(_others() or _FORWARDING.read_text().strip())
        before = record.read_text()
        chain = _chain(config.instance)
        if not all(_iptables("-C", rule) for rule in _content(config, before)):
            _iptables("-N", [chain])
            _must("-F", [chain])
            for rule in _content(config, before):
                _must("-A", rule)
        for rule in _rules(config):
            if not _iptables("-C", rule):
                _must("-I", rule)
        if _FORWARDING.read_text().strip() != "1":
            _FORWARDING.write_text("1")


def there(config: Config) -> list[str]:
    """Which of it is on the host now."""
    record = _record(config)
    if not record.exists():
        return []
    rules = [*_rules(config), *_content(config, record.read_text())]
    return ["net.ipv4.ip_forward", *(" ".join(rule) for rule in rules if _iptables("-C", rule))]


def clear(config: Config) -> None:
    """Give the host everything back as it was."""
    with _forwarding_alone():
        for rule in _rules(config):
            while _iptables("-D", rule):
                pass
        chain = _chain(config.instance)
        if _iptables("-F", [chain]):
            _iptables("-X", [chain])
        record = _record(config)
        with contextlib.suppress(FileNotFoundError):
            before = record.read_text()
            if not _others():
                _FORWARDING.write_text(before)
            record.unlink()


@contextlib.contextmanager
def _forwarding_alone() -> Iterator[None]:
    """No other instance of this network namespace reads or writes the switch meanwhile: its file is the lock."""
    with _FORWARDING.open() as switch:
        fcntl.flock(switch, fcntl.LOCK_EX)
        yield


def _others() -> str:
    """What another instance says that the switch was before any of them; nothing where there is no other."""
    listing = subprocess.run(["iptables", "-w", "5", "-S"], capture_output=True, text=True, check=False).stdout
    found = re.search(rf'^-A SANDBOXD-.*"{_COMMENT}([0-9])"', listing, re.MULTILINE)
    return found[1] if found else ""


def _iptables(operation: str, rule: list[str]) -> bool:
    return subprocess.run(["iptables", "-w", "5", operation, *rule], capture_output=True).returncode == 0


def _must(operation: str, rule: list[str]) -> None:
    if not _iptables(operation, rule):
        raise StepFailed("network", 0, " ".join(["iptables", operation, *rule]))
