"""Information: what tells who the host is, how it is loaded, or what else runs on it."""

import os
import re
import socket
import struct
import time

from attack import collection, opens, syscall

ATTACKS, attack = collection()


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


@attack
def host_name(host):
    return [name for name in (socket.gethostname(), os.uname().nodename) if name == host["hostname"]]


@attack
def host_name_is_the_instances(host):
    return [word for word in host["words"] if word in os.uname().nodename]


@attack
def machine_id(host):
    return _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")


@attack
def boot_id(host):
    return _read("/proc/sys/kernel/random/boot_id").decode().strip() == host["boot_id"]


def _counts_from_boot(host, clock, seconds, within=5):
    """Whether a clock of the machine, by its number, began when this one did; both are seen from the time of day."""
    return abs(time.time() - seconds - host["zeros"][str(clock)]) < within


@attack
def uptime_by_clock(host):
    return _counts_from_boot(host, 7, time.clock_gettime(time.CLOCK_BOOTTIME))


@attack
def uptime_by_monotonic_clock(host):
    return _counts_from_boot(host, 1, time.clock_gettime(time.CLOCK_MONOTONIC))


@attack
def uptime_by_coarse_clock(host):
    return _counts_from_boot(host, 1, time.clock_gettime(6))  # CLOCK_MONOTONIC_COARSE


@attack
def uptime_by_raw_clock(host):
    return _counts_from_boot(host, 4, time.clock_gettime(time.CLOCK_MONOTONIC_RAW))


@attack
def uptime_by_sysinfo(host):
    data = bytearray(128)
    syscall(99, (__import__("ctypes").c_char * 128).from_buffer(data))
    return _counts_from_boot(host, 7, struct.unpack_from("=q", data)[0])


@attack
def uptime_by_file(host):
    return _read("/proc/uptime")


@attack
def start_of_a_process(host):
    """The start of a process in ticks since the machine's boot."""
    ticks = int(_read("/proc/self/stat").rpartition(b")")[2].split()[19])
    return _counts_from_boot(host, 7, ticks / os.sysconf("SC_CLK_TCK"), 30)  # it is some seconds old


@attack
def boot_time(host):
    found = re.search(rb"btime (\d+)", _read("/proc/stat"))
    return found and abs(int(found[1]) - host["boot_time"]) < 5


@attack
def load(host):
    return int(_read("/proc/loadavg").split()[3].partition(b"/")[2]) > 20


@attack
def load_average(host):
    return [value for value in _read("/proc/loadavg").split()[:3] if value != b"0.00"]


@attack
def memory_of_the_machine(host):
    return int(_read("/proc/meminfo").split()[1]) == host["memory_kb"]


@attack
def memory_in_use(host):
    """Two readings of what moves all the time on a machine at work."""
    first = _read("/proc/meminfo")
    bytearray(8 << 20)
    time.sleep(0.02)
    return _read("/proc/meminfo") != first or b"Committed_AS" in first


@attack
def processor_time(host):
    return [
        n for line in _read("/proc/stat").splitlines() if line.startswith(b"cpu") for n in line.split()[1:] if int(n)
    ]


@attack
def interrupts_and_switches(host):
    words = (b"intr", b"ctxt", b"processes", b"softirq")
    return [
        line[:40] for line in _read("/proc/stat").splitlines() if line.startswith(words) and int(line.split()[1]) > 1
    ]


@attack
def clock_of_the_processor(host):
    """The speed that a core runs at now tells how busy it is."""
    first = re.findall(rb"cpu MHz\s*: (\S+)", _read("/proc/cpuinfo"))
    return len(set(first)) > 1


@attack
def paths_in_mounts(host):
    text = b"".join(_read(f"/proc/self/{name}") for name in ("mountinfo", "mounts", "mountstats")).decode()
    return [word for word in host["words"] if word in text]


@attack
def sources_of_mounts_but_digests(host):
    lines = [line.split() for line in _read("/proc/self/mountinfo").decode().splitlines()]
    found = []
    for line in lines:
        source, options = line[line.index("-") + 2], line[-1]
        for lower in re.findall(r"lowerdir=([^,]*)", options):
            found += [part for part in lower.split(":") if not re.fullmatch(r"/[def]|/[ic]/[0-9a-f]{64}", part)]
        if not re.fullmatch(r"none|/dev/loop\d+", source):
            found.append(source)
    return found


@attack
def mounts_beyond_those_meant(host):
    points = {line.split()[4] for line in _read("/proc/self/mountinfo").decode().splitlines()}
    return sorted(p for p in points if p not in ("/", "/dev", "/proc", "/tmp", "/var/task") and p[:6] != "/proc/")


@attack
def cgroup_path(host):
    return [line for line in _read("/proc/self/cgroup").decode().splitlines() if line.split(":", 2)[2] != "/"]


@attack
def cpuset_path(host):
    """A name in it: `/../..` is what a kernel says that has no cpusets this far down (cgroup_namespaces(7))."""
    return set(_read("/proc/self/cpuset").strip().split(b"/")) - {b"", b".."}


@attack
def paths_in_command_lines(host):
    text = b"".join(_read(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()).decode()
    return [word for word in host["words"] if word in text]


@attack
def paths_in_the_environment(host):
    text = repr(dict(os.environ)) + _read(f"/proc/{os.getppid()}/environ").decode(errors="replace")
    return [word for word in (*host["words"], host["hostname"]) if len(word) > 2 and word in text]


@attack
def variables_of_the_service(host):
    known = {"HOME", "USER", "LOGNAME", "MAIL", "SHELL", "NOTIFY_SOCKET", "LISTEN_FDS", "INVOCATION_ID",
             "SANDBOXD_CONFIG", "PYTHONDONTWRITEBYTECODE"}  # fmt: skip
    return sorted(known & set(os.environ))


@attack
def accounts_of_the_host(host):
    names = {line.split(":")[0] for line in _read("/etc/passwd").decode().splitlines()}
    return sorted(names - {"root", "nobody", "sbx_user1051"})


@attack
def host_in_hosts_file(host):
    return host["hostname"] in _read("/etc/hosts").decode().split()


@attack
def resolver_of_the_host(host):
    own = _read("/etc/resolv.conf").decode().split()
    return [word for word in own if re.match(r"[0-9.]+$", word) and word not in ("127.0.0.1", "127.0.0.53")]


@attack
def disk_of_the_host(host):
    """How large and how full the file system is that images lie on."""
    found = []
    for path in ("/", "/var/task", "/usr"):
        about = os.statvfs(path)
        if (about.f_blocks * about.f_frsize, about.f_files) == tuple(host["disk"]):
            found.append(path)
    return found


@attack
def kernel_log(host):
    return opens("/dev/kmsg") or opens("/proc/kmsg")


@attack
def symbols(host):
    return [line for line in open("/proc/kallsyms") if not line.startswith("0" * 16)][:2]


@attack
def hardware(host):
    return [
        p for p in ("/sys/class/dmi/id", "/sys/firmware", "/proc/device-tree", "/sys/hypervisor") if os.path.exists(p)
    ]


@attack
def hardware_address_of_the_host(host):
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for _, name in socket.if_nameindex():
            address = fcntl.ioctl(one, 0x8927, struct.pack("16s24x", name.encode()))[18:24]
            found += [address.hex(":")] if address.hex(":") in host["hardware"] else []
    return found


@attack
def routes_of_the_host(host):
    routes = [line.split()[:3] for line in open("/proc/net/route")][1:]
    return [route for route in routes if route[0] != "eth0"]


@attack
def forwarding_table_of_the_host(host):
    return [name for name in host["addresses"] if name in _read("/proc/net/fib_trie").decode()]


@attack
def connections_tracked(host):
    return _read("/proc/net/nf_conntrack") or _read("/proc/net/ip_conntrack")


@attack
def packets_of_the_host(host):
    lines = [line.split() for line in _read("/proc/net/dev").decode().splitlines()[2:]]
    return [line[0] for line in lines if line[0] not in ("lo:", "eth0:")]


@attack
def names_of_rules(host):
    return b"".join(_read(f"/proc/net/{name}_tables_names") for name in ("ip", "ip6", "arp"))


@attack
def command_line_of_the_builder(host):
    text = _read("/proc/1/cmdline")
    return text if b"sandboxd" in text or b"python" in text else None


@attack
def a_process_name_of_the_host(host):
    names = [_read(f"/proc/{pid}/comm").decode() for pid in os.listdir("/proc") if pid.isdigit()]
    return [name for name in names if name.startswith("sandboxd")]


@attack
def time_zone_of_the_host(host):
    return time.tzname[0] != "UTC"
