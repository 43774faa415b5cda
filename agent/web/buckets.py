"""How often each client may do something: token buckets, bounded in number."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from agent.web.address import block

# Who comes with more addresses than that only forgets his own.
_MOST_CLIENTS: Final = 4096


class Buckets:
    """Lets each client do `burst` things at once, and then one in `interval` seconds."""

    def __init__(
        self, interval: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._room = interval * (burst - 1)
        self._clock = clock
        # When what the client did so far would have been done at one in `interval`.
        self._paid: OrderedDict[str, float] = OrderedDict()

    def take(self, host: str) -> float:
        """Return 0 when the client may go on, else the seconds until it may."""
        client, now = block(host), self._clock()
        paid = max(self._paid.pop(client, now), now)
        early = paid - now - self._room
        if early <= 0:
            paid += self._interval
        self._paid[client] = paid
        if len(self._paid) > _MOST_CLIENTS:
            self._paid.popitem(last=False)
        return max(early, 0.0)
