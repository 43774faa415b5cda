import itertools
import json
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qsl

import pytest
import structlog
from boards import (
    ALL_WELL,
    DEADLINES,
    LOGIN,
    NOON,
    NOT_DUE,
    STAGES,
    board,
    cause,
    failed,
    org,
    result,
    violation,
)
from making import NOW, world

from agent.chain import Anchors
from agent.cycles import MOST_TROUBLED, MOST_WELL, Ring, pack, unpack
from agent.journal import Journal
from agent.maintenance import Window
from agent.policy.rule import Severity
from agent.reason import Reason
from agent.result import Failure, Probe, ProbeResult, SkipCause, Skipped, Stage, Undetermined
from agent.status import fleet, trail
from agent.status.fleet import Query, QueryError, near, read_query, select
from agent.status.tree import fields, tree
from agent.status.view import PROBES, State, Step, rule_page, runbook, steps, view
from agent.status.wording import days, length, milliseconds, relative
from agent.store import Store, StoreError

LATER = NOON + timedelta(seconds=30)


def seen(outcomes=ALL_WELL, now=LATER, causes=None, **changes):
    """Return the view of an org after one cycle."""
    return view(snapshot(outcomes, causes=causes, **changes), now)


def snapshot(outcomes=ALL_WELL, *, causes=None, violations=(), window=None, breaker=None):
    made = board(org())
    made.record(result(outcomes=outcomes), violations=violations, causes=causes)
    made.in_maintenance("emea", window)
    if breaker is not None:
        made.login_limits("emea", breaker, 7)
    return made.get("emea")


# --- the state, and why


def test_an_org_that_was_not_probed_is_waiting():
    made = board(org())
    said = view(made.get("emea"), NOON)

    assert (said.state, said.code, said.since, said.last_cycle) == (State.WAITING, None, None, None)
    assert said.expiry is None


def test_an_org_that_works_is_well_since_its_door_opens():
    said = seen()

    assert (said.state, said.code, said.since) == (State.WELL, None, NOON)
    assert said.summary == "Everything that was tried works."


def test_a_login_that_was_not_due_changes_nothing():
    assert seen(NOT_DUE).state is State.WELL


@pytest.mark.parametrize("reason", Reason)
def test_a_failing_door_is_told_in_the_words_of_its_reason(reason):
    said = seen(failed(reason))

    assert (said.state, said.summary, said.code) == (State.FAILING, reason.meaning, reason.value)
    assert said.since == NOON


def test_a_login_that_fails_behind_an_open_door_is_failing_too():
    said = seen({**ALL_WELL, Probe.LOGIN: Failure(Reason.INVALID_LOGIN)})

    assert (said.state, said.code) == (State.FAILING, "invalid_login")


def test_a_door_that_lets_anybody_in_is_told_with_what_was_tried():
    open_door = Failure(Reason.DOOR_OPEN_WITHOUT_CERTIFICATE)
    said = seen({**ALL_WELL, Probe.REFUSAL: open_door})

    assert said.summary.startswith("Tried refusing a client without certificate: The door let")


def test_a_stopped_login_is_failing_after_a_restart_too_and_an_allowed_one_is_not():
    assert seen(NOT_DUE, breaker=True).state is State.FAILING
    assert seen(NOT_DUE, breaker=True).code == "breaker_open"
    assert seen(NOT_DUE, breaker=False).state is State.WELL


def test_a_door_that_proves_nothing_is_unclear():
    said = seen({**failed(Reason.TLS_EOF), Probe.HANDSHAKE: Undetermined(Reason.UNDETERMINED)})

    assert (said.state, said.code) == (State.UNCLEAR, "undetermined")


def test_after_three_missed_cycles_an_org_is_stale_and_not_before():
    patience = timedelta(seconds=3 * 60 + 45)

    assert seen(now=NOON + patience).state is State.WELL
    stale = seen(now=NOON + patience + timedelta(seconds=1))
    assert (stale.state, stale.since) == (State.STALE, NOON)


def test_what_failed_last_is_not_hidden_by_being_stale():
    assert seen(failed(Reason.TLS_EOF), now=NOON + timedelta(days=1)).state is State.FAILING


def test_the_worst_finding_makes_a_working_org_a_warning_and_a_note_does_not():
    notes = [violation(severity=Severity.INFO)]
    grave = [violation("expired", Severity.CRITICAL), violation(), *notes]

    assert seen(violations=notes).state is State.WELL
    said = seen(violations=grave)
    assert (said.state, said.code, said.summary) == (State.WARNING, "expired", "9 days left")
    assert (said.critical, said.warnings, said.infos) == (1, 1, 1)


def test_a_finding_that_will_only_count_is_not_told_as_lasting():
    future = replace(violation(), bites_from=NOON + timedelta(days=9))
    past = replace(violation(), bites_from=NOON - timedelta(days=9))

    assert seen(violations=[future]).since is None
    assert seen(violations=[past]).since == NOON - timedelta(days=9)


def test_what_counts_only_in_months_is_listed_and_makes_no_org_amber_today():
    def with_notice(days):
        return seen(violations=[replace(violation(), bites_from=NOON + timedelta(days=days))])

    assert (with_notice(91).state, with_notice(91).warnings) == (State.WELL, 1)
    assert (with_notice(89).state, with_notice(89).warnings) == (State.WARNING, 1)


def test_what_fails_in_planned_maintenance_is_expected_and_still_told():
    window = Window(NOON + timedelta(hours=1), NOON, "Spring release")

    failing = seen(failed(Reason.MAINTENANCE), window=window)
    assert (failing.state, failing.code) == (State.MAINTENANCE, "maintenance")
    working = seen(window=window)
    assert (working.state, working.summary) == (State.MAINTENANCE, "Spring release")
    assert working.maintenance
    assert not State.MAINTENANCE.alarming


def test_the_certificate_that_ends_first_counts_on_whichever_side():
    said = seen()

    assert (said.expiry.side.value, said.expiry.left(NOON)) == ("client", timedelta(days=100))


def test_an_org_without_login_says_so():
    made = board(org(login=None))

    assert view(made.get("emea"), NOON).logins is None
    assert seen(breaker=False).logins.left == 7


# --- what to do next


def test_the_first_step_is_the_likely_cause_s_remedy_with_its_runbook():
    likely = cause()
    found = steps(snapshot(failed(Reason.CLIENT_CERT_EXPIRED), causes={Probe.HANDSHAKE: (likely,)}))

    assert found == (
        Step(
            PROBES[Probe.HANDSHAKE],
            "client_cert_expired",
            likely.sentence,
            "likely",
            likely.remedy,
            runbook(Reason.CLIENT_CERT_EXPIRED),
        ),
    )


@pytest.mark.parametrize("reason", Reason)
def test_without_a_cause_the_reason_itself_says_what_to_do(reason):
    (step,) = steps(snapshot(failed(reason)))

    assert (step.remedy, step.because, step.confidence) == (reason.remedy, reason.meaning, None)


def test_a_stopped_login_is_a_step_that_says_how_to_let_one_through():
    (step,) = steps(snapshot(NOT_DUE, breaker=True))

    assert "breaker reset" in step.remedy


def test_findings_follow_and_nothing_is_to_be_done_twice():
    same = replace(violation("other"), remedy=violation().remedy)
    found = steps(snapshot(violations=[violation(), same, violation(severity=Severity.INFO)]))

    assert [(step.code, step.link) for step in found] == [
        ("client_certificate_expiring", rule_page("client_certificate_expiring"))
    ]


def test_nothing_is_to_be_done_where_all_is_well():
    assert steps(snapshot()) == ()


# --- many of them


def many():
    """Return views of orgs of all kinds, in no order."""
    made = board(
        *(org(name, labels={"team": team}) for name, team in TEAMS.items()),
    )
    made.record(result("b", outcomes=failed(Reason.TLS_EOF)))
    made.record(result("c", at=NOON - timedelta(minutes=1), outcomes=failed(Reason.DNS_TIMEOUT)))
    made.record(result("d"), violations=[violation()])
    made.record(result("e"))
    return [view(each, LATER) for each in made.snapshots()]


TEAMS = {"e": "Payments", "d": "sales", "c": "payments", "b": "sales", "a": "sales"}


def names(found):
    return [said.name for said in found.views]


def test_the_worst_come_first_and_of_those_the_oldest():
    assert names(select(many(), Query())) == ["c", "b", "d", "a", "e"]


@pytest.mark.parametrize("sort", fleet.SORTS)
def test_every_sort_has_all_orgs_and_the_other_way_round(sort):
    up, down = (names(select(many(), Query(sort=sort, descending=way))) for way in (False, True))

    assert sorted(up) == ["a", "b", "c", "d", "e"]
    assert down == up[::-1]


def test_a_state_and_words_are_filters_and_the_counts_stay_those_of_all():
    found = select(many(), read_query({"state": "failing", "q": "PAYMENTS dns"}))

    assert names(found) == ["c"]
    assert (found.matching, found.total, found.alarming) == (1, 5, 2)
    assert found.counts[State.FAILING] == 2
    assert select(many(), read_query({"q": "nothing like it"})).views == ()


def test_ten_thousand_orgs_come_in_pages_and_the_last_is_the_last():
    view_ = many()[0]
    views = [replace(view_, name=f"org{number:05}") for number in range(10_000)]

    first = select(views, read_query({"sort": "name"}))
    assert (len(first.views), first.pages, first.matching) == (200, 50, 10_000)
    last = select(views, read_query({"sort": "name", "page": "999"}))
    assert (last.query.page, names(last)[-1]) == (50, "org09999")
    seen_ = [
        name
        for page in range(1, 51)
        for name in names(select(views, read_query({"sort": "name", "page": str(page)})))
    ]
    assert seen_ == [said.name for said in views]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"state": "open"}, "There is no state 'open'"),
        ({"state": ""}, "There is no state ''"),
        ({"sort": "colour"}, "Nothing can be sorted by 'colour'"),
        ({"page": "0"}, "page is a whole number from 1"),
        ({"page": "-1"}, "page is a whole number from 1"),
        ({"page": "1e3"}, "page is a whole number from 1"),
        ({"page": "٣"}, "page is a whole number from 1"),
        ({"page": "9" * 5000}, "page is a whole number from 1"),
        ({"per_page": "1001"}, "per_page is a whole number from 1 to 1000"),
        ({"q": "x" * 201}, "200 characters at most"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_in_a_sentence(given, why):
    with pytest.raises(QueryError, match=why):
        read_query(given)


def test_an_address_leads_back_to_the_query_that_made_it():
    states, sorts = (None, *State), fleet.SORTS
    for state, sort, descending in itertools.product(states, sorts, (False, True)):
        query = Query(state, 'a&b=c "ä"', sort, descending, 3, 50)
        pairs = dict(parse_pairs(query.address()))
        assert read_query(pairs) == query
    assert Query().address() == ""
    assert Query(page=4).address(page=1) == ""


def parse_pairs(address):
    return parse_qsl(address.removeprefix("?"))


def test_names_like_an_unknown_one_are_found():
    known = ["emea-prod", "emea-test", "apac-prod"]

    assert near("emea-prd", known)[0] == "emea-prod"
    assert "apac-prod" in near("APAC", known)
    assert near("zzz", known) == ()
    assert near("", known) == ()


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=119), "119 s"),
        (timedelta(minutes=2), "2 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(hours=47), "47 h"),
        (timedelta(days=2), "2 d"),
        (timedelta(days=400), "400 d"),
    ],
)
def test_durations_are_told_in_their_largest_sensible_unit(duration, words):
    assert length(duration) == words
    assert relative(NOON - duration, NOON) == f"{words} ago"


def test_the_future_and_the_end_of_a_certificate_have_words():
    assert relative(NOON + timedelta(days=3), NOON) == "in 3 d"
    assert days(timedelta(days=3)) == "3 d left"
    assert days(timedelta(days=-3)) == "expired 3 d ago"
    assert [milliseconds(s) for s in (0.0001, 0.25, 12.34)] == ["< 1 ms", "250 ms", "12.3 s"]


# --- the cycles that are kept


def after(*kinds, start=NOON):
    """Return the ring after cycles that were well (None) or failed with a reason."""
    ring = Ring()
    for number, reason in enumerate(kinds):
        outcomes = ALL_WELL if reason is None else failed(reason, f"detail {reason.value}")
        at = start + timedelta(minutes=number)
        ring = ring.after(result(at=at, outcomes=outcomes), {})
    return ring


def test_a_cycle_is_kept_as_it_was():
    made = Ring().after(
        result(outcomes=failed(Reason.TLS_EOF, "closed")), {Probe.HANDSHAKE: cause()}
    )
    (kept,) = made.cycles

    assert (kept.number, kept.at) == (1, NOON)
    assert dict(kept.stages) == pytest.approx(STAGES)
    assert kept.seen.outcomes[0] == (Probe.HANDSHAKE, Failure(Reason.TLS_EOF, "closed"))
    assert kept.seen.causes == ((Probe.HANDSHAKE, "client_certificate_expired"),)
    assert next(p for p, o in kept.seen.outcomes if isinstance(o, Failure)) is Probe.HANDSHAKE


def test_failures_are_kept_longer_than_successes():
    ring = after(Reason.TLS_EOF, *[None] * 500)

    assert (len(ring.well), len(ring.troubled)) == (MOST_WELL, 1)
    assert [cycle.number for cycle in ring.cycles][:2] == [1, 501 - MOST_WELL + 1]


def test_a_long_outage_does_not_push_out_how_it_began_nor_what_was_before():
    ring = after(Reason.DNS_TIMEOUT, None, *[Reason.TLS_EOF] * 500)

    assert len(ring.troubled) == MOST_TROUBLED
    numbers = [cycle.number for cycle in ring.troubled]
    assert numbers[:2] == [1, 3]
    assert numbers[-1] == 502


def test_failures_that_all_differ_are_bounded_too():
    reasons = itertools.islice(itertools.cycle([Reason.TLS_EOF, Reason.TCP_RESET]), 500)

    assert len(after(*reasons).troubled) == MOST_TROUBLED


def test_equal_cycles_share_what_they_showed():
    ring = after(*[None] * 3)

    assert len({id(cycle.seen) for cycle in ring.cycles}) == 1


def test_a_long_detail_is_cut():
    ring = Ring().after(result(outcomes=failed(Reason.HTML_UNEXPECTED, "x" * 10_000)))

    ((_, outcome), *_) = ring.cycles[0].seen.outcomes
    assert len(outcome.detail) == 300


@pytest.mark.parametrize("cause_", SkipCause)
def test_a_login_that_an_earlier_failure_stopped_is_trouble_and_one_not_due_is_none(cause_):
    ring = Ring().after(result(outcomes={**ALL_WELL, Probe.LOGIN: Skipped(cause_)}))

    stopped = cause_ in {SkipCause.BREAKER_OPEN, SkipCause.STATE_UNAVAILABLE}
    assert ring.cycles[0].seen.troubled is stopped
    assert (
        ring.cycles[0].seen.troubled
        is not result(outcomes={**ALL_WELL, Probe.LOGIN: Skipped(cause_)}).healthy
    )


def test_what_is_packed_is_unpacked_the_same():
    outcomes = {
        Probe.HANDSHAKE: Undetermined(Reason.UNDETERMINED, 'quotes " and \u202e'),
        Probe.LOGIN: Skipped(SkipCause.NO_VERDICT),
    }
    ring = after(None, Reason.TLS_EOF, None).after(result(outcomes=outcomes))

    again = unpack(pack(ring))
    assert again.count == 4
    assert [(c.number, c.at, c.seen) for c in again.cycles] == [
        (c.number, c.at, c.seen) for c in ring.cycles
    ]
    for kept, was in zip(again.cycles, ring.cycles, strict=True):
        assert dict(kept.stages) == pytest.approx(dict(was.stages), abs=1e-4)
    assert unpack(pack(Ring())) == Ring()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"{}",
        b'{"format":2}',
        b'{"format":1,"count":1,"seen":[],"cycles":[[1,0,0,{}]]}',
        b'{"format":1,"count":1,"seen":[{}],"cycles":[]}',
        b'{"format":1,"count":1,"seen":[{"client_auth":"x","alert":null}],"cycles":[]}',
        b'{"format":1,"count":"many","seen":[],"cycles":[]}',
    ],
)
def test_what_cannot_be_read_any_more_is_a_value_error(data):
    with pytest.raises(ValueError, match=r".*"):
        unpack(data)


# --- the journal


def taking(journal, made, outcomes=ALL_WELL, name="emea", at=NOON):
    seen_ = result(name, at=at, outcomes=outcomes)
    made.record(seen_, causes={Probe.HANDSHAKE: (cause(),)})
    journal.take(seen_, made.get(name))


def test_a_journal_knows_the_last_cycles_and_forgets_with_the_org():
    made, journal = board(org()), Journal()
    taking(journal, made)
    taking(journal, made, failed(Reason.TLS_EOF))

    assert [cycle.seen.troubled for cycle in journal.cycles("emea")] == [False, True]
    assert journal.cycles("emea")[1].seen.causes == (
        (Probe.HANDSHAKE, "client_certificate_expired"),
    )
    assert journal.last("emea").outcomes == failed(Reason.TLS_EOF)
    journal.forget("emea")
    assert (journal.cycles("emea"), journal.last("emea")) == ((), None)
    journal.take(result(), None)
    assert journal.cycles("emea") == ()


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "state.sqlite3")
    yield store
    store.close()


async def test_what_a_journal_wrote_is_there_after_a_restart_and_goes_on(store):
    async def ask(question):
        question(store)

    made, first = board(org(), org("apac")), Journal({}, ask, between=0)
    taking(first, made, failed(Reason.TLS_EOF))
    taking(first, made)
    taking(first, made, name="apac")
    await first.aclose()

    again = Journal(store.cycles(), ask, between=0)
    assert [(c.number, c.seen.troubled) for c in again.cycles("emea")] == [(1, True), (2, False)]
    taking(again, made)
    assert [c.number for c in again.cycles("emea")] == [1, 2, 3]
    assert [c.number for c in again.cycles("apac")] == [1]
    await again.aclose()
    assert set(store.cycles()) == {"emea", "apac"}


async def test_more_of_the_same_is_not_written_until_the_end():
    batches = []

    class Asked:
        def keep_cycles(self, packed):
            batches.append(set(packed))

    async def ask(question):
        question(Asked())

    made, journal = board(org()), Journal({}, ask, between=0)
    for minute in range(50):
        taking(journal, made, at=NOON + timedelta(minutes=minute))
        if journal._writing is not None:
            await journal._writing
    assert batches == [{"emea"}]
    taking(journal, made, failed(Reason.TLS_EOF))
    await journal._writing
    assert batches == [{"emea"}] * 2
    taking(journal, made, failed(Reason.TLS_EOF), at=NOON + timedelta(hours=1))
    await journal.aclose()
    assert batches == [{"emea"}] * 3


async def test_a_store_that_cannot_be_written_is_told_once_and_asked_again_at_the_end():
    asked = []

    async def ask(question):
        asked.append(question)
        raise StoreError("full")

    made, journal = board(org()), Journal({}, ask, between=0)
    with structlog.testing.capture_logs() as logged:
        for reason in (Reason.TLS_EOF, Reason.TCP_RESET):
            taking(journal, made, failed(reason))
            await journal._writing
        await journal.aclose()

    assert len(asked) == 3
    assert [(line["event"], line["error"]) for line in logged] == [
        ("the last cycles cannot be kept", "full")
    ]
    assert [cycle.seen.troubled for cycle in journal.cycles("emea")] == [True, True]


def test_what_a_store_has_but_nobody_can_read_is_as_if_it_were_not_there():
    made, journal = board(org()), Journal({"emea": b"\xff", "apac": b"{}"})
    assert journal.cycles("apac") == ()
    taking(journal, made)
    assert [cycle.number for cycle in journal.cycles("emea")] == [1]


def test_the_store_forgets_the_cycles_of_an_org_that_is_gone_for_long(store):
    store.keep_cycles({"emea": b"1", "gone": b"2"})
    for day in range(91):
        store.tidy({"emea"}, (), NOON + timedelta(days=day))

    assert store.cycles() == {"emea": b"1"}


# --- the strip


def test_the_strip_tells_kinds_gaps_and_causes():
    ring = after(Reason.TLS_EOF, *[None] * 30)
    ring = ring.after(
        result(at=NOON + timedelta(hours=1), outcomes=failed(Reason.TCP_RESET, "cut")),
        {Probe.HANDSHAKE: cause()},
    )
    marks = trail.trail(ring.cycles, NOON + timedelta(hours=1))

    assert [mark.kind for mark in marks] == ["failing", *["well"] * MOST_WELL, "failing"]
    assert [mark.skipped for mark in marks][:3] == [0, 30 - MOST_WELL, 0]
    assert marks[-1].words == "the door failed: tcp_reset (cut)"
    assert marks[-1].causes == ("client_certificate_expired",)
    assert marks[0].label.startswith("60 min ago, 2026-03-01 12:00:00 UTC: the door failed")
    assert trail.trail((), NOON) == ()


def test_a_login_that_was_stopped_is_told_and_one_without_verdict_is_not():
    stopped = {**ALL_WELL, Probe.LOGIN: Skipped(SkipCause.BREAKER_OPEN)}
    (mark,) = trail.trail(Ring().after(result(outcomes=stopped)).cycles, NOON)
    (door,) = trail.trail(after(Reason.TLS_EOF).cycles, NOON)

    assert (mark.kind, mark.words) == ("failing", "the login not tried: breaker_open")
    assert "no_verdict" not in door.words


def test_bars_stand_one_after_the_other_and_fill_the_width():
    bars = trail.bars({Stage.DNS: 0.1, Stage.TCP: 0.3})

    assert [(bar.stage, bar.start, bar.width) for bar in bars] == [
        ("dns", 0.0, 250.0),
        ("tcp", 250.0, 750.0),
    ]
    assert trail.bars({}) == ()
    (instant,) = trail.bars({Stage.DNS: 0.0})
    assert instant.width == 1.0


# --- chains


def test_a_chain_is_a_tree_up_to_its_root_with_what_to_copy():
    w = world()
    found = tree(w.client_chain, w.anchors, NOW)

    titles = []
    node = found.root
    while True:
        titles.append((node.title, node.sent, bool(node.standing)))
        if not node.issuers:
            break
        (node,) = node.issuers
    assert titles[0][1:] == (True, False)
    assert titles[-1] == (w.clients.root.facts.subject, False, True)
    assert fields(found.root) == {
        "SHA-256": w.client_chain[0].fingerprint_sha256,
        "serial number": w.client_chain[0].serial_number,
    }
    assert not found.root.over


def test_an_issuer_that_nobody_has_is_the_end_of_the_tree():
    w = world()
    found = tree(w.client_chain[:1], Anchors(()), NOW)

    (missing,) = found.root.issuers
    assert (missing.certificate, missing.sent) == (None, False)
    assert missing.title == w.client_chain[0].issuer
    assert fields(missing) == {}


def test_what_is_over_is_marked_and_what_lies_beside_is_named():
    w = world()
    stranger = w.servers.root.facts
    leaf = w.client_chain[0]
    found = tree((*w.client_chain, stranger), w.anchors, leaf.not_after + timedelta(days=3))

    assert (found.root.over, found.root.left) == (True, "EXPIRED 3 days ago")
    assert found.beside == ((stranger.subject, "issued none of the others"),)


# --- values that are not in other tests


def test_json_of_a_ring_stays_small():
    ring = after(*[None] * 100, *[Reason.TLS_EOF] * 100)

    assert len(pack(ring)) < 8_000
    assert json.loads(pack(ring))["count"] == 200


def test_what_is_known_of_an_org_does_not_depend_on_login():
    made = board(org(login=None, refusal_interval=None))
    made.record(
        ProbeResult("emea", NOON, {Probe.HANDSHAKE: Failure(Reason.DNS_NOT_FOUND)}),
        deadlines=DEADLINES,
    )
    said = view(made.get("emea"), LATER)

    assert (said.state, said.logins) == (State.FAILING, None)
    assert LOGIN.username not in said.found
