"""Devices: none but the five that do nothing, and no way to make others."""

import os
import stat

from attack import collection, opens, syscall

ATTACKS, attack = collection()
DEVICES = """
    mem kmem port kmsg kvm fuse cuse console tty tty0 ttyS0 ptmx pts/ptmx pts/0 loop-control loop0 sda vda nvme0n1 md0
    dm-0 mapper/control net/tun vhost-net vsock userfaultfd btrfs-control rtc0 hwrng hpet cpu/0/msr cpu_dma_latency
    uinput input/event0 dri/card0 snd/timer vfio/vfio vga_arbiter nvram watchdog autofs mqueue shm hugepages rfkill
    sgx_enclave tpm0 mei0 ipmi0 i2c-0 nvidia0 binder zram0 ram0 ppp uhid
""".split()
MEANT = {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr"}


def _opens(path):
    return lambda host: opens(path)


for _device in DEVICES:
    ATTACKS[f"device_{_device.replace('/', '_').replace('-', '_')}"] = _opens(f"/dev/{_device}")


@attack
def more_devices_than_meant(host):
    return sorted(set(os.listdir("/dev")) - MEANT)


@attack
def devices_are_others_than_their_names(host):
    numbers = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
    found = {name: os.stat(f"/dev/{name}").st_rdev for name in numbers}
    return [name for name, device in found.items() if (os.major(device), os.minor(device)) != numbers[name]]


def _makes(kind, number):
    def make(host):
        path = "/tmp/of-devices"
        os.mknod(path, kind | 0o666, number)
        os.unlink(path)
        return "made"

    return make


ATTACKS["mknod_memory"] = _makes(stat.S_IFCHR, os.makedev(1, 1))
ATTACKS["mknod_null"] = _makes(stat.S_IFCHR, os.makedev(1, 3))
ATTACKS["mknod_disk"] = _makes(stat.S_IFBLK, os.makedev(7, 0))
ATTACKS["mknod_whiteout"] = _makes(stat.S_IFCHR, 0)
ATTACKS["mknod_socket"] = _makes(stat.S_IFSOCK, 0)


@attack
def mknodat_in_dev(host):
    path = b"/dev/attack"
    syscall(259, -100, path, stat.S_IFCHR | 0o666, os.makedev(1, 1))
    os.unlink(path)
    return "made"


@attack
def remove_from_dev(host):
    os.rmdir("/dev/null")
    return "removed"


@attack
def chmod_in_dev(host):
    os.chmod("/dev/null", stat.S_IMODE(os.stat("/dev/null").st_mode))
    return "changed"


@attack
def chown_in_dev(host):
    os.chown("/dev/null", 0, 0)
    return "changed"


@attack
def exec_from_dev(host):
    return None if os.statvfs("/dev").f_flag & os.ST_NOEXEC else "may run"


@attack
def controlling_terminal(host):
    return [number for number in range(3) if os.isatty(number)] or open("/proc/self/stat").read().split()[6] != "0"


@attack
def sys_is_there(host):
    return os.path.exists("/sys") and os.listdir("/sys")


@attack
def cgroup_filesystem(host):
    return [p for p in ("/sys/fs/cgroup", "/cgroup", "/mnt/cgroup") if os.path.isdir(p) and os.listdir(p)]
