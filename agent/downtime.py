"""What `maintenance start|stop|list` do: windows in the store, and those that are configured.

The store is the daemon's own, which looks there before each cycle; it need not run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from agent.config import Settings
from agent.maintenance import EVERY_ORG, Planned, Recurring, Window, in_force, started_for
from agent.org import Org
from agent.store import FILE_NAME, Store


@dataclass(frozen=True, slots=True)
class Stopped:
    """The orgs whose window was ended (EVERY_ORG for that of all), and what is in force still."""

    orgs: Collection[str]
    still: Mapping[str, Window]


@dataclass(frozen=True, slots=True)
class Listed:
    """A window that is in force or comes next, and the orgs that it is for; `every` means all.

    `started` tells that it was by command; `recurring` is what it comes from, if it comes again.
    """

    orgs: tuple[str, ...]
    every: bool
    window: Window
    started: bool
    recurring: Recurring | None = None


def start(
    settings: Settings, orgs: Collection[str], now: datetime, until: datetime, reason: str
) -> None:
    """Start a window of these orgs; StoreError when that cannot be written."""
    with _store(settings) as store:
        store.start_maintenance(orgs, now, until, reason)


def stop(settings: Settings, orgs: Collection[str], now: datetime) -> Stopped:
    """End what was started of these orgs, or of all (EVERY_ORG); StoreError when it cannot be."""
    everything = EVERY_ORG in orgs
    with _store(settings) as store:
        stopped = store.stop_maintenance(None if everything else orgs, now)
        started = store.maintenance()

    def planned(org: Org) -> tuple[Planned, ...]:
        return *org.maintenance, *started_for(org.name, started)

    still = {
        name: window
        for name in (settings.orgs if everything else orgs)
        if (window := in_force(planned(settings.orgs[name]), now))
    }
    return Stopped(stopped, still)


def listed(settings: Settings, now: datetime) -> list[Listed]:
    """Return all windows that are not over, the next first; StoreError as above."""
    with _store(settings) as store:
        started = store.maintenance()
    found = [
        Listed((name,) if name else tuple(settings.orgs), not name, window, started=True)
        for name, window in started.items()
        if window.next(now)
    ]
    planned: dict[Planned, list[str]] = {}
    for org in settings.orgs.values():
        for one in org.maintenance:
            planned.setdefault(one, []).append(org.name)
    for one, names in planned.items():
        coming = one.next(now)
        if coming is not None:
            found.append(
                Listed(
                    tuple(names),
                    len(names) == len(settings.orgs) > 1,
                    coming,
                    started=False,
                    recurring=one if isinstance(one, Recurring) else None,
                )
            )
    return sorted(found, key=lambda one: (one.window.begins or now, one.window.until))


def _store(settings: Settings) -> closing[Store]:
    return closing(Store.open(settings.agent.state_directory / FILE_NAME))
