"""When Python looks for cycles of dead objects: rarely, and not among those that stay.

By itself it goes through all objects whenever a quarter as many new ones have lasted for a while.
Ten thousand orgs are two million objects, which stop everything for a second or more, twice a
minute, and nearly all of them are as alive as they were. So a whole look is taken every few minutes
only, and what survives it is left out of the next (`gc.freeze`). What is young is looked at as
always, and most objects go without any of this, when nothing refers to them.
"""

from __future__ import annotations

import gc
from typing import Final

_NEVER: Final = 2**31 - 1


class Collector:
    """Takes the whole looks of one process, from `start` to `stop`."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None

    def start(self) -> None:
        """Take them over from Python."""
        self._before = gc.get_threshold()
        gc.set_threshold(*self._before[:2], _NEVER)
        self.look()

    def look(self) -> None:
        """Take one."""
        gc.collect()
        gc.freeze()

    def look_at_all(self) -> None:
        """Leave nothing out of the next one, since much that was to stay has gone."""
        gc.unfreeze()

    def stop(self) -> None:
        """Leave them to Python again."""
        gc.unfreeze()
        if self._before is not None:
            gc.set_threshold(*self._before)
