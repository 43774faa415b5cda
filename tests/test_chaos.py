"""What the metrics say is what happened: checked against the far sides' own record.

`make chaos` runs it, for five minutes with fifty orgs. It takes a machine of its own: where others
work too, the far sides are too slow for cycles of a second.
"""

from __future__ import annotations

import os
from collections import Counter
from http import HTTPStatus

import pytest
from turmoil import Turmoil

from agent.simulator.record import Listener
from agent.simulator.scenario import Door

SECONDS = int(os.environ.get("SFMTLS_CHAOS_SECONDS", "20"))
ORGS = int(os.environ.get("SFMTLS_CHAOS_ORGS", "10"))
BUDGET = 12
STRIKES = 3

# Servers that say in TLS why they refuse a certificate, and those that say it with a page.
ALERTING = {
    Door.TLS12_REQUIRED,
    Door.TLS13_REQUIRED,
    Door.TLS13_REQUIRED_NO_TICKETS,
    Door.OPTIONAL,
}
# And what the agent calls that, or a bare 403.
REFUSED = {
    "client_access_denied",
    "client_cert_unknown_ca",
    "client_cert_bad",
    "client_cert_expired",
    "client_cert_unsupported",
    "client_cert_unknown",
    "client_cert_page",
}


def refusals(records):
    """Return how often the far sides of an org refused a certificate that they were shown.

    So does a bare 403 at the door, although a certificate that is trusted was shown.
    """
    count = 0
    for scenario, record in records:
        count += sum(
            call.operation == "getServerTimestamp" and call.certificate_verified
            for call in record
            if call.status == HTTPStatus.FORBIDDEN
        )
        for seen in record.connections:
            if seen.listener is not Listener.DOOR:
                continue
            if scenario.door in ALERTING:
                count += seen.tls_error == "CERTIFICATE_VERIFY_FAILED"
            elif scenario.door is Door.SOFT:
                count += seen.certificate_presented and not seen.certificate_verified
    return count


def logins(records):
    return sum(record.logins for _, record in records)


@pytest.mark.slow
@pytest.mark.skipif(
    "SFMTLS_CHAOS_SECONDS" not in os.environ, reason="takes a machine of its own: `make chaos`"
)
@pytest.mark.timeout(SECONDS + 120)
async def test_after_chaos_the_metrics_agree_with_what_the_far_sides_saw(tmp_path):
    acts = (
        *(Turmoil.weather,) * 6,
        Turmoil.clear_up,
        *(Turmoil.renew,) * 2,
        *(Turmoil.renew_badly,) * 2,
        Turmoil.change_password,
        Turmoil.scrape,
    )
    async with Turmoil(
        tmp_path,
        seed=7,
        orgs=ORGS,
        acts=acts,
        breaker="",
        logins_per_hour=BUDGET,
        lockout_after=STRIKES,
    ) as agent:
        await agent.go(SECONDS)
        await agent.calm(logins=False)
        samples = await agent.samples()
        internal_errors = await agent.internal_errors()

    told, tried = Counter(), Counter()
    for sample in samples:
        org, probe = sample.labels.get("org"), sample.labels.get("probe")
        if sample.name == "sfmtls_probe_failures_by_reason_total" and probe == "handshake":
            told[org] += sample.value if sample.labels["reason"] in REFUSED else 0
        if sample.name == "sfmtls_probe_attempts_total" and probe == "login":
            tried[org] = sample.value
    locked = [
        name for name, simulator in agent.fleet.simulators.items() if simulator.service.locked
    ]

    assert {name: told[name] for name in agent.names} == {
        name: refusals(agent.records[name]) for name in agent.names
    }
    assert sum(told.values()) > 0
    sent = {name: logins(agent.records[name]) for name in agent.names}
    # A try that broke off before the password was sent costs nothing of the budget, and one more
    # may be under way when the metrics are read.
    beyond = {name: n for name, n in sent.items() if n > min(tried[name] + 1, BUDGET)}
    assert beyond == {}, tried
    assert sum(tried.values()) > len(agent.names)
    assert locked == []
    assert not any(
        record.session_endings for name in agent.names for _, record in agent.records[name]
    )
    assert internal_errors == 0
