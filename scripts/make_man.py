#!/usr/bin/env python3
"""Prints the manual page sfmtls-agent(1), made from the help texts of the commands.

    .venv/bin/python scripts/make_man.py > sfmtls-agent.1

What the help says is only laid out here, never said again; what no help says (exit statuses, files,
environment) stands below.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from typing import Final

import click

import agent
from agent import cli

_APP: Final = cli._app  # noqa: SLF001 - the commands have no other door

# A character that roff would read as a command, or print as a typographer would (groff_char(7)).
_SPECIAL: Final = {
    "\\": r"\[rs]",
    "-": r"\-",
    "'": r"\[aq]",
    '"': r"\[dq]",
    "`": r"\[ga]",
    "^": r"\[ha]",
    "~": r"\[ti]",
}

_EXIT: Final = (
    (0, "All is well."),
    (
        cli.EX_FAILED,
        "Something that was looked at is not well, or could not be done; see the command.",
    ),
    (2, "The arguments cannot be used, or a file that they name cannot be read."),
    (cli.EX_CONFIG, "The configuration, or a file that it names, cannot be used."),
)
_FILES: Final = (
    (
        "/etc/sfmtls-agent/config.toml",
        "The configuration. The commented example that comes with the agent explains every key.",
    ),
    (
        "/var/lib/sfmtls-agent",
        "What must survive a restart, unless the configuration or STATE_DIRECTORY says otherwise.",
    ),
)
_ENVIRONMENT: Final = (
    ("STATE_DIRECTORY", "The state directory; set by systemd for StateDirectory=."),
    (
        "CREDENTIALS_DIRECTORY",
        "Where the credentials are that the configuration names; set by systemd (LoadCredential=).",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "Where and how often run tells the service manager that all is well; set by systemd.",
    ),
    ("NO_COLOR", "Not empty: print without colours."),
)
_SEE_ALSO: Final = "systemctl(1), journalctl(1), systemd.exec(5), systemd-creds(1), prometheus(1)"


def escaped(text: str) -> str:
    """Return roff that prints this text, on one line, as it is."""
    line = "".join(
        _SPECIAL.get(char, char if char.isascii() else f"\\[u{ord(char):04X}]") for char in text
    )
    # A full stop begins a request where a line begins.
    return "\\&" + line if line.startswith(".") else line


def page() -> str:
    """Return the manual page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    top = click.Context(_APP, info_name="sfmtls-agent", **_APP.context_settings)
    promise = (_APP.help or "").removesuffix(".")
    yield f'.TH SFMTLS\\-AGENT 1 "" "sfmtls\\-agent {escaped(agent.__version__)}" "User Commands"'
    # No hyphenation and no stretched lines: what is printed may be an option, or be copied.
    yield ".nh"
    yield ".ad l"
    yield ".SH NAME"
    yield f"sfmtls\\-agent \\- {escaped(promise[:1].lower() + promise[1:])}"
    yield ".SH SYNOPSIS"
    yield _usage(top)
    yield ".SH DESCRIPTION"
    # The first paragraph is the promise that NAME has; what follows the second is for who reads
    # the code.
    yield escaped(_paragraphs(agent.__doc__)[1])
    yield ".SH OPTIONS"
    yield from _parameters(top)
    yield ".SH COMMANDS"
    for context in _commands(top):
        yield f".SS {_usage(context)}"
        for paragraph in _paragraphs(context.command.help):
            yield ".PP"
            yield escaped(paragraph)
        yield from _parameters(context)
    yield ".SH EXIT STATUS"
    yield from _list((str(code), meaning) for code, meaning in _EXIT)
    yield ".SH FILES"
    yield from _list(_FILES)
    yield ".SH ENVIRONMENT"
    yield from _list((*_variables(top), *_ENVIRONMENT))
    yield ".SH SEE ALSO"
    yield escaped(_SEE_ALSO)


def _commands(context: click.Context) -> Iterator[click.Context]:
    """Return a context for each command that does something, in the order of the help."""
    group = context.command
    if not isinstance(group, click.Group):
        yield context
        return
    for name in group.list_commands(context):
        command = group.commands[name]
        inner = click.Context(command, parent=context, info_name=name, **command.context_settings)
        if isinstance(command, click.Group):
            yield inner
        yield from _commands(inner)


def _usage(context: click.Context) -> str:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return f"\\fB{escaped(context.command_path)}\\fR {escaped(pieces)}"


def _parameters(context: click.Context) -> Iterator[str]:
    """Lay out what the help says of each argument and option; that of --help once, for all."""
    for parameter in context.command.get_params(context):
        is_help = isinstance(parameter, click.Option) and "--help" in parameter.opts
        record = parameter.get_help_record(context)
        if record is not None and not (is_help and context.parent):
            yield from _list([record])


def _variables(context: click.Context) -> Iterator[tuple[str, str]]:
    """Return each variable from which an option is read, and what it stands for."""
    found = {
        str(parameter.envvar): f"Used where {parameter.opts[-1]} is not given."
        for inner in _commands(context)
        for parameter in inner.command.params
        if parameter.envvar
    }
    yield from found.items()


def _list(records: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in records:
        yield ".TP"
        yield f"\\fB{escaped(name)}\\fR"
        yield escaped(text)


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n")]


if __name__ == "__main__":
    sys.stdout.write(page())
