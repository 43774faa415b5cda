"""The agents themselves: whether they are punctual, what they leave out, what they cost."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import board, palette
from grafana.board import Band
from grafana.palette import BROKEN, WATCH, WELL, thresholds
from grafana.panels import (
    AGO,
    COUNT,
    EACH_MINUTE,
    SECONDS,
    SHARE,
    Column,
    Placeable,
    Query,
    graph,
    heat,
    rows,
    tiles,
)
from grafana.promql import inside, most

_THESE: Final = 'job=~"$job", instance=~"$instance"'


def _of(metric: str, more: str = "") -> str:
    return f"{metric}{{{_THESE}{more}}}"


def _each(expression: str) -> str:
    return inside(expression, "max by (job, instance) ")


# --- now


def _agents() -> Placeable:
    build = "max by (job, instance, version, python_version, openssl_version) "
    return rows(
        "Agents",
        "Each agent: whether it can be scraped, what it is, whether the configuration on disk is "
        "the one in use, whether it reaches any org, and how much it does. One that does not "
        "answer has only the first.",
        Query(_each(_of("up"))),
        Query(inside(_of("sfmtls_build_info"), build)),
        Query(_each(_of("sfmtls_config_last_reload_successful"))),
        Query(_each(f"{_of('sfmtls_config_last_reload_success_timestamp_seconds')} * 1000")),
        Query(inside(_of("sfmtls_org_info"), "count by (job, instance) ")),
        Query(_each(_of("scrape_samples_scraped"))),
        Query(_each(_of("scrape_duration_seconds"))),
        Query(_each(_of("sfmtls_agent_network_suspect"))),
        columns=(
            Column(field="instance", title="agent"),
            Column(field="job", title="job", width=130),
            Column(
                field="Value #A",
                title="scrape",
                width=90,
                mapping=palette.words({"0": ("down", BROKEN), "1": ("up", WELL)}),
            ),
            Column(field="version", title="version", width=100),
            Column(field="python_version", title="Python", width=90),
            Column(field="openssl_version", title="OpenSSL", width=220),
            Column(
                field="Value #C",
                title="configuration",
                width=140,
                mapping=palette.words({"0": ("refused", BROKEN), "1": ("in use", WELL)}),
            ),
            Column(
                field="Value #H",
                title="network",
                width=100,
                mapping=palette.words({"0": ("up", WELL), "1": ("suspect", BROKEN)}),
            ),
            Column(field="Value #D", title="read", unit=AGO, width=130),
            Column(field="Value #E", title="orgs", unit=COUNT, width=70),
            Column(field="Value #F", title="samples", unit=COUNT, width=100),
            Column(field="Value #G", title="scrape took", unit=SECONDS, decimals=0, width=125),
        ),
        sort="instance",
        nothing="No agent is scraped.",
    )


def _late() -> Placeable:
    return tiles(
        "Late, 99 %",
        "99 % of the cycles within the time range began no later than this after they were "
        "planned.",
        Query(f"histogram_quantile(0.99, {_lag('$__range')})"),
        unit=SECONDS,
        limits=thresholds(WELL, (1, WATCH), (15, BROKEN)),
    )


def _running() -> Placeable:
    return tiles(
        "In flight",
        "Cycles that run at this moment, over all chosen agents.",
        Query(inside(_of("sfmtls_probes_in_flight"), "sum")),
    )


def _stale() -> Placeable:
    run = _of("sfmtls_probe_last_run_timestamp_seconds", ', probe="handshake"')
    interval = "sfmtls_probe_interval_seconds"
    return tiles(
        "Orgs without a cycle",
        "Orgs that have had no cycle for three intervals: what is told of them is old.",
        Query(f"count(time() - {run} > 3 * {interval}) or vector(0)"),
        limits=thresholds(WELL, (1, BROKEN)),
    )


def _bugs() -> Placeable:
    return tiles(
        "Internal errors",
        "Bugs of the agent that were caught within the time range; the traceback is in its log.",
        Query(inside(f"increase({_of('sfmtls_internal_errors_total')}[$__range])", "sum")),
        decimals=0,
        limits=thresholds(WELL, (0.5, BROKEN)),
    )


# --- punctuality


def _lag(window: str) -> str:
    return inside(f"rate({_of('sfmtls_scheduler_lag_seconds_bucket')}[{window}])", "sum by (le) ")


def _lag_heat() -> Placeable:
    cycles = f"increase({_of('sfmtls_scheduler_lag_seconds_bucket')}[$__rate_interval])"
    return heat(
        "How late cycles began",
        "How many cycles began how much later than planned. A row that wanders up is an agent "
        "with too much to do, or a machine with too little time for it.",
        Query(inside(cycles, "sum by (le) "), "{{le}}"),
        unit=SECONDS,
    )


def _lag_quantiles() -> Placeable:
    lag = _lag("$__rate_interval")
    return graph(
        "How late cycles began, quantiles",
        "Half, 95 % and 99 % of the cycles began no later than this after they were planned.",
        *(
            Query(f"histogram_quantile({quantile}, {lag})", legend)
            for quantile, legend in ((0.5, "50 %"), (0.95, "95 %"), (0.99, "99 %"))
        ),
        unit=SECONDS,
        colours={"50 %": palette.SKY, "95 %": palette.BLUE, "99 %": palette.VERMILION},
        bridged=True,
        step="1m",
    )


def _in_flight() -> Placeable:
    return graph(
        "In flight",
        "Cycles that ran at the moment of the scrape. It grows when many hosts do not answer.",
        Query(_of("sfmtls_probes_in_flight"), "{{instance}}"),
    )


# --- work


def _rate(metric: str, by: str, more: str = "") -> str:
    # A minute, not a second: that is an org's usual interval, so one run a minute is one org.
    return inside(f"rate({_of(metric, more)}[$__rate_interval])", f"60 * sum by ({by}) ")


def _runs() -> Placeable:
    return graph(
        "Runs",
        "How many runs of each probe there are a minute.",
        Query(_rate("sfmtls_probe_attempts_total", "probe"), "{{probe}}"),
        unit=EACH_MINUTE,
        colours=palette.PROBES,
        step="1m",
    )


def _failures() -> Placeable:
    return graph(
        "Failures",
        "How many runs of each probe fail a minute.",
        Query(_rate("sfmtls_probe_failures_total", "probe"), "{{probe}}"),
        unit=EACH_MINUTE,
        colours=palette.PROBES,
        step="1m",
    )


def _skipped() -> Placeable:
    return graph(
        "Skipped",
        "How many runs are left out a minute, and why; those that were not due are not shown. "
        "overlap, no_time and state_unavailable are the agent's own troubles.",
        Query(_rate("sfmtls_probe_skipped_total", "cause", ', cause!="not_due"'), "{{cause}}"),
        unit=EACH_MINUTE,
        step="1m",
    )


# --- troubles


def _errors() -> Placeable:
    errors = f"increase({_of('sfmtls_internal_errors_total')}[$__interval])"
    return graph(
        "Internal errors",
        "Bugs of the agent that were caught, by the part that had them.",
        Query(inside(errors, "sum by (component) "), "{{component}}"),
        bars=True,
        step="5m",
    )


def _identities() -> Placeable:
    failed = f"increase({_of('sfmtls_identity_reload_failures_total')}[$__range]) > 0.5"
    return rows(
        "Identity reloads that failed",
        "Orgs whose changed certificate or key could not be used within the time range, and how "
        "often; the old pair stays in use, but a restart would have none. At most 50.",
        Query(most(50, failed)),
        columns=(
            Column(field="org", title="org", link=board.TO_ORG),
            Column(field="Value", title="times", unit=COUNT, decimals=0, width=80),
            Column(field="instance", title="agent"),
        ),
        sort="Value",
        descending=True,
        nothing="No reload failed.",
    )


# --- what it costs


def _scrape_time() -> Placeable:
    return graph(
        "Scrape",
        "How long Prometheus took to fetch the metrics.",
        Query(_of("scrape_duration_seconds"), "{{instance}}"),
        unit=SECONDS,
    )


def _scrape_size() -> Placeable:
    orgs = inside(_of("sfmtls_org_info"), "count by (job, instance) ")
    return graph(
        "Samples for each org",
        "How many samples a scrape has for each org of the agent; an org with login and two "
        "chains of three certificates has about 70.",
        Query(f"{_each(_of('scrape_samples_scraped'))} / {orgs}", "{{instance}}"),
    )


def _processor() -> Placeable:
    return graph(
        "CPU",
        "How much of one processor core the agent uses.",
        Query(f"rate({_of('process_cpu_seconds_total')}[$__rate_interval])", "{{instance}}"),
        unit=SHARE,
    )


def _memory() -> Placeable:
    return graph(
        "Memory",
        "Resident memory of the agent. It must not grow while the number of orgs does not.",
        Query(_of("process_resident_memory_bytes"), "{{instance}}"),
        unit="bytes",
    )


def build() -> Dashboard:
    """Return the dashboard of the agents."""
    read = _of("sfmtls_config_last_reload_success_timestamp_seconds")
    return board.dashboard(
        board.AGENT,
        "Salesforce mutual TLS: agents",
        "The agents themselves: whether they are punctual, what they leave out, what they cost.",
        since="now-6h",
        variables=(
            board.datasource(),
            board.several(
                "job",
                "job",
                "The scrape jobs of the agents.",
                "label_values(sfmtls_build_info, job)",
                # Else "All" would be every job, since `up` tells of all of them.
                everything=None,
            ),
            board.several(
                "instance",
                "agent",
                "The agents to look at.",
                'label_values(sfmtls_build_info{job=~"$job"}, instance)',
                everything=None,
            ),
            *board.operator_labels(hidden=True),
            board.docs(),
        ),
        annotations=(
            board.at_its_value(
                "Configuration read",
                f"{read} * 1000",
                "configuration read: {{instance}}",
                palette.SKY,
            ),
        ),
        links=(board.to_fleet(), board.to_org()),
        parts=(
            Band(6, ((24, _agents()),)),
            Band(4, ((6, _late()), (6, _running()), (6, _stale()), (6, _bugs()))),
            "Punctuality",
            Band(9, ((10, _lag_heat()), (7, _lag_quantiles()), (7, _in_flight()))),
            "Work",
            Band(8, ((8, _runs()), (8, _failures()), (8, _skipped()))),
            "Troubles",
            Band(8, ((12, _errors()), (12, _identities()))),
            "Cost",
            Band(8, ((6, _scrape_time()), (6, _scrape_size()), (6, _processor()), (6, _memory()))),
        ),
    )
