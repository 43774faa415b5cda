"""`rehearse`: the renewed certificate is tried beside the one in use, before it is deployed."""

import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from doors import TIMEOUTS
from fleet import Fleet
from making import NOW, make, rsa_key, world
from test_commands import store_state
from test_secrets import Canaries, assert_nothing_found, printed, shown

from agent import config, terminal_rehearsal
from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import analyse
from agent.credentials import Secret
from agent.org import (
    ClientIdentity,
    Endpoint,
    FromFile,
    Org,
    PasswordCredentials,
    Policy,
    Proxy,
    Suppression,
    TrustAnchors,
)
from agent.policy import Judgement, Suppressed
from agent.policy.rule import Severity, Side, Violation
from agent.reason import Reason
from agent.rehearsal import Mark, Rehearsal, Tried, as_json, steps
from agent.rehearser import rehearse
from agent.result import (
    ClientAuth,
    Failure,
    HandshakeOutcome,
    Probe,
    ProbeResult,
    SkipCause,
    Skipped,
    Stage,
    Success,
)
from agent.simulator.pki import ClientCertificate
from agent.simulator.server import PASSWORD

OPENS_NOT = "the door does not open"
FOR_CURRENT = "although it opens for the current one"
UNSUPPORTED = f"{OPENS_NOT} (client_cert_unsupported: alert unsupported_certificate), {FOR_CURRENT}"
BUG = Violation("internal", Severity.WARNING, Side.ORG, None, None, None, "", "", "-", None)
UPLOAD_FIRST = (
    "Whether the org knows this certificate shows only when a session is used: upload it to the "
    "org's Mutual Authentication Certificates before you deploy it here, and rehearse with --login."
)
DAY = timedelta(days=1)
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"
GOLDEN = Path(__file__).parent / "golden" / "rehearse_refused.txt"


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    written(fleet, fleet.pki.client(ClientCertificate.GOOD), "good.pem")
    yield fleet
    await fleet.stop()


def written(fleet, issued, name="new.pem"):
    """Put a certificate with its chain and key into one file of ours alone; return where."""
    return source(fleet, put(fleet, name, issued.chain_pem() + issued.key_pem()))


def put(fleet, name, content):
    (fleet.folder / name).write_bytes(content)
    (fleet.folder / name).chmod(0o600)
    return name


def source(fleet, certificate, key=None, passphrase=None):
    def path(name):
        return FromFile(str(fleet.folder / name))

    return ClientIdentity(
        path(certificate), path(key or certificate), path(passphrase) if passphrase else None
    )


def issued(fleet, common_name="probe", **differently):
    return fleet.pki.clients.issue(common_name, ExtendedKeyUsageOID.CLIENT_AUTH, **differently)


async def rehearsed(fleet, candidate, *, log_in=False, **changes):
    """Rehearse a certificate by its defect, or one that was written."""
    if isinstance(candidate, ClientCertificate):
        candidate = written(fleet, fleet.pki.client(candidate))
    settings = config.load(fleet.file)
    org = replace(settings.orgs["emea"], **({"timeouts": TIMEOUTS} | changes))
    return await rehearse(settings, org, candidate, login=log_in)


def marks(of, *, login=False):
    return {taken.step.value: taken.mark for taken in steps(of, login=login)}


def text_of(rehearsal):
    return printed(lambda: terminal_rehearsal.print_rehearsal(rehearsal))


# --- what the door and the policy say ------------------------------------------------------------


async def test_a_right_candidate_is_at_least_as_good(fleet):
    simulator = await fleet.add("emea")

    found = await rehearsed(fleet, ClientCertificate.GOOD)

    assert found.worse == ()
    assert set(marks(found.current).values()) == set(marks(found.candidate).values()) == {Mark.GOOD}
    assert found.candidate.result.client_auth is ClientAuth.ACCEPTED
    assert {change.field: change.verdict for change in found.changes} == {
        "subject": "same",
        "names": "same",
        "issuer": "same",
        "root": "same",
        "purposes": "same",
        "validity": "same",
        "key": "a new one",
        "chain": "same",
        "sha256": "another certificate",
    }
    assert len(simulator.record.connections) == 2, "one for each, and nobody knocks without one"
    assert "at least as good as the current one" in text_of(found)


@pytest.mark.parametrize(
    ("defect", "worse"),
    [
        (
            ClientCertificate.SERVER_AUTH_ONLY,
            (
                "renewed_cert_regressed (critical)",
                UNSUPPORTED,
            ),
        ),
        (
            ClientCertificate.INTERMEDIATE_MISSING,
            (
                "leaf_only (critical)",
                f"{OPENS_NOT} (client_cert_unknown_ca: alert unknown_ca), {FOR_CURRENT}",
            ),
        ),
        (
            ClientCertificate.EXPIRED,
            (
                "expired (critical)",
                f"{OPENS_NOT} (client_cert_expired: alert certificate_expired), {FOR_CURRENT}",
            ),
        ),
        (
            ClientCertificate.NOT_YET_VALID,
            (
                "not_yet_valid (critical)",
                f"{OPENS_NOT} (client_cert_bad: alert bad_certificate), {FOR_CURRENT}",
            ),
        ),
        (
            ClientCertificate.UNKNOWN_CA,
            (f"{OPENS_NOT} (client_cert_unknown_ca: alert unknown_ca), {FOR_CURRENT}",),
        ),
        # These two open every door, and are worse all the same.
        (ClientCertificate.WRONG_ORDER, ("chain_out_of_order (critical)",)),
        (ClientCertificate.EXPIRING, ("expiring (critical)",)),
    ],
)
async def test_each_defect_of_a_candidate_is_told(fleet, defect, worse):
    await fleet.add("emea")

    found = await rehearsed(fleet, defect)

    assert found.worse == worse
    told = text_of(found).splitlines()
    verdict = told.index("emea: do not deploy it")
    assert told[verdict + 1 :] == [f"  {why}" for why in worse]


async def test_a_door_that_refuses_by_a_web_page_is_shut_after_a_good_handshake(fleet):
    soft = await fleet.add("emea", "soft_tls13_server_auth_only")

    found = await rehearsed(fleet, ClientCertificate.SERVER_AUTH_ONLY)

    assert soft.record.refused == [], "TLS refused nobody"
    assert marks(found.candidate)["handshake"] is Mark.GOOD
    assert marks(found.candidate)["door"] is Mark.BAD
    assert found.candidate.result.client_auth is ClientAuth.SOFT_REJECTED
    assert found.worse[-1].startswith(f"{OPENS_NOT} (client_cert_page: ")


async def test_what_the_current_one_has_too_is_no_objection(fleet):
    await fleet.add("emea")
    soon = datetime.now(UTC) + 20 * DAY
    written(fleet, issued(fleet, not_after=soon), "good.pem")

    found = await rehearsed(fleet, written(fleet, issued(fleet, not_after=soon + DAY)))

    assert [v.rule for v in found.candidate.judgement.violations if v.severity == "warning"] == [
        "expiring",
        "soap_login_retiring",
    ]
    assert found.worse == ()
    assert "warning: expiring (as with the current one)" in text_of(found)


async def test_what_the_current_one_has_less_badly_is_an_objection(fleet):
    await fleet.add("emea")
    today = datetime.now(UTC)
    written(fleet, issued(fleet, not_after=today + 20 * DAY), "good.pem")

    found = await rehearsed(fleet, written(fleet, issued(fleet, not_after=today + 9 * DAY)))

    assert found.worse == ("expiring (critical)",)


async def test_the_root_and_the_date_of_the_server_are_not_held_against_the_candidate(fleet):
    await fleet.add("emea", "clock_ahead")

    found = await rehearsed(fleet, ClientCertificate.GOOD)

    assert "clock_suspect" in {v.rule for v in found.candidate.judgement.violations}
    assert found.worse == ()
    assert "clock_suspect" not in text_of(found)


async def test_another_subject_is_a_regression_unless_the_operator_knows_it(fleet):
    await fleet.add("emea")
    renamed = written(fleet, issued(fleet, "another"))
    policy = config.load(fleet.file).orgs["emea"].policy
    known = Suppression("renewed_cert_regressed", datetime.now(UTC) + DAY, "it moves")

    found = await rehearsed(fleet, renamed)
    suppressed = await rehearsed(fleet, renamed, policy=replace(policy, suppressions=(known,)))

    assert found.worse == ("renewed_cert_regressed (warning)",)
    assert "subject was" in text_of(found)
    assert suppressed.worse == ()
    assert "renewed_cert_regressed (it moves)" in text_of(suppressed)


async def test_a_key_that_everybody_can_read_is_worse_than_one_that_nobody_can(fleet):
    await fleet.add("emea")
    candidate = written(fleet, issued(fleet))
    (fleet.folder / "new.pem").chmod(0o644)

    assert (await rehearsed(fleet, candidate)).worse == ("key_file_mode (critical)",)


async def test_a_certificate_of_another_org_is_no_renewal(fleet):
    await fleet.add("emea")
    elsewhere = {"host": "apac.my.salesforce.com", "organization_id": "00D000000000009AAA"}
    await fleet.add("apac", certificate="apac.pem", **elsewhere)
    candidate = written(fleet, issued(fleet), "apac.pem")

    found = await rehearsed(fleet, candidate)
    written(fleet, issued(fleet), "apac.pem")
    fresh = await rehearsed(fleet, written(fleet, issued(fleet)))

    assert found.worse == ("cert_shared_between_orgs (critical)",)
    assert fresh.worse == ()


async def test_a_root_that_the_server_is_not_known_to_accept_is_worse(fleet):
    await fleet.add("emea")
    roots = [fleet.pki.clients.root_pem(), fleet.pki.strangers.root_pem()]
    put(fleet, "roots.pem", b"".join([fleet.pki.servers.root_pem(), *roots]))
    put(fleet, "accepted.pem", roots[0])
    trust = TrustAnchors(system=False, file=str(fleet.folder / "roots.pem"))
    policy = Policy(accepted_roots=str(fleet.folder / "accepted.pem"))

    found = await rehearsed(fleet, ClientCertificate.UNKNOWN_CA, trust=trust, policy=policy)
    right = await rehearsed(fleet, ClientCertificate.GOOD, trust=trust, policy=policy)

    assert found.worse[:-1] == (
        "root_not_in_cacerts (critical)",
        "renewed_cert_regressed (warning)",
    )
    assert right.worse == ()


def test_a_rule_that_fails_on_the_candidate_is_an_objection():
    one, other = (replace(BUG, message=f"The rule {rule} failed") for rule in ("one", "other"))

    assert both_in([one], [one, other]).worse == ("internal (warning)",)
    assert both_in([one, other], [one, other]).worse == ()


def test_what_the_policy_says_of_the_server_is_no_objection():
    critical = replace(BUG, rule="expired", severity=Severity.CRITICAL)
    of_server, of_client = (replace(critical, side=side) for side in (Side.SERVER, Side.CLIENT))

    assert both_in([], [of_server]).worse == ()
    assert both_in([], [of_client]).worse == ("expired (critical)",)


def both_in(current, candidate):
    """Return a rehearsal in which all is well but for these findings."""
    well = refused().current
    tried = [replace(well, judgement=Judgement(tuple(found), ())) for found in (current, candidate)]
    return replace(refused(), login=False, current=tried[0], candidate=tried[1])


async def test_a_pair_that_openssl_refuses_is_judged_although_nobody_saw_it(fleet):
    simulator = await fleet.add("emea")
    weak = world().clients.leaf(key=rsa_key(1024))
    pem = [made.pem for made in (weak, world().clients.intermediate)]
    key = weak.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    found = await rehearsed(fleet, source(fleet, put(fleet, "new.pem", b"".join([*pem, key]))))

    assert len(simulator.record.connections) == 1
    assert found.worse[-1] == (
        f"{OPENS_NOT} (client_material_unreadable: OpenSSL refuses the pair: EE_KEY_TOO_SMALL), "
        f"{FOR_CURRENT}"
    )
    assert "key_too_small (critical)" in found.worse
    unjudged = [tried.judgement.not_evaluated for tried in (found.current, found.candidate)]
    assert unjudged[0] == unjudged[1], "what the current one saw of the server holds for both"


# --- what is not the candidate's fault proves nothing --------------------------------------------


async def test_a_door_that_nobody_reaches_is_no_leave_to_deploy(fleet):
    simulator = await fleet.add("emea")
    await simulator.stop()

    found = await rehearsed(fleet, ClientCertificate.GOOD)

    (why,) = found.worse
    assert why.startswith(f"{OPENS_NOT} (tcp_refused: ")
    assert why.endswith(", nor for the current one, so it may not be the candidate's fault")
    assert marks(found.candidate)["door"] is Mark.NONE


async def test_a_proxy_password_that_cannot_be_read_keeps_both_from_the_door(fleet):
    await fleet.add("emea")
    endpoint = config.load(fleet.file).orgs["emea"].endpoint
    proxy = Proxy("127.0.0.1", 9, "agent", FromFile(str(fleet.folder / "absent")))

    found = await rehearsed(fleet, ClientCertificate.GOOD, endpoint=replace(endpoint, proxy=proxy))

    (why,) = found.worse
    assert why.startswith(f"{OPENS_NOT} (credentials_unreadable: ")
    assert "absent" in why


async def test_a_trust_store_that_cannot_be_read_keeps_both_from_the_door(fleet):
    await fleet.add("emea")
    trust = TrustAnchors(system=False, file=str(fleet.folder / "absent"))

    found = await rehearsed(fleet, ClientCertificate.GOOD, trust=trust)

    (why,) = found.worse
    assert why.startswith(f"{OPENS_NOT} (server_untrusted: trust store: ")
    assert len(found.changes) == 9


# --- files that cannot be used -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "PEM block 1 (CERTIFICATE) has no end"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "PEM block 1 is a X509 CRL"),
    ],
)
async def test_a_candidate_that_cannot_be_read_is_told_with_file_and_block(fleet, content, says):
    await fleet.add("emea")
    if content is not None:
        put(fleet, "new.pem", content)

    found = await rehearsed(fleet, source(fleet, "new.pem"))

    assert isinstance(found.candidate, Failure)
    (why,) = found.worse
    assert why.startswith("it cannot be used: client_material_unreadable: file ")
    assert "new.pem" in why
    assert says in why
    assert found.changes == ()
    assert marks(found.candidate)["lint"] is Mark.BAD
    assert marks(found.current)["door"] is Mark.GOOD
    assert says in text_of(found)


async def test_a_key_of_another_certificate_is_told_with_both_files(fleet):
    await fleet.add("emea")
    one, other = issued(fleet), issued(fleet)
    put(fleet, "new.crt", one.chain_pem())
    put(fleet, "new.key", other.key_pem())
    put(fleet, "right.key", one.key_pem())

    found = await rehearsed(fleet, source(fleet, "new.crt", "new.key"))
    right = await rehearsed(fleet, source(fleet, "new.crt", "right.key"))

    (why,) = found.worse
    assert why.startswith("it cannot be used: client_key_mismatch: ")
    assert "new.crt" in why
    assert "new.key" in why
    assert marks(found.candidate)["key"] is Mark.BAD
    assert marks(found.candidate)["lint"] is Mark.NONE
    assert right.worse == ()


async def test_an_encrypted_key_is_opened_with_its_passphrase_and_with_no_other(fleet):
    await fleet.add("emea")
    one = issued(fleet)
    put(fleet, "new.crt", one.chain_pem())
    put(fleet, "new.key", one.key_pem(passphrase=Secret("open sesame")))
    for passphrase in ("open sesame", "open barley"):
        (fleet.folder / passphrase).write_text(passphrase + "\n")

    found = {
        passphrase: await rehearsed(fleet, source(fleet, "new.crt", "new.key", passphrase))
        for passphrase in ("open sesame", "open barley")
    }

    assert found["open sesame"].worse == ()
    (why,) = found["open barley"].worse
    assert "the passphrase does not open the private key" in why
    assert "barley" not in why


async def test_without_a_current_one_the_candidate_must_be_good_by_itself(fleet):
    await fleet.add("emea")
    soon = issued(fleet, not_after=datetime.now(UTC) + 20 * DAY)
    (fleet.folder / "good.pem").unlink()

    good = await rehearsed(fleet, ClientCertificate.GOOD)
    late = await rehearsed(fleet, written(fleet, soon))

    assert isinstance(good.current, Failure)
    assert good.worse == good.changes == ()
    assert "good by itself; the current one cannot be used" in text_of(good)
    assert late.worse == ("expiring (warning)",)


async def test_beside_an_expired_one_the_candidate_must_be_good_by_itself(fleet):
    await fleet.add("emea")
    fleet.deploy(ClientCertificate.EXPIRED, "good.pem")

    good = await rehearsed(fleet, ClientCertificate.GOOD)
    bad = await rehearsed(fleet, ClientCertificate.EXPIRED)

    assert good.worse == ()
    assert "good by itself; the current one has expired" in text_of(good)
    assert len(good.changes) == 9
    assert bad.worse[0] == "expired (critical)", "although the current one is no better"
    assert bad.worse[1].endswith("nor for the current one, so it may not be the candidate's fault")


# --- logging in ----------------------------------------------------------------------------------


async def test_without_login_no_password_is_sent_and_the_state_is_not_touched(fleet):
    simulator = await fleet.add("emea")

    found = await rehearsed(fleet, ClientCertificate.GOOD)

    assert not simulator.record.credentials_seen
    assert not (fleet.folder / "state").exists()
    assert found.advice == (UPLOAD_FIRST,)


async def test_the_candidate_logs_in_once_and_it_counts_in_the_budget(fleet):
    simulator = await fleet.add("emea")

    found = await rehearsed(fleet, ClientCertificate.GOOD, log_in=True)

    assert found.worse == found.advice == ()
    assert (simulator.record.logins, simulator.record.session_endings) == (1, 0)
    assert marks(found.candidate, login=True)["session"] is Mark.GOOD
    assert marks(found.current, login=True)["login"] is Mark.NONE, "the current one never does"
    state = store_state(fleet)
    assert len(state.attempts) == 1
    assert state.unfinished == ()


async def test_a_candidate_at_a_shut_door_does_not_log_in(fleet):
    simulator = await fleet.add("emea")

    found = await rehearsed(fleet, ClientCertificate.SERVER_AUTH_ONLY, log_in=True)

    assert not simulator.record.credentials_seen
    assert store_state(fleet).attempts == ()
    assert found.candidate.result.outcomes[Probe.LOGIN] == Skipped(SkipCause.NO_VERDICT)
    assert found.worse[-1] == UNSUPPORTED, "the door says it, the login need not"


async def test_an_open_breaker_lets_no_login_through_and_that_is_no_leave(fleet):
    simulator = await fleet.add("emea", "invalid_login")
    first = await rehearsed(fleet, ClientCertificate.GOOD, log_in=True)

    second = await rehearsed(fleet, ClientCertificate.GOOD, log_in=True)

    assert simulator.record.logins == 1
    (why,) = first.worse
    assert why.startswith("login: invalid_login")
    (why,) = second.worse
    assert why.startswith("login: not tried, breaker_open after invalid_login until 2")
    assert marks(second.candidate, login=True)["login"] is Mark.WARNING


async def test_a_budget_that_is_used_up_lets_no_login_through_and_that_is_no_leave(fleet):
    simulator = await fleet.add("emea")
    first = await rehearsed(fleet, ClientCertificate.GOOD, log_in=True, logins_per_hour=1)

    second = await rehearsed(fleet, ClientCertificate.GOOD, log_in=True, logins_per_hour=1)

    assert first.worse == ()
    (why,) = second.worse
    assert why.startswith("login: not tried, budget until 2")
    assert simulator.record.logins == 1


async def test_a_login_that_cannot_be_recorded_is_not_made(fleet):
    simulator = await fleet.add("emea")
    (fleet.folder / "state").write_text("a file where the directory should be")

    found = await rehearsed(fleet, ClientCertificate.GOOD, log_in=True)

    assert not simulator.record.credentials_seen
    (why,) = found.worse
    assert why.startswith("login: not tried, state_unavailable")


async def test_a_session_that_another_client_ended_is_not_tried_again(fleet):
    simulator = await fleet.add("emea", "session_lost_once")

    found = await rehearsed(fleet, ClientCertificate.GOOD, log_in=True)

    assert simulator.record.logins == 1
    (why,) = found.worse
    assert why.startswith("session: session_invalid")


async def test_a_certificate_that_the_org_does_not_know_fails_with_the_session(fleet):
    await fleet.add("emea", "mutual_auth_failed")

    quick = await rehearsed(fleet, ClientCertificate.GOOD)
    whole = await rehearsed(fleet, ClientCertificate.GOOD, log_in=True)

    assert quick.worse == ()
    assert "rehearse with --login" in quick.advice[0]
    (why,) = whole.worse
    assert why.startswith("session: mutual_auth_failed")
    assert Reason.MUTUAL_AUTH_FAILED.remedy in text_of(whole)


async def test_a_login_that_is_asked_for_where_none_is_configured_is_no_leave(fleet):
    simulator = await fleet.add("emea")

    found = await rehearsed(fleet, ClientCertificate.GOOD, log_in=True, login=None)

    assert found.worse == ("no login was made: the org has none configured",)
    assert not simulator.record.credentials_seen
    assert not (fleet.folder / "state").exists()


async def test_a_clean_certificate_that_the_door_refuses_may_be_unknown_to_the_org(fleet):
    await fleet.add("emea")

    stranger = await rehearsed(fleet, ClientCertificate.UNKNOWN_CA)
    faulty = await rehearsed(fleet, ClientCertificate.SERVER_AUTH_ONLY)
    fleet.deploy(ClientCertificate.UNKNOWN_CA, "good.pem")
    same = await rehearsed(fleet, source(fleet, "good.pem"))

    assert "the org may not know this certificate yet" in stranger.advice[0]
    assert faulty.advice == ()
    assert same.advice == (), "it is the one in use"


# --- as JSON and as text -------------------------------------------------------------------------


async def test_the_json_has_the_promised_shape(fleet):
    await fleet.add("emea")

    found = json.loads(
        json.dumps(as_json(await rehearsed(fleet, ClientCertificate.SERVER_AUTH_ONLY)))
    )
    unusable = as_json(await rehearsed(fleet, source(fleet, "absent.pem"), log_in=True))

    assert (
        list(found)
        == list(unusable)
        == [
            "org",
            "at",
            "login",
            "at_least_as_good",
            "worse",
            "advice",
            "changes",
            "current",
            "candidate",
        ]
    )
    assert (found["org"], found["login"], found["at_least_as_good"]) == ("emea", False, False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["at"])
    assert found["worse"] == ["renewed_cert_regressed (critical)", UNSUPPORTED]
    assert {
        "field": "purposes",
        "before": "clientAuth",
        "after": "serverAuth",
        "verdict": "lost clientAuth; new serverAuth",
    } in found["changes"]
    for side in ("current", "candidate"):
        assert list(found[side]) == ["problem", "steps", "cycle"]
        assert found[side]["problem"] is None
        assert [step["step"] for step in found[side]["steps"]] == [
            "lint",
            "key",
            "chain",
            "handshake",
            "door",
        ]
        assert set(found[side]["cycle"]["probes"]) == {"handshake"}
    assert found["candidate"]["steps"][0] == {
        "step": "lint",
        "mark": "bad",
        "detail": "critical: renewed_cert_regressed",
    }
    assert found["candidate"]["cycle"]["client_auth"] == "rejected"
    assert "renewed_cert_regressed" in {
        violation["rule"] for violation in found["candidate"]["cycle"]["violations"]
    }
    assert unusable["candidate"]["cycle"] is None
    assert unusable["candidate"]["problem"]["reason"] == "client_material_unreadable"
    assert [step["step"] for step in unusable["current"]["steps"]][-2:] == ["login", "session"]
    assert unusable["changes"] == []


def refused():
    """Return a rehearsal with everything in it, that is the same every time."""
    w = world()
    org = Org(
        "emea",
        Endpoint("emea.my.salesforce.com"),
        source_of("good.pem"),
        login=PasswordCredentials("probe@emea.example", FromFile("password")),
    )
    seen = HandshakeOutcome(ClientAuth.ACCEPTED, "TLSv1.3", server_chain=w.server_chain)
    well = ProbeResult(
        "emea",
        NOW,
        {Probe.HANDSHAKE: Success()},
        {Stage.TCP: 0.011, Stage.TLS: 0.03, Stage.DOOR: 0.1},
        seen,
        ClientAuth.ACCEPTED,
    )
    failure = Failure(Reason.CLIENT_CERT_UNSUPPORTED, "alert unsupported_certificate")
    ill = ProbeResult(
        "emea",
        NOW,
        {
            Probe.HANDSHAKE: failure,
            Probe.LOGIN: Skipped(SkipCause.NO_VERDICT),
            Probe.SESSION: Skipped(SkipCause.NO_VERDICT),
        },
        {Stage.TCP: 0.012, Stage.TLS: 0.02},
        replace(seen, client_auth=ClientAuth.REJECTED, failure=failure),
        ClientAuth.REJECTED,
    )
    chain = w.clients.chain(eku=(SERVER_AUTH,), not_after=NOW + 320 * DAY)
    lost = Violation(
        rule="renewed_cert_regressed",
        severity=Severity.CRITICAL,
        side=Side.CLIENT,
        position=0,
        fingerprint=chain[0].fingerprint_sha256,
        subject=chain[0].subject,
        message="The renewed client certificate lost clientAuth.",
        remedy="Have it issued again.",
        reference="-",
        bites_from=None,
    )
    late = replace(lost, rule="chain_extra", severity=Severity.WARNING, message="One too many.")
    reused = replace(lost, rule="key_reused", severity=Severity.INFO)
    known = Suppressed(reused, Suppression("key_reused", NOW + DAY, "it is in a module"))
    note = replace(reused, rule="root_private", message="A note is for `probe --all`.")
    return Rehearsal(
        org,
        NOW,
        login=True,
        current=Tried(analyse(w.client_chain, w.anchors), well, Judgement((late,), ())),
        candidate=Tried(
            analyse(chain, w.anchors), ill, Judgement((lost, late, note), (), (known,))
        ),
    )


def source_of(name):
    return ClientIdentity(FromFile(name), FromFile(name))


def on_a_terminal(rehearsal, columns, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return re.sub(r"\x1b\[[0-9;]*m", "", text_of(rehearsal))


def test_the_text_is_the_golden_one(monkeypatch):
    text = on_a_terminal(refused(), 80, monkeypatch)

    text = re.sub(r"\b[0-9a-f]{16}\b", "0123456789abcdef", text)
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if UPDATE:
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_terminal(columns, monkeypatch):
    text = on_a_terminal(refused(), columns, monkeypatch)

    assert max(map(len, text.splitlines())) <= columns


def test_into_a_pipe_goes_no_colour_and_no_line_is_broken_in_the_middle_of_a_name():
    text = text_of(refused())

    assert "\x1b" not in text
    assert "CN=Clients Root (private)" in text


def test_a_name_cannot_steer_the_terminal(monkeypatch):
    w = world()
    hostile = make("a\x1b[2Jb\u202ec", w.clients.intermediate, eku=(CLIENT_AUTH,)).facts
    before = refused()
    analysis = analyse((hostile, w.clients.intermediate.facts), w.anchors)
    candidate = Tried(analysis, before.current.result, Judgement((), ()))
    after = replace(before, login=False, candidate=candidate)
    current = replace(before, login=False, current=candidate)

    for rehearsal in (after, current):
        text = on_a_terminal(rehearsal, 120, monkeypatch)

        assert not {"\x1b", "\u202e"} & {*text}
        assert "a\\u001b[2Jb\\u202ec" in text


async def test_no_secret_comes_out(fleet, capfd):
    await fleet.add("emea")
    one, passphrase = issued(fleet), "correct horse battery staple"
    key = one.key_pem(passphrase=Secret(passphrase))
    put(fleet, "new.crt", one.chain_pem())
    put(fleet, "new.key", key)
    (fleet.folder / "passphrase").write_text(passphrase)
    (fleet.folder / "wrong").write_text(passphrase[::-1])
    bodies = {
        f"key {number}": "".join(pem.decode().splitlines()[1:-1])
        for number, pem in enumerate((key, one.key_pem()))
    }
    canaries = Canaries(
        {"password": PASSWORD.reveal(), "passphrase": passphrase, "wrong": passphrase[::-1]}
        | bodies
    )
    found = [
        await rehearsed(fleet, source(fleet, "new.crt", "new.key", name), log_in=True)
        for name in ("passphrase", "wrong")
    ]

    assert found[0].worse == ()
    assert "client_material_unreadable" in found[1].worse[0]
    assert_nothing_found(
        canaries,
        {
            "values": shown(*found),
            "JSON": "\n".join(json.dumps(as_json(one), ensure_ascii=False) for one in found),
            "text": "\n".join(map(text_of, found)),
            "output": "\n".join(capfd.readouterr()),
        },
    )
