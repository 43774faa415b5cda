"""What a metric family is, and the one type for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

ALWAYS: Final = "always"
FROM_ZERO: Final = "always, from 0"


class Kind(StrEnum):
    """The metric types in use, under their names in the exposition formats."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family: what a dashboard may rely on. `name` is the name of its samples.

    `labels` are in the order of the values that `samples` yields, without `org`, which every
    family of an org has; `open_labels` says that the operator's own labels follow.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    emitted: str
    open_labels: bool = False


def empty(family: Family, names: Sequence[str]) -> GaugeMetricFamily | CounterMetricFamily:
    """Return the family, not a histogram, without samples yet; `names` are its labels."""
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    return make(family.name, family.help, labels=names)
