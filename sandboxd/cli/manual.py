"""The manual pages of the commands, made of their help: `python -m sandboxd.cli.manual DIRECTORY`, at an installation.

Room: an installation's own; no command imports it. May: write the pages.
"""

from __future__ import annotations

import sys
from inspect import cleandoc
from pathlib import Path

import click
from click_man.man import ManPage

from sandboxd import __version__
from sandboxd.cli import cli

# What roff takes for typography or for an escape of its own, in a text that is to be copied as it stands.
_PLAIN = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})
_EXAMPLE = "Example: "
_AS_IT_STANDS = "\b"  # click's mark of a paragraph whose lines are not joined


def write_pages(directory: Path) -> None:
    """Write a page for every command, named as `man` looks for it: sandboxd-alias-create.1."""
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory, click.Context(cli, info_name="sandboxd", **cli.context_settings))


def _write(directory: Path, context: click.Context) -> None:
    command = context.command
    page = ManPage(context.command_path)
    page.version = __version__
    page.short_help = _short(command)
    page.synopsis = " ".join(command.collect_usage_pieces(context))
    page.description = "\n.PP\n".join(_paragraphs(command.help)) + _epilog(command.epilog)
    options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    records = filter(None, (option.get_help_record(context) for option in options))
    page.options = [(names, _line(text)) for names, text in records]
    for word in command.list_commands(context) if isinstance(command, click.Group) else []:
        assert isinstance(command, click.Group)
        below = command.get_command(context, word)
        assert below is not None
        page.commands.append((word, _short(below)))
        _write(directory, click.Context(below, info_name=word, parent=context))
    name = context.command_path.replace(" ", "-")
    # click-man 0.6 heads pages, and means those of subcommands, by the words that are typed: not the pages' names.
    head = f'.TH "{name.upper()}" "1" "{page.date}" "sandboxd {__version__}" "sandboxd"'
    body = str(page).partition("\n")[2].replace(rf"\fB{context.command_path}-", rf"\fB{name}-")
    (directory / f"{name}.1").write_text(f"{head}\n{body}")


def _short(command: click.Command) -> str:
    return _line(command.get_short_help_str(limit=200).removesuffix("."))


def _epilog(text: str | None) -> str:
    """A section of an example; anything else goes with the description."""
    if text is not None and text.startswith(_EXAMPLE):
        return f"\n.SH EXAMPLE\n.nf\n{_line(text.removeprefix(_EXAMPLE))}\n.fi"
    return "".join(f"\n.PP\n{paragraph}" for paragraph in _paragraphs(text))


def _paragraphs(text: str | None) -> list[str]:
    found = []
    for paragraph in cleandoc(text or "").split("\n\n"):
        first, *rest = paragraph.split("\n")
        if first.strip() == _AS_IT_STANDS:
            found.append("\n".join([".nf", *map(_line, rest), ".fi"]))
        elif paragraph:
            found.append("\n".join(map(_line, (first, *rest))))
    return found


def _line(text: str) -> str:
    plain = text.translate(_PLAIN)
    return rf"\&{plain}" if plain.startswith(".") else plain


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
