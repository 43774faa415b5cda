"""What the commands do once, without the daemon: a cycle of each org, a look at the breakers.

The store is the daemon's own, so a login made here counts in the budget that both share. Of what
orgs presented before, it is only read: what changed is for the daemon to notice, and to date.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent import breaker
from agent.breaker import Limits
from agent.config import Settings
from agent.org import Org, RevocationCheck
from agent.policy import Judgement
from agent.reason import Reason
from agent.result import ProbeResult
from agent.runner import OrgRunner, Services
from agent.services import close_services, now, open_services
from agent.store import FILE_NAME, Store

Seen = tuple[ProbeResult, Judgement]


async def probe(
    settings: Settings, orgs: Sequence[Org], *, login: bool, advance: Callable[[str], None]
) -> list[Seen]:
    """Run one cycle of each org, some at a time, and return what they showed in the same order.

    `advance` is told the name of each org that is done. A bug in one org's cycle is in its result.
    """
    opened = open_services(settings.agent, os.environ)
    services = replace(opened, history=opened.history.without_writing())
    slots = asyncio.Semaphore(settings.agent.max_in_flight)

    async def look(runner: OrgRunner) -> None:
        async with slots:
            # The cycle tells what is wrong.
            with contextlib.suppress(Exception):
                await runner.look()

    async def cycle(runner: OrgRunner) -> Seen:
        async with slots:
            result = await runner.run()
        advance(result.org)
        known = services.board.get(result.org)
        return result, known.judgement if known else Judgement((), ())

    try:
        wanted = [org if login else replace(org, login=None) for org in orgs]
        for org in wanted:
            services.board.add(org)
        runners = [OrgRunner(org, services) for org in wanted]
        # Whether orgs share a certificate is known when all of them have been looked at.
        await asyncio.gather(*map(look, runners))
        services.revocation.start()
        return await _settled(services, runners, await asyncio.gather(*map(cycle, runners)))
    finally:
        await close_services(services)


async def _settled(
    services: Services, runners: Sequence[OrgRunner], seen: Sequence[Seen]
) -> list[Seen]:
    """Wait for what is asked about revocation, which the daemon's next cycle would find there."""

    def again() -> list[Seen]:
        return [
            (result, known if _asks_nobody(runner.org) else runner.judged_again(result))
            for runner, (result, known) in zip(runners, seen, strict=True)
        ]

    if all(_asks_nobody(runner.org) for runner in runners):
        return list(seen)
    again()  # to judge is to ask
    await services.revocation.settled()
    return again()


def _asks_nobody(org: Org) -> bool:
    return org.policy.revocation is RevocationCheck.OFF


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
    with contextlib.closing(Store.open(settings.agent.state_directory / FILE_NAME)) as store:
        return [_shown(store, org, settings) for org in orgs if org.login is not None]


def reset_breaker(settings: Settings, org: Org) -> None:
    """Allow the org's user one more try; StoreError when that cannot be written.

    A state that is lost is begun anew, as the daemon would: all other users rest for a while.
    """
    if org.login is None:
        raise ValueError(f"org {org.name} has no login")
    path = settings.agent.state_directory / FILE_NAME
    hold = timedelta(seconds=settings.agent.breaker_hold)
    with contextlib.closing(Store.open_or_begin_anew(path, now(), hold)) as store:
        store.reset(org.login.username, now())


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
