"""How text gets onto a terminal: colours by severity, indentation, and a width that fits a pipe.

What comes from a certificate or from the far side is printed so that it cannot steer the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from agent.drawing import printable
from agent.policy.rule import Severity

COLOURS: Final[Mapping[Severity, str]] = {
    Severity.CRITICAL: "bold red",
    Severity.WARNING: "yellow",
    Severity.INFO: "dim",
}
_WIDE: Final = 200
_NAMED: Final = 8


def console() -> Console:
    """Return standard output: as wide as the terminal, without colour and wide in a pipe."""
    # In a pipe rich would break lines at 80 columns, in the middle of names.
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDE)


def say(to: Console, text: str, style: str = "", *, indent: int = 2) -> None:
    """Print a paragraph, indented in each of its lines; nothing when it is empty."""
    if text:
        # A message may hold a name of unlimited length out of a certificate.
        to.print(Padding(Text(printable(text, None), style), (0, 0, 0, indent), expand=False))


def names(orgs: Sequence[str]) -> str:
    """Return the first names of a list, and how many there are more."""
    more = len(orgs) - _NAMED
    return ", ".join(orgs[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def moment(when: datetime) -> str:
    """Return a moment as people read it, in UTC to the minute."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def count(number: int, word: str) -> str:
    """Return a number with its word, in the plural if need be."""
    return f"{number} {word}{'' if number == 1 else 's'}"
