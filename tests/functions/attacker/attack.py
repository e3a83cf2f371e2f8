"""What an attack is: a function that returns what it got, something false where it got nothing, or raises OSError.

Standard library and ctypes only: it runs in an image. Attacks do no harm where they succeed: they stop at the open
descriptor, name what does not exist, or set what is set already.
"""

import ctypes
import errno
import os
import resource
import signal

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
SECONDS = 5


def collection():
    """A dictionary of attacks and the decorator that fills it."""
    attacks = {}

    def attack(function):
        assert function.__name__ not in attacks, function.__name__
        attacks[function.__name__] = function
        return function

    return attacks, attack


def syscall(number, *arguments):
    """A raw system call: what it returned, as text, so that 0 is something too."""
    value = libc.syscall(ctypes.c_long(number), *map(_argument, arguments))
    if value < 0:
        raise OSError(ctypes.get_errno(), "system call")
    return f"returned {value}"


def _argument(value):
    if isinstance(value, bytes):
        return ctypes.c_char_p(value)
    return ctypes.c_ulong(value & 0xFFFFFFFFFFFFFFFF) if isinstance(value, int) else value


def limit_set(kind, soft, hard):
    """Set a resource limit; the resource module hides the errno of what is refused."""
    limits = (ctypes.c_ulong * 2)(soft & 0xFFFFFFFFFFFFFFFF, hard & 0xFFFFFFFFFFFFFFFF)
    if libc.setrlimit(kind, limits) < 0:
        raise OSError(ctypes.get_errno(), "setrlimit")
    return "set"


def opens(path, flags=os.O_RDONLY):
    """Whether a path can be opened."""
    os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK))
    return f"opened {path}"


def outcome(function, host):
    """What came of an attack, tried in a process of its own: "nothing", an errno, a signal, or what it saw."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(SECONDS)
        try:
            seen = function(host)
            said = f"saw {seen!r}" if seen else "nothing"
        except OSError as error:
            said = errno.errorcode.get(error.errno, f"error {error}")
        except BaseException as error:
            said = f"failed: {error!r}"
        os.write(writer, said.encode(errors="replace")[:2000])
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said
