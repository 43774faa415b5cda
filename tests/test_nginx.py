"""A server that nobody here wrote: nginx from Debian, with client certificates required."""

from __future__ import annotations

import os
import socket
import subprocess
from datetime import UTC, datetime

import pytest
from conftest import require_program
from doors import Gate
from doors import Stage as Theatre

from agent.org import Endpoint
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Probe, Success
from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator

pytestmark = pytest.mark.component

ANSWER = """\
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" \
xmlns="urn:partner.soap.sforce.com"><soapenv:Body><loginResponse><result>\
<passwordExpired>false</passwordExpired><sessionId>00Dx!AQstatic</sessionId>\
<userId>005x</userId><userInfo><organizationId>00D000000000001EAA</organizationId></userInfo>\
</result></loginResponse></soapenv:Body></soapenv:Envelope>"""

CONFIG = """\
daemon off;
error_log stderr notice;
pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log combined;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    log_format calls '$http_soapaction $status';
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_protocols {protocol};
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.pem;
        ssl_client_certificate {folder}/client-root.pem;
        ssl_verify_client on;
        ssl_verify_depth 3;
        access_log {folder}/calls.log calls;
        default_type text/xml;
        location / {{ return 200 '{answer}'; }}
    }}
}}
"""

REFUSED = [
    ClientCertificate.NONE,
    ClientCertificate.UNKNOWN_CA,
    ClientCertificate.EXPIRED,
    ClientCertificate.INTERMEDIATE_MISSING,
]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    return Theatre(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("nginx-stage"))


@pytest.fixture(scope="module", params=["TLSv1.2", "TLSv1.3"])
def nginx(request, theatre, tmp_path_factory):
    """Start nginx for one TLS version; give its port and the log of what was called."""
    program = require_program("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    server = theatre.pki.server()
    (folder / "server.pem").write_bytes(server.chain_pem() + server.key_pem())
    (folder / "client-root.pem").write_bytes(theatre.pki.clients.root_pem())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(
        CONFIG.format(folder=folder, port=port, protocol=request.param, answer=ANSWER)
    )
    if os.geteuid() == 0:
        # The workers drop to an unprivileged user, who must be able to write the folders.
        config.write_text("user root;\n" + config.read_text())
    process = subprocess.Popen([program, "-c", config], stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_it_listens(process)
        yield request.param, port, folder / "calls.log"
    finally:
        process.terminate()
        process.wait(10)
        process.stderr.close()


def _wait_until_it_listens(process):
    told = []
    for line in process.stderr:
        told.append(line)
        if "start worker process " in line:
            return
    pytest.fail("nginx ended: " + "".join(told))


async def knock(theatre, port, client):
    resolver = Resolver(1)
    scenario = SCENARIOS["healthy"]
    # The simulator is not started: only its names and credentials are used here.
    simulator = Simulator(scenario, theatre.pki, port=port)
    endpoint = Endpoint("healthy.my.salesforce.com", connect_to=("127.0.0.1", port))
    org = theatre.org(simulator, endpoint=endpoint, organization_id=None)
    gate = Gate(org)
    simulator.scenario = scenario.__class__(
        scenario.name, scenario.summary, client_certificate=client
    )
    result = await theatre.cycle(
        simulator, resolver, gate=gate, endpoint=endpoint, organization_id=None
    )
    return result, gate


async def test_a_good_client_is_accepted_and_everything_works(nginx, theatre):
    version, port, log = nginx

    result, gate = await knock(theatre, port, ClientCertificate.GOOD)

    assert result.client_auth is ClientAuth.ACCEPTED, repr(result)
    assert result.handshake.tls_version == version
    assert result.handshake.acceptable_issuers == (
        theatre.pki.clients.root.subject.rfc4514_string(),
    )
    assert isinstance(result.outcomes[Probe.LOGIN], Success)
    assert isinstance(result.outcomes[Probe.SESSION], Success)
    assert isinstance(result.outcomes[Probe.REFUSAL], Success)
    assert len(gate.ended) == 1
    assert "login 200" in log.read_text()


@pytest.mark.parametrize("client", REFUSED)
async def test_a_bad_client_is_refused_before_a_password_is_sent(client, nginx, theatre):
    _, port, log = nginx
    before = log.read_text().count("login") if log.exists() else 0

    result, gate = await knock(theatre, port, client)

    outcome = result.outcomes[Probe.HANDSHAKE]
    assert result.client_auth is ClientAuth.SOFT_REJECTED, repr(result)
    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.CLIENT_CERT_PAGE
    text = "No required SSL certificate was sent"
    assert (text in outcome.detail) is (client is ClientCertificate.NONE)
    assert result.server_chain, "the server's chain is known all the same"
    assert gate.ended == [], "no login was even admitted"
    assert log.read_text().count("login") == before
