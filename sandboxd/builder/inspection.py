"""How one environment is isolated, read back from the kernel and held against what it was meant to be.

Room: root, a process of its own on the host. May: read /proc, cgroups, the router's sets. May not: change anything.
As a program: `python -m sandboxd.builder.inspection [--config FILE] ID` prints a JSON list of findings.

What was meant is the note that the builder left with the environment's cgroup; the service is not asked. Securebits are
not told to other processes: the builder reads them back as it sets them (capabilities.py).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network
from pathlib import Path

import psutil
from pyroute2 import NetNS

from sandboxd.builder import cgroups, link, namespaces, no_way, rlimits, rootfs
from sandboxd.builder.egress import denied_entries, entry_count
from sandboxd.builder.environment import Note
from sandboxd.config import Config, load
from sandboxd.errors import SandboxdError

KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
LIMITS = {  # names of /proc/PID/limits
    resource.RLIMIT_CORE: "core file size",
    resource.RLIMIT_MEMLOCK: "locked memory",
    resource.RLIMIT_MSGQUEUE: "msgqueue size",
    resource.RLIMIT_NICE: "nice priority",
    resource.RLIMIT_RTPRIO: "realtime priority",
    resource.RLIMIT_SIGPENDING: "pending signals",
    resource.RLIMIT_NOFILE: "open files",
}
MOUNTS = {  # filesystem and flags that a mount has at least
    "/": ("overlay", {"ro", "nosuid", "nodev"}),
    "/var/task": ("overlay", {"ro", "nosuid", "nodev"}),
    "/dev": ("overlay", {"ro", "nosuid", "noexec"}),
    "/tmp": ("ext4", {"nosuid", "nodev"}),
    "/proc": ("proc", {"nosuid", "nodev", "noexec"}),
    "/proc/sys/kernel/random/uuid": ("proc", {"ro", "nosuid", "nodev", "noexec"}),
}
OWN_FACTS = ("/meminfo", "/stat")  # as mountinfo has them
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing read back; `meant` says what it should be where it is not as meant."""

    part: str
    name: str
    found: str
    ok: bool
    meant: str = ""


def _judge(part: str, name: str, found: object, meant: object) -> Finding:
    return Finding(part, name, _text(found), found == meant, "" if found == meant else _text(meant))


def _text(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


class Process:
    """One process of the environment; pids are the host's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        lines = self.read("status").splitlines()
        self.status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        self.inner = int(self.status["NSpid"].split()[-1])
        self.name = {1: "pid 1", 2: "runtime"}.get(self.inner, f"process {self.inner}")

    def read(self, name: str) -> str:
        """A file of its directory in /proc."""
        return Path(f"/proc/{self.pid}/{name}").read_text(errors="replace")

    def link(self, name: str) -> str:
        """A link there."""
        return os.readlink(f"/proc/{self.pid}/{name}")


def inspect(config: Config, environment_id: int) -> list[Finding]:
    """Every finding. Raises SandboxdError where there is no such environment."""
    group, note = _find(config, environment_id)
    processes = _processes(group)
    first, runtime = processes[0], processes[1]
    findings = []
    for process in processes:
        findings += [*_namespaces(process, first), *_identity(process, note), *_privilege(process)]
        findings += _limits(process, note)
    findings += [*_mounts(runtime, note), *_tmp(runtime, note), *_cgroup(config, group, note, processes)]
    findings += [*_network(runtime, note), *_descriptors(first), *_descriptors(runtime)]
    return findings


def _find(config: Config, environment_id: int) -> tuple[Path, Note]:
    """The environment's group of the unified hierarchy, by the note that the builder left with it."""
    for mount in cgroups.mounts():
        if not mount.unified:
            continue
        # Below the unit's group, where systemd delegated one.
        for base in Path(mount.path).rglob(cgroups.base_name(config.instance)):
            for group in base.iterdir():
                try:
                    note = pickle.loads(os.getxattr(group, cgroups.NOTE))  # noqa: S301  # only root can write it
                except OSError:  # a file, or nobody's yet
                    continue
                if note.spec.environment_id == environment_id:
                    return group, note
    raise SandboxdError(
        f"there is no environment {environment_id}; sandboxd ps lists those of instance {config.instance!r}"
    )


def _processes(group: Path) -> list[Process]:
    """Pid 1 first, then the runtime, then what the function started."""
    found = []
    for pid in map(int, (group / "cgroup.procs").read_text().split()):
        try:
            found.append(Process(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    found.sort(key=lambda process: process.inner)
    if [process.inner for process in found[:2]] != [1, 2]:
        raise SandboxdError("the environment is just being made, or ends")
    return found


def _namespaces(process: Process, first: Process) -> Iterator[Finding]:
    for kind in KINDS:
        own, host = process.link(f"ns/{kind}"), os.readlink(f"/proc/self/ns/{kind}")
        if own == host:
            yield Finding("namespaces", f"{process.name}: {kind}", own, False, "not the host's")
        elif kind == "user":
            apart = process is first or own != first.link("ns/user")
            yield Finding("namespaces", f"{process.name}: user", own, apart, "" if apart else "not pid 1's")
        else:
            yield _judge("namespaces", f"{process.name}: {kind}", own, first.link(f"ns/{kind}"))


def _identity(process: Process, note: Note) -> Iterator[Finding]:
    uid = str(note.uid if process.inner == 1 else note.uid + 1)
    for kind, inner in (("uid", namespaces.RUNTIME_UID), ("gid", namespaces.RUNTIME_GID)):
        yield _judge("ids", f"{process.name}: {kind}", process.status[kind.capitalize()].split(), [uid] * 4)
        yield _judge("ids", f"{process.name}: {kind}_map", process.read(f"{kind}_map").split(), [str(inner), uid, "1"])
    yield _judge("ids", f"{process.name}: groups", process.status["Groups"].split(), [])


def _privilege(process: Process) -> Iterator[Finding]:
    for kind in CAPABILITIES:
        yield _judge("privilege", f"{process.name}: {kind}", process.status[kind], "0" * 16)
    yield _judge("privilege", f"{process.name}: no_new_privs", process.status["NoNewPrivs"], "1")
    mode, filters = process.status["Seccomp"], process.status.get("Seccomp_filters", "1")
    found = f"mode {mode}, filters {filters}"  # a function may add its own
    good = mode == "2" and filters != "0"
    yield Finding("privilege", f"{process.name}: seccomp", found, good, "" if good else "mode 2, filters 1")


def _limits(process: Process, note: Note) -> Iterator[Finding]:
    rows = re.findall(r"^Max (.+?) {2,}(\S+) +(\S+)", process.read("limits"), re.MULTILINE)
    held = {name: (soft, hard) for name, soft, hard in rows}
    for kind, value in {**rlimits.FIXED, resource.RLIMIT_NOFILE: note.spec.open_files}.items():
        soft, hard = held[LIMITS[kind]]
        # Downwards, a function may go; but a core of 0 would be given to the host's helper (core(5)).
        good = all(n.isdigit() and int(n) <= value for n in (soft, hard)) and (
            kind != resource.RLIMIT_CORE or soft == "1"
        )
        yield Finding("rlimits", f"{process.name}: {LIMITS[kind]}", f"{soft}, {hard}", good, "" if good else str(value))
    rank = process.read("oom_score_adj").strip()
    yield Finding("rlimits", f"{process.name}: oom_score_adj", rank, int(rank) > 0, "" if int(rank) > 0 else "above 0")


def _mounts(process: Process, note: Note) -> Iterator[Finding]:
    lines = [line.split(" - ") for line in process.read("mountinfo").splitlines()]
    all_meant = MOUNTS | ({"/opt": MOUNTS["/var/task"]} if note.spec.layers else {})
    sources = {
        "/": f"/i/{note.spec.image_digest.hex()}",
        "/var/task": f"/c/{note.spec.code_digest.hex()}",
        "/opt": ":".join(map(rootfs.layer_name, reversed(note.spec.layers))),
    }
    seen = set()
    for before, after in lines:
        _, _, _, root, point, flags, *propagation = before.split()
        kind, _, options = after.split(maxsplit=2)
        seen.add(point)
        found = f"{kind} {flags}" + "".join(f" {word}" for word in propagation)
        meant = all_meant.get(point)
        if meant is None and point.startswith("/proc/"):  # facts of ours, or nothing
            meant = ("tmpfs" if root in OWN_FACTS else "overlay", {"ro", "nosuid", "nodev", "noexec"})
        good = meant is not None and kind == meant[0] and meant[1] <= set(flags.split(",")) and not propagation
        text = f"{meant[0]} {','.join(sorted(meant[1]))}, private" if meant else "no mount here"
        yield Finding("mounts", point, found, good, "" if good else text)
        if point in sources:
            lower = re.search(r"lowerdir=([^,]*)", options)
            yield _judge("mounts", f"{point}: from", lower[1] if lower else "", f"/e:{sources[point]}")
    covered = {f"/proc/{entry.name}" for entry in filter(rootfs.is_covered, os.scandir("/proc"))}
    for point in sorted((set(all_meant) | covered) - seen):
        yield Finding("mounts", point, "not there", False, "a mount of its own")


def _tmp(process: Process, note: Note) -> Iterator[Finding]:
    place = f"/proc/{process.pid}/root/tmp"
    status, volume = os.stat(place, follow_symlinks=False), os.statvfs(place)
    yield _judge("mounts", "/tmp: owner", status.st_uid, note.uid + 1)
    size, asked = volume.f_blocks * volume.f_frsize, note.spec.tmp_mb * MIB
    yield Finding("mounts", "/tmp: bytes", str(size), size <= asked, "" if size <= asked else f"at most {asked}")


def _cgroup(config: Config, group: Path, note: Note, processes: list[Process]) -> Iterator[Finding]:
    pids = {process.pid for process in processes}
    for mount in cgroups.mounts():
        own = group if mount.unified else Path(cgroups.base_path(mount, config.instance), group.name)
        held = [c for c in cgroups.CONTROLLERS if c in mount.controllers]
        if not held and not mount.unified:
            continue
        inside = pids <= set(map(int, (own / "cgroup.procs").read_text().split()))
        yield Finding("cgroup", str(own), "holds every process" if inside else "does not", inside, "every process")
        for controller in held:
            yield from _controller(controller, own, mount.unified, note)
    for name in ("cgroup.freeze", "cgroup.events"):
        yield Finding("cgroup", name, (group / name).read_text().strip().replace("\n", ", "), True)


def _controller(controller: str, own: Path, unified: bool, note: Note) -> Iterator[Finding]:
    memory = note.spec.memory_mb * MIB
    # One whole CPU while its runtime starts (cgroups.INIT_CPU_QUOTA), its share from then on.
    shares = [cgroups.cpu_slice_us(quota) for quota in (note.spec.cpu_quota, cgroups.INIT_CPU_QUOTA)]
    period, weight = cgroups.CPU_PERIOD_US, [str(cgroups.cpu_weight(note.spec.memory_mb))]
    meant: dict[tuple[str, bool], dict[str, list[str]]] = {
        ("memory", True): {"memory.max": [f"{memory}"], "memory.swap.max": ["0"], "memory.oom.group": ["1"]},
        ("memory", False): {
            "memory.limit_in_bytes": [f"{memory}"],
            "memory.memsw.limit_in_bytes": [f"{memory}"],
            "memory.kmem.tcp.limit_in_bytes": [f"{cgroups.tcp_buffers(note.spec.memory_mb)}"],
        },
        ("cpu", True): {"cpu.max": [f"{share} {period}" for share in shares], "cpu.weight": weight},
        ("cpu", False): {
            "cpu.cfs_period_us": [f"{period}"],
            "cpu.cfs_quota_us": [f"{share}" for share in shares],
            "cpu.shares": weight,
        },
    }
    files = meant.get((controller, unified), {"pids.max": [f"{note.spec.pids}"]})
    for name, values in files.items():
        if re.search("sw|kmem", name) and not (own / name).exists():  # a kernel may lack the accounting
            continue
        found = (own / name).read_text().strip()
        yield Finding("cgroup", name, found, found in values, "" if found in values else " or ".join(values))
    usage = {"memory": ("memory.current", "memory.usage_in_bytes"), "pids": ("pids.current",), "cpu": ("cpu.stat",)}
    for name in usage[controller]:
        if (own / name).exists():
            yield Finding("cgroup", name, (own / name).read_text().strip().replace("\n", ", "), True)


def _network(process: Process, note: Note) -> Iterator[Finding]:
    address = note.address
    links = sorted(re.findall(r"^ *([^:\s]+):", process.read("net/dev"), re.MULTILINE))
    yield _judge("network", "links", links, ["lo"] if address is None else [link.LINK, "lo"])
    local = re.findall(r"\|-- (\S+)\n +/32 host LOCAL", process.read("net/fib_trie"))
    own = sorted({one for one in local if not one.startswith("127.")})
    yield _judge("network", "addresses", own, [] if address is None else [str(address)])
    inet6 = Path(f"/proc/{process.pid}/net/if_inet6")
    links = [row.split()[-1] for row in inet6.read_text().splitlines()] if inet6.exists() else []
    yield _judge("network", "links with IPv6", sorted(set(links) - {"lo"}), [])
    rows = [row.split() for row in process.read("net/route").splitlines()[1:]]
    routes = sorted(f"{_dotted(row[1])} by {_dotted(row[2])} on {row[0]}" for row in rows)
    meant = [f"0.0.0.0 by {link.GATEWAY} on {link.LINK}", f"{link.GATEWAY} by 0.0.0.0 on {link.LINK}"]
    yield _judge("network", "routes", routes, [] if address is None else meant)
    router = None if address is None else _router(process)
    if router is not None:
        entries = _entries(router, f"{address}")
        for entry in entries:
            good = _permitted(entry, note)
            name = "denial" if entry.startswith("denied ") else "permission"
            yield Finding("network", name, entry, good, "" if good else "none of its policy")
        count = sum(entry.startswith("denied ") for entry in entries)
        asked = entry_count(denied_entries(f"{address}", list(note.spec.denied)))
        yield _judge("network", "denials", [f"{count}"], [f"{asked}"])
        shut = [str(rule.network) for rule in note.spec.denied if rule.has_all_ports]
        yield _judge("network", "no way to", _no_way(router, f"{address}", note.spec.environment_id), sorted(shut))


def _dotted(word: str) -> str:
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(word)))


def _router(process: Process) -> psutil.Process | None:
    builder = psutil.Process(int(process.status["PPid"]))
    return next((p for p in builder.children() if "".join(p.cmdline()) == "sandboxd: router"), None)


def _no_way(router: psutil.Process, address: str, environment_id: int) -> list[str]:
    """The networks that the router has no route to for an address."""
    with NetNS(f"/proc/{router.pid}/ns/net", flags=0) as namespace:
        return no_way.shut_ones(namespace, environment_id, address)


def _entries(router: psutil.Process, address: str) -> list[str]:
    """The entries of the router's sets that stand for what an address may reach."""
    command = ["nsenter", f"--net=/proc/{router.pid}/ns/net", "ipset", "save"]
    saved = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    return re.findall(rf"^add (\S+ {re.escape(address)}(?:,\S+)?)(?: .*)?$", saved, re.MULTILINE)


def _permitted(entry: str, note: Note) -> bool:
    """Whether its policy says so much; *opened* and *numbers* are those of its names (egress.py)."""
    which, _, value = entry.partition(" ")
    if which == "anywhere":
        return any(rule.is_everything for rule in note.spec.egress)
    if which == "numbers":
        return bool(note.spec.host_ports)
    _, port, destination = value.split(",")
    number = int(port.rpartition(":")[2])
    if which == "opened":
        return number in note.spec.host_ports
    rules = note.spec.denied if which == "denied" else note.spec.egress
    networks = [rule.network for rule in rules if rule.port_first <= number <= rule.port_last]
    return any(IPv4Network(destination).subnet_of(network) for network in networks)


def _descriptors(process: Process) -> Iterator[Finding]:
    """What pid 1 and the runtime hold open: of files, only such as lie in the environment's own mounts."""
    mounts = {line.split()[0] for line in process.read("mountinfo").splitlines()}
    for number in sorted(map(int, os.listdir(f"/proc/{process.pid}/fd"))):
        try:
            target, info = process.link(f"fd/{number}"), process.read(f"fdinfo/{number}")
        except FileNotFoundError:
            continue
        inside = not target.startswith("/") or target.startswith("/memfd:") or _mount_of(info) in mounts
        meant = {0: target == "/dev/null", 1: target.startswith("pipe:"), 2: target.startswith("pipe:")}
        good = target.startswith("anon_inode:") if process.inner == 1 else inside and meant.get(number, True)
        text = "" if good else "nothing but its own"
        yield Finding("descriptors", f"{process.name}: {number}", target, good, text)


def _mount_of(info: str) -> str:
    found = re.search(r"^mnt_id:\s*(\d+)", info, re.MULTILINE)
    return found[1] if found else ""


def main() -> int:
    """Print the findings about one environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    parser.add_argument("environment", type=int)
    arguments = parser.parse_args()
    try:
        findings = inspect(load(arguments.config), arguments.environment)
    except (FileNotFoundError, ProcessLookupError):
        print("sandboxd inspect: the environment ended meanwhile", file=sys.stderr)
        return 1
    except (SandboxdError, OSError, subprocess.CalledProcessError) as error:
        print(f"sandboxd inspect: {error}", file=sys.stderr)
        return 1
    print(json.dumps([asdict(finding) for finding in findings]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
