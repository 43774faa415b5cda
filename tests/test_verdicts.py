"""The verdict is the product: every door and every client certificate, 40 times out of 40."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from doors import TIMEOUTS, Gate, Stage, expects_login

from agent.probe.dns import Resolver
from agent.result import Failure, Probe
from agent.simulator.door import Door
from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator

TIMES = 40
DUE = frozenset({Probe.HANDSHAKE, Probe.LOGIN, Probe.SESSION})
DOORS = {
    "tls12_required",
    "tls13_required",
    "tls13_required_no_tickets",
    "soft_tls12",
    "soft_tls13",
    "optional",
}
CLIENTS = {
    ClientCertificate.NONE,
    ClientCertificate.UNKNOWN_CA,
    ClientCertificate.EXPIRED,
    ClientCertificate.NOT_YET_VALID,
    ClientCertificate.SERVER_AUTH_ONLY,
    ClientCertificate.INTERMEDIATE_MISSING,
    ClientCertificate.GOOD,
}
NAMES = [f"{door}_{client.value}" for door in sorted(DOORS) for client in sorted(CLIENTS)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return Stage(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("verdicts"))


async def verdicts(stage, scenario):
    """Return the verdicts and reasons of all times, and what the far side saw."""
    resolver = Resolver(1)
    seen = []
    # A door without tickets is silent when it accepts; the wait for its verdict need not be long.
    timeouts = replace(TIMEOUTS, client_auth=0.02)
    async with Simulator(scenario, stage.pki) as simulator:
        org = stage.org(simulator)
        for _ in range(TIMES):
            result = await stage.cycle(
                simulator, resolver, due=DUE, gate=Gate(org), timeouts=timeouts
            )
            outcome = result.outcomes[Probe.HANDSHAKE]
            reason = outcome.reason if isinstance(outcome, Failure) else None
            seen.append((result.client_auth, reason))
    return seen, simulator.record


@pytest.mark.parametrize("name", NAMES)
async def test_the_verdict_is_right_every_time_and_the_refused_send_no_password(name, stage):
    scenario = SCENARIOS[name]

    seen, record = await verdicts(stage, scenario)

    right = (scenario.expected_client_auth, scenario.expected[Probe.HANDSHAKE])
    assert seen == [right] * TIMES
    assert record.credentials_seen is expects_login(scenario)
    assert record.logins == (TIMES if expects_login(scenario) else 0)


@pytest.mark.parametrize("client", sorted(CLIENTS))
async def test_a_door_that_never_asks_is_seen_as_that_whatever_we_hold(client, stage):
    scenario = replace(SCENARIOS["not_asking"], door=Door.NOT_ASKING, client_certificate=client)

    seen, record = await verdicts(stage, scenario)

    right = (scenario.expected_client_auth, scenario.expected[Probe.HANDSHAKE])
    assert seen == [right] * TIMES
    assert not record.credentials_seen


def test_the_matrix_is_whole():
    assert len(NAMES) == 42
    assert set(NAMES) <= set(SCENARIOS)
