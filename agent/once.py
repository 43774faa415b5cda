"""What the commands do once, without the daemon: a cycle of each org, a look at the breakers.

The store is the daemon's own, so a login made here counts in the budget that both share.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent import breaker
from agent.breaker import Limits
from agent.config import Settings
from agent.org import Org
from agent.policy.rule import Violation
from agent.reason import Reason
from agent.result import ProbeResult
from agent.runner import OrgRunner
from agent.services import close_services, now, open_services
from agent.store import FILE_NAME, Store

Seen = tuple[ProbeResult, tuple[Violation, ...]]


async def probe(
    settings: Settings, orgs: Sequence[Org], *, login: bool, advance: Callable[[str], None]
) -> list[Seen]:
    """Run one cycle of each org, some at a time, and return what they showed in the same order.

    `advance` is told the name of each org that is done. A bug in one org's cycle is in its result.
    """
    services = open_services(settings.agent, os.environ)
    board = services.board
    slots = asyncio.Semaphore(settings.agent.max_in_flight)

    async def cycle(org: Org) -> Seen:
        wanted = org if login else replace(org, login=None)
        board.add(wanted)
        async with slots:
            result = await OrgRunner(wanted, services).run()
        advance(org.name)
        known = board.get(org.name)
        return result, known.violations if known else ()

    try:
        return list(await asyncio.gather(*(cycle(org) for org in orgs)))
    finally:
        close_services(services)


@dataclass(frozen=True, slots=True)
class BreakerShown:
    """How the breaker of an org's user stands. `until` is when a refused secret may be tried."""

    org: str
    username: str
    opened_at: datetime | None
    opened_by: Reason | None
    until: datetime | None
    budget_remaining: int
    logins_per_hour: int


def breakers(settings: Settings, orgs: Sequence[Org]) -> list[BreakerShown]:
    """Return how the breakers stand; StoreError when the state directory cannot be read."""
    store = Store.open(settings.agent.state_directory / FILE_NAME)
    try:
        return [_shown(store, org, settings) for org in orgs if org.login is not None]
    finally:
        store.close()


def reset_breaker(settings: Settings, org: Org) -> None:
    """Allow the org's user one more try; StoreError when that cannot be written."""
    if org.login is None:
        raise ValueError(f"org {org.name} has no login")
    store = Store.open(settings.agent.state_directory / FILE_NAME)
    try:
        store.reset(org.login.username, now())
    finally:
        store.close()


def _shown(store: Store, org: Org, settings: Settings) -> BreakerShown:
    username = org.login.username if org.login else ""
    state = store.login_state(username)
    refusal = state.refusal
    hold = timedelta(seconds=settings.agent.breaker_hold)
    most = timedelta(seconds=settings.agent.breaker_hold_max)
    limits = Limits(org.logins_per_hour, hold, most)
    return BreakerShown(
        org=org.name,
        username=username,
        opened_at=refusal.at if refusal else None,
        opened_by=refusal.by if refusal else None,
        until=refusal.until if refusal and not refusal.released else None,
        budget_remaining=breaker.budget_remaining(state, now(), limits),
        logins_per_hour=org.logins_per_hour,
    )
