"""One org's cycles: what is presented, what is due, what a reload keeps, and bugs of our own.

Nothing listens where these orgs are, so a cycle ends at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import socket
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import structlog
from boards import HANDSHAKE, result, violation
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from making import hierarchy, world
from revoking import crl, permit_all, points

from agent import keyring as keyrings
from agent import once
from agent.component import Component
from agent.config import AgentSettings, Settings, WebSettings
from agent.gate import Gatekeeper, Hold
from agent.identity import Rotation, read
from agent.judge import Judge, Verdict
from agent.keyring import BareContexts, Keyring, Presented
from agent.leaves import Leaves
from agent.maintenance import Window
from agent.org import (
    ClientIdentity,
    Endpoint,
    FromCredential,
    FromFile,
    Org,
    Policy,
    RevocationCheck,
    TlsVersion,
    TrustAnchors,
)
from agent.policy import Judgement
from agent.policy.rule import Severity, Side
from agent.policy.tables import shipped_tables
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import Failure, Probe, ProbeResult, SkipCause, Skipped
from agent.revocation import RevocationChecker, RevocationWatch
from agent.runner import OrgRunner, Services
from agent.services import close_services, open_services
from agent.simulator.pki import ClientCertificate, Pki
from agent.state import Board


def now():
    return datetime.now(UTC)


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as entries:
        yield entries


class Place:
    """A folder with what an org needs, and an org that watches a port where nobody listens."""

    def __init__(self, folder):
        self.folder = folder
        self.pki = Pki.create(now())
        self.root = folder / "root.pem"
        self.root.write_bytes(self.pki.servers.root_pem())
        self.file = folder / "client.pem"
        self.deploy_good()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        where = FromFile(str(self.file))
        self.org = Org(
            name="emea",
            endpoint=Endpoint("emea.my.salesforce.com", connect_to=("127.0.0.1", port)),
            identity=ClientIdentity(where, where),
            trust=TrustAnchors(system=False, file=str(self.root)),
            refusal_interval=None,
        )
        self.bugs = Counter()
        self.clock = 0.0
        self.board = Board()
        self.services = Services(
            board=self.board,
            resolver=Resolver(1),
            gatekeeper=Gatekeeper(None, Hold(), os.environ, now),
            revocation=RevocationWatch(RevocationChecker(permitted=permit_all), now),
            tables=shipped_tables(),
            environ=os.environ,
            now=now,
            clock=lambda: self.clock,
            internal_error=lambda component: self.bugs.update([component]),
        )

    def deploy_good(self):
        issued = self.pki.client(ClientCertificate.GOOD)
        self.file.write_bytes(issued.chain_pem() + issued.key_pem())

    def deploy_weak(self):
        """Write a pair that is one, but that OpenSSL does not take at its usual level."""
        key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - the weakness is the point
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, now(), now() + timedelta(9))
        ).sign(key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.file.write_bytes(certificate.public_bytes(pem) + private)

    def runner(self, org=None, before=None, ahead=0):
        org = org or self.org
        if self.board.get(org.name) is None:
            self.board.add(org)
        return OrgRunner(org, self.services, before, ahead)

    def keyring(self, **changes):
        return Keyring(dataclasses.replace(self.org, **changes), os.environ, BareContexts())


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


# --- what is presented


async def test_a_changed_pair_is_in_use_with_its_contexts(place):
    keyring = place.keyring()
    first = await keyring.look()
    place.deploy_good()
    second = await keyring.look()

    assert (first.renewed, second.renewed) == (False, True)
    assert second.presented.identity == read(place.org.identity, environ={})
    assert second.presented.presenting is not first.presented.presenting


async def test_a_pair_that_openssl_refuses_is_told_once_and_the_old_one_stays(place):
    keyring = place.keyring()
    first = await keyring.look()
    place.deploy_weak()
    looks = [await keyring.look() for _ in range(3)]
    place.deploy_good()
    healed = await keyring.look()

    assert [look.presented for look in looks] == [first.presented] * 3
    assert not any(look.renewed for look in looks)
    assert [look.refused and look.refused.reason for look in looks] == [
        Reason.CLIENT_MATERIAL_UNREADABLE,
        None,
        None,
    ]
    assert "OpenSSL refuses the pair" in looks[0].refused.detail
    assert (healed.renewed, healed.refused) == (True, None)


async def test_a_refused_pair_is_counted_and_the_one_in_use_is_judged(place, logged):
    runner = place.runner()
    await runner.run()
    before = runner.judge.seen
    place.deploy_weak()
    for _ in range(3):
        result = await runner.run()
    after = runner.judge.seen

    assert place.board.get("emea").identity_reload_failures == 1
    assert after.private_key == before.private_key
    assert result.client_chain == before.client_chain
    events = Counter(entry["event"] for entry in logged)
    assert events["certificate or key cannot be used"] == 1
    assert events["certificate in use"] == 0


async def test_without_any_pair_that_openssl_takes_there_is_nothing_to_present(place):
    place.deploy_weak()

    assert (await place.keyring().look()).presented.reason is Reason.CLIENT_MATERIAL_UNREADABLE


async def test_a_trust_file_that_breaks_later_leaves_the_last_good_one_and_is_told_once(place):
    keyring = place.keyring()
    first = await keyring.look()
    place.root.write_text("nothing to trust")
    looks = [await keyring.look() for _ in range(3)]
    place.deploy_good()
    rotated = await keyring.look()
    place.root.write_bytes(place.pki.servers.root_pem())
    healed = await keyring.look()

    assert [look.presented for look in looks] == [first.presented] * 3
    assert [bool(look.distrusted) for look in looks] == [True, False, False]
    assert looks[0].distrusted.reason is Reason.SERVER_UNTRUSTED
    assert rotated.presented == first.presented, "a pair is used with a store or not at all"
    assert (rotated.refused, rotated.renewed) == (None, False)
    assert (healed.distrusted, healed.renewed) == (None, True)


async def test_a_changed_trust_file_changes_the_roots_that_are_judged_with(place):
    keyring = place.keyring()
    first = await keyring.look()
    same = await keyring.look()
    place.root.write_bytes(Pki.create(now()).servers.root_pem() * 2)
    other = await keyring.look()

    assert same.files.anchors is first.files.anchors
    assert other.files.anchors is not first.files.anchors
    assert other.presented.bare is not first.presented.bare


async def test_a_look_that_hangs_is_waited_for_a_little_and_only_one_is_under_way(place):
    keyring = place.keyring()
    first = await keyring.look()
    place.deploy_good()
    with keyring._rotation._lock:
        hanging = [await keyring.look(0.02) for _ in range(2)]
        reading = keyring._reading
        await keyring.look(0.02)
        assert keyring._reading is reading
    healed = await keyring.look()

    assert [look.presented for look in hanging] == [first.presented] * 2
    assert [look.slow for look in hanging] == [True, False]
    assert healed.renewed


async def test_a_first_look_that_hangs_is_a_failure_with_its_reason(place):
    keyring = place.keyring()
    with keyring._rotation._lock:
        look = await keyring.look(0.02)
    after = await keyring.look()

    assert look.presented == Failure(
        Reason.CLIENT_MATERIAL_UNREADABLE, "reading the files takes longer than 0.02 s"
    )
    assert isinstance(after.presented, Presented)


async def test_orgs_that_verify_alike_share_the_context_that_presents_nothing(place):
    shared = BareContexts()

    async def bare(**changes):
        org = dataclasses.replace(place.org, **changes)
        return (await Keyring(org, os.environ, shared).look()).presented.bare

    one, two = await bare(), await bare(name="apac")
    other = await bare(endpoint=Endpoint("x", tls_max=TlsVersion.TLS_1_2))

    assert one is two
    assert other is not one
    assert len(shared._made) == 2
    del one, two
    # A thread that has given its answer holds it until it is scheduled once more.
    for _ in range(1000):
        if len(shared._made) > 1:
            await asyncio.sleep(0.005)
    assert len(shared._made) == 1, "what nobody uses is forgotten"


@pytest.fixture
def settled(monkeypatch):
    """Let a file's status stand for its content at once, and count how often files are read."""
    monkeypatch.setattr(keyrings, "_SETTLED_NS", -(10**18))
    read = []
    actual = Rotation.refresh
    monkeypatch.setattr(Rotation, "refresh", lambda *args: read.append(args) or actual(*args))
    return read


async def test_files_that_did_not_change_are_not_read_again(place, settled):
    keyring = place.keyring()
    first = await keyring.look()
    for _ in range(3):
        again = await keyring.look()

    assert len(settled) == 1
    assert again.presented is first.presented
    assert again.files is first.files


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("near", [True, False], ids=["near", "far"])
async def test_whether_files_are_as_before_is_seen_in_a_thread_where_that_may_hang(
    place, monkeypatch, near
):
    # A network mount cannot be had here; that one is seen for what it is: tests/test_mounts.py.
    monkeypatch.setattr(keyrings, "are_local", lambda _: near)
    keyring = place.keyring()
    await keyring.look()
    look = asyncio.create_task(keyring.look())
    await asyncio.sleep(0)
    # The way to a thread and back takes more than one turn of the event loop.
    at_once = look.done()
    await look

    assert at_once == near


async def test_files_that_have_just_changed_are_read_again(place):
    keyring = place.keyring()
    await keyring.look()

    assert keyring._settled is None, "their times may be too coarse to tell of another change"


@pytest.mark.usefixtures("settled")
async def test_a_settled_file_that_changes_in_any_way_is_read_again(place):
    listed = place.folder / "accepted.pem"
    listed.write_bytes(place.root.read_bytes())
    policy = Policy(accepted_roots=str(listed))
    keyring = place.keyring(policy=policy)
    first = await keyring.look()

    place.file.chmod(0o640)
    mode = (await keyring.look()).files.key.mode
    place.deploy_good()
    renewed = (await keyring.look()).renewed
    old = place.file.read_bytes()
    os.utime(place.file, (0, 0))
    other = place.folder / "other.pem"
    place.deploy_good()
    place.file.rename(other)
    place.file.symlink_to(other)
    swapped = (await keyring.look()).renewed
    other.write_bytes(old)
    back = (await keyring.look()).renewed
    listed.write_bytes(b"")
    emptied = (await keyring.look()).files.lists
    place.file.unlink()
    gone = await keyring.look()

    assert mode == 0o640
    assert (renewed, swapped, back) == (True, True, True)
    assert emptied.accepted_roots != first.files.lists.accepted_roots
    assert gone.refused is not None
    assert not isinstance(gone.presented, Failure)


async def test_what_cannot_be_used_is_tried_again_although_no_file_changed(place, settled):
    keyring = place.keyring()
    await keyring.look()
    place.deploy_weak()
    await keyring.look()
    before = len(settled)
    await keyring.look()

    assert len(settled) == before + 1


async def test_a_changed_mode_of_the_key_file_is_seen_in_the_next_cycle_and_its_end_too(place):
    runner = place.runner()
    found = []
    for mode in (0o600, 0o640, 0o644, 0o600):
        place.file.chmod(mode)
        await runner.run()
        found.append(
            [v.severity for v in place.board.get("emea").violations if v.rule == "key_file_mode"]
        )

    assert found == [[], [Severity.WARNING], [Severity.CRITICAL], []]


async def test_a_key_file_that_is_gone_leaves_what_is_known_of_it(place):
    keyring = place.keyring()
    place.file.chmod(0o640)
    await keyring.look()
    place.file.unlink()

    assert (await keyring.look()).files.key.mode == 0o640


async def test_how_a_systemd_credential_is_protected_is_not_asked(place):
    where = FromCredential("client.pem")
    org = dataclasses.replace(place.org, identity=ClientIdentity(where, where))
    environ = {"CREDENTIALS_DIRECTORY": str(place.folder)}
    place.file.chmod(0o644)
    look = await Keyring(org, environ, BareContexts()).look()

    assert isinstance(look.presented, Presented)
    assert look.files.key is None


async def test_why_changed_files_are_not_in_use_is_known_until_they_are_mended(place):
    runner = place.runner()
    good = place.file.read_bytes()
    problems = []
    for content in (good, good + b"-----BEGIN PRIVATE KEY-----\n", b"", good):
        place.file.write_bytes(content)
        await runner.run()
        problems.append(runner.judge.seen.identity_problem)

    assert problems == [
        None,
        f"file {place.file}: PEM block 4 (PRIVATE KEY) has no end; the file may be half written",
        f"file {place.file} is empty",
        None,
    ]


async def test_a_pair_that_was_never_good_is_a_failure_and_no_change(place):
    place.file.write_bytes(b"")
    runner = place.runner()
    result = await runner.run()

    assert result.outcomes[Probe.HANDSHAKE].reason is Reason.CLIENT_MATERIAL_UNREADABLE
    assert runner.judge.seen.identity_problem is None


def listing(place):
    file = place.folder / "accepted.pem"
    return file, dataclasses.replace(place.org, policy=Policy(accepted_roots=str(file)))


async def test_the_list_of_accepted_roots_is_read_again_when_it_changes(place):
    file, org = listing(place)
    file.write_bytes(place.pki.servers.root_pem())
    keyring = Keyring(org, os.environ, BareContexts())
    first, same = await keyring.look(), await keyring.look()
    file.write_bytes(place.pki.servers.root_pem() + Pki.create(now()).servers.root_pem())
    longer = await keyring.look()

    assert len(first.files.lists.accepted_roots) == 1
    assert same.files.lists.accepted_roots is first.files.lists.accepted_roots
    assert len(longer.files.lists.accepted_roots) == 2
    assert [look.unlisted for look in (first, same, longer)] == [None] * 3


async def test_a_list_that_cannot_be_read_is_told_once_stops_nothing_and_heals(place, logged):
    file, org = listing(place)
    runner = place.runner(org)
    judged = []
    for content in (None, None, b"no list", place.pki.servers.root_pem()):
        if content is not None:
            file.write_bytes(content)
        result = await runner.run()
        judged.append("root_not_in_cacerts" not in place.board.get("emea").not_evaluated)

    told = [e["failure"] for e in logged if e["event"] == "a list of the policy cannot be used"]
    assert judged == [False, False, False, True]
    assert told == [
        f"{file} cannot be read: No such file or directory",
        f"{file}: neither PEM nor DER: no block begins and no certificate starts",
    ]
    assert result.outcomes[Probe.HANDSHAKE].reason is Reason.TCP_REFUSED
    assert place.bugs == {}


async def test_cycles_that_show_the_same_are_judged_once_and_another_certificate_anew(place):
    moment = now()
    place.services = dataclasses.replace(place.services, now=lambda: moment)
    runner = place.runner()
    verdicts = []
    for _ in range(3):
        await runner.run()
        verdicts.append(runner._verdict)
    place.deploy_good()
    for _ in range(2):
        await runner.run()
        verdicts.append(runner._verdict)

    first, *same, other, still = verdicts
    assert all(verdict is first for verdict in same)
    assert other is not first
    assert still is other


# --- what other orgs present, and what was presented before


def beside(place, name="apac", host="apac.my.salesforce.com"):
    endpoint = dataclasses.replace(place.org.endpoint, host=host)
    return dataclasses.replace(place.org, name=name, endpoint=endpoint)


def shared(place, name):
    return "cert_shared_between_orgs" in {v.rule for v in place.board.get(name).violations}


async def test_orgs_that_share_a_certificate_are_told_until_one_of_them_is_gone(place):
    board = place.board
    place.services = dataclasses.replace(
        place.services, leaves=Leaves(lambda name: board.get(name) is not None)
    )
    emea, apac = place.runner(), place.runner(beside(place))
    await emea.run()
    alone = shared(place, "emea")
    await apac.run()
    await emea.run()
    both = shared(place, "emea"), shared(place, "apac")
    board.remove("apac")
    # A cycle that was under way ends after it.
    await apac.run()
    await emea.run()

    assert (alone, both, shared(place, "emea")) == (False, (True, True), False)


async def test_two_entries_for_one_org_may_share_their_certificate(place):
    emea = place.runner()
    twin = place.runner(beside(place, "emea-login", place.org.endpoint.host))
    for runner in (emea, twin, emea):
        await runner.run()

    assert not shared(place, "emea")
    assert not shared(place, "emea-login")


async def test_the_probe_command_knows_all_certificates_before_it_judges_the_first(place):
    settings = Settings(
        AgentSettings(state_directory=place.folder / "state", max_in_flight=1),
        WebSettings(),
        {},
        place.folder,
    )
    orgs = [place.org, beside(place)]
    seen = await once.probe(settings, orgs, login=False, advance=lambda _: None)

    for _, judgement in seen:
        assert "cert_shared_between_orgs" in {v.rule for v in judgement.violations}


async def test_a_renewal_that_lost_its_purpose_is_told_over_a_restart_and_a_look_takes_nothing(
    place,
):
    def regressed(judgement):
        return [v.severity for v in judgement.violations if v.rule == "renewed_cert_regressed"]

    async def daemon():
        """Start, run a cycle, write what is to be written, stop."""
        services = open_services(AgentSettings(state_directory=place.folder / "state"), os.environ)
        services.board.add(place.org)
        await OrgRunner(place.org, services).run()
        if services.history._writing is not None:
            await services.history._writing
        await close_services(services)
        return services.board.get("emea").judgement

    async def look():
        settings = Settings(
            AgentSettings(state_directory=place.folder / "state"), WebSettings(), {}, place.folder
        )
        ((_, judgement),) = await once.probe(
            settings, [place.org], login=False, advance=lambda _: None
        )
        return judgement

    def deploy(defect):
        issued = place.pki.client(defect)
        place.file.write_bytes(issued.chain_pem() + issued.key_pem())

    good = [regressed(await daemon()), regressed(await look())]
    deploy(ClientCertificate.SERVER_AUTH_ONLY)
    bad = [regressed(await look()), regressed(await look())]
    bad += [regressed(await daemon()), regressed(await daemon()), regressed(await look())]
    deploy(ClientCertificate.GOOD)
    mended = [regressed(await daemon()), regressed(await daemon())]

    assert good == [[], []]
    assert bad == [[Severity.CRITICAL]] * 5
    assert mended == [[], []]


# --- what a reload keeps


async def test_a_reload_of_the_policy_alone_judges_anew_and_reads_the_new_list(place):
    file, listed = listing(place)
    file.write_bytes(place.pki.servers.root_pem())
    before = place.runner()
    await before.run()
    first = place.board.get("emea")
    place.board.replace(listed)
    after = place.runner(listed, before)
    presented = (await before.keyring.look()).presented
    await after.run()
    second = place.board.get("emea")

    assert "root_not_in_cacerts" in first.not_evaluated
    assert "root_not_in_cacerts" not in second.not_evaluated
    assert (await after.keyring.look()).presented is presented
    assert after.keyring._rotation is before.keyring._rotation


async def test_a_reload_that_changes_the_policy_keeps_what_was_seen_of_the_door(place):
    before = place.runner()
    await before.run()
    door = dataclasses.replace(HANDSHAKE, server_chain=world().server_chain)
    before.judge.judge(result(handshake=door, client_chain=()), None, now())
    strict = dataclasses.replace(place.org, policy=Policy(expiry_warning=86400.0 * 10_000))
    place.board.replace(strict)
    await place.runner(strict, before).run()

    found = {(v.rule, v.side) for v in place.board.get("emea").violations}
    assert ("expiring", Side.SERVER) in found


async def test_a_reload_while_the_file_is_half_written_keeps_the_good_pair(place):
    before = place.runner()
    await before.run()
    place.file.write_bytes(place.file.read_bytes()[:200])
    changed = dataclasses.replace(place.org, labels={"team": "x"})
    kept = place.runner(changed, before)
    elsewhere = TrustAnchors(system=False, file=str(place.folder / "other.pem"))
    (place.folder / "other.pem").write_bytes(place.pki.servers.root_pem())
    retrusting = place.runner(dataclasses.replace(place.org, trust=elsewhere), before)
    other = place.runner(
        dataclasses.replace(
            place.org,
            identity=ClientIdentity(
                FromFile(str(place.file)), FromFile(str(place.folder / "absent.key"))
            ),
        ),
        before,
    )

    assert isinstance((await kept.keyring.look()).presented, Presented)
    assert isinstance((await retrusting.keyring.look()).presented, Presented)
    assert isinstance((await other.keyring.look()).presented, Failure)


def test_a_reload_does_not_make_a_login_due_again(place):
    before = place.runner()
    before.tried[Probe.LOGIN] = 0.0
    after = place.runner(dataclasses.replace(place.org, labels={"team": "x"}), before)

    assert Probe.LOGIN not in after._due(60.0)
    assert Probe.LOGIN in place.runner()._due(60.0)


async def test_what_a_replaced_runner_still_finds_is_not_shown(place):
    old = place.runner()
    changed = dataclasses.replace(place.org, endpoint=Endpoint("other.my.salesforce.com"))
    place.board.replace(changed)
    place.file.write_text("no pair")
    await old.run()
    snapshot = place.board.get("emea")

    assert (snapshot.cycles, snapshot.identity_reload_failures) == (0, 0)
    await place.runner(changed).run()
    assert place.board.get("emea").cycles == 1


# --- what is due


@pytest.mark.parametrize(
    ("interval", "login_interval", "every"),
    [(60, 300, 300), (50, 60, 100), (110, 120, 220), (59, 60, 118), (60, 60, 60), (7, 60, 63)],
)
def test_a_login_is_due_in_the_first_cycle_that_is_not_too_early(
    place, interval, login_interval, every
):
    org = dataclasses.replace(
        place.org, interval=float(interval), login_interval=float(login_interval)
    )
    runner = place.runner(org)
    logins = []
    for moment in itertools.takewhile(lambda at: at < 36000, itertools.count(0, interval)):
        # The monotonic clock is not quite the wall clock.
        clock = moment * 1.0001
        if Probe.LOGIN in runner._due(clock):
            logins.append(moment)
            runner.tried[Probe.LOGIN] = clock

    assert {after - before for before, after in itertools.pairwise(logins)} == {every}


def test_of_a_small_fleet_every_org_does_everything_in_its_first_cycle(place):
    last = place.runner(dataclasses.replace(place.org, refusal_interval=3600.0), ahead=599)

    assert last._due(0.0) >= {Probe.HANDSHAKE, Probe.LOGIN, Probe.REFUSAL}


def test_of_a_large_fleet_not_all_orgs_log_in_in_the_first_minute(place):
    org = dataclasses.replace(place.org, refusal_interval=3600.0)
    runners = [place.runner(org, ahead=ahead) for ahead in range(10_000)]

    def firsts(probe, minute):
        return sum(
            probe in runner._due(60.0 * minute) and probe not in runner._due(60.0 * (minute - 1))
            for runner in runners
        )

    assert all(Probe.HANDSHAKE in runner._due(0.0) for runner in runners)
    assert sum(Probe.LOGIN in runner._due(0.0) for runner in runners) == 2401
    assert [firsts(Probe.LOGIN, minute) for minute in range(1, 6)] == [2400, 2400, 2400, 399, 0]
    assert sum(Probe.REFUSAL in runner._due(0.0) for runner in runners) == 601
    assert all(Probe.REFUSAL in runner._due(1000.0) for runner in runners)


def test_a_reload_does_not_make_the_first_login_of_a_large_fleet_due_at_once(place):
    before = place.runner(ahead=10_000)
    after = place.runner(dataclasses.replace(place.org, labels={"team": "x"}), before)

    assert Probe.LOGIN not in after._due(60.0)
    assert Probe.LOGIN in after._due(200.0)


async def test_lateness_of_a_cycle_does_not_put_off_the_next_login(place):
    org = dataclasses.replace(place.org, interval=60.0, refusal_interval=300.0)
    runner = place.runner(org)
    place.clock = 25.0
    await runner.run(late=25.0)

    assert runner.tried[Probe.HANDSHAKE] == 0.0


# --- maintenance


async def test_the_board_and_the_log_tell_when_maintenance_begins_changes_and_ends(place, logged):
    moment = [now()]
    window = Window(moment[0] + timedelta(hours=1), None, "an upgrade")
    place.services = dataclasses.replace(
        place.services, gatekeeper=Gatekeeper(None, Hold(), os.environ, lambda: moment[0])
    )
    runner = place.runner(dataclasses.replace(place.org, maintenance=(window,)))
    await runner.run()
    await runner.run()
    inside = place.board.get("emea")
    moment[0] = window.until
    await runner.run()
    after = place.board.get("emea")

    assert (inside.maintenance, after.maintenance) == (window, None)
    assert inside.probes[Probe.HANDSHAKE].attempts == 2, "handshakes go on"
    told = [entry for entry in logged if entry["event"].startswith("maintenance")]
    assert [(entry["event"], entry.get("because")) for entry in told] == [
        ("maintenance: nobody logs in, handshakes go on", "an upgrade"),
        ("maintenance is over: logins go on", None),
    ]
    assert told[0]["until"] == f"{window.until:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(
    ("cause", "due"),
    [
        (SkipCause.MAINTENANCE, True),
        (SkipCause.NO_VERDICT, True),
        (SkipCause.BREAKER_OPEN, False),
        (SkipCause.BUDGET, False),
    ],
)
def test_a_login_that_maintenance_put_off_is_due_in_the_first_cycle_after_it(place, cause, due):
    runner = place.runner()
    skipped = {Probe.LOGIN: Skipped(cause), Probe.SESSION: Skipped(cause)}
    runner._remember(ProbeResult("emea", now(), skipped), 0.0)

    assert (Probe.LOGIN in runner._due(60.0)) is due


# --- bugs of our own


class BrokenJudge(Judge):
    def judge(self, result, identity, now):
        raise ZeroDivisionError(f"{result} {identity} {now}")


class FixedJudge(Judge):
    def __init__(self, org, *violations):
        super().__init__(org, shipped_tables())
        self.verdict = Verdict(Judgement(violations, ()), {})

    def judge(self, *_):
        return self.verdict


async def test_a_bug_in_judging_keeps_the_result_and_what_was_judged_before(place, logged):
    runner = place.runner()
    runner.judge = FixedJudge(place.org, violation())
    await runner.run()
    well = dict(place.bugs)
    runner.judge = BrokenJudge(place.org, shipped_tables())
    await runner.run()
    snapshot = place.board.get("emea")

    assert well == {}
    assert place.bugs == {Component.POLICY: 1}
    assert snapshot.probes[Probe.HANDSHAKE].attempts == 2
    assert snapshot.probes[Probe.HANDSHAKE].last.reason is Reason.TCP_REFUSED
    assert snapshot.violations == (violation(),)
    assert [entry["exc_info"] for entry in logged if "policy" in entry["event"]] == [True]


async def test_a_bug_in_looking_for_maintenance_costs_no_handshake(place, logged):
    runner = place.runner()

    async def broken(_org):
        raise ZeroDivisionError

    place.services.gatekeeper.maintenance = broken
    await runner.run()

    assert place.bugs == {Component.CYCLE: 1}
    assert place.board.get("emea").probes[Probe.HANDSHAKE].last.reason is Reason.TCP_REFUSED
    assert [entry["exc_info"] for entry in logged if "maintenance" in entry["event"]] == [True]


async def test_a_bug_in_finding_causes_leaves_them_out_and_keeps_the_result(place, logged):
    runner = place.runner()
    # A severity that cannot be compared, of a finding that is asked about.
    broken = dataclasses.replace(violation("endpoint_port"), severity=None)
    runner.judge = FixedJudge(place.org, broken)
    await runner.run()
    status = place.board.get("emea").probes[Probe.HANDSHAKE]

    assert place.bugs == {Component.POLICY: 1}
    assert (status.last.reason, status.cause) == (Reason.TCP_REFUSED, None)
    assert [entry["exc_info"] for entry in logged if "causes" in entry["event"]] == [True]


async def test_a_failing_cycle_is_logged_with_its_cause_and_the_sentence_only_when_it_is_news(
    place, logged
):
    runner = place.runner()
    runner.judge = FixedJudge(place.org)
    for _ in range(2):
        await runner.run()
    runner.judge = FixedJudge(place.org, violation("endpoint_port"))
    await runner.run()
    first, second = (entry for entry in logged if entry["event"] == "handshake failure")

    assert (first["cause"], first["confidence"]) == ("nothing_listens", "likely")
    assert first["because"].startswith("Nothing listens there")
    assert (second["before"], second["reason"]) == ("failure", "tcp_refused")
    assert second["cause"] == "endpoint_wrong"
    assert second["because"].endswith("(9 days left).")


async def test_a_bug_in_a_rule_is_counted_once_for_each_judgement(place):
    runner = place.runner()
    runner.judge = FixedJudge(place.org, violation(rule="internal"))
    for _ in range(3):
        await runner.run()

    assert place.bugs == {Component.POLICY: 1}


async def test_a_bug_in_a_cycle_is_a_failure_that_is_counted_and_logged(place, logged):
    broken = place.runner()
    place.board.record(await place.runner().run(), violations=[violation()])
    broken.keyring = SimpleNamespace(look=None)
    result = await broken.run()
    snapshot = place.board.get("emea")

    assert result.outcomes == {Probe.HANDSHAKE: Failure(Reason.INTERNAL, "see the log")}
    assert snapshot.probes[Probe.HANDSHAKE].last == result.outcomes[Probe.HANDSHAKE]
    assert snapshot.violations == (violation(),)
    assert place.bugs == {Component.CYCLE: 1}
    assert [entry["exc_info"] for entry in logged if "bug" in entry["event"]] == [True]


async def test_a_bug_in_one_orgs_cycle_leaves_the_others_in_the_probe_command(place):
    cursed = dataclasses.replace(place.org, name="cursed", identity=None)
    settings = Settings(
        AgentSettings(state_directory=place.folder / "state"), WebSettings(), {}, place.folder
    )
    done = []
    seen = await once.probe(settings, [cursed, place.org], login=False, advance=done.append)

    reasons = [result.outcomes[Probe.HANDSHAKE].reason for result, _ in seen]
    assert reasons == [Reason.INTERNAL, Reason.TCP_REFUSED]
    assert sorted(done) == ["cursed", "emea"]


# --- revocation


@pytest.fixture
async def watching(place):
    place.services.revocation.start()
    yield place.services.revocation
    await place.services.revocation.aclose()


async def revocable(place, library, authority, *, revoked):
    """Deploy a certificate whose authority publishes a list, which has it or not."""
    made = authority.leaf(extensions=(points(library.url("/ca.crl")),))
    serials = [made.parsed.serial_number] if revoked else []
    soon, lately = now() + timedelta(days=1), now() - timedelta(days=1)
    library.publish(
        "/ca.crl",
        crl(authority.intermediate, *serials, this_update=lately, next_update=soon),
    )
    key = made.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    place.file.write_bytes(made.pem + authority.intermediate.pem + key)
    asks = Policy(revocation=RevocationCheck.CRL)
    place.org = dataclasses.replace(place.org, policy=asks)


def rules(place):
    return {violation.rule for violation in place.board.get("emea").violations}


@pytest.mark.parametrize("revoked", [True, False])
async def test_a_cycle_does_not_wait_for_the_list_and_the_next_one_knows(
    place, watching, library, revoked
):
    await revocable(place, library, hierarchy("Revoking"), revoked=revoked)
    library.gate.clear()
    runner = place.runner()

    await runner.run()
    await runner.run()
    meanwhile = rules(place), place.board.get("emea").not_evaluated
    library.gate.set()
    await watching.settled()
    await runner.run()

    assert "revoked" not in meanwhile[0]
    assert "revoked" in meanwhile[1]
    assert ("revoked" in rules(place)) is revoked
    assert "revoked" not in place.board.get("emea").not_evaluated
    assert library.asked == ["/ca.crl"]


async def test_nobody_is_asked_unless_the_operator_wants_it_and_what_was_told_goes_with_it(
    place, watching, library
):
    await revocable(place, library, hierarchy("Revoking"), revoked=True)
    off = dataclasses.replace(place.org, policy=Policy())
    before = place.runner(off)
    await before.run()
    await before.run()
    assert library.asked == []

    place.board.replace(place.org)
    asking = place.runner(place.org, before)
    await asking.run()
    await asking.run()
    await watching.settled()
    await asking.run()
    assert "revoked" in rules(place)

    place.board.replace(off)
    await place.runner(off, asking).run()
    assert "revoked" not in rules(place)
