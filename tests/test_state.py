import threading
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import pytest
from boards import (
    ALL_WELL,
    CLIENT_CHAIN,
    ENFORCEMENT,
    HANDSHAKE,
    LOGIN,
    NOON,
    NOT_DUE,
    SERVER_CHAIN,
    STAGES,
    board,
    cause,
    certificate,
    chain,
    failed,
    org,
    result,
    violation,
)

from agent.chain import role
from agent.maintenance import Window
from agent.org import ClientIdentity, Endpoint, FromFile, Suppression
from agent.policy import Judgement, Suppressed
from agent.policy.rule import Side
from agent.reason import Reason
from agent.result import (
    ApiUsage,
    ClientAuth,
    Failure,
    HandshakeOutcome,
    Probe,
    SkipCause,
    Stage,
    Success,
    Undetermined,
    probes_of,
)
from agent.state import ProbeStatus, SeenChain, Standing

MINUTE = timedelta(minutes=1)
SUPPRESSED = Suppressed(violation(), Suppression("expiring", NOON, "renewed in March"))


def recorded(*results, watched=None):
    """Return the board after the cycles, and the transitions of the last one."""
    made = board(watched or org())
    transitions = ()
    for each in results:
        transitions = made.record(each)
    return made, transitions


@pytest.mark.parametrize(
    ("watched", "expected"),
    [
        (org(), "handshake login session refusal"),
        (org(login=None), "handshake refusal"),
        (org(refusal_interval=None), "handshake login session"),
        (org(enforcement=ENFORCEMENT), "handshake login session refusal enforcement"),
        (org(enforcement=ENFORCEMENT, login=None), "handshake refusal"),
    ],
)
def test_an_org_has_the_probes_it_is_configured_for(watched, expected):
    assert probes_of(watched) == tuple(Probe(name) for name in expected.split())


def test_an_org_that_never_ran_has_all_counters_at_zero_and_no_observation():
    snapshot = board(org()).get("emea")

    assert snapshot.probes == dict.fromkeys(probes_of(org()), ProbeStatus())
    assert snapshot.client_auth is None
    assert snapshot.chains == {}
    assert snapshot.since == {}
    assert snapshot.cycles == 0


def test_two_orgs_of_one_name_are_refused():
    made = board(org())

    with pytest.raises(ValueError, match="an org named emea already"):
        made.add(org())


def test_a_healthy_cycle_is_an_attempt_and_a_success_of_each_probe():
    made, _ = recorded(result())
    snapshot = made.get("emea")

    for status in snapshot.probes.values():
        assert (status.attempts, status.failures) == (1, 0)
        assert status.last_run == status.last_success == status.since == NOON
        assert status.standing is Standing.SUCCESS
    assert snapshot.healthy
    assert snapshot.client_auth is ClientAuth.ACCEPTED
    assert snapshot.api_usage == ApiUsage(1200, 100000)


def test_a_failure_is_counted_with_its_reason_and_keeps_the_last_success():
    made, _ = recorded(result(), result(at=NOON + MINUTE, outcomes=failed(Reason.TCP_REFUSED)))
    status = made.get("emea").probes[Probe.HANDSHAKE]

    assert (status.attempts, status.failures) == (2, 1)
    assert status.failures_by_reason == {Reason.TCP_REFUSED: 1}
    assert status.last == Failure(Reason.TCP_REFUSED)
    assert (status.last_run, status.last_success) == (NOON + MINUTE, NOON)
    assert not made.get("emea").healthy


def test_an_undetermined_run_is_an_attempt_but_neither_success_nor_failure():
    unclear = {Probe.REFUSAL: Undetermined(Reason.TCP_TIMEOUT)}
    made, _ = recorded(result(), result(at=NOON + MINUTE, outcomes={**ALL_WELL, **unclear}))
    status = made.get("emea").probes[Probe.REFUSAL]

    assert (status.attempts, status.failures) == (2, 0)
    assert status.last_success == NOON
    assert status.standing is Standing.UNDETERMINED
    assert status.reason is Reason.TCP_TIMEOUT
    assert made.get("emea").healthy


def test_a_skipped_probe_keeps_its_last_outcome_and_counts_the_cause():
    made, transitions = recorded(result(), result(at=NOON + MINUTE, outcomes=NOT_DUE))
    status = made.get("emea").probes[Probe.LOGIN]

    assert status.skipped == {SkipCause.NOT_DUE: 1}
    assert (status.attempts, status.last, status.last_run) == (1, Success(), NOON)
    assert transitions == ()


def test_a_cycle_that_never_began_is_counted_as_skipped():
    made = board(org())

    made.skipped("emea", Probe.HANDSHAKE, SkipCause.OVERLAP)
    made.skipped("emea", Probe.HANDSHAKE, SkipCause.OVERLAP)
    made.skipped("emea", Probe.ENFORCEMENT, SkipCause.OVERLAP)
    made.skipped("gone", Probe.HANDSHAKE, SkipCause.OVERLAP)

    assert made.get("emea").probes[Probe.HANDSHAKE].skipped == {SkipCause.OVERLAP: 2}
    assert Probe.ENFORCEMENT not in made.get("emea").probes
    assert made.get("gone") is None


def test_the_first_outcome_of_each_probe_is_a_transition_from_unknown():
    _, transitions = recorded(result())

    assert [(t.probe, t.before, t.after, t.lasted) for t in transitions] == [
        (probe, Standing.UNKNOWN, Standing.SUCCESS, None) for probe in ALL_WELL
    ]


def test_a_failure_after_successes_is_one_transition_with_reason_detail_and_duration():
    _, transitions = recorded(
        result(),
        result(at=NOON + MINUTE),
        result(at=NOON + 2 * MINUTE, outcomes=failed(Reason.TCP_REFUSED, "192.0.2.1:8443")),
    )

    (only,) = transitions
    assert (only.org, only.probe) == ("emea", Probe.HANDSHAKE)
    assert (only.before, only.after) == (Standing.SUCCESS, Standing.FAILURE)
    assert (only.reason, only.detail) == (Reason.TCP_REFUSED, "192.0.2.1:8443")
    assert only.lasted == 2 * MINUTE


def test_a_repeat_is_no_transition_even_with_another_detail():
    _, transitions = recorded(
        result(outcomes=failed(Reason.TCP_REFUSED, "192.0.2.1")),
        result(outcomes=failed(Reason.TCP_REFUSED, "192.0.2.2")),
    )

    assert transitions == ()


def test_another_reason_is_a_transition_but_the_failure_lasts_on():
    made, transitions = recorded(
        result(outcomes=failed(Reason.TCP_REFUSED)),
        result(at=NOON + MINUTE, outcomes=failed(Reason.DNS_TIMEOUT)),
    )

    assert [(t.before, t.after, t.reason) for t in transitions] == [
        (Standing.FAILURE, Standing.FAILURE, Reason.DNS_TIMEOUT)
    ]
    assert made.get("emea").since[Probe.HANDSHAKE] == NOON


def test_another_cause_is_a_transition_and_only_a_new_one_is_explained():
    made = board(org())
    refused = result(outcomes=failed(Reason.CLIENT_CERT_BAD))
    other = result(outcomes=failed(Reason.CLIENT_CERT_UNKNOWN))
    told = {
        Probe.HANDSHAKE: (cause("client_certificate_expired"), cause("closed_after_certificate"))
    }
    first = made.record(refused, causes=told)
    repeated = made.record(refused, causes=told)
    (another,) = made.record(refused, causes={Probe.HANDSHAKE: (cause("client_root_private"),)})
    (same,) = made.record(other, causes={Probe.HANDSHAKE: (cause("client_root_private"),)})
    (gone,) = made.record(other)

    (began,) = (t for t in first if t.probe is Probe.HANDSHAKE)
    assert (began.cause.name, began.explained) == ("client_certificate_expired", True)
    assert repeated == ()
    assert (another.before, another.after) == (Standing.FAILURE, Standing.FAILURE)
    assert (another.cause.name, another.explained) == ("client_root_private", True)
    assert (same.cause.name, same.explained) == ("client_root_private", False)
    assert (gone.cause, gone.explained) == (None, True)


def test_a_cause_ends_with_the_failure_and_outlives_a_skipped_run():
    made = board(org())
    told = {Probe.HANDSHAKE: (cause(),)}
    made.record(result(outcomes=failed(Reason.CLIENT_CERT_BAD)), causes=told)
    made.skipped("emea", Probe.HANDSHAKE, SkipCause.OVERLAP)
    skipped = made.get("emea").probes[Probe.HANDSHAKE].cause
    made.record(result())

    assert skipped == cause()
    assert made.get("emea").probes[Probe.HANDSHAKE].cause is None


def test_a_recovery_is_a_transition_without_a_reason():
    made, transitions = recorded(
        result(outcomes=failed(Reason.TCP_REFUSED)), result(at=NOON + MINUTE, outcomes=NOT_DUE)
    )

    assert [(t.after, t.reason) for t in transitions] == [(Standing.SUCCESS, None)]
    assert made.get("emea").since == {Probe.HANDSHAKE: NOON + MINUTE}


def test_chains_outlive_a_cycle_that_saw_none():
    made, _ = recorded(
        result(),
        result(
            at=NOON + MINUTE,
            outcomes=failed(Reason.DNS_NOT_FOUND),
            handshake=None,
            client_chain=(),
            client_auth=ClientAuth.NOT_REACHED,
        ),
    )
    snapshot = made.get("emea")

    assert snapshot.chains == {
        Side.CLIENT: SeenChain(CLIENT_CHAIN, NOON),
        Side.SERVER: SeenChain(SERVER_CHAIN, NOON),
    }
    assert snapshot.client_auth is ClientAuth.NOT_REACHED
    assert (snapshot.tls_version, snapshot.cipher_suite) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")


def test_a_rotated_certificate_replaces_the_old_chain():
    rotated = chain("CN=agent,O=Example", days=400)
    made, _ = recorded(result(), result(at=NOON + MINUTE, client_chain=rotated))

    assert made.get("emea").chains[Side.CLIENT] == SeenChain(rotated, NOON + MINUTE)


def test_the_alert_is_kept_only_while_the_handshake_fails():
    refused = HandshakeOutcome(client_auth=ClientAuth.REJECTED, alert="unknown_ca")
    failure = result(outcomes=failed(Reason.CLIENT_CERT_UNKNOWN_CA), handshake=refused)
    made, _ = recorded(failure)

    assert made.get("emea").alert == "unknown_ca"

    made.record(result(handshake=replace(HANDSHAKE, alert="close_notify")))
    assert made.get("emea").alert is None


def test_the_door_s_stages_are_of_one_cycle_and_the_login_s_of_the_last_login():
    made, _ = recorded(
        result(),
        result(
            outcomes=failed(Reason.TLS_TIMEOUT),
            stages={Stage.DNS: 0.5, Stage.TCP: 0.6, Stage.TLS: 10.0},
        ),
    )

    assert list(made.get("emea").stages.items()) == [
        (Stage.DNS, 0.5),
        (Stage.TCP, 0.6),
        (Stage.TLS, 10.0),
        (Stage.LOGIN, STAGES[Stage.LOGIN]),
        (Stage.SESSION, STAGES[Stage.SESSION]),
    ]


def test_a_failed_login_leaves_no_duration_of_an_older_session():
    until_login = {stage: 0.1 for stage in STAGES if stage is not Stage.SESSION}
    made, _ = recorded(result(), result(stages=until_login))

    assert made.get("emea").stages == until_login


def test_what_a_cycle_did_not_tell_is_kept_from_the_last_that_did():
    made, _ = recorded(result(), result(api_usage=None, clock_skew=None))
    snapshot = made.get("emea")

    assert snapshot.api_usage == ApiUsage(1200, 100000)
    assert snapshot.clock_skew == -0.5


def test_a_skew_of_zero_is_an_observation():
    made, _ = recorded(result(), result(clock_skew=0.0))

    assert made.get("emea").clock_skew == 0.0


def test_the_judgement_of_the_last_cycle_replaces_the_one_before():
    made = board(org())
    made.record(
        result(),
        violations=[violation()],
        suppressed=[SUPPRESSED],
        not_evaluated=["server_certificate_expiring"],
        deadlines={"soap_login_retirement": NOON},
    )
    before = made.get("emea")
    made.record(result())
    after = made.get("emea")

    assert before.violations == (violation(),)
    assert before.suppressed == (SUPPRESSED,)
    assert before.not_evaluated == ("server_certificate_expiring",)
    assert before.judgement == Judgement(before.violations, before.not_evaluated, before.suppressed)
    assert after.judgement == Judgement((), ())
    assert (after.violations, after.not_evaluated) == ((), ())
    assert after.deadlines == before.deadlines == {"soap_login_retirement": NOON}


def test_a_window_of_maintenance_lasts_over_cycles_until_another_is_told():
    made = board(org())
    told = [made.in_maintenance("emea", Window(NOON)) for _ in range(2)]
    version = made.get("emea").version
    made.in_maintenance("emea", Window(NOON))
    same = made.get("emea")
    made.record(result())

    assert told == [True, False], "only the first time it is news"
    assert same.version == version
    assert made.get("emea").maintenance == Window(NOON)
    assert made.in_maintenance("emea", None)
    assert made.get("emea").maintenance is None


def test_a_window_of_an_org_that_was_replaced_or_removed_meanwhile_is_not_shown():
    made = board(org())
    before = made.get("emea").org
    made.replace(org())

    assert not made.in_maintenance("emea", Window(NOON), of=before)
    assert not made.in_maintenance("gone", Window(NOON))
    assert made.get("emea").maintenance is None
    assert made.in_maintenance("emea", Window(NOON), of=made.get("emea").org)


def test_a_result_for_an_org_that_was_removed_meanwhile_changes_nothing():
    made = board(org())
    made.remove("emea")
    made.remove("emea")

    assert made.record(result()) == ()
    assert made.snapshots() == ()


def test_an_outcome_of_a_probe_that_was_switched_off_meanwhile_is_dropped():
    made = board(org(login=None))

    transitions = made.record(result())

    assert set(made.get("emea").probes) == {Probe.HANDSHAKE, Probe.REFUSAL}
    assert {t.probe for t in transitions} == {Probe.HANDSHAKE, Probe.REFUSAL}


def test_a_changed_org_keeps_counters_place_and_what_still_holds():
    made = board(org("apac"), org(), org("us"))
    made.record(result())
    made.login_limits("emea", breaker_open=False, budget_remaining=29)
    changed = org(interval=30.0, enforcement=ENFORCEMENT)

    before = made.get("emea")
    made.replace(changed)
    after = made.get("emea")

    assert after.org == changed
    assert [s.org.name for s in made.snapshots()] == ["apac", "emea", "us"]
    assert after.probes == {**before.probes, Probe.ENFORCEMENT: ProbeStatus()}
    assert after.cycles == 1
    assert after.chains == before.chains
    assert after.client_auth is ClientAuth.ACCEPTED
    assert (after.breaker_open, after.budget_remaining) == (False, 29)


def test_another_identity_clears_the_client_s_chain_only():
    made, _ = recorded(result())

    made.replace(org(identity=ClientIdentity(FromFile("/etc/new.pem"), FromFile("/etc/new.pem"))))

    assert set(made.get("emea").chains) == {Side.SERVER}


def test_another_door_clears_what_was_seen_of_the_old_one():
    made, _ = recorded(result())

    made.replace(org(endpoint=Endpoint("other.my.salesforce.com")))
    snapshot = made.get("emea")

    assert set(snapshot.chains) == {Side.CLIENT}
    assert snapshot.client_auth is snapshot.tls_version is snapshot.clock_skew is None
    assert snapshot.stages == {}
    assert snapshot.probes[Probe.HANDSHAKE].attempts == 1


def test_another_user_clears_the_limits_of_the_old_one():
    made, _ = recorded(result())
    made.login_limits("emea", breaker_open=True, budget_remaining=0)

    made.replace(org(login=replace(LOGIN, username="bob@example.com")))

    snapshot = made.get("emea")
    assert snapshot.breaker_open is snapshot.budget_remaining is snapshot.api_usage is None


def test_an_unknown_org_cannot_be_replaced():
    with pytest.raises(KeyError, match="emea"):
        board().replace(org())


def test_login_limits_are_told_only_of_an_org_with_login():
    made = board(org(), org("door", login=None))
    for name in ("emea", "door", "gone"):
        made.login_limits(name, breaker_open=True, budget_remaining=3)

    assert (made.get("emea").breaker_open, made.get("emea").budget_remaining) == (True, 3)
    assert made.get("door").breaker_open is None


def test_identity_failures_are_counted():
    made = board(org())
    made.identity_failed("emea")
    made.identity_failed("emea")
    made.identity_failed("gone")

    assert made.get("emea").identity_reload_failures == 2


def test_every_change_gives_a_new_version_and_a_returning_org_none_it_had_before():
    made = board(org())
    versions = [made.get("emea").version]
    for change in (
        lambda: made.record(result()),
        lambda: made.skipped("emea", Probe.LOGIN, SkipCause.BUDGET),
        lambda: made.login_limits("emea", breaker_open=False, budget_remaining=1),
        lambda: made.identity_failed("emea"),
        lambda: made.replace(org()),
        lambda: (made.remove("emea"), made.add(org())),
    ):
        change()
        versions.append(made.get("emea").version)

    assert versions == sorted(set(versions))


def test_every_org_is_seen_after_a_cycle_each_even_a_failed_one():
    made = board(org(), org("us"))

    made.record(result())
    assert not made.every_org_seen()

    made.record(result("us", outcomes=failed(Reason.DNS_NOT_FOUND)))
    assert made.every_org_seen()


def test_an_empty_board_has_not_seen_every_org():
    assert not board().every_org_seen()


def test_what_the_board_hands_out_cannot_be_changed():
    made, _ = recorded(result())
    snapshot = made.get("emea")

    with pytest.raises(FrozenInstanceError):
        snapshot.cycles = 7
    for mapping in (snapshot.probes, snapshot.stages, snapshot.chains, snapshot.deadlines):
        with pytest.raises(TypeError):
            mapping["x"] = 1
    with pytest.raises(TypeError):
        snapshot.probes[Probe.HANDSHAKE].skipped["x"] = 1


def test_snapshots_can_be_read_while_another_thread_writes():
    made = board(*(org(f"org{number}") for number in range(50)))
    over = threading.Event()
    sizes = set()

    def read():
        while not over.is_set():
            sizes.add(len(made.snapshots()) // 50)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for round_ in range(200):
            made.add(org(f"new{round_}"))
            made.record(result(f"org{round_ % 50}"))
            made.remove(f"new{round_}")
    finally:
        over.set()
        reader.join(10)

    assert sizes == {1}
    assert len(made.snapshots()) == 50


@pytest.mark.parametrize(
    ("position", "subject", "issuer", "expected"),
    [
        (0, "CN=agent", "CN=CA", "leaf"),
        (0, "CN=agent", "CN=agent", "leaf"),
        (1, "CN=CA", "CN=Root", "intermediate"),
        (2, "CN=Root", "CN=Root", "root"),
    ],
)
def test_a_certificate_has_a_role_in_its_chain(position, subject, issuer, expected):
    assert role(position, certificate(subject, issuer)) == expected


def test_a_snapshot_s_repr_says_how_the_org_stands():
    made, _ = recorded(result(), result(outcomes=failed(Reason.TCP_REFUSED)))

    assert repr(made.get("emea")) == (
        "<Snapshot emea: handshake failure (tcp_refused), login success, session success, "
        "refusal success, 2 cycles>"
    )


def test_what_was_seen_of_an_org_before_it_was_replaced_changes_nothing():
    first = org()
    made = board(first)
    second = replace(first)
    made.replace(second)
    untouched = made.get("emea")

    assert made.record(result(), of=first) == ()
    made.login_limits("emea", breaker_open=True, budget_remaining=0, of=first)
    made.identity_failed("emea", of=first)

    assert made.get("emea") is untouched
    made.record(result(), of=second)
    assert made.get("emea").cycles == 1


def test_several_runs_can_be_skipped_at_once():
    made = board(org())
    made.skipped("emea", Probe.HANDSHAKE, SkipCause.OVERLAP)
    made.skipped("emea", Probe.HANDSHAKE, SkipCause.OVERLAP, 3)

    assert made.get("emea").probes[Probe.HANDSHAKE].skipped == {SkipCause.OVERLAP: 4}
