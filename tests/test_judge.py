"""What an org alone tells, what its cycles add, when it is judged anew, and what a reload keeps."""

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from boards import HANDSHAKE, org, result
from making import HOST, NOW, world

from agent.certificate import SERVER_AUTH
from agent.credentials import Protection, Secret
from agent.identity import Identity
from agent.judge import Files, Judge, basis
from agent.listing import Lists
from agent.org import (
    ClientIdentity,
    Endpoint,
    Enforcement,
    FromFile,
    Policy,
    Suppression,
    TlsVersion,
    TrustAnchors,
)
from agent.policy.rule import OtherOrg, PrivateKey, Revocation, RevocationState, Thresholds
from agent.policy.tables import shipped_tables
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Probe, SkipCause, Skipped, Success

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
EMEA = org("emea", endpoint=Endpoint(HOST))
SUPPRESSION = Suppression("root_private", NOW + DAY, "our own authority", None)


@pytest.fixture
def w():
    return world()


def shown(w=None, **changes):
    w = w or world()
    return result(
        client_chain=w.client_chain,
        handshake=replace(HANDSHAKE, server_chain=w.server_chain),
        **changes,
    )


def judge_of(watched=EMEA, **files):
    judge = Judge(watched, shipped_tables(), world().anchors)
    judge.read(Files(world().anchors, **files))
    return judge


def rules(verdict):
    return {violation.rule for violation in verdict.judgement.violations}


def suppressed(verdict):
    return {known.violation.rule for known in verdict.judgement.suppressed}


# --- what an org alone tells


def test_the_basis_is_all_that_an_org_tells_and_nothing_that_was_seen(w):
    watched = replace(
        EMEA,
        endpoint=Endpoint(HOST, 9443, server_name="other.example.com"),
        policy=Policy("chrome-1.8", 90.0, 30.0, suppressions=(SUPPRESSION,)),
    )
    found = basis(watched, shipped_tables(), w.anchors, Lists(frozenset({"00"}), frozenset({"11"})))

    assert (found.org, found.host, found.port) == ("emea", HOST, 9443)
    assert found.server_name == "other.example.com"
    assert (found.api_version, found.soap_login) == ("64.0", True)
    assert found.profile == "chrome-1.8"
    assert found.thresholds == Thresholds(timedelta(seconds=90), timedelta(seconds=30))
    assert found.suppressions == (SUPPRESSION,)
    assert (found.accepted_roots, found.uploaded) == ({"00"}, {"11"})
    assert (found.client_chain, found.server_chain, found.client_auth) == (None, None, None)


@pytest.mark.parametrize(("name", "mismatch"), [(None, False), ("other.example.com", True)])
def test_the_server_is_judged_by_the_name_that_was_asked_for(name, mismatch):
    watched = replace(EMEA, endpoint=Endpoint(HOST, server_name=name))
    verdict = judge_of(watched).judge(shown(), None, NOW)

    assert ("server_hostname_mismatch" in rules(verdict)) is mismatch


@pytest.mark.parametrize(
    ("moment", "apart"), [(NOW, True), (NOW + DAY - HOUR, True), (NOW + DAY, False)]
)
def test_what_the_policy_suppresses_is_kept_apart_until_its_time_is_over(moment, apart):
    watched = replace(EMEA, policy=Policy(suppressions=(SUPPRESSION,)))
    judge = judge_of(watched)
    judge.judge(shown(), None, NOW)
    verdict = judge.judge(shown(), None, moment)

    assert ("root_private" in suppressed(verdict)) is apart
    assert ("root_private" in rules(verdict)) is not apart


# --- files


def identity(chain):
    return Identity(chain, Secret("key"), None, "digest")


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (Protection(0o400, owned=True), {"key_unencrypted"}),
        (Protection(0o440, owned=True), {"key_file_mode"}),
        (Protection(0o400, owned=False), {"key_file_mode"}),
        (None, set()),
    ],
)
def test_the_key_is_judged_by_the_protection_of_its_file(w, key, found):
    judge = judge_of(key=key)
    verdict = judge.judge(shown(), identity(w.client_chain), NOW)

    assert rules(verdict) & {"key_unencrypted", "key_file_mode"} == found
    assert judge.seen.private_key == PrivateKey(
        w.client_chain[0].subject_public_key_info_sha256,
        mode=key.mode if key else None,
        owned=key.owned if key else True,
    )


def test_why_a_changed_file_is_not_in_use_is_a_finding_until_it_is_mended():
    judge = judge_of(problem="file x has 2 private keys")
    broken = judge.judge(shown(), None, NOW)
    judge.read(Files(world().anchors))
    mended = judge.judge(shown(), None, NOW)

    (found,) = [v for v in broken.judgement.violations if v.rule == "client_file_changed"]
    assert "file x has 2 private keys" in found.message
    assert "client_file_changed" not in rules(mended)


@pytest.mark.parametrize("listed", [None, "chrome", "clients"])
def test_the_rule_about_accepted_roots_speaks_only_when_there_is_a_list(w, listed):
    accepted = listed and frozenset({getattr(w, listed).root.facts.fingerprint_sha256})
    judgement = judge_of(lists=Lists(accepted_roots=accepted)).judge(shown(), None, NOW).judgement

    assert ("root_not_in_cacerts" in judgement.not_evaluated) is (listed is None)
    assert ("root_not_in_cacerts" in {v.rule for v in judgement.violations}) is (listed == "chrome")


# --- revocation


def test_answers_about_revocation_are_judged_as_they_come_and_go_with_their_certificates(w):
    client, server = w.client_chain[0], w.server_chain[0]
    revoked = Revocation(RevocationState.REVOKED, "on 2026-11-01")
    good = Revocation(RevocationState.GOOD)
    judge = judge_of()
    before = judge.judge(shown(), None, NOW)
    judge.revocation({client.fingerprint_sha256: revoked, "00": revoked})
    told = judge.judge(shown(), None, NOW)
    judge.revocation({server.fingerprint_sha256: good})

    assert judge.judge(shown(), None, NOW).judgement == told.judgement
    assert ("revoked" in rules(before), "revoked" in rules(told)) == (False, True)
    assert judge.seen.revocation == {
        client.fingerprint_sha256: revoked,
        server.fingerprint_sha256: good,
    }
    judge.revocation({client.fingerprint_sha256: good})
    assert "revoked" not in rules(judge.judge(shown(), None, NOW))


# --- when it is judged anew

OTHER_CHAIN = world().clients.chain()
ANOTHER = OtherOrg("apac", OTHER_CHAIN[0].fingerprint_sha256, "00")


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (lambda judge: judge.read(Files(world().anchors)), timedelta()),
        (lambda judge: judge.compare((), None, None), timedelta()),
        (lambda judge: judge.revocation({}), timedelta()),
        (lambda _: None, timedelta(minutes=1)),
    ],
    ids=["files", "others", "revocation", "time"],
)
def test_a_cycle_that_shows_what_the_last_one_did_is_not_judged(change, after):
    judge = judge_of()
    judge.compare((), None, None)
    judge.revocation({})
    first = judge.judge(shown(), None, NOW)
    change(judge)

    assert judge.judge(shown(at=NOW + after, clock_skew=1.0), None, NOW + after) is first


def moments_of_judging(name, minutes):
    """Judge once a minute and return after how many of them the verdict was a new one."""
    judge = Judge(replace(EMEA, name=name), shipped_tables(), world().anchors)
    found, last = [], None
    for minute in range(minutes):
        verdict = judge.judge(shown(), None, NOW + timedelta(minutes=minute))
        if verdict is not last:
            found.append(minute)
        last = verdict
    return found


def test_an_unchanged_org_is_judged_once_an_hour_and_not_all_of_them_at_once():
    found = {name: moments_of_judging(name, 181) for name in ("emea", "apac", "amer")}

    for minutes in found.values():
        assert len(minutes) == 4
        assert [b - a for a, b in itertools.pairwise(minutes[1:])] == [60, 60]
    assert len({minutes[1] for minutes in found.values()}) == 3


def test_a_suppression_ends_at_its_moment_and_not_at_the_next_hour():
    until = NOW + timedelta(minutes=7)
    known = replace(SUPPRESSION, until=until)
    judge = judge_of(replace(EMEA, policy=Policy(suppressions=(known,))))

    before = judge.judge(shown(), None, until - timedelta(seconds=1))
    after = judge.judge(shown(), None, until)

    assert (suppressed(before), suppressed(after)) == ({"root_private"}, set())
    assert "root_private" in rules(after)


@pytest.mark.parametrize(
    "change",
    [
        lambda judge: judge.read(Files(world().anchors, problem="half written")),
        lambda judge: judge.read(Files(world().anchors, Lists(accepted_roots=frozenset()))),
        lambda judge: judge.compare((ANOTHER,), None, None),
        lambda judge: judge.compare((), OTHER_CHAIN, None),
        lambda judge: judge.compare((), None, world().chrome.chain(HOST, eku=(SERVER_AUTH,))),
        lambda judge: judge.revocation(
            {world().client_chain[0].fingerprint_sha256: Revocation(RevocationState.GOOD)}
        ),
    ],
    ids=["problem", "accepted roots", "others", "client before", "server before", "revocation"],
)
def test_whatever_is_told_anew_is_judged_anew_and_once(change):
    judge = judge_of()
    judge.compare((), None, None)
    first = judge.judge(shown(), None, NOW)
    change(judge)
    second = judge.judge(shown(), None, NOW)

    assert second is not first
    assert judge.judge(shown(), None, NOW) is second


def test_another_certificate_another_protection_and_another_day_are_judged_anew(w):
    judge = judge_of(key=Protection(0o400, owned=True))
    verdicts = [judge.judge(shown(), identity(w.client_chain), NOW)]
    judge.read(Files(w.anchors, key=Protection(0o440, owned=True)))
    verdicts.append(judge.judge(shown(), identity(w.client_chain), NOW))
    verdicts.append(judge.judge(shown(), identity(w.client_chain), NOW + DAY))
    other = replace(shown(), client_chain=OTHER_CHAIN)
    verdicts.append(judge.judge(other, identity(OTHER_CHAIN), NOW + DAY))
    assert judge.judge(other, identity(OTHER_CHAIN), NOW + DAY) is verdicts[-1]

    assert len(set(map(id, verdicts))) == 4


# --- what a reload keeps


def test_a_reload_of_the_policy_alone_judges_anew_what_was_seen_before():
    before = judge_of(problem="half written")
    first = before.judge(shown(), None, NOW)
    watched = replace(EMEA, policy=Policy(suppressions=(SUPPRESSION,)))
    after = before.succeeded_by(watched)
    # The network is gone: nothing is seen any more.
    nothing = replace(
        shown(),
        handshake=None,
        client_auth=ClientAuth.NOT_REACHED,
        client_chain=(),
        outcomes={Probe.HANDSHAKE: Failure(Reason.DNS_ERROR)},
        clock_skew=None,
    )
    second = after.judge(nothing, None, NOW)

    assert "root_private" in rules(first)
    assert rules(second) == rules(first) - {"root_private"}
    assert suppressed(second) == {"root_private"}


def test_a_reload_forgets_the_client_of_another_identity_and_keeps_the_server():
    elsewhere = FromFile("/etc/other.pem")
    before = judge_of(key=Protection(0o400, owned=True))
    before.judge(shown(), identity(world().client_chain), NOW)
    seen = before.succeeded_by(replace(EMEA, identity=ClientIdentity(elsewhere, elsewhere))).seen

    assert (seen.client_chain, seen.private_key, seen.client_auth) == (None, None, None)
    assert seen.server_chain == world().server_chain
    assert seen.refusal == Success()


@pytest.mark.parametrize(
    "changed",
    [Endpoint("other.my.salesforce.com"), Endpoint(HOST, tls_max=TlsVersion.TLS_1_2)],
)
def test_a_reload_forgets_the_server_of_another_door_and_keeps_the_client(changed):
    before = judge_of()
    before.judge(shown(), None, NOW)
    seen = before.succeeded_by(replace(EMEA, endpoint=changed)).seen

    assert (seen.server_chain, seen.tls_version, seen.client_auth) == (None, None, None)
    assert (seen.refusal, seen.clock_skew, seen.host) == (None, None, changed.host)
    assert seen.client_chain == world().client_chain


def test_a_probe_that_is_switched_off_takes_its_finding_with_it():
    enforced = replace(EMEA, enforcement=Enforcement())
    before = judge_of(enforced)
    open_door = {
        Probe.HANDSHAKE: Success(),
        Probe.REFUSAL: Failure(Reason.DOOR_OPEN_WITHOUT_CERTIFICATE),
        Probe.ENFORCEMENT: Failure(Reason.ENFORCEMENT_OFF),
    }
    not_due = dict.fromkeys([Probe.REFUSAL, Probe.ENFORCEMENT], Skipped(SkipCause.NOT_DUE))
    first = before.judge(shown(outcomes=open_door), None, NOW)
    told = {"door_open_without_certificate", "enforcement_off"} & rules(first)
    still = before.succeeded_by(replace(enforced, interval=99.0))
    without = before.succeeded_by(replace(EMEA, refusal_interval=None))

    assert len(told) == 2
    assert told <= rules(still.judge(shown(outcomes=not_due), None, NOW))
    assert not told & rules(without.judge(shown(outcomes=not_due), None, NOW))


def test_a_reload_of_the_trust_forgets_why_the_server_was_refused():
    untrusted = {Probe.HANDSHAKE: Failure(Reason.SERVER_UNTRUSTED)}
    refused = replace(
        HANDSHAKE,
        client_auth=ClientAuth.NOT_REACHED,
        failure=Failure(Reason.SERVER_UNTRUSTED),
        server_chain=world().server_chain,
    )
    before = judge_of()
    before.judge(
        replace(shown(outcomes=untrusted), handshake=refused, client_auth=ClientAuth.NOT_REACHED),
        None,
        NOW,
    )
    same = before.succeeded_by(replace(EMEA, interval=99.0)).seen
    other = before.succeeded_by(replace(EMEA, trust=TrustAnchors(system=False))).seen

    assert same.server_failure == Failure(Reason.SERVER_UNTRUSTED)
    assert same.anchors is world().anchors
    assert other.server_failure is None
    assert other.anchors is not world().anchors
    assert other.server_chain == world().server_chain


def test_a_cycle_without_a_chain_leaves_the_one_that_was_seen_last():
    judge = judge_of()
    judge.judge(shown(), None, NOW)
    judge.judge(replace(shown(), client_chain=(), handshake=None), None, NOW)

    assert judge.seen.client_chain == world().client_chain
    assert judge.seen.server_chain == world().server_chain
