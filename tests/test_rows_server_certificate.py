"""Situations of the server's chain, its keys and its TLS, each by its number in the list."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from doors import Stage as Theatre
from fleet import Fleet
from making import der_of
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from stack_servers import s_server, write_material

from agent import certificate, config, once, report
from agent.inspection import inspect
from agent.metrics import Exposition, Instruments
from agent.org import Endpoint, TrustAnchors
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Probe, Stage, Success
from agent.runner import OrgRunner
from agent.services import close_services, open_services
from agent.simulator.pki import SERVER_NAMES, Authority, Issued, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator
from agent.state import Board

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    return Theatre(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("server-certificates"))


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    await fleet.stop()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one org showed, how it was judged, and what is exported of it."""

    result: object
    rules: dict[tuple[str, str], str]
    text: str

    def samples(self, name):
        """Return {labels: value} of a family, of the server's side where there are two."""
        return [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name and sample.labels.get("side", "server") == "server"
        ]


async def watched(fleet) -> dict[str, Seen]:
    """Run one cycle of every org of the fleet."""
    settings = config.load(fleet.file)
    orgs = list(settings.orgs.values())
    cycles = await once.probe(settings, orgs, login=False, advance=lambda _: None)
    seen = {}
    for org, (result, judgement) in zip(orgs, cycles, strict=True):
        board = Board()
        board.add(org)
        board.record(result, violations=judgement.violations)
        exposition = Exposition(board, Instruments(CollectorRegistry()))
        text = exposition.render(datetime.now(UTC), openmetrics=False).decode()
        rules = {(v.rule, v.side.value): v.message for v in judgement.violations}
        seen[org.name] = Seen(result, rules, text)
    return seen


def presenting(pki: Pki, issued: Issued) -> Pki:
    """Return the same authorities; but the server presents this."""

    class Presenting(Pki):
        def server(self, *_: object, **__: object) -> Issued:
            return issued

    return Presenting(pki.servers, pki.clients, pki.strangers, pki.now, pki.key_kind)


async def add(fleet, name, issued, **keys):
    """Add an org whose server presents this."""
    usual, fleet.pki = fleet.pki, presenting(fleet.pki, issued)
    await fleet.add(name, **keys)
    fleet.pki = usual


def leaf(
    authority: Authority, key, subject=None, *, days=90.0, serial=None, names=SERVER_NAMES
) -> x509.Certificate:
    """Return a server's certificate of this key and subject, else an ordinary one."""
    like = authority.issue("unused", ExtendedKeyUsageOID.SERVER_AUTH, names=names).leaf
    builder = x509.CertificateBuilder(
        issuer_name=like.issuer,
        subject_name=like.subject if subject is None else subject,
        public_key=key.public_key(),
        serial_number=serial or x509.random_serial_number(),
        not_valid_before=authority.now - 90 * DAY,
        not_valid_after=authority.now + days * DAY,
    )
    for extension in like.extensions:
        if not isinstance(extension.value, x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(authority._intermediate_key, hashes.SHA256())


def issue(authority: Authority, made: x509.Certificate, key) -> Issued:
    return Issued(made, (authority.intermediate,), authority.root, key)


def failed(result):
    outcome = result.outcomes[Probe.HANDSHAKE]
    assert isinstance(outcome, Failure), repr(result)
    return outcome


def opened(result):
    return isinstance(result.outcomes[Probe.HANDSHAKE], Success)


# --- the chain


async def test_y040_a_certificate_that_is_sent_twice_is_a_finding_and_no_series_is_doubled(fleet):
    await fleet.add("twice", "server_duplicate")
    await fleet.add("once")
    seen = await watched(fleet)

    assert opened(seen["twice"].result)
    assert ("chain_duplicate", "server") in seen["twice"].rules
    assert len(seen["twice"].samples("sfmtls_certificate_info")) == 3
    series = Counter(line.rpartition(" ")[0] for line in seen["twice"].text.splitlines())
    assert [one for one, times in series.items() if times > 1 and not one.startswith("#")] == []
    assert ("chain_duplicate", "server") not in seen["once"].rules


async def test_y041_a_certificate_that_does_not_belong_to_it_is_a_finding_and_changes_no_verdict(
    fleet,
):
    await fleet.add("extra", "server_unrelated_extra")
    await fleet.add("plain")
    seen = await watched(fleet)

    assert opened(seen["extra"].result)
    assert seen["extra"].result.client_auth is ClientAuth.ACCEPTED
    assert "CN=Stranger Root" in seen["extra"].rules["chain_extra", "server"]
    assert ("chain_extra", "server") not in seen["plain"].rules


def cross_signed(authority: Authority, by: Authority, until: datetime) -> x509.Certificate:
    """Return the authority's intermediate as another root has signed it."""
    own = authority.intermediate
    builder = x509.CertificateBuilder(
        issuer_name=by.root.subject,
        subject_name=own.subject,
        public_key=own.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=own.not_valid_before_utc,
        not_valid_after=until,
    )
    for extension in own.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(by._root_key, hashes.SHA256())


async def test_y042_of_two_chains_the_longer_one_is_judged_and_the_earliest_end_is_exported(fleet):
    servers, others = fleet.pki.servers, fleet.pki.strangers
    key = ec.generate_private_key(ec.SECP256R1())
    ends = servers.now + 60 * DAY
    short = cross_signed(servers, others, ends)
    good = issue(servers, leaf(servers, key, days=90), key)
    await add(fleet, "both", replace(good, intermediates=(servers.intermediate, short)))
    await add(fleet, "short-only", replace(good, intermediates=(short,)))
    (fleet.folder / "both-roots.pem").write_bytes(servers.root_pem() + others.root_pem())
    trust = {"system": False, "file": "both-roots.pem"}
    for name in ("both", "short-only"):
        fleet.configure(name, trust=trust)
    seen = await watched(fleet)

    assert opened(seen["both"].result)
    # Until its cross-signed half is gone, what is sent is not what will be sent.
    ((_, days),) = seen["both"].samples("sfmtls_certificate_expiry_days")
    assert 59 < days < 60.1
    moments = {
        labels["position"]: value
        for labels, value in seen["both"].samples("sfmtls_certificate_not_after_timestamp_seconds")
    }
    assert moments["0"] == pytest.approx((servers.now + 90 * DAY).timestamp(), abs=2)
    assert moments["2"] == pytest.approx(ends.timestamp(), abs=2)
    # The other chain lasts as long as the leaf does; without it none would.
    assert ("ca_expires_before_leaf", "server") not in seen["both"].rules
    assert ("ca_expires_before_leaf", "server") in seen["short-only"].rules


# --- names, numbers and keys


async def test_y043_a_certificate_without_any_name_of_its_subject_is_read_like_any_other(fleet):
    key = ec.generate_private_key(ec.SECP256R1())
    servers = fleet.pki.servers
    await add(fleet, "nameless", issue(servers, leaf(servers, key, x509.Name([])), key))
    seen = (await watched(fleet))["nameless"]

    assert opened(seen.result)
    first = seen.samples("sfmtls_certificate_info")[0][0]
    assert (first["position"], first["subject"]) == ("0", "")
    assert first["issuer"] == "CN=Simulated Server Intermediate,O=Simulator"


KEYS = {
    "rsa": (lambda: rsa.generate_private_key(65537, 2048), "rsa", 2048),
    "rsa-3072": (lambda: rsa.generate_private_key(65537, 3072), "rsa", 3072),
    "p-256": (lambda: ec.generate_private_key(ec.SECP256R1()), "ec", 256),
    "p-384": (lambda: ec.generate_private_key(ec.SECP384R1()), "ec", 384),
    "ed25519": (ed25519.Ed25519PrivateKey.generate, "ed25519", 256),
}


@pytest.mark.parametrize("name", KEYS)
async def test_y045_a_key_of_any_usual_kind_is_seen_with_its_kind_and_size(name, fleet):
    make, kind, bits = KEYS[name]
    key = make()
    servers = fleet.pki.servers
    await add(fleet, "emea", issue(servers, leaf(servers, key), key))
    seen = (await watched(fleet))["emea"]
    first = seen.result.server_chain[0]

    assert opened(seen.result)
    assert (first.public_key.kind, first.public_key.bits) == (kind, bits)


@pytest.fixture
def naming(fleet):
    """Return a maker of server certificates with these bytes as the common name, and their tag."""
    servers = fleet.pki.servers
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "xxxx")])
    sound = leaf(servers, key, subject)

    def make(encoded):
        return issue(servers, resigned(servers, sound, b"\x0c\x04xxxx", encoded), key)

    return make


async def test_y046_what_cannot_be_shown_of_a_name_is_replaced(naming, fleet):
    await add(fleet, "odd", naming(b'\x0c\x04a\n"{'))
    seen = (await watched(fleet))["odd"]

    assert opened(seen.result)
    assert seen.samples("sfmtls_certificate_info")[0][0]["subject"] == 'CN=a\ufffd\\"{'
    assert all(line.isprintable() for line in seen.text.splitlines())


# A PrintableString with what it must not have, and a TeletexString in Latin-1; OpenSSL takes both
# (RFC 5280 §4.1.2.4, X.690 §8.23).
@pytest.mark.parametrize("encoded", [b'\x13\x04\xff\xfe\x00"', b"\x14\x04\xfcber"])
async def test_y046_a_certificate_whose_name_is_no_text_costs_its_facts_and_no_verdict(
    encoded, naming, fleet
):
    await add(fleet, "odd", naming(encoded))
    await add(fleet, "sound", naming(b"\x0c\x04fine"))
    seen = await watched(fleet)

    assert opened(seen["odd"].result)
    assert seen["odd"].result.client_auth is ClientAuth.ACCEPTED
    # Its intermediate is not taken for it.
    assert seen["odd"].result.server_chain == ()
    assert {side for _, side in seen["odd"].rules} <= {"client", "org"}
    assert len(seen["sound"].result.server_chain) == 2


class Unread:
    """A certificate that goes out as it is; the library need not be able to read it."""

    def __init__(self, der: bytes) -> None:
        self._der = der

    def public_bytes(self, _encoding: object) -> bytes:
        return ssl.DER_cert_to_PEM_cert(self._der).encode()


def resigned(authority: Authority, made: x509.Certificate, old: bytes, new: bytes):
    """Return a certificate with other bytes in it, signed: what no library makes."""
    tbs = made.tbs_certificate_bytes
    assert tbs.count(old) == 1
    tbs = tbs.replace(old, new)
    ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")  # RFC 5758 §3.2
    assert ecdsa_with_sha256 in tbs
    signature = authority._intermediate_key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    whole = der_of(0x30, tbs, ecdsa_with_sha256, der_of(0x03, b"\x00", signature))
    return Unread(whole)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0x0A, "0a"), (0x00FF, "ff"), (0x0102, "0102"), (0x80 << 120, "80" + "00" * 15)],
)
async def test_y047_a_serial_number_has_the_same_digits_wherever_it_is_shown(number, text, fleet):
    key = ec.generate_private_key(ec.SECP256R1())
    servers = fleet.pki.servers
    await add(fleet, "emea", issue(servers, leaf(servers, key, serial=number), key))
    seen = (await watched(fleet))["emea"]
    first = seen.result.server_chain[0]

    assert first.serial_number == text
    assert seen.samples("sfmtls_certificate_info")[0][0]["serial_number"] == text
    assert report.certificates(seen.result.server_chain)[0]["serial_number"] == text
    assert certificate.read(first.der).serial_number == text


# --- what the agent does not ask for


@pytest.mark.component
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_y050_a_server_that_could_staple_an_answer_is_not_asked_to_and_nothing_fails(
    version, theatre, tmp_path
):
    write_material(theatre.pki, tmp_path)
    served = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    (tmp_path / "staple.der").write_bytes(staple(theatre.pki.servers, served))
    stapling = ("-quiet", "-status_file", str(tmp_path / "staple.der"))
    results = []
    for options in (stapling, ("-quiet",)):
        with s_server(tmp_path, version, *options) as (port, _):
            if options is stapling:
                assert "OCSP Response Status: successful" in await asked_to_staple(port, version)
            scenario = SCENARIOS["healthy"]
            unused = Simulator(scenario, theatre.pki)
            there = Endpoint("localhost", connect_to=("127.0.0.1", port))
            cycle = theatre.cycle(
                unused, Resolver(1), due=frozenset({Probe.HANDSHAKE}), endpoint=there
            )
            results.append(await cycle)

    for result in results:
        assert opened(result), repr(result)
        assert result.handshake.tls_version == version


def staple(authority: Authority, served: x509.Certificate) -> bytes:
    """Return the answer of an authority that the certificate is good (RFC 6960 §2.2)."""
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=served,
        issuer=authority.intermediate,
        algorithm=hashes.SHA1(),  # noqa: S303 - the identifiers of OCSP are made with it
        cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=authority.now,
        next_update=authority.now + DAY,
        revocation_time=None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, authority.intermediate)
    response = builder.sign(authority._intermediate_key, hashes.SHA256())
    return response.public_bytes(serialization.Encoding.DER)


async def asked_to_staple(port: int, version: str) -> str:
    """Return what openssl shows, which does ask; it has no certificate, and may be refused."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-status", "-connect", f"127.0.0.1:{port}"),
        f"-{version.lower().replace('v', '').replace('.', '_')}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    shown, _ = await process.communicate()
    return shown.decode(errors="replace")


# --- what is trusted


async def test_y053_a_file_of_roots_that_is_missing_is_told_by_its_name(theatre):
    async with Simulator(SCENARIOS["healthy"], theatre.pki) as simulator:
        gone = str(theatre.root.with_name("gone.pem"))
        wrong = theatre.org(simulator, login=None, trust=TrustAnchors(system=False, file=gone))
        right = theatre.org(simulator, login=None)
        (problem,) = inspect(wrong, os.environ).problems

    assert gone in problem
    assert inspect(right, os.environ).problems == ()


async def test_y053_one_that_goes_missing_later_leaves_the_last_good_one_in_use(fleet):
    await fleet.add("emea")
    settings = config.load(fleet.file)
    org = replace(settings.orgs["emea"], login=None)
    with structlog.testing.capture_logs() as logged:
        services = open_services(settings.agent, os.environ)
        services.board.add(org)
        runner = OrgRunner(org, services)
        before = await runner.run()
        (fleet.folder / "server-root.pem").unlink()
        after = [await runner.run() for _ in range(2)]
        counted = services.board.get("emea").identity_reload_failures
        await close_services(services)

    assert opened(before)
    assert all(opened(result) for result in after)
    told = [entry for entry in logged if entry["event"] == "trust store cannot be used"]
    assert (len(told), counted) == (1, 1)
    assert "server-root.pem" in told[0]["failure"]


async def test_y054_a_file_of_roots_of_ones_own_is_what_is_trusted(theatre):
    async with Simulator(SCENARIOS["healthy"], theatre.pki) as simulator:
        cycle = theatre.cycle(simulator, Resolver(1), due=frozenset({Probe.HANDSHAKE}))
        with_it = await cycle
        with Theatreless(theatre) as other:
            without = await other.cycle(simulator, Resolver(1), due=frozenset({Probe.HANDSHAKE}))

    assert opened(with_it)
    assert failed(without).reason is Reason.SERVER_UNTRUSTED


class Theatreless:
    """The same stage, for an agent that trusts another root."""

    def __init__(self, theatre):
        self._folder = theatre.root.parent / "stranger"
        self._pki = theatre.pki

    def __enter__(self):
        self._folder.mkdir()
        stage = Theatre(self._pki, self._folder)
        stage.root.write_bytes(self._pki.strangers.root_pem())
        return stage

    def __exit__(self, *_):
        return None


# --- versions and ciphers


@pytest.mark.parametrize("name", ["old_tls_only", "protocol_version_alert"])
async def test_y056_a_server_of_old_versions_only_has_none_in_common(name, theatre):
    async with Simulator(SCENARIOS[name], theatre.pki) as simulator:
        result = await theatre.cycle(simulator, Resolver(1))

    assert failed(result).reason is Reason.TLS_VERSION
    assert result.client_auth is ClientAuth.NOT_REACHED
    assert list(result.stages)[-1] is Stage.TLS


async def test_y058_a_server_without_a_common_cipher_fails_the_handshake_with_its_alert(theatre):
    async with Simulator(SCENARIOS["no_common_cipher"], theatre.pki) as simulator:
        result = await theatre.cycle(simulator, Resolver(1))

    assert failed(result).reason is Reason.TLS_HANDSHAKE_FAILURE
    assert result.handshake.alert == "handshake_failure"
    assert result.client_auth is ClientAuth.NOT_REACHED


@pytest.mark.parametrize(("limit", "version"), [("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")])
async def test_y059_the_version_that_is_forced_is_the_one_that_is_exported(limit, version, fleet):
    await fleet.add("forced", "optional_good", tls_min=limit, tls_max=limit)
    seen = (await watched(fleet))["forced"]

    assert opened(seen.result)
    ((labels, _),) = seen.samples("sfmtls_tls_info")
    assert labels["version"] == version
    assert labels["cipher_suite"].startswith("TLS_") is (version == "TLSv1.3")


async def test_y060_a_version_that_is_only_allowed_still_is_a_finding_and_no_failure(fleet):
    await fleet.add("older", "tls12_required_good")
    await fleet.add("newer", "tls13_required_good")
    await fleet.add("stricter", "tls12_required_good", tls_min="1.3")
    seen = await watched(fleet)

    assert opened(seen["older"].result)
    assert "TLSv1.2" in seen["older"].rules["tls_version", "server"]
    assert ("tls_version", "server") not in seen["newer"].rules
    # Who wants it to fail says so.
    assert failed(seen["stricter"].result).reason is Reason.TLS_VERSION


# --- elsewhere


@pytest.mark.parametrize("asked", ["door", "login"])
async def test_y061_a_redirect_to_another_host_is_told_and_not_followed(asked, theatre):
    async with Simulator(SCENARIOS[f"{asked}_redirect"], theatre.pki) as simulator:
        result = await theatre.cycle(simulator, Resolver(1, look_up=nobody))
    probe = Probe.HANDSHAKE if asked == "door" else Probe.LOGIN

    assert result.outcomes[probe].reason is Reason.HTTP_REDIRECT
    assert "renamed.my.salesforce.com" in result.outcomes[probe].detail
    assert simulator.record.logins == (asked == "login")


def nobody(host, _port):
    raise AssertionError(f"{host} was asked for")


@pytest.mark.parametrize("target", ["http://healthy.my.salesforce.com/", "/elsewhere"])
async def test_y061_neither_is_one_to_plain_http_or_to_the_same_host(target, theatre):
    page = SCENARIOS["door_redirect"].answers
    ((asked, answer),) = page.items()
    scenario = replace(
        SCENARIOS["door_redirect"],
        answers={asked: replace(answer, headers=(("Location", target),))},
    )
    async with Simulator(scenario, theatre.pki) as simulator:
        result = await theatre.cycle(simulator, Resolver(1), due=frozenset({Probe.HANDSHAKE}))

    assert failed(result).reason is Reason.HTTP_REDIRECT
    assert len(simulator.record.connections) == 1
