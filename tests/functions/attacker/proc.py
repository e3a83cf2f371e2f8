"""/proc: what it says of the kernel, of other processes, and what can be written there."""

import os

from attack import collection, opens

ATTACKS, attack = collection()
# Files whose content is the whole machine's.
OF_THE_KERNEL = """
    buddyinfo cgroups cmdline config.gz consoles crypto devices diskstats dma execdomains fb filesystems interrupts
    iomem ioports kallsyms kcore key-users keys kmsg kpagecgroup kpagecount kpageflags latency_stats locks mdstat misc
    modules mtrr pagetypeinfo partitions sched_debug schedstat slabinfo softirqs swaps timer_list timer_stats version
    vmallocinfo vmstat zoneinfo
""".split()
DIRECTORIES = ("acpi", "asound", "bus", "driver", "fs", "irq", "pressure", "scsi", "tty", "dynamic_debug")
KNOWN = {"cpuinfo", "loadavg", "meminfo", "mounts", "net", "self", "stat", "sys", "sysvipc", "thread-self"}
SWITCHES = """
    kernel/core_pattern kernel/modprobe kernel/hostname kernel/domainname kernel/sysrq kernel/panic kernel/ns_last_pid
    kernel/randomize_va_space kernel/unprivileged_bpf_disabled kernel/io_uring_disabled kernel/perf_event_paranoid
    kernel/keys/maxkeys kernel/shmmax kernel/msgmax kernel/sem kernel/printk kernel/pid_max kernel/poweroff_cmd
    fs/binfmt_misc/register fs/mqueue/queues_max fs/protected_symlinks fs/suid_dumpable fs/file-max
    vm/drop_caches vm/overcommit_memory vm/mmap_min_addr vm/nr_hugepages user/max_user_namespaces
    net/ipv4/ip_forward net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range net/core/somaxconn
    net/ipv6/conf/all/disable_ipv6 dev/tty/legacy_tiocsti
""".split()
# Changing numbers of the whole machine below /proc/sys.
FACTS = """
    kernel/random/boot_id kernel/random/entropy_avail kernel/core_pattern kernel/modprobe kernel/poweroff_cmd
    kernel/tainted kernel/acct kernel/keys/maxkeys kernel/pty/nr fs/file-nr fs/dentry-state fs/inode-nr fs/inode-state
    fs/aio-nr fs/quota/syncs fs/binfmt_misc/status vm/stat_interval kernel/sched_domain kernel/cad_pid
    kernel/bootloader_version net/netfilter/nf_conntrack_count net/netfilter/nf_conntrack_max
""".split()
OF_PID_1 = ("environ", "maps", "mem", "root", "cwd", "exe", "stack", "syscall", "auxv", "io", "pagemap", "map_files",
            "smaps", "fd", "fdinfo", "timers", "personality", "mountstats")  # fmt: skip
OWN_SWITCHES = {
    "loginuid": b"0",
    "setgroups": b"allow",
    "timens_offsets": b"boottime 0 0",
}


def _name(path):
    return path.replace("/", "_").replace(".", "_").replace("-", "_")


def _reads(path):
    return lambda host: open(path, "rb", buffering=0).read(200)[:60]


def _lists(path):
    return lambda host: os.listdir(path)[:5]


def _writes(path):
    return lambda host: opens(path, os.O_WRONLY)


def _says(path, text):
    def say(host):
        with open(path, "wb", buffering=0) as file:
            return file.write(text)

    return say


for _file in OF_THE_KERNEL:
    ATTACKS[f"read_{_name(_file)}"] = _reads(f"/proc/{_file}")
for _file in DIRECTORIES:
    ATTACKS[f"list_{_name(_file)}"] = _lists(f"/proc/{_file}")
for _file in SWITCHES:
    ATTACKS[f"switch_{_name(_file)}"] = _writes(f"/proc/sys/{_file}")
for _file in FACTS:
    ATTACKS[f"sys_{_name(_file)}"] = _reads(f"/proc/sys/{_file}")
for _file, _text in OWN_SWITCHES.items():
    ATTACKS[f"write_own_{_name(_file)}"] = _says(f"/proc/self/{_file}", _text)
ATTACKS["sysrq_trigger"] = _writes("/proc/sysrq-trigger")
ATTACKS["write_irq_affinity"] = _writes("/proc/irq/default_smp_affinity")
ATTACKS["write_mtrr"] = _writes("/proc/mtrr")


def _of_pid_1(name):
    def look(host):
        path = f"/proc/1/{name}"
        if name in ("root", "cwd", "exe"):
            return os.readlink(path)
        if name in ("fd", "fdinfo", "map_files"):
            return os.listdir(path) or "listed"
        return open(path, "rb", buffering=0).read(1) and "read"

    return look


for _file in OF_PID_1:
    ATTACKS[f"pid_1_{_file}"] = _of_pid_1(_file)
for _file in ("mem", "comm", "oom_score_adj", "clear_refs", "coredump_filter", "autogroup"):
    ATTACKS[f"write_pid_1_{_name(_file)}"] = _writes(f"/proc/1/{_file}")


@attack
def a_file_that_nobody_has_looked_at(host):
    """Whatever a newer kernel has at the top of /proc must be covered too."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() or entry.name in KNOWN:
            continue
        try:
            if os.listdir(entry.path) if entry.is_dir() else open(entry.path, "rb", buffering=0).read(1):
                found.append(entry.name)
        except OSError:
            continue
    return found


@attack
def something_writable(host):
    found = []
    for top, directories, names in os.walk("/proc"):
        if top == "/proc":
            directories[:] = [name for name in directories if not name.isdigit() and name != "thread-self"]
        directories[:] = [name for name in directories if (top, name) not in (("/proc", "self"), ("/proc", "net"))]
        for name in names:
            path = os.path.join(top, name)
            # The devices that cover files lead nowhere.
            if os.access(path, os.W_OK) and os.path.isfile(path):
                found.append(path)
    return found[:5]


@attack
def processes_of_others(host):
    meant = {1, os.getpid(), os.getppid()}
    return [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in meant]


@attack
def physical_addresses(host):
    page = bytearray(4096)
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(id(page) // 4096 * 8)
        entry = int.from_bytes(file.read(8), "little")
    return entry & (1 << 55) - 1 if entry >> 63 else None


@attack
def kernel_stack(host):
    return open("/proc/self/stack").read()


@attack
def kernel_addresses(host):
    """Slots of sockets and of what waits, which are addresses where the kernel does not hide them."""
    lines = [line.split() for name in ("tcp", "udp", "unix", "packet") for line in open(f"/proc/net/{name}")]
    return [word for line in lines for word in line if word.rstrip(":").lower().startswith("ffff") and len(word) >= 16]


@attack
def login_of_the_host(host):
    return open("/proc/self/loginuid").read() != "4294967295"


@attack
def pids_outside(host):
    """NSpid names the process in every pid namespace from the reader's view downwards."""
    lines = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
    return lines["NSpid"].split()[1:]


@attack
def badness_lowered(host):
    with open("/proc/self/oom_score_adj") as file:
        now = int(file.read())
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(now - 1))
    return "lowered"


@attack
def memory_of_a_neighbour(host):
    return opens(f"/proc/{host['pid']}/mem")
