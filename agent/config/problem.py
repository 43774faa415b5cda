"""One wrong thing in a configuration, and all of them together."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

# Keys from the outside in; a number is a place in a list.
Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: in which file, at which key and, where it is known, which line."""

    file: str
    key: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        """Say it in one line, as compilers do."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are all of them, not only the first."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        """Say each problem in a line of its own."""
        return "\n".join(str(problem) for problem in self.problems)


def key_path(location: Location) -> str:
    """Write a location as TOML would: bare parts joined by dots, others quoted.

    A place in a list follows in brackets, counted from 0.
    """
    return "".join(map(_part, location)).removeprefix(".")


def _part(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part if re.fullmatch(r'[A-Za-z0-9_-]+', part) else json.dumps(part[:100])}"
