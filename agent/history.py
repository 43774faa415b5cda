"""What each org presented until now, kept over restarts; `succession` says what it means.

Reading happens once, before anything is watched; writing in the store's own thread, a little later
than things happen and never often. A write that is lost costs nothing but a date: what changed is
noticed again. Without a store everything is known until the end of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog

from agent.chain import Anchors
from agent.org import Org, authority
from agent.result import ProbeResult
from agent.store import KeptPast, Store, StoreError
from agent.succession import Past, client_after, server_after

# Behind one door there may be servers with different chains, shown in turn for ever.
_BETWEEN_WRITES: Final = timedelta(hours=1)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_NOTHING: Final = Past("")

_log: Final = structlog.get_logger(__name__)


Ask = Callable[[Callable[[Store], None]], Awaitable[None]]


class History:
    """Knows what each org presented. Belongs to one event loop.

    `kept` is what a store had at the beginning; without `ask` nothing is written.
    """

    def __init__(self, kept: Mapping[str, KeptPast] | None = None, ask: Ask | None = None) -> None:
        self._kept = dict(kept or {})
        self._ask = ask
        self._known: dict[str, Past] = {}
        self._written: dict[str, tuple[Past, datetime]] = {}
        self._unwritten: dict[str, Past] = {}
        self._writing: asyncio.Task[None] | None = None
        self._failing = False

    def without_writing(self) -> History:
        """Return a history that knows what this one was told at the beginning, and only looks."""
        return History(self._kept)

    def seen(self, org: Org, result: ProbeResult, anchors: Anchors, now: datetime) -> Past:
        """Take in what one cycle of an org showed and return its past."""
        door = authority(org.endpoint.host, org.endpoint.port)
        past = self._past(org.name)
        if past is None or past.door != door:
            past = Past(door)
        client, server = past.client, past.server
        if result.client_chain:
            client = client_after(client, result.client_chain, now)
        if result.server_chain:
            server = server_after(server, result.server_chain, now, anchors)
        if client is not past.client or server is not past.server:
            past = Past(door, client, server)
        self._known[org.name] = past
        self._keep(org.name, past, now)
        return past

    def _past(self, name: str) -> Past | None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            try:
                self._known[name] = past = kept.read()
            except ValueError as error:
                _log.warning("what was presented before cannot be read", org=name, error=str(error))
            else:
                self._written[name] = past, _NEVER
        return self._known.get(name)

    def _keep(self, name: str, past: Past, now: datetime) -> None:
        written, at = self._written.get(name, (_NOTHING, _NEVER))
        if self._ask is None or past == written or now - at < _BETWEEN_WRITES:
            return
        if past.client is None and past.server is None:
            return
        self._written[name] = past, now
        self._unwritten[name] = past
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(self._ask), name="history")

    async def _write(self, ask: Ask) -> None:
        # What piles up meanwhile is written at once: at the first start every org is new.
        while self._unwritten:
            batch, self._unwritten = self._unwritten, {}
            try:
                await ask(partial(Store.keep_pasts, kept=batch))
            except StoreError as error:
                if not self._failing:
                    _log.warning("what orgs present cannot be kept", error=str(error))
                self._failing = True
                # So that each is tried again in an hour.
                self._written |= {name: (_NOTHING, self._written[name][1]) for name in batch}
            else:
                self._failing = False
