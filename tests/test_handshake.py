"""The handshake without a socket: client and server joined in memory."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import identity
from agent.org import ClientIdentity, Endpoint, FromFile, TlsVersion, TrustAnchors
from agent.probe import messages
from agent.probe.handshake import Handshake, observe, verdict_of
from agent.probe.tls import client_context
from agent.reason import Reason
from agent.result import ClientAuth, Failure
from agent.simulator.pki import ClientCertificate, Pki, ServerCertificate

VERSIONS = [TlsVersion.TLS_1_2, TlsVersion.TLS_1_3]

# What OpenSSL, the server here, says of each defect.
REFUSALS = {
    ClientCertificate.NONE: (Reason.CLIENT_CERT_REQUIRED, None),
    ClientCertificate.UNKNOWN_CA: (Reason.CLIENT_CERT_UNKNOWN_CA, "unknown_ca"),
    ClientCertificate.SELF_SIGNED: (Reason.CLIENT_CERT_UNKNOWN_CA, "unknown_ca"),
    ClientCertificate.EXPIRED: (Reason.CLIENT_CERT_EXPIRED, "certificate_expired"),
    ClientCertificate.NOT_YET_VALID: (Reason.CLIENT_CERT_BAD, "bad_certificate"),
    ClientCertificate.SERVER_AUTH_ONLY: (
        Reason.CLIENT_CERT_UNSUPPORTED,
        "unsupported_certificate",
    ),
    ClientCertificate.INTERMEDIATE_MISSING: (Reason.CLIENT_CERT_UNKNOWN_CA, "unknown_ca"),
}
NO_CERTIFICATE_ALERT = {
    TlsVersion.TLS_1_2: "handshake_failure",
    TlsVersion.TLS_1_3: "certificate_required",
}
SERVER_DEFECTS = {
    ServerCertificate.EXPIRED: Reason.SERVER_EXPIRED,
    ServerCertificate.NOT_YET_VALID: Reason.SERVER_NOT_YET_VALID,
    ServerCertificate.WRONG_NAME: Reason.SERVER_HOSTNAME,
    ServerCertificate.UNKNOWN_ROOT: Reason.SERVER_UNTRUSTED,
    ServerCertificate.SELF_SIGNED: Reason.SERVER_UNTRUSTED,
    ServerCertificate.INTERMEDIATE_MISSING: Reason.SERVER_INCOMPLETE_CHAIN,
    ServerCertificate.CLIENT_AUTH_ONLY: Reason.SERVER_EKU,
}


@pytest.fixture(scope="module")
def pki():
    return Pki.create(datetime.now(UTC))


class Far:
    """The far side in memory: a server's SSLObject and what it must send after the handshake."""

    def __init__(self, context, tickets=None):
        if tickets is not None:
            context.num_tickets = tickets
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.done = False
        self.refused = None

    def exchange(self, data):
        self.incoming.write(data)
        if not self.done and self.refused is None:
            try:
                self.tls.do_handshake()
                self.done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.refused = error.reason
        return self.outgoing.read()


@pytest.fixture
def far_context(pki, tmp_path):
    def make(
        version,
        *,
        server=ServerCertificate.GOOD,
        asks=ssl.CERT_REQUIRED,
    ):
        issued = pki.server(server)
        pair = tmp_path / "server.pem"
        pair.write_bytes(issued.chain_pem() + issued.key_pem())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        root = tmp_path / "client-root.pem"
        root.write_bytes(pki.clients.root.public_bytes(Encoding.PEM))
        context.load_verify_locations(cafile=root)
        context.verify_mode = asks
        context.minimum_version = context.maximum_version = {
            TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
            TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
        }[version]
        return context

    return make


@pytest.fixture
def near_context(pki, tmp_path):
    def make(defect=ClientCertificate.GOOD):
        root = tmp_path / "server-root.pem"
        root.write_bytes(pki.servers.root.public_bytes(Encoding.PEM))
        issued = pki.client(defect)
        presented = None
        if issued is not None:
            file = tmp_path / "client.pem"
            file.write_bytes(issued.chain_pem() + issued.key_pem())
            source = ClientIdentity(FromFile(str(file)), FromFile(str(file)))
            presented = identity.read(source, environ=os.environ)
        trust = TrustAnchors(system=False, file=str(root))
        context = client_context(Endpoint("localhost"), trust, presented)
        assert isinstance(context, ssl.SSLContext)
        return context

    return make


def shake_hands(context, far, chunk=None):
    """Carry bytes between both until there is an outcome, or nothing moves any more."""
    near = Handshake(context, "localhost")
    for _ in range(8):
        answer = far.exchange(near.to_send())
        step = chunk or len(answer) or 1
        for start in range(0, len(answer), step):
            near.receive(answer[start : start + step])
        if near.outcome is not None:
            far.exchange(near.to_send())
            return near
    near.give_up_waiting()
    return near


@pytest.mark.parametrize("version", VERSIONS)
def test_a_good_certificate_is_accepted_and_everything_seen_is_kept(
    version, near_context, far_context
):
    outcome = shake_hands(near_context(), Far(far_context(version))).outcome

    assert outcome.client_auth is ClientAuth.ACCEPTED
    assert outcome.failure is None
    assert outcome.alert is None
    assert outcome.tls_version == f"TLSv{version}"
    assert outcome.cipher_suite
    assert outcome.certificate_requested
    assert outcome.certificate_sent
    assert outcome.session_ticket
    assert [certificate.is_ca for certificate in outcome.server_chain] == [False, True]


@pytest.mark.parametrize("defect", REFUSALS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_refused_certificate_is_rejected_with_the_servers_alert(
    version, defect, near_context, far_context
):
    reason, alert = REFUSALS[defect]

    outcome = shake_hands(near_context(defect), Far(far_context(version))).outcome

    assert outcome.client_auth is ClientAuth.REJECTED
    assert outcome.failure.reason is reason
    assert outcome.alert == (alert or NO_CERTIFICATE_ALERT[version])
    assert outcome.tls_version == f"TLSv{version}"
    assert len(outcome.server_chain) == 2, "the server's chain is kept whatever happens"
    assert outcome.certificate_sent is (defect is not ClientCertificate.NONE)


def test_a_tls_1_3_handshake_that_returned_is_not_yet_an_acceptance(near_context, far_context):
    far = Far(far_context(TlsVersion.TLS_1_3))
    near = Handshake(near_context(ClientCertificate.UNKNOWN_CA), "localhost")
    near.receive(far.exchange(near.to_send()))

    assert near.established, "our side is done"
    assert near.outcome is None, "but the server has not judged us"

    near.receive(far.exchange(near.to_send()))

    assert near.outcome.client_auth is ClientAuth.REJECTED


def test_without_tickets_the_tls_layer_leaves_the_verdict_open(near_context, far_context):
    far = Far(far_context(TlsVersion.TLS_1_3), tickets=0)

    outcome = shake_hands(near_context(), far).outcome

    assert far.done
    assert outcome.client_auth is ClientAuth.UNCONFIRMED
    assert outcome.failure is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_never_asks_is_told_apart(version, near_context, far_context):
    far = Far(far_context(version, asks=ssl.CERT_NONE))

    outcome = shake_hands(near_context(), far).outcome

    assert outcome.client_auth is ClientAuth.NOT_REQUESTED
    assert not outcome.certificate_requested
    assert not outcome.certificate_sent


def vector(data, length_bytes):
    return len(data).to_bytes(length_bytes) + data


@pytest.mark.parametrize("version", [0x0303, 0x0304])
def test_the_names_in_a_certificate_request_are_kept_in_their_order(pki, version):
    roots = [pki.clients.root, pki.strangers.root]
    names = b"".join(vector(root.subject.public_bytes(), 2) for root in roots)
    signatures = vector(b"\x04\x03", 2)
    if version == 0x0303:
        body = vector(b"\x01", 1) + signatures + vector(names, 2)
    else:
        extensions = b"\x00\x0d" + vector(signatures, 2) + b"\x00\x2f" + vector(vector(names, 2), 2)
        body = b"\x00" + vector(extensions, 2)

    found = messages.acceptable_issuers(b"\x0d" + vector(body, 3), version)

    assert found == tuple(root.subject.rfc4514_string() for root in roots)


@pytest.mark.parametrize("version", [0x0303, 0x0304])
@given(data=st.binary(max_size=300))
def test_a_message_that_makes_no_sense_gives_no_facts_and_no_error(version, data):
    assert messages.acceptable_issuers(data, version) is not None
    assert messages.server_chain(data, version) is not None
    assert messages.has_certificates(data, version) in {True, False}


@pytest.mark.parametrize("defect", SERVER_DEFECTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_we_refuse_is_not_reached_but_its_chain_stays_readable(
    version, defect, near_context, far_context
):
    far = Far(far_context(version, server=defect))

    outcome = shake_hands(near_context(), far).outcome

    assert outcome.client_auth is ClientAuth.NOT_REACHED
    assert outcome.failure.reason is SERVER_DEFECTS[defect]
    assert outcome.server_chain
    assert far.refused, "our alert must reach the server"


def test_the_missing_issuer_of_an_incomplete_chain_is_named(pki, near_context, far_context):
    far = Far(far_context(TlsVersion.TLS_1_3, server=ServerCertificate.INTERMEDIATE_MISSING))

    outcome = shake_hands(near_context(), far).outcome

    assert pki.servers.intermediate.subject.rfc4514_string() in outcome.failure.detail


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"\x00"])
def test_what_does_not_begin_like_tls_is_not_tls(data, near_context):
    near = Handshake(near_context(), "localhost")
    near.to_send()

    near.receive(data)

    assert near.outcome.failure.reason is Reason.NOT_TLS
    assert near.outcome.client_auth is ClientAuth.NOT_REACHED


def test_a_close_before_anything_is_an_end_without_a_word(near_context):
    near = Handshake(near_context(), "localhost")
    near.to_send()

    near.receive(b"")

    assert near.outcome.failure.reason is Reason.TLS_EOF
    assert near.outcome.client_auth is ClientAuth.NOT_REACHED


@pytest.mark.parametrize("version", VERSIONS)
def test_a_close_right_after_our_certificate_is_never_a_verdict(version, near_context, far_context):
    far = Far(far_context(version))
    near = Handshake(near_context(), "localhost")
    near.receive(far.exchange(near.to_send()))
    near.to_send()

    near.receive(b"")

    assert near.outcome.failure == Failure(
        Reason.TLS_EOF, "cut right after our answer about a certificate"
    )
    assert near.outcome.client_auth is ClientAuth.UNCONFIRMED


def test_a_broken_connection_keeps_its_own_reason(near_context):
    near = Handshake(near_context(), "localhost")
    near.to_send()

    near.broken(Failure(Reason.TCP_RESET))

    assert near.outcome.failure.reason is Reason.TCP_RESET
    assert near.outcome.client_auth is ClientAuth.NOT_REACHED


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (70, Reason.TLS_VERSION),
        (112, Reason.TLS_UNRECOGNIZED_NAME),
        (40, Reason.TLS_HANDSHAKE_FAILURE),
        (80, Reason.TLS_HANDSHAKE_FAILURE),
        (48, Reason.TLS_HANDSHAKE_FAILURE),
    ],
)
def test_an_alert_before_our_certificate_is_no_verdict_on_it(number, reason, near_context):
    near = Handshake(near_context(), "localhost")
    near.to_send()

    near.receive(bytes([21, 3, 3, 0, 2, 2, number]))

    assert near.outcome.failure.reason is reason
    assert near.outcome.alert == messages.ALERT_NAMES[number]
    assert near.outcome.client_auth is ClientAuth.NOT_REACHED


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (116, "certificate_required"),
        (42, "bad_certificate"),
        (48, "unknown_ca"),
        (40, "handshake_failure"),
        (199, "199"),
    ],
)
def test_an_alert_has_its_rfc_name_and_an_unknown_one_its_number(number, name):
    assert messages.alert_name(bytes([2, number]), 0x0303) == name


def test_a_tls_1_2_warning_and_a_close_are_no_alerts():
    assert messages.alert_name(bytes([1, 112]), 0x0303) is None
    assert messages.alert_name(bytes([1, 112]), 0x0304) == "unrecognized_name"
    assert messages.alert_name(bytes([1, 0]), 0x0304) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_application_data_passes_both_ways(version, near_context, far_context):
    far = Far(far_context(version))
    near = shake_hands(near_context(), far)

    near.write(b"ping")
    far.incoming.write(near.to_send())
    assert far.tls.read(100) == b"ping"

    far.tls.write(b"pong")
    near.receive(far.outgoing.read())
    assert near.read() == b"pong"
    assert near.read() is None


def test_data_sent_by_the_server_at_once_is_an_acceptance_and_is_not_lost(
    near_context, far_context
):
    far = Far(far_context(TlsVersion.TLS_1_3), tickets=0)
    near = Handshake(near_context(), "localhost")
    near.receive(far.exchange(near.to_send()))
    far.exchange(near.to_send())
    far.tls.write(b"hello")

    near.receive(far.outgoing.read())

    assert near.outcome.client_auth is ClientAuth.ACCEPTED
    assert near.read() == b"hello"


def test_a_cut_connection_is_told_from_a_clean_close(near_context, far_context):
    cut = shake_hands(near_context(), Far(far_context(TlsVersion.TLS_1_3)))
    far = Far(far_context(TlsVersion.TLS_1_3))
    closed = shake_hands(near_context(), far)

    cut.receive(b"")
    with pytest.raises(ssl.SSLWantReadError):
        far.tls.unwrap()
    closed.receive(far.outgoing.read())

    assert cut.read().reason is Reason.TLS_EOF
    assert closed.read() == b""


def test_a_clean_close_in_place_of_a_verdict_is_not_an_acceptance(near_context, far_context):
    far = Far(far_context(TlsVersion.TLS_1_3), tickets=0)
    near = Handshake(near_context(), "localhost")
    near.receive(far.exchange(near.to_send()))
    far.exchange(near.to_send())
    with pytest.raises(ssl.SSLWantReadError):
        far.tls.unwrap()

    near.receive(far.outgoing.read())

    assert near.outcome.client_auth is ClientAuth.UNCONFIRMED
    assert near.outcome.failure == Failure(
        Reason.TLS_EOF, "closed right after our answer about a certificate"
    )


# --- a certificate that is asked for after the handshake (RFC 8446 §4.6.2)


def asked_late(context, far_context):
    """Shake hands with a server that does not ask, then let it ask; both sides go on once."""
    demanding = far_context(TlsVersion.TLS_1_3)
    demanding.post_handshake_auth = True
    far = Far(demanding, tickets=0)
    near = shake_hands(context, far)
    assert near.outcome.client_auth is ClientAuth.NOT_REQUESTED
    assert near.seen() == near.outcome, "nothing has come after it"
    assert not near.has_to_send

    far.tls.verify_client_post_handshake()
    far.tls.do_handshake()
    near.receive(far.outgoing.read())
    assert near.read() is None
    assert near.has_to_send
    far.incoming.write(near.to_send())
    return near, far


def test_a_certificate_that_is_asked_for_late_is_sent_and_then_the_application_has_the_word(
    near_context, far_context
):
    near, far = asked_late(near_context(), far_context)
    with pytest.raises(ssl.SSLWantReadError):
        far.tls.read(1)

    assert far.tls.getpeercert(), "the server has it, and verified it"
    assert far.outgoing.read() == b"", "and says nothing"
    seen = near.seen()
    assert (seen.certificate_requested, seen.certificate_sent) == (True, True)
    assert seen.client_auth is ClientAuth.UNCONFIRMED, "TLS 1.3 tells only of refusals"
    assert (seen.alert, seen.failure) == (None, None)


@pytest.mark.parametrize("defect", REFUSALS)
def test_a_certificate_that_is_asked_for_late_and_refused_is_rejected_with_the_alert(
    defect, near_context, far_context
):
    reason, alert = REFUSALS[defect]
    near, far = asked_late(near_context(defect), far_context)
    with pytest.raises(ssl.SSLError):
        far.tls.read(1)
    near.receive(far.outgoing.read())

    failure = near.read()

    assert failure.reason is reason
    assert near.seen().client_auth is ClientAuth.REJECTED
    assert near.seen().alert == (alert or NO_CERTIFICATE_ALERT[TlsVersion.TLS_1_3])


@pytest.mark.parametrize(
    ("alert", "verdict"),
    [
        ("unknown_ca", ClientAuth.REJECTED),
        ("certificate_required", ClientAuth.REJECTED),
        ("handshake_failure", ClientAuth.REJECTED),
        ("internal_error", ClientAuth.UNCONFIRMED),
        ("unexpected_message", ClientAuth.UNCONFIRMED),
        ("199", ClientAuth.UNCONFIRMED),
        (None, ClientAuth.UNCONFIRMED),
    ],
)
def test_a_servers_own_trouble_is_no_verdict_on_our_certificate(alert, verdict):
    assert verdict_of(alert) is verdict


def test_an_unobserved_context_is_a_mistake_of_the_caller():
    with pytest.raises(TypeError, match="not observed"):
        Handshake(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "localhost")


@pytest.fixture(scope="module")
def doors(pki, tmp_path_factory):
    """Contexts made once: making them for every example would cost more than the examples."""
    folder = tmp_path_factory.mktemp("doors")
    issued, bad = pki.server(), pki.client(ClientCertificate.UNKNOWN_CA)
    (folder / "server.pem").write_bytes(issued.chain_pem() + issued.key_pem())
    (folder / "client.pem").write_bytes(bad.chain_pem() + bad.key_pem())
    (folder / "client-root.pem").write_bytes(pki.clients.root.public_bytes(Encoding.PEM))
    (folder / "server-root.pem").write_bytes(pki.servers.root.public_bytes(Encoding.PEM))
    far = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    far.load_cert_chain(folder / "server.pem")
    far.load_verify_locations(folder / "client-root.pem")
    far.verify_mode = ssl.CERT_REQUIRED
    near = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    near.load_verify_locations(folder / "server-root.pem")
    near.load_cert_chain(folder / "client.pem")
    observe(near)
    return near, far


@settings(max_examples=60)
@given(chunk=st.integers(1, 1500))
def test_the_outcome_does_not_depend_on_how_the_bytes_are_cut(doors, chunk):
    near, far = doors

    outcome = shake_hands(near, Far(far), chunk).outcome

    assert outcome.failure.reason is Reason.CLIENT_CERT_UNKNOWN_CA
    assert outcome.alert == "unknown_ca"
    assert len(outcome.server_chain) == 2
