"""The alerts and their routing: what can drift, and what promtool, amtool and Alertmanager say.

When each alert fires and when it stays silent is told in prometheus/tests, for promtool; here is
told that those tests leave nothing out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml
from conftest import require_program
from monitoring import alertmanager

from agent.metrics import CATALOGUE, Kind
from agent.metrics.org import ORG_FAMILIES
from agent.policy import CATALOGUE as POLICY
from agent.policy.deadline import DEADLINES
from agent.policy.rule import Severity
from agent.reason import Reason
from agent.result import ClientAuth, Probe
from agent.simulator.pki import Pki

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "prometheus"
GOLDEN = ROOT / "tests" / "golden" / "alerts.txt"
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"
RUNBOOKS = "https://github.com/sfmtls-agent/sfmtls-agent/blob/main/docs/runbooks"
JOIN = "* on (job, instance, org) group_left (team, tier) sfmtls_org_info"

RULES = [
    rule
    for file in sorted((FOLDER / "rules").glob("*.yml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
ROUTING = yaml.safe_load((FOLDER / "alertmanager.example.yml").read_text())
UNIT_TESTS = sorted((FOLDER / "tests").glob("*.yml"))

OF_THE_AGENT = {
    "SfmtlsWatchdog",
    "SfmtlsAgentDown",
    "SfmtlsAgentAbsent",
    "SfmtlsAgentNetworkSuspect",
    "SfmtlsConfigReloadFailed",
    "SfmtlsInternalErrors",
}
# It fires always, so there is no moment before and nobody whom it spares.
ALWAYS = {"SfmtlsWatchdog"}

# What is exported but neither alerted on nor drawn, and why.
DELIBERATELY_UNUSED: dict[str, str] = {}

every_alert = pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])


# --- the rules


def test_the_names_of_the_alerts_are_frozen_with_their_severities():
    severities = {name: [] for name in NAMES}
    for rule in ALERTS:
        severities[rule["alert"]].append(rule["labels"]["severity"])
    text = "".join(f"{name}\t{', '.join(found)}\n" for name, found in severities.items())
    if UPDATE:
        GOLDEN.write_text(text, encoding="utf-8")

    assert text == GOLDEN.read_text(encoding="utf-8")


@every_alert
def test_an_alert_tells_what_is_wrong_of_whom_and_where_to_read_on(rule):
    told = rule["annotations"]

    assert told["runbook_url"] == f"{RUNBOOKS}/alerts/{rule['alert']}.md"
    assert rule["labels"]["severity"] in {*Severity, "{{ $labels.severity }}"}
    assert not told["summary"].endswith(".") or rule["alert"] in ALWAYS
    if rule["alert"] in OF_THE_AGENT:
        assert "sfmtls_org_info" not in rule["expr"]
    else:
        assert rule["expr"].rstrip().endswith(JOIN), "the operator's labels come last"
        assert "$labels.org" in told["summary"]
        assert "$labels.org" in told["description"]
        assert "What to do: " in told["description"] or rule["alert"] == "SfmtlsMaintenance"


@every_alert
def test_an_alert_that_knows_a_reason_tells_it_and_its_page(rule):
    told = rule["annotations"]
    if "sfmtls_probe_failing{" in rule["expr"] and "max by" not in rule["expr"]:
        assert "$labels.reason }}" in told["description"]
        assert "sfmtls-agent reasons {{" in told["description"]
        assert told.get("reason_url", f"{RUNBOOKS}/reasons/{{{{ $labels.reason }}}}.md") == (
            f"{RUNBOOKS}/reasons/{{{{ $labels.reason }}}}.md"
        )
    else:
        assert "reason_url" not in told


@every_alert
def test_the_likeliest_cause_of_a_shut_door_is_told_and_no_alert_depends_on_there_being_one(rule):
    shut = 'sfmtls_probe_failing{probe="handshake"' in rule["expr"] and "max by" not in rule["expr"]

    assert ("sfmtls_probe_cause{" in rule["annotations"]["description"]) is shut
    assert "sfmtls_probe_cause" not in rule["expr"]


def test_every_verdict_that_is_not_acceptance_has_its_alert():
    states = Counter(re.findall(r'sfmtls_client_auth\{state="(\w+)"\}', all_text(ALERTS)))

    assert states == {state: 1 for state in ClientAuth if state is not ClientAuth.ACCEPTED}


def test_the_reasons_that_blame_the_server_s_certificate_are_told_apart_from_all_others():
    ours = {
        reason.value
        for reason in Reason
        if reason.name.startswith("SERVER_") and reason is not Reason.SERVER_ERROR
    }
    (trusted,) = re.findall(r'reason=~"([^"]+)"', expression("SfmtlsServerNotTrusted"))
    (reached,) = re.findall(r'reason!~"([^"]+)"', expression("SfmtlsDoorUnreachable"))

    assert {reason.value for reason in Reason if re.fullmatch(trusted, reason.value)} == ours
    assert reached == trusted


def test_names_of_the_agent_s_closed_sets_are_spelt_as_the_agent_does():
    text = all_text(RULES)
    matchers = [matcher for rule in ROUTING["inhibit_rules"] for matcher in target(rule)]

    assert set(re.findall(r'deadline="(\w+)"', text)) <= DEADLINES.keys()
    assert set(re.findall(r'probe="(\w+)"', text)) <= set(Probe)
    assert set(re.findall(r'\breason="(\w+)"', text)) <= {reason.value for reason in Reason}
    for matcher in [*re.findall(r'rule!?=?~?"[^"]+"', text), *matchers]:
        if matcher.startswith("rule"):
            assert set(re.findall(r'"(.*)"', matcher)[0].split("|")) <= POLICY.keys(), matcher


def all_text(rules):
    return "\n".join(str(rule["expr"]) for rule in rules)


def expression(name):
    (found,) = [rule["expr"] for rule in ALERTS if rule["alert"] == name]
    return found


def target(inhibition):
    return inhibition["target_matchers"]


# --- the metrics


def metrics_in(text):
    """Return the metrics that are named in a text, histograms by their family's name."""
    found = set(re.findall(r"(?<![\w:])sfmtls_[a-z0-9_]+(?![\w:])", text))
    histograms = {name for name, family in CATALOGUE.items() if family.kind is Kind.HISTOGRAM}
    series = {f"{name}_{part}": name for name in histograms for part in ("bucket", "sum", "count")}
    return {series.get(name, name) for name in found}


def sources():
    """Yield each file that asks for metrics, and its text without what only explains."""
    for file in [*(FOLDER / "rules").glob("*.yml"), *UNIT_TESTS]:
        yield file, re.sub(r"^\s*#.*$", "", file.read_text(), flags=re.MULTILINE)
    for file in (ROOT / "grafana").rglob("*.json"):
        yield file, file.read_text()


def test_every_metric_that_is_asked_for_is_one_that_the_agent_exports():
    unknown = {
        (str(file.relative_to(ROOT)), name)
        for file, text in sources()
        for name in metrics_in(text) - CATALOGUE.keys()
    }

    assert unknown == set()


def test_every_metric_that_the_agent_exports_is_asked_for_or_left_out_for_a_reason():
    used = set()
    for file, text in sources():
        if file not in UNIT_TESTS:
            used |= metrics_in(text)

    assert CATALOGUE.keys() - used == DELIBERATELY_UNUSED.keys()


def test_every_recorded_series_that_is_asked_for_is_recorded():
    asked = {
        name
        for _, text in sources()
        for name in re.findall(r"(?<![\w:])(?:org:)?sfmtls(?:_\w+)?:\w+(?::\w+)?", text)
    }

    assert asked == RECORDED


# --- the unit tests of the rules


CASES = [test for file in UNIT_TESTS for test in yaml.safe_load(file.read_text())["tests"]]


def test_rules_are_evaluated_every_minute_in_every_unit_test():
    assert {yaml.safe_load(file.read_text())["evaluation_interval"] for file in UNIT_TESTS} == {
        "1m"
    }


def minutes(duration):
    assert re.fullmatch(r"\d+m", duration), duration
    return int(duration[:-1])


def asked(test, name):
    """Return {minute: the label sets with which the alert is expected to fire}."""
    return {
        minutes(case["eval_time"]): [
            frozenset(alert["exp_labels"].items()) for alert in case.get("exp_alerts", ())
        ]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == name
    }


def subjects(test):
    """Return whom the test has series of: {org or instance: the metrics}."""
    found = {}
    for series in test["input_series"]:
        labels = dict(re.findall(r'(\w+)="([^"]*)"', series["series"]))
        who = labels.get("org", labels["instance"])
        found.setdefault(who, set()).add(series["series"].partition("{")[0])
    return found


@pytest.mark.parametrize("name", sorted(set(NAMES) - ALWAYS))
def test_an_alert_is_seen_to_fire_not_a_minute_early_and_to_spare_others(name):
    to_the_minute, sparing = set(), set()
    for test in CASES:
        at = asked(test, name)
        everybody = subjects(test)
        told = {dict(labels).get(key) for each in at.values() for labels in each for key in KEYS}
        for moment, alerts in at.items():
            for labels in alerts:
                who = dict(labels)
                if moment - 1 in at and labels not in at[moment - 1]:
                    to_the_minute.add(who["severity"])
                mine = everybody.get(who.get("org", who.get("instance")), set())
                if any(everybody[other] & mine for other in everybody.keys() - told):
                    sparing.add(who["severity"])
    severities = {rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == name}
    if name == "SfmtlsPolicyViolation":
        severities = {Severity.WARNING, Severity.CRITICAL}

    assert to_the_minute == severities
    assert sparing == severities


KEYS = ("org", "instance")


@pytest.mark.parametrize("test", CASES, ids=lambda test: test["name"])
def test_a_unit_test_is_given_series_such_as_the_agent_exports(test):
    of_an_org = {family.name for family in ORG_FAMILIES}
    for series in test["input_series"]:
        name, _, labels = series["series"].partition("{")
        given = set(re.findall(r'(\w+)="', labels))
        if name == "up":
            assert given == {"job", "instance"}
            continue
        if name == "ALERTS":
            # Prometheus' own, of an alert that other rules look at.
            assert given == {"alertname", "alertstate", "job", "instance", "org"}
            assert re.search(r'alertname="(\w+)"', labels)[1] in NAMES
            continue
        if name in RECORDED:
            # Windows of three days are told, not waited for.
            assert given == {"job", "instance", "org", "probe"}
            continue
        family = CATALOGUE[name]
        wanted = {"job", "instance", *family.labels} | ({"org"} if name in of_an_org else set())
        assert given - wanted == set() or family.open_labels, series["series"]
        assert wanted - given == set(), series["series"]


def test_every_alert_that_a_unit_test_asks_about_exists():
    names = {case["alertname"] for test in CASES for case in test.get("alert_rule_test", ())}

    assert names == set(NAMES)


# --- what the real programs say


@pytest.fixture(scope="module")
def etc(tmp_path_factory):
    """Return /etc/prometheus as the README's own lines leave it."""
    folder = tmp_path_factory.mktemp("etc")
    commands = re.findall(r"^sudo (cp .*)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        words = command.replace("/etc/prometheus", str(folder)).split()
        subprocess.run(words, cwd=ROOT, check=True)
    return folder


def ran(program, *arguments):
    """Run a program and return whether it was content, and all that it said."""
    done = subprocess.run(
        [require_program(program), *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.component
def test_prometheus_takes_the_configuration_where_the_readme_puts_it(etc):
    good, said = ran(
        "promtool", "check", "config", "--lint=all", "--lint-fatal", etc / "prometheus.yml"
    )

    assert good, said
    assert "SUCCESS: 2 rule files found" in said
    assert f"SUCCESS: {len(ALERTS)} rules found" in said


@pytest.mark.component
def test_prometheus_takes_every_setting_that_is_commented_out(etc, tmp_path):
    text = (etc / "prometheus.yml").read_text()
    settings, count = re.subn(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE)
    shutil.copytree(etc / "rules", tmp_path / "rules")
    (tmp_path / "prometheus.yml").write_text(settings)
    (tmp_path / "sfmtls-agent.password").write_text("secret")
    root = Pki.create(datetime.now(UTC)).servers.root_pem()
    (tmp_path / "sfmtls-agent-ca.pem").write_bytes(root)

    good, said = ran("promtool", "check", "config", tmp_path / "prometheus.yml")

    assert count == 7
    assert good, said


@pytest.mark.component
@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.stem)
def test_the_alerts_fire_when_their_unit_tests_say(file):
    good, said = ran("promtool", "test", "rules", file)

    assert good, said


@pytest.mark.component
def test_alertmanager_takes_the_routing(etc):
    good, said = ran("amtool", "check-config", etc / "alertmanager.yml")

    assert good, said
    assert f"{len(ROUTING['inhibit_rules'])} inhibit rules" in said


@pytest.mark.component
@pytest.mark.parametrize(
    ("receiver", "labels"),
    [
        ("watchdog", "alertname=SfmtlsWatchdog severity=info"),
        ("nobody", "alertname=SfmtlsMaintenance severity=info org=emea team=integration"),
        ("pages", "alertname=SfmtlsDoorRejected severity=critical org=emea"),
        ("pages", "alertname=SfmtlsDoorRejected severity=critical org=emea team=unheard-of"),
        ("pages", "alertname=SfmtlsAgentDown severity=critical"),
        ("tickets", "alertname=SfmtlsConfigReloadFailed severity=warning"),
        ("tickets", "alertname=SfmtlsPolicyViolation severity=warning org=emea rule=eku_dual"),
        ("integration-pages", "alertname=SfmtlsLoginFailing severity=critical team=integration"),
        ("integration-tickets", "alertname=SfmtlsClockSkew severity=warning team=integration"),
    ],
)
def test_an_alert_goes_to_its_team_s_pager_or_tickets(receiver, labels):
    file = f"--config.file={FOLDER / 'alertmanager.example.yml'}"

    good, said = ran("amtool", "config", "routes", "test", file, *labels.split())

    assert good, said
    assert said.splitlines()[0] == receiver


# --- what need not be told


def test_every_alert_that_routing_names_exists():
    matchers = [
        matcher
        for rule in ROUTING["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
    ] + [matcher for route in ROUTING["route"]["routes"] for matcher in route["matchers"]]
    patterns = [
        re.fullmatch(r'alertname(!?=~?)"(.+)"', matcher)[2]
        for matcher in matchers
        if matcher.startswith("alertname")
    ]

    assert len(patterns) > 20
    for pattern in patterns:
        for alternative in alternatives(pattern):
            assert any(re.fullmatch(alternative, name) for name in NAMES), alternative


def alternatives(pattern):
    """Return what stands between the bars of a pattern, also of one in parentheses."""
    grouped = re.fullmatch(r"([^()|]*)\(([^()]+)\)([^()|]*)", pattern)
    if grouped:
        return [grouped[1] + middle + grouped[3] for middle in grouped[2].split("|")]
    parts = re.findall(r"(?:[^|()]|\([^()]*\))+", pattern)
    return [one for part in parts for one in (alternatives(part) if "(" in part else [part])]


WARNING = {"severity": "warning"}


def alert(name, org="emea", **labels):
    """Return the labels of an alert about an org, or about the agent when `org` is empty."""
    about = {"alertname": f"Sfmtls{name}", "job": "sfmtls-agent", "severity": "critical"}
    return about | ({"org": org} if org else {}) | labels


def finding(rule, side, severity="critical"):
    return alert("PolicyViolation", rule=rule, side=side, severity=severity)


# Each case: what fires, and of it what is told.
STORIES = {
    "a closed door hides what follows from it, and no cause": (
        [alert("DoorUnreachable"), finding("eku_dual", "client")],
        [
            alert("LoginFailing"),
            alert("LoginBreakerOpen"),
            alert("LoginBudgetLow"),
            alert("SessionRejected"),
            alert("DoorErrorBudgetBurn"),
            alert("DoorErrorBudgetBurnSlow"),
            alert("LoginErrorBudgetBurnSlow"),
        ],
    ),
    "a server that is not trusted is a closed door": (
        [alert("ServerNotTrusted", reason="server_untrusted"), finding("expired", "client")],
        [alert("LoginFailing"), finding("server_hostname_mismatch", "server")],
    ),
    "a closed door is that of its own org": (
        [alert("DoorRejected"), alert("LoginFailing", "apac"), alert("DoorRejected", "apac2")],
        [alert("LoginFailing")],
    ),
    "an open door that should be shut hides nothing": (
        [alert("DoorDoesNotRefuse"), alert("EnforcementOff"), alert("LoginFailing")],
        [],
    ),
    "maintenance hides all of the org and of no other": (
        [
            alert("Maintenance", severity="info"),
            alert("DoorUnconfirmed", "apac"),
            alert("ConfigReloadFailed", ""),
        ],
        [
            alert("DoorUnconfirmed", reason="maintenance"),
            alert("ClientCertificateExpired"),
            alert("CycleMissing"),
            alert("LoginMissing"),
            alert("DoorErrorBudgetBurn"),
            finding("revoked", "client"),
        ],
    ),
    "an agent that is down hides that its orgs are stale": (
        [alert("AgentDown", ""), alert("ClientCertificateExpired")],
        [alert("CycleMissing"), alert("CycleMissing", "apac")],
    ),
    "an agent without a network hides that it reaches no org, and what follows": (
        [
            alert("AgentNetworkSuspect", ""),
            alert("DoorUnreachable", "keyless", reason="client_key_mismatch"),
            alert("ClientCertificateExpired"),
        ],
        [
            alert("DoorUnreachable", reason="dns_error"),
            alert("DoorUnreachable", "apac", reason="tcp_timeout"),
            alert("DoorUnreachable", "amer", reason="proxy_denied"),
            alert("DoorErrorBudgetBurn"),
            alert("LoginErrorBudgetBurnSlow", **WARNING),
            alert("LoginFailing"),
        ],
    ),
    "an open breaker says more than a failing login": (
        [alert("LoginBreakerOpen", reason="invalid_login")],
        [alert("LoginFailing"), alert("SessionRejected"), alert("LoginErrorBudgetBurn")],
    ),
    "an expired password says more than an open breaker": (
        [alert("PasswordExpired")],
        [alert("LoginBreakerOpen"), alert("LoginFailing")],
    ),
    "another org says more than a failing login": (
        [alert("WrongOrg")],
        [alert("LoginFailing"), alert("LoginErrorBudgetBurnSlow")],
    ),
    "expired says more than expiring, and explains the door": (
        [alert("ClientCertificateExpired")],
        [
            alert("ClientCertificateExpiringSoon"),
            alert("ClientCertificateExpiring", **WARNING),
            finding("expired", "client"),
            alert("DoorRejected", reason="client_cert_expired"),
            alert("LoginFailing"),
        ],
    ),
    "expired does not explain another refusal": (
        [alert("ClientCertificateExpired"), alert("DoorRejected", reason="client_cert_bad")],
        [],
    ),
    "the server's expiry is told apart from ours": (
        [
            alert("ServerCertificateExpired"),
            alert("ClientCertificateExpiring", **WARNING),
            finding("ca_expiring", "client"),
        ],
        [
            alert("ServerCertificateExpiringSoon"),
            alert("ServerCertificateExpiring", **WARNING),
            alert("ServerNotTrusted", reason="server_expired"),
            finding("expired", "server"),
        ],
    ),
    "critical says more than a warning, with the finding": (
        [alert("ClientCertificateExpiringSoon"), finding("expired", "client")],
        [alert("ClientCertificateExpiring", **WARNING), finding("expiring", "client")],
    ),
    "a finding that is critical for this org is not hidden by a warning": (
        [alert("ServerCertificateExpiring", **WARNING), finding("expiring", "server")],
        [finding("expiring", "server", "warning")],
    ),
    "an authority that ends first is told once": (
        [
            alert("ClientIntermediateEndsFirst", **WARNING),
            alert("ServerIntermediateEndsFirst", **WARNING),
            finding("ca_expires_before_leaf", "client"),
        ],
        [
            finding("ca_expires_before_leaf", "client", "warning"),
            finding("ca_expires_before_leaf", "server", "warning"),
        ],
    ),
    "a deadline is told once": (
        [alert("SoapLoginRetirement"), alert("ApiVersionRemoval", **WARNING)],
        [alert("SoapLoginRetirement", **WARNING)],
    ),
    "a fast burn is told once": (
        [alert("DoorErrorBudgetBurn"), alert("LoginErrorBudgetBurn")],
        [
            alert("DoorErrorBudgetBurnSlow", **WARNING),
            alert("LoginErrorBudgetBurnSlow", **WARNING),
        ],
    ),
    "a wrong clock is told once": (
        [alert("ClockSkew", **WARNING)],
        [finding("clock_suspect", "", "warning")],
    ),
}


@pytest.mark.component
async def test_of_several_alerts_with_one_cause_one_is_told(tmp_path):
    require_program("prometheus-alertmanager")
    fired = [
        # Each story is that of an agent of its own.
        labels | {"instance": story}
        for story, (told, hidden) in STORIES.items()
        for labels in told + hidden
    ]
    program = await alertmanager(tmp_path, (FOLDER / "alertmanager.example.yml").read_text())
    try:
        async with httpx.AsyncClient(base_url=program.url, trust_env=False) as client:
            posted = [{"labels": labels} for labels in fired]
            (await client.post("/api/v2/alerts", json=posted)).raise_for_status()
            known = (await client.get("/api/v2/alerts")).json()
    finally:
        await program.stop()

    assert len(known) == len(fired)
    for story, (told, _) in STORIES.items():
        active = [
            one["labels"]
            for one in known
            if one["labels"]["instance"] == story and one["status"]["state"] != "suppressed"
        ]
        assert {as_set(labels) for labels in active} == {
            as_set(labels | {"instance": story}) for labels in told
        }, story


def as_set(labels):
    # To Alertmanager an empty label is none.
    return frozenset((name, value) for name, value in labels.items() if value)
