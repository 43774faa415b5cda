"""Situations of login and session, each by its number in the list."""

from __future__ import annotations

import gzip
import re
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from doors import TIMEOUTS
from doors import Stage as Theatre
from making import world

from agent import config
from agent.config import ConfigError
from agent.login.answer import door_request
from agent.login.soap import MAX_ANSWER_BYTES
from agent.policy import evaluate
from agent.probe.dns import Resolver
from agent.probe.http import HttpClient
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Probe, Stage, Success
from agent.simulator.http import Response
from agent.simulator.pki import Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator
from agent.simulator.soap import Asked

ORG = '[orgs.emea]\nhost = "{}"\ncertificate = "emea.pem"\n'
LOGIN = 'username = "ada@example.com"\npassword = {{ env = "P" }}\nlogin_interval = "{}"\n'
DOOR = door_request("/services/Soap/u/64.0")


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    return Theatre(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("login-rows"))


@pytest.fixture
def resolver():
    return Resolver(threads=2)


@pytest.fixture
def refused(tmp_path):
    """Return a reader of a configuration that gives its problems, by key; none when it is good."""

    def load(text):
        (tmp_path / "config.toml").write_text(text)
        try:
            config.load(tmp_path / "config.toml", {})
        except ConfigError as error:
            return {problem.key: problem.message for problem in error.problems}
        return {}

    return load


async def seen(theatre, resolver, scenario, **changes):
    async with Simulator(scenario, theatre.pki) as simulator:
        result = await theatre.cycle(simulator, resolver, **changes)
    return result, simulator.record


# --- where a password may go


@pytest.mark.parametrize(
    "host", ["login.salesforce.com", "test.salesforce.com", "LOGIN.salesforce.com"]
)
def test_y125_salesforces_shared_login_hosts_are_refused_by_the_configuration(host, refused):
    problems = refused(ORG.format(host))

    assert list(problems) == ["orgs.emea.host"]
    assert "My Domain" in problems["orgs.emea.host"]
    assert refused(ORG.format("emea.my.salesforce.com")) == {}


@pytest.mark.parametrize("host", ["login.salesforce.com", "test.salesforce.com"])
def test_y125_a_shared_login_host_is_a_critical_finding_of_the_policy_too(host):
    found = evaluate(world().evidence(host=host)).violations
    (shared,) = (violation for violation in found if violation.rule == "endpoint_not_my_domain")

    assert shared.severity.value == "critical"
    assert "no mutual TLS" in shared.message
    assert "endpoint_not_my_domain" not in {v.rule for v in evaluate(world().evidence()).violations}


# --- answers that are too much, too slow or packed


class Endless:
    """A channel whose far side never stops sending one answer; counts what was taken of it."""

    def __init__(self, head, piece):
        self._next = head
        self._piece = piece
        self.taken = 0

    async def send(self, plaintext):
        assert plaintext.startswith(b"POST ")

    async def receive(self):
        data, self._next = self._next, self._piece
        self.taken += len(data)
        return data


@pytest.mark.parametrize("asked", ["door", "login", "session"])
async def test_y134_an_answer_over_the_cap_is_too_large_wherever_it_comes(asked, theatre, resolver):
    result, record = await seen(theatre, resolver, SCENARIOS[f"{asked}_oversize"])
    failures = {
        probe: outcome.reason
        for probe, outcome in result.outcomes.items()
        if isinstance(outcome, Failure)
    }
    probe = {"door": Probe.HANDSHAKE, "login": Probe.LOGIN, "session": Probe.SESSION}[asked]

    assert failures == {probe: Reason.RESPONSE_TOO_LARGE}
    assert record.logins == (0 if asked == "door" else 1)


async def test_y134_of_an_answer_without_end_no_more_is_taken_than_the_cap():
    piece = b"x" * 16384
    channel = Endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                      b"4000\r\n" + piece + b"\r\n")  # fmt: skip

    answer = await HttpClient(channel, "emea.my.salesforce.com").post(DOOR)

    assert answer == Failure(Reason.RESPONSE_TOO_LARGE, f"more than {MAX_ANSWER_BYTES} bytes")
    assert channel.taken < MAX_ANSWER_BYTES + 100_000


async def test_y134_an_answer_that_unpacks_to_a_hundred_times_the_cap_takes_little_memory():
    packed = gzip.compress(bytes(100 * MAX_ANSWER_BYTES))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    channel = Endless(head.encode() + packed, b"")
    client = HttpClient(channel, "emea.my.salesforce.com")
    tracemalloc.start()
    try:
        answer = await client.post(DOOR)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert answer == Failure(Reason.RESPONSE_TOO_LARGE, f"more than {MAX_ANSWER_BYTES} bytes")
    assert peak < 16 * MAX_ANSWER_BYTES


async def test_y135_a_slow_answer_is_cut_in_time_and_the_stages_up_to_it_are_kept(
    theatre, resolver
):
    limits = replace(TIMEOUTS, http=0.6, cycle=6)
    result, _ = await seen(
        theatre, resolver, SCENARIOS["login_slow_body"], timeouts=limits, refusal_interval=None
    )
    outcome = result.outcomes[Probe.LOGIN]

    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.HTTP_TIMEOUT
    assert list(result.stages) == [
        Stage.DNS, Stage.TCP, Stage.TLS, Stage.CLIENT_AUTH, Stage.DOOR, Stage.LOGIN
    ]  # fmt: skip
    assert 0.5 < result.stages[Stage.LOGIN] < 1.5
    assert sum(result.stages.values()) < limits.cycle
    assert result.client_auth is ClientAuth.ACCEPTED


async def test_y135_the_deadline_of_the_whole_cycle_cuts_a_slow_answer_first(theatre, resolver):
    limits = replace(TIMEOUTS, http=5, cycle=0.8)
    result, _ = await seen(
        theatre, resolver, SCENARIOS["door_slow_body"], timeouts=limits, refusal_interval=None
    )

    assert result.outcomes[Probe.HANDSHAKE].reason is Reason.HTTP_TIMEOUT
    assert sum(result.stages.values()) < 2


@pytest.mark.parametrize("asked", Asked)
async def test_y137_a_compressed_answer_is_read_like_any_other(asked, theatre, resolver):
    result, _ = await seen(theatre, resolver, SCENARIOS[f"{asked}_gzip"])

    assert {type(outcome) for outcome in result.outcomes.values()} == {Success}


async def test_y137_an_answer_that_is_not_compressed_as_it_says_is_refused_in_order(
    theatre, resolver
):
    lie = Response(200, b"<not gzip at all>", headers=(("Content-Encoding", "gzip"),))
    scenario = replace(SCENARIOS["healthy"], answers={Asked.LOGIN: lie})

    result, record = await seen(theatre, resolver, scenario)

    assert result.outcomes[Probe.LOGIN].reason is Reason.HTTP_MALFORMED
    assert result.client_auth is ClientAuth.ACCEPTED
    assert record.logins == 1


# --- how often


def test_y141_a_login_interval_under_the_floor_is_refused_with_the_logins_an_hour_it_makes(
    refused,
):
    org = ORG.format("emea.my.salesforce.com")

    too_often = refused(org + LOGIN.format("30s"))
    over_budget = refused(org + LOGIN.format("60s"))

    assert list(too_often) == ["orgs.emea.login_interval"]
    assert "120 logins an hour" in too_often["orgs.emea.login_interval"]
    assert list(over_budget) == ["orgs.emea.login_interval"]
    assert re.search("60 logins an hour.*allows 30", over_budget["orgs.emea.login_interval"])
    assert refused(org + LOGIN.format("2m")) == {}
