"""What one environment may reach: permissions narrowed by one another, with what is denied within them.

Room: model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sandboxd.model.egress import EVERYTHING, MAX_RULES, EgressRule, HostRule, Reach, check_bounds

_MOST = 4 * MAX_RULES  # on the way to what the router holds


@dataclass(frozen=True, slots=True)
class Network:
    """Permitted networks and hosts, and what of them is closed all the same: default deny, and denial wins."""

    egress: tuple[EgressRule, ...] = ()
    hosts: tuple[HostRule, ...] = ()
    denied: tuple[EgressRule, ...] = ()
    denied_hosts: tuple[HostRule, ...] = ()

    @property
    def host_ports(self) -> tuple[int, ...]:
        """The ports for which names may open addresses, in order."""
        return tuple(sorted({host.port for host in self.hosts}))

    def ports_of(self, name: str) -> list[int]:
        """The ports at which it may reach a host (lower case, no dot at the end), in order."""
        ports = {host.port for host in self.hosts if host.covers(name)}
        return sorted(p for p in ports if not any(d.contains(HostRule(name, p)) for d in self.denied_hosts))


@dataclass(frozen=True, slots=True)
class Permission:
    """Destinations of one list of a policy; `everything`: all there are."""

    networks: tuple[EgressRule, ...] = ()
    hosts: tuple[HostRule, ...] = ()
    everything: bool = False


def compiled(granted: Sequence[Permission], narrowed: Iterable[Permission], denied: Iterable[Permission]) -> Network:
    """What every one of `granted` permits and every one of `narrowed` names, but for what is `denied`.

    The first of `granted` says which closed ranges and names there are: "everything" of another leaves them as they
    are, alone it opens every public address. A list of `granted` goes as far as it names (`Reach`); one of `narrowed`
    only takes away. Raises ValueError where it is more than the router has room for.
    """
    first, *others = granted
    networks = [*first.networks, *([EVERYTHING] if first.everything else [])]
    hosts = list(first.hosts)
    for permission, widest in [*((one, None) for one in others), *((one, Reach.EXACT) for one in narrowed)]:
        if not permission.everything:
            networks = _narrowed(networks, permission, widest)
            hosts = [host for one in hosts for other in permission.hosts if (host := _common(one, other))]
    denied = list(denied)
    if any(one.everything for one in denied):
        return Network()
    closed = [rule for one in denied for rule in one.networks]
    closed_hosts = {host for one in denied for host in one.hosts}
    networks = _merged(rule for rule in networks if not any(other.contains(rule) for other in closed))
    hosts = sorted({host for host in hosts if not any(other.contains(host) for other in closed_hosts)})
    open_ports = {host.port for host in hosts}
    closed = _at_ports(closed, networks, open_ports)
    check_bounds(networks, open_ports, closed)
    left = sorted(host for host in closed_hosts if any(other.covers(host.name) for other in hosts))
    return Network(tuple(networks), tuple(hosts), tuple(closed), tuple(left))


def _narrowed(networks: list[EgressRule], permission: Permission, widest: Reach | None) -> list[EgressRule]:
    """What of some networks a permission names too; it goes as far as it does itself, or as `widest`."""
    common = (
        one.within(other, min(one.reach, other.reach if widest is None else widest))
        for one in networks
        for other in permission.networks
    )
    return _merged(rule for rule in common if rule)


def _at_ports(closed: list[EgressRule], networks: list[EgressRule], ports: Iterable[int]) -> list[EgressRule]:
    """What of the denied would be open: at the ports that are, unless these are all."""
    ranges = [(rule.network, rule.port_first, rule.port_last) for rule in networks]
    ranges += [(EVERYTHING.network, port, port) for port in ports]  # where a name leads, nobody knows
    found = (
        EgressRule(rule.network, max(rule.port_first, first), min(rule.port_last, last))
        for rule in closed
        for network, first, last in ranges
        if rule.network.overlaps(network) and rule.port_first <= last and first <= rule.port_last
    )
    return _merged(found)


def _merged(rules: Iterable[EgressRule]) -> list[EgressRule]:
    """The same destinations in fewer rules: ranges of ports that meet are one, what lies in another is left out.

    Raises ValueError for so many that comparing each with each would take long.
    """
    found: list[EgressRule] = []
    for rule in sorted(set(rules), key=lambda r: (r.network, r.partial, r.port_first, r.port_last)):
        last = found[-1] if found else None
        together = last is not None and (last.network, last.partial) == (rule.network, rule.partial)
        if last is not None and together and rule.port_first <= last.port_last + 1:
            ports = last.port_first, max(last.port_last, rule.port_last)
            found[-1] = EgressRule(rule.network, *ports, partial=rule.partial)
        else:
            found.append(rule)
    if len(found) > _MOST:
        raise ValueError(f"more than {MAX_RULES} rules")
    return [rule for rule in found if not any(_goes_further(other, rule) for other in found if other is not rule)]


def _goes_further(one: EgressRule, other: EgressRule) -> bool:
    return one.contains(other) and one.reach >= other.reach


def _common(one: HostRule, other: HostRule) -> HostRule | None:
    if one.port and other.port and one.port != other.port:
        return None
    name = other.name if one.covers(other.name) else one.name if other.covers(one.name) else ""
    return HostRule(name, one.port or other.port) if name else None
