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
from agent.leaves import Leaves
from agent.policy.tables import shipped_tables
from agent.probe.dns import Resolver
from agent.revocation import RevocationChecker, RevocationWatch
from agent.runner import Services
from agent.state import Board
from agent.store import FILE_NAME, KeptPast, Store, StoreError

_log: Final = structlog.get_logger(__name__)


def now() -> datetime:
    """Return the current moment."""
    return datetime.now(UTC)


def open_services(
    settings: AgentSettings,
    environ: Mapping[str, str],
    internal_error: Callable[[Component], None] = lambda _: None,
) -> Services:
    """Return the services, with an empty board; `close_services` gives back what they hold.

    When the store cannot be used it is logged, no login is ever admitted, and handshakes go on.
    """
    store = _open_store(settings)
    hold = Hold(
        timedelta(seconds=settings.breaker_hold), timedelta(seconds=settings.breaker_hold_max)
    )
    gatekeeper = Gatekeeper(store, hold, environ, now)
    board = Board()
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
        history=History() if store is None else History(_kept(store), gatekeeper.ask),
    )


async def close_services(services: Services) -> None:
    """Finish what was asked of the store and give it back; look-ups under way just end."""
    await services.revocation.aclose()
    services.gatekeeper.close()


def _open_store(settings: AgentSettings) -> Store | None:
    """Return the store of the state directory, made if need be."""
    try:
        return Store.open(settings.state_directory / FILE_NAME)
    except StoreError as error:
        _log.error("no login will be made: the state directory cannot be used", error=str(error))
        return None


def _kept(store: Store) -> Mapping[str, KeptPast]:
    try:
        return store.pasts()
    except StoreError as error:
        _log.warning("what orgs presented before is not known", error=str(error))
        return {}
