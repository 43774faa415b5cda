"""Opens what all runners share, for the daemon and for the commands that do things once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from agent.component import Component
from agent.config import AgentSettings
from agent.gate import Gatekeeper, Hold
from agent.policy.tables import shipped_tables
from agent.probe.dns import Resolver
from agent.runner import Services
from agent.state import Board
from agent.store import FILE_NAME, Store, StoreError

_log: Final = structlog.get_logger(__name__)


def now() -> datetime:
    """Return the current moment."""
    return datetime.now(UTC)


def open_services(
    settings: AgentSettings,
    environ: Mapping[str, str],
    internal_error: Callable[[Component], None] = lambda _: None,
) -> Services:
    """Return the services, with an empty board; `close_services` gives back what they hold."""
    return Services(
        board=Board(),
        resolver=Resolver(settings.resolver_threads),
        gatekeeper=_open_gatekeeper(settings, environ),
        tables=shipped_tables(),
        environ=environ,
        now=now,
        clock=time.monotonic,
        internal_error=internal_error,
    )


def close_services(services: Services) -> None:
    """Finish what was asked of the store and give it back; look-ups under way just end."""
    services.gatekeeper.close()


def _open_gatekeeper(settings: AgentSettings, environ: Mapping[str, str]) -> Gatekeeper:
    """Return the gatekeeper on the store of the state directory, made if need be.

    When the store cannot be used it is logged, no login is ever admitted, and handshakes go on.
    """
    store: Store | None = None
    try:
        store = Store.open(settings.state_directory / FILE_NAME)
    except StoreError as error:
        _log.error("no login will be made: the state directory cannot be used", error=str(error))
    hold = Hold(
        timedelta(seconds=settings.breaker_hold), timedelta(seconds=settings.breaker_hold_max)
    )
    return Gatekeeper(store, hold, environ, now)
