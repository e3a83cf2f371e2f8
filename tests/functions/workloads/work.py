"""Pieces of everyday work, each in a process and an empty directory of its own; one that fails raises."""

import asyncio
import concurrent.futures
import ctypes
import fcntl
import http.client
import http.server
import mmap
import multiprocessing
import os
import resource
import select
import selectors
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time

HERE = "."


def starting_python():
    os.execv("/usr/bin/python3", ["python3", "-I", "-c", "import decimal, json, http.client, ssl, zoneinfo"])


def shell():
    script = """
        set -e -o pipefail
        ls / | sort | head -n 3 > list
        [ -s list ] && [ -r list ] && [ ! -x list ]
        while read -r line; do echo "$line"; done < list | wc -l | grep -q 3
        trap 'touch trapped' USR1; kill -USR1 $$; [ -e trapped ]
        sleep 0.01 & wait $!
        (cd / && pwd) > where; [ "$(cat where)" = / ]
        umask 077; ulimit -n > /dev/null; echo <(true) > /dev/null; exec 3>&1; echo "$(id -u)" >&3
        [ "$(timeout 5 nice echo x)" = x ]
    """
    os.execv("/bin/bash", ["bash", "-c", script])


def small_shell():
    os.execv("/bin/sh", ["sh", "-c", "sleep 0.01 & wait; trap 'exit 0' TERM; kill -TERM $$; exit 1"])


def coreutils():
    script = """
        set -e
        mkdir -p a/b; echo text > a/b/c; ln a/b/c a/hard; ln -s b/c a/soft; cp -a a d; mv d e; chmod 600 e/hard
        touch -d 2020-01-01 e/hard; truncate -s 5 e/hard; readlink e/soft; stat -L e/soft; df e; du e; ls -laR e
        dd if=/dev/zero of=f bs=4k count=4 conv=fsync; dd if=f of=g oflag=append conv=notrunc,fdatasync; cat f g > h
        tar -czf t.tgz a; tar -xzf t.tgz -C e; find e -type f -exec rm {} +; rm -r e; rmdir a/x || true; sync -f h
        chown "$(id -u):$(id -g)" h; tee i < h > /dev/null; sort h; mktemp; date; uname -a; nproc; split h
    """
    os.execv("/bin/bash", ["bash", "-c", script])


def files():
    with open("x", "w+b") as file:
        number = file.fileno()
        file.write(b"0123456789" * 1000)
        file.flush()
        os.fsync(number)
        os.fdatasync(number)
        os.posix_fallocate(number, 0, 20_000)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_WILLNEED)
        os.pwrite(number, b"abc", 5)
        assert os.pread(number, 3, 5) == b"abc"
        assert os.pwritev(number, [b"a", b"b"], 0) == 2 and os.preadv(number, [bytearray(2)], 0) == 2
        assert (
            os.pwritev(number, [b"a"], 0, os.RWF_SYNC) == 1 and os.preadv(number, [bytearray(1)], 0, os.RWF_HIPRI) == 1
        )
        os.lseek(number, 0, os.SEEK_SET)
        assert os.readv(number, [bytearray(2), bytearray(2)]) == 4 and os.writev(number, [b"x", b"y"]) == 2
        os.fchmod(number, 0o640)
        os.fchown(number, os.getuid(), os.getgid())
        os.ftruncate(number, 100)
        os.truncate("x", 90)
        os.fstatvfs(number)
        os.lockf(number, os.F_LOCK, 10)
        fcntl.flock(number, fcntl.LOCK_EX)
        fcntl.fcntl(number, fcntl.F_GETFL)
        target = os.open("y", os.O_CREAT | os.O_RDWR)
        assert os.copy_file_range(number, target, 10, 0) == 10
        assert os.sendfile(target, number, 0, 10) == 10
        assert os.stat(target).st_size == 20
    os.statvfs(HERE)
    assert os.access("x", os.R_OK) and os.access("x", os.R_OK, effective_ids=True)
    os.chmod("x", 0o600)
    os.chown("x", os.getuid(), os.getgid())
    os.utime("x", (1, 1))
    os.link("x", "l")
    os.symlink("x", "s")
    os.lchown("s", os.getuid(), os.getgid())
    assert os.readlink("s") == "x"
    os.rename("l", "m")
    os.replace("m", "n")
    os.unlink("n")
    os.mkdir("d")
    os.rmdir("d")
    assert {"x", "y", "s"} == set(os.listdir(HERE)) == {entry.name for entry in os.scandir(HERE)}
    assert os.path.realpath("s") == os.path.join(os.getcwd(), "x")
    os.umask(0o022)
    here = os.open(HERE, os.O_RDONLY)
    os.mkdir("d", dir_fd=here)
    os.rename("d", "e", src_dir_fd=here, dst_dir_fd=here)
    os.link("x", "l", src_dir_fd=here, dst_dir_fd=here)
    os.symlink("x", "t", dir_fd=here)
    os.readlink("t", dir_fd=here)
    os.chmod("x", 0o600, dir_fd=here)
    os.chown("x", os.getuid(), os.getgid(), dir_fd=here)
    os.access("x", os.R_OK, dir_fd=here)
    os.unlink("l", dir_fd=here)
    os.fchdir(here)
    os.chdir(HERE)
    with tempfile.TemporaryFile(dir=HERE) as file:
        file.write(b"x")
    shutil.copytree("/etc/ssl", "tree", symlinks=True)
    shutil.rmtree("tree")


def attributes():
    with open("x", "w") as file:
        number = file.fileno()
        for place in ("x", number):
            os.setxattr(place, "user.a", b"1")
            assert os.getxattr(place, "user.a") == b"1" and os.listxattr(place) == ["user.a"]
            os.removexattr(place, "user.a")
    assert os.listxattr("x", follow_symlinks=False) == []
    os.setxattr("x", "user.a", b"1", follow_symlinks=False)
    os.getxattr("x", "user.a", follow_symlinks=False)
    os.removexattr("x", "user.a", follow_symlinks=False)


def memory():
    with mmap.mmap(-1, 1 << 16) as block:
        block.write(b"x" * 100)
        block.resize(1 << 20)
        block.madvise(mmap.MADV_DONTNEED)
    with open("x", "w+b") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096) as block:
            block[:2] = b"ab"
            block.flush()
    assert len(bytearray(64 << 20)) == 64 << 20
    with open(os.memfd_create("x"), "w+b") as file:
        file.write(b"x")


def threads():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda x: time.sleep(0.001) or x, range(64))) == 2016
    event = threading.Event()
    thread = threading.Thread(target=event.set)
    thread.start()
    assert event.wait(1)
    thread.join()
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.sched_yield()
    os.sched_getscheduler(0), os.sched_getparam(0), os.sched_rr_get_interval(0)
    os.sched_get_priority_max(os.SCHED_RR), os.sched_get_priority_min(os.SCHED_RR)


def processes():
    assert subprocess.run(["/usr/bin/id", "-u"], capture_output=True, check=True).stdout
    assert subprocess.run("cat", input=b"x", shell=True, capture_output=True, start_new_session=True).stdout == b"x"
    child = os.fork()
    if child == 0:
        os._exit(3)
    assert os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT).si_status == 3
    os.waitpid(child, 0)
    child = os.posix_spawn("/usr/bin/sleep", ["sleep", "9"], {})
    watch = os.pidfd_open(child)
    signal.pidfd_send_signal(watch, signal.SIGTERM)
    select.select([watch], [], [])
    os.wait4(child, 0)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.execve(os.open("/usr/bin/true", os.O_RDONLY), ["true"], {})
    assert os.waitpid(child, 0)[1] == 0
    assert os.getpgid(0) > 0 and os.getsid(0) > 0 and os.getpgrp() > 0 and os.getppid() >= 0
    assert os.times().elapsed > 0
    os.nice(1)
    os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + 1)


def several_processes():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=theirs.send, args=({"x": 1},))
    process.start()
    assert ours.recv() == {"x": 1}
    process.join()
    assert process.exitcode == 0


def identity():
    uid, gid = os.getuid(), os.getgid()
    os.geteuid(), os.getegid(), os.getgroups()
    os.setuid(uid), os.setgid(gid), os.setreuid(uid, uid), os.setregid(gid, gid)
    os.setresuid(*os.getresuid()), os.setresgid(*os.getresgid())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    resource.getrusage(resource.RUSAGE_SELF)
    os.uname(), os.getloadavg(), os.sysconf("SC_PHYS_PAGES"), os.cpu_count()


def clocks():
    for clock in (time.CLOCK_MONOTONIC, time.CLOCK_PROCESS_CPUTIME_ID, time.CLOCK_THREAD_CPUTIME_ID):
        time.clock_gettime(clock)
        time.clock_getres(clock)
    time.sleep(0.001)
    timer = os.timerfd_create(time.CLOCK_MONOTONIC)
    os.timerfd_settime(timer, initial=0.001)
    os.timerfd_gettime(timer)
    os.read(timer, 8)


def signals():
    heard = []
    signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.getitimer(signal.ITIMER_REAL)
    signal.pause()
    signal.alarm(5)
    assert signal.alarm(0) == 5
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.sigpending() == {signal.SIGUSR1}
    assert signal.sigtimedwait([signal.SIGUSR1], 1)
    signal.raise_signal(signal.SIGALRM)
    signal.pthread_kill(threading.get_ident(), signal.SIGALRM)
    assert len(heard) == 3
    signal.siginterrupt(signal.SIGALRM, False)


def waiting():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, b"x")
    assert select.select([reader], [], [], 1)[0]
    for kind in (selectors.PollSelector, selectors.EpollSelector, selectors.SelectSelector):
        with kind() as selector:
            selector.register(reader, selectors.EVENT_READ)
            assert selector.select(1)
    os.dup2(os.dup(reader), 30, inheritable=False)
    os.dup2(reader, 31)
    counter = os.eventfd(1)
    assert os.eventfd_read(counter) == 1
    a, b = os.pipe2(os.O_CLOEXEC)
    assert os.splice(reader, b, 1) == 1
    os.get_inheritable(a)


def event_loop():
    async def main():
        process = await asyncio.create_subprocess_exec("/usr/bin/true")
        assert await process.wait() == 0
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        server.close()
        await asyncio.to_thread(time.sleep, 0.001)

    asyncio.run(main())


def sockets():
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname(), timeout=2)
    connection, _ = server.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    client.sendmsg([b"a"])
    assert connection.recvmsg(1)[0] == b"a"
    client.send(b"b")
    assert connection.recv(1) == b"b" and client.getpeername()
    client.shutdown(socket.SHUT_RDWR)
    one, other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    other.sendto(b"x", one.getsockname())
    assert one.recvfrom(1)[0] == b"x"
    a, b = socket.socketpair()
    socket.send_fds(a, [b"x"], [0])
    socket.recv_fds(b, 1, 1)
    socket.if_nameindex(), socket.if_nametoindex("lo")
    socket.getaddrinfo("localhost", 80)


def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200


def database():
    with sqlite3.connect("a.db") as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table t (x)")
        connection.executemany("insert into t values (?)", [(x,) for x in range(100)])
    connection.execute("vacuum")
    assert connection.execute("select count(*) from t").fetchone() == (100,)
    connection.close()


def shared_memory():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(0, 4096, 0o1600)
    address = libc.shmat(segment, None, 0)
    assert address not in (None, 2**64 - 1)
    assert libc.shmdt(ctypes.c_void_p(address)) == 0 and libc.shmctl(segment, 0, None) == 0
    semaphores = libc.semget(0, 1, 0o1600)
    assert semaphores >= 0
    operation = ctypes.create_string_buffer(bytes([0, 0, 1, 0, 0, 0]))
    assert libc.semop(semaphores, operation, 1) == 0 and libc.semctl(semaphores, 0, 0) == 0
