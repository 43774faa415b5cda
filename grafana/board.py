"""What a dashboard is besides its panels: the grid, the variables, the links, the annotations.

Links between dashboards keep the time range and what the variables choose. Every address is either
relative to Grafana or under the variable `docs`, which who keeps runbooks elsewhere sets once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders.dashboard import (
    ConstantVariable,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    VariableHide,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.dashboard import Dashboard as Built

from grafana.panels import DATASOURCE, Link, Placeable
from grafana.promql import LABELS

FLEET: Final = "sfmtls-fleet"
ORG: Final = "sfmtls-org"
AGENT: Final = "sfmtls-agent"

DOCS: Final = "https://github.com/sfmtls-agent/sfmtls-agent/blob/main/docs"
COLUMNS: Final = 24

# --- variables


def datasource() -> Builder[VariableModel]:
    """Return the choice of the Prometheus that is asked."""
    return (
        DatasourceVariable("datasource")
        .label("Prometheus")
        .description("The Prometheus that scrapes the agents.")
        .type("prometheus")
    )


def docs() -> Builder[VariableModel]:
    """Return the hidden constant with the address of rules and runbooks."""
    return ConstantVariable("docs").value(DOCS)


def several(
    name: str, label: str, description: str, values: str, *, everything: str | None = ".*"
) -> QueryVariable:
    """Return a choice of any number of the label's values, at first all of them.

    `everything` is the regular expression for all. It matches what has no such label too, and
    stays short for thousands of values; None is for the list of those that there are.
    """
    variable = (
        one(name, label, description, values)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return variable if everything is None else variable.all_value(everything)


def operator_labels(*, hidden: bool = False) -> list[Builder[VariableModel]]:
    """Return the choices by the operator's own labels; hidden ones are only passed on by links."""
    return [
        several(
            name,
            name,
            f"The orgs' label `{name}` in the agent's configuration; All has those without it.",
            f"label_values(sfmtls_org_info, {name})",
        ).hide(VariableHide.HIDE_VARIABLE if hidden else VariableHide.DONT_HIDE)
        for name in LABELS
    ]


def one(name: str, label: str, description: str, values: str) -> QueryVariable:
    """Return a choice of one of the label's values."""
    query = {"qryType": 1, "query": values, "refId": f"variable-{name}"}
    return (
        QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )


# --- links

_KEPT: Final = "&".join(f"${{{name}:queryparam}}" for name in ("datasource", *LABELS))

TO_ORG: Final = Link(
    "Org ${__data.fields.org}",
    f"/d/{ORG}?${{__url_time_range}}&{_KEPT}"
    "&var-org=${__data.fields.org}&var-instance=${__data.fields.instance}",
)
TO_AGENT: Final = Link(
    "Agent ${__data.fields.instance}",
    f"/d/{AGENT}?${{__url_time_range}}&{_KEPT}&var-instance=${{__data.fields.instance}}",
)
TO_REASON: Final = Link(
    "What ${__data.fields.reason} means and what to do",
    "${docs:raw}/runbooks/reasons/${__data.fields.reason}.md",
    new_tab=True,
)
TO_BREAKER: Final = Link(
    "What an open breaker means and what to do",
    "${docs:raw}/runbooks/alerts/SfmtlsLoginBreakerOpen.md",
    new_tab=True,
)
TO_RULE: Final = Link(
    "What ${__data.fields.rule} means and what to do",
    "${docs:raw}/rules.md#${__data.fields.rule}",
    new_tab=True,
)


def _to(uid: str, title: str, *variables: str) -> DashboardLink:
    kept = "&".join([_KEPT, *(f"${{{name}:queryparam}}" for name in variables)])
    return (
        DashboardLink(title)
        .type(DashboardLinkType.LINK)
        .icon("dashboard")
        .url(f"/d/{uid}?{kept}")
        .keep_time(keep_time=True)
    )


# --- annotations


class _PrometheusAnnotation(AnnotationQuery, Builder[AnnotationQuery]):
    """An annotation with the keys that Grafana's Prometheus data source reads and the SDK lacks."""

    def __init__(
        self, name: str, expression: str, title: str, colour: str, *, enabled: bool, dated: bool
    ) -> None:
        super().__init__(
            name=name, datasource=DATASOURCE, enable=enabled, icon_color=colour, expr=expression
        )
        self._title = title
        self._dated = dated

    def build(self) -> AnnotationQuery:
        return self

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {"titleFormat": self._title, "useValueForTime": self._dated}


def when_true(
    name: str, expression: str, title: str, colour: str, *, enabled: bool = True
) -> Builder[AnnotationQuery]:
    """Return marks wherever the expression is above 0; `title` may quote labels as a legend may."""
    return _PrometheusAnnotation(name, expression, title, colour, enabled=enabled, dated=False)


def at_its_value(name: str, expression: str, title: str, colour: str) -> Builder[AnnotationQuery]:
    """Return marks at the times, in milliseconds, that the expression's values are."""
    return _PrometheusAnnotation(name, expression, title, colour, enabled=True, dated=True)


# --- the grid


@dataclass(frozen=True, slots=True)
class Band:
    """Panels side by side, all of one height, each after its width; together they fill the grid."""

    height: int
    panels: Sequence[tuple[int, Placeable]]


def dashboard(
    uid: str,
    title: str,
    description: str,
    *,
    since: str,
    variables: Iterable[Builder[VariableModel]],
    annotations: Iterable[Builder[AnnotationQuery]],
    links: Iterable[DashboardLink],
    parts: Iterable[str | Band],
) -> Built:
    """Return the whole; a text among the parts is the heading of what follows it.

    ValueError when the panels of a band do not fill the grid exactly.
    """
    board = (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["sfmtls"])
        .timezone("browser")
        .time(since, "now")
        .refresh("1m")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables(list(variables))
        .annotations(list(annotations))
        .links(list(links))
    )
    # The SDK's own layout does not wrap: a panel that is too wide is put outside the grid.
    number, y = 1, 0
    for part in parts:
        if isinstance(part, str):
            position = GridPos(h=1, w=COLUMNS, x=0, y=y)
            board = board.with_row(Row(part).id(number).grid_pos(position))
            number, y = number + 1, y + 1
            continue
        if (width := sum(width for width, _ in part.panels)) != COLUMNS:
            raise ValueError(f"{title}: a band is {width} columns wide, not {COLUMNS}")
        x = 0
        for width, panel in part.panels:
            position = GridPos(h=part.height, w=width, x=x, y=y)
            board = board.with_panel(panel.id(number).grid_pos(position))
            number, x = number + 1, x + width
        y += part.height
    return board.build()


def to_fleet() -> DashboardLink:
    """Return the link to the fleet."""
    return _to(FLEET, "Fleet")


def to_org() -> DashboardLink:
    """Return the link to whichever org comes first."""
    return _to(ORG, "Org")


def to_agent(*variables: str) -> DashboardLink:
    """Return the link to the agents; `variables` are more of them to keep."""
    return _to(AGENT, "Agent", *variables)
