"""What was read of each org the last time, so that only what changed is worked out again.

To check ten thousand tables takes a second or two of the core that the probes need, and a reload
changes a few of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.config.files import File
from agent.org import Org

# What is right in these depends on files that they name, so they are looked at each time.
_LOOKED_AT: Final = frozenset({"trust", "policy"})


class Kept:
    """The orgs of the last configuration that was in order, each with what was written of it.

    Give the same one to every `load` of a process, to one at a time.
    """

    def __init__(self) -> None:
        self._shared: int | None = None
        self._orgs: Mapping[str, tuple[int, Org]] = {}

    def known(self, main: File) -> Mapping[str, tuple[int, Org]]:
        """Return each org by its name, with what `written` gave for it.

        None of them when `main` has other defaults than then.
        """
        shared = _shared(main)
        return self._orgs if shared is not None and shared == self._shared else {}

    def keep(self, main: File, orgs: Mapping[str, tuple[int, Org]]) -> None:
        """Keep these for the next time."""
        self._shared, self._orgs = _shared(main), orgs


def written(file: File, table: object) -> int | None:
    """Return a number for all that matters of an org's table; None when there is more to look at.

    It is a hash of 64 bits with a key that only this process has, so no two tables meet in one.
    """
    if not isinstance(table, dict) or not _LOOKED_AT.isdisjoint(table):
        return None
    return _number((str(file.path.parent), table))


def _shared(main: File) -> int | None:
    return _number({key: value for key, value in main.content.items() if key != "orgs"})


def _number(content: object) -> int | None:
    try:
        return hash(repr(content))
    except RecursionError:
        return None  # TOML may nest deeper than that, and then it is nothing of ours
