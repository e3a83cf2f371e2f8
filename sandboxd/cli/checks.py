"""The checks of `sandboxd doctor`, in the order in which they are shown.

Room: command line. May: look, and try things in children that end at once. May not: change anything.
"""

from __future__ import annotations

import grp
import json
import os
import platform
import pwd
import resource
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import sandboxd
from sandboxd.cli import probes
from sandboxd.cli.context import Failure
from sandboxd.config import Config

MIB = 1 << 20
KERNEL_NEEDED = (5, 14)  # cgroup.kill; mount_setattr came with 5.12
# Bits of CapEff (linux/capability.h) that the builder works with. CAP_SYS_RESOURCE is looked at by itself.
CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
}
CAP_SYS_RESOURCE = 24
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: status is ok, warn or fail; `advice` says what to do where it is not ok."""

    name: str
    status: str
    found: str
    advice: str = ""

    def as_document(self) -> dict[str, str]:
        """The JSON form."""
        return {key.capitalize(): value for key, value in asdict(self).items()}


def run_all(config: Config) -> list[Check]:
    """Every check. One that breaks is itself a failure and hides no other."""
    groups: tuple[Callable[[Config], Iterator[Check]], ...] = (
        _machine, _tried, _features, _cgroups, _filter, _user, _images, _space, _door, _limits,
    )  # fmt: skip
    checks: list[Check] = []
    for group in groups:
        try:
            checks.extend(group(config))
        except (OSError, ValueError) as error:
            checks.append(Check(group.__name__.strip("_"), "fail", str(error), "look at what the message names"))
    return checks


def _judge(name: str, good: bool, found: str, advice: str, bad: str = "fail") -> Check:
    return Check(name, "ok" if good else bad, found, "" if good else advice)


def _machine(_: Config) -> Iterator[Check]:
    yield _judge("root", os.geteuid() == 0, f"running as uid {os.geteuid()}", "run doctor with sudo")
    yield _judge("python", sys.version_info >= (3, 11), platform.python_version(), "use Python 3.11 or newer")
    release = platform.release()
    yield _judge("kernel", kernel_version() >= KERNEL_NEEDED, release, "run Linux 5.14 or newer")
    effective = _effective_capabilities()
    missing = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    found = f"missing: {', '.join(missing)}" if missing else "all that are needed"
    yield _judge("capabilities", not missing, found, "run as full root: not in a container without them")
    has_resource = bool(effective >> CAP_SYS_RESOURCE & 1)
    found = "present" if has_resource else "missing"
    advice = "resource limits can only be lowered here; grant it where a function needs more open files than now"
    yield _judge("CAP_SYS_RESOURCE", has_resource, found, advice, bad="warn")


def _tried(_: Config) -> Iterator[Check]:
    advice = (
        "allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
        "kernel.apparmor_restrict_unprivileged_userns"
    )
    yield _try("namespaces", probes.namespaces, "user, pid, mount, net, ipc, uts, cgroup; nested user", advice)
    over = _mounts_over_proc()
    advice = "needs the host's /proc whole; " + (
        f"mounted over it: {', '.join(over[:4])}" if over else "a container runtime may hide parts of it"
    )
    yield _try("proc mount", probes.proc_mount, "works in a user namespace", advice)
    yield _try("mount calls", probes.mount_calls, "open_tree, mount_setattr, move_mount", "run Linux 5.12 or newer")
    yield _try("openat2", probes.openat2, "works", "run Linux 5.6 or newer, without a filter that refuses it")


def _try(name: str, probe: Callable[[], None], found: str, advice: str) -> Check:
    error = probes.in_child(probe)
    return _judge(name, error is None, error or found, advice)


def _features(_: Config) -> Iterator[Check]:
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    known = actions.read_text().split() if actions.exists() else []
    good = {"kill_process", "errno", "log", "allow"} <= set(known)
    yield _judge("seccomp", good, " ".join(known) or "no filter mode", "run a kernel with CONFIG_SECCOMP_FILTER")
    for filesystem in ("overlay", "ext4"):
        found = _filesystem(filesystem)
        yield _judge(filesystem, bool(found), found or "unknown to this kernel", f"modprobe {filesystem}")
    loop = Path("/dev/loop-control")
    yield _judge("loop devices", loop.exists(), str(loop) if loop.exists() else f"no {loop}", "modprobe loop")


def _filesystem(name: str) -> str:
    if name in Path("/proc/filesystems").read_text().split():
        return "in the kernel"
    modules = Path("/lib/modules", platform.release())
    for listing in ("modules.builtin", "modules.dep"):
        file = modules / listing
        if file.exists() and f"/{name}.ko" in file.read_text():
            return "a module, loaded when it is first used"
    return ""


def _cgroups(_: Config) -> Iterator[Check]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    unified = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    v1 = {c: mount[1] for mount in mounts if mount[2] == "cgroup" for c in mount[3].split(",")}
    v2 = (unified / "cgroup.controllers").read_text().split() if unified else []
    places = {c: f"v1 {v1[c]}" if c in v1 else f"v2 {unified}" if c in v2 else "" for c in ("memory", "cpu", "pids")}
    kind = "v2" if not v1 else "hybrid" if unified else "v1"
    lacking = [controller for controller, place in places.items() if not place]
    found = f"{kind}; " + ", ".join(f"{c}: {place or 'nowhere'}" for c, place in places.items())
    yield _judge("cgroups", not lacking, found, f"enable {', '.join(lacking)} (kernel command line: cgroup_enable=...)")
    advice = "mount cgroup2 (for example at /sys/fs/cgroup/unified): freezing and killing go through it"
    yield _judge("unified hierarchy", unified is not None, str(unified or "not mounted"), advice)
    if unified:
        files = [name for name in ("cgroup.freeze", "cgroup.kill") if _has(unified, name)]
        yield _judge("freezer", len(files) == 2, " ".join(files) or "none", "run Linux 5.14 or newer")
        writable = os.access(unified, os.W_OK) and os.statvfs(unified).f_flag & os.ST_RDONLY == 0
        found = "writable" if writable else "read-only"
        yield _judge("cgroup tree", writable, found, "run as root, outside of a container that protects /sys/fs/cgroup")


def _has(unified: Path, name: str) -> bool:
    # The root of the hierarchy has neither file; any group below it shows what the kernel offers.
    groups = [entry for entry in unified.iterdir() if entry.is_dir()]
    return (groups[0] / name).exists() if groups else kernel_version() >= KERNEL_NEEDED


def _filter(_: Config) -> Iterator[Check]:
    tools = {tool: shutil.which(tool, path=_SBIN) for tool in ("iptables", "iptables-restore", "ip6tables", "ipset")}
    missing = [tool for tool, path in tools.items() if not path]
    found = f"missing: {', '.join(missing)}" if missing else ", ".join(tools)
    yield _judge("network tools", not missing, found, "apt-get install iptables ipset")
    restore, ipset = tools["iptables-restore"], tools["ipset"]
    if restore and ipset:
        error = probes.in_child(lambda: probes.packet_filter(restore, ipset))
        advice = "load ip_tables or nf_tables, ip_set, xt_set, nf_conntrack, xt_connmark, xt_hashlimit; or run as root"
        yield _judge("packet filter", error is None, error or "sets and rules work in a namespace of their own", advice)


def _user(config: Config) -> Iterator[Check]:
    advice = f"useradd --system --user-group --no-create-home {config.user} (scripts/provision does it)"
    try:
        user, group = pwd.getpwnam(config.user), grp.getgrnam(config.user)
    except KeyError:
        yield Check("user", "fail", f"no user and group {config.user}", advice)
        return
    yield Check("user", "ok", f"{config.user}: uid {user.pw_uid}, gid {group.gr_gid}")
    places = {Path(sandboxd.__file__).resolve().parent, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    folders = sorted({folder for place in places for folder in (place, *place.parents)})
    hidden = [str(folder) for folder in folders if not _enters(folder, user.pw_uid, group.gr_gid)]
    found = f"{config.user} cannot enter {', '.join(hidden)}" if hidden else f"readable by {config.user}"
    advice = f"the service runs as {config.user} and may load code late: chmod o+x, or keep sandboxd under /opt"
    yield _judge("code", not hidden, found, advice, bad="warn")
    strangers = [str(folder) for folder in folders if _writable_by_others(folder)]
    found = f"others than root may change {', '.join(strangers)}" if strangers else "root's alone"
    yield _judge("code's owner", not strangers, found, "root runs this code: chown it to root", bad="warn")


def _enters(folder: Path, uid: int, gid: int) -> bool:
    try:
        status = folder.stat()
    except PermissionError:
        return False
    bit = stat.S_IXUSR if status.st_uid == uid else stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH
    return bool(status.st_mode & bit)


def _writable_by_others(folder: Path) -> bool:
    try:
        status = folder.stat()
    except PermissionError:
        return False
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    return bool(shared) or status.st_uid != 0


def _images(config: Config) -> Iterator[Check]:
    built = []
    if config.images_dir.is_dir():
        for file in sorted(config.images_dir.glob("*.json")):
            record = json.loads(file.read_text())
            built.append(f"{record['runtime']} ({record['bytes'] // MIB} MB)")
    found = ", ".join(built) or f"none in {config.images_dir}"
    yield _judge("images", bool(built), found, "sandboxd image build python3.13", bad="warn")
    for runtime, other in config.runtimes.items():
        served = f"{runtime} is served by the image of {other}"
        there = (config.images_dir / f"{other}.json").exists()
        yield _judge("runtimes", there, served, f"sandboxd image build {other}", bad="warn")
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    missing = [] if shutil.which("mmdebstrap", path=_SBIN) else ["mmdebstrap"]
    missing += [] if keyring.exists() else [keyring.stem]
    found = f"missing: {', '.join(missing)}" if missing else f"mmdebstrap, {keyring.stem}"
    yield _judge("image tools", not missing, found, f"apt-get install {' '.join(missing)}", bad="warn")


def _space(config: Config) -> Iterator[Check]:
    pairs = (line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = {name: int(value.split()[0]) // 1024 for name, value in pairs}["MemAvailable"]
    status = "fail" if available < 256 else "warn" if available < 1024 else "ok"
    yield Check("memory", status, f"{available} MB available", "" if status == "ok" else "free some: 1 GB is little")
    place = next(p for p in (config.data_dir, *config.data_dir.parents) if p.exists())
    free = shutil.disk_usage(place).free // MIB
    status = "fail" if free < config.disk_floor else "warn" if free < 4096 + config.disk_floor else "ok"
    advice = "" if status == "ok" else "free some: an image takes 110 MB, each environment up to the size of its /tmp"
    yield Check("disk", status, f"{free} MB free at {place}; disk_floor is {config.disk_floor} MB", advice)


def _door(config: Config) -> Iterator[Check]:
    from sandboxd.cli.client import ADMIN, Client
    from sandboxd.errors import ApiError

    host, port = config.api_listen
    try:
        status = Client(config.api_socket).call("GetStatus", "GET", f"{ADMIN}/status", timeout=5)
        yield Check("daemon", "ok", f"runs, instance {status.get('Instance')}, endpoint {status.get('Endpoint')}")
        return
    except (Failure, ApiError) as error:
        text = error.message
    yield Check("daemon", "warn", text, "systemctl start sandboxd, or sandboxd daemon as root")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            yield Check("api port", "fail", f"{host}:{port}: {error.strerror}", "set api.listen to a free ADDRESS:PORT")
        else:
            yield Check("api port", "ok", f"{host}:{port} is free")


def _limits(config: Config) -> Iterator[Check]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # An environment holds 7 descriptors in the service, a connection to it 1 to 2 more.
    needed = 10 * config.limits.concurrency
    enough = hard == resource.RLIM_INFINITY or hard >= needed
    advice = f"ulimit -Hn {needed} (LimitNOFILE= in the unit) for {config.limits.concurrency} environments at a time"
    yield _judge(
        "open files", enough, "no limit" if hard == resource.RLIM_INFINITY else f"at most {hard}", advice, "warn"
    )


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    major, minor = platform.release().split("-")[0].split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()))


def _effective_capabilities() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)


def _mounts_over_proc() -> list[str]:
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    # binfmt_misc is mounted on an empty directory made for it, which the kernel does not hold against us.
    return [point for point in points if point.startswith("/proc/") and point != "/proc/sys/fs/binfmt_misc"]
