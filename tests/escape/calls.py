"""Who needs each system call that the profile allows.

NEEDED: by which work (tests/functions/workloads/work.py), that is not done without it; of calls joined by `|`, any one
will do. KEPT: what no work of the tests fails without, and why it stays.
"""

NEEDED = {
    "starting_python": """
        arch_prctl close execve exit_group fcntl fstat futex getdents64 mmap mprotect newfstatat openat pread64 read
    """,
    "identity": """
        getgid getgroups getresgid getresuid getrusage getuid prlimit64 setgid setregid setresgid setresuid setreuid
        setuid sysinfo uname
    """,
    "clocks": """
        clock_getres clock_gettime clock_nanosleep timerfd_create timerfd_gettime timerfd_settime
    """,
    "signals": """
        alarm getitimer getpid gettid kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn
        rt_sigtimedwait setitimer tgkill
    """,
    "waiting": """
        dup2 epoll_create1 epoll_ctl epoll_wait eventfd2 ioctl pipe2 poll pselect6 splice write
    """,
    "sockets": """
        accept|accept4 bind brk connect getpeername getsockname getsockopt listen lseek recvfrom recvmsg sendmsg
        sendto setsockopt shutdown socket socketpair
    """,
    "shared_memory": """
        semctl semget semtimedop shmat shmctl shmdt shmget
    """,
    "attributes": """
        fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr
        removexattr setxattr
    """,
    "memory": """
        ftruncate madvise memfd_create mremap msync
    """,
    "threads": """
        clone exit munmap rseq sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam
        sched_getscheduler sched_rr_get_interval sched_setaffinity sched_yield
    """,
    "processes": """
        getpgid getpgrp getppid getpriority getsid pidfd_open pidfd_send_signal setpgid setpriority setsid times
        vfork wait4 waitid
    """,
    "files": """
        access chdir chmod chown copy_file_range faccessat|faccessat2 fadvise64 fallocate fchdir fchmod fchmodat
        fchown fchownat fdatasync flock fstatfs fsync getcwd lchown link linkat mkdir mkdirat preadv2 pwrite64
        pwritev2 readlink readlinkat readv rename renameat rmdir sendfile statfs symlink symlinkat truncate umask
        unlink unlinkat utimensat writev
    """,
    "small_shell": """
        rt_sigsuspend
    """,
    "coreutils": """
        creat getegid geteuid syncfs
    """,
}
PID_1 = "signalfd4"  # catatonit's; tried with a daemon whose profile lacks it
KEPT = {
    "other forms of calls: programs linked statically, with musl or long ago know no other": """
        dup epoll_create fork getrlimit lstat open pipe preadv pwritev select semop setrlimit stat tkill utime
        utimes
    """,
    "newer forms, which libraries try first; without them they need several calls, or leave a race": """
        close_range dup3 fchmodat2 getrandom openat2 renameat2 statx
    """,
    "event loops of other runtimes: libuv, Go, GLib": """
        epoll_pwait ppoll
    """,
    "Go: its scheduler's sleep, its handlers' stacks, its profiler's timers; POSIX timers of C": """
        nanosleep sigaltstack timer_create timer_delete timer_getoverrun timer_gettime timer_settime
    """,
    "every libc, as a thread begins: how the kernel wakes those that wait for one that died": """
        set_robust_list set_tid_address
    """,
    "Node asks by it whether it is privileged": """
        capget
    """,
    ".NET and the JVM stop their threads by it": """
        membarrier
    """,
    "libsodium and GnuPG keep keys out of swap; within RLIMIT_MEMLOCK": """
        mlock munlock
    """,
    "RocksDB, PostgreSQL and git: the order of what reaches the disk": """
        sync_file_range
    """,
    "glibc's resolver asks for both families at once; QUIC": """
        recvmmsg sendmmsg
    """,
    "names of threads, the end of one's parent, own filters: supervisors and tools of C": """
        prctl
    """,
    "what the vDSO falls back to where a clock cannot be read without a call; arm64 has no other": """
        getcpu gettimeofday time
    """,
    "the kernel itself has a call go on by it that the freezer or a stop cut short": """
        restart_syscall
    """,
}
