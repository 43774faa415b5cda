"""Every scenario of the one list, against the simulator on loopback."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from doors import Stage

from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import Failure, Probe, Skipped, Success, Undetermined
from agent.simulator.pki import Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return Stage(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("stage"))


@pytest.fixture
def resolver():
    return Resolver(threads=2)


def check_expectations(result, scenario):
    """Compare the whole outcome, so that an unexpected one fails as a missing one does."""
    seen = {}
    for probe, outcome in result.outcomes.items():
        match outcome:
            case Success():
                seen[probe] = None
            case Failure(reason):
                seen[probe] = reason
            case Undetermined():
                seen[probe] = "undetermined"
            case Skipped():
                continue
    expected = {
        probe: "undetermined" if isinstance(wanted, Undetermined) else wanted
        for probe, wanted in scenario.expected.items()
    }
    assert seen == expected, repr(result)
    assert result.client_auth is scenario.expected_client_auth


@pytest.mark.parametrize("name", SCENARIOS)
async def test_every_scenario_is_seen_as_what_it_is(name, stage, resolver):
    async with Simulator(SCENARIOS[name], stage.pki) as simulator:
        result = await stage.cycle(simulator, resolver)

    check_expectations(result, simulator.scenario)
    record = simulator.record
    assert record.session_endings == 0, "a session is shared by everybody who uses this user"
    if Probe.LOGIN not in simulator.scenario.expected:
        assert not record.credentials_seen, "no password before the door has opened"
        assert record.logins == 0
    for probe, outcome in result.outcomes.items():
        if isinstance(outcome, Failure):
            assert outcome.reason not in {Reason.INTERNAL, Reason.UNDETERMINED}, probe
