"""A YAML file → its mappings, key by key; what is wrong becomes a Problem with its line.

No text from the file is quoted in a message, save for keys that look like keys: a secret in the
wrong place is not shown either. Anchors are followed no further than a value is wanted, so a small
file cannot grow into a large one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import yaml

from agent import credentials
from agent.config import ConfigError, Problem, key_path
from agent.credentials import CredentialError
from agent.org import FromFile

_T = TypeVar("_T")

_LONGEST: Final = 64 * 1024
_STRING: Final = "tag:yaml.org,2002:str"
_NULL: Final = "tag:yaml.org,2002:null"
_BOOL: Final = "tag:yaml.org,2002:bool"
_INT: Final = "tag:yaml.org,2002:int"
# YAML 1.1 knows more words for it; these are those of exporter-toolkit's own reader too.
_TRUE: Final = frozenset({"true", "yes", "on", "y"})


class Document:
    """The file while it is read: what is wrong with it so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []

    def note(self, key: str, message: str, line: int | None = None) -> None:
        """Add a problem."""
        self.problems.append(Problem(str(self.path), key, message, line))

    def error(self) -> ConfigError:
        """Return all that is wrong, in the order in which a reader meets it."""
        return ConfigError(tuple(sorted(self.problems, key=lambda problem: problem.line or 0)))

    def read(self) -> Section | None:
        """Return the mapping that the file is, or None after noting why it is not one."""
        try:
            content = credentials.read_bytes(FromFile(str(self.path)), environ={})
        except CredentialError as error:
            self.note("", str(error).removeprefix(f"file {self.path} "))
            return None
        if len(content) > _LONGEST:
            self.note("", f"is longer than {_LONGEST // 1024} KiB")
            return None
        try:
            # The safe loader makes no objects, and composing does not even make values.
            root = yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
        except UnicodeDecodeError:
            self.note("", "is not UTF-8 text")
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except yaml.YAMLError:
            self.note("", "is not YAML: it holds a character that must not stand in it")
        except RecursionError:
            self.note("", "is not YAML: nested too deeply")
        else:
            if root is None:
                # A file that is being written is empty for a moment: that must not open the door.
                self.note("", "is empty; leave config_file out to let everybody in")
            elif isinstance(root, yaml.MappingNode):
                return Section(self, "", root, _line(root))
            else:
                self.note("", "must be keys with their values", _line(root))
        return None

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        said = error.problem or ""
        meaning = next((ours for theirs, ours in _SYNTAX if theirs in said), "not understood")
        where = "" if mark is None else f" at column {mark.column + 1}"
        self.note("", f"is not YAML{where}: {meaning}", None if mark is None else mark.line + 1)


# PyYAML's words and ours; its own would quote characters of the file.
_SYNTAX: Final[tuple[tuple[str, str], ...]] = (
    (r"'\t'", "a tab where only spaces may stand"),
    ("cannot start any token", "a text that begins like this needs quotes"),
    ("mapping values are not allowed here", "a colon that does not belong here"),
    ("could not find expected ':'", "a key needs a colon and a space"),
    ("single document", "a second document (---) begins"),
    ("found another document", "a second document (---) begins"),
    ("undefined alias", "an alias of something that is not there"),
    ("duplicate anchor", "an anchor stands here a second time"),
    ("unexpected end of stream", "a text has no closing quote"),
    ("expected alphabetic or numeric", "an &, * or ! that begins a text needs quotes"),
    ("unknown escape character", "a backslash that escapes nothing"),
    ("expected <block end>", "the indentation does not fit"),
    ("expected ',' or", "a bracket or brace is not closed"),
)


class Section:
    """One mapping of a document: gives the value of each key that is asked for, once.

    A reader of a value takes its node and returns what it means, or raises ValueError.
    """

    def __init__(self, document: Document, key: str, node: yaml.MappingNode, line: int) -> None:
        self._document = document
        self._key = key
        self._line = line
        self._nodes: dict[str, yaml.Node] = {}
        self._lines: dict[str, int] = {}
        self._before = len(document.problems)
        for name, value in node.value:
            self._add(name, value)

    def _add(self, name: yaml.Node, value: yaml.Node) -> None:
        if not isinstance(name, yaml.ScalarNode):
            self._document.note(self._key, "a key must be a text", _line(name))
        elif name.value in self._nodes:
            message = "this key stands here a second time"
            self._document.note(self._path(name.value), message, _line(name))
        else:
            self._nodes[name.value] = value
            self._lines[name.value] = _line(name)

    def __contains__(self, name: str) -> bool:
        """Tell whether the key stands in the file, whatever its value is worth."""
        return name in self._lines

    @property
    def wrong(self) -> bool:
        """Whether a problem was noted since this section was begun."""
        return len(self._document.problems) > self._before

    def note(self, name: str, message: str) -> None:
        """Add a problem at the key, or at the section that lacks it."""
        self._document.note(self._path(name), message, self._lines.get(name, self._line))

    def take(self, name: str, read: Callable[[yaml.Node], _T]) -> _T | None:
        """Return the value of a key; None when it is absent, or wrong, which is noted."""
        node = self._nodes.pop(name, None)
        return None if node is None else self._read(name, node, read)

    def take_list(self, name: str, read: Callable[[yaml.Node], _T]) -> tuple[_T, ...] | None:
        """Return the values of a list; None when it is absent or anything in it is wrong."""
        node = self._nodes.pop(name, None)
        if node is None:
            return None
        if not isinstance(node, yaml.SequenceNode):
            self.note(name, "must be a list")
            return None
        if not node.value:
            self.note(name, "is an empty list; leave the key out instead")
        found = [
            self._read(name, item, read, f"[{place}]") for place, item in enumerate(node.value)
        ]
        good = tuple(value for value in found if value is not None)
        return good if len(good) == len(found) else None

    def take_pairs(
        self, name: str, read: Callable[[str, yaml.Node], _T], what: str
    ) -> Mapping[str, _T]:
        """Return the keys and values of a mapping whose keys are the operator's own."""
        section = self.section(name, what)
        if section is None:
            return {}
        return section._pairs(read)  # noqa: SLF001 - another of this class

    def section(self, name: str, what: str = "keys") -> Section | None:
        """Return the mapping that a key stands for; None when it is absent or none."""
        node = self._nodes.pop(name, None)
        if node is None:
            return None
        if isinstance(node, yaml.MappingNode) and node.value:
            return Section(self._document, self._path(name), node, self._lines[name])
        empty = isinstance(node, yaml.MappingNode) or node.tag == _NULL
        message = f"has no {what} in it; leave it out instead" if empty else f"must be {what}"
        self.note(name, message)
        return None

    def refuse(self, name: str, why: str) -> None:
        """Note that a key of the format is not for the agent, if it stands there."""
        if self._nodes.pop(name, None) is not None:
            self.note(name, f"is not supported: {why}")

    def end(self, known: tuple[str, ...]) -> None:
        """Note every key that nobody asked for."""
        for name in self._nodes:
            near = difflib.get_close_matches(name, known, n=1)
            self.note(name, f"no such key (did you mean {near[0]}?)" if near else "no such key")

    def _pairs(self, read: Callable[[str, yaml.Node], _T]) -> Mapping[str, _T]:
        found: dict[str, _T] = {}
        for key, node in self._nodes.items():
            try:
                found[key] = read(key, node)
            except ValueError as error:
                # The key is not told: whoever takes it for the value writes a secret there.
                self._document.note(self._key, str(error), _line(node))
        return found

    def _read(
        self, name: str, node: yaml.Node, read: Callable[[yaml.Node], _T], place: str = ""
    ) -> _T | None:
        try:
            return read(node)
        except ValueError as error:
            self._document.note(self._path(name) + place, str(error), _line(node))
        return None

    def _path(self, name: str) -> str:
        # What does not look like a key may be a secret that slipped.
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", name):
            return self._key
        return f"{self._key}.{key_path((name,))}" if self._key else key_path((name,))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def text(node: yaml.Node) -> str:
    """Return a text of one printable line; what looks like a number or a date is one too."""
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("must be a text")  # noqa: TRY004 - Section collects ValueError only
    value = str(node.value)
    if node.tag == _NULL or not value.strip():
        raise ValueError("must not be empty")
    if not value.isprintable():
        raise ValueError("must be one line of printable characters")
    return value


def flag(node: yaml.Node) -> bool:
    """Return what true or false means."""
    if node.tag != _BOOL:
        raise ValueError("must be true or false")
    return str(node.value).lower() in _TRUE


def count(node: yaml.Node) -> int:
    """Return a number from 1 on."""
    if node.tag != _INT or not re.fullmatch(r"[1-9][0-9]{0,8}", str(node.value)):
        raise ValueError("must be a whole number from 1 on")
    return int(node.value)


_NOTHING: Final[Mapping[str, str]] = {}


def choice(
    choices: Mapping[str, _T], refused: Mapping[str, str] = _NOTHING
) -> Callable[[yaml.Node], _T]:
    """Return a reader of one of these words; of those that are refused it says why."""

    def read(node: yaml.Node) -> _T:
        word = text(node)
        if word in refused:
            raise ValueError(f"{word} is not supported: {refused[word]}")
        if word not in choices:
            near = difflib.get_close_matches(word, choices, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"must be one of {', '.join(choices)}{hint}")
        return choices[word]

    return read
