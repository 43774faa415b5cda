"""Opens what all runners share, for the daemon and for the commands that do things once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog

from agent.component import Component
from agent.config import AgentSettings
from agent.gate import Gatekeeper, Hold
from agent.history import History
from agent.journal import Journal
from agent.leaves import Leaves
from agent.policy.tables import shipped_tables
from agent.probe.dns import Resolver
from agent.revocation import RevocationChecker, RevocationWatch
from agent.runner import Services
from agent.state import Board, NetworkTransition
from agent.store import FILE_NAME, KeptPast, Store, StoreError

_log: Final = structlog.get_logger(__name__)


def now() -> datetime:
    """Return the current moment."""
    return datetime.now(UTC)


def open_services(
    settings: AgentSettings,
    environ: Mapping[str, str],
    internal_error: Callable[[Component], None] = lambda _: None,
    network_changed: Callable[[], None] = lambda: None,
) -> Services:
    """Return the services, with an empty board; `close_services` gives back what they hold.

    `network_changed` is told when `board.network_suspect` has changed; it is in the log already.
    While the store cannot be used no login is admitted, and handshakes go on.
    """
    hold = Hold(
        timedelta(seconds=settings.breaker_hold), timedelta(seconds=settings.breaker_hold_max)
    )
    path = settings.state_directory / FILE_NAME

    def open_store(writes: int) -> Store:
        return Store.open_or_begin_anew(path, now(), hold.first, writes)

    gatekeeper = Gatekeeper(open_store, hold, environ, now)

    def tell(change: NetworkTransition) -> None:
        _tell(change)
        network_changed()

    board = Board(tell)
    return Services(
        board=board,
        resolver=Resolver(settings.resolver_threads),
        gatekeeper=gatekeeper,
        revocation=RevocationWatch(
            RevocationChecker(), now, bug=partial(internal_error, Component.REVOCATION)
        ),
        tables=shipped_tables(),
        environ=environ,
        now=now,
        clock=time.monotonic,
        internal_error=internal_error,
        leaves=Leaves(lambda name: board.get(name) is not None),
        history=History(_kept(gatekeeper), gatekeeper.ask),
    )


def open_journal(services: Services) -> Journal:
    """Return a journal of what the services will run, with the cycles that the store has.

    It is closed before they are.
    """
    try:
        kept = services.gatekeeper.ask_at_once(Store.cycles)
    except StoreError:
        kept = {}
    return Journal(kept, services.gatekeeper.ask)


async def close_services(services: Services) -> None:
    """Finish what was asked of the store and give it back; look-ups under way just end."""
    await services.revocation.aclose()
    services.gatekeeper.close()


def _tell(change: NetworkTransition) -> None:
    if change.suspect:
        _log.warning(
            "no org can be reached: this machine's own network seems to be down", orgs=change.orgs
        )
    else:
        lasted = {} if change.lasted is None else {"lasted": str(change.lasted)}
        _log.info("this machine's own network is not suspect any more", **lasted)


def _kept(gatekeeper: Gatekeeper) -> Mapping[str, KeptPast]:
    # Without it what orgs presented begins anew; that the store cannot be used is told already.
    try:
        return gatekeeper.ask_at_once(Store.pasts)
    except StoreError:
        return {}
