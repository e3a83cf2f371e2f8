"""The command as a process: start-up, help, exit codes, what is imported, completion."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sandboxd import __version__
from sandboxd.cli import COMMANDS, cli
from tests.cli.conftest import Daemon, Run

SANDBOXD = str(Path(sys.executable).with_name("sandboxd"))
HEAVY = {
    "botocore",
    "boto3",
    "asyncio",
    "http",
    "httptools",
    "uvloop",
    "psutil",
    "pyroute2",
    "prctl",
    "pyseccomp",
    "ssl",
}


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SANDBOXD_")}
    return subprocess.run(
        [SANDBOXD, *arguments], capture_output=True, text=True, env=clean | environment, timeout=60, check=False
    )


def test_version_and_help() -> None:
    assert shell("--version").stdout == f"sandboxd, version {__version__}\n"
    done = shell("--help")
    assert done.returncode == 0
    for word in (*COMMANDS, "125"):
        assert word in done.stdout


def leaves(command: click.Command = cli, *words: str) -> Iterator[tuple[str, ...]]:
    """Every command that does something, as its words."""
    if not isinstance(command, click.Group):
        yield words
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        subcommand = command.get_command(context, name)
        assert subcommand is not None
        yield from leaves(subcommand, *words, name)


@pytest.mark.parametrize("words", list(leaves()), ids=" ".join)
def test_every_command_has_help_with_an_example_and_takes_config(run: Run, words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0, result.stderr
    assert "--config FILE" in result.stdout
    group, command = click.Context(cli), cli
    for word in words:
        command = command.get_command(group, word)
    assert command.epilog is not None and command.epilog.startswith(f"Example: sandboxd {' '.join(words)}")
    command.make_context(words[-1], shlex.split(command.epilog)[2 + len(words) :])  # its options are there


@pytest.mark.parametrize("command", ["invoke", "logs", "status", "ps"])
def test_nothing_heavy_is_imported(command: str, tmp_path: Path) -> None:
    code = (
        "import sys; from sandboxd.cli import cli\n"
        f"try: cli([{command!r}, *{['x'] if command in ('invoke', 'logs') else []!r}])\n"
        "except SystemExit as end: print(end.code, *sorted(sys.modules), file=sys.stderr)"
    )
    environment = os.environ | {"SANDBOXD_RUN_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    exit_code, *modules = done.stderr.splitlines()[-1].split()
    assert exit_code == "125", done.stderr
    roots = {module.partition(".")[0] for module in modules}
    assert roots & HEAVY == set()
    assert "sandboxd.config" in modules
    of_ours = {
        m for m in modules if m.startswith(("sandboxd.api", "sandboxd.builder", "sandboxd.privsep", "sandboxd.store"))
    }
    assert of_ours == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",), ("ps",), ("invoke", "f"), ("logs", "f"), ("logs", "f", "-f"), ("function", "list"),
        ("function", "get", "f"), ("function", "delete", "f"), ("key", "list"), ("key", "create"),
        ("layer", "get", "l:1"), ("provisioned", "list", "f"), ("limits",), ("invoke", "f", "--stream"),
    ],
)  # fmt: skip
def test_daemon_not_running(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = shell(*arguments, SANDBOXD_RUN_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"sandboxd: the daemon cannot be reached at {tmp_path}/api.sock: it is not running")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("status",), ("daemon",), ("gc",), ("doctor",), ("function", "list")])
def test_wrong_configuration(arguments: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("keep_alive = -5\n")
    done = shell(*arguments, "--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"sandboxd: {file}: keep_alive = -5 is not allowed; allowed: seconds from 0 to 86400\n"


def test_config_before_the_command(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('nonsense = "x"\n')
    done = shell("--config", str(file), "status")
    assert done.returncode == 2
    assert f"{file}: nonsense = 'x' is not allowed" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("invoke",), ("status", "--nonsense"), ("ps", "-o", "xml"), ("logs", "f", "-n", "-1")]
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = shell(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("command", ["daemon", "gc"])
def test_not_root(command: str) -> None:
    code = (
        "import os, sandboxd.cli, sandboxd.cli.daemon, sandboxd.cli.gc, sandboxd.config\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        f"sandboxd.cli.cli([{command!r}])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "root" in done.stderr
    assert done.stderr.count("\n") == 1


def test_interrupt_ends_follow_without_a_word(daemon: Daemon) -> None:
    daemon.answer("GET /sandboxd/v1/functions/f/logs", {"Offset": 3, "Data": "one\n"})
    daemon.answer("GET /sandboxd/v1/functions/f/logs", {"Offset": 3, "Data": ""})
    process = subprocess.Popen(
        [SANDBOXD, "logs", "f", "--follow", "--config", str(daemon.config_file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(daemon.requests) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("one\n", "")
    assert process.returncode == 130


def test_output_into_a_closed_pipe(daemon: Daemon) -> None:
    daemon.answer("POST /2015-03-31/functions/f/invocations", b'"' + b"x" * 1_000_000 + b'"')
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [SANDBOXD, "invoke", "f", "--config", str(daemon.config_file)],
        stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(writer)
    assert "Traceback" not in done.stderr


def test_completion_of_commands_and_function_names(daemon: Daemon) -> None:
    daemon.answer("GET /2015-03-31/functions/", {"Functions": [{"FunctionName": n} for n in ("hello", "help", "x")]})
    common = {"_SANDBOXD_COMPLETE": "bash_complete", "SANDBOXD_CONFIG": str(daemon.config_file)}
    assert shell(COMP_WORDS="sandboxd st", COMP_CWORD="1", **common).stdout == "plain,status\n"
    words = shell(COMP_WORDS="sandboxd invoke hel", COMP_CWORD="2", **common).stdout
    assert words == "plain,hello\nplain,help\n"


def test_completion_where_the_daemon_does_not_run(tmp_path: Path) -> None:
    done = shell(
        _SANDBOXD_COMPLETE="bash_complete",
        COMP_WORDS="sandboxd invoke h",
        COMP_CWORD="2",
        SANDBOXD_RUN_DIR=str(tmp_path),
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_completion_of_what_a_command_is_about(daemon: Daemon) -> None:
    common = {"_SANDBOXD_COMPLETE": "fish_complete", "SANDBOXD_CONFIG": str(daemon.config_file)}
    functions = "/2015-03-31/functions/f"
    daemon.answer(f"GET {functions}/aliases", {"Aliases": [{"Name": "live"}, {"Name": "test"}]})
    daemon.answer(f"GET {functions}/versions", {"Versions": [{"Version": "$LATEST"}, {"Version": "1"}]})
    daemon.answer(
        "GET /2018-10-31/layers", {"Layers": [{"LayerName": "tools", "LatestMatchingVersion": {"Version": 2}}]}
    )
    daemon.answer("GET /2018-10-31/layers/tools/versions", {"LayerVersions": [{"Version": 2}, {"Version": 1}]})
    for words, found in (
        ("alias get f|li", ["live"]),
        ("alias create f live --version|", ["$LATEST", "1"]),
        ("version delete f|1", ["1"]),
        ("layer versions|", ["tools"]),
        ("layer get|to", ["tools:2"]),
        ("function create g --layer|tools:", ["tools:2", "tools:1"]),
        ("function get|f", []),  # no such route: the daemon is older
    ):
        typed, _, word = words.partition("|")
        shown = shell(COMP_WORDS=f"sandboxd {typed} {word}".rstrip(), COMP_CWORD=word, **common).stdout
        assert [line.split(",")[1] for line in shown.splitlines() if line] == found, words


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_script(name: str) -> None:
    done = shell("completion", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_SANDBOXD_COMPLETE" in done.stdout
    checker = shutil.which(name)
    if checker is not None:
        assert subprocess.run([checker, "-n"], input=done.stdout, text=True, timeout=60, check=False).returncode == 0
