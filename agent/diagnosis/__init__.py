"""From what was seen and what is known of our own files: the likely causes, the best first.

The same alert means different things on different stacks, and some stacks only close; so a failure
is laid beside what the policy found in our own certificate. Where nothing tells, the possibilities
are named as such, the more common ones first; where there are none, nothing is. Pure: no I/O, no
clock, and the same result with the same judgement always has the same causes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Final

# Of causes that are equally sure, those of the earlier module come first.
from agent.diagnosis import client, http, login, network, server  # noqa: F401 - they register
from agent.diagnosis.cause import CATALOGUE, Case, Cause, Confidence, Known
from agent.policy import Judgement
from agent.result import Failure, Probe, ProbeResult

__all__ = ["CATALOGUE", "Cause", "Confidence", "by_probe", "diagnose", "reference"]

_MOST: Final = 4


def diagnose(result: ProbeResult, judgement: Judgement) -> tuple[Cause, ...]:
    """Return the causes of all that failed in a cycle, the best first, each once; at most four."""
    found = by_probe(result, judgement).values()
    return _ranked(cause for causes in found for cause in causes)


def by_probe(result: ProbeResult, judgement: Judgement) -> Mapping[Probe, tuple[Cause, ...]]:
    """Return the causes of each probe that failed, at most four; none where nothing tells."""
    cases = (
        Case(probe, outcome, result, judgement)
        for probe in Probe
        if isinstance(outcome := result.outcomes.get(probe), Failure)
    )
    return {case.probe: _ranked(_suspects(case)) for case in cases}


def _suspects(case: Case) -> Iterable[Cause]:
    return (cause for known in CATALOGUE.values() if (cause := known.of(case)))


def _ranked(causes: Iterable[Cause]) -> tuple[Cause, ...]:
    best: dict[str, Cause] = {}
    for cause in sorted(causes, key=lambda cause: cause.confidence.rank):
        best.setdefault(cause.name, cause)
    ranked = tuple(best.values())
    if ranked and ranked[0].confidence is Confidence.CERTAIN:
        # Beside what is proven, what is only not excluded would mislead.
        ranked = tuple(c for c in ranked if c.confidence is not Confidence.POSSIBLE)
    return ranked[:_MOST]


_HEAD: Final = """\
# Causes

Why a probe failed, as far as what was seen and our own certificate can tell. `sfmtls-agent probe`
prints them, the log names them, and `sfmtls_probe_cause` has the best of each failing probe. This
page is made from `agent/diagnosis`; a test compares the two.

- **certain**: what was seen proves it.
- **likely**: what was seen speaks for it.
- **possible**: nothing excludes it. The more common possibilities come first.
"""


def reference() -> str:
    """Return docs/causes.md: every cause with its meaning, remedy and source."""
    modules: dict[str, list[Known]] = {}
    for known in CATALOGUE.values():
        modules.setdefault(known.module, []).append(known)
    lines = [_HEAD]
    for module, causes in modules.items():
        subject = module.rpartition(".")[2].capitalize()
        lines += [f"## {subject}", "", (sys.modules[module].__doc__ or "").splitlines()[0], ""]
        lines += ["| cause | meaning | remedy | source |", "|---|---|---|---|"]
        lines += [
            f"| `{known.name}` | {known.meaning} | {known.remedy} | {known.basis} |"
            for known in causes
        ]
        lines.append("")
    return "\n".join(lines)
