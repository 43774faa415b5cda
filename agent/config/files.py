"""TOML files: what stands in them, in which line each key does, and which files they include."""

from __future__ import annotations

import glob
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from agent.config.problem import Location, Problem, key_path


@dataclass(frozen=True)  # without slots, which cached_property cannot do with
class File:
    """A TOML file: what stands in it, and in which line each key does."""

    path: Path
    content: Mapping[str, Any]
    text: str = field(repr=False)

    @cached_property
    def lines(self) -> Mapping[Location, int]:
        """The line of each key; they are looked for only when there is a problem to tell."""
        return _lines(self.text)

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
        return File(path, tomllib.loads(text), text)
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
    ("Cannot mutate immutable namespace", "this was already written in braces or brackets"),
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


# All that matters for finding keys; a text in quotes is one word, whatever it holds (TOML 1.0).
_WORD: Final = re.compile(
    r"""
      "{3} (?: [^\\] | \\. )*? "{3,5}  |  '{3} .*? '{3,5}
    | " (?: [^"\\] | \\. )* "          |  ' [^']* '
    | \# [^\n]*
    | [\[\]{},=\n]
    | [^\[\]{},=\s"'.\#]+
    """,
    re.DOTALL | re.VERBOSE,
)


class _Word(NamedTuple):
    text: str
    line: int

    @property
    def step(self) -> int:
        """How much deeper it leads into brackets and braces."""
        return (self.text in {"[", "{"}) - (self.text in {"]", "}"})


def _lines(text: str) -> Mapping[Location, int]:
    """Find the line of each key, and of each item of a list, in a text that is known to be TOML.

    Keys inside braces have the line of what the braces stand for.
    """
    around: dict[Location, int] = {}  # tables that have perhaps no header of their own
    found: dict[Location, int] = {}
    last: dict[Location, int] = {}  # the place of the last [[table]] in each list
    table: Location = ()
    for words in _statements(text):
        line = words[0].line
        if words[0].text == "[":
            names = _names(word for word in words if not word.step)
            if words[1].text == "[":
                tables = (*_in_last(names[:-1], last), names[-1])
                last[tables] = last.get(tables, -1) + 1
            table = _in_last(names, last)
            for length in range(1, len(table)):
                around.setdefault(table[:length], line)
            found.setdefault(table, line)
        else:
            equals = next(place for place, word in enumerate(words) if word.text == "=")
            location = table + _names(words[:equals])
            for length in range(len(table) + 1, len(location) + 1):
                found.setdefault(location[:length], line)
            for place, item in enumerate(_items(words[equals + 1 :])):
                found[*location, place] = item.line
    return around | found


def _statements(text: str) -> Iterator[Sequence[_Word]]:
    """Yield the words of each header, and of each key with its value."""
    words: list[_Word] = []
    line, depth = 1, 0
    for match in _WORD.finditer(text + "\n"):
        word = _Word(match[0], line)
        if word.text != "\n" and not word.text.startswith("#"):
            words.append(word)
            depth += word.step
        elif word.text == "\n" and words and not depth:
            yield words
            words = []
        line += word.text.count("\n")


def _items(value: Sequence[_Word]) -> Iterator[_Word]:
    """Yield the first word of each item of a list; none for what is no list."""
    if value[0].text != "[":
        return
    depth, begins = 0, True
    for word in value:
        if depth == 1 and begins and word.text != "]":
            yield word
        if depth == 1:
            begins = word.text == ","
        depth += word.step


def _names(words: Iterable[_Word]) -> tuple[str, ...]:
    return tuple(text[1:-1] if text[0] in "\"'" else text for text, _ in words)


def _in_last(names: Sequence[str], last: Mapping[Location, int]) -> Location:
    """Return the location that names mean in a header: in a list, the last table so far."""
    location: Location = ()
    for name in names:
        location = (*location, name)
        if location in last:
            location = (*location, last[location])
    return location


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
