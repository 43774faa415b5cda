"""TOML files: what stands in them, in which line each key does, and which files they include."""

from __future__ import annotations

import glob
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.config.problem import Location, Problem, key_path


@dataclass(frozen=True, slots=True)
class File:
    """A TOML file: what stands in it, and in which line each key does."""

    path: Path
    content: Mapping[str, Any]
    lines: Mapping[Location, int]

    def problem(self, location: Location, message: str) -> Problem:
        """Make a problem at the key, or at the nearest table around it that has a line."""
        line = next(
            (
                self.lines[location[:length]]
                for length in range(len(location), 0, -1)
                if location[:length] in self.lines
            ),
            None,
        )
        return Problem(str(self.path), key_path(location), message, line)


# What can go wrong with a file before it is TOML, most specific first.
_UNREADABLE: Final[Mapping[type[Exception], str]] = {
    UnicodeDecodeError: "is not UTF-8 text",
    FileNotFoundError: "there is no such file",
    IsADirectoryError: "is a directory; name the file in it",
    PermissionError: "cannot be read: permission denied",
    OSError: "cannot be read",
    ValueError: "is not the name of a file",
}


def read_file(path: Path, problems: list[Problem]) -> File | None:
    """Return the file, or None after telling why it cannot be used."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except tuple(_UNREADABLE) as error:
        message = next(ours for kind, ours in _UNREADABLE.items() if isinstance(error, kind))
        problems.append(Problem(str(path), "", message))
        return None
    if not text.strip():
        problems.append(Problem(str(path), "", "is empty; config.example.toml shows what it needs"))
        return None
    try:
        return File(path, tomllib.loads(text), _lines(text))
    except tomllib.TOMLDecodeError as error:
        problems.append(_syntax(path, text, str(error)))
    except RecursionError:
        problems.append(Problem(str(path), "", "is not TOML: nested too deeply"))
    except ValueError:
        # tomllib lets int() refuse numbers of thousands of digits.
        problems.append(Problem(str(path), "", "is not TOML: a number is too long"))
    return None


# tomllib's words, most specific first, and ours; its own would quote characters of the file.
_SYNTAX: Final[tuple[tuple[str, str], ...]] = (
    ("Escaped character", "an escape of something that is no character"),
    ("Invalid hex value", "an escape without its hexadecimal digits"),
    ("Cannot redefine namespace", "this table was already written in another way"),
    ("Cannot declare", "this table stands here a second time; each org needs a name of its own"),
    ("Cannot overwrite a value", "this key stands here a second time"),
    ("Duplicate inline table key", "a key stands twice in these braces"),
    ("Cannot mutate immutable namespace", "this table was already written in braces"),
    ("Illegal character", "a character that must be escaped in a text"),
    ("Found invalid character", "a character that does not belong here"),
    ("Unescaped '\\' in a string", "a backslash that escapes nothing; use '…' for a literal text"),
    ("Unterminated string", "a text has no closing quote"),
    ("Unclosed array", "a list has no closing bracket"),
    ("Unclosed inline table", "braces are not closed"),
    ("Expected newline or end of document", "something follows where the line should end"),
    ("Expected '='", "a key needs = and a value"),
    ("Expected ']", "the name of a table needs a closing bracket"),
    ("Expected", "a text has no closing quote"),
    ("Invalid initial character for a key", "a key cannot begin like this"),
    ("Invalid value", "not a value; a text needs quotes"),
    ("Invalid statement", "neither a key nor a table"),
    ("Invalid date", "not a date that exists"),
)


def _syntax(path: Path, text: str, said: str) -> Problem:
    place = re.search(r"\(at line (\d+), column (\d+)\)$", said)
    line = int(place[1]) if place else text.rstrip().count("\n") + 1
    where = f"at column {place[2]}" if place else "at the end"
    meaning = next((ours for theirs, ours in _SYNTAX if said.startswith(theirs)), "not understood")
    return Problem(str(path), "", f"is not TOML {where}: {meaning}", line)


_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER: Final = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_ASSIGNMENT: Final = re.compile(rf"\s*({_DOTTED})\s*=")
_LONG_QUOTE: Final = re.compile(r'"""|\'\'\'')


def _lines(text: str) -> Mapping[Location, int]:
    """Find the line of each key that begins one; keys inside braces have their table's line."""
    found: dict[Location, int] = {}
    table: Location = ()
    quote: str | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if quote is None:
            if header := _HEADER.match(line):
                table = _parts(header[1])
                found.setdefault(table, number)
            elif assignment := _ASSIGNMENT.match(line):
                location = table + _parts(assignment[1])
                for length in range(len(table) + 1, len(location) + 1):
                    found.setdefault(location[:length], number)
        # Nothing inside a text of several lines is a key.
        for mark in _LONG_QUOTE.findall(line):
            if quote is None:
                quote = mark
            elif quote == mark:
                quote = None
    return found


def _parts(dotted: str) -> Location:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_KEY, dotted))


def included_files(main: File, patterns: Sequence[str], problems: list[Problem]) -> Iterator[File]:
    """Yield the files that `include` names, sorted within a pattern, each once."""
    seen = {_resolved(main.path)}  # `*.toml` beside the main file means the others
    for pattern in patterns:
        is_glob = any(mark in pattern for mark in "*?[")
        wanted = str(main.path.parent / pattern)
        # Path.glob takes no absolute pattern.
        names = sorted(glob.glob(wanted)) if is_glob else [wanted]  # noqa: PTH207 - as said above
        for name in names:
            path = Path(name)
            if not is_glob and not os.path.lexists(path):
                problems.append(main.problem(("include",), f"there is no file {name}"))
                continue
            resolved = _resolved(path)
            if resolved in seen:
                continue
            seen.add(resolved)
            # What cannot be resolved, such as a symbolic link to itself, cannot be read either.
            file = read_file(path, problems)
            if file is not None:
                yield file


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links; from 3.13 on it is an OSError
        return path.absolute()
