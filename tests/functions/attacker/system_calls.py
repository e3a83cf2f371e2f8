"""System calls that no function needs. Each stops before harm: it names nothing, or asks for what cannot be."""

import ctypes
import fcntl
import mmap
import os
import socket
import struct

from attack import collection, libc, syscall

ATTACKS, attack = collection()

# Numbers of x86_64; arguments with which the kernel's own code, once reached, does nothing.
CALLS = {
    "mount_new": (165, b"none", b"/mnt", b"tmpfs", 0, 0),
    "mount_remount": (165, b"none", b"/", b"", 0x20 | 0x1000, 0),
    "mount_bind": (165, b"/tmp", b"/mnt", b"", 0x1000, 0),
    "mount_move": (165, b"/nowhere", b"/mnt", b"", 0x2000, 0),
    "mount_propagation": (165, b"none", b"/nowhere", b"", 1 << 20, 0),
    "umount2": (166, b"/nowhere", 2),
    "fsopen": (430, b"tmpfs", 0),
    "fsconfig": (431, -1, 0, b"a", b"b", 0),
    "fsmount": (432, -1, 0, 0),
    "fspick": (433, -100, b"/", 0),
    "open_tree": (428, -100, b"/", 1),
    "open_tree_attr": (467, -100, b"/", 1, 0, 0),
    "move_mount": (429, -1, b"", -100, b"/mnt", 4),
    "mount_setattr": (442, -100, b"/nowhere", 0, bytes(32), 32),
    "pivot_root": (155, b"/nowhere", b"/nowhere"),
    "chroot": (161, b"/tmp"),
    "ptrace_traceme": (101, 0, 0, 0, 0),
    "ptrace_seize": (101, 0x4206, 1, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "process_madvise": (440, -1, 0, 0, 21, 0),
    "process_mrelease": (448, -1, 0),
    "pidfd_getfd": (438, -1, 0, 0),
    "kcmp": (312, os.getpid(), 1, 0, 0, 0),
    "bpf_map": (321, 0, struct.pack("=IIII", 2, 4, 4, 1) + bytes(112), 128),
    "bpf_program": (321, 5, bytes(128), 128),
    "perf_event_open": (298, struct.pack("=IIQ", 1, 112, 1) + bytes(104), 0, -1, -1, 0),
    "add_key": (248, b"user", b"attack", b"x", 1, -1),
    "request_key": (249, b"user", b"attack", 0, 0),
    "keyctl_get_session": (250, 0, -3, 0),
    "keyctl_join_session": (250, 1, 0),
    "keyctl_describe_user": (250, 6, -4, 0, 0),
    "userfaultfd": (323, 1),
    "io_uring_setup": (425, 1, ctypes.create_string_buffer(120)),
    "io_uring_enter": (426, -1, 0, 0, 0, 0, 0),
    "io_uring_register": (427, -1, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0xFF),
    "kexec_file_load": (320, -1, -1, 0, 0, 0xFF),
    "init_module": (175, 0, 0, b""),
    "finit_module": (313, -1, b"", 0),
    "delete_module": (176, b"nothing", 0),
    "reboot": (169, 0, 0, 0, 0),
    "swapon": (167, b"/nowhere", 0),
    "swapoff": (168, b"/nowhere"),
    "settimeofday": (164, struct.pack("=qq", -1, -1), 0),
    "clock_settime": (227, 0, struct.pack("=qq", -1, -1)),
    "adjtimex": (159, struct.pack("=I", 0x4000) + bytes(204)),
    "clock_adjtime": (305, 0, struct.pack("=I", 0x4000) + bytes(204)),
    "iopl": (172, 3),
    "ioperm": (173, 0x80, 1, 1),
    "personality_no_randomisation": (135, 0x0040000),
    "personality_read_implies_exec": (135, 0x0400000),
    "personality_32_bit": (135, 0x0008),
    "modify_ldt": (154, 0, bytes(64), 64),
    "fanotify_init": (300, 0, 0),
    "fanotify_mark": (301, -1, 1, 2, -100, b"/"),
    "inotify_init": (253,),
    "inotify_init1": (294, 0),
    "name_to_handle_at": (303, -100, b"/", ctypes.create_string_buffer(bytes([128]) + bytes(140)), bytes(8), 0),
    "open_by_handle_at": (304, -100, struct.pack("=Ii", 8, 1) + bytes(8), 0),
    "syslog_size": (103, 10, 0, 0),
    "syslog_read_all": (103, 3, ctypes.create_string_buffer(4096), 4096),
    "acct": (163, b"/nowhere"),
    "quotactl": (179, 0x800004 << 8, b"/nowhere", 0, 0),
    "quotactl_fd": (443, -1, 0, 0, 0),
    "vhangup": (153,),
    "sethostname": (170, os.uname().nodename.encode(), len(os.uname().nodename)),
    "setdomainname": (171, b"(none)", 6),
    "seccomp_filter": (317, 1, 0, 0),
    "seccomp_user_notification": (317, 1, 8, 0),
    "landlock_create_ruleset": (444, 0, 0, 1),
    "landlock_restrict_self": (446, -1, 0),
    "mbind": (237, 0, 0, 0, 0, 0, 0),
    "set_mempolicy": (238, 0, 0, 0),
    "get_mempolicy": (239, 0, 0, 0, 0, 0),
    "migrate_pages": (256, 0, 0, 0, 0),
    "move_pages": (279, 0, 0, 0, 0, 0, 0),
    "set_mempolicy_home_node": (450, 0, 0, 0, 0),
    "sched_setscheduler_fifo": (144, 0, 1, struct.pack("=i", 1)),
    "sched_setscheduler_idle": (144, 0, 5, struct.pack("=i", 0)),
    "sched_setparam": (142, 0, struct.pack("=i", 0)),
    "sched_setattr_deadline": (314, 0, struct.pack("=IIQiIQQQ", 48, 6, 0, 0, 0, 10**6, 10**7, 10**7), 0),
    "ioprio_set_realtime": (251, 1, 0, 1 << 13),
    "memfd_secret": (447, 0),
    "statmount": (457, 0, 0, 0, 0),
    "listmount": (458, 0, 0, 0, 0),
    "listns": (470, 0, 0, 0, 0),
    "lsm_get_self_attr": (459, 100, 0, 0, 0),
    "lsm_set_self_attr": (460, 100, 0, 0, 0),
    "lsm_list_modules": (461, 0, 0, 0),
    "setxattrat": (463, -100, b"/nowhere", 0, b"user.a", 0, 0),
    "file_getattr": (468, -100, b"/", 0, 0, 0),
    "file_setattr": (469, -100, b"/", 0, 0, 0),
    "io_setup": (206, 1, ctypes.byref(ctypes.c_ulong())),
    "cachestat": (451, -1, 0, 0, 0),
    "remap_file_pages": (216, 0, 0, 0, 0, 0),
    "mq_open": (240, b"attack", 0o102, 0o600, 0),
    "mq_unlink": (241, b"nothing"),
    "sysfs": (139, 3),
    "ustat": (136, 0, 0),
    "rt_tgsigqueueinfo_of_pid_1": (297, 1, 1, 0, struct.pack("=iii", 0, 0, -1) + bytes(116)),
    "sync_of_the_whole_host": (162,),
    "get_robust_list_of_pid_1": (274, 1, bytes(8), bytes(8)),
}


def _call(number, *arguments):
    return lambda host: syscall(number, *arguments)


for _name, _arguments in CALLS.items():
    ATTACKS[_name] = _call(*_arguments)


def _machine_code(text):
    """Run machine code and return what it leaves in eax."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex(text))
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


@attack
def call_of_the_32_bit_architecture(host):
    return f"returned {_machine_code('b814000000cd80c3')}"  # mov eax, 20 (getpid); int 0x80; ret


@attack
def call_of_the_x32_architecture(host):
    return syscall(0x40000000 | 39)  # getpid


@attack
def prctl_core_scheduling(host):
    return syscall(157, 62, 0, os.getpid(), 0, 0)


@attack
def prctl_core_scheduling_with_upper_bits(host):
    return syscall(157, 1 << 32 | 62, 0, os.getpid(), 0, 0)


@attack
def prctl_memory_merge(host):
    return syscall(157, 67, 1, 0, 0, 0)


@attack
def prctl_set_mm(host):
    return syscall(157, 35, 13, 0, 0, 0)  # PR_SET_MM_EXE_FILE


@attack
def prctl_ptracer(host):
    return syscall(157, 0x59616D61, -1, 0, 0, 0)


def _madvise(advice):
    page = mmap.mmap(-1, 4096)
    return syscall(28, ctypes.addressof(ctypes.c_char.from_buffer(page)), 4096, advice)


@attack
def madvise_mergeable(host):
    return _madvise(12)


@attack
def madvise_mergeable_with_upper_bits(host):
    return _madvise(1 << 32 | 12)


@attack
def madvise_poison(host):
    return syscall(28, 0, 0, 100)


def _ioctl(name, request, path=None):
    def on_a_path(host):
        return f"returned {fcntl.ioctl(os.open(path, os.O_RDONLY), request, bytes(128))!r:.20}"

    def on_a_socket(host):
        with socket.socket() as one:
            return f"returned {fcntl.ioctl(one, request, bytes(128))!r:.20}"

    ATTACKS[f"ioctl_{name}"] = on_a_path if path else on_a_socket


_ioctl("TIOCSTI", 0x5412, "/dev/null")
_ioctl("TIOCLINUX", 0x541C, "/dev/null")
_ioctl("TIOCSETD", 0x5423, "/dev/null")
_ioctl("TIOCSCTTY", 0x540E, "/dev/null")
_ioctl("TIOCCONS", 0x541D, "/dev/null")
_ioctl("RNDADDTOENTCNT", 0x40045201, "/dev/random")
_ioctl("RNDCLEARPOOL", 0x5206, "/dev/null")
_ioctl("FIFREEZE", 0xC0045877, "/dev/null")
_ioctl("FITRIM", 0xC0185879, "/dev/null")
_ioctl("FIBMAP", 0x1, "/usr/bin/env")
_ioctl("FS_IOC_FIEMAP", 0xC020660B, "/usr/bin/env")
_ioctl("FS_IOC_SETFLAGS", 0x40086602, "/tmp")
_ioctl("FS_IOC_FSSETXATTR", 0x401C5820, "/tmp")
_ioctl("FS_IOC_GETVERSION", 0x80087601, "/tmp")
_ioctl("FS_IOC_GETUUID", 0x80111500, "/tmp")
_ioctl("FS_IOC_ENABLE_VERITY", 0x40806685, "/tmp")
_ioctl("FS_IOC_SET_ENCRYPTION_POLICY", 0x800C6613, "/tmp")
_ioctl("EXT4_IOC_RESIZE_FS", 0x40086610, "/tmp")
_ioctl("EXT4_IOC_SHUTDOWN", 0x8004587D, "/dev/null")
_ioctl("EXT4_IOC_MOVE_EXT", 0xC028660F, "/tmp")
_ioctl("SIOCSIFADDR", 0x8916)
_ioctl("SIOCSIFFLAGS", 0x8914)
_ioctl("SIOCSIFNAME", 0x8923)
_ioctl("SIOCADDRT", 0x890B)
_ioctl("SIOCSARP", 0x8955)
_ioctl("SIOCETHTOOL", 0x8946)
_ioctl("SIOCBRADDBR", 0x89A0)
_ioctl("SIOCGIFMAP", 0x8970)
_ioctl("SIOCOUTQNSD", 0x894B)


def _descriptor_control(name, *arguments):
    def control(host):
        return syscall(72, os.open("/usr/bin/env", os.O_RDONLY), *arguments)

    ATTACKS[f"fcntl_{name}"] = control


_descriptor_control("SETLEASE", 1024, 0)
_descriptor_control("NOTIFY", 1026, 1)
_descriptor_control("NOTIFY_with_upper_bits", 1 << 32 | 1026, 1)
_descriptor_control("SET_RW_HINT", 1036, 0)


@attack
def filter_loosened_by_another(host):
    """A filter of one's own that allows everything lies beside the sandbox's, not over it."""
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000), 8)  # BPF_RET, SECCOMP_RET_ALLOW
    syscall(157, 22, 2, struct.pack("=HxxxxxxQ", 1, ctypes.addressof(program)), 0, 0)
    return syscall(248, b"user", b"attack", b"x", 1, -1)  # add_key


@attack
def lookup_dcookie(host):
    return syscall(212, 0, 0, 0)


@attack
def setpriority_of_pid_1(host):
    if libc.setpriority(0, 1, libc.getpriority(0, 1)) < 0:
        raise OSError(ctypes.get_errno(), "setpriority")
    return "set"
