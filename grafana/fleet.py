"""All orgs on one page: which doors are open, what fails and why, what will end next."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from agent.policy.rule import Severity
from agent.result import ClientAuth
from grafana import board, palette
from grafana.board import TO_AGENT, TO_BREAKER, TO_ORG, TO_REASON, TO_RULE, Band
from grafana.palette import BROKEN, PLAIN, WATCH, WELL, thresholds
from grafana.panels import (
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
)
from grafana.promql import ON_ORG, chosen, inside, last_success, least, most, named, orgs

_RECORDED: Final = "Recorded by prometheus/rules/recording.yml."
# Once a cycle is often enough, and thousands of orgs at each pixel are more than Prometheus reads.
_STEP: Final = "1m"
_POINTS: Final = 72

_ORG: Final = Column(field="org", title="org", link=TO_ORG)
_AGENT: Final = Column(field="instance", title="agent", width=145, link=TO_AGENT)
_LABELS: Final = (
    Column(field="team", title="team", width=110),
    Column(field="tier", title="tier", width=60),
)
_PROBE: Final = Column(field="probe", title="probe", width=95)
_SEVERITY: Final = Column(
    field="severity", title="severity", width=90, mapping=palette.coloured(palette.SEVERITIES)
)
_NEVER: Final = palette.words({"0": ("never", None)})


def _last(title: str) -> Column:
    return Column(field="Value", title=title, unit=DATE, width=140, mapping=_NEVER)


# --- now


def _orgs() -> Placeable:
    return tiles(
        "Orgs",
        "How many orgs the variables choose; one that two agents watch counts once.",
        Query(orgs("sfmtls_org_info")),
    )


def _doors() -> Placeable:
    doors = inside(chosen("sfmtls_client_auth"), "max by (org, state) ")
    return tiles(
        "Doors, by the verdict on our certificate",
        "How many doors gave which verdict in their last cycle. Only accepted is open. rejected "
        "is a TLS alert, soft_rejected an error page, not_requested a door that asks for no "
        "certificate, unconfirmed silence, and not_reached says nothing about the certificate.",
        Query(f"sum by (state) ({doors})", "{{state}}"),
        series={
            state: thresholds(WELL) if colour == WELL else thresholds(PLAIN, (1, colour))
            for state, colour in palette.STATES.items()
        },
    )


def _probes() -> Placeable:
    failing = inside(chosen("1 - sfmtls_probe_success"), "max by (org, probe) ")
    return tiles(
        "Failing, by probe",
        "For how many orgs the last run of the probe failed. What proves neither success nor "
        "failure counts as neither.",
        Query(f"sum by (probe) ({failing})", "{{probe}}"),
        limits=thresholds(WELL, (1, BROKEN)),
    )


def _breakers_open() -> Placeable:
    return tiles(
        "Breakers open",
        "For how many orgs the agent stopped to log in, lest it lock the user out.",
        Query(orgs("sfmtls_login_breaker_open == 1")),
        limits=thresholds(WELL, (1, BROKEN)),
    )


def _maintenance() -> Placeable:
    return tiles(
        "Maintenance",
        "How many orgs are known to be down for maintenance; their alerts are kept back.",
        Query(orgs("sfmtls_maintenance == 1")),
        limits=thresholds(PLAIN, (1, palette.SKY)),
    )


def _critical() -> Placeable:
    return tiles(
        "Critical findings",
        "How many orgs have a finding of severity critical.",
        Query(orgs('sfmtls_policy_violations{severity="critical"} > 0')),
        limits=thresholds(WELL, (1, BROKEN)),
    )


def _certificates() -> Placeable:
    expiring = (
        "sfmtls_certificate_expiry_days <= 30\n"
        "and sfmtls_certificate_lifetime_remaining_ratio <= 0.25\n"
        "and sfmtls_certificate_expiry_days > 0"
    )
    return tiles(
        "Certificates",
        "How many orgs have a chain, ours or the server's, that has expired, and one that the "
        "alerts call expiring: at most 30 days and a quarter of its life left.",
        Query(orgs("sfmtls_certificate_expiry_days <= 0"), "expired"),
        Query(orgs(expiring), "expiring"),
        series={
            "expired": thresholds(WELL, (1, BROKEN)),
            "expiring": thresholds(WELL, (1, WATCH)),
        },
    )


_STALE: Final = (
    "time() - sfmtls_probe_last_run_timestamp_seconds > 3 * sfmtls_probe_interval_seconds"
)
_NEVER_RUN: Final = "sfmtls_probe_interval_seconds unless sfmtls_probe_last_run_timestamp_seconds"


def _blind() -> Placeable:
    handshakes = 'sfmtls_probe_interval_seconds{probe="handshake"}'
    return tiles(
        "Not looked at",
        "How many orgs have no cycle for three intervals, or none at all: what is told of them "
        "is old.",
        Query(orgs(f"({_STALE}\nor {_NEVER_RUN})\nand {handshakes}")),
        limits=thresholds(WELL, (1, BROKEN)),
    )


def _availability() -> Placeable:
    errors = inside(chosen("org:sfmtls_probe_errors:ratio_rate3d"), "avg by (probe) ")
    return tiles(
        "Availability, 3 days",
        f"Share of runs that succeeded, over all chosen orgs. {_RECORDED}",
        Query(f"1 - {errors}", "{{probe}}"),
        unit=SHARE,
        decimals=2,
    )


def _budget() -> Placeable:
    errors = inside(chosen("org:sfmtls_probe_errors:ratio_rate3d"), "avg by (probe) ")
    return tiles(
        "Error budget left, 3 days",
        "How much of the failures that the objective allows is left: 100 % when nothing failed, "
        f"below 0 when the objective is missed. {_RECORDED}",
        Query(
            f"1 - {errors} / on (probe) (1 - sfmtls:availability:objective)",
            "{{probe}}",
        ),
        unit=SHARE,
        decimals=0,
        limits=thresholds(BROKEN, (0, WATCH), (0.5, WELL)),
    )


def _failing() -> Placeable:
    return rows(
        "What is failing, and why",
        "Each probe whose last run failed, the newest failure first, at most 500. The reason "
        "leads to its runbook, the org to its dashboard.",
        Query(most(500, named(last_success("sfmtls_probe_failing")))),
        columns=(
            _ORG,
            *_LABELS,
            _PROBE,
            Column(field="reason", title="reason", width=230, link=TO_REASON),
            _last("succeeded last"),
            _AGENT,
        ),
        sort="Value",
        descending=True,
        nothing="Nothing is failing.",
    )


def _expiries() -> Placeable:
    # The rows of the second query are those of the first, not of thousands of orgs.
    first = least(50, chosen("sfmtls_certificate_expiry_days"))
    ratio = (
        f"sfmtls_certificate_lifetime_remaining_ratio\nand on (job, instance, org, side) {first}"
    )
    return rows(
        "Next expiries",
        "The 50 chains that end first, by the certificate in them that expires first. Orange below "
        "30 days, vermilion below 14; alerts ask for the share of its life that is left too, since "
        "30 days are most of a 47-day certificate.",
        Query(first),
        Query(ratio),
        columns=(
            _ORG,
            Column(field="side", title="side", width=70),
            Column(
                field="Value #A",
                title="left",
                unit=DAYS,
                decimals=1,
                width=90,
                limits=thresholds(BROKEN, (14, WATCH), (30, WELL)),
            ),
            Column(field="Value #B", title="of its life", unit=SHARE, decimals=0, width=110),
            _AGENT,
        ),
        sort="Value #A",
        nothing="No certificate was seen yet.",
    )


def _doors_over_time() -> Placeable:
    # The open ones are left out: above hundreds of them, those that are not would be a hair.
    shut = f'sfmtls_client_auth{{state!="{ClientAuth.ACCEPTED}"}} == 1'
    doors = inside(chosen(shut), "count by (org, state) ")
    return graph(
        "Doors that are not open",
        "How many doors gave which verdict other than accepted.",
        Query(f"count by (state) ({doors})", "{{state}}"),
        colours=palette.STATES,
        stacked=True,
        step=_STEP,
        points=_POINTS,
        nothing="Every door is open.",
    )


def _reasons_over_time() -> Placeable:
    failing = inside(chosen("sfmtls_probe_failing"), "max by (org, probe, reason) ")
    return graph(
        "Failing over time, by reason",
        "How many probes were failing for which reason. One reason for many orgs at once is seldom "
        "theirs: look at what they share, such as this network, an authority or Salesforce.",
        Query(f"count by (reason) ({failing})", "{{reason}}"),
        stacked=True,
        step=_STEP,
        points=_POINTS,
        nothing="Nothing failed.",
    )


def _violations() -> Placeable:
    def found(severity: Severity) -> str:
        each = f'sfmtls_policy_violation{{severity="{severity}"}}'
        once = inside(chosen(each), "max by (org, rule, severity, side) ")
        return f"count by (rule, severity, side) ({once})"

    worst, middle, mildest = map(found, (Severity.CRITICAL, Severity.WARNING, Severity.INFO))
    everything = inside(chosen("sfmtls_policy_violation"), "max by (org, rule, severity, side) ")
    return rows(
        "Findings, by rule",
        "Which rules are violated now, for how many orgs, the worst first; side is empty when it "
        "is about the org. The rule leads to its page.",
        Query(f"count by (rule, severity, side) ({everything})"),
        # Only to sort by: a severity above all, then the number of orgs.
        Query(f"{worst} + 2e6\nor\n{middle} + 1e6\nor\n{mildest}"),
        columns=(
            Column(field="rule", title="rule", link=TO_RULE),
            _SEVERITY,
            Column(field="side", title="side", width=70),
            Column(field="Value #A", title="orgs", unit=COUNT, width=70),
        ),
        sort="Value #B",
        descending=True,
        nothing="No rule is violated.",
    )


# --- logins


def _breakers() -> Placeable:
    # There is no reason, and so none to lead to, when another org or an earlier run of the agent
    # was refused.
    opened = (
        "(sfmtls_login_breaker_open == 1)\n"
        f'* {ON_ORG} group_left (reason) sfmtls_probe_failing{{probe="login"}}\n'
        f"or {ON_ORG}\n"
        "sfmtls_login_breaker_open == 1"
    )
    return rows(
        "Breakers open",
        "Orgs to which the agent logs in no more, and why; at most 100. Correct the secret, or "
        "find the cause and reset the breaker. Do not try the password by hand.",
        Query(most(100, chosen(inside(last_success(opened, "login"))))),
        columns=(
            _ORG,
            Column(field="reason", title="reason", width=180, link=TO_BREAKER),
            _last("logged in last"),
            _AGENT,
        ),
        sort="Value",
        descending=True,
        nothing="No breaker is open.",
    )


def _budgets() -> Placeable:
    lasts = chosen(
        f'sfmtls_login_budget_remaining\n* {ON_ORG} sfmtls_probe_interval_seconds{{probe="login"}}'
    )
    first = least(20, lasts)
    return rows(
        "Least login budget",
        "The 20 orgs whose logins for this hour run out first: how many are left, and for how "
        "long they last at the login interval. Below a quarter of an hour there is an alert.",
        Query(first),
        Query(f"sfmtls_login_budget_remaining\nand {ON_ORG} {first}"),
        columns=(
            _ORG,
            Column(field="Value #B", title="left", unit=COUNT, width=70),
            Column(
                field="Value #A",
                title="lasts",
                unit=SECONDS,
                decimals=0,
                width=90,
                limits=thresholds(BROKEN, (900, WATCH), (1800, WELL)),
            ),
            _AGENT,
        ),
        sort="Value #A",
        nothing="No org has a login.",
    )


def _deadlines() -> Placeable:
    first = inside(chosen("sfmtls_deadline_timestamp_seconds"), "min by (deadline) ")
    once = inside(chosen("sfmtls_deadline_timestamp_seconds"), "max by (org, deadline) ")
    return rows(
        "Deadlines",
        "What is announced to end, for how many orgs, and when for the first of them.",
        Query(f"({first} - time()) / 86400"),
        Query(f"{first} * 1000"),
        Query(f"count by (deadline) ({once})"),
        columns=(
            Column(field="deadline", title="deadline"),
            Column(field="Value #B", title="first on", unit=DAY, width=110),
            Column(
                field="Value #A",
                title="left",
                unit=DAYS,
                decimals=0,
                width=80,
                limits=thresholds(BROKEN, (30, WATCH), (180, WELL)),
            ),
            Column(field="Value #C", title="orgs", unit=COUNT, width=80),
        ),
        sort="Value #A",
        nothing="No announced deadline concerns these orgs.",
    )


# --- service level


def _burning() -> Placeable:
    def burn(window: str) -> str:
        return (
            f"org:sfmtls_probe_errors:ratio_rate{window}\n"
            "/ on (probe) group_left () (1 - sfmtls:availability:objective)"
        )

    worst = most(50, chosen(f"({burn('6h')} > 0)"))
    kept = f"and on (job, instance, org, probe) {worst}"
    # Where the alerts begin.
    limits = {
        "1h": thresholds(WELL, (1, WATCH), (14.4, BROKEN)),
        "6h": thresholds(WELL, (1, WATCH), (6, BROKEN)),
        "3d": thresholds(WELL, (1, BROKEN)),
    }
    return rows(
        "Error budget, burn rate",
        "The 50 that burn most over 6 hours. 1 is as much failure as the objective allows in the "
        "long run. Orange is above 1; vermilion is where the alerts begin: 14.4 over an hour, 6 "
        f"over six, 1 over three days. {_RECORDED}",
        Query(worst),
        Query(f"{burn('1h')}\n{kept}"),
        Query(f"{burn('3d')}\n{kept}"),
        columns=(
            _ORG,
            _PROBE,
            *(
                Column(
                    field=f"Value #{ref}",
                    title=window,
                    unit=COUNT,
                    decimals=1,
                    width=60,
                    limits=limits[window],
                )
                for ref, window in (("B", "1h"), ("A", "6h"), ("C", "3d"))
            ),
            _AGENT,
        ),
        sort="Value #A",
        descending=True,
        nothing="No probe failed within six hours.",
    )


def _worst_orgs() -> Placeable:
    return rows(
        "Orgs with critical findings",
        "How many findings of severity critical an org has, each certificate counted; at most 50.",
        Query(most(50, chosen('sfmtls_policy_violations{severity="critical"} > 0'))),
        columns=(
            _ORG,
            Column(field="Value", title="found", unit=COUNT, width=75),
            _AGENT,
        ),
        sort="Value",
        descending=True,
        nothing="No org has a critical finding.",
    )


def _not_looked_at() -> Placeable:
    ran = "sfmtls_probe_last_run_timestamp_seconds * 1000"
    stale = f"{ran}\nand {_STALE}\nor\n0 * sfmtls_probe_interval_seconds unless {ran}"
    # What the agent does not run for a reason that stands elsewhere would bury the rest.
    held_back = (
        'sfmtls_probe_interval_seconds{probe!="handshake"}\n'
        f'and {ON_ORG} sfmtls_probe_failing{{probe="handshake"}}\n'
        'or\nsfmtls_probe_interval_seconds{probe=~"login|session|enforcement"}\n'
        f"and {ON_ORG} (sfmtls_login_breaker_open == 1 or {ON_ORG} "
        'sfmtls_probe_failing{probe="login"})'
    )
    return rows(
        "Not looked at",
        "Probes that did not run for three of their intervals, or never, at most 100: look at the "
        "agent. What waits for a door that does not open, or for a login that fails or is stopped, "
        "is not here.",
        Query(least(100, chosen(f"({inside(stale)}\nunless {inside(held_back)})"))),
        columns=(_ORG, _PROBE, _last("ran last"), _AGENT),
        sort="Value",
        nothing="Every probe runs as often as it is meant to.",
    )


# --- time


def _quantiles(title: str, stage: str, what: str) -> Placeable:
    each = f'rate(sfmtls_fleet_stage_duration_seconds_bucket{{stage="{stage}"}}[$__rate_interval])'
    return graph(
        title,
        f"{what} Half, 95 % and 99 % of the runs were quicker. Over all orgs of all agents, "
        "whatever the variables choose; failing runs included.",
        *(
            Query(f"histogram_quantile({quantile}, sum by (le) ({each}))", legend)
            for quantile, legend in ((0.5, "50 %"), (0.95, "95 %"), (0.99, "99 %"))
        ),
        unit=SECONDS,
        colours={"50 %": palette.SKY, "95 %": palette.BLUE, "99 %": palette.VERMILION},
        bridged=True,
        step="5m",
    )


def _slowest() -> Placeable:
    cycle = 'sfmtls_stage_duration_seconds{stage!~"login|session"}'
    return rows(
        "Slowest cycles",
        "The 20 orgs whose last cycle took longest, from DNS to the answer at the door; login "
        "and session not counted.",
        Query(most(20, chosen(inside(cycle, "sum by (job, instance, org) ")))),
        columns=(
            _ORG,
            Column(
                field="Value",
                title="took",
                unit=SECONDS,
                width=90,
                limits=thresholds(WELL, (2, WATCH), (10, BROKEN)),
            ),
            _AGENT,
        ),
        sort="Value",
        descending=True,
        nothing="No cycle has run yet.",
    )


def build() -> Dashboard:
    """Return the dashboard of the fleet."""
    leaf = 'sfmtls_certificate_not_before_timestamp_seconds{position="0"}'
    changed = f"changes({leaf}[$__rate_interval]) > 0"
    return board.dashboard(
        board.FLEET,
        "Salesforce mutual TLS: fleet",
        "Every org that is watched: which doors are open, what fails and why, what ends next.",
        since="now-6h",
        variables=(
            board.datasource(),
            *board.operator_labels(),
            board.several(
                "org",
                "org",
                "The orgs to look at.",
                'label_values(sfmtls_org_info{team=~"$team", tier=~"$tier"}, org)',
            ),
            board.docs(),
        ),
        annotations=(
            # Off at first: of hundreds of orgs, one is renewed every day.
            board.when_true(
                "Certificate changes",
                inside(chosen(changed), "count by (side) "),
                "certificates changed: {{side}}",
                palette.PURPLE,
                enabled=False,
            ),
            board.at_its_value(
                "Configuration read",
                "sfmtls_config_last_reload_success_timestamp_seconds * 1000",
                "configuration read: {{instance}}",
                palette.SKY,
            ),
        ),
        links=(board.to_org(), board.to_agent()),
        parts=(
            Band(4, ((3, _orgs()), (13, _doors()), (8, _probes()))),
            Band(
                4,
                (
                    (3, _breakers_open()),
                    (3, _critical()),
                    (4, _certificates()),
                    (3, _blind()),
                    (3, _maintenance()),
                    (4, _availability()),
                    (4, _budget()),
                ),
            ),
            Band(10, ((15, _failing()), (9, _expiries()))),
            Band(9, ((7, _doors_over_time()), (9, _reasons_over_time()), (8, _violations()))),
            "Logins and deadlines",
            Band(8, ((10, _breakers()), (7, _budgets()), (7, _deadlines()))),
            "Service level",
            Band(8, ((9, _burning()), (6, _worst_orgs()), (9, _not_looked_at()))),
            "Time",
            Band(
                8,
                (
                    (6, _quantiles("TLS handshake", "tls", "How long the TLS handshake takes.")),
                    (
                        6,
                        _quantiles(
                            "Door", "door", "How long the request without credentials takes."
                        ),
                    ),
                    (6, _quantiles("Login", "login", "How long the login takes.")),
                    (6, _slowest()),
                ),
            ),
        ),
    )
