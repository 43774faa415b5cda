"""Situations of our own certificate, each by its number in the list."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import simulator_client
from cryptography.hazmat.primitives.serialization import Encoding
from doors import TIMEOUTS, Gate
from doors import Stage as Theatre
from fleet import Fleet
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from agent import config, identity, inspection, once
from agent.credentials import Secret
from agent.identity import IdentityError
from agent.judge import Judge
from agent.metrics import Exposition, Instruments
from agent.org import ClientIdentity, Endpoint, FromFile, TlsVersion, TrustAnchors
from agent.policy.tables import shipped_tables
from agent.probe import messages
from agent.probe.dns import Resolver
from agent.probe.handshake import Handshake, ObservedTls, observe
from agent.probe.tls import client_context
from agent.reason import Reason
from agent.result import (
    ClientAuth,
    Failure,
    HandshakeOutcome,
    Probe,
    ProbeResult,
    Stage,
    Success,
    Undetermined,
)
from agent.simulator.channel import TlsChannel
from agent.simulator.door import Door
from agent.simulator.pki import ClientCertificate, KeyForm, KeyKind, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator, _server_context
from agent.state import Board

PASSPHRASE = "canary passphrase"
VERSIONS = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}
each_version = pytest.mark.parametrize("version", ["tls12", "tls13"])


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    return Theatre(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("client-rows"))


@pytest.fixture(scope="module")
def rsa_pki():
    return Pki.create(datetime.now(UTC), KeyKind.RSA)


@pytest.fixture
def resolver():
    return Resolver(threads=2)


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    await fleet.stop()


async def seen(theatre, resolver, name, **changes):
    """Run one cycle of a scenario; return its result and what the far side noted."""
    async with Simulator(SCENARIOS[name], theatre.pki) as simulator:
        result = await theatre.cycle(simulator, resolver, **changes)
    return result, simulator.record


def failed(result, probe=Probe.HANDSHAKE):
    outcome = result.outcomes[probe]
    assert isinstance(outcome, Failure), repr(result)
    return outcome


def assert_refused(result, record, reason, alert):
    assert failed(result).reason is reason
    assert result.client_auth is ClientAuth.REJECTED
    assert result.handshake.alert == alert
    assert not record.credentials_seen
    assert Probe.LOGIN not in {p for p, o in result.outcomes.items() if isinstance(o, Success)}


def local_findings(theatre, defect):
    """Return what `check` says of a certificate with this defect, before any connection."""
    # Not started: it only says where the org is.
    nowhere = Simulator(SCENARIOS["healthy"], theatre.pki)
    org = theatre.org(nowhere, identity=theatre.source(defect), login=None)
    found = inspection.inspect(org, os.environ)
    assert found.problems == ()
    return {violation.rule: violation for violation in found.judgement.violations}


async def cycled(fleet):
    """Run one cycle of every org of the fleet, as the `probe` command does."""
    settings = config.load(fleet.file)
    orgs = list(settings.orgs.values())
    cycles = await once.probe(settings, orgs, login=True, advance=lambda _: None)
    return settings, [(result, judgement.violations) for result, judgement in cycles]


def rules(violations):
    return {(found.rule, found.side.value, found.severity.value) for found in violations}


# --- accepted and refused


async def test_y062_a_good_certificate_is_accepted_by_a_tls_1_2_door(theatre, resolver):
    result, record = await seen(theatre, resolver, "tls12_required_good")

    assert result.client_auth is ClientAuth.ACCEPTED
    assert result.handshake.tls_version == "TLSv1.2"
    assert isinstance(result.outcomes[Probe.HANDSHAKE], Success)
    assert record.logins == 1


@pytest.mark.parametrize(
    ("name", "ticket"),
    [("tls13_required_good", True), ("tls13_required_no_tickets_good", False)],
)
async def test_y063_a_good_certificate_is_accepted_by_a_tls_1_3_door_with_and_without_tickets(
    name, ticket, theatre, resolver
):
    result, record = await seen(theatre, resolver, name)

    assert result.client_auth is ClientAuth.ACCEPTED
    assert result.handshake.tls_version == "TLSv1.3"
    assert result.handshake.session_ticket is ticket
    assert Stage.DOOR in result.stages, "the application has answered"
    assert record.logins == 1


async def test_y064_no_certificate_at_a_tls_1_2_door_is_told_with_the_alert_before_any_login(
    theatre, resolver
):
    result, record = await seen(theatre, resolver, "tls12_required_none")

    assert_refused(result, record, Reason.CLIENT_CERT_REQUIRED, "handshake_failure")
    assert not result.handshake.certificate_sent


async def test_y065_no_certificate_at_a_tls_1_3_door_is_no_success_but_seen_after_the_handshake(
    theatre, resolver
):
    result, record = await seen(theatre, resolver, "tls13_required_none")

    assert_refused(result, record, Reason.CLIENT_CERT_REQUIRED, "certificate_required")
    assert list(result.stages)[-1] is Stage.CLIENT_AUTH
    assert result.handshake.tls_version == "TLSv1.3"


async def test_y067_an_unknown_authority_has_the_same_reason_in_tls_1_3_as_in_tls_1_2(
    theatre, resolver
):
    results = {}
    for version in ("tls12", "tls13"):
        result, record = await seen(theatre, resolver, f"{version}_required_unknown_ca")
        assert_refused(result, record, Reason.CLIENT_CERT_UNKNOWN_CA, "unknown_ca")
        results[version] = result

    assert list(results["tls13"].stages)[-1] is Stage.CLIENT_AUTH
    assert failed(results["tls12"]) == failed(results["tls13"])


@each_version
async def test_y068_a_certificate_for_servers_only_is_refused_and_our_rule_says_so_beforehand(
    version, theatre, resolver
):
    beforehand = local_findings(theatre, ClientCertificate.SERVER_AUTH_ONLY)
    result, record = await seen(theatre, resolver, f"{version}_required_server_auth_only")

    assert "eku_no_client_auth" in beforehand
    assert "eku_no_client_auth" not in local_findings(theatre, ClientCertificate.GOOD)
    assert_refused(result, record, Reason.CLIENT_CERT_UNSUPPORTED, "unsupported_certificate")


@each_version
async def test_y069_an_expired_certificate_is_refused_and_our_rule_says_so_beforehand(
    version, theatre, resolver
):
    beforehand = local_findings(theatre, ClientCertificate.EXPIRED)
    result, record = await seen(theatre, resolver, f"{version}_required_expired")

    assert beforehand["expired"].side.value == "client"
    assert "expired" not in local_findings(theatre, ClientCertificate.GOOD)
    assert_refused(result, record, Reason.CLIENT_CERT_EXPIRED, "certificate_expired")


@each_version
async def test_y070_a_leaf_sent_alone_is_told_from_a_wrong_authority_by_our_rule(
    version, theatre, resolver
):
    alone = local_findings(theatre, ClientCertificate.INTERMEDIATE_MISSING)
    wrong = local_findings(theatre, ClientCertificate.UNKNOWN_CA)
    result, record = await seen(theatre, resolver, f"{version}_required_intermediate_missing")

    assert_refused(result, record, Reason.CLIENT_CERT_UNKNOWN_CA, "unknown_ca")
    assert "intermediate" in failed(result).reason.remedy
    assert "CN=Simulated Client Intermediate" in alone["leaf_only"].message
    assert "leaf_only" not in wrong


class Wire:
    """A server in memory that lets in who it trusts and keeps the Certificate message it got."""

    def __init__(self, pki, version, asks=ssl.CERT_REQUIRED):
        context = _server_context(pki.server())
        context.load_verify_locations(cadata=pki.clients.root_pem().decode())
        context.verify_mode = asks
        context.minimum_version = context.maximum_version = VERSIONS[version]
        observe(context)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        assert isinstance(self.tls, ObservedTls)

    def exchange(self, data):
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    @property
    def certificates(self):
        return messages.server_chain(*self.tls.chain_message)


@pytest.mark.parametrize("version", TlsVersion)
def test_y071_a_chain_in_the_wrong_order_goes_on_the_wire_as_it_is_and_our_rule_says_so(
    version, theatre
):
    far = Wire(theatre.pki, version)
    keys = theatre.keys(ClientCertificate.WRONG_ORDER)
    near = Handshake(keys.presenting, "localhost")
    for _ in range(3):
        if answer := far.exchange(near.to_send()):
            near.receive(answer)
    found = local_findings(theatre, ClientCertificate.WRONG_ORDER)

    assert near.outcome.client_auth is ClientAuth.ACCEPTED, "OpenSSL puts it in order itself"
    assert far.certificates == keys.chain
    assert [facts.is_ca for facts in far.certificates] == [False, True, True]
    assert far.certificates[1].self_issued, "the root stands in the middle"
    assert found["chain_out_of_order"].severity.value == "critical"
    assert "chain_out_of_order" not in local_findings(theatre, ClientCertificate.GOOD)


# --- doors that do not insist


async def test_y073_a_door_that_does_not_insist_fails_the_refusal_probe_and_is_a_finding(fleet):
    await fleet.add("lax", "optional_good")
    await fleet.add("strict", "tls13_required_good")
    _, ((lax, found), (strict, none)) = await cycled(fleet)

    assert lax.client_auth is ClientAuth.ACCEPTED
    assert failed(lax, Probe.REFUSAL).reason is Reason.DOOR_OPEN_WITHOUT_CERTIFICATE
    assert ("door_open_without_certificate", "", "critical") in rules(found)
    assert isinstance(strict.outcomes[Probe.REFUSAL], Success)
    assert "door_open_without_certificate" not in {violation.rule for violation in none}


async def test_y074_a_server_that_does_not_ask_for_a_certificate_is_seen_and_is_a_finding(fleet):
    simulator = await fleet.add("emea", "not_asking")
    _, ((result, found),) = await cycled(fleet)

    assert result.client_auth is ClientAuth.NOT_REQUESTED
    assert failed(result).reason is Reason.CLIENT_NOT_REQUESTED
    assert ("client_certificate_not_requested", "", "critical") in rules(found)
    assert not simulator.record.credentials_seen


@each_version
async def test_y075_the_certificate_error_page_of_a_soft_door_is_read_before_any_login(
    version, theatre, resolver
):
    result, record = await seen(theatre, resolver, f"soft_{version}_none")
    well, _ = await seen(theatre, resolver, f"soft_{version}_good")

    assert result.client_auth is ClientAuth.SOFT_REJECTED
    assert failed(result).reason is Reason.CLIENT_CERT_PAGE
    assert failed(result).detail == "No client certificate provided."
    assert list(result.stages)[-1] is Stage.DOOR
    assert record.logins == 0
    assert not record.credentials_seen
    assert well.client_auth is ClientAuth.ACCEPTED


async def test_y077_a_refusal_is_proven_by_a_good_certificate_that_has_just_passed(
    theatre, resolver
):
    proven, record = await seen(theatre, resolver, "tls13_required_good")
    unproven, _ = await seen(theatre, resolver, "tls13_required_unknown_ca")

    assert isinstance(proven.outcomes[Probe.HANDSHAKE], Success), "the control"
    assert isinstance(proven.outcomes[Probe.REFUSAL], Success)
    assert "client_cert_required" in proven.outcomes[Probe.REFUSAL].detail
    assert [c.certificate_presented for c in record.connections] == [True, False]
    assert not isinstance(unproven.outcomes[Probe.REFUSAL], Success)


async def test_y077_an_outage_after_the_good_certificate_has_passed_proves_nothing(
    theatre, resolver
):
    class ThenGone(Gate):
        async def done(self, outcome):
            await super().done(outcome)
            simulator.scenario = replace(simulator.scenario, door=Door.ACCEPT_AND_CLOSE)

    async with Simulator(SCENARIOS["tls13_required_good"], theatre.pki) as simulator:
        gate = ThenGone(theatre.org(simulator))
        result = await theatre.cycle(simulator, resolver, gate=gate)

    assert isinstance(result.outcomes[Probe.HANDSHAKE], Success)
    assert isinstance(result.outcomes[Probe.REFUSAL], Undetermined)
    assert "tls_eof" in result.outcomes[Probe.REFUSAL].detail


# --- how a refusal arrives


@pytest.mark.parametrize(
    ("number", "name", "reason"),
    [
        (116, "certificate_required", Reason.CLIENT_CERT_REQUIRED),
        (42, "bad_certificate", Reason.CLIENT_CERT_BAD),
        (48, "unknown_ca", Reason.CLIENT_CERT_UNKNOWN_CA),
        (40, "handshake_failure", Reason.TLS_HANDSHAKE_FAILURE),
        (199, "199", Reason.TLS_HANDSHAKE_FAILURE),
    ],
)
def test_y080_an_alert_has_its_name_and_reason_and_an_unknown_one_keeps_its_number(
    number, name, reason, theatre
):
    far = Wire(theatre.pki, TlsVersion.TLS_1_2)
    near = Handshake(theatre.keys(ClientCertificate.GOOD).presenting, "localhost")
    near.receive(far.exchange(near.to_send()))
    assert near.to_send(), "our certificate is on its way"
    near.receive(bytes([21, 3, 3, 0, 2, 2, number]))  # RFC 5246 §7.2: a fatal alert, in clear

    assert near.outcome.alert == name
    assert near.outcome.failure.reason is reason
    assert name in near.outcome.failure.detail
    assert near.outcome.client_auth is not ClientAuth.ACCEPTED


class Refusing:
    """A TLS 1.3 server that refuses every client in a way of its own."""

    def __init__(self, pki, refuse):
        self._context = _server_context(pki.server())
        self._context.load_verify_locations(cadata=pki.clients.root_pem().decode())
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._refuse = refuse
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        channel = TlsChannel(reader, writer, 5, self._context)
        try:
            await self._refuse(channel)
        finally:
            await channel.close()


async def alert_then_reset(channel):
    with pytest.raises(ssl.SSLError):
        await channel.handshake()
    channel.reset()


async def reset_without_alert(channel):
    with pytest.raises(ssl.SSLError):
        await channel.handshake(send_alert=False)
    channel.reset()


async def alert_in_answer_to_the_request(channel):
    """Look at the client's certificate only when its first request is there, as busy servers do."""
    channel._incoming.write(await channel.read_raw())
    with pytest.raises(ssl.SSLWantReadError):
        channel.tls.do_handshake()
    await channel._flush()
    certificate = await channel.read_raw()
    request = await channel.read_raw()
    channel._incoming.write(certificate + request)
    with pytest.raises(ssl.SSLError):
        channel.tls.do_handshake()
    await channel._flush()
    await channel.finish_raw()


async def knock(theatre, resolver, port, defect):
    """Run one cycle at a port with a certificate that has a defect."""
    scenario = replace(SCENARIOS["healthy"], client_certificate=defect)
    # Not started: it only says where the org is.
    simulator = Simulator(scenario, theatre.pki, port=port)
    timeouts = replace(TIMEOUTS, client_auth=0.05)
    return await theatre.cycle(simulator, resolver, timeouts=timeouts)


@pytest.mark.parametrize(
    ("refuse", "verdict", "reason"),
    [
        (alert_then_reset, ClientAuth.REJECTED, Reason.CLIENT_CERT_UNKNOWN_CA),
        (reset_without_alert, ClientAuth.UNCONFIRMED, Reason.TCP_RESET),
    ],
)
async def test_y081_a_reset_after_our_certificate_is_never_a_success_and_hides_no_alert(
    refuse, verdict, reason, theatre, resolver
):
    async with Refusing(theatre.pki, refuse) as server:
        for _ in range(20):
            result = await knock(theatre, resolver, server.port, ClientCertificate.UNKNOWN_CA)

            assert failed(result).reason is reason
            assert result.client_auth is verdict
            assert Stage.LOGIN not in result.stages


async def test_y102_a_refusal_that_only_answers_our_http_request_has_the_same_reason(
    theatre, resolver
):
    async with Refusing(theatre.pki, alert_in_answer_to_the_request) as server:
        for _ in range(20):
            result = await knock(theatre, resolver, server.port, ClientCertificate.UNKNOWN_CA)

            assert Stage.DOOR in result.stages, "the request was on its way"
            assert failed(result) == Failure(Reason.CLIENT_CERT_UNKNOWN_CA, "alert unknown_ca")
            assert result.client_auth is ClientAuth.REJECTED
            assert result.handshake.alert == "unknown_ca"
            assert Stage.LOGIN not in result.stages


async def test_y105_without_tickets_the_verdict_is_open_after_tls_and_there_after_the_request(
    theatre, resolver
):
    result, _ = await seen(theatre, resolver, "tls13_required_no_tickets_good")

    assert result.handshake.client_auth is ClientAuth.UNCONFIRMED
    assert result.client_auth is ClientAuth.ACCEPTED
    assert isinstance(result.outcomes[Probe.HANDSHAKE], Success)


async def test_y106_a_client_that_looks_at_tls_only_is_let_in_where_we_are_refused_by_a_page(
    theatre, resolver
):
    name = "soft_tls13_unknown_ca"
    async with Simulator(SCENARIOS[name], simulator_client.pki()) as simulator:
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        heard = await simulator_client.hear(simulator, ClientCertificate.NONE, request)
    result, record = await seen(theatre, resolver, name)

    assert (heard.step, heard.version) == ("", "TLSv1.3"), "TLS alone sees an open door"
    assert result.handshake.client_auth is ClientAuth.ACCEPTED, "and so does ours, at that point"
    assert result.client_auth is ClientAuth.SOFT_REJECTED
    assert failed(result).reason is Reason.CLIENT_CERT_PAGE
    assert not record.credentials_seen


# --- what the server lists


@pytest.mark.parametrize(
    ("listed", "warned"),
    [
        ((), False),
        (("CN=Somebody Else",), True),
        (("CN=Somebody Else", "CN=Simulated Client Root,O=Simulator"), False),
        (("CN=Simulated Client Intermediate,O=Simulator",), False),
    ],
)
def test_y101_a_list_of_authorities_without_ours_is_a_warning_and_an_empty_list_is_none(
    listed, warned, theatre
):
    org = theatre.org(Simulator(SCENARIOS["healthy"], theatre.pki), trust=TrustAnchors())
    # With the root in the file the whole path is known.
    presented = theatre.keys(ClientCertificate.WRONG_ORDER).chain
    handshake = HandshakeOutcome(
        ClientAuth.ACCEPTED, certificate_requested=True, acceptable_issuers=listed
    )
    now = datetime.now(UTC)
    result = ProbeResult(
        org.name, now, {}, handshake=handshake, client_auth=ClientAuth.ACCEPTED,
        client_chain=presented,
    )  # fmt: skip
    found = Judge(org, shipped_tables()).judge(result, None, now).judgement.violations

    assert (("issuer_not_accepted", "client", "warning") in rules(found)) is warned


# --- files


def write(folder, certificate, key=None, passphrase=None):
    """Write certificate and key, in one file when the key is None; return where they are."""
    (folder / "certificate.pem").write_bytes(certificate)
    where = FromFile(str(folder / "certificate.pem"))
    if key is None:
        return ClientIdentity(where, where)
    (folder / "key.pem").write_bytes(key)
    source = None
    if passphrase is not None:
        (folder / "passphrase.txt").write_text(passphrase)
        source = FromFile(str(folder / "passphrase.txt"))
    return ClientIdentity(where, FromFile(str(folder / "key.pem")), source)


def assert_loads(source, issued):
    """Read the pair and let OpenSSL have it; the chain must be the one that was issued."""
    found = identity.read(source, environ={})
    assert [facts.der for facts in found.chain] == [
        certificate.public_bytes(Encoding.DER) for certificate in issued.presented
    ]
    assert isinstance(client_context(Endpoint("x"), TrustAnchors(), found), ssl.SSLContext)


def unreadable(source):
    with pytest.raises(IdentityError) as caught:
        identity.read(source, environ={})
    assert caught.value.failure.reason is Reason.CLIENT_MATERIAL_UNREADABLE
    return caught.value.failure.detail


@pytest.mark.parametrize("form", KeyForm)
def test_y085_an_encrypted_key_opens_with_the_right_passphrase_only_and_none_is_shown(
    form, theatre, tmp_path
):
    issued = theatre.pki.client()
    key = issued.key_pem(form, Secret(PASSPHRASE))
    org = theatre.org(Simulator(SCENARIOS["healthy"], theatre.pki), login=None)
    problems = {}
    for given in (PASSPHRASE, "wrong " + PASSPHRASE, None):
        source = write(tmp_path, issued.chain_pem(), key, given)
        found = inspection.inspect(replace(org, identity=source), {})
        problems[given] = found.problems
        assert PASSPHRASE not in repr(found)

    right, wrong, none = problems.values()
    assert right == ()
    assert "passphrase does not open the private key" in wrong[0]
    assert "give `private_key_passphrase`" in none[0]


@pytest.fixture(
    params=[
        (KeyKind.RSA, KeyForm.TRADITIONAL, b"BEGIN RSA PRIVATE KEY"),
        (KeyKind.RSA, KeyForm.PKCS8, b"BEGIN PRIVATE KEY"),
        (KeyKind.EC, KeyForm.TRADITIONAL, b"BEGIN EC PRIVATE KEY"),
        (KeyKind.EC, KeyForm.PKCS8, b"BEGIN PRIVATE KEY"),
    ],
    ids=["PKCS#1 RSA", "PKCS#8 RSA", "SEC1 EC", "PKCS#8 EC"],
)
def issued_with_key(request, theatre, rsa_pki):
    """Return a client certificate and its key in one of the usual formats."""
    kind, form, label = request.param
    issued = (rsa_pki if kind is KeyKind.RSA else theatre.pki).client()
    key = issued.key_pem(form)
    assert label in key
    return issued, key


def test_y086_pkcs_1_pkcs_8_and_ec_keys_load_apart_and_combined(issued_with_key, tmp_path):
    issued, key = issued_with_key

    assert_loads(write(tmp_path, issued.chain_pem(), key), issued)
    assert_loads(write(tmp_path, issued.chain_pem() + key), issued)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"\n \t\n" + text,
        lambda text: text.replace(b"-----\n", b"-----\n\n  \n"),
        lambda text: text + b"\n   \n",
        lambda text: text.replace(b"\n", b"\r\n"),
    ],
    ids=["leading", "middle", "trailing", "CRLF"],
)
def test_y087_space_around_and_in_the_file_and_crlf_do_no_harm(spoil, theatre, tmp_path):
    issued = theatre.pki.client()

    assert_loads(write(tmp_path, spoil(issued.chain_pem()), spoil(issued.key_pem())), issued)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["key last", "key first"])
def test_y088_certificate_and_key_in_one_file_load_in_any_order(order, theatre, tmp_path):
    issued = theatre.pki.client()
    parts = (issued.chain_pem(), issued.key_pem())

    assert_loads(write(tmp_path, b"".join(parts[i] for i in order)), issued)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda _: b"garbage", "has no PEM block"),
        (
            lambda text: text + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "PEM block 3 is not a certificate inside",
        ),
        (
            lambda text: text + b"-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
            "PEM block 3 (certificate) is not base64",
        ),
    ],
)
def test_y089_garbage_in_the_file_is_told_with_file_and_block(spoil, told, theatre, tmp_path):
    issued = theatre.pki.client()
    source = write(tmp_path, spoil(issued.chain_pem()), issued.key_pem())

    found = unreadable(source)

    assert told in found
    assert source.certificate.path in found


def test_y091_a_der_file_is_refused_with_its_format_and_the_command_that_converts_it(
    theatre, tmp_path
):
    issued = theatre.pki.client()
    source = write(tmp_path, issued.leaf.public_bytes(Encoding.DER), issued.key_pem())

    assert "DER format" in unreadable(source)
    assert "openssl x509 -inform DER" in unreadable(source)


async def test_y098_two_orgs_with_the_same_certificate_both_have_their_series(fleet):
    for name in ("emea", "apac"):
        await fleet.add(name)
    settings, cycles = await cycled(fleet)
    board = Board()
    for result, violations in cycles:
        board.add(settings.orgs[result.org])
        board.record(result, violations=violations, not_evaluated=())
    exposition = Exposition(board, Instruments(CollectorRegistry()))
    infos = [
        (sample.labels["org"], sample.labels["position"], sample.labels["fingerprint_sha256"])
        for family in text_string_to_metric_families(
            exposition.render(datetime.now(UTC), openmetrics=False).decode()
        )
        for sample in family.samples
        if sample.name == "sfmtls_certificate_info" and sample.labels["side"] == "client"
    ]
    (emea, _), (apac, _) = cycles

    assert emea.client_chain == apac.client_chain
    assert len(infos) == len(set(infos)) == 4
    assert {org for org, _, _ in infos} == {"emea", "apac"}
    assert len({fingerprint for _, _, fingerprint in infos}) == 2
