"""Files: writing to what is read-only, reading what is another's, leaving the root."""

import ctypes
import fcntl
import os
import stat
import subprocess

from attack import collection, libc, opens, syscall

ATTACKS, attack = collection()
PLACES = ("", "etc", "usr", "usr/bin", "usr/lib", "opt", "opt/lib", "var", "var/task", "var/task/lib", "var/runtime",
          "var/lang", "run", "mnt", "home", "dev", "lib64")  # fmt: skip
FILES = ("/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/etc/ld.so.cache", "/usr/bin/env", "/usr/bin/catatonit",
         "/var/runtime/bootstrap", "/var/task/app.py")  # fmt: skip
MINE = "/tmp/of-files"


def _creates(place):
    def create(host):
        path = f"/{place}/attack"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(path)
        return path

    return create


def _writes(path):
    return lambda host: opens(path, os.O_WRONLY)


for _place in PLACES:
    ATTACKS[f"create_in_{_place.replace('/', '_') or 'root'}"] = _creates(_place)
for _path in FILES:
    ATTACKS[f"write_{_path.rpartition('/')[2].replace('.', '_')}"] = _writes(_path)


def _undone(name, do, undo=lambda: None):
    def change(host):
        do()
        undo()
        return "done"

    ATTACKS[name] = change


_undone("mkdir_in_code", lambda: os.mkdir("/var/task/attack"), lambda: os.rmdir("/var/task/attack"))
_undone("symlink_in_code", lambda: os.symlink("x", "/var/task/attack"), lambda: os.unlink("/var/task/attack"))
_undone("link_in_code", lambda: os.link("/var/task/app.py", "/var/task/x"), lambda: os.unlink("/var/task/x"))
_undone("rename_in_code", lambda: os.rename("/var/task/app.py", "/var/task/x"),
        lambda: os.rename("/var/task/x", "/var/task/app.py"))  # fmt: skip
_undone("unlink_in_code", lambda: os.unlink("/var/task/nothing"))
_undone("chmod_in_code", lambda: os.chmod("/var/task/app.py", 0o644))
_undone("utime_in_code", lambda: os.utime("/var/task/app.py"))
_undone("attribute_in_code", lambda: os.setxattr("/var/task/app.py", "user.attack", b""))
_undone("truncate_in_image", lambda: os.truncate("/etc/hosts", os.stat("/etc/hosts").st_size))
_undone("chown_in_image", lambda: os.chown("/etc/hosts", 0, 0))
_undone("bind_in_image", lambda: _bind("/run/attack"), lambda: os.unlink("/run/attack"))
_undone("temporary_file_in_code", lambda: os.close(os.open("/var/task", os.O_TMPFILE | os.O_WRONLY)))
_undone("fifo_in_tmp", lambda: os.mkfifo("/tmp/fifo"), lambda: os.unlink("/tmp/fifo"))
_undone("link_from_image_to_tmp", lambda: os.link("/usr/bin/env", MINE), lambda: os.unlink(MINE))


def _bind(path):
    import socket

    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)


def _everything(*spared):
    for top, directories, names in os.walk("/"):
        directories[:] = [name for name in directories if os.path.join(top, name) not in ("/proc", "/sys", *spared)]
        for name in (*directories, *names):
            yield os.path.join(top, name)


@attack
def something_outside_tmp_is_writable(host):
    return [p for p in _everything("/tmp", "/dev") if not os.path.islink(p) and os.access(p, os.W_OK)][:5]


@attack
def setuid_files(host):
    return [p for p in _everything("/tmp") if not os.path.islink(p) and os.stat(p).st_mode & 0o6000][:5]


@attack
def files_with_capabilities(host):
    found = []
    for path in _everything("/tmp", "/dev"):
        try:
            found += [path] if "security.capability" in os.listxattr(path, follow_symlinks=False) else []
        except OSError:
            continue
    return found[:5]


@attack
def device_files_outside_dev(host):
    return [p for p in _everything("/dev") if stat.S_ISBLK(m := os.lstat(p).st_mode) or stat.S_ISCHR(m)][:5]


@attack
def files_of_others_in_the_image(host):
    return [p for p in _everything("/tmp") if os.lstat(p).st_uid not in (0, 65534)][:5]


def _setuid_taken(mode):
    """A copy of `id`, set to run as its owner, takes no other id along: it is the function's already."""
    import shutil

    shutil.copy("/usr/bin/id", MINE)
    try:
        os.chown(MINE, -1, -1)
        os.chmod(MINE, mode)
        said = subprocess.run([MINE], capture_output=True, text=True, check=True).stdout
    finally:
        os.unlink(MINE)
    return said if "euid" in said or "egid" in said else None


@attack
def setuid_in_tmp(host):
    return _setuid_taken(0o4755)


@attack
def setgid_in_tmp(host):
    return _setuid_taken(0o2755)


@attack
def tmp_allows_setuid_or_devices(host):
    flags = os.statvfs("/tmp").f_flag
    return None if flags & os.ST_NOSUID and flags & 4 else flags  # 4: ST_NODEV


@attack
def root_allows_setuid_or_devices(host):
    return [p for p in ("/", "/var/task") if os.statvfs(p).f_flag & 7 != 7]  # read-only, nosuid, nodev


def _points(*prefixes):
    lines = [line.split() for line in open("/proc/self/mountinfo")]
    return [(line[4], line[5]) for line in lines if not prefixes or line[4].startswith(prefixes)]


@attack
def a_mount_allows_setuid(host):
    return [point for point, options in _points() if "nosuid" not in options.split(",")]


@attack
def a_mount_shares_propagation(host):
    words = ("shared:", "master:", "propagate_from:")
    return [line for line in open("/proc/self/mountinfo") if any(word in line for word in words)][:3]


@attack
def host_by_file_name(host):
    return opens(host["canary"])


@attack
def host_by_dots(host):
    return opens("../" * 60 + host["canary"].lstrip("/"))


@attack
def host_by_old_root(host):
    tops = ("old_root", ".old_root", ".oldroot", "put_old", "host", "rootfs", "oldroot", ".pivot_root", "mnt/host")
    return [path for path in tops if os.path.exists(f"/{path}")]


@attack
def host_by_root_of_pid_1(host):
    return opens("/proc/1/root" + host["canary"])


@attack
def host_by_directory_of_pid_1(host):
    return opens("/proc/1/cwd/" + "../" * 60 + host["canary"].lstrip("/"))


@attack
def host_by_own_root(host):
    return opens("/proc/self/root/" + "../" * 60 + host["canary"].lstrip("/"))


@attack
def host_by_root_of_the_runtime(host):
    return opens(f"/proc/{os.getppid()}/root/" + "../" * 60 + host["canary"].lstrip("/"))


@attack
def host_by_an_inherited_directory(host):
    found = []
    for process in (os.getpid(), os.getppid()):
        for number in os.listdir(f"/proc/{process}/fd"):
            try:
                os.chdir(f"/proc/{process}/fd/{number}")
                found.append(opens("../" * 60 + host["canary"].lstrip("/")))
            except OSError:
                continue
    return found


@attack
def host_by_chroot_and_fchdir(host):
    """The classic: keep a directory outside, chroot deeper, walk up from the kept one."""
    kept = os.open("/", os.O_RDONLY)
    os.chroot("/tmp")
    os.fchdir(kept)
    return opens("../" * 60 + host["canary"].lstrip("/"))


@attack
def host_by_handle(host):
    """open_by_handle_at knows no root: inode 2 is that of every ext4 filesystem."""
    handle = (8).to_bytes(4, "little") + (1).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(4)
    return syscall(304, os.open("/", os.O_RDONLY), handle, 0)


@attack
def host_by_symlink_in_tmp(host):
    link = "/tmp/link-to-host"
    os.symlink(host["canary"], link)
    try:
        return opens(link)
    finally:
        os.unlink(link)


@attack
def paths_in_mapped_files(host):
    words = host["words"]
    return [line for process in ("self", os.getppid()) for line in open(f"/proc/{process}/maps")
            if any(word in line for word in words)][:3]  # fmt: skip


@attack
def lower_directory_of_the_image(host):
    return [path for path in ("/i", "/c", "/e", "/d", "/r", "/p", "/f") if os.path.exists(path)]


@attack
def code_of_a_neighbour(host):
    return [p for p in _everything("/dev") if not os.path.isdir(p) and host["neighbour_code"] in p][:3]


@attack
def tmp_of_a_neighbour(host):
    return opens(host["neighbour_canary"])


@attack
def tmp_of_the_host(host):
    return sorted(name for name in os.listdir("/tmp") if not name.startswith(("of-", "fifo")))


@attack
def lock_shared_with_a_neighbour(host):
    """A neighbour holds a lock on each of these files, which both have."""
    found = []
    for path in host["locked"]:
        try:
            fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(path)
    return found


@attack
def a_disk_of_the_host_is_mounted(host):
    return [line for line in open("/proc/self/mountinfo") if " - " in line
            and line.split(" - ")[1].split()[0] not in ("overlay", "tmpfs", "proc", "ext4")]  # fmt: skip


@attack
def more_than_tmp_holds(host):
    """A file of 1 GiB reserved in /tmp, which has half of that."""
    file = os.open(MINE, os.O_CREAT | os.O_WRONLY)
    try:
        os.posix_fallocate(file, 0, 1 << 30)
        return "reserved"
    finally:
        os.close(file)
        os.unlink(MINE)


@attack
def swap_made_of_a_file(host):
    if libc.swapon(b"/etc/hosts", 0) < 0:
        raise OSError(ctypes.get_errno(), "swapon")
    return "swapped"
