"""Windows of maintenance: what crontab(5) means by a line, and what is in force at a moment."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.maintenance import EVERY_ORG, Recurring, Window, in_force, started_for
from agent.schedule import crontab_start

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def utc(text):
    """Return a moment of 2026: "11-29 01:00" with or without seconds."""
    return datetime.fromisoformat(f"2026-{text}+00:00")


# --- a line of crontab(5)


def starts(cron, after, count, zone="UTC"):
    """Return the next beginnings as "MM-DD HH:MM" in UTC."""
    found, earliest = [], utc(after)
    for _ in range(count):
        moment = crontab_start(cron, zone, earliest)
        found.append(f"{moment:%m-%d %H:%M}")
        earliest = moment + SECOND
    return found


# 2026-11-24 is a Tuesday.
@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 2 * * *", ["11-25 02:00", "11-26 02:00"]),
        ("15,45 13 * * *", ["11-24 13:15", "11-24 13:45", "11-25 13:15"]),
        ("*/20 12-13 * * *", ["11-24 12:00", "11-24 12:20", "11-24 12:40", "11-24 13:00"]),
        # Sunday is 0 and 7.
        ("0 2 * * SUN", ["11-29 02:00", "12-06 02:00"]),
        ("0 2 * * 0", ["11-29 02:00", "12-06 02:00"]),
        ("0 2 * * 7", ["11-29 02:00", "12-06 02:00"]),
        ("0 2 * * 1", ["11-30 02:00", "12-07 02:00"]),
        ("0 2 * * 5-7", ["11-27 02:00", "11-28 02:00", "11-29 02:00", "12-04 02:00"]),
        ("0 2 * * sat-sun", ["11-28 02:00", "11-29 02:00", "12-05 02:00"]),
        ("0 2 * * 0-6/3", ["11-25 02:00", "11-28 02:00", "11-29 02:00"]),
        ("0 2 * * */3", ["11-25 02:00", "11-28 02:00", "11-29 02:00"]),
        ("0 2 * * Mon,wed", ["11-25 02:00", "11-30 02:00", "12-02 02:00"]),
        # Where both days are restricted, either is enough; a star restricts nothing.
        ("0 2 1 * 5", ["11-27 02:00", "12-01 02:00", "12-04 02:00"]),
        ("0 2 */10 * 5", ["12-11 02:00"]),
        ("0 2 1 DEC *", ["12-01 02:00"]),
        ("\t0  2 1 12\t* ", ["12-01 02:00"]),
    ],
)
def test_a_line_means_what_crontab_says(cron, expected):
    assert starts(cron, "11-24 12:00", len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "field"),
    [
        ("0 2 * *", "five fields"),
        ("0 2 * * * *", "five fields"),
        ("@daily", "five fields"),
        ("", "five fields"),
        ("60 2 * * *", "no such minute"),
        ("*/0 2 * * *", "no such minute"),
        ("5/15 2 * * *", "no such minute"),
        ("-5 2 * * *", "no such minute"),
        ("0 24 * * *", "no such hour"),
        ("0 5-2 * * *", "no such hour"),
        ("0 2, * * *", "no such hour"),
        ("0 2 0 * *", "no such day of the month"),
        ("0 2 32 * *", "no such day of the month"),
        ("0 2 last * *", "no such day of the month"),
        ("0 2 2nd * *", "no such day of the month"),
        ("0 2 * 13 *", "no such month"),
        ("0 2 * mon *", "no such month"),
        ("0 2 * * 8", "no such day of the week"),
        ("0 2 * * fri-mon", "no such day of the week"),
        ("0 2 * * MON-", "no such day of the week"),
        ("0 2 * * SUN#2", "no such day of the week"),
        ("0 2 * * 0-99999999999", "no such day of the week"),
        ("0 ٢ * * *", "no such hour"),
    ],
)
def test_what_is_no_line_is_refused_with_the_field_and_without_a_quote(cron, field):
    with pytest.raises(ValueError, match=field) as caught:
        crontab_start(cron, "UTC", utc("11-24 12:00"))

    assert caught.value.__cause__ is None
    assert not cron or cron not in str(caught.value)


def test_a_day_that_no_year_has_never_begins_and_one_of_leap_years_does():
    assert crontab_start("0 0 31 2 *", "UTC", utc("11-24 12:00")) is None
    assert crontab_start("0 0 29 2 *", "UTC", utc("11-24 12:00")) == datetime(
        2028, 2, 29, tzinfo=UTC
    )


# --- the windows of a line

SUNDAYS = Recurring("0 2 * * SUN", 4 * 3600.0, "Europe/Berlin", "weekly")


@pytest.mark.parametrize(
    ("moment", "held"),
    [
        ("11-29 00:59:59.999999", False),
        ("11-29 01:00", True),
        ("11-29 01:00:30", True),
        ("11-29 04:59:59.999999", True),
        ("11-29 05:00", False),
        ("11-30 01:00", False),
        ("12-06 01:00", True),
    ],
)
def test_a_window_holds_from_its_first_moment_until_just_before_its_end(moment, held):
    found = in_force([SUNDAYS], utc(moment))

    assert (found is not None) is held
    if found:
        assert (found.until - found.begins, found.reason) == (4 * HOUR, "weekly")
        assert found.begins in {utc("11-29 01:00"), utc("12-06 01:00")}


def test_a_window_follows_the_clocks_of_its_zone():
    assert SUNDAYS.next(utc("07-01 00:00")).begins == utc("07-05 00:00")
    assert SUNDAYS.next(utc("12-01 00:00")).begins == utc("12-06 01:00")
    assert Recurring("0 2 * * SUN", 60.0).next(utc("07-01 00:00")).begins == utc("07-05 02:00")


# In Berlin 2:00 becomes 3:00 on 2026-03-29 at 01:00 UTC, and 3:00 becomes 2:00 on 10-25 at 01:00.
@pytest.mark.parametrize(
    ("cron", "hours", "day", "begins", "until"),
    [
        # The hour that is left out: when the clocks are put forward.
        ("0 2 * * *", 4, "03-29 00:00", "03-29 01:00", "03-29 05:00"),
        ("30 2 * * *", 4, "03-29 00:00", "03-29 01:00", "03-29 05:00"),
        ("*/20 2 * * *", 0.25, "03-29 00:00", "03-29 01:00", "03-29 01:15"),
        # Over the gap it lasts as long as ever, and so an hour more on the clocks.
        ("0 1 * * *", 4, "03-28 12:00", "03-29 00:00", "03-29 04:00"),
        ("0 3 * * *", 4, "03-29 00:00", "03-29 01:00", "03-29 05:00"),
        # The hour that comes twice: one window, from the first 2:00 until 6:00 by the clocks.
        ("0 2 * * *", 4, "10-25 00:00", "10-25 00:00", "10-25 05:00"),
        # One that is over before the hour comes again is there twice.
        ("0 2 * * *", 0.5, "10-25 00:00", "10-25 00:00", "10-25 00:30"),
        ("0 2 * * *", 0.5, "10-25 00:30", "10-25 01:00", "10-25 01:30"),
        ("0 1 * * *", 4, "10-24 12:00", "10-24 23:00", "10-25 03:00"),
    ],
)
def test_a_window_where_the_clocks_are_changed(cron, hours, day, begins, until):
    planned = Recurring(cron, hours * 3600.0, "Europe/Berlin")
    first = planned.next(utc(day))

    assert first.begins == utc(begins)
    assert in_force([planned], first.begins - SECOND) is None
    held = in_force([planned], first.begins)
    assert (held.begins, held.until) == (utc(begins), utc(until))
    assert in_force([planned], held.until - SECOND) is not None
    assert in_force([planned], held.until) is None


@given(
    seconds=st.integers(0, 366 * 86400),
    lasts=st.floats(1.0, 86399.0),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
)
def test_the_next_window_is_the_first_that_is_not_over(seconds, lasts, zone):
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    planned = Recurring("30 2 * * *", lasts, zone)
    window = planned.next(now)

    assert now < window.until == window.begins + timedelta(seconds=lasts)
    # None is passed over: from any moment on, the beginning before is over or is this one.
    before = crontab_start("30 2 * * *", zone, window.begins - timedelta(days=2))
    while before < window.begins:
        assert before + timedelta(seconds=lasts) <= now
        before = crontab_start("30 2 * * *", zone, before + SECOND)


# --- windows that happen once, and several of them

NOON = utc("11-24 12:00")
LATER = Window(NOON + 3 * HOUR, NOON + 2 * HOUR, "later")


@pytest.mark.parametrize(
    ("window", "held"),
    [
        (Window(NOON + HOUR), True),
        (Window(NOON + SECOND, NOON), True),
        (Window(NOON), False),
        (Window(NOON + HOUR, NOON + SECOND), False),
        (Window(NOON - HOUR, NOON - 2 * HOUR), False),
    ],
)
def test_a_window_that_happens_once(window, held):
    assert in_force([window], NOON) == (window if held else None)


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([], None),
        # The one that lasts longest tells its reason.
        (
            [Window(NOON + HOUR, None, "short"), Window(NOON + 2 * HOUR, NOON, "long")],
            Window(NOON + 2 * HOUR, NOON, "long"),
        ),
        # One that begins before the end, or at it, goes on from there.
        (
            [Window(NOON + 2 * HOUR, NOON, "first"), LATER],
            Window(NOON + 3 * HOUR, NOON, "first"),
        ),
        (
            [LATER, Window(NOON + 2.5 * HOUR, NOON, "first")],
            Window(NOON + 3 * HOUR, NOON, "first"),
        ),
        # One that begins a second after it does not.
        (
            [LATER, Window(NOON + 2 * HOUR - SECOND, NOON, "first")],
            Window(NOON + 2 * HOUR - SECOND, NOON, "first"),
        ),
        ([LATER], None),
    ],
)
def test_of_several_windows_the_end_of_the_last_in_a_row_counts(windows, expected):
    assert in_force(windows, NOON) == expected
    assert in_force(reversed(windows), NOON) == expected


def test_windows_that_take_turns_for_ever_have_an_end_that_is_told():
    turns = [Recurring("0 0 * * *", 43200.0), Recurring("0 12 * * *", 43200.0)]

    assert NOON + timedelta(days=7) < in_force(turns, NOON).until < NOON + timedelta(days=10)


def test_what_was_started_for_all_and_for_the_org_counts_and_for_another_org_does_not():
    fleet, emea, apac = Window(NOON), Window(NOON + HOUR), Window(NOON + 2 * HOUR)
    started = {EVERY_ORG: fleet, "emea": emea, "apac": apac}

    assert list(started_for("emea", started)) == [fleet, emea]
    assert list(started_for("apac", {"emea": emea})) == []
