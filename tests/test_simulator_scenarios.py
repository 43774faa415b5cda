from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from agent.reason import Reason
from agent.result import ClientAuth, Probe, Undetermined
from agent.simulator.door import Door
from agent.simulator.pki import ClientCertificate, ServerCertificate
from agent.simulator.scenario import SCENARIOS, Scenario, add, scenario


def test_healthy_is_healthy():
    healthy = SCENARIOS["healthy"]

    assert healthy.expected_client_auth is ClientAuth.ACCEPTED
    assert healthy.expected == {
        Probe.HANDSHAKE: None,
        Probe.LOGIN: None,
        Probe.SESSION: None,
        Probe.REFUSAL: None,
    }


def test_two_scenarios_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two scenarios healthy"):
        add("healthy", "Another.", lambda base: base)


def test_a_scenario_without_docstring_is_refused():
    def nameless(base: Scenario) -> Scenario:
        return base

    with pytest.raises(ValueError, match="scenario nameless has no docstring"):
        scenario(nameless)
    assert "nameless" not in SCENARIOS


def test_the_list_cannot_be_changed_from_outside():
    assert isinstance(SCENARIOS, Mapping)
    with pytest.raises(TypeError):
        SCENARIOS["mine"] = SCENARIOS["healthy"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_named_explained_and_expects_something_consistent(name):
    case = SCENARIOS[name]

    assert case.name == name
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert case.summary.endswith((".", ")"))
    assert Probe.HANDSHAKE in case.expected
    for expectation in case.expected.values():
        assert expectation is None or isinstance(expectation, Reason | Undetermined)
    opened = case.expected[Probe.HANDSHAKE] is None
    assert opened is (case.expected_client_auth is ClientAuth.ACCEPTED)
    if not opened:
        assert set(case.expected) == {Probe.HANDSHAKE}
    else:
        assert {Probe.LOGIN, Probe.REFUSAL} <= set(case.expected)
        logged_in = case.expected[Probe.LOGIN] is None
        assert logged_in is (Probe.SESSION in case.expected)


def test_every_door_and_every_certificate_has_a_scenario():
    assert {case.door for case in SCENARIOS.values()} == set(Door)
    presented = {case.client_certificate for case in SCENARIOS.values()}
    assert presented == set(ClientCertificate)
    served = {case.server_certificate for case in SCENARIOS.values()}
    assert served == set(ServerCertificate)


def test_every_door_that_judges_meets_every_client_certificate():
    for door in (
        Door.TLS12_REQUIRED,
        Door.TLS13_REQUIRED,
        Door.TLS13_REQUIRED_NO_TICKETS,
        Door.SOFT,
        Door.OPTIONAL,
        Door.CLOSING_WITHOUT_ALERT,
        Door.CLOSING_WITH_NOTIFY,
    ):
        met = {case.client_certificate for case in SCENARIOS.values() if case.door is door}
        assert met == set(ClientCertificate), door


@pytest.mark.parametrize("base", [SCENARIOS["healthy"]])
def test_a_scenario_prints_as_its_name(base):
    assert repr(base) == "<Scenario healthy>"
