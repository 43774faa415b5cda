"""The breaker: pure decisions, so every test is a story with a clock that the test owns."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.breaker import (
    ANY,
    HOUR,
    MEMORY,
    Allowed,
    Attempt,
    Denied,
    Limits,
    LoginState,
    Refusal,
    after_begin,
    after_finish,
    after_reset,
    barring,
    budget_remaining,
    decide,
    in_flight,
)
from agent.login.faults import KNOWN_CODES, reason_of
from agent.reason import Reason
from agent.result import SkipCause

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LIMITS = Limits(logins_per_hour=30)
NEW = LoginState("ada@example.com")

HERE = "acme.my.salesforce.com 64.0"
THERE = "acme.my.salesforce.com 63.0"

REFUSED = Reason.INVALID_LOGIN
REFUSED_HERE = Reason.API_VERSION
# An answer that says nothing about the secret, and none at all.
NO_VERDICT = Reason.MAINTENANCE
LOST = Reason.HTTP_TIMEOUT
NO_ANSWERS = [
    Reason.HTTP_TIMEOUT,
    Reason.TLS_EOF,
    Reason.TCP_RESET,
    Reason.HTTP_MALFORMED,
    Reason.RESPONSE_TOO_LARGE,
    Reason.UNDETERMINED,
    Reason.SOAP_MALFORMED,
    Reason.CLIENT_CERT_REVOKED,
    Reason.INTERNAL,
]


class Killed:
    """Nobody wrote down how the attempt ended."""


def is_open(state, digest, now, place=HERE):
    return barring(state, digest, place, now) is not None


def login(state, digest, now, end, limits=LIMITS, *, number=None, place=HERE):
    """Make a login that is allowed, and end it."""
    decision = decide(state, digest, place, now, limits)
    assert isinstance(decision, Allowed)
    used = [attempt.id for attempt in state.unfinished]
    used += [refusal.attempt for refusal in state.refusals] + [state.proven]
    attempt = Attempt(
        id=number or max(used) + 1,
        at=now,
        digest=digest,
        place=place,
        half_open=decision.half_open,
        hold=decision.hold,
        expires_at=now + MINUTE,
    )
    state = after_begin(state, attempt)
    return state if end is Killed else after_finish(state, attempt, now, end)


def test_a_user_who_never_logged_in_may():
    assert decide(NEW, "a", HERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)
    assert not is_open(NEW, "a", NOON)
    assert budget_remaining(NEW, NOON, LIMITS) == 30
    assert (NEW.opened_at, NEW.opened_by, NEW.hold, NEW.digest) == (None, None, None, None)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.opens_breaker])
def test_y115_the_first_refusal_opens_the_breaker(reason):
    state = login(NEW, "a", NOON, reason)

    assert decide(state, "a", HERE, NOON + MINUTE, LIMITS) == Denied(
        SkipCause.BREAKER_OPEN, NOON + HOUR
    )
    assert is_open(state, "a", NOON + MINUTE)
    assert (state.opened_at, state.opened_by, state.hold, state.digest) == (
        NOON,
        reason,
        HOUR,
        "a",
    )


@pytest.mark.parametrize("reason", [reason for reason in Reason if not reason.opens_breaker])
def test_y132_any_other_failure_leaves_the_breaker_closed(reason):
    state = login(NEW, "a", NOON, reason)

    assert decide(state, "a", HERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)
    assert state.refusal is None


ANSWERS = [
    reason
    for reason in [
        Reason.HTTP_STATUS,
        Reason.HTTP_REDIRECT,
        Reason.HTML_UNEXPECTED,
        Reason.CLIENT_CERT_PAGE,
        Reason.WRONG_ORG,
        Reason.HOST_POLICY,
        *sorted({reason_of(code, "") for code in KNOWN_CODES}, key=lambda reason: reason.value),
        Reason.FAULT_OTHER,
    ]
    if not reason.opens_breaker
]


@pytest.mark.parametrize("reason", ANSWERS, ids=lambda reason: reason.value)
def test_no_number_of_answers_that_say_something_else_opens_the_breaker(reason):
    state = NEW
    for number in range(1, 9):
        state = login(state, "a", NOON + number * MINUTE, reason, number=number)

    assert not is_open(state, "a", NOON + 9 * MINUTE)
    assert state.unfinished == ()


def test_one_try_is_let_through_when_the_hold_is_over():
    state = login(NEW, "a", NOON, REFUSED)

    assert is_open(state, "a", NOON + HOUR - timedelta(microseconds=1))
    assert not is_open(state, "a", NOON + HOUR)
    assert decide(state, "a", HERE, NOON + HOUR, LIMITS) == Allowed(half_open=True, hold=2 * HOUR)


def test_the_hold_doubles_with_each_refused_try_up_to_its_maximum():
    state, now, holds = NEW, NOON, []
    for _ in range(8):
        state = login(state, "a", now, REFUSED)
        assert state.hold is not None
        holds.append(state.hold // HOUR)
        now += state.hold

    assert holds == [1, 2, 4, 8, 16, 24, 24, 24]


def test_a_hold_longer_than_the_maximum_is_kept():
    limits = Limits(30, hold=48 * HOUR)
    state = login(NEW, "a", NOON, REFUSED, limits)

    state = login(state, "a", NOON + 48 * HOUR, REFUSED, limits)

    assert state.hold == 48 * HOUR


def test_a_success_closes_the_breaker_and_resets_the_hold():
    state = login(NEW, "a", NOON, REFUSED)
    state = login(state, "a", NOON + HOUR, REFUSED)
    state = login(state, "a", NOON + 3 * HOUR, None)

    assert state.refusal is None
    assert decide(state, "a", HERE, NOON + 3 * HOUR, LIMITS) == Allowed(half_open=False, hold=HOUR)


def test_another_secret_gets_one_try_at_once():
    state = login(NEW, "a", NOON, REFUSED)
    assert decide(state, "b", HERE, NOON, LIMITS) == Allowed(half_open=True, hold=HOUR)

    state = login(state, "b", NOON, REFUSED)

    assert decide(state, "b", HERE, NOON, LIMITS) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)


def test_two_secrets_that_take_turns_do_not_set_each_other_free():
    """Two orgs may be configured with one user and different passwords, both wrong."""
    state = login(NEW, "a", NOON, REFUSED)
    state = login(state, "b", NOON, REFUSED)

    assert isinstance(decide(state, "a", HERE, NOON + MINUTE, LIMITS), Denied)
    assert isinstance(decide(state, "b", HERE, NOON + MINUTE, LIMITS), Denied)


def test_a_secret_that_works_is_not_held_back_by_another_one_that_was_refused_before():
    state = login(NEW, "a", NOON, REFUSED)
    state = login(state, "b", NOON, None)

    assert decide(state, "b", HERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)
    assert decide(state, "c", HERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)
    assert decide(state, "a", HERE, NOON, LIMITS) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)


def test_a_refusal_after_the_success_makes_the_other_secret_careful_again():
    state = login(NEW, "b", NOON, None)
    state = login(state, "a", NOON, REFUSED)

    assert decide(state, "b", HERE, NOON, LIMITS) == Allowed(half_open=True, hold=HOUR)


def test_in_half_open_exactly_one_attempt_is_made():
    state = login(NEW, "a", NOON, REFUSED)
    state = login(state, "a", NOON + HOUR, Killed)

    assert decide(state, "a", HERE, NOON + HOUR, LIMITS) == Denied(
        SkipCause.BREAKER_OPEN, NOON + 3 * HOUR
    )
    assert state.opened_by is Reason.UNDETERMINED


@pytest.mark.parametrize("end", [NO_VERDICT, LOST])
def test_a_try_without_a_verdict_neither_closes_nor_doubles_but_waits_for_the_hold_again(end):
    state = login(NEW, "a", NOON, REFUSED)
    state = login(state, "a", NOON + HOUR, REFUSED)

    state = login(state, "a", NOON + 3 * HOUR, end)

    assert (state.hold, state.opened_by) == (2 * HOUR, REFUSED)
    assert isinstance(decide(state, "a", HERE, NOON + 5 * HOUR - MINUTE, LIMITS), Denied)
    assert decide(state, "a", HERE, NOON + 5 * HOUR, LIMITS) == Allowed(
        half_open=True, hold=4 * HOUR
    )


@pytest.mark.parametrize("end", [NO_VERDICT, LOST])
def test_a_try_with_another_secret_without_a_verdict_rests_for_the_first_hold(end):
    state = login(NEW, "a", NOON, REFUSED)

    state = login(state, "b", NOON, end)

    assert decide(state, "b", HERE, NOON, LIMITS) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)
    assert (state.opened_by, state.digest) == (REFUSED, "b")


# --- an operator's reset


def test_a_reset_lets_one_try_through_and_starts_the_hold_again():
    state = login(NEW, "a", NOON, REFUSED)
    state = login(state, "a", NOON + HOUR, REFUSED)

    state = after_reset(state, NOON + HOUR)
    assert not is_open(state, "a", NOON + HOUR)
    assert decide(state, "a", HERE, NOON + HOUR, LIMITS) == Allowed(half_open=True, hold=HOUR)
    state = login(state, "a", NOON + HOUR, REFUSED)

    assert decide(state, "a", HERE, NOON + HOUR, LIMITS) == Denied(
        SkipCause.BREAKER_OPEN, NOON + 2 * HOUR
    )


def test_a_try_without_a_verdict_after_a_reset_rests_for_the_first_hold():
    state = login(NEW, "a", NOON, REFUSED)
    state = login(state, "a", NOON + HOUR, REFUSED)
    state = after_reset(state, NOON + HOUR)

    state = login(state, "a", NOON + HOUR, NO_VERDICT)

    assert (state.hold, state.opened_by) == (HOUR, REFUSED)
    assert isinstance(decide(state, "a", HERE, NOON + HOUR, LIMITS), Denied)


def test_a_reset_while_the_try_is_under_way_does_not_forget_how_it_ends():
    state = login(NEW, "a", NOON, REFUSED)
    state = login(state, "a", NOON + HOUR, Killed)
    (under_way,) = state.unfinished

    state = after_reset(state, NOON + HOUR)
    assert not is_open(state, "a", NOON + HOUR)
    state = after_finish(state, under_way, NOON + HOUR + MINUTE, NO_VERDICT)

    assert is_open(state, "a", NOON + HOUR + MINUTE)
    assert state.opened_by is Reason.UNDETERMINED


def test_a_reset_of_a_closed_breaker_changes_nothing():
    state = login(NEW, "a", NOON, None)

    assert after_reset(state, NOON) == state


def test_a_reset_forgives_a_clock_that_was_wrong():
    wrong = NOON + timedelta(days=3650)
    state = login(NEW, "a", wrong, Killed)
    assert in_flight(state, NOON) is not None
    assert budget_remaining(state, NOON, LIMITS) == 0

    state = after_reset(state, NOON)

    assert in_flight(state, NOON + MINUTE) is None
    assert budget_remaining(state, NOON + MINUTE, LIMITS) == 29


# --- attempts whose end is unknown


def test_one_unfinished_attempt_is_forgiven_and_counts_for_the_budget():
    state = login(NEW, "a", NOON, Killed)

    assert decide(state, "a", HERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)
    assert budget_remaining(state, NOON, LIMITS) == 29


def test_two_unfinished_attempts_in_a_row_open_the_breaker():
    state = login(NEW, "a", NOON, Killed)
    state = login(state, "a", NOON + MINUTE, Killed)

    assert decide(state, "a", HERE, NOON + MINUTE, LIMITS) == Denied(
        SkipCause.BREAKER_OPEN, NOON + MINUTE + HOUR
    )
    assert (state.opened_by, state.opened_at) == (Reason.UNDETERMINED, NOON + MINUTE)


def test_two_unfinished_attempts_with_a_success_between_them_do_not():
    state = login(NEW, "a", NOON, Killed)
    state = login(state, "a", NOON, None, number=2)
    state = login(state, "a", NOON, Killed, number=3)

    assert decide(state, "a", HERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)


@pytest.mark.parametrize("end", [NO_VERDICT, Reason.HTTP_STATUS, Reason.FAULT_OTHER])
def test_an_answer_that_proves_nothing_between_them_does_not_forgive_a_second(end):
    """Only a success sets back the count of failed logins that locks a user."""
    state = login(NEW, "a", NOON, Killed)
    state = login(state, "a", NOON, end, number=2)
    state = login(state, "a", NOON, Killed, number=3)

    assert is_open(state, "a", NOON)


@pytest.mark.parametrize("reason", NO_ANSWERS, ids=lambda reason: reason.value)
def test_a_lost_answer_is_forgiven_once_and_the_second_opens_the_breaker(reason):
    state = login(NEW, "a", NOON, reason)
    assert decide(state, "a", HERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)

    state = login(state, "a", NOON + MINUTE, reason)

    assert decide(state, "a", HERE, NOON + MINUTE, LIMITS) == Denied(
        SkipCause.BREAKER_OPEN, NOON + MINUTE + HOUR
    )
    assert state.opened_by is Reason.UNDETERMINED


def test_a_lost_answer_and_a_kill_are_two_of_a_kind():
    state = login(NEW, "a", NOON, LOST)
    state = login(state, "a", NOON + MINUTE, Killed)

    assert is_open(state, "a", NOON + MINUTE)


def test_a_success_takes_the_strike_of_a_lost_answer_back():
    state = NEW
    for number, end in enumerate([LOST, None] * 5, start=1):
        state = login(state, "a", NOON + number * MINUTE, end, number=number)

    assert not is_open(state, "a", NOON + 11 * MINUTE)
    assert state.unfinished == ()


def test_the_right_secret_works_again_one_hold_after_an_outage_however_long_that_was():
    outage = 7 * HOUR
    state, now, sent = NEW, NOON, 0
    while now < NOON + outage:
        if isinstance(decide(state, "a", HERE, now, LIMITS), Allowed):
            state = login(state, "a", now, LOST, number=(sent := sent + 1))
        now += 5 * MINUTE
    assert sent == 2 + 6, "two, and one for each hold that is over"
    while isinstance(decide(state, "a", HERE, now, LIMITS), Denied):
        now += 5 * MINUTE

    assert now <= NOON + outage + HOUR
    state = login(state, "a", now, None, number=sent + 1)
    assert state.refusal is None
    assert decide(state, "a", HERE, now, LIMITS) == Allowed(half_open=False, hold=HOUR)


def test_unfinished_attempts_with_different_secrets_are_not_in_a_row():
    state = login(NEW, "a", NOON, Killed)
    state = login(state, "b", NOON, Killed)

    assert decide(state, "a", HERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)
    assert decide(state, "b", HERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)


def test_an_attempt_that_ends_after_all_takes_its_strike_back():
    state = login(NEW, "a", NOON, Killed)
    (late,) = state.unfinished
    state = login(state, "a", NOON, Killed)
    assert is_open(state, "a", NOON)

    state = after_finish(state, late, NOON, NO_VERDICT)

    assert not is_open(state, "a", NOON)


def test_a_late_success_does_not_undo_the_refusal_of_a_later_attempt():
    state = login(NEW, "a", NOON, Killed)
    (late,) = state.unfinished
    state = login(state, "a", NOON, REFUSED)

    state = after_finish(state, late, NOON, None)

    assert is_open(state, "a", NOON)


def test_a_late_refusal_does_not_replace_that_of_a_later_attempt():
    state = login(NEW, "a", NOON, Killed)
    (late,) = state.unfinished
    state = login(state, "a", NOON, Reason.USER_LOCKED)

    assert after_finish(state, late, NOON, REFUSED).opened_by is Reason.USER_LOCKED


def test_a_late_refusal_of_an_earlier_attempt_opens_the_breaker():
    state = login(NEW, "a", NOON, Killed)
    (late,) = state.unfinished
    state = login(state, "a", NOON, Killed, number=2)

    state = after_finish(state, late, NOON, REFUSED)

    # The later attempt is still unfinished: it follows a refusal now.
    assert is_open(state, "a", NOON)


# --- one login in flight


def test_a_login_under_way_denies_another_one_for_the_lease():
    state = login(NEW, "a", NOON, Killed)

    assert in_flight(state, NOON) == Denied(SkipCause.IN_FLIGHT, NOON + MINUTE)
    assert in_flight(state, NOON + MINUTE) is None


@pytest.mark.parametrize("end", [None, REFUSED, NO_VERDICT, LOST])
def test_a_login_that_has_ended_denies_nothing(end):
    assert in_flight(login(NEW, "a", NOON, end), NOON) is None


def test_every_login_is_under_way_for_a_time_of_its_own():
    state = login(NEW, "a", NOON, Killed)
    (short,) = state.unfinished
    long = replace(short, id=2, expires_at=NOON + HOUR)

    assert in_flight(after_begin(state, long), NOON + MINUTE) == Denied(
        SkipCause.IN_FLIGHT, NOON + HOUR
    )


# --- host and API version


def test_a_refused_secret_is_not_tried_at_another_place():
    state = login(NEW, "a", NOON, REFUSED)

    assert decide(state, "a", THERE, NOON, LIMITS) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)
    assert is_open(state, "a", NOON, THERE)


@pytest.mark.parametrize("reason", [Reason.API_VERSION, Reason.LOGIN_DISABLED, Reason.API_DISABLED])
def test_a_refused_place_bars_itself_only_and_a_corrected_one_gets_one_try(reason):
    state = login(NEW, "a", NOON, reason)
    assert decide(state, "a", HERE, NOON, LIMITS) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)
    assert decide(state, "a", THERE, NOON, LIMITS) == Allowed(half_open=True, hold=HOUR)

    state = login(state, "a", NOON, reason, place=THERE)

    assert is_open(state, "a", NOON, HERE)
    assert is_open(state, "a", NOON, THERE)


def test_a_secret_refused_at_a_corrected_place_rests_everywhere():
    state = login(NEW, "a", NOON, REFUSED_HERE)
    state = login(state, "a", NOON, REFUSED, place=THERE)

    assert is_open(state, "a", NOON, HERE)
    assert is_open(state, "a", NOON, THERE)
    assert is_open(state, "a", NOON, "a third place")


def test_a_secret_that_works_at_one_place_leaves_another_refused():
    state = login(NEW, "a", NOON, REFUSED_HERE)
    state = login(state, "a", NOON, None, place=THERE)

    assert is_open(state, "a", NOON, HERE)
    assert decide(state, "a", THERE, NOON, LIMITS) == Allowed(half_open=False, hold=HOUR)


def test_a_refused_place_forgives_no_lost_answer():
    state = login(NEW, "a", NOON, LOST)
    state = login(state, "a", NOON, REFUSED_HERE, number=2)
    state = login(state, "a", NOON, LOST, number=3, place=THERE)

    assert is_open(state, "a", NOON, "a third place")


@pytest.mark.parametrize(("end", "rests_there"), [(NO_VERDICT, False), (LOST, True)])
def test_a_lost_answer_of_a_try_at_a_refused_place_makes_the_secret_rest_everywhere(
    end, rests_there
):
    state = login(NEW, "a", NOON, REFUSED_HERE)
    state = login(state, "a", NOON + HOUR, end)

    assert is_open(state, "a", NOON + HOUR, HERE)
    assert is_open(state, "a", NOON + HOUR, THERE) is rests_there


# --- the budget


def test_the_budget_counts_every_attempt_of_the_last_hour_whatever_became_of_it():
    limits = Limits(logins_per_hour=3)
    state = NEW
    for minute, end in enumerate([None, NO_VERDICT, Killed]):
        state = login(state, "a", NOON + minute * MINUTE, end, limits, number=minute + 1)

    assert budget_remaining(state, NOON + 3 * MINUTE, limits) == 0
    assert decide(state, "a", HERE, NOON + 3 * MINUTE, limits) == Denied(
        SkipCause.BUDGET, NOON + HOUR
    )
    assert budget_remaining(state, NOON + HOUR, limits) == 1
    assert isinstance(decide(state, "a", HERE, NOON + HOUR, limits), Allowed)


def test_an_open_breaker_is_named_before_a_spent_budget():
    limits = Limits(logins_per_hour=1)
    state = login(NEW, "a", NOON, REFUSED, limits)

    assert decide(state, "a", HERE, NOON, limits) == Denied(SkipCause.BREAKER_OPEN, NOON + HOUR)
    assert decide(state, "b", HERE, NOON, limits) == Denied(SkipCause.BUDGET, NOON + HOUR)


def test_without_any_budget_no_login_is_ever_made():
    assert decide(NEW, "a", HERE, NOON, Limits(0)) == Denied(SkipCause.BUDGET)


def test_a_clock_set_back_still_counts_what_it_puts_into_the_future():
    limits = Limits(logins_per_hour=1)
    state = login(NEW, "a", NOON, None, limits)

    assert decide(state, "a", HERE, NOON - 2 * HOUR, limits) == Denied(
        SkipCause.BUDGET, NOON + HOUR
    )


def test_a_clock_set_back_beyond_memory_denies_until_it_is_within():
    state = login(NEW, "a", NOON, None)

    assert decide(state, "a", HERE, NOON - MEMORY, LIMITS) == Denied(
        SkipCause.BUDGET, NOON - MEMORY + HOUR
    )
    assert isinstance(decide(state, "a", HERE, NOON - MEMORY + HOUR, LIMITS), Allowed)


def test_attempts_are_forgotten_when_they_are_older_than_memory():
    state = login(NEW, "a", NOON, None)
    state = login(state, "a", NOON + MEMORY - MINUTE, None)
    assert len(state.attempts) == 2

    state = login(state, "a", NOON + MEMORY, None)

    assert state.attempts == (NOON + MEMORY - MINUTE, NOON + MEMORY)


# --- what was remembered is lost

LOST_AT_NOON = LoginState(
    "ada@example.com", refusals=(Refusal(ANY, 7, NOON, Reason.STATE_LOST, HOUR),)
)


@pytest.mark.parametrize("digest", ["a", "b"])
@pytest.mark.parametrize("place", [HERE, THERE])
def test_after_a_loss_every_secret_rests_for_one_hold_wherever_it_goes(digest, place):
    last = NOON + HOUR - timedelta(microseconds=1)

    assert decide(LOST_AT_NOON, digest, place, last, LIMITS) == Denied(
        SkipCause.BREAKER_OPEN, NOON + HOUR
    )
    assert is_open(LOST_AT_NOON, digest, last, place)
    assert decide(LOST_AT_NOON, digest, place, NOON + HOUR, LIMITS) == Allowed(
        half_open=True, hold=2 * HOUR
    )
    assert not is_open(LOST_AT_NOON, digest, NOON + HOUR, place)


def test_after_a_loss_a_lost_answer_is_a_strike_since_nobody_knows_of_those_before():
    state = login(LOST_AT_NOON, "a", NOON + HOUR, LOST)

    assert is_open(state, "a", NOON + HOUR + MINUTE)
    assert not is_open(login(NEW, "a", NOON + HOUR, LOST), "a", NOON + HOUR + MINUTE)


def test_after_a_loss_a_refusal_of_one_secret_leaves_the_others_their_try():
    state = login(LOST_AT_NOON, "a", NOON + HOUR, REFUSED)

    assert is_open(state, "a", NOON + 2 * HOUR)
    assert decide(state, "b", HERE, NOON + HOUR + MINUTE, LIMITS) == Allowed(
        half_open=True, hold=2 * HOUR
    )


def test_after_a_loss_a_success_ends_it_for_every_secret():
    state = login(LOST_AT_NOON, "a", NOON + HOUR, None)

    assert state.refusals == ()
    assert decide(state, "b", HERE, NOON + HOUR, LIMITS) == Allowed(half_open=False, hold=HOUR)


def test_after_a_loss_a_reset_lets_each_secret_through_once():
    state = after_reset(LOST_AT_NOON, NOON)
    state = login(state, "a", NOON, REFUSED)

    assert is_open(state, "a", NOON + MINUTE)
    assert decide(state, "b", HERE, NOON + MINUTE, LIMITS) == Allowed(half_open=True, hold=HOUR)


# --- properties


ENDS = st.sampled_from([REFUSED, Reason.USER_LOCKED, NO_VERDICT, LOST, None, Killed])
STEPS = st.tuples(
    # Minutes that pass before the attempt; clocks are set back, too.
    st.one_of(st.integers(0, 10), st.integers(-300, 300), st.sampled_from([0, 60, 120, 1500])),
    st.sampled_from("ab"),
    ENDS,
)


class Rest:
    """The bound in other words: for how long one secret must rest, told from its own attempts."""

    def __init__(self) -> None:
        self.hold: timedelta | None = None
        self.until: datetime | None = None
        self.unknown = 0

    def ended(self, now: datetime, end: object) -> None:
        if end is None:
            self.__init__()
            return
        refused = end is Killed or (isinstance(end, Reason) and end.opens_breaker)
        if self.hold is None:
            self.unknown += end in {Killed, LOST}
            if self.unknown > 1 or (refused and end is not Killed):
                self.hold = HOUR
        elif refused:
            self.hold = min(2 * self.hold, 24 * HOUR)
        if self.hold is not None:
            self.until = now + self.hold


def story(steps, limits):
    """Tell what happens: every state, moment, secret and end of an attempt that was made."""
    state, now = NEW, NOON
    for number, (minutes, digest, end) in enumerate(steps, start=1):
        now += minutes * MINUTE
        if isinstance(decide(state, digest, HERE, now, limits), Allowed):
            state = login(state, digest, now, end, limits, number=number)
            yield state, now, digest, end


@given(st.lists(STEPS, max_size=60))
@settings(max_examples=300)
def test_whatever_happens_a_refused_secret_rests_for_its_doubling_hold(steps):
    rests = {"a": Rest(), "b": Rest()}
    for _, now, digest, end in story(steps, LIMITS):
        until = rests[digest].until
        assert until is None or now >= until
        rests[digest].ended(now, end)


@given(st.lists(st.tuples(st.integers(0, 600), st.sampled_from([REFUSED, Killed])), max_size=80))
@settings(max_examples=200)
def test_the_number_of_strikes_with_one_wrong_secret_is_bounded_by_the_time_that_passed(steps):
    made = [now for _, now, _, _ in story([(m, "a", end) for m, end in steps], LIMITS)]

    # Strikes at 0 (perhaps two), 1, 3, 7, 15, 31 and then every 24 hours.
    bounds = [0, 0, 1, 3, 7, 15, 31] + [31 + 24 * day for day in range(1, 80)]
    for moment, bound in zip(made, bounds, strict=False):
        assert moment - made[0] >= bound * HOUR


STRIKES = [REFUSED, Reason.USER_LOCKED, LOST, Killed]


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 90), st.sampled_from([0, 60, 120])),
            st.sampled_from("ab"),
            st.sampled_from([HERE, THERE]),
            st.sampled_from([*STRIKES, NO_VERDICT, REFUSED_HERE, None]),
        ),
        max_size=60,
    )
)
@settings(max_examples=500)
def test_whatever_is_answered_one_secret_gets_two_strikes_and_then_one_in_each_hold(steps):
    state, now = NEW, NOON
    strikes = {"a": [], "b": []}
    for number, (minutes, digest, place, end) in enumerate(steps, start=1):
        now += minutes * MINUTE
        if isinstance(decide(state, digest, place, now, Limits(1000)), Allowed):
            state = login(state, digest, now, end, Limits(1000), number=number, place=place)
            if end is None:
                strikes[digest].clear()
            elif end in STRIKES:
                strikes[digest].append(now)
            for before, after in pairwise(strikes[digest][1:]):
                assert after - before >= HOUR


@given(st.lists(STEPS, max_size=80))
@settings(max_examples=300)
def test_whatever_is_answered_after_a_loss_no_secret_gets_two_strikes_in_one_hold(steps):
    state, now = LOST_AT_NOON, NOON
    strikes = {"a": [], "b": []}
    for number, (minutes, digest, end) in enumerate(steps, start=8):
        now += minutes * MINUTE
        if isinstance(decide(state, digest, HERE, now, Limits(1000)), Allowed):
            assert now >= NOON + HOUR
            state = login(state, digest, now, end, Limits(1000), number=number)
            if end is None:
                break
            if end in STRIKES:
                strikes[digest].append(now)
    for moments in strikes.values():
        for before, after in pairwise(moments):
            assert after - before >= HOUR


@given(st.lists(STEPS, max_size=80), st.integers(1, 5))
@settings(max_examples=300)
def test_whatever_happens_no_hour_has_more_attempts_than_the_budget(steps, budget):
    moments = sorted(now for _, now, _, _ in story(steps, Limits(logins_per_hour=budget)))

    for first in moments:
        assert len([moment for moment in moments if first <= moment < first + HOUR]) <= budget


@given(
    st.lists(STEPS, max_size=40),
    st.integers(1, 5),
    st.integers(-3000, 3000),
    st.integers(0, 3000),
    st.sampled_from("abc"),
)
@settings(max_examples=300)
def test_setting_the_clock_back_never_allows_a_login(steps, budget, minutes, back, digest):
    limits = Limits(logins_per_hour=budget)
    state, now = NEW, NOON
    for state, now, _, _ in story(steps, limits):  # noqa: B007 - the last ones are wanted
        pass
    now += minutes * MINUTE

    if isinstance(decide(state, digest, HERE, now, limits), Denied):
        assert isinstance(decide(state, digest, HERE, now - back * MINUTE, limits), Denied)


@given(st.lists(STEPS, max_size=40), st.sampled_from("abc"), st.integers(0, 3000))
@settings(max_examples=200)
def test_the_questions_agree_with_the_decision(steps, digest, minutes):
    state, now = NEW, NOON
    for state, now, _, _ in story(steps, LIMITS):  # noqa: B007 - the last ones are wanted
        pass
    now += minutes * MINUTE

    match decide(state, digest, HERE, now, LIMITS):
        case Denied(cause=SkipCause.BREAKER_OPEN):
            assert is_open(state, digest, now)
        case Denied(cause=cause):
            assert cause is SkipCause.BUDGET
            assert budget_remaining(state, now, LIMITS) == 0
        case Allowed():
            assert not is_open(state, digest, now)
            assert budget_remaining(state, now, LIMITS) > 0
