"""The agent suspects its own network when no org can be reached, and nothing less."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from datetime import timedelta

import pytest
import structlog
from boards import NOON, STAGES, failed, org, result
from prometheus_client import CollectorRegistry

from agent import logs
from agent.config import AgentSettings
from agent.metrics import Exposition, Instruments
from agent.org import Endpoint
from agent.reason import Reason
from agent.result import Stage
from agent.services import close_services, open_services
from agent.state import Board, NetworkTransition, _Network

MINUTE = timedelta(minutes=1)
UNREACHED = {
    Stage.DNS: (Reason.DNS_TIMEOUT, (Stage.DNS,)),
    Stage.TCP: (Reason.TCP_UNREACHABLE, (Stage.DNS, Stage.TCP)),
    Stage.PROXY: (Reason.PROXY_TIMEOUT, (Stage.PROXY,)),
}


class Watched:
    """A board of orgs, each with a host of its own, and what was told of its network."""

    def __init__(self, *names):
        self.told = []
        self.board = Board(self.told.append)
        self.minutes = 0
        for name in names:
            self.add(name)

    def add(self, name, host=None):
        self.board.add(org(name, endpoint=Endpoint(host or f"{name}.my.salesforce.com")))

    def _record(self, name, **changes):
        self.minutes += 1
        self.board.record(result(name, NOON + self.minutes * MINUTE, **changes))

    def cut_off(self, *names, stage=Stage.TCP):
        reason, stages = UNREACHED[stage]
        for name in names:
            self._record(name, outcomes=failed(reason), stages=dict.fromkeys(stages, 0.1))

    def refused(self, name):
        seen = (Stage.DNS, Stage.TCP, Stage.TLS)
        stages = dict.fromkeys(seen, 0.1)
        self._record(name, outcomes=failed(Reason.CLIENT_CERT_BAD), stages=stages)

    def silent(self, name):
        self._record(name, outcomes=failed(Reason.CLIENT_KEY_MISMATCH), stages={})

    def well(self, name):
        self._record(name)

    @property
    def suspect(self):
        return self.board.network_suspect


@pytest.mark.parametrize("stage", UNREACHED)
def test_when_no_org_is_reached_the_network_is_suspect_from_the_last_of_them_on(stage):
    watched = Watched("emea", "apac", "amer")

    watched.cut_off("emea", "apac", stage=stage)
    assert watched.suspect is False
    watched.cut_off("amer", stage=stage)

    assert watched.suspect is True
    assert watched.told == [NetworkTransition(suspect=True, orgs=3)]


def test_it_is_told_once_and_its_end_once_with_how_long_it_lasted():
    watched = Watched("emea", "apac")
    watched.cut_off("emea", "apac", "emea", "apac", "emea")
    assert len(watched.told) == 1

    watched.well("apac")
    watched.well("emea")

    assert watched.suspect is False
    assert watched.told[1:] == [NetworkTransition(suspect=False, orgs=0, lasted=4 * MINUTE)]


@pytest.mark.parametrize("answer", [Watched.well, Watched.refused])
def test_one_org_that_is_reached_clears_the_network_whatever_the_server_says(answer):
    watched = Watched("emea", "apac", "amer")
    watched.cut_off("emea", "apac")
    answer(watched, "amer")
    watched.cut_off("emea", "apac")

    assert watched.suspect is False
    watched.cut_off("amer")
    assert watched.suspect is True


def test_all_must_fail_since_any_was_last_reached_so_that_old_failures_prove_nothing():
    watched = Watched("emea", "apac")
    # Its next cycle is in an hour.
    watched.cut_off("emea")
    watched.well("apac")
    watched.cut_off("apac")

    assert watched.suspect is False
    watched.cut_off("emea")
    assert watched.suspect is True


def test_an_org_that_has_had_no_cycle_yet_is_waited_for_but_ends_no_suspicion():
    watched = Watched("emea", "apac", "amer")
    watched.cut_off("emea", "apac")
    assert watched.suspect is False

    watched.cut_off("amer")
    watched.add("latam")

    assert watched.suspect is True
    assert len(watched.told) == 1


def test_a_single_org_proves_nothing_of_the_network():
    watched = Watched("emea")
    watched.cut_off("emea", "emea")
    assert watched.suspect is None

    watched.add("apac")
    assert watched.suspect is False
    watched.cut_off("apac")
    assert watched.suspect is True


def test_orgs_of_one_host_prove_no_more_than_one_org():
    watched = Watched()
    watched.add("emea", "one.my.salesforce.com")
    watched.add("emea-with-another-key", "one.my.salesforce.com")
    watched.cut_off("emea", "emea-with-another-key")
    assert watched.suspect is False

    watched.add("apac", "another.my.salesforce.com")
    watched.cut_off("apac")
    assert watched.suspect is True


def test_an_org_of_which_nothing_was_sent_tells_nothing_either_way():
    watched = Watched("emea", "apac", "without-a-key")
    watched.cut_off("emea", "apac")
    watched.silent("without-a-key")
    assert watched.suspect is True

    watched.well("emea")
    watched.silent("apac")
    watched.cut_off("emea")
    assert watched.suspect is False, "one that fails and two that tell nothing"


def test_a_reload_that_removes_the_only_org_that_was_reached_leaves_those_that_are_not():
    watched = Watched("emea", "apac", "amer")
    watched.well("amer")
    watched.cut_off("emea", "apac")
    assert watched.suspect is False

    watched.board.remove("amer")
    assert watched.suspect is True

    watched.board.remove("apac")
    assert watched.suspect is None
    assert [change.suspect for change in watched.told] == [True, False]


def test_an_org_that_comes_back_under_its_old_name_must_fail_anew():
    watched = Watched("emea", "apac", "amer")
    watched.cut_off("emea", "apac")
    watched.board.remove("apac")
    watched.add("apac")
    watched.cut_off("amer")

    assert watched.suspect is False
    watched.cut_off("apac")
    assert watched.suspect is True


def test_a_result_of_an_org_that_was_replaced_meanwhile_tells_nothing():
    watched = Watched("emea", "apac")
    old = watched.board.get("apac").org
    watched.board.replace(replace(old, interval=300.0))
    watched.cut_off("emea")
    changes = {"outcomes": failed(Reason.TCP_TIMEOUT), "stages": {Stage.TCP: 10.0}}
    watched.board.record(result("apac", **changes), of=old)

    assert watched.suspect is False


class Counted(str):
    """A name that counts how often anybody looks at one."""

    __slots__ = ()
    looks = 0

    def __hash__(self):
        Counted.looks += 1
        return str.__hash__(self)

    def __eq__(self, other):
        Counted.looks += 1
        return str.__eq__(self, other)

    def __ne__(self, other):
        Counted.looks += 1
        return str.__ne__(self, other)


@pytest.mark.parametrize("found", [{Stage.TCP: 1.0}, STAGES, {}], ids=["lost", "well", "silent"])
def test_a_cycle_looks_at_no_more_orgs_when_there_are_thousands(found):
    def looks(orgs):
        network = _Network()
        names = [Counted(f"org{number}") for number in range(orgs)]
        hosts = [Counted(f"{name}.my.salesforce.com") for name in names]
        for name, host in zip(names, hosts, strict=True):
            network.heard(result(name, stages={Stage.TCP: 1.0}), host, orgs)
        assert network.suspect
        Counted.looks = 0
        network.heard(result(names[-1], stages=found), hosts[-1], orgs)
        return Counted.looks

    assert 0 < looks(5_000) == looks(5)


# --- what others see of it


def exposed(board):
    text = Exposition(board, Instruments(CollectorRegistry())).render(NOON, openmetrics=False)
    return [
        line
        for line in text.decode().splitlines()
        if line.startswith("sfmtls_agent_network_suspect")
    ]


def test_the_gauge_is_absent_for_a_single_org_else_0_or_1():
    watched = Watched("emea")
    assert exposed(watched.board) == []

    watched.add("apac")
    assert exposed(watched.board) == ["sfmtls_agent_network_suspect 0.0"]
    watched.cut_off("emea", "apac")
    assert exposed(watched.board) == ["sfmtls_agent_network_suspect 1.0"]
    watched.well("emea")
    assert exposed(watched.board) == ["sfmtls_agent_network_suspect 0.0"]


@pytest.fixture
def log():
    stream = io.StringIO()
    logs.configure("info", "logfmt", stream)
    yield stream
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, logs._Handler)]:
        root.removeHandler(handler)
    structlog.reset_defaults()


async def test_the_services_log_it_once_when_it_begins_and_once_when_it_ends(log, tmp_path):
    calls = []
    settings = AgentSettings(state_directory=tmp_path)
    services = open_services(settings, {}, network_changed=lambda: calls.append(1))
    for name in ("emea", "apac"):
        services.board.add(org(name, endpoint=Endpoint(f"{name}.my.salesforce.com")))
    lost = {"outcomes": failed(Reason.TCP_TIMEOUT), "stages": {Stage.TCP: 10.0}}
    for minute in range(3):
        services.board.record(result("emea", NOON + minute * MINUTE, **lost))
        services.board.record(result("apac", NOON + minute * MINUTE, **lost))
    begun = log.getvalue().splitlines()
    for name in ("emea", "apac"):
        services.board.record(result(name, NOON + 5 * MINUTE, stages=STAGES))
    await close_services(services)
    ended = log.getvalue().splitlines()[len(begun) :]

    (line,) = [line for line in begun if "network" in line]
    assert "level=warning" in line
    assert "orgs=2" in line
    (line,) = [line for line in ended if "network" in line]
    assert "level=info" in line
    assert "lasted=0:05:00" in line
    assert calls == [1, 1]
