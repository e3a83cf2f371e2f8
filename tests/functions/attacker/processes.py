"""Processes: signalling others, ranks above others, limits raised, cores, ways past the cgroup."""

import ctypes
import errno
import os
import resource
import signal

from attack import collection, libc, limit_set, opens, syscall

ATTACKS, attack = collection()
LIMITS = {"CORE": 1, "NOFILE": 1024, "MEMLOCK": 65536, "MSGQUEUE": 0, "NICE": 0, "RTPRIO": 0, "SIGPENDING": 1024}


def _raises(kind):
    def raise_limit(host):
        number = getattr(resource, f"RLIMIT_{kind}")
        soft, hard = resource.getrlimit(number)
        above = resource.RLIM_INFINITY if hard == resource.RLIM_INFINITY else hard + 1
        return limit_set(number, soft, above)

    return raise_limit


def _above(kind, bound):
    return lambda host: not 0 <= resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))[1] <= bound


for _kind, _bound in LIMITS.items():
    ATTACKS[f"raise_{_kind}"] = _raises(_kind)
    ATTACKS[f"generous_{_kind}"] = _above(_kind, _bound)


@attack
def core_limit_set(host):
    return limit_set(resource.RLIMIT_CORE, 0, 0)


@attack
def limits_of_pid_1(host):
    return resource.prlimit(1, resource.RLIMIT_NOFILE)


@attack
def signal_pid_1(host):
    os.kill(1, 0)
    return "signalled"


@attack
def stop_pid_1_by_thread(host):
    return syscall(234, 1, 1, 0)  # tgkill


@attack
def signal_pid_1_by_pidfd(host):
    signal.pidfd_send_signal(os.pidfd_open(1), 0)
    return "signalled"


@attack
def signal_a_process_of_the_host(host):
    os.kill(host["pid"], 0)
    return "signalled"


@attack
def pidfd_of_a_process_of_the_host(host):
    return os.pidfd_open(host["pid"])


@attack
def signal_everybody(host):
    """Signal 0 to -1 asks whether there is anybody that may be signalled: pid 1 and itself never count."""
    me, parent = os.getpid(), os.getppid()
    reached = []
    for pid in range(1, 300):
        try:
            os.kill(pid, 0)
            reached += [] if pid in (me, parent) or os.path.exists(f"/proc/{parent}/task/{pid}") else [pid]
        except OSError:
            continue
    return reached


@attack
def affinity_of_pid_1(host):
    os.sched_setaffinity(1, os.sched_getaffinity(1))
    return "set"


@attack
def priority_of_its_group(host):
    return os.setpriority(os.PRIO_PROCESS, 0, -1) or "raised"


@attack
def real_time(host):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "real time"


@attack
def round_robin(host):
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    return "real time"


@attack
def runs_as_real_time(host):
    return os.sched_getscheduler(os.getppid()) != os.SCHED_OTHER


@attack
def autogroup_ahead(host):
    with open("/proc/self/autogroup", "w") as file:
        file.write("-5")
    return "ahead"


@attack
def latency_of_the_cpu(host):
    return opens("/dev/cpu_dma_latency", os.O_WRONLY)


@attack
def core_file(host):
    """A crash leaves no core, by file or by a helper of the host's."""
    os.chdir("/tmp")
    before = set(os.listdir("/tmp"))
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    _, status = os.waitpid(child, 0)
    left = set(os.listdir("/tmp")) - before
    for name in left:
        os.unlink(name)
    return sorted(left) or os.WCOREDUMP(status)


@attack
def core_limit_that_feeds_a_helper(host):
    """Of all limits only 1 keeps the kernel from piping a core to a program of the host's (core(5))."""
    return resource.getrlimit(resource.RLIMIT_CORE) != (1, 1)


@attack
def child_of_an_outsider(host):
    """The runtime's parent is outside: nothing in here may wait for it or be adopted by it."""
    status = dict(line.rstrip("\n").split(":\t", 1) for line in open(f"/proc/{os.getppid()}/status") if ":\t" in line)
    return int(status["PPid"])


@attack
def orphan_of_the_host(host):
    """An orphan becomes pid 1's, not the host's."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        me = os.getpid()
        if os.fork() == 0:
            while os.getppid() == me:
                pass
            os.write(writer, str(os.getppid()).encode())
        os._exit(0)
    os.wait()
    adopter = int(os.read(reader, 20))
    return adopter if adopter != 1 else None


@attack
def traced_by_somebody(host):
    status = open("/proc/self/status").read()
    return int(status.partition("TracerPid:")[2].split()[0])


@attack
def signal_queued_to_pid_1(host):
    libc.sigqueue.restype = ctypes.c_int
    if libc.sigqueue(1, 0, None) < 0:
        raise OSError(ctypes.get_errno(), "sigqueue")
    return "queued"


@attack
def io_rank_of_pid_1(host):
    return syscall(251, 1, 1, 0)


@attack
def huge_pages(host):
    address = libc.mmap(None, ctypes.c_size_t(2 << 20), 3, 0x40022, -1, ctypes.c_long(0))  # MAP_HUGETLB
    if address == -1:
        raise OSError(ctypes.get_errno() or errno.ENOMEM, "mmap")
    return "mapped"


@attack
def page_zero_mapped(host):
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x32, -1, ctypes.c_long(0))  # MAP_FIXED
    if address in (None, 0):
        return "mapped"
    raise OSError(ctypes.get_errno(), "mmap")
