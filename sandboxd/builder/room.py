"""The builder's life: what it makes as it begins, and what it leaves as it ends.

Room: root, pid 1 of the outer pid namespace. May: put the parts of this room together. Between begin and end, all that
happens is in `server.py`.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import signal
import socket
import sys
from typing import NoReturn

import prctl

from sandboxd.builder import code, leftovers, linux, rootfs, seccomp, zygote
from sandboxd.builder.cgroups import Cgroups
from sandboxd.builder.environment import Host
from sandboxd.builder.network import Router
from sandboxd.builder.server import Server
from sandboxd.builder.volumes import Volumes
from sandboxd.config import Config
from sandboxd.errors import ProtocolViolation, StepFailed

log = logging.getLogger("sandboxd.builder")


def main() -> NoReturn:
    """Become the builder: `python -m sandboxd.builder.room CONFIG_FD CHANNEL_FD GENERATION`."""
    config_fd, channel_fd, generation = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    prctl.set_pdeathsig(signal.SIGKILL)
    prctl.set_name("sandboxd-build")
    prctl.set_proctitle("sandboxd: builder")
    logging.basicConfig(level=logging.INFO, format="builder: %(message)s")
    with os.fdopen(config_fd, "rb") as file:
        config: Config = pickle.load(file)  # noqa: S301  # from the keeper, which is root
    channel = socket.socket(fileno=channel_fd)
    channel.setblocking(True)
    os.umask(0o022)
    try:
        leftovers.remove(config, keep_generation=generation)
        cgroups = Cgroups(config.instance)
        router = Router(config)
        volumes = Volumes(str(config.data_dir / "volumes"), config.disk_floor)
        program = seccomp.compile_profile(seccomp.profile())
        extractor = seccomp.compile_profile(seccomp.profile(seccomp.EXTRACTOR_PROFILE))
        zygotes_files = zygote.files(program)
        code_directory = code.open_directory(str(config.code_dir))
        rootfs.prepare_builder_root(config)
    except (StepFailed, OSError) as error:
        log.error("cannot start: %s", error)
        sys.exit(1)
    host = Host(config, cgroups, volumes, router, program)
    server = Server(config, generation, channel, host, code_directory, extractor, zygotes_files)
    gc.collect()
    gc.freeze()  # every fork copies what a collection would touch
    try:
        server.run()
    except ProtocolViolation as error:
        log.error("the service broke the protocol: %s", error)
        sys.exit(1)
    except OSError as error:
        log.error("%s", error)
        sys.exit(1)
    router.close()
    volumes.close()
    cgroups.remove()
    linux.close_from(3)
    os._exit(0)


if __name__ == "__main__":
    main()
