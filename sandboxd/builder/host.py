"""The host's share of the network: one link, two rules with one chain of ours, and the forwarding switch.

Room: root, in the host's network namespace. May: iptables on what carries this instance's name. May not: anything else.

`run_dir/network` is there while any of it is: it holds what the forwarding switch was before.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from sandboxd.config import Config
from sandboxd.errors import StepFailed

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def link_name(instance: str) -> str:
    """Name of the host's end of the uplink (15 characters at most)."""
    return f"sbx-{instance}"


def _chain(instance: str) -> str:
    return f"SANDBOXD-{instance}"


def _rules(config: Config) -> list[list[str]]:
    """The two rules in the host's own chains: chain, match and target, table last."""
    router = f"{config.network_pool[2]}/32"
    return [
        ["FORWARD", "-j", _chain(config.instance), "-t", "filter"],
        ["POSTROUTING", "-s", router, "!", "-o", link_name(config.instance), "-j", "MASQUERADE", "-t", "nat"],
    ]


def _content(config: Config) -> list[list[str]]:
    """Our chain: what comes from the router goes out, and answers to it come back."""
    link, chain, router = link_name(config.instance), _chain(config.instance), f"{config.network_pool[2]}/32"
    return [
        [chain, "-i", link, "-s", router, "-j", "ACCEPT"],
        [chain, "-o", link, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"],
    ]


def ensure(config: Config) -> None:
    """Put whatever is missing of it in place; others' rules are theirs. Raises StepFailed where iptables refuses."""
    record = config.run_dir / "network"
    if not record.exists():
        record.write_text(_FORWARDING.read_text())
    if _FORWARDING.read_text().strip() != "1":
        _FORWARDING.write_text("1")
    chain = _chain(config.instance)
    if not all(_iptables("-C", rule) for rule in _content(config)):
        _iptables("-N", [chain])
        _must("-F", [chain])
        for rule in _content(config):
            _must("-A", rule)
    for rule in _rules(config):
        if not _iptables("-C", rule):
            _must("-I", rule)


def rules_there(config: Config) -> list[str]:
    """Which of it is on the host now."""
    return [" ".join(rule) for rule in [*_rules(config), *_content(config)] if _iptables("-C", rule)]


def clear(config: Config) -> None:
    """Give the host everything back as it was."""
    for rule in _rules(config):
        while _iptables("-D", rule):
            pass
    chain = _chain(config.instance)
    if _iptables("-F", [chain]):
        _iptables("-X", [chain])
    record = config.run_dir / "network"
    with contextlib.suppress(FileNotFoundError):
        _FORWARDING.write_text(record.read_text())
        record.unlink()


def _iptables(operation: str, rule: list[str]) -> bool:
    return subprocess.run(["iptables", "-w", "5", operation, *rule], capture_output=True).returncode == 0


def _must(operation: str, rule: list[str]) -> None:
    if not _iptables(operation, rule):
        raise StepFailed("network", 0, " ".join(["iptables", operation, *rule]))
