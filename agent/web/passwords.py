"""Compares passwords with bcrypt hashes without letting strangers make the agent slow.

One comparison takes as long as the hash's cost says, 70 ms or more, on purpose. So it is made in a
thread of its own, one at a time; what was right is remembered, so that a scraper pays once; and
what is wrong costs its client a turn of few, long before others wait.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import bcrypt

from agent.credentials import Secret
from agent.web.buckets import Buckets

# bcrypt looks no further (its key is 72 bytes); this library refuses what is longer.
_LONGEST: Final = 72
_MOST_REMEMBERED: Final = 64
# What a client may try: this many passwords that are not known to be right, then one a second.
_ATTEMPTS: Final = 5
_ATTEMPT_SECONDS: Final = 1.0
# How many comparisons may be under way, all clients together: half a second at a cost of 10.
_MOST_WAITING: Final = 8


@dataclass(frozen=True, slots=True)
class TooMany:
    """Not compared: the client, or all of them together, tried too often; when to come again."""

    seconds: float


class Passwords:
    """Tells who knows a password."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._attempts = Buckets(_ATTEMPT_SECONDS, _ATTEMPTS, clock)
        self._waiting = 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="passwords")
        # Digests of a guessable text could be guessed back; with this key they cannot.
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    async def match(
        self, users: Mapping[str, Secret], client: str, user: str, password: bytes
    ) -> bool | TooMany:
        """Tell whether the password is the user's; an unknown user takes as long as a known one."""
        stored = users.get(user)
        hashed = (stored or self._decoy(users, user)).reveal().encode()
        digest = self._digest(user.encode(), hashed, password)
        if digest in self._right:
            self._right.move_to_end(digest)
            return True
        if self._waiting >= _MOST_WAITING:
            return TooMany(_ATTEMPT_SECONDS)
        if seconds := self._attempts.take(client):
            return TooMany(seconds)
        self._waiting += 1
        try:
            same = await asyncio.get_running_loop().run_in_executor(
                self._worker, bcrypt.checkpw, password[:_LONGEST], hashed
            )
        finally:
            self._waiting -= 1
        if not same or stored is None:
            return False
        self._right[digest] = None
        if len(self._right) > _MOST_REMEMBERED:
            self._right.popitem(last=False)
        return True

    def close(self) -> None:
        """Give back the thread; what waits for it is not compared any more."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _decoy(self, users: Mapping[str, Secret], user: str) -> Secret:
        """Return a hash that nothing matches, of the cost of some user's: always the same one's."""
        known = sorted(secret.reveal()[:7] for secret in users.values())
        chance = int.from_bytes(self._digest(user.encode()))
        # Of the 31 characters after the salt (22 of them) no password is known to give these.
        return Secret(known[chance % len(known)] + "." * 53)

    def _digest(self, *parts: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in parts:
            digest.update(len(part).to_bytes(4) + part)
        return digest.digest()
