"""What a sandbox looks like from inside where it works as meant; what must fail in it is tests/escape."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.conftest import Deployed
from tests.support.daemon import Daemon


def inside(daemon: Daemon, functions: dict[str, str], code: str) -> Any:
    """What `code` leaves in `result`, run in a sandbox."""
    answer = daemon.invoke(functions["evaluate"], {"code": code})
    assert "x-amz-function-error" not in answer.headers, answer.json
    return answer.json


def test_identity(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = "result = dict(line.split(':', 1) for line in open('/proc/%s/status'))"
    for process in ("self", "1"):
        status = {k: v.split() for k, v in inside(daemon, shared_functions, code % process).items()}
        # Pid 1 has an id of its own, which the function's user namespace has no name for.
        uid, gid = ("993", "990") if process == "self" else ("65534", "65534")
        assert status["Uid"] == [uid] * 4 and status["Gid"] == [gid] * 4
    names = inside(daemon, shared_functions, "import pwd, os; result = pwd.getpwuid(os.getuid()).pw_name")
    assert names == "sbx_user1051"


def test_what_proc_says_is_the_functions_own(daemon: Daemon, deployed: Deployed) -> None:
    code = """
import os, re, time
total = int(re.search(r"MemTotal: *(\\d+)", open("/proc/meminfo").read())[1])
booted = int(re.search(r"btime (\\d+)", open("/proc/stat").read())[1])
ages = [time.time() - booted, time.monotonic()]
load, host = open("/proc/loadavg").read().split()[:3], open("/proc/sys/kernel/hostname").read()
uuids = {open("/proc/sys/kernel/random/uuid").read() for _ in range(2)}
result = [total, ages, os.cpu_count(), load, host, len(uuids)]
"""
    # By a stem, and by the other road.
    for memory, variables in ((192, {}), (448, {"PYTHONNOTHING": "1"})):
        name = deployed("evaluate", MemorySize=memory, Environment={"Variables": variables})
        total, ages, processors, load, host, uuids = daemon.call(name, {"code": code})
        assert total == memory * 1024 and processors == os.cpu_count()
        builder = time.time() - daemon.room("builder").create_time()
        assert max(ages) < builder + 1 and abs(ages[0] - ages[1]) < 3, "its machine booted when it was made"
        assert load == ["0.00"] * 3 and host == "sandbox\n" and uuids == 2


def test_pid_1_is_a_small_init(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    code = (
        "import os\nresult = [open('/proc/1/cmdline').read().split('\\0')[0], os.getpid(), os.getppid(),"
        " sorted(int(p) for p in os.listdir('/proc') if p.isdigit())]"
    )
    command, pid, parent, everyone = inside(daemon, shared_functions, code)
    assert command == "catatonit"
    assert parent == 0 and everyone == [1, pid]


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
