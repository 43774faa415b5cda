"""The JSON of the status page: what other tools read. It is an interface; `openapi` describes it.

An org's document has every key of a cycle in `report`, as `probe --json` prints it, and what the
agent knows beyond one cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from agent import report
from agent.cycles import Cycle
from agent.report import moment
from agent.result import ProbeResult
from agent.state import ProbeStatus, Snapshot, Standing
from agent.status.fleet import Fleet
from agent.status.view import View, steps


def fleet(found: Fleet, now: datetime) -> dict[str, Any]:
    """Return one page of orgs."""
    return {
        "orgs": [status(view, now) for view in found.views],
        "page": found.query.page,
        "pages": found.pages,
        "per_page": found.query.per_page,
        "matching": found.matching,
        "total": found.total,
        "states": {state.value: count for state, count in found.counts.items()},
    }


def org(
    snapshot: Snapshot,
    view: View,
    result: ProbeResult | None,
    cycles: Sequence[Cycle],
    now: datetime,
) -> dict[str, Any]:
    """Return all that is known of one org; `result` is its last cycle, if there was one."""
    seen = result or ProbeResult(org=view.name, started_at=now, outcomes={})
    document = report.cycle(seen, snapshot.judgement)
    if result is None:
        document["healthy"] = None
    return document | {
        "status": status(view, now),
        "standings": {probe.value: _standing(known) for probe, known in snapshot.probes.items()},
        "next_steps": [
            {
                "subject": step.subject,
                "code": step.code,
                "because": step.because,
                "confidence": step.confidence,
                "remedy": step.remedy,
                "link": step.link,
            }
            for step in steps(snapshot)
        ],
        "deadlines": {name: moment(when) for name, when in snapshot.deadlines.items()},
        "recent": [_recent(cycle) for cycle in cycles],
    }


def status(view: View, now: datetime) -> dict[str, Any]:
    """Return one line of the fleet."""
    logins, expiry = view.logins, view.expiry
    return {
        "org": view.name,
        "host": view.host,
        "labels": dict(view.labels),
        "state": view.state.value,
        "summary": view.summary,
        "code": view.code,
        "since": _optional(view.since),
        "last_cycle": _optional(view.last_cycle),
        "first_expiry": None
        if expiry is None
        else {
            "side": expiry.side.value,
            "not_after": moment(expiry.not_after),
            "days_left": round(expiry.left(now).total_seconds() / 86400, 2),
        },
        "violations": {
            "critical": view.critical,
            "warning": view.warnings,
            "info": view.infos,
        },
        "logins": None
        if logins is None
        else {"stopped": logins.stopped, "left_this_hour": logins.left, "per_hour": logins.of},
        "maintenance": view.maintenance,
    }


def error(sentence: str, **more: object) -> dict[str, Any]:
    """Return why there is no answer."""
    return {"error": sentence} | more


def _standing(known: ProbeStatus) -> dict[str, Any]:
    cause = known.cause
    return {
        "standing": known.standing.value,
        "since": _optional(known.since),
        "reason": known.reason.value if known.reason else None,
        "detail": known.last.detail if known.last else "",
        "cause": report.cause(cause) if cause and known.standing is Standing.FAILURE else None,
        "last_run": _optional(known.last_run),
        "last_success": _optional(known.last_success),
        "attempts": known.attempts,
        "failures": known.failures,
        "skipped": {why.value: times for why, times in known.skipped.items()},
    }


def _recent(cycle: Cycle) -> dict[str, Any]:
    seen = cycle.seen
    return {
        "number": cycle.number,
        "at": moment(cycle.at),
        "troubled": seen.troubled,
        "client_auth": seen.client_auth.value,
        "alert": seen.alert,
        "stages": {stage.value: round(took, 6) for stage, took in cycle.stages.items()},
        "probes": {probe.value: report.outcome(outcome) for probe, outcome in seen.outcomes},
        "causes": _names(seen.causes),
    }


def _names(causes: Sequence[tuple[Any, str]]) -> Mapping[str, str]:
    return {probe.value: name for probe, name in causes}


def _optional(when: datetime | None) -> str | None:
    return None if when is None else moment(when)
