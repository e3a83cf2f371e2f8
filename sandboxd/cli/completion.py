"""`sandboxd completion`: what makes a shell complete commands, options and names of what there is.

Room: command line.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sandboxd.cli.context import config_option


@click.command(epilog="Example: sandboxd completion bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@config_option
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion of SHELL as a script of it.

    \b
    bash: eval "$(sandboxd completion bash)"     in ~/.bashrc
    zsh:  eval "$(sandboxd completion zsh)"      in ~/.zshrc, behind compinit
    fish: sandboxd completion fish | source      in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "sandboxd", "_SANDBOXD_COMPLETE").source())
