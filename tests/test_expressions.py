"""Every expression of rules and dashboards, run by the real Prometheus on two hours of data.

The data are `two_hours`: whatever can be shown or alerted on is in there, and one healthy org.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
import two_hours
from conftest import require_program
from monitoring import RULES, Api, prometheus
from two_hours import DEAD, END, START, STRANGER, TROUBLED, TROUBLES

from agent.metrics import CATALOGUE

pytestmark = [
    pytest.mark.component,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

DASHBOARDS = sorted((Path(__file__).parent.parent / "grafana" / "dashboards").glob("*.json"))
STEP = 60.0 * two_hours.SCRAPED_EVERY
# What Grafana puts in for its own variables, at a scrape every two minutes.
GRAFANA = {"__rate_interval": "8m", "__interval": "2m", "__range": "2h"}
LABELS = {label for family in CATALOGUE.values() for label in family.labels} | {
    "__name__",
    "job",
    "instance",
    "org",
    "le",
    "team",
    "tier",
}
# What is larger, in seconds, is a moment: nothing else here grows so large.
ELEVEN_YEARS = 11 * 365 * 86400
OF_AN_AGENT = {
    "SfmtlsAgentAbsent": {STRANGER},
    "SfmtlsAgentDown": {DEAD},
    "SfmtlsAgentNetworkSuspect": {TROUBLED},
    "SfmtlsConfigReloadFailed": {TROUBLED},
    "SfmtlsInternalErrors": {TROUBLED},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory):
    """Start Prometheus on the two hours, with what the recording rules make of them."""
    require_program("prometheus")
    promtool = require_program("promtool")
    folder = tmp_path_factory.mktemp("two-hours")
    data = folder / "data"
    rules = sorted(map(str, RULES.glob("*.yml")))
    configuration = json.dumps({"rule_files": rules})

    def backfill(*arguments):
        command = [promtool, "tsdb", "create-blocks-from", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    (folder / "two-hours.txt").write_text(two_hours.text())
    backfill("openmetrics", folder / "two-hours.txt", data)
    # The data are older than what Prometheus keeps by default.
    database = await prometheus(folder, configuration, retention="100y")
    try:
        span = (f"--start={START.timestamp():.0f}", f"--end={END.timestamp():.0f}")
        how = (f"--url={database.url}", f"--output-dir={data}", f"--eval-interval={STEP:.0f}s")
        await asyncio.to_thread(backfill, "rules", *span, *how, *rules)
    finally:
        await database.stop()
    async with AsyncExitStack() as stack:
        database = await prometheus(folder, configuration, retention="100y")
        stack.push_async_callback(database.stop)
        yield await stack.enter_async_context(Api(database))


async def at_the_end(api, expression):
    return await api.instant(expression, END.timestamp())


async def throughout(api, expression):
    return await api.over(expression, START.timestamp(), END.timestamp(), STEP)


async def rules_of(api, kind):
    groups = (await api.get("/rules", type=kind))["groups"]
    return [rule for group in groups for rule in group["rules"]]


# --- rules


async def test_every_recording_rule_has_recorded_numbers(api):
    recorded = {rule["name"] for rule in await rules_of(api, "record")}
    assert recorded
    for name in sorted(recorded):
        over = await throughout(api, name)
        last = await at_the_end(api, name)
        assert last, name
        assert numbers(over), name
        assert all(sample.labels.keys() <= LABELS for sample in last), name
        if "ratio" in name:
            assert all(0 <= value <= 1 for sample in over for _, value in sample.values), name
            assert {sample.value for sample in last if sample.labels["org"] == "healthy"} == {0}


async def test_every_alert_finds_its_orgs_and_no_other(api):
    expected = {
        alert: {name for name, wrong in TROUBLES.items() if alert in wrong.alerts}
        for wrong in TROUBLES.values()
        for alert in wrong.alerts
    }
    found = {}
    for rule in await rules_of(api, "alert"):
        answer = await at_the_end(api, rule["query"])
        assert numbers(answer), rule["name"]
        about = "instance" if rule["name"] in OF_AN_AGENT else "org"
        found.setdefault(rule["name"], set()).update(s.labels.get(about) for s in answer)
        assert all(sample.labels.keys() <= LABELS for sample in answer), rule["name"]

    assert found == expected | OF_AN_AGENT | {"SfmtlsWatchdog": {None}}


async def test_when_nothing_is_scraped_the_agent_is_absent(api):
    rules = {rule["name"]: rule["query"] for rule in await rules_of(api, "alert")}
    later = (END + timedelta(hours=1)).timestamp()

    assert [s.labels for s in await api.instant(rules["SfmtlsAgentAbsent"], later)] == [{}]
    assert await api.instant(rules["SfmtlsAgentDown"], later) == []


def numbers(samples):
    """Tell whether there are values, each of them a number."""
    values = [value for sample in samples for _, value in sample.values]
    return bool(values) and all(map(math.isfinite, values))


# --- dashboards


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
async def test_everything_on_a_dashboard_shows_something_sensible(api, file):
    dashboard = json.loads(file.read_text())
    chosen = await choices(api, dashboard)
    complaints = []
    for panel in dashboard["panels"]:
        answers = {
            target["refId"]: await shown(api, target, chosen) for target in panel.get("targets", ())
        }
        for target in panel.get("targets", ()):
            wrong = held_against(target, answers[target["refId"]])
            complaints += [f"{panel['title']}, {target['refId']}: {what}" for what in wrong]
        complaints += [f"{panel['title']}: {what}" for what in held_against_all(panel, answers)]
    for mark in dashboard["annotations"]["list"]:
        wrong = held_against(mark, await shown(api, mark, chosen))
        complaints += [f"annotation {mark['name']}: {what}" for what in wrong]

    assert complaints == []


async def choices(api, dashboard):
    """Return what the variables may be: all where that can be chosen, else each value in turn."""
    found = [{}]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = [
                values | {variable["name"]: value}
                for values in found
                for value in await values_of(api, variable, values)
            ]
    return found


async def values_of(api, variable, chosen):
    query = variable["query"]["query"]
    series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
    values = await api.get(
        f"/label/{label}/values",
        **{"match[]": filled_in(series, chosen)},
        start=START.timestamp(),
        end=END.timestamp(),
    )
    assert values, f"there is nothing to choose from for {variable['name']}"
    if variable.get("includeAll"):
        return [variable.get("allValue") or f"({'|'.join(values)})"]
    return values


def filled_in(expression, values):
    """Return the expression as Grafana would send it."""
    known = GRAFANA | values
    return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda found: known[found[1]], expression)


async def shown(api, target, chosen):
    """Return what is shown, for the first choice for which there is more than nothing or 0."""
    samples = []
    for values in chosen:
        expression = filled_in(target["expr"], values)
        if target.get("instant"):
            samples = await at_the_end(api, expression) or samples
        else:
            samples = await throughout(api, expression) or samples
        if any(value for sample in samples for _, value in sample.values):
            break
    return samples


def held_against(target, samples):
    """Yield what is wrong with one answer."""
    if not numbers(samples):
        yield "there is nothing, or it is no number"
    elif not any(value for sample in samples for _, value in sample.values):
        yield "all of it is 0, although the data have what is asked for"
    made = set(re.findall(r'"(\w+)", "[^"]*", "[^"]*", "[^"]*"', target["expr"]))
    strange = {label for sample in samples for label in sample.labels} - LABELS - made
    if strange:
        yield f"nobody knows the labels {strange}"
    legend = target.get("legendFormat") or target.get("titleFormat") or ""
    for label in re.findall(r"{{ *(\w+) *}}", legend):
        if not all(label in sample.labels for sample in samples):
            yield f"not every series has {label}, as the legend has"


def held_against_all(panel, answers):
    """Yield what is wrong with a panel's answers as it treats them."""
    samples = [sample for answer in answers.values() for sample in answer]
    labels = {label for sample in samples for label in sample.labels}
    values = ["Value", *(f"Value #{name}" for name in answers)]
    for transformation in panel.get("transformations", ()):
        columns = transformation["options"].get("include", {}).get("names", [])
        if missing := set(columns) - labels - set(values):
            yield f"no answer has the columns {missing}"
    moments = [value for sample in samples for _, value in sample.values if value > ELEVEN_YEARS]
    if any(value < 1000 * ELEVEN_YEARS for value in moments):
        yield "moments are in seconds, but Grafana's units want milliseconds"
    dated = re.search('"(dateTime|time:)', json.dumps(panel.get("fieldConfig", {})))
    if bool(moments) is not bool(dated):
        yield "what is a moment and what has the unit of one differ"
