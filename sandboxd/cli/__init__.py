"""The command line: one table of commands, each imported only when it is the one that runs.

Room: command line. May: parse arguments, print. May not: import a command before it is asked for.
"""

from __future__ import annotations

import importlib

import click

from sandboxd import __version__
from sandboxd.cli.context import EXIT_INTERRUPTED, Failure, Misuse, config_option
from sandboxd.errors import ApiError, ConfigError, SandboxdError

COMMANDS = {
    "daemon": ("sandboxd.cli.daemon", "Run the daemon in the foreground (as root)."),
    "doctor": ("sandboxd.cli.doctor", "Check this machine and say what to do about each failure."),
    "status": ("sandboxd.cli.status", "Show what the daemon is and what it holds."),
    "ps": ("sandboxd.cli.ps", "List the execution environments."),
    "inspect": ("sandboxd.cli.inspect", "Show how an environment is isolated, read back from the kernel."),
    "invoke": ("sandboxd.cli.invoke", "Invoke a function and print its result."),
    "logs": ("sandboxd.cli.logs", "Print or follow a function's log."),
    "image": ("sandboxd.cli.image", "Build, list and remove runtime images."),
    "function": ("sandboxd.cli.function", "Create, update, show, list and delete functions."),
    "version": ("sandboxd.cli.version", "Publish, list and delete versions of functions."),
    "alias": ("sandboxd.cli.alias", "Create, update, show, list and delete aliases of functions."),
    "layer": ("sandboxd.cli.layer", "Publish, list, show and delete layers, and permit others to use them."),
    "concurrency": ("sandboxd.cli.concurrency", "Reserve concurrency for functions, show it and give it back."),
    "provisioned": ("sandboxd.cli.concurrency", "Have environments made ahead of invocations."),
    "events": ("sandboxd.cli.events", "Say how queued events are tried, and who is told how they ended."),
    "event-source": ("sandboxd.cli.event_source", "Have functions get the messages of queues."),
    "runtime": ("sandboxd.cli.runtime", "Show and set when the runtimes of functions are updated."),
    "recursion": ("sandboxd.cli.runtime", "Show and set what becomes of functions that invoke themselves."),
    "signing": ("sandboxd.cli.signing", "Create and delete code signing configurations, and give them to functions."),
    "url": ("sandboxd.cli.url", "Create, update, show, list and delete addresses of functions for HTTP clients."),
    "tag": ("sandboxd.cli.tag", "Put, list and remove tags of functions."),
    "permission": ("sandboxd.cli.permission", "Add, list and remove permissions to invoke functions."),
    "account": ("sandboxd.cli.account", "Create, list and delete accounts, which are isolated from one another."),
    "key": ("sandboxd.cli.key", "Create, list and delete access keys of the REST API."),
    "user": ("sandboxd.cli.principals", "Create, show, list and delete users, and give them policies."),
    "group": ("sandboxd.cli.principals", "Create, show, list and delete groups of users, and give them policies."),
    "role": ("sandboxd.cli.principals", "Create, show, list and delete roles of functions, and give them policies."),
    "limits": ("sandboxd.cli.limits", "Show the limits of the account and what of them is used."),
    "simulate": ("sandboxd.cli.simulate", "Replay a trace through the scheduler and compare eviction policies."),
    "gc": ("sandboxd.cli.gc", "Remove what a dead daemon left behind."),
    "completion": ("sandboxd.cli.completion", "Print what makes a shell complete commands and names."),
    "uninstall": ("sandboxd.cli.uninstall", "Stop the daemon and remove every trace of it."),
}

EXIT_CODES = """\b
Exit codes:
  0    done
  1    the function returned an error (its JSON is on standard output),
       the daemon refused the request, or doctor or inspect found a failure
  2    wrong usage, payload or configuration
  125  the daemon cannot be reached
  130  interrupted
"""


class LazyGroup(click.Group):
    """The root group: names and help come from `COMMANDS`, code from the module of the one command that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except ConfigError as error:
            raise Misuse(str(error)) from None
        except ApiError as error:
            raise Failure(error.message) from None
        except SandboxdError as error:
            raise Failure(str(error)) from None


@click.group(cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="sandboxd")
@config_option
def cli() -> None:
    """Run untrusted functions on this server the way AWS Lambda does."""
