"""Grafana's dashboards as code: `python -m grafana` writes grafana/dashboards/*.json.

`fleet`, `org` and `agents` say what is asked and why; `panels` and `board` how it looks; `promql`
and `palette` hold what they share. Nothing of this is part of the agent or installed with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import agents, fleet, org

FOLDER: Final = Path(__file__).parent / "dashboards"
DASHBOARDS: Final[Mapping[str, Callable[[], Dashboard]]] = MappingProxyType(
    {"fleet": fleet.build, "org": org.build, "agent": agents.build}
)


def text(name: str) -> str:
    """Return a dashboard as the JSON that is committed and that Grafana reads."""
    return json.dumps(DASHBOARDS[name](), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def expressions(dashboard: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each expression of a dashboard's JSON after where it stands: panel or annotation."""
    return [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ] + [(mark["name"], mark["expr"]) for mark in dashboard["annotations"]["list"]]
