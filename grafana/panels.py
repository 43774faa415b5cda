"""Panels as they are on all three dashboards: what they show is passed in, how is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import common as make
from grafana_foundation_sdk.builders import heatmap, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    ValueMap,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

from grafana.palette import PLAIN, TEXT, UNKNOWN, thresholds

DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")

# Units of Grafana, and one that its own "d" is not: that one turns 47 days into 6.71 weeks.
DAYS: Final = "suffix:d"
# To the minute, which Grafana's own "dateTimeAsIso" is not: columns are narrow.
DATE: Final = "time:YYYY-MM-DD HH:mm"
DAY: Final = "time:YYYY-MM-DD"
AGO: Final = "dateTimeFromNow"
SECONDS: Final = "s"
SHARE: Final = "percentunit"
COUNT: Final = "none"
EACH_MINUTE: Final = "opm"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and what its series are called; in a table they have no name."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """Where a cell leads to."""

    title: str
    url: str
    new_tab: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table: the label or value that it shows, and how."""

    field: str
    title: str
    unit: str | None = None
    decimals: int | None = None
    width: int | None = None
    limits: ThresholdsConfig | None = None
    mapping: ValueMap | None = None
    link: Link | None = None

    def properties(self) -> list[DynamicConfigValue]:
        """Return the overrides that this column needs."""
        made: dict[str, object] = {
            # Else an empty cell says what an empty table says.
            "noValue": "-",
            "unit": self.unit,
            "decimals": self.decimals,
            "custom.width": self.width,
        }
        if self.limits is not None:
            made["thresholds"] = self.limits.build()
        if self.mapping is not None:
            made["mappings"] = [self.mapping]
        if self.limits is not None or self._is_coloured():
            made["custom.cellOptions"] = common.TableColoredBackgroundCellOptions(
                mode=common.TableCellBackgroundDisplayMode.BASIC
            )
        if self.link is not None:
            # A link of a field, unlike one of a dashboard, has these three keys only.
            link = {"title": self.link.title, "url": self.link.url}
            made["links"] = [link | {"targetBlank": self.link.new_tab}]
        return [DynamicConfigValue(key, value) for key, value in made.items() if value is not None]

    def _is_coloured(self) -> bool:
        return self.mapping is not None and any(
            result.color is not None for result in self.mapping.options.values()
        )


# What a dashboard can hold, not yet placed.
Placeable: TypeAlias = (
    stat.Panel | timeseries.Panel | statetimeline.Panel | heatmap.Panel | table.Panel
)


def tiles(
    title: str,
    description: str,
    *queries: Query,
    unit: str = COUNT,
    decimals: int | None = None,
    limits: ThresholdsConfig | None = None,
    series: Mapping[str, ThresholdsConfig] | None = None,
    mapping: ValueMap | None = None,
    names: bool = False,
    nothing: str = "-",
) -> Placeable:
    """Return one tile for each series, with its value now, or its name if that is what it tells.

    `limits` colour all of them, `series` those of a name; `nothing` stands where there is none.
    """
    filled = bool(limits or series or mapping)
    panel = (
        stat.Panel()
        .unit(unit)
        .no_value(nothing)
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(limits or thresholds(PLAIN if filled else TEXT))
        .reduce_options(make.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(
            common.BigValueColorMode.BACKGROUND_SOLID if filled else common.BigValueColorMode.VALUE
        )
        .text_mode(common.BigValueTextMode.NAME if names else common.BigValueTextMode.AUTO)
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    if mapping is not None:
        panel = panel.mappings([mapping])
    for name, own in (series or {}).items():
        panel = panel.override_by_name(name, [DynamicConfigValue("thresholds", own.build())])
    return _described(panel, title, description, [_now(query) for query in queries])


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str = COUNT,
    colours: Mapping[str, str] | None = None,
    stacked: bool = False,
    bars: bool = False,
    bridged: bool = False,
    limits: ThresholdsConfig | None = None,
    least: float | None = 0,
    most: float | None = None,
    step: str | None = None,
    points: int | None = None,
    nothing: str | None = None,
) -> Placeable:
    """Return series over time: lines, or areas on each other, or bars.

    Lines that are `bridged` go on over gaps; `limits` are lines too; the axis begins at `least`;
    `step` and `points` keep resolution, and with it the work of Prometheus, down; `nothing` is
    what an empty graph says.
    """
    panel = (
        timeseries.Panel()
        .unit(unit)
        # By name would keep a series' colour, but gives three agents the same white.
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .line_interpolation(
            common.LineInterpolation.STEP_AFTER if stacked else common.LineInterpolation.LINEAR
        )
        .line_width(1)
        .fill_opacity(70 if stacked or bars else 0)
        .show_points(common.VisibilityMode.AUTO)
        .span_nulls(bridged)
        .stacking(
            make.StackingConfig()
            .group("A")
            .mode(common.StackingMode.NORMAL if stacked or bars else common.StackingMode.NONE)
        )
        .legend(
            make.VizLegendOptions()
            .show_legend(show_legend=True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(
            make.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    if least is not None:
        panel = panel.min(least)
    if most is not None:
        panel = panel.max(most)
    if step is not None:
        panel = panel.interval(step)
    if points is not None:
        panel = panel.max_data_points(points)
    if nothing is not None:
        panel = panel.no_value(nothing)
    if limits is not None:
        panel = panel.thresholds(limits).thresholds_style(
            make.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    for name, colour in (colours or {}).items():
        panel = panel.override_by_name(name, [_fixed(colour)])
    return _described(panel, title, description, [_over_time(query) for query in queries])


def timeline(
    title: str,
    description: str,
    *queries: Query,
    mapping: ValueMap,
    series: Mapping[str, ValueMap] | None = None,
) -> Placeable:
    """Return one row for each series, with what it was when; `series` are read in their own way."""
    panel = (
        statetimeline.Panel()
        .mappings([mapping])
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds(UNKNOWN))
        .merge_values(merge_values=True)
        .show_value(common.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(85)
        .line_width(0)
        .legend(
            make.VizLegendOptions()
            .show_legend(show_legend=False)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
    )
    for name, own in (series or {}).items():
        panel = panel.override_by_name(name, [DynamicConfigValue("mappings", [own])])
    return _described(panel, title, description, [_over_time(query) for query in queries])


def heat(title: str, description: str, query: Query, *, unit: str) -> Placeable:
    """Return the buckets of a histogram over time; the legend must be `{{le}}`."""
    panel = (
        heatmap.Panel()
        .calculate(calculate=False)
        .cell_gap(1)
        .scale_distribution(make.ScaleDistributionConfig().type(common.ScaleDistribution.LINEAR))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme("Cividis")
            .steps(64)
            .exponent(0.5)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common.AxisPlacement.LEFT))
        .cell_values(heatmap.CellValues().unit(COUNT))
        .show_legend()
        .mode(common.TooltipDisplayMode.SINGLE)
    )
    target = _over_time(query).format(PromQueryFormat.HEATMAP)
    return _described(panel, title, description, [target])


def rows(
    title: str,
    description: str,
    *queries: Query,
    columns: Sequence[Column],
    sort: str,
    descending: bool = False,
    by: Sequence[str] = (),
    nothing: str,
) -> Placeable:
    """Return a table of what is now; rows of several queries are merged where their labels agree.

    It is sorted by the field `sort`, shown or not, or `by` several columns' titles. A value's field
    is "Value", or "Value #A" and so on where there are several queries. `nothing` is what an empty
    table says.
    """
    fields = [column.field for column in columns]
    steps: list[tuple[str, object]] = []
    if len(queries) > 1:
        steps = [
            # Rows merge where all that the queries share is the same, and each has its own name.
            ("filterFieldsByName", {"exclude": {"names": ["__name__"]}}),
            ("merge", {}),
        ]
    steps += [
        ("sortBy", {"fields": {}, "sort": [{"field": sort, "desc": descending}]}),
        # By name, since a target may have labels that nobody here knows of.
        ("filterFieldsByName", {"include": {"names": fields}}),
        (
            "organize",
            {
                "excludeByName": {},
                "indexByName": {field: index for index, field in enumerate(fields)},
                "renameByName": {column.field: column.title for column in columns},
            },
        ),
    ]
    panel = (
        table.Panel()
        .show_header(show_header=True)
        .cell_height(common.TableCellHeight.SM)
        .filterable(filterable=True)
        # A column without a width has at least 150 pixels else, and pushes others out of sight.
        .min_width(90)
        .no_value(nothing)
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds(PLAIN))
        .transformations(
            [DataTransformerConfig(id_val=name, options=options) for name, options in steps]
        )
    )
    if by:
        panel = panel.sort_by([make.TableSortByFieldState().display_name(title) for title in by])
    for column in columns:
        panel = panel.override_by_name(column.title, column.properties())
    targets = [_now(query).format(PromQueryFormat.TABLE) for query in queries]
    return _described(panel, title, description, targets)


def _now(query: Query) -> Dataquery:
    return _query(query).instant()


def _over_time(query: Query) -> Dataquery:
    return _query(query).range()


def _query(query: Query) -> Dataquery:
    target = Dataquery().expr(query.expression).editor_mode(QueryEditorMode.CODE)
    return target.legend_format(query.legend).datasource(DATASOURCE)


def _fixed(colour: str) -> DynamicConfigValue:
    return DynamicConfigValue(
        "color", FieldColor().mode(FieldColorModeId.FIXED).fixed_color(colour).build()
    )


def _described(
    panel: Placeable, title: str, description: str, targets: Sequence[Dataquery]
) -> Placeable:
    panel = panel.title(title).description(description).datasource(DATASOURCE)
    for index, target in enumerate(targets):
        panel = panel.with_target(target.ref_id(chr(ord("A") + index)))
    return panel
