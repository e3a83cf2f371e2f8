"""What a sandbox looks like from inside: nothing of the host, no privilege, nothing of a neighbour."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.conftest import Deployed
from tests.support.daemon import Daemon


def inside(daemon: Daemon, functions: dict[str, str], code: str) -> Any:
    """What `code` leaves in `result`, run in a sandbox."""
    answer = daemon.invoke(functions["evaluate"], {"code": code})
    assert "x-amz-function-error" not in answer.headers, answer.json
    return answer.json


def test_identity_and_privileges(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = "result = dict(line.split(':', 1) for line in open('/proc/%s/status'))"
    for process in ("self", "1"):
        status = {k: v.split() for k, v in inside(daemon, shared_functions, code % process).items()}
        # Pid 1 has an id of its own, which the function's user namespace has no name for.
        uid, gid = ("993", "990") if process == "self" else ("65534", "65534")
        assert status["Uid"] == [uid] * 4 and status["Gid"] == [gid] * 4
        assert status["Groups"] == []
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind][0], 16) == 0, (process, kind)
        assert status["NoNewPrivs"] == ["1"] and status["Seccomp"] == ["2"]
    names = inside(daemon, shared_functions, "import pwd, os; result = pwd.getpwuid(os.getuid()).pw_name")
    assert names == "sbx_user1051"


def test_the_id_maps_hold_one_id(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = "result = [open(f'/proc/self/{kind}_map').read().split() for kind in ('uid', 'gid')]"
    for (first, _, count), expected in zip(inside(daemon, shared_functions, code), ("993", "990"), strict=True):
        assert (first, count) == (expected, "1")


def test_pid_1_is_a_small_init(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = (
        "import os\nresult = [open('/proc/1/cmdline').read().split('\\0')[0], os.getpid(), os.getppid(),"
        " sorted(int(p) for p in os.listdir('/proc') if p.isdigit())]"
    )
    command, pid, parent, everyone = inside(daemon, shared_functions, code)
    assert command == "catatonit"
    assert parent == 0 and everyone == [1, pid]


def test_every_namespace_is_its_own(daemon: Daemon, deployed: Deployed) -> None:
    code = "import os\nresult = {kind: os.readlink(f'/proc/self/ns/{kind}') for kind in os.listdir('/proc/self/ns')}"
    seen = [daemon.call(deployed("evaluate"), {"code": code}) for _ in range(2)]
    seen.append({kind: os.readlink(f"/proc/self/ns/{kind}") for kind in os.listdir("/proc/self/ns")})
    for kind in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"):
        assert len({one[kind] for one in seen}) == 3, kind


def test_mounts_show_nothing_of_the_host(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    lines = inside(daemon, shared_functions, "result = open('/proc/self/mountinfo').read().splitlines()")
    mounts = {line.split()[4]: line for line in lines}
    assert set(mounts) >= {"/", "/var/task", "/tmp", "/proc", "/dev"}
    for word in (str(daemon.data_dir), str(daemon.run_dir), daemon.instance, "sandboxd", "cache", "sysfs"):
        assert not [line for line in lines if word in line], word
    for point in ("/", "/var/task"):
        assert "ro" in mounts[point].split()[5].split(","), mounts[point]
    for point, line in mounts.items():
        options = line.split()[5].split(",")
        assert "nosuid" in options, point
        # In /proc lie devices of /dev over what must not be read there.
        if not point.startswith(("/dev", "/proc/")):
            assert "nodev" in options, point


def test_only_tmp_can_be_written(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = """
import os
result = []
for top, directories, files in os.walk("/"):
    directories[:] = [d for d in directories if os.path.join(top, d) not in ("/proc",)]
    if os.access(top, os.W_OK):
        result.append(top)
"""
    assert inside(daemon, shared_functions, code) == ["/tmp"]


def test_the_file_system_is_the_image_and_nothing_else(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = "import os; result = [sorted(os.listdir('/')), sorted(os.listdir('/dev')), os.path.exists('/sys/kernel')]"
    root, devices, sys = inside(daemon, shared_functions, code)
    assert {"bin", "dev", "etc", "lib", "opt", "proc", "tmp", "usr", "var"} <= set(root)
    assert not set(root) & {"boot", "old", "old_root", ".oldroot", "put_old"}
    assert set(devices) == {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr"}
    assert sys is False


def test_no_setuid_files(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = """
import os
result = []
for top, directories, files in os.walk("/"):
    directories[:] = [d for d in directories if os.path.join(top, d) != "/proc"]
    for name in files:
        if os.lstat(os.path.join(top, name)).st_mode & 0o6000:
            result.append(os.path.join(top, name))
"""
    assert inside(daemon, shared_functions, code) == []


def test_no_descriptor_but_those_meant(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = """
import os, socket, struct
result = {}
for number in os.listdir("/proc/self/fd"):
    try:
        result[number] = os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:
        continue
    if result[number].startswith("socket:"):
        with socket.socket(fileno=os.dup(int(number))) as one:
            if one.family == socket.AF_INET:
                result[number] = "connection to %s:%s" % one.getpeername()
            else:
                made_by = struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                result[number] = "pair of our own" if made_by == os.getpid() else "pair of a stranger"
"""
    found = inside(daemon, shared_functions, code)
    assert found["0"] == "/dev/null"
    assert found["1"] == found["2"] and found["1"].startswith("pipe:")
    others = [target for number, target in found.items() if int(number) > 2 and not target.startswith("/proc/")]
    # The runtime client's connection, and the pair that its libcurl wakes itself with.
    assert sorted(others) == ["connection to 127.0.0.1:9001", "pair of our own", "pair of our own"]


def test_only_loopback(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = """
import errno, socket
result = {"links": [name for _, name in socket.if_nameindex()], "routes": open("/proc/net/route").read().count("\\n")}
for place in (("169.254.169.254", 80), ("192.0.2.1", 80), ("127.0.0.1", 22)):
    with socket.socket() as probe:
        probe.settimeout(2)
        result[place[0]] = errno.errorcode[probe.connect_ex(place)]
"""
    found = inside(daemon, shared_functions, code)
    assert found["links"] == ["lo"] and found["routes"] <= 1
    assert (found["169.254.169.254"], found["192.0.2.1"]) == ("ENETUNREACH", "ENETUNREACH")
    assert found["127.0.0.1"] == "ECONNREFUSED"


def test_the_hosts_own_doors_are_out_of_reach(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = f"""
import errno, os, socket
with socket.socket() as probe:
    probe.settimeout(2)
    result = [errno.errorcode[probe.connect_ex(("127.0.0.1", {daemon.port}))]]
result.append(os.path.exists({str(daemon.socket)!r}))
with socket.socket(socket.AF_UNIX) as probe:
    result.append(errno.errorcode[probe.connect_ex("\\0/tmp/dbus")])
"""
    assert inside(daemon, shared_functions, code) == ["ECONNREFUSED", False, "ECONNREFUSED"]


REFUSED_CALLS = {
    "mount": "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
    "umount": "libc.umount2(b'/tmp', 2)",
    "unshare of a user namespace": "libc.unshare(0x10000000)",
    "unshare of a mount namespace": "libc.unshare(0x00020000)",
    "setns": "libc.setns(os.open('/proc/1/ns/net', os.O_RDONLY), 0)",
    "ptrace of pid 1": "libc.ptrace(16, 1, 0, 0)",
    "chroot": "libc.chroot(b'/tmp')",
    "setuid to root": "libc.setuid(0)",
    "a raw socket": "libc.socket(2, 3, 1)",
    "a packet socket": "libc.socket(17, 3, 768)",
    "bpf": "libc.syscall(321, 0, 0, 0)",
    "keyctl": "libc.syscall(250, 0, 0, 0, 0, 0)",
    "init_module": "libc.syscall(175, 0, 0, 0)",
    "reboot": "libc.reboot(0x89abcdef)",
    "mknod of a device": "libc.mknod(b'/tmp/d', 0o20666, 259)",
    "perf_event_open": "libc.syscall(298, 0, 0, -1, -1, 0)",
    "userfaultfd": "libc.syscall(323, 0)",
    "io_uring_setup": "libc.syscall(425, 1, ctypes.create_string_buffer(120))",
    "sethostname": "libc.sethostname(b'x', 1)",
    "settimeofday": "libc.settimeofday(ctypes.create_string_buffer(16), None)",
    "swapon": "libc.swapon(b'/tmp/x', 0)",
}


@pytest.mark.parametrize("what", REFUSED_CALLS)
def test_refused_system_calls(daemon: Daemon, shared_functions: dict[str, str], what: str) -> None:
    code = f"""
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
try:
    value = {REFUSED_CALLS[what]}
    result = [value, errno.errorcode.get(ctypes.get_errno())]
except OSError as error:
    result = [-1, errno.errorcode[error.errno]]
"""
    value, name = inside(daemon, shared_functions, code)
    assert value == -1 and name in ("EPERM", "ENOSYS", "EACCES", "EINVAL"), (value, name)


def test_limits_of_the_process(daemon: Daemon, deployed: Deployed) -> None:
    code = """
import os, resource
result = {"files": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE)}
children = []
try:
    while len(children) < 5000:
        pid = os.fork()
        if pid == 0:
            import time
            time.sleep(60)
            os._exit(0)
        children.append(pid)
except OSError as error:
    result["errno"] = error.errno
result["forks"] = len(children)
for pid in children:
    os.kill(pid, 9)
for pid in children:
    os.waitpid(pid, 0)
"""
    found = daemon.call(deployed("evaluate", MemorySize=2048), {"code": code})
    assert found["files"] == [1024, 1024] and found["core"] == [1, 1]
    assert found["errno"] == 11 and 900 < found["forks"] < 1024


def test_nothing_of_a_neighbour(daemon: Daemon, deployed: Deployed) -> None:
    writer, reader = deployed("evaluate"), deployed("evaluate")
    daemon.invoke(writer, {"code": "open('/tmp/secret', 'w').write('x')"})
    code = "import os; result = [os.listdir('/tmp'), len([p for p in os.listdir('/proc') if p.isdigit()])]"
    assert daemon.call(reader, {"code": code}) == [[], 2]


def test_every_environment_has_a_host_uid_of_its_own(daemon: Daemon, deployed: Deployed) -> None:
    names = [deployed("hello") for _ in range(2)]
    for name in names:
        daemon.invoke(name)
    builder = daemon.room("builder")
    runtimes = [process for process in builder.children(recursive=True) if "/var/runtime" in str(process.cmdline())]
    uids = {process.uids().real for process in runtimes}
    assert len(uids) == len(runtimes) >= 2 and all(uid >= 1 << 30 for uid in uids), uids


def test_the_service_has_no_privilege(daemon: Daemon) -> None:
    service = daemon.room("service")
    with open(f"/proc/{service.pid}/status") as file:
        status = {line.split(":")[0]: line.split(":", 1)[1].split() for line in file}
    assert "0" not in status["Uid"] and "0" not in status["Gid"]
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind][0], 16) == 0, kind
    assert status["NoNewPrivs"] == ["1"]
    with open(f"/proc/{service.pid}/maps") as file:
        assert "sandboxd/builder" not in file.read()


def test_the_environment_of_the_service_does_not_come_in(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    environ = inside(daemon, shared_functions, "import os; result = dict(os.environ)")
    assert not [value for value in environ.values() if str(daemon.data_dir) in value]
    assert not {"PYTHONDONTWRITEBYTECODE", "SANDBOXD_CONFIG", "HOME", "USER", "NOTIFY_SOCKET"} & set(environ)
    assert json.dumps(environ)
