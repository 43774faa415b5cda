"""Wires everything together; starts, reloads, drains, stops.

The only module that knows all others. It decides nothing about orgs: `changes` says what a new
configuration means, runners run, the board remembers.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

import agent
from agent import logs, systemd
from agent.chain import Anchors
from agent.component import Component
from agent.config import ConfigError, Settings
from agent.garbage import Collector
from agent.metrics import Exposition, Instruments
from agent.ondemand import OnDemand, Turns
from agent.org import Org, authority
from agent.result import Probe, ProbeResult, SkipCause
from agent.runner import OrgRunner
from agent.schedule import Missed, Schedule
from agent.services import close_services, now, open_journal, open_services
from agent.state import Board
from agent.status import Desk
from agent.status.wording import count
from agent.store import Store, StoreError
from agent.web import Guard, StatusSite, WebServer, create_app

_Item = TypeVar("_Item")

_log: Final = structlog.get_logger(__name__)

# What a reload cannot change, by its key in the configuration.
_FIXED: Final = (
    "max_in_flight",
    "resolver_threads",
    "state_directory",
    "breaker_hold",
    "breaker_hold_max",
)
# systemd waits 90 s by default before it kills; a cycle's own deadline ends it earlier.
_DRAIN_SECONDS: Final = 50.0
# The store itself looks once a day; after a late start or a failure it need not be a day more.
_TIDY_SECONDS: Final = 600.0
# How many orgs are taken in before the event loop gets its turn: some ten milliseconds.
_AT_ONCE: Final = 50


class DaemonError(Exception):
    """The agent cannot go on and must be started again; the log says why."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new configuration means for the orgs."""

    removed: tuple[str, ...]
    added: tuple[Org, ...]
    changed: tuple[Org, ...]


def changes(running: Mapping[str, Org], wanted: Mapping[str, Org]) -> Changes:
    """Return what must be done so that `running` becomes `wanted`; the same org stays untouched."""
    return Changes(
        removed=tuple(name for name in running if name not in wanted),
        added=tuple(org for name, org in wanted.items() if name not in running),
        changed=tuple(
            org for name, org in wanted.items() if name in running and running[name] != org
        ),
    )


async def _in_turns(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """Yield the items so that thousands of them do not keep probes and scrapes waiting."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)


class Daemon:
    """The running agent. `load` reads the configuration again; it raises ConfigError.

    `sockets`, which listen already, take the place of the configured address. ConfigError when the
    web-config file cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        environ: Mapping[str, str],
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        # Before anything is opened: it may refuse.
        guard = Guard(settings.web.config_file)
        self._sockets = sockets
        # What a reload cannot change is as it was at the start.
        self._fixed = settings
        self._settings = settings
        self._load = load
        self._environ = environ
        self._notifier = systemd.Notifier(environ.get("NOTIFY_SOCKET"))
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._instruments = Instruments(registry)
        self._services = open_services(
            settings.agent, environ, self._instruments.internal_error, self._say_status
        )
        self._board = self._services.board
        self._exposition = Exposition(self._board, self._instruments)
        self._schedule = Schedule(
            clock=time.time,
            max_in_flight=settings.agent.max_in_flight,
            on_start=self._instruments.cycle_began,
            on_missed=self._missed,
        )
        self._runners: dict[str, OrgRunner] = {}
        self._journal = open_journal(self._services)
        self._turns = Turns()
        self._ondemand = OnDemand(self._asked, self._turns, time.monotonic)
        desk = Desk(
            self._board,
            self._journal,
            version=agent.__version__,
            now=now,
            anchors=self._anchors,
        )
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[bool]] = set()
        self._tidying: asyncio.Task[None] | None = None
        self._collector = Collector()
        self._stop = asyncio.Event()
        self._stopping = False
        self._refused = False
        self._web = WebServer(
            create_app(
                self._exposition,
                readiness=self._board.every_org_seen,
                now=now,
                reload=self.reload if settings.web.lifecycle else None,
                guard=guard,
                pages=StatusSite(
                    desk,
                    self._ondemand.ask if settings.web.lifecycle else None,
                    settings.web.listen_host,
                ).routes(),
            ),
            guard,
            bug=partial(self._instruments.internal_error, Component.WEB),
        )

    @property
    def board(self) -> Board:
        """What is known of every org."""
        return self._board

    async def start(self) -> tuple[str, int]:
        """Begin to probe and to serve; return the endpoint's address, or raise ListenError."""
        try:
            await self._apply(self._settings.orgs)
            address = await self._web.start(
                self._settings.web.listen_host,
                self._settings.web.listen_port,
                sockets=self._sockets,
            )
        except BaseException:
            await self._schedule.drain(0)
            await self._journal.aclose()
            await close_services(self._services)
            raise
        self._instruments.config_loaded(now())
        interval = systemd.watchdog_interval(self._environ)
        if interval is not None:
            # The beat comes from the schedule itself, so that a stuck schedule is not fed.
            self._schedule.beat(interval / 2, self._notifier.watchdog)
        self._collector.start()
        self._schedule.start()
        self._services.revocation.start()
        self._tidying = asyncio.create_task(self._tidy(), name="tidying")
        self._notifier.ready()
        self._say_status()
        _log.info(
            "started",
            version=agent.__version__,
            orgs=len(self._runners),
            listening=authority(*address),
        )
        return address

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop; SIGHUP reloads. DaemonError if it had to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._start_reload)
        await self.start()
        told = asyncio.ensure_future(self._stop.wait())
        served = asyncio.ensure_future(self._web.ended())
        try:
            await asyncio.wait([told, served], return_when=asyncio.FIRST_COMPLETED)
            broken = served.done() and not told.done()
            if broken:
                # Nobody would see the metrics of an agent that goes on without it.
                self._instruments.internal_error(Component.WEB)
                _log.error("the web server ended by itself; the agent stops")
        finally:
            told.cancel()
            served.cancel()
            await self.stop()
        if broken:
            raise DaemonError("the web server ended by itself")

    async def stop(self) -> None:
        """Let what is under way end, within a bound, and give everything back."""
        self._notifier.stopping()
        _log.info("stopping", in_flight=self._schedule.in_flight)
        self._stopping = True
        ending = [*self._reloads, *([self._tidying] if self._tidying else [])]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        drained, _ = await asyncio.gather(
            self._schedule.drain(_DRAIN_SECONDS), self._ondemand.drain(_DRAIN_SECONDS)
        )
        try:
            await self._web.stop()
        finally:
            await self._journal.aclose()
            await close_services(self._services)
            self._collector.stop()
        _log.info("stopped", cancelled=drained.cancelled, never_began=drained.never_began)

    async def reload(self) -> bool:
        """Read the configuration again; a bad one changes nothing. Returns whether it is in use.

        It goes on when whoever waits for it gives up.
        """
        task = self._start_reload()
        await asyncio.wait([task])
        # It is cancelled when the agent stops meanwhile.
        return not task.cancelled() and task.result()

    def _start_reload(self) -> asyncio.Task[bool]:
        task = asyncio.create_task(self._reload(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        return task

    async def _reload(self) -> bool:
        async with self._reloading:
            if self._stopping:
                return False
            self._notifier.reloading()
            self._refused = True
            try:
                # Thousands of orgs take a while to read; probes go on meanwhile.
                await self._take(await asyncio.to_thread(self._load))
            except ConfigError as error:
                for problem in error.problems:
                    _log.error("configuration not usable, the old one stays", problem=str(problem))
            except Exception:  # noqa: BLE001 - whatever it is, the old configuration stays in use
                _log.exception("a bug in the agent stopped the reload")
                self._instruments.internal_error(Component.RELOAD)
            else:
                self._refused = False
                self._instruments.config_loaded(now())
                return True
            finally:
                self._notifier.ready()
                self._say_status()
            self._instruments.config_refused()
            return False

    async def _take(self, wanted: Settings) -> None:
        for key in _FIXED:
            if getattr(wanted.agent, key) != getattr(self._fixed.agent, key):
                _log.warning("this change needs a restart", key=f"agent.{key}")
        if wanted.web != self._fixed.web:
            _log.warning("this change needs a restart", key="web")
        plan = await self._apply(wanted.orgs)
        self._collector.look_at_all()
        before, self._settings = self._settings, wanted
        _set_log(before, wanted)
        _log.info(
            "configuration reloaded",
            added=len(plan.added),
            changed=len(plan.changed),
            removed=len(plan.removed),
        )

    async def _apply(self, wanted: Mapping[str, Org]) -> Changes:
        """Make the orgs that are watched those that are wanted; return what was done."""
        # What runs is asked, not what was last read: a reload may have failed half-way.
        plan = changes({name: runner.org for name, runner in self._runners.items()}, wanted)
        # All are made before the first is used, so that a bug in making one changes nothing.
        fresh = [
            OrgRunner(org, self._services, self._runners.get(org.name), ahead)
            async for ahead, org in _in_turns(enumerate((*plan.added, *plan.changed)))
        ]
        async for name in _in_turns(plan.removed):
            self._schedule.remove(name)
            self._board.remove(name)
            self._journal.forget(name)
            del self._runners[name]
        async for runner in _in_turns(fresh):
            self._put(runner)
        return plan

    def _put(self, runner: OrgRunner) -> None:
        org = runner.org
        before = self._runners.get(org.name)
        if before is None:
            self._board.add(org)
        else:
            self._board.replace(org)
        self._runners[org.name] = runner
        if before is None or org.interval != before.org.interval:
            self._schedule.add(org.name, org.interval, partial(self._cycle, org.name))

    async def _cycle(self, name: str, late: float) -> None:
        try:
            await self._turn(name, late)
        finally:
            self._instruments.cycle_ended()

    async def _asked(self, name: str, probes: frozenset[Probe]) -> ProbeResult | None:
        self._instruments.cycle_began(0.0)
        try:
            return await self._turn(name, 0.0, probes)
        finally:
            self._instruments.cycle_ended()

    async def _turn(
        self, name: str, late: float, only: frozenset[Probe] | None = None
    ) -> ProbeResult | None:
        """Run a cycle of an org when no other one is under way; None when the org is gone."""
        began = time.monotonic()
        async with self._turns.of(name):
            runner = self._runners.get(name)
            if runner is None:
                return None
            result = await runner.run(late + time.monotonic() - began, only)
        self._instruments.stages_took(result.stages)
        self._journal.take(result, self._board.get(name))
        self._exposition.make_ready(name)
        return result

    def _anchors(self, name: str) -> Anchors:
        runner = self._runners.get(name)
        return Anchors(()) if runner is None else runner.judge.seen.anchors

    async def _tidy(self) -> None:
        """Let store and memory forget what is out of use, now and then."""
        while True:
            orgs = tuple(self._runners)
            logins = (runner.org.login for runner in self._runners.values())
            users = {login.username for login in logins if login is not None}
            # The gatekeeper tells of it, and there is another day.
            with suppress(StoreError):
                await self._services.gatekeeper.ask(
                    partial(Store.tidy, orgs=orgs, users=users, now=now())
                )
            await asyncio.sleep(_TIDY_SECONDS)
            self._collector.look()

    def _missed(self, missed: Missed) -> None:
        self._board.skipped(missed.name, Probe.HANDSHAKE, SkipCause.OVERLAP, missed.runs)
        write = _log.debug if missed.repeated else _log.warning
        why = "the previous one still runs" if missed.overlap else "the agent is behind its time"
        write(f"cycle skipped: {why}", org=missed.name, cycles=missed.runs)

    def _say_status(self) -> None:
        words = [f"watching {count(len(self._runners), 'org')}"]
        if self._board.network_suspect:
            words.append("no org can be reached")
        if self._refused:
            words.append("the last reload was refused, the log says why")
        self._notifier.status("; ".join(words))


def _set_log(before: Settings, after: Settings) -> None:
    level, form = after.agent.log_level, after.agent.log_format
    if (level, form) != (before.agent.log_level, before.agent.log_format):
        logs.configure(level.value, form.value)
