"""One org, as one agent sees it: what happened when, its certificates, its findings, its limits."""

from __future__ import annotations

from textwrap import indent
from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from agent.policy.rule import Severity
from agent.result import ClientAuth
from grafana import board, palette
from grafana.board import TO_REASON, TO_RULE, Band
from grafana.palette import BROKEN, PLAIN, WATCH, WELL, thresholds
from grafana.panels import (
    AGO,
    COUNT,
    DATE,
    DAY,
    DAYS,
    SECONDS,
    SHARE,
    Column,
    Placeable,
    Query,
    graph,
    rows,
    tiles,
    timeline,
)
from grafana.promql import inside, last_success

# One agent's view: two agents may see different things, and do not mix.
_THIS: Final = 'org="$org", instance="$instance"'
_RECORDED: Final = "Recorded by prometheus/rules/recording.yml."


def _of(metric: str, **labels: str) -> str:
    more = "".join(f', {name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{_THIS}{more}}}"


# --- now


def _door() -> Placeable:
    return tiles(
        "Door",
        "The verdict on our certificate in the last cycle. Only accepted is open.",
        Query(f"{_of('sfmtls_client_auth')} == 1", "{{state}}"),
        series={state: thresholds(colour) for state, colour in palette.STATES.items()},
        names=True,
        nothing="no cycle yet",
    )


def _alert() -> Placeable:
    return tiles(
        "TLS alert",
        "The alert that the server sent in the last cycle, by its name in RFC 8446.",
        Query(_of("sfmtls_tls_alert_info"), "{{alert}}"),
        limits=thresholds(BROKEN),
        names=True,
        nothing="none",
    )


def _tls() -> Placeable:
    return tiles(
        "TLS",
        "Version and cipher suite of the last handshake that negotiated them.",
        Query(_of("sfmtls_tls_info"), "{{version}} {{cipher_suite}}"),
        names=True,
        nothing="no handshake yet",
    )


def _days(title: str, side: str, *steps: tuple[float, str]) -> Placeable:
    return tiles(
        title,
        "Days until the first certificate of the chain that was seen last expires, then "
        "negative. The colours change where the alerts begin.",
        Query(_of("sfmtls_certificate_expiry_days", side=side)),
        unit=DAYS,
        decimals=1,
        limits=thresholds(BROKEN, *steps),
        nothing="not seen yet",
    )


def _last_cycle() -> Placeable:
    began = _of("sfmtls_probe_last_run_timestamp_seconds", probe="handshake")
    return tiles(
        "Last cycle",
        "When the last cycle began. Everything else here is as of then.",
        Query(f"{began} * 1000"),
        unit=AGO,
        nothing="never",
    )


def _maintenance() -> Placeable:
    return tiles(
        "Maintenance",
        "Whether the org is known to be down for maintenance.",
        Query(_of("sfmtls_maintenance")),
        mapping=palette.words({"0": ("no", PLAIN), "1": ("yes", palette.SKY)}),
    )


def _breaker() -> Placeable:
    return tiles(
        "Login breaker",
        "Open: the agent logs in no more, lest it lock the user out. Correct the secret, or find "
        "the cause and reset it; do not try by hand.",
        Query(_of("sfmtls_login_breaker_open")),
        mapping=palette.words({"0": ("closed", WELL), "1": ("open", BROKEN)}),
        nothing="no login",
    )


def _logins_left() -> Placeable:
    return tiles(
        "Logins left",
        "What is left of the budget of this user in the current hour.",
        Query(_of("sfmtls_login_budget_remaining")),
        limits=thresholds(BROKEN, (1, WATCH), (3, WELL)),
        nothing="no login",
    )


def _api() -> Placeable:
    return tiles(
        "API requests used",
        "Share of the API requests that the org may use in its window, by all its integrations. "
        "Above 80 % there is an alert.",
        Query(f"{_of('sfmtls_api_requests_used')} / ({_of('sfmtls_api_requests_limit')} > 0)"),
        unit=SHARE,
        decimals=1,
        limits=thresholds(WELL, (0.6, WATCH), (0.8, BROKEN)),
        nothing="no session yet",
    )


def _findings_now() -> Placeable:
    return tiles(
        "Findings",
        "How many violations of rules were found, each certificate counted.",
        # One query for each: Prometheus would put info before warning.
        *(
            Query(_of("sfmtls_policy_violations", severity=severity), severity)
            for severity in palette.SEVERITIES
        ),
        series={
            severity: thresholds(PLAIN, (1, colour))
            for severity, colour in palette.SEVERITIES.items()
        },
    )


def _availability() -> Placeable:
    return tiles(
        "Availability, 3 days",
        f"Share of runs that succeeded. {_RECORDED}",
        Query(f"1 - {_of('org:sfmtls_probe_errors:ratio_rate3d')}", "{{probe}}"),
        unit=SHARE,
        decimals=2,
    )


def _budget() -> Placeable:
    errors = _of("org:sfmtls_probe_errors:ratio_rate3d")
    return tiles(
        "Error budget left, 3 days",
        "How much of the failures that the objective allows is left; below 0 the objective is "
        f"missed. {_RECORDED}",
        Query(
            f"1 - {errors} / on (probe) group_left () (1 - sfmtls:availability:objective)",
            "{{probe}}",
        ),
        unit=SHARE,
        decimals=0,
        limits=thresholds(BROKEN, (0, WATCH), (0.5, WELL)),
    )


# --- what happened


def _verdicts() -> Placeable:
    numbered = {str(number): state for number, state in enumerate(ClientAuth, 1)}
    verdict = "\nor\n".join(
        f"{number} * {_of('sfmtls_client_auth', state=state)}" for number, state in numbered.items()
    )
    states = {number: (state.value, palette.STATES[state]) for number, state in numbered.items()}
    return timeline(
        "Verdict and probes",
        "Above, the verdict on our certificate; below, whether each probe succeeded. A gap is a "
        "run that proved neither, or none.",
        Query(inside(verdict, "sum"), "door"),
        Query(_of("sfmtls_probe_success"), "{{probe}}"),
        mapping=palette.words({"0": ("fails", BROKEN), "1": ("succeeds", WELL)}),
        series={"door": palette.words(states)},
    )


def _failing() -> Placeable:
    failing, on = _of("sfmtls_probe_failing"), "on (job, instance, org, probe)"
    # Not every failure has a cause that can be told.
    explained = (
        f"{failing}\n* {on} group_left (cause, confidence) {_of('sfmtls_probe_cause')}\n"
        f"or {on}\n{failing}"
    )
    return rows(
        "Failing now",
        "Each probe whose last run failed, with its likeliest cause and how sure that is; "
        "docs/causes.md explains each. The reason leads to its runbook.",
        Query(last_success(explained)),
        columns=(
            Column(field="probe", title="probe", width=110),
            Column(field="reason", title="reason", link=TO_REASON),
            Column(field="cause", title="likeliest cause"),
            Column(field="confidence", title="confidence", width=100),
            Column(
                field="Value",
                title="succeeded last",
                unit=DATE,
                width=150,
                mapping=palette.words({"0": ("never", None)}),
            ),
        ),
        sort="probe",
        nothing="Nothing is failing.",
    )


def _reasons() -> Placeable:
    return timeline(
        "Why it failed",
        "For which reason a probe failed when. There is a row for each reason within the time "
        "range.",
        Query(_of("sfmtls_probe_failing"), "{{probe}}: {{reason}}"),
        mapping=palette.words({"1": ("failing", BROKEN)}),
    )


# --- certificates and findings


def _chains() -> Placeable:
    info = _of("sfmtls_certificate_info")
    ends = _of("sfmtls_certificate_not_after_timestamp_seconds")
    begins = _of("sfmtls_certificate_not_before_timestamp_seconds")
    return rows(
        "Chains",
        "Ours and the server's, as they were seen last: position 0 is the leaf, the others are "
        "as presented. Both sides stay when handshakes fail.",
        Query(info),
        Query(f"({ends} - time()) / 86400"),
        Query(f"{begins} * 1000"),
        Query(f"{ends} * 1000"),
        columns=(
            Column(field="side", title="side", width=80),
            Column(field="position", title="at", width=60),
            Column(field="role", title="role", width=110),
            Column(field="subject", title="subject"),
            Column(field="issuer", title="issuer"),
            Column(
                field="Value #B",
                title="left",
                unit=DAYS,
                decimals=1,
                width=90,
                limits=thresholds(BROKEN, (14, WATCH), (30, WELL)),
            ),
            Column(field="Value #C", title="not before", unit=DATE, width=140),
            Column(field="Value #D", title="not after", unit=DATE, width=140),
            Column(field="serial_number", title="serial number", width=150),
            Column(field="fingerprint_sha256", title="SHA-256", width=150),
        ),
        sort="position",
        by=("side", "at"),
        nothing="No chain was seen yet.",
    )


def _findings() -> Placeable:
    violated = "\nor\n".join(
        f"{rank} * {_of('sfmtls_policy_violation', severity=severity)}"
        for rank, severity in ((3, Severity.CRITICAL), (2, Severity.WARNING), (1, Severity.INFO))
    )

    def called(name: str, expression: str) -> str:
        return (
            f'label_replace(\n{indent(inside(expression), "  ")},\n  "finding", "{name}", "", ""\n)'
        )

    found = "\nor\n".join(
        (
            called("violated", violated),
            called("suppressed", f"0 * {_of('sfmtls_policy_suppressed')}"),
            called("not judged", f"-1 * {_of('sfmtls_policy_not_evaluated')}"),
        )
    )
    return rows(
        "Findings",
        "Which rules are violated, which of them the configuration says may be, and which could "
        "not be judged for lack of evidence; the worst first. Side is empty when it is about the "
        "org. The rule leads to its page.",
        Query(found),
        columns=(
            Column(field="rule", title="rule", link=TO_RULE),
            Column(
                field="severity",
                title="severity",
                width=90,
                mapping=palette.coloured(palette.SEVERITIES),
            ),
            Column(field="side", title="side", width=80),
            Column(field="finding", title="finding", width=110),
        ),
        sort="Value",
        descending=True,
        nothing="No rule is violated.",
    )


def _findings_over_time() -> Placeable:
    return graph(
        "Findings over time",
        "How many violations of rules were found, each certificate counted.",
        Query(_of("sfmtls_policy_violations"), "{{severity}}"),
        colours=palette.SEVERITIES,
        stacked=True,
    )


def _deadlines() -> Placeable:
    ends = _of("sfmtls_deadline_timestamp_seconds")
    return rows(
        "Deadlines",
        "What this org relies on and is announced to end.",
        Query(f"({ends} - time()) / 86400"),
        Query(f"{ends} * 1000"),
        columns=(
            Column(field="deadline", title="deadline"),
            Column(field="Value #B", title="on", unit=DAY, width=110),
            Column(
                field="Value #A",
                title="left",
                unit=DAYS,
                decimals=0,
                width=80,
                limits=thresholds(BROKEN, (30, WATCH), (180, WELL)),
            ),
        ),
        sort="Value #A",
        nothing="Nothing that this org relies on is announced to end.",
    )


# --- time, logins, API


def _stages() -> Placeable:
    return graph(
        "Stages",
        "How long each stage of the last cycle took, the failing one included. Login and session "
        "keep the time of their last run until the next.",
        Query(_of("sfmtls_stage_duration_seconds"), "{{stage}}"),
        unit=SECONDS,
        colours=palette.STAGES,
        stacked=True,
    )


def _clock() -> Placeable:
    return graph(
        "Clock skew",
        "Their clock minus ours, to the second. Beyond five minutes, the lines, there is an "
        "alert: certificates are judged by our clock.",
        Query(_of("sfmtls_clock_skew_seconds"), "theirs minus ours"),
        unit=SECONDS,
        colours={"theirs minus ours": palette.BLUE},
        limits=thresholds(BROKEN, (-300, BROKEN), (300, BROKEN)),
        least=None,
    )


def _logins() -> Placeable:
    return graph(
        "Logins left in the hour",
        "What is left of the user's budget. It falls with each login, by whichever org as this "
        "user, and is full again with the next hour.",
        Query(_of("sfmtls_login_budget_remaining"), "left"),
        colours={"left": palette.GREEN},
    )


def _api_over_time() -> Placeable:
    return graph(
        "API requests",
        "How many API requests the org has used in its window, and how many it may.",
        Query(_of("sfmtls_api_requests_used"), "used"),
        Query(_of("sfmtls_api_requests_limit"), "limit"),
        unit="short",
        colours={"used": palette.BLUE, "limit": palette.VERMILION},
    )


def _runs() -> Placeable:
    failures = _of("sfmtls_probe_failures_total")
    return graph(
        "Failures",
        "How many runs of each probe failed.",
        Query(f"increase({failures}[$__interval])", "{{probe}}"),
        colours=palette.PROBES,
        bars=True,
        step="5m",
    )


def _by_reason() -> Placeable:
    failures = _of("sfmtls_probe_failures_by_reason_total")
    return rows(
        "Failures, by reason",
        "For which reasons runs failed within the time range, and how many, by estimate; the very "
        "first for a reason is not counted. The reason leads to its runbook.",
        Query(f"increase({failures}[$__range])"),
        columns=(
            Column(field="probe", title="probe", width=110),
            Column(field="reason", title="reason", link=TO_REASON),
            Column(field="Value", title="times", unit=COUNT, decimals=0, width=80),
        ),
        sort="Value",
        descending=True,
        nothing="No run failed.",
    )


def _skipped() -> Placeable:
    skipped = f'sfmtls_probe_skipped_total{{{_THIS}, cause!="not_due"}}'
    return graph(
        "Skipped",
        "How many runs of probes were left out, and why; those that were not due are not shown.",
        Query(
            inside(f"increase({skipped}[$__interval])", "sum by (probe, cause) "),
            "{{probe}}: {{cause}}",
        ),
        bars=True,
        step="5m",
    )


def _reloads() -> Placeable:
    return tiles(
        "Identity reloads failed",
        "How often, within the time range, a changed certificate or key could not be used; the "
        "old pair stays in use.",
        Query(f"increase({_of('sfmtls_identity_reload_failures_total')}[$__range])"),
        decimals=0,
        limits=thresholds(PLAIN, (0.5, WATCH)),
    )


def _chain_seen() -> Placeable:
    observed = _of("sfmtls_certificate_observed_timestamp_seconds")
    return tiles(
        "Time since chain seen",
        "How long ago a cycle saw the chain of this side.",
        Query(f"time() - {observed}", "{{side}}"),
        unit=SECONDS,
        decimals=0,
        nothing="never",
    )


def build() -> Dashboard:
    """Return the dashboard of one org."""
    leaf = _of("sfmtls_certificate_not_before_timestamp_seconds", position="0")
    read = 'sfmtls_config_last_reload_success_timestamp_seconds{instance="$instance"}'
    return board.dashboard(
        board.ORG,
        "Salesforce mutual TLS: org",
        "One org as one agent sees it: the door, certificates, findings, logins and API.",
        since="now-24h",
        variables=(
            board.datasource(),
            *board.operator_labels(),
            board.one(
                "org",
                "org",
                "The org to look at.",
                'label_values(sfmtls_org_info{team=~"$team", tier=~"$tier"}, org)',
            ),
            board.one(
                "instance",
                "agent",
                "The agent through whose eyes to look.",
                'label_values(sfmtls_org_info{org="$org"}, instance)',
            ),
            board.docs(),
        ),
        annotations=(
            board.when_true(
                "Certificate changes",
                f"changes({leaf}[$__rate_interval]) > 0",
                "certificate changed: {{side}}",
                palette.PURPLE,
            ),
            board.at_its_value(
                "Configuration read", f"{read} * 1000", "configuration read", palette.SKY
            ),
        ),
        links=(board.to_fleet(), board.to_agent("instance")),
        parts=(
            Band(
                4,
                (
                    (4, _door()),
                    (3, _alert()),
                    (5, _tls()),
                    (3, _days("Our certificate", "client", (14, WATCH), (30, WELL))),
                    (3, _days("The server's", "server", (7, WATCH), (30, WELL))),
                    (3, _last_cycle()),
                    (3, _maintenance()),
                ),
            ),
            Band(
                4,
                (
                    (3, _breaker()),
                    (3, _logins_left()),
                    (3, _api()),
                    (6, _findings_now()),
                    (4, _availability()),
                    (5, _budget()),
                ),
            ),
            Band(8, ((24, _verdicts()),)),
            Band(7, ((9, _failing()), (15, _reasons()))),
            "Certificates and rules",
            Band(9, ((24, _chains()),)),
            Band(9, ((10, _findings()), (7, _deadlines()), (7, _findings_over_time()))),
            "Time, logins and API",
            Band(9, ((16, _stages()), (8, _clock()))),
            Band(8, ((8, _logins()), (8, _api_over_time()), (8, _runs()))),
            Band(7, ((8, _by_reason()), (8, _skipped()), (4, _chain_seen()), (4, _reloads()))),
        ),
    )
