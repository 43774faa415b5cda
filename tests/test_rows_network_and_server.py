"""Situations of the network and of the server's certificate, each by its number in the list."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID
from doors import Stage as Theatre
from fleet import Fleet
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from agent import config, once
from agent.config import ConfigError
from agent.metrics import Exposition, Instruments
from agent.org import Timeouts, TrustAnchors
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Probe, Stage, Success
from agent.simulator.pki import Pki, ServerCertificate
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator
from agent.state import Board

ORG = '[orgs.emea]\nhost = "emea.my.salesforce.com"\ncertificate = "emea.pem"\n'


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    return Theatre(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("server-rows"))


@pytest.fixture
def resolver():
    return Resolver(threads=2)


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    await fleet.stop()


@pytest.fixture
def loaded(tmp_path):
    def load(text):
        (tmp_path / "config.toml").write_text(text)
        return config.load(tmp_path / "config.toml", {})

    return load


@pytest.fixture
def refused(loaded):
    """Return a reader of a bad configuration that gives its problems, by key."""

    def load(text):
        with pytest.raises(ConfigError) as caught:
            loaded(text)
        return {problem.key: problem.message for problem in caught.value.problems}

    return load


async def cycle(theatre, resolver, name, **changes):
    async with Simulator(SCENARIOS[name], theatre.pki) as simulator:
        result = await theatre.cycle(simulator, resolver, **changes)
    assert not simulator.record.credentials_seen or Probe.LOGIN in simulator.scenario.expected
    return result


def failed(result):
    outcome = result.outcomes[Probe.HANDSHAKE]
    assert isinstance(outcome, Failure), repr(result)
    return outcome


async def watched(fleet):
    """Run one cycle of every org of the fleet: results, violations and what is exported."""
    settings = config.load(fleet.file)
    orgs = list(settings.orgs.values())
    cycles = await once.probe(settings, orgs, login=True, advance=lambda _: None)
    seen = [(result, judgement.violations) for result, judgement in cycles]
    board = Board()
    for org, (result, violations) in zip(orgs, seen, strict=True):
        board.add(org)
        board.record(result, violations=violations, not_evaluated=())
    exposition = Exposition(board, Instruments(CollectorRegistry()))
    text = exposition.render(datetime.now(UTC), openmetrics=False).decode()
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return seen, samples


def rules(violations):
    return {(found.rule, found.side.value, found.severity.value) for found in violations}


def dates(samples, org, which):
    """Return the exported dates of an org's server chain, leaf first, as moments."""
    found = {
        dict(labels)["position"]: datetime.fromtimestamp(value, UTC)
        for (name, labels), value in samples.items()
        if name == f"sfmtls_certificate_{which}_timestamp_seconds"
        and {("org", org), ("side", "server")} <= labels
    }
    return [found[position] for position in sorted(found)]


# --- configuration


@pytest.mark.parametrize("port", [99999, 65536, 0])
@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("port = {}", "orgs.emea.port"),
        ('connect_to = "192.0.2.1:{}"', "orgs.emea.connect_to"),
        ('proxy.url = "http://proxy.example:{}"', "orgs.emea.proxy.url"),
    ],
)
def test_y003_a_port_out_of_range_is_refused_when_the_configuration_is_read(
    line, key, port, refused, loaded
):
    found = refused(ORG + line.format(port))

    assert list(found) == [key]
    assert port == 0 or "65535" in found[key], "what would be right is told"
    assert loaded(ORG + line.format(65535))


def test_y004_no_org_at_all_is_a_configuration_error(refused, loaded):
    assert list(refused("[agent]\n")) == ["orgs"]
    assert loaded(ORG).orgs.keys() == {"emea"}


@pytest.mark.parametrize("missing", ["host", "certificate"])
def test_y004_a_missing_field_is_a_configuration_error_that_names_org_and_key(missing, refused):
    without = "".join(
        line for line in ORG.splitlines(keepends=True) if not line.startswith(missing)
    )

    assert list(refused(without)) == [f"orgs.emea.{missing}"]


@pytest.mark.parametrize(
    "line",
    [
        "verify = false",
        "insecure_skip_verify = true",
        "tls_verify = false",
        "trust.verify = false",
        "trust = { system = true, insecure = true }",
    ],
)
def test_y031_verification_of_the_server_can_not_be_switched_off_so_there_is_no_key_for_it(
    line, refused
):
    (problem,) = refused(ORG + line).values()

    assert "no such key" in problem


def test_y031_trust_in_nothing_is_refused_too(refused, loaded):
    assert list(refused(ORG + "trust.system = false")) == ["orgs.emea.trust"]
    assert loaded(ORG + "trust.system = true")


# --- the connection


@pytest.mark.parametrize(
    ("name", "reason"),
    [("accept_and_close", Reason.TLS_EOF), ("reset_after_accept", Reason.TCP_RESET)],
)
async def test_y012_a_connection_that_is_accepted_and_closed_at_once_is_an_end_or_a_reset(
    name, reason, theatre, resolver
):
    result = await cycle(theatre, resolver, name)

    assert failed(result).reason is reason
    assert result.client_auth is ClientAuth.NOT_REACHED
    assert list(result.stages) == [Stage.DNS, Stage.TCP, Stage.TLS]


async def test_y013_a_server_that_never_speaks_is_a_timeout_in_time_and_holds_nothing(
    theatre, resolver
):
    limit = 1.5
    async with Simulator(SCENARIOS["accept_and_hang"], theatre.pki) as simulator:
        before = asyncio.all_tasks()
        result = await theatre.cycle(simulator, resolver, timeouts=Timeouts(tls=limit, cycle=20))
        async with asyncio.timeout(5):
            # The far side sees our end of the connection: it is not held open.
            await asyncio.gather(*simulator._tasks)
        after = asyncio.all_tasks()

    assert failed(result).reason is Reason.TLS_TIMEOUT
    assert limit * 0.9 <= result.stages[Stage.TLS] <= limit * 1.1
    assert after <= before
    assert result.client_auth is ClientAuth.NOT_REACHED


async def test_y014_a_port_that_speaks_plain_http_does_not_speak_tls(theatre, resolver):
    result = await cycle(theatre, resolver, "plain_http")

    assert failed(result).reason is Reason.NOT_TLS
    assert "HTTP/1.1 400" in failed(result).detail
    assert result.client_auth is ClientAuth.NOT_REACHED


# --- the server's certificate


async def test_y025_a_name_that_is_not_in_the_certificate_leaves_its_dates_exported(fleet):
    await fleet.add("wrong", "server_wrong_name")
    await fleet.add("right")
    ((wrong, found), (right, none)), samples = await watched(fleet)

    assert failed(wrong).reason is Reason.SERVER_HOSTNAME
    assert wrong.client_auth is ClientAuth.NOT_REACHED
    assert len(dates(samples, "wrong", "not_after")) == 2
    assert ("server_hostname_mismatch", "server", "critical") in rules(found)
    assert isinstance(right.outcomes[Probe.HANDSHAKE], Success)
    assert "server_hostname_mismatch" not in {violation.rule for violation in none}


async def test_y029_a_name_that_the_server_does_not_know_is_told_with_its_alert(theatre, resolver):
    result = await cycle(theatre, resolver, "unrecognized_name")

    assert failed(result).reason is Reason.TLS_UNRECOGNIZED_NAME
    assert "SNI" in failed(result).reason.meaning
    assert result.handshake.alert == "unrecognized_name"
    assert result.client_auth is ClientAuth.NOT_REACHED


async def test_y030_an_expired_server_certificate_is_told_and_its_date_stays_exported(fleet):
    await fleet.add("emea", "server_expired")
    for _ in range(2):  # it stays so as long as it is so
        ((result, found),), samples = await watched(fleet)

        assert failed(result).reason is Reason.SERVER_EXPIRED
        assert ("expired", "server", "critical") in rules(found)
        assert dates(samples, "emea", "not_after")[0] < datetime.now(UTC)
        failing = {("org", "emea"), ("probe", "handshake"), ("reason", "server_expired")}
        assert samples["sfmtls_probe_failing", frozenset(failing)] == 1
        days = samples[
            "sfmtls_certificate_expiry_days", frozenset({("org", "emea"), ("side", "server")})
        ]
        assert -2 < days < 0


async def test_y032_a_server_certificate_that_is_not_valid_yet_is_told_with_a_look_at_the_clock(
    fleet,
):
    await fleet.add("emea", "server_not_yet_valid")
    ((result, found),), samples = await watched(fleet)

    assert failed(result).reason is Reason.SERVER_NOT_YET_VALID
    assert "clock" in failed(result).reason.remedy
    assert ("not_yet_valid", "server", "critical") in rules(found)
    assert dates(samples, "emea", "not_before")[0] > datetime.now(UTC)


async def test_y034_a_self_signed_server_certificate_that_the_operator_trusts_is_accepted(
    theatre, resolver, tmp_path
):
    async with Simulator(SCENARIOS["server_self_signed"], theatre.pki) as simulator:
        (tmp_path / "trusted.pem").write_bytes(simulator.server_certificate.root_pem())
        with_it = Theatre(theatre.pki, tmp_path)
        with_it.root = tmp_path / "trusted.pem"
        right = await _cycle_trusting(with_it, simulator, resolver)
        wrong = await theatre.cycle(simulator, resolver)

    assert isinstance(right.outcomes[Probe.HANDSHAKE], Success), repr(right)
    assert right.client_auth is ClientAuth.ACCEPTED
    assert failed(wrong).reason is Reason.SERVER_UNTRUSTED


async def _cycle_trusting(theatre, simulator, resolver):
    trust = TrustAnchors(system=False, file=str(theatre.root))
    return await theatre.cycle(simulator, resolver, trust=trust)


async def test_y035_an_unknown_root_leaves_the_server_untrusted_and_names_the_issuer(
    theatre, resolver
):
    result = await cycle(theatre, resolver, "server_unknown_root")

    assert failed(result).reason is Reason.SERVER_UNTRUSTED
    assert "CN=Stranger Root,O=Simulator" in failed(result).detail
    assert len(result.server_chain) == 2


class PointingToItsIssuer(Pki):
    """A PKI whose server certificates say where their issuer can be fetched (AIA)."""

    url = ""

    def server(self, defect=ServerCertificate.GOOD, names=("*.my.salesforce.com", "localhost")):
        issued = Pki.server(self, defect, names)
        leaf = issued.leaf
        builder = (
            x509.CertificateBuilder()
            .subject_name(leaf.subject)
            .issuer_name(leaf.issuer)
            .public_key(leaf.public_key())
            .serial_number(leaf.serial_number)
            .not_valid_before(leaf.not_valid_before_utc)
            .not_valid_after(leaf.not_valid_after_utc)
        )
        for extension in leaf.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        access = x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(self.url)
        )
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        signed = builder.sign(self.servers._intermediate_key, hashes.SHA256())
        return type(issued)(signed, issued.intermediates, issued.root, issued.key)


async def test_y036_a_missing_intermediate_is_named_and_not_fetched_although_it_could_be(
    theatre, resolver
):
    fetched = []
    where = await asyncio.start_server(lambda *_: fetched.append(1), "127.0.0.1", 0)
    PointingToItsIssuer.url = f"http://127.0.0.1:{where.sockets[0].getsockname()[1]}/issuer.cer"
    pki = theatre.pki
    pointing = PointingToItsIssuer(pki.servers, pki.clients, pki.strangers, pki.now, pki.key_kind)
    results = {}
    for name in ("server_intermediate_missing", "healthy"):
        async with Simulator(SCENARIOS[name], pointing) as simulator:
            results[name] = await theatre.cycle(simulator, resolver)
    where.close()
    missing = results["server_intermediate_missing"]

    assert failed(missing).reason is Reason.SERVER_INCOMPLETE_CHAIN
    assert "CN=Simulated Server Intermediate,O=Simulator" in failed(missing).detail
    assert b"/issuer.cer" in missing.server_chain[0].der
    assert fetched == []
    assert isinstance(results["healthy"].outcomes[Probe.HANDSHAKE], Success)


async def test_y036_the_policy_names_the_missing_intermediate_of_the_server(fleet):
    await fleet.add("emea", "server_intermediate_missing")
    ((_, found),), _ = await watched(fleet)
    (missing,) = (violation for violation in found if violation.rule == "intermediate_missing")

    assert missing.side.value == "server"
    assert "CN=Simulated Server Intermediate" in missing.message


async def test_y037_a_server_chain_in_the_wrong_order_verifies_and_is_a_finding(fleet):
    await fleet.add("emea", "server_wrong_order")
    await fleet.add("apac")
    ((wrong, found), (_, none)), _ = await watched(fleet)

    assert isinstance(wrong.outcomes[Probe.HANDSHAKE], Success)
    assert wrong.client_auth is ClientAuth.ACCEPTED
    assert ("chain_out_of_order", "server", "warning") in rules(found)
    assert "chain_out_of_order" not in {violation.rule for violation in none}
