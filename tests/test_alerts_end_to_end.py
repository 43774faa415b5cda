"""From a door to whoever is woken: the real agent, Prometheus and Alertmanager on loopback.

One agent watches many orgs, each with one defect at first and with none later. A webhook takes
what Alertmanager would tell people.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from conftest import require_program
from fleet import Fleet
from monitoring import (
    ROUTING,
    RULES,
    SCRAPING,
    Api,
    Program,
    Webhook,
    alertmanager,
    hurried_routing,
    hurried_rules,
    hurried_scraping,
    prometheus,
)

from agent.simulator.pki import ClientCertificate
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, Simulator

pytestmark = [pytest.mark.component, pytest.mark.slow]

AGENT = Path(__file__).with_name("hurried_agent.py")
LISTENING = re.compile(r'"event": "started".*"listening": "([^"]+)"')
RUNBOOKS = Path(__file__).parent.parent / "docs" / "runbooks" / "alerts"
RENEWED = "another password"
# A bound for each wait, not a measure.
SECONDS = 30.0

ALWAYS = "SfmtlsWatchdog"
ABSENT = "SfmtlsAgentAbsent"
# Whether these fire is a matter of today's date; promtool's tests cover them.
CALENDAR = {"SfmtlsSoapLoginRetirement", "SfmtlsApiVersionRemoval"}


@dataclass(frozen=True, slots=True)
class Case:
    """What is wrong with an org, and the alerts that somebody must be told of: no others.

    `kept_back` fire too, but are not told, since what is told explains them; `afterwards` are told
    when it is repaired. `keys` are of the org's configuration.
    """

    alerts: set[str]
    scenario: str = "healthy"
    kept_back: set[str] = field(default_factory=set)
    afterwards: set[str] = field(default_factory=set)
    keys: Mapping[str, object] = field(default_factory=dict)


def case(*alerts, scenario="healthy", kept_back=(), afterwards=(), **keys):
    names = [{f"Sfmtls{name}" for name in some} for some in (alerts, kept_back, afterwards)]
    return Case(names[0], scenario, names[1], names[2], keys)


def shut(*alerts, scenario, kept_back=(), **keys):
    """A closed door. When it is open again, what it has cost becomes a ticket."""
    cost = "DoorErrorBudgetBurnSlow"
    return case(*alerts, scenario=scenario, kept_back=(cost, *kept_back), afterwards=[cost], **keys)


def login_fails(*alerts, scenario, kept_back=()):
    """As above, of a login that is tried again and again."""
    cost = "LoginErrorBudgetBurnSlow"
    return case(*alerts, scenario=scenario, kept_back=(cost, *kept_back), afterwards=[cost])


CASES = {
    "healthy": case(),
    # --- every verdict on our certificate
    "rejected": shut(
        "DoorRejected",
        "PolicyViolation",
        scenario="tls13_required_server_auth_only",
        **{"labels.team": "integration", "labels.tier": "1"},
    ),
    "soft-rejected": shut(
        "DoorSoftRejected", "PolicyViolation", scenario="soft_tls13_intermediate_missing"
    ),
    "not-requested": shut("DoorNotRequested", scenario="not_asking"),
    "unconfirmed": shut("DoorUnconfirmed", scenario="door_status_503"),
    "unreachable": shut("DoorUnreachable", scenario="accept_and_hang"),
    "impostor": shut("ServerNotTrusted", scenario="server_unknown_root"),
    # --- what must not be let in
    "open-door": case("DoorDoesNotRefuse", scenario="optional_good", refusal_interval="1s"),
    "not-enforced": case(
        "EnforcementOff", scenario="enforcement_off", enforcement=True, enforcement_interval="1s"
    ),
    # --- certificates and their files
    "expiring": case(
        "ClientCertificateExpiringSoon",
        scenario="tls13_required_expiring",
        kept_back=["ClientCertificateExpiring", "PolicyViolation"],
    ),
    "expired": shut(
        "ClientCertificateExpired",
        scenario="tls13_required_expired",
        kept_back=[
            "ClientCertificateExpiring",
            "ClientCertificateExpiringSoon",
            "DoorRejected",
            "PolicyViolation",
        ],
    ),
    "server-expiring": case(
        "ServerCertificateExpiringSoon",
        scenario="server_expiring",
        kept_back=["ServerCertificateExpiring", "PolicyViolation"],
    ),
    "server-expired": shut(
        "ServerCertificateExpired",
        scenario="server_expired",
        kept_back=[
            "PolicyViolation",
            "ServerCertificateExpiring",
            "ServerCertificateExpiringSoon",
            "ServerNotTrusted",
        ],
    ),
    "key-readable": case("PolicyViolation"),
    "renewal-broken": case("IdentityReloadFailing"),
    # --- behind the door
    "wrong-password": case("LoginBreakerOpen"),
    "password-expired": case(
        "PasswordExpired", scenario="password_expired", kept_back=["LoginBreakerOpen"]
    ),
    "not-now": login_fails("LoginFailing", scenario="restricted_time"),
    "wrong-org": login_fails("WrongOrg", scenario="wrong_organization", kept_back=["LoginFailing"]),
    "not-uploaded": case("SessionRejected", scenario="mutual_auth_failed"),
    "few-logins": case("LoginBudgetLow", logins_per_hour=60),
    "thirsty": case("ApiUsageHigh"),
    "skewed": case("ClockSkew", scenario="clock_ahead", kept_back=["PolicyViolation"]),
    # --- nobody need be told
    "maintained": shut(scenario="door_maintenance_503", kept_back=["DoorUnconfirmed"]),
}
# As often as can be asked, and patient with a machine that has other work.
STANDING = {
    "login_interval": "60s",
    "logins_per_hour": 3600,
    "timeouts.tls": "1500ms",
    "timeouts.http": "1500ms",
    "timeouts.cycle": "1900ms",
}
OF_THE_AGENT = ""
RELOAD_FAILED = {OF_THE_AGENT: {"SfmtlsConfigReloadFailed"}}
AGENT_DOWN = {OF_THE_AGENT: {"SfmtlsAgentDown"}}

_PASSWORDS = """
[orgs.wrong-password.password]
file = "wrong-password.txt"
[orgs.password-expired.password]
file = "expired-password.txt"
"""
_UNUSABLE = "[orgs.nonsense]\n"


class Estate(Fleet):
    """The orgs of CASES, each with its defect until `repair`."""

    def __init__(self, folder):
        super().__init__(folder, interval="2s")
        self._healthy = {}

    async def build(self):
        for name, one in CASES.items():
            self.deploy(SCENARIOS[one.scenario].client_certificate, f"{name}.pem")
            simulator = await self.add(name, one.scenario)
            self.configure(name, **self._keys(name))
            # What takes time is made now: a far side that stands still is a trouble of its own.
            self.deploy(ClientCertificate.GOOD, f"{name}-renewed.pem")
            self._healthy[name] = Simulator(
                SCENARIOS["healthy"],
                self.pki,
                username=simulator.service.username,
                password=RENEWED if name == "password-expired" else PASSWORD,
            )
        self._file("wrong-password.txt", "not the password")
        self._file("expired-password.txt", PASSWORD.reveal())
        self.simulators["thirsty"].service.api_requests_used = 14_000
        (self.folder / "key-readable.pem").chmod(0o644)
        self.write(_PASSWORDS)

    def spoil(self):
        """Do what only shows while an agent runs: a bad renewal, a bad configuration."""
        self._file("renewal-broken.pem", "no certificate")
        self.write(_UNUSABLE)

    def repair(self):
        for name, simulator in self.simulators.items():
            # The certificate first: a good one is right at every door.
            (self.folder / f"{name}-renewed.pem").rename(self.folder / f"{name}.pem")
            become(simulator, self._healthy[name])
        self._file("wrong-password.txt", PASSWORD.reveal())
        self._file("expired-password.txt", RENEWED)
        self.configure("few-logins", **(self._keys("few-logins") | {"logins_per_hour": 3600}))
        self.write(_PASSWORDS)

    def listen(self, address):
        """Have the next agent listen where the last one did."""
        self._head = self._head.replace("127.0.0.1:0", address)
        self.write(_PASSWORDS)

    def _keys(self, name):
        given = CASES[name].keys
        keys = {"certificate": f"{name}.pem", **STANDING}
        if "enforcement" in given:
            keys["enforcement_port"] = self.simulators[name].plain_port
        return keys | given

    def _file(self, name, content):
        (self.folder / name).write_text(content)


def become(simulator, other):
    """Let a simulator that runs play what another would, without closing its port meanwhile.

    A restart would refuse a connection now and then, which is a trouble of its own.
    """
    simulator.scenario = other.scenario
    simulator.server_certificate = other.server_certificate
    simulator.service = other.service
    simulator._verdicts = other._verdicts
    simulator._door_context = other._door_context
    simulator._plain_context = other._plain_context


class Inbox:
    """What the webhook was told, in order, but for what the calendar decides."""

    def __init__(self):
        self._told = []
        self._began = None

    def take(self, told):
        if told.alert not in CALENDAR:
            self._told.append(told)

    def begin(self):
        """Forget that no agent was scraped until now, which is so when Prometheus starts."""
        self._began = datetime.now(UTC)

    @property
    def all(self):
        return [told for told in self._told if told.alert != ABSENT or told.since > self._began]

    def firing(self):
        """Return the alerts that were told and not resolved yet, by org, but for the heartbeat."""
        last = {frozenset(told.labels.items()): told for told in self.all}
        return self._by_org(told for told in last.values() if told.firing)

    def ever(self):
        """Return all alerts that were told, by org, but for the heartbeat."""
        return self._by_org(self.all)

    @staticmethod
    def _by_org(some):
        found = {}
        for told in some:
            if told.alert != ALWAYS:
                found.setdefault(told.org, set()).add(told.alert)
        return found


async def kept_back(program):
    """Return the alerts that Alertmanager knows but inhibits, by org."""
    states = {"active": "false", "silenced": "false", "inhibited": "true"}
    async with httpx.AsyncClient(base_url=program.url, trust_env=False) as client:
        alerts = (await client.get("/api/v2/alerts", params=states)).json()
    found = {}
    for labels in (alert["labels"] for alert in alerts):
        if labels["alertname"] not in CALENDAR:
            found.setdefault(labels.get("org", OF_THE_AGENT), set()).add(labels["alertname"])
    return found


async def until(expected, see):
    """Wait until what is seen is what is expected."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SECONDS
    while (seen := await see()) != expected and loop.time() < deadline:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.1)
    assert seen == expected


def of_the_orgs(what):
    """Return for each org what its case says of alerts, if it says anything."""
    return {name: what(one) for name, one in CASES.items() if what(one)}


@pytest.fixture
def private():
    """Key files must not be readable by others: that is a finding of its own."""
    before = os.umask(0o077)
    yield
    os.umask(before)


async def ready(agent):
    async with httpx.AsyncClient(base_url=agent.url, trust_env=False) as client:

        async def status():
            return (await client.get("/-/ready")).status_code

        await until(200, status)


async def all_is_1(database, metric):
    """Wait until there are samples and each of them is 1."""
    async with Api(database) as api:

        async def least():
            return [sample.value for sample in await api.instant(f"min({metric})")]

        await until([1.0], least)


async def agent_of(estate, log):
    return await Program.start(
        sys.executable, AGENT, estate.file, log=estate.folder / log, listening=LISTENING
    )


@pytest.mark.usefixtures("private")
async def test_every_defect_is_told_as_the_right_alert_and_none_else_until_it_is_repaired(tmp_path):
    require_program("prometheus")
    require_program("prometheus-alertmanager")
    inbox = Inbox()

    async def firing():
        return inbox.firing()

    async def ever():
        return inbox.ever()

    (tmp_path / "rules").mkdir()
    for file in RULES.glob("*.yml"):
        (tmp_path / "rules" / file.name).write_text(hurried_rules(file.read_text()))
    async with AsyncExitStack() as stack:
        estate = Estate(tmp_path)
        stack.push_async_callback(estate.stop)
        await estate.build()
        agent = await agent_of(estate, "agent.log")
        stack.push_async_callback(agent.stop)
        webhook = stack.enter_context(Webhook(inbox.take))
        routing = hurried_routing(ROUTING.read_text(), webhook.url)
        router = await alertmanager(tmp_path, routing)
        stack.push_async_callback(router.stop)
        scraping = hurried_scraping(SCRAPING.read_text(), agent.address, router.address)
        database = await prometheus(tmp_path, scraping)
        stack.push_async_callback(database.stop)
        await ready(agent)
        estate.spoil()
        agent.signal(signal.SIGHUP)
        await all_is_1(database, "up")
        inbox.begin()

        async def inhibited():
            return await kept_back(router)

        await until(of_the_orgs(lambda one: one.alerts) | RELOAD_FAILED, firing)
        await until(of_the_orgs(lambda one: one.kept_back), inhibited)

        estate.repair()
        agent.signal(signal.SIGHUP)
        await until(of_the_orgs(lambda one: one.alerts | one.afterwards) | RELOAD_FAILED, ever)
        await until({}, firing)
        await all_is_1(database, "sfmtls_probe_success")

        agent.signal(signal.SIGKILL)
        await until(AGENT_DOWN, firing)

        estate.listen(agent.address)
        again = await agent_of(estate, "agent-again.log")
        stack.push_async_callback(again.stop)
        await until({}, firing)

    # Nothing else was told meanwhile either, not for a moment.
    of_the_agent = {OF_THE_AGENT: RELOAD_FAILED[OF_THE_AGENT] | AGENT_DOWN[OF_THE_AGENT]}
    assert inbox.ever() == of_the_orgs(lambda one: one.alerts | one.afterwards) | of_the_agent
    assert {told.receiver for told in inbox.all if told.alert == ALWAYS} == {"watchdog"}
    for told in inbox.all:
        tell_all_that_is_needed(told)


def tell_all_that_is_needed(told):
    """Check what the person who is told can read."""
    severity = told.labels["severity"]
    if told.alert != ALWAYS:
        whose = "integration-" if told.labels.get("team") == "integration" else ""
        assert told.receiver == whose + {"critical": "pages", "warning": "tickets"}[severity]
    about = told.org or ("" if told.alert == ALWAYS else told.labels["instance"])
    assert about in told.annotations["summary"]
    assert about in told.annotations["description"]
    assert "What to do: " in told.annotations["description"] or told.alert == ALWAYS
    assert told.annotations["runbook_url"].endswith(f"/docs/runbooks/alerts/{told.alert}.md")
    assert (RUNBOOKS / f"{told.alert}.md").exists()
    if told.org == "rejected":
        assert (told.labels["team"], told.labels["tier"]) == ("integration", "1")
