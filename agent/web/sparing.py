"""Log lines that strangers cause: one a minute of each kind, so that nobody fills the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

_SECONDS: Final = 60.0

_log: Final = structlog.get_logger("agent.web")


class SparingLog:
    """Writes one kind of line at most once a minute, with how many were kept back before it."""

    def __init__(self, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._next = -float("inf")
        self._kept_back = 0

    def warning(self, **facts: object) -> None:
        """Write the line with these facts, or count it."""
        now = self._clock()
        if now < self._next:
            self._kept_back += 1
            return
        more = {"kept_back": self._kept_back} if self._kept_back else {}
        _log.warning(self._event, **facts, **more)
        self._next, self._kept_back = now + _SECONDS, 0
