"""The dashboards: made by the code, on the grid, and asking only for what is there."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from conftest import require_program
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import grafana
from agent.metrics import CATALOGUE, Kind
from agent.policy.rule import Severity, Side
from agent.result import ClientAuth, Probe, SkipCause, Stage
from grafana import board, palette, promql

ROOT = Path(__file__).parent.parent
RULES = "\n".join(path.read_text() for path in sorted((ROOT / "prometheus/rules").glob("*.yml")))
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"

# What Prometheus says of each scrape, and prometheus_client of the process.
OTHERS = {
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
}
DATES = {"time:YYYY-MM-DD HH:mm", "time:YYYY-MM-DD", "dateTimeFromNow"}
UNITS = {"none", "short", "s", "percentunit", "opm", "bytes", "suffix:d"} | DATES
# Keys that Grafana's Prometheus data source reads and the SDK's annotation does not have.
UNKNOWN_TO_THE_SDK = {"titleFormat", "useValueForTime"}
VALUES = {
    "probe": set(Probe),
    "stage": set(Stage),
    "state": set(ClientAuth),
    "severity": set(Severity),
    "side": set(Side),
    "cause": set(SkipCause),
    "position": {"0"},
}
# In the place of Grafana's variables, something that Prometheus can read.
SUBSTITUTES = {"__rate_interval": "5m", "__interval": "5m", "__range": "6h"}

each_dashboard = pytest.mark.parametrize("name", grafana.DASHBOARDS)


def committed(name):
    return json.loads((grafana.FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def panels(name):
    return [panel for panel in committed(name)["panels"] if panel["type"] != "row"]


def all_expressions():
    return [
        (f"{name}: {where}", expression)
        for name in grafana.DASHBOARDS
        for where, expression in grafana.expressions(committed(name))
    ]


def overrides(panel):
    """Yield what each override changes: the name that it matches, and its properties."""
    for override in panel["fieldConfig"]["overrides"]:
        yield override["matcher"]["options"], {p["id"]: p["value"] for p in override["properties"]}


def columns(panel):
    """Return the fields that a table shows, by their titles."""
    (organize,) = (step for step in panel["transformations"] if step["id"] == "organize")
    return {title: field for field, title in organize["options"]["renameByName"].items()}


def expressions_with_units(panel) -> Iterator[tuple[str, str]]:
    """Yield the expression of each value that a panel shows, and the value's unit."""
    by_field = {f"Value #{target['refId']}": target["expr"] for target in panel["targets"]}
    if len(by_field) == 1:
        by_field = {"Value": panel["targets"][0]["expr"]}
    if panel["type"] == "table":
        own = dict(overrides(panel))
        for title, field in columns(panel).items():
            if field in by_field:
                # What is shown as words has no unit.
                words = "none" if "mappings" in own[title] else ""
                yield by_field[field], own[title].get("unit", words)
    elif panel["type"] == "heatmap":
        assert panel["options"]["yAxis"]["unit"] in UNITS
    else:
        for expression in by_field.values():
            yield expression, panel["fieldConfig"]["defaults"].get("unit", "")


def dropped(before, after, path=""):
    """Return the paths of what is in `before` and not the same in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            found
            for key in before.keys() | after.keys()
            for found in dropped(before.get(key), after.get(key), f"{path}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            found
            for index, (one, other) in enumerate(zip(before, after, strict=True))
            for found in dropped(one, other, f"{path}[{index}]")
        ]
    return [] if before == after else [path]


def through_the_sdk(dashboard):
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))


# --- the files


@each_dashboard
def test_the_committed_dashboard_is_what_the_code_makes(name):
    path = grafana.FOLDER / f"{name}.json"
    if UPDATE:
        path.write_text(grafana.text(name), encoding="utf-8")

    assert path.read_text(encoding="utf-8") == grafana.text(name)


def test_no_other_file_lies_among_the_dashboards():
    assert {path.stem for path in grafana.FOLDER.iterdir()} == set(grafana.DASHBOARDS)


@each_dashboard
def test_the_sdk_reads_every_key_but_those_that_it_lacks(name):
    lost = dropped(committed(name), through_the_sdk(committed(name)))

    assert {path.rpartition(".")[2] for path in lost} == UNKNOWN_TO_THE_SDK
    assert all(path.startswith(".annotations.list[") for path in lost)


def test_the_sdk_would_drop_a_key_that_is_misspelt():
    dashboard = committed("fleet")
    dashboard["panels"][0]["targets"][0]["exprr"] = "up"
    dashboard["panels"][0]["options"]["graphmode"] = "none"

    lost = dropped(dashboard, through_the_sdk(dashboard))

    assert {".panels[0].targets[0].exprr", ".panels[0].options.graphmode"} <= set(lost)


def test_provisioning_looks_where_the_readme_puts_the_dashboards():
    readme = (ROOT / "grafana/README.md").read_text()
    provider = (ROOT / "grafana/provisioning/dashboards/sfmtls.yml").read_text()
    (path,) = re.findall(r"^      path: (\S+)$", provider, re.MULTILINE)

    assert f"install -m 644 dashboards/*.json {path}/\n" in readme


def test_rates_reach_over_the_scrape_interval_that_the_example_has():
    source = (ROOT / "grafana/provisioning/datasources/sfmtls.yml").read_text()
    scrape = (ROOT / "prometheus/prometheus.example.yml").read_text()
    (interval,) = re.findall(r"^  scrape_interval: (\S+)$", scrape, re.MULTILINE)

    assert f"timeInterval: {interval}\n" in source


# --- the grid


@each_dashboard
def test_every_panel_is_on_the_grid_and_none_is_on_another(name):
    boxes = [panel["gridPos"] for panel in committed(name)["panels"]]

    assert all(box["x"] >= 0 and box["x"] + box["w"] <= 24 for box in boxes)
    for one, other in combinations(boxes, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_a_band_that_does_not_fill_the_grid_is_refused():
    with pytest.raises(ValueError, match="Too narrow: a band is 12 columns wide, not 24"):
        board.dashboard(
            "sfmtls-x",
            "Too narrow",
            "",
            since="now-1h",
            variables=(),
            annotations=(),
            links=(),
            parts=(board.Band(4, ((12, grafana.panels.tiles("A", "B")),)),),
        )


def test_the_addresses_of_the_dashboards_never_change():
    uids = {name: committed(name)["uid"] for name in grafana.DASHBOARDS}

    assert uids == {"fleet": "sfmtls-fleet", "org": "sfmtls-org", "agent": "sfmtls-agent"}


@each_dashboard
def test_every_panel_has_its_own_number_and_every_query_of_a_panel_its_own_letter(name):
    numbers = [panel["id"] for panel in committed(name)["panels"]]

    assert len(set(numbers)) == len(numbers)
    for panel in panels(name):
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(set(letters)) == len(letters)


# --- what a reader sees


@each_dashboard
def test_every_panel_says_what_it_shows_and_asks_the_chosen_datasource(name):
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    dashboard = committed(name)

    for panel in panels(name):
        assert panel["title"]
        assert re.fullmatch(r"[A-Z0-9].+\.", panel["description"]), panel["title"]
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
    queried = [v for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert all(asks["datasource"] == chosen for asks in queried + dashboard["annotations"]["list"])
    assert all(variable["description"] for variable in queried)


@each_dashboard
def test_units_are_grafana_s_and_dates_are_in_milliseconds(name):
    for panel in panels(name):
        for expression, unit in expressions_with_units(panel):
            if panel["type"] != "state-timeline":
                assert unit in UNITS, (panel["title"], unit)
            assert (unit in DATES) == ("* 1000" in expression), (panel["title"], expression)


@each_dashboard
def test_marks_that_are_dated_by_their_value_are_in_milliseconds(name):
    for mark in committed(name)["annotations"]["list"]:
        assert mark["useValueForTime"] == ("* 1000" in mark["expr"])
        assert mark["titleFormat"]


@each_dashboard
def test_tables_ask_once_and_are_sorted_and_the_others_do_not_merge(name):
    for panel in panels(name):
        is_table = panel["type"] == "table"
        over_time = panel["type"] in {"timeseries", "state-timeline", "heatmap"}
        for target in panel["targets"]:
            assert target["range"] is over_time
            assert target["instant"] is not over_time
            assert (target.get("format") == "table") is is_table
        steps = [step["id"] for step in panel.get("transformations", ())]
        merged = ["filterFieldsByName", "merge"] if len(panel["targets"]) > 1 else []
        tail = ["sortBy", "filterFieldsByName", "organize"]
        assert steps == (merged + tail if is_table else [])
        assert is_table == bool(
            panel["fieldConfig"]["defaults"].get("custom", {}).get("filterable")
        )


@each_dashboard
def test_a_table_is_sorted_by_a_field_that_its_queries_give(name):
    for panel in panels(name):
        if panel["type"] != "table":
            continue
        letters = [f"Value #{target['refId']}" for target in panel["targets"]]
        values = set(letters if len(letters) > 1 else ["Value"])
        (sort,) = next(s for s in panel["transformations"] if s["id"] == "sortBy")["options"][
            "sort"
        ]
        fields = set(columns(panel).values()) | {sort["field"]}
        assert {field for field in fields if field.startswith("Value")} <= values, panel["title"]
        by = {column["displayName"] for column in panel["options"].get("sortBy", ())}
        assert by <= columns(panel).keys()


@each_dashboard
def test_an_empty_cell_does_not_say_what_an_empty_table_says(name):
    for panel in panels(name):
        if panel["type"] == "table":
            own = dict(overrides(panel))
            assert panel["fieldConfig"]["defaults"]["noValue"].endswith(".")
            assert {title: own[title]["noValue"] for title in columns(panel)} == dict.fromkeys(
                columns(panel), "-"
            )


@pytest.mark.parametrize(
    ("colours", "members"),
    [
        (palette.STATES, ClientAuth),
        (palette.STAGES, Stage),
        (palette.PROBES, Probe),
        (palette.SEVERITIES, Severity),
    ],
)
def test_every_member_of_a_closed_set_has_a_colour_of_its_own(colours, members):
    assert set(colours) == set(members)
    assert len(set(colours.values())) == len(colours)


# --- links and variables


def links(name):
    """Yield every address of a dashboard, and the fields of the row that it stands in."""
    dashboard = committed(name)
    for link in dashboard["links"]:
        yield link["url"], set()
    for panel in panels(name):
        for _, properties in overrides(panel):
            for link in properties.get("links", ()):
                yield link["url"] + link["title"], set(columns(panel).values())


def variables(name):
    return {variable["name"] for variable in committed(name)["templating"]["list"]}


@each_dashboard
def test_a_link_uses_only_what_its_page_and_its_row_have_and_sets_only_what_the_other_has(name):
    by_uid = {committed(other)["uid"]: other for other in grafana.DASHBOARDS}
    found = list(links(name))

    assert found
    for url, fields in found:
        used = set(re.findall(r"\$\{(\w+)(?::\w+)?\}", url)) - {"__url_time_range"}
        assert used <= variables(name), url
        assert set(re.findall(r"\$\{__data\.fields\.(\w+)\}", url)) <= fields, url
        if target := re.match(r"/d/([\w-]+)\?", url):
            other = variables(by_uid[target[1]])
            passed = set(re.findall(r"var-(\w+)=", url)) | set(
                re.findall(r"\$\{(\w+):queryparam", url)
            )
            assert passed <= other, url
        else:
            assert url.startswith("${docs:raw}/"), url


@each_dashboard
def test_links_between_dashboards_keep_the_time_the_datasource_and_the_operator_s_labels(name):
    pages = committed(name)["links"]
    assert len(pages) == 2
    assert all(link["keepTime"] for link in pages)
    for url, fields in links(name):
        if url.startswith("/d/"):
            assert {"datasource", *promql.LABELS} <= set(re.findall(r"\$\{(\w+):queryparam", url))
            assert not fields or "${__url_time_range}" in url


def test_the_address_of_the_documentation_is_the_one_that_alerts_give():
    assert f"runbook_url: {board.DOCS}/runbooks/alerts/" in RULES
    assert f"{board.DOCS}/runbooks/reasons/" in RULES


def test_who_can_choose_several_gets_regular_expressions_and_who_chooses_one_an_equality():
    for name in grafana.DASHBOARDS:
        chosen = {v["name"]: v["multi"] for v in committed(name)["templating"]["list"]}
        for _, expression in grafana.expressions(committed(name)):
            for operator, variable in re.findall(r'(=~|=)"\$(\w+)"', expression):
                assert (operator == "=~") == chosen[variable], expression


def test_all_orgs_are_one_short_expression_and_all_jobs_are_those_of_agents():
    def everything(name):
        variables = committed(name)["templating"]["list"]
        return {v["name"]: v.get("allValue") for v in variables if v["includeAll"]}

    assert everything("fleet") == {"org": ".*", "team": ".*", "tier": ".*"}
    assert everything("agent") == {"job": None, "instance": None, "team": ".*", "tier": ".*"}


# --- expressions


def bare(expression):
    """Return the expression without what is quoted and without labels, so that names are left."""
    expression = re.sub(r'"[^"]*"', "", expression)
    expression = re.sub(r"\{[^}]*\}", "", expression)
    return re.sub(r"\b(by|on|group_left|without|ignoring)\s*\([^)]*\)", "", expression)


def names_in(expression):
    words = re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", bare(re.sub(r"\[[^\]]*\]", "", expression)))
    return {word for word in words if "_" in word or ":" in word or word == "up"}


def exported():
    names = set(CATALOGUE) | OTHERS | set(re.findall(r"- record: (\S+)", RULES))
    histograms = [name for name, family in CATALOGUE.items() if family.kind is Kind.HISTOGRAM]
    return names | {f"{name}_bucket" for name in histograms}


def test_every_metric_that_is_asked_for_is_exported_or_recorded():
    asked = {name for _, expression in all_expressions() for name in names_in(expression)}

    assert asked - exported() == set()
    # The test sees names of every kind, else it would prove nothing.
    assert {"up", "sfmtls_client_auth", "org:sfmtls_probe_errors:ratio_rate3d"} <= asked
    assert "sfmtls_scheduler_lag_seconds_bucket" in asked


def test_a_metric_that_nobody_exports_would_be_seen():
    assert names_in("sum by (org) (rate(sfmtls_probe_attempt_total[5m])) or vector(0)") == {
        "sfmtls_probe_attempt_total"
    }


def test_every_metric_of_the_catalogue_is_on_a_dashboard():
    asked = {name for _, expression in all_expressions() for name in names_in(expression)}
    shown = {name.removesuffix("_bucket") for name in asked}

    assert set(CATALOGUE) - shown == set()


def test_every_label_that_is_asked_for_exists_and_has_such_a_value():
    labels = {label for family in CATALOGUE.values() for label in family.labels}
    labels |= {"org", "job", "instance", "le", "finding", *promql.LABELS}
    for where, expression in all_expressions():
        listed = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", expression)
        used = {label for one in listed for label in one.split(", ") if label}
        matched = re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', expression)
        assert used | {label for label, _ in matched} <= labels, where
        for label, value in matched:
            if not value.startswith("$"):
                assert set(value.split("|")) <= VALUES[label], where
    for name in grafana.DASHBOARDS:
        for panel in panels(name):
            for target in panel["targets"]:
                assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels


def substituted(expression):
    return re.sub(r"\$(\w+)", lambda match: SUBSTITUTES.get(match[1], ".*"), expression)


def as_rules(expressions):
    rules = [
        {"record": f"x:{index}", "expr": expression} for index, expression in enumerate(expressions)
    ]
    # JSON is YAML.
    return json.dumps({"groups": [{"name": "dashboards", "rules": rules}]})


@pytest.mark.component
def test_prometheus_can_read_every_expression(tmp_path):
    promtool = require_program("promtool")
    rules = tmp_path / "rules.yml"
    rules.write_text(as_rules(substituted(expression) for _, expression in all_expressions()))

    checked = subprocess.run([promtool, "check", "rules", rules], capture_output=True, check=False)

    assert checked.returncode == 0, checked.stderr.decode()


@pytest.mark.component
def test_prometheus_would_refuse_an_expression_that_is_none(tmp_path):
    promtool = require_program("promtool")
    rules = tmp_path / "rules.yml"
    rules.write_text(as_rules(["sum by (org) (up"]))

    checked = subprocess.run([promtool, "check", "rules", rules], capture_output=True, check=False)

    assert checked.returncode != 0
    assert b"unclosed left parenthesis" in checked.stderr
