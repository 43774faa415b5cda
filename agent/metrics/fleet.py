"""What is counted for the agent as a whole, in a registry that belongs to one daemon."""

from __future__ import annotations

import platform
import ssl
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

import agent
from agent.component import Component
from agent.metrics.family import ALWAYS, FROM_ZERO, Family, Kind
from agent.result import Stage
from agent.state import Board

_BUILD_INFO: Final = Family(
    "sfmtls_build_info",
    Kind.GAUGE,
    ("version", "python_version", "openssl_version"),
    "Which agent runs, on what.",
    ALWAYS,
)
_RELOAD_SUCCESSFUL: Final = Family(
    "sfmtls_config_last_reload_successful",
    Kind.GAUGE,
    (),
    "Whether the last attempt to read the configuration gave one that could be used.",
    "once the configuration was read",
)
_RELOAD_SUCCESS: Final = Family(
    "sfmtls_config_last_reload_success_timestamp_seconds",
    Kind.GAUGE,
    (),
    "When the configuration in use was read, in Unix time.",
    "once the configuration was read",
)
_FLEET_STAGE_DURATION: Final = Family(
    "sfmtls_fleet_stage_duration_seconds",
    Kind.HISTOGRAM,
    ("stage",),
    "How long the stage took, over all orgs, failing runs included.",
    FROM_ZERO,
)
_SCHEDULER_LAG: Final = Family(
    "sfmtls_scheduler_lag_seconds",
    Kind.HISTOGRAM,
    (),
    "How much later than planned a cycle began.",
    FROM_ZERO,
)
_PROBES_IN_FLIGHT: Final = Family(
    "sfmtls_probes_in_flight", Kind.GAUGE, (), "Cycles that run at this moment.", ALWAYS
)
_INTERNAL_ERRORS: Final = Family(
    "sfmtls_internal_errors_total",
    Kind.COUNTER,
    ("component",),
    "Bugs of the agent that were caught; the traceback is in the log.",
    FROM_ZERO,
)
_NETWORK_SUSPECT: Final = Family(
    "sfmtls_agent_network_suspect",
    Kind.GAUGE,
    (),
    "Whether the agent's own network seems to be down: every org has failed in dns, proxy or tcp "
    "since any org last got further.",
    "with at least two orgs: one alone cannot tell its server's trouble from the agent's",
)
FLEET_FAMILIES: Final = (
    _BUILD_INFO,
    _RELOAD_SUCCESSFUL,
    _RELOAD_SUCCESS,
    _FLEET_STAGE_DURATION,
    _SCHEDULER_LAG,
    _PROBES_IN_FLIGHT,
    _INTERNAL_ERRORS,
    _NETWORK_SUSPECT,
)

_STAGE_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0)


class Instruments:
    """Counts what is not about one org, in a registry of its own; safe from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        family = _BUILD_INFO
        build = Gauge(family.name, family.help, family.labels, registry=registry)
        build.labels(agent.__version__, platform.python_version(), ssl.OPENSSL_VERSION).set(1)
        self._reload = _Reload()
        registry.register(self._reload)
        family = _FLEET_STAGE_DURATION
        stages = Histogram(
            family.name, family.help, family.labels, registry=registry, buckets=_STAGE_BUCKETS
        )
        # Children made now are present at 0, and keeping them saves a look-up per observation.
        self._stages = {stage: stages.labels(stage) for stage in Stage}
        family = _SCHEDULER_LAG
        self._lag = Histogram(family.name, family.help, registry=registry, buckets=_LAG_BUCKETS)
        family = _PROBES_IN_FLIGHT
        self._in_flight = Gauge(family.name, family.help, registry=registry)
        family = _INTERNAL_ERRORS
        errors = Counter(family.name, family.help, family.labels, registry=registry)
        self._errors = {component: errors.labels(component) for component in Component}

    def stages_took(self, stages: Mapping[Stage, float]) -> None:
        """Take in the seconds of one cycle's stages."""
        for stage, seconds in stages.items():
            self._stages[stage].observe(seconds)

    def cycle_began(self, lag: float) -> None:
        """Take in that a cycle began `lag` seconds later than planned."""
        self._lag.observe(max(0.0, lag))
        self._in_flight.inc()

    def cycle_ended(self) -> None:
        """Take in that a cycle that began is over, however it went."""
        self._in_flight.dec()

    def internal_error(self, component: Component) -> None:
        """Count a bug that was caught."""
        self._errors[component].inc()

    def config_loaded(self, now: datetime) -> None:
        """Take in that a configuration was read at `now` and is in use."""
        self._reload.outcome = (True, now)

    def config_refused(self) -> None:
        """Take in that a configuration could not be used and the old one stays."""
        self._reload.outcome = (False, self._reload.outcome[1])

    def families(self) -> Iterator[Metric]:
        """Yield the families of the registry as they are in the catalogue."""
        for metric in self._registry.collect():
            # prometheus_client adds the moment of creation to every counter and histogram; the
            # catalogue does not have those series, and a switch for them exists only process-wide.
            metric.samples = [
                sample for sample in metric.samples if sample.name != metric.name + "_created"
            ]
            yield metric


def board_families(board: Board) -> Iterator[Metric]:
    """Yield the families about all orgs of a board together."""
    suspect = board.network_suspect
    if suspect is not None:
        family = _NETWORK_SUSPECT
        yield GaugeMetricFamily(family.name, family.help, value=suspect)


class _Reload:
    """Gives the two gauges about the configuration, which are absent before it was read."""

    def __init__(self) -> None:
        # One field, so that a scrape in another thread sees both parts of one moment.
        self.outcome: tuple[bool, datetime | None] = (False, None)

    def collect(self) -> Iterator[Metric]:
        """Yield what is known."""
        successful, at = self.outcome
        if at is not None:
            family = _RELOAD_SUCCESSFUL
            yield GaugeMetricFamily(family.name, family.help, value=successful)
            family = _RELOAD_SUCCESS
            yield GaugeMetricFamily(family.name, family.help, value=at.timestamp())
