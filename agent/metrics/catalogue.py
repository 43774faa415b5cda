"""Every name that is exported, and the reference page that is made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from agent.component import Component
from agent.diagnosis import Confidence
from agent.metrics.family import Family
from agent.metrics.fleet import FLEET_FAMILIES
from agent.metrics.org import INFO_VALUE_LENGTH, ORG_FAMILIES
from agent.policy.rule import Severity
from agent.result import ClientAuth, Probe, SkipCause, Stage

CATALOGUE: Final[Mapping[str, Family]] = MappingProxyType(
    {family.name: family for family in (*FLEET_FAMILIES, *ORG_FAMILIES)}
)

_CLOSED_SETS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "org": "the name in the configuration",
        "probe": ", ".join(Probe),
        "stage": ", ".join(Stage),
        "state": ", ".join(ClientAuth),
        "cause": f"of a run that was skipped: {', '.join(SkipCause)}; of one that failed: what "
        "`docs/causes.md` lists",
        "confidence": ", ".join(Confidence),
        "reason": "what `sfmtls-agent reasons` lists",
        "side": "client, server; empty where a violation is about the org as a whole",
        "position": "0 for the leaf, then counting up, as presented",
        "role": "leaf, intermediate, root",
        "severity": ", ".join(Severity),
        "rule": "the names of the policy rules",
        "deadline": "the names of the announced deadlines",
        "alert": "the alert's name in RFC 8446, or its number when it has none",
        "component": ", ".join(Component),
    }
)


def reference() -> str:
    """Return docs/metrics.md: every family with type, labels, meaning and when it is there."""

    def row(family: Family, labels: Sequence[str]) -> str:
        named = ", ".join(labels) + (" + the operator's own" if family.open_labels else "")
        cells = (f"`{family.name}`", family.kind, named or "-", family.help, family.emitted)
        return f"| {' | '.join(cells)} |"

    head = ("| family | type | labels | meaning | present |", "|---|---|---|---|---|")
    return "\n".join(
        [
            "# Metrics",
            "",
            "Names are an interface: a renamed metric is a breaking change. This page is made from",
            "`agent/metrics`; a test compares the two.",
            "",
            "A missing observation is absent, never 0. What was seen once stays when cycles fail.",
            "",
            "## Of each org",
            "",
            *head,
            *(row(family, ("org", *family.labels)) for family in ORG_FAMILIES),
            "",
            "## Of the agent",
            "",
            *head,
            *(row(family, family.labels) for family in FLEET_FAMILIES),
            "",
            "Beside these, the `process_*` metrics that Prometheus' client libraries share:",
            "CPU time, memory, file descriptors and when the process began.",
            "",
            "## Label values",
            "",
            "Every label has a closed set of values, except in `_info` families: there values are",
            f"cut to {INFO_VALUE_LENGTH} characters, and U+FFFD stands for what cannot be printed.",
            "",
            "| label | values |",
            "|---|---|",
            *(f"| {label} | {values} |" for label, values in _CLOSED_SETS.items()),
            "",
        ]
    )
