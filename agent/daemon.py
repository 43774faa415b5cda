"""Wires everything together; starts, reloads, drains, stops.

The only module that knows all others. It decides nothing about orgs: `changes` says what a new
configuration means, runners run, the board remembers. One org's bug is caught here, once.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

import agent
from agent import systemd
from agent.config import AgentSettings, ConfigError, Settings
from agent.gate import Gatekeeper, Hold
from agent.metrics import Component, Exposition, Instruments
from agent.org import Org
from agent.policy.tables import shipped_tables
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import Failure, Probe, ProbeResult, SkipCause
from agent.runner import OrgRunner, Services
from agent.schedule import Schedule
from agent.state import Board
from agent.store import FILE_NAME, Store, StoreError
from agent.web.app import Facts, create_app
from agent.web.server import WebServer

_log: Final = structlog.get_logger(__name__)

# What a reload cannot change, by its key in the configuration.
_FIXED: Final = ("max_in_flight", "resolver_threads", "state_directory")
# systemd waits 90 s by default before it kills; a cycle's own deadline ends it earlier.
_DRAIN_SECONDS: Final = 50.0


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


def now() -> datetime:
    """Return the current moment."""
    return datetime.now(UTC)


def open_gatekeeper(settings: AgentSettings, environ: Mapping[str, str]) -> Gatekeeper:
    """Return the gatekeeper on the store of the state directory, made if need be.

    When the store cannot be used it is logged, no login is ever admitted, and handshakes go on.
    """
    directory = settings.state_directory
    store: Store | None = None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = Store.open(directory / FILE_NAME)
    except (OSError, StoreError) as error:
        _log.error("no login will be made: the state directory cannot be used", error=str(error))
    hold = Hold(
        timedelta(seconds=settings.breaker_hold), timedelta(seconds=settings.breaker_hold_max)
    )
    return Gatekeeper(store, hold, environ, now)


class Daemon:
    """The running agent. `load` reads the configuration again; it raises ConfigError."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        environ: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._load = load
        self._environ = environ
        self._notifier = systemd.Notifier(environ.get("NOTIFY_SOCKET"))
        self._board = Board()
        self._instruments = Instruments(CollectorRegistry())
        self._resolver = Resolver(settings.agent.resolver_threads)
        self._gatekeeper = open_gatekeeper(settings.agent, environ)
        self._services = Services(
            board=self._board,
            resolver=self._resolver,
            gatekeeper=self._gatekeeper,
            tables=shipped_tables(),
            environ=environ,
            now=now,
            clock=time.monotonic,
        )
        self._schedule = Schedule(
            clock=time.time,
            max_in_flight=settings.agent.max_in_flight,
            on_start=self._instruments.cycle_began,
            on_overlap=self._overlapped,
        )
        self._runners: dict[str, OrgRunner] = {}
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[bool]] = set()
        self._stop = asyncio.Event()
        self._web = WebServer(
            create_app(
                Exposition(self._board, self._instruments),
                readiness=self._board.every_org_seen,
                now=now,
                facts=self._facts,
                reload=self.reload if settings.web.lifecycle else None,
            )
        )

    @property
    def board(self) -> Board:
        """What is known of every org."""
        return self._board

    async def start(self) -> tuple[str, int]:
        """Begin to probe and to serve; return the endpoint's address. OSError when it is taken."""
        address = await self._web.start(
            self._settings.web.listen_host, self._settings.web.listen_port
        )
        self._apply(changes({}, self._settings.orgs))
        self._instruments.config_loaded(now())
        self._schedule.start()
        interval = systemd.watchdog_interval(self._environ)
        if interval is not None:
            # The beat comes from the schedule itself, so that a stuck schedule is not fed.
            self._schedule.beat(interval / 2, self._notifier.watchdog)
        self._notifier.ready()
        self._say_status()
        _log.info(
            "started",
            version=agent.__version__,
            orgs=len(self._runners),
            listening=f"{address[0]}:{address[1]}",
        )
        return address

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop; SIGHUP reloads."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        await self.start()
        try:
            await self._stop.wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Let what is under way end, within a bound, and give everything back."""
        self._notifier.stopping()
        _log.info("stopping", in_flight=self._schedule.in_flight)
        cancelled = await self._schedule.drain(_DRAIN_SECONDS)
        await self._web.stop()
        self._resolver.close()
        self._gatekeeper.close()
        _log.info("stopped", cancelled=cancelled)

    async def reload(self) -> bool:
        """Read the configuration again; a bad one changes nothing. Returns whether it is in use."""
        async with self._reloading:
            self._notifier.reloading()
            try:
                # Thousands of orgs take a while to read; probes go on meanwhile.
                wanted = await asyncio.to_thread(self._load)
            except ConfigError as error:
                self._instruments.config_refused()
                for problem in error.problems:
                    _log.error("configuration not usable, the old one stays", problem=str(problem))
                return False
            else:
                self._take(wanted)
                return True
            finally:
                self._notifier.ready()
                self._say_status()

    def _take(self, wanted: Settings) -> None:
        plan = changes(self._settings.orgs, wanted.orgs)
        for key in _FIXED:
            if getattr(wanted.agent, key) != getattr(self._settings.agent, key):
                _log.warning("this change needs a restart", key=f"agent.{key}")
        if wanted.web != self._settings.web:
            _log.warning("this change needs a restart", key="web")
        self._settings = wanted
        self._apply(plan)
        self._instruments.config_loaded(now())
        _log.info(
            "configuration reloaded",
            added=len(plan.added),
            changed=len(plan.changed),
            removed=len(plan.removed),
        )

    def _apply(self, plan: Changes) -> None:
        for name in plan.removed:
            self._schedule.remove(name)
            del self._runners[name]
            self._board.remove(name)
        for org in plan.added:
            self._board.add(org)
            self._runners[org.name] = OrgRunner(org, self._services)
            self._schedule.add(org.name, org.interval, partial(self._cycle, org.name))
        for org in plan.changed:
            before = self._runners[org.name].org
            self._board.replace(org)
            self._runners[org.name] = OrgRunner(org, self._services)
            if org.interval != before.interval:
                self._schedule.add(org.name, org.interval, partial(self._cycle, org.name))

    def _reload_soon(self) -> None:
        task = asyncio.ensure_future(self.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _cycle(self, name: str) -> None:
        try:
            runner = self._runners.get(name)
            if runner is not None:
                result = await runner.cycle()
                self._instruments.stages_took(result.stages)
        except Exception:  # noqa: BLE001 - the one place: one org's bug must not stop the others
            _log.exception("a bug in the agent stopped this cycle", org=name)
            self._instruments.internal_error(Component.CYCLE)
            self._record_bug(name)
        finally:
            self._instruments.cycle_ended()

    def _record_bug(self, name: str) -> None:
        # Without an outcome the org would only look stale; what was judged before still holds.
        known = self._board.get(name)
        if known is not None:
            failure = Failure(Reason.INTERNAL, "see the log")
            self._board.record(
                ProbeResult(name, now(), {Probe.HANDSHAKE: failure}),
                violations=known.violations,
                not_evaluated=known.not_evaluated,
            )

    def _overlapped(self, name: str) -> None:
        self._board.skipped(name, Probe.HANDSHAKE, SkipCause.OVERLAP)
        _log.warning("cycle skipped: the previous one still runs", org=name)

    def _facts(self) -> Facts:
        snapshots = self._board.snapshots()
        seen = sum(1 for snapshot in snapshots if snapshot.cycles)
        return Facts(agent.__version__, len(snapshots), seen)

    def _say_status(self) -> None:
        self._notifier.status(f"watching {len(self._runners)} orgs")
