"""Snapshot → metric families → text; and the catalogue of every name that is exported.

Names are an interface: dashboards and alerts stand on them. `org` makes a family of each function
of a Snapshot, `fleet` counts what is not about one org, `exposition` renders both, `catalogue`
lists them. Nothing here does I/O or reads a clock: `now` is passed in.
"""

from agent.component import Component
from agent.metrics.catalogue import CATALOGUE, reference
from agent.metrics.exposition import Exposition
from agent.metrics.family import Family, Kind
from agent.metrics.fleet import Instruments
from agent.metrics.org import org_families

__all__ = [
    "CATALOGUE",
    "Component",
    "Exposition",
    "Family",
    "Instruments",
    "Kind",
    "org_families",
    "reference",
]
