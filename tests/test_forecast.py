"""The forecast: what will stop, when and for whom; and the calendar file that says so."""

import json
import os
import re
from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from making import HOST, NOW, at, chrome_client, chrome_server, hierarchy, make, world

from agent import offline
from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import Anchor, AnchorKind, Anchors
from agent.forecast import Event, Kind, after, as_json, forecast
from agent.icalendar import calendar
from agent.known import known
from agent.org import (
    ClientIdentity,
    Endpoint,
    FromFile,
    FromVariable,
    Org,
    PasswordCredentials,
    Suppression,
)
from agent.policy.rule import Evidence, Severity, Side
from agent.policy.tables import shipped_tables

GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"
TABLES = shipped_tables()
EARLY = at("2026-01-10")  # before most dates of the tables


def coming(*wanted, now=NOW, months=12, anchors=None):
    given = [replace(one, anchors=anchors) for one in wanted] if anchors else wanted
    return forecast(given, now, months)


def bare(org="emea", **differently):
    wanted = {"now": NOW, "tables": TABLES, "anchors": world().anchors}
    return Evidence(org=org, **(wanted | differently))


def subject(org="emea", **differently):
    w = world()
    wanted = {"client_chain": w.client_chain, "server_chain": w.server_chain, "host": HOST}
    return bare(org, **(wanted | differently))


def named(events, name):
    return [event for event in events if event.name == name]


# --- certificates --------------------------------------------------------------------------------


def test_a_sound_org_has_its_renewal_and_the_ends_of_its_leaves_within_the_year():
    events = coming(subject())

    assert [(e.name, e.side, f"{e.date:%Y-%m-%d}") for e in events] == [
        ("renewal_due", Side.CLIENT, "2027-01-23"),
        ("expired", Side.CLIENT, "2027-03-24"),
        ("expired", Side.SERVER, "2027-03-24"),
    ]


def test_every_certificate_of_both_chains_ends_and_so_do_the_roots_they_need():
    w = world()

    ends = {e.fingerprint for e in named(coming(subject(), months=120), "expired")}

    chains = (*w.client_chain, w.clients.root.facts, *w.server_chain, w.servers.root.facts)
    assert ends == {certificate.fingerprint_sha256 for certificate in chains}


def test_an_authority_that_ends_before_its_leaf_takes_the_chain_with_it():
    w = world()
    short = make("Short", w.clients.root, ca=True, not_after=NOW + timedelta(days=50))
    leaf = make("x.example.com", short, eku=(CLIENT_AUTH,), names=("x.example.com",))

    causes = [e.cause for e in coming(subject(client_chain=(leaf.facts, short.facts)))]

    assert (
        "CN=Short above the client certificate CN=x.example.com expires, and the chain with it, "
        "although its leaf would run longer." in causes
    )
    assert not any("with it" in event.cause for event in coming(subject()))


def test_an_authority_that_another_path_avoids_takes_nothing_with_it():
    w = world()
    key = make("Twin key", ca=True).key
    short = make("Twin", w.clients.root, ca=True, key=key, not_after=NOW + timedelta(days=50))
    long = make("Twin", w.servers.root, ca=True, key=key)
    leaf = make("x.example.com", long, eku=(CLIENT_AUTH,), names=("x.example.com",))

    events = coming(subject(client_chain=(leaf.facts, short.facts, long.facts)))

    (end,) = (e for e in events if e.fingerprint == short.facts.fingerprint_sha256)
    assert end.cause == "CN=Twin in the client chain expires."


def test_what_has_expired_is_overdue_and_not_to_be_renewed_any_more():
    chain = world().clients.chain(not_after=NOW - timedelta(days=3))

    events = coming(subject(client_chain=chain, server_chain=None))

    assert [(e.name, e.date) for e in events] == [("expired", NOW - timedelta(days=3))]
    assert as_json(events, NOW)[0]["overdue"] is True


def test_a_renewal_that_is_due_is_overdue():
    chain = world().clients.chain(
        not_before=NOW - timedelta(days=70), not_after=NOW + timedelta(days=30)
    )

    (renewal,) = named(coming(subject(client_chain=chain)), "renewal_due")

    assert renewal.date < NOW
    assert as_json([renewal], NOW)[0]["overdue"] is True


def test_a_certificate_for_ever_never_ends():
    chain = world().clients.chain(not_after=at("9999-12-31T23:59:59"))

    events = coming(subject(client_chain=chain, server_chain=None), months=600)

    assert chain[0].fingerprint_sha256 not in {event.fingerprint for event in events}


def test_chains_that_were_never_seen_have_no_events():
    assert coming(subject(client_chain=None, server_chain=None)) == ()
    assert [e.side for e in coming(subject(client_chain=None))] == ["server"]
    assert {e.side for e in coming(subject(server_chain=None))} == {"client"}


# --- deadlines -----------------------------------------------------------------------------------


def digicert():
    """Return a hierarchy of an authority with a known cut-off, and roots with it on the list."""
    found = hierarchy("Digi", "DigiCert Inc", (CLIENT_AUTH, SERVER_AUTH))
    listed = Anchor(found.root.facts, AnchorKind.CHROME, at("2027-09-14"))
    return found, Anchors([listed, Anchor(world().servers.root.facts, AnchorKind.PRIVATE)])


def test_the_end_of_client_auth_at_the_authority_is_announced():
    authority, anchors = digicert()

    events = coming(subject(client_chain=authority.chain()), anchors=anchors)

    (cutoff,) = named(events, "client_auth_cutoff")
    assert (cutoff.date, cutoff.kind) == (at("2027-03-01"), Kind.DEADLINE)
    assert cutoff.cause.startswith("DigiCert stops to issue clientAuth")
    assert cutoff.reference.startswith("https://knowledge.digicert.com/")
    assert named(events, "renewal_due")
    assert not named(coming(subject()), "client_auth_cutoff")


def test_a_renewal_after_the_cut_off_will_not_help():
    authority, anchors = digicert()
    chain = authority.chain(not_after=NOW + timedelta(days=300))

    events = coming(subject(client_chain=chain), anchors=anchors)

    (renewal,) = (event for event in events if event.kind is Kind.RENEWAL)
    assert renewal.name == "clientauth_not_renewable"
    assert renewal.severity is Severity.CRITICAL
    assert "issues no clientAuth since 2027-03-01" in renewal.cause


def test_a_cut_off_in_the_past_is_told_by_the_renewal_alone():
    authority, anchors = digicert()
    now = at("2027-03-02")

    events = coming(subject(client_chain=authority.chain()), anchors=anchors, now=now)

    assert not named(events, "client_auth_cutoff")


def test_the_phase_out_of_the_servers_root_is_announced():
    authority, anchors = digicert()
    chain = authority.chain(HOST, eku=(SERVER_AUTH,))

    (end,) = named(
        coming(subject(client_chain=None, server_chain=chain), anchors=anchors),
        "server_root_phase_out",
    )

    assert end.date == at("2027-09-14")
    assert "O=DigiCert Inc,CN=Digi Root" in end.cause


def test_the_ends_of_soap_login_and_of_an_api_version_are_announced():
    events = coming(
        bare("emea", api_version="35.0", soap_login=True),
        bare("apac", api_version="64.0"),
        months=24,
    )

    assert [(e.name, f"{e.date:%Y-%m-%d}", e.orgs) for e in events] == [
        ("soap_login_retirement", "2027-06-01", ("emea",)),
        ("api_version_deprecation", "2027-06-01", ("emea",)),
        ("api_version_removal", "2028-06-01", ("emea",)),
    ]
    assert events[2].cause == "API version 35.0 answers no more."
    assert all(event.reference.startswith("https://help.salesforce.com/") for event in events)


def test_an_api_version_that_is_gone_is_overdue_and_its_deprecation_is_history():
    (gone,) = coming(bare("emea", api_version="25.0"))

    assert (gone.name, gone.date) == ("api_version_removal", at("2025-06-01"))


# --- policies ------------------------------------------------------------------------------------


def test_a_shared_root_becomes_a_violation_on_the_day_of_the_profile():
    w = world()
    shared = subject(client_chain=chrome_client(w), server_chain=chrome_server(w, w.chrome))

    before = named(coming(shared, now=EARLY), "shared_public_root")
    afterwards = named(coming(shared), "shared_public_root")
    apart = coming(subject(client_chain=chrome_client(w)), now=EARLY)

    assert [(e.date, e.severity, e.kind) for e in before] == [
        (at("2026-06-15"), Severity.CRITICAL, Kind.POLICY)
    ]
    assert (
        before[0].remedy
        == "Get the client certificate from a hierarchy that the server does not use."
    )
    assert afterwards == []
    assert named(apart, "shared_public_root") == []


def test_a_leaf_for_clients_and_servers_becomes_a_violation_on_the_day_of_the_profile():
    chain = chrome_client(world(), eku=(CLIENT_AUTH, SERVER_AUTH))

    def days(profile):
        events = coming(subject(client_chain=chain, profile=profile), now=EARLY, months=24)
        return [f"{event.date:%Y-%m-%d}" for event in named(events, "eku_dual")]

    assert days("salesforce") == ["2026-06-15"]
    # Of this profile the issuing day counts, and that does not change.
    assert days("chrome-1.8") == []


def test_a_finding_comes_back_when_its_suppression_ends():
    chain = world().clients.chain(aki=None)
    until = NOW + timedelta(days=20)
    known = Suppression("aki_ski_problem", until, "known")

    events = coming(subject(client_chain=chain, suppressions=(known,)))

    assert [event.date for event in named(events, "aki_ski_problem")] == [until]
    assert not named(coming(subject(client_chain=chain)), "aki_ski_problem")


# --- many orgs -----------------------------------------------------------------------------------


def test_what_is_the_same_for_several_orgs_is_said_once():
    own = world().clients.chain("other.example.com")

    events = coming(subject("b"), subject("a"), subject("c", client_chain=own))

    assert {(e.name, e.side, e.orgs) for e in events} == {
        ("renewal_due", "client", ("a", "b")),
        ("renewal_due", "client", ("c",)),
        ("expired", "client", ("a", "b")),
        ("expired", "client", ("c",)),
        ("expired", "server", ("a", "b", "c")),
    }


def test_an_orgs_own_roots_count_for_it_alone():
    w = world()
    chains = {"client_chain": chrome_client(w), "server_chain": chrome_server(w, w.chrome)}

    events = coming(
        subject("own", **chains), subject("none", **chains, anchors=Anchors([])), now=EARLY
    )

    assert [e.orgs for e in named(events, "shared_public_root")] == [("own",)]


def test_events_come_in_the_order_of_their_dates():
    events = coming(subject(soap_login=True, api_version="35.0"), months=240)

    assert [event.date for event in events] == sorted(event.date for event in events)
    assert len(events) > 8


@given(st.integers(1, 120), st.integers(1, 120))
def test_a_longer_forecast_says_all_that_a_shorter_one_says(one, other):
    shorter, longer = sorted((one, other))
    wanted = subject(soap_login=True, api_version="35.0")

    short = coming(wanted, months=shorter, now=EARLY)

    assert set(short) <= set(coming(wanted, months=longer, now=EARLY))
    assert all(event.date <= after(EARLY, shorter) for event in short)


@given(st.integers(0, 100))
def test_an_event_is_the_same_event_until_it_comes(days):
    now = EARLY + timedelta(days=days)
    w = world()
    shared = subject(client_chain=chrome_client(w), server_chain=chrome_server(w, w.chrome))

    first = {e.uid for e in coming(shared, now=EARLY, months=24)}
    later = {e.uid for e in coming(shared, subject("other", soap_login=True), now=now, months=24)}

    assert first <= later


def test_every_event_has_a_uid_of_its_own():
    events = coming(subject(soap_login=True, api_version="35.0"), subject("b"), months=240)

    assert max(Counter(event.uid for event in events).values()) == 1


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2026-11-24", 1, "2026-12-24"),
        ("2026-11-24", 14, "2028-01-24"),
        ("2027-01-31", 1, "2027-02-28"),
        ("2027-08-31", 6, "2028-02-29"),
    ],
)
def test_months_are_those_of_the_calendar(start, months, end):
    assert after(at(start), months) == at(end)


def test_a_forecast_for_ever_ends_with_the_calendar():
    assert after(NOW, 10**6).year == 9999


# --- the command ---------------------------------------------------------------------------------


def shown(*wanted, problems=(), **differently):
    arguments = {
        "months": 12,
        "as_json": False,
        "ics": None,
        "now": NOW,
    }
    return offline.show_forecast(wanted, problems, **(arguments | differently))


@cache
def a_fleet():
    w = world()
    old = w.clients.chain("old.example.com", not_after=NOW - timedelta(days=3))
    return (
        subject("emea", soap_login=True, api_version="35.0"),
        subject("apac", soap_login=True),
        subject("old", client_chain=old, server_chain=None),
    )


def test_the_text_of_a_forecast_is_the_golden_one(capsys):
    golden = GOLDEN / "forecast.txt"

    assert shown(*a_fleet()) == 0

    text = capsys.readouterr().out
    if UPDATE:
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_the_json_of_a_forecast_is_made_of_its_events(capsys):

    assert shown(*a_fleet(), as_json=True) == 0

    rows = json.loads(capsys.readouterr().out)
    assert [row["uid"] for row in rows] == [event.uid for event in coming(*a_fleet())]
    assert list(rows[0]) == [
        "date",
        "overdue",
        "kind",
        "name",
        "severity",
        "side",
        "orgs",
        "fingerprint",
        "cause",
        "remedy",
        "reference",
        "uid",
    ]
    assert [row["overdue"] for row in rows] == [True] + [False] * (len(rows) - 1)


def test_an_org_that_cannot_be_read_is_told_and_the_others_are_forecast(capsys):
    assert shown(subject(), problems=("apac: no such file",)) == 1

    captured = capsys.readouterr()
    assert captured.err == "apac: no such file\n"
    assert "renewal_due" in captured.out


def test_a_calendar_that_cannot_be_written_is_a_failure(tmp_path, capsys):
    assert shown(subject(), ics=tmp_path / "absent" / "forecast.ics") == 1
    assert "forecast.ics: No such file or directory" in capsys.readouterr().err


# --- the calendar file ---------------------------------------------------------------------------

TEXT_PROPERTIES = {"SUMMARY", "DESCRIPTION"}


def content_lines(octets):
    """Yield name, parameters and value of each content line, as strictly as RFC 5545 §3.1."""
    assert octets.endswith(b"\r\n")
    physical = octets[:-2].split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in physical)
    assert max(map(len, physical)) <= 75
    unfolded = []
    for line in physical:
        text = line.decode()  # no character is cut in two
        if text.startswith(" "):
            unfolded[-1] += text[1:]
        else:
            unfolded.append(text)
    for line in unfolded:
        head, colon, value = line.partition(":")
        assert colon, line
        name, *parameters = head.split(";")
        assert re.fullmatch(r"[A-Z-]+", name), line
        yield name, tuple(parameters), value


def unescaped(value):
    """Return a TEXT value as it was meant; it may hold no bare special character (§3.3.11)."""
    assert re.fullmatch(r"(?:[^\\;,\x00-\x1f\x7f]|\\[\\;,nN])*", value), value
    meanings = {"n": "\n", "N": "\n"}
    return re.sub(r"\\(.)", lambda found: meanings.get(found[1], found[1]), value)


def parsed(octets):
    """Return the properties of the calendar and a mapping for each event."""
    lines = list(content_lines(octets))
    assert lines[0] == ("BEGIN", (), "VCALENDAR")
    assert lines[-1] == ("END", (), "VCALENDAR")
    head, events, current = {}, [], None
    for name, parameters, value in lines[1:-1]:
        if (name, value) == ("BEGIN", "VEVENT"):
            assert current is None
            current = {}
        elif (name, value) == ("END", "VEVENT"):
            events.append(current)
            current = None
        else:
            into = head if current is None else current
            assert name not in into, name
            assert parameters == (("VALUE=DATE",) if name == "DTSTART" else ())
            into[name] = unescaped(value) if name in TEXT_PROPERTIES else value
    assert current is None
    assert (head["VERSION"], head["CALSCALE"]) == ("2.0", "GREGORIAN")
    assert head["PRODID"]
    for event in events:
        assert {"UID", "DTSTAMP", "DTSTART", "SUMMARY"} <= event.keys()
        datetime.strptime(event["DTSTAMP"], "%Y%m%dT%H%M%S%z")
    return head, events


def day(event):
    return date.fromisoformat(event["DTSTART"])


def test_the_calendar_file_holds_every_event_on_its_day(tmp_path):
    ics = tmp_path / "forecast.ics"

    assert shown(*a_fleet(), ics=ics) == 0

    _, rows = parsed(ics.read_bytes())
    events = coming(*a_fleet())
    assert [(row["UID"], day(row)) for row in rows] == [
        (f"{event.uid}@sfmtls-agent", event.date.date()) for event in events
    ]
    assert all(event.remedy in row["DESCRIPTION"] for row, event in zip(rows, events, strict=True))
    assert {row["DTSTAMP"] for row in rows} == {"20261124T120000Z"}


def test_a_calendar_without_events_is_a_calendar():
    assert parsed(calendar((), NOW))[1] == []


def an_event(**differently):
    wanted = {
        "date": at("2027-03-01"),
        "kind": Kind.EXPIRY,
        "name": "expired",
        "severity": Severity.CRITICAL,
        "side": Side.CLIENT,
        "fingerprint": None,
        "cause": "It ends.",
        "remedy": "Renew it.",
        "reference": "-",
        "orgs": ("emea",),
    }
    return Event(**(wanted | differently))


def test_a_title_names_the_orgs_and_the_cause():
    event = an_event(orgs=("a", "b", "c", "d", "e"))

    assert parsed(calendar([event], NOW))[1][0]["SUMMARY"] == "a, b, c and 2 more: It ends"


def test_a_day_is_that_of_utc_and_has_four_digits_of_year():
    local = datetime.fromisoformat("2027-03-01T23:30:00-05:00")

    rows = parsed(calendar([an_event(date=local), an_event(date=at("0999-01-01"))], NOW))[1]

    assert [row["DTSTART"] for row in rows] == ["20270302", "09990101"]


@given(st.text(), st.text(), st.lists(st.text(), min_size=1, max_size=5))
def test_no_text_breaks_out_of_the_calendar(cause, remedy, orgs):
    event = an_event(cause=cause, remedy=remedy, orgs=tuple(orgs))

    _, (row,) = parsed(calendar([event], NOW))

    shown_cause = "".join(c if c.isprintable() or c == "\n" else "?" for c in cause)
    assert row["DESCRIPTION"].startswith(shown_cause)


# --- from the configuration ----------------------------------------------------------------------


def org(name, path, **differently):
    identity = ClientIdentity(FromFile(str(path)), FromFile(str(path)))
    return Org(name, Endpoint(HOST), identity, **differently)


def test_configured_orgs_become_evidence_and_what_cannot_be_read_is_named(tmp_path):
    w = world()
    leaf = w.clients.leaf()
    path = tmp_path / "identity.pem"
    path.write_bytes(
        leaf.pem
        + w.clients.intermediate.pem
        + leaf.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
    login = PasswordCredentials("ada@example.com", FromVariable("PASSWORD"))

    found, problems = known(
        [org("emea", path, login=login), org("apac", tmp_path / "absent.pem", api_version="35.0")],
        {"emea": w.server_chain},
        TABLES,
        {},
    )

    emea, apac = found
    assert (emea.client_chain, emea.server_chain) == (
        (leaf.facts, w.clients.intermediate.facts),
        w.server_chain,
    )
    assert (emea.soap_login, apac.soap_login) == (True, False)
    assert (apac.client_chain, apac.server_chain, apac.api_version) == (None, None, "35.0")
    assert len(problems) == 1
    assert problems[0].startswith("apac: ")
    assert "absent.pem" in problems[0]


def test_the_name_that_the_server_must_carry_is_taken_along(tmp_path):
    plain = org("emea", tmp_path / "absent.pem")
    renamed = replace(plain, endpoint=Endpoint(HOST, 443, server_name="other.example.com"))

    ((found,), _) = known([renamed], {}, TABLES, {})

    assert (found.host, found.port, found.server_name) == (HOST, 443, "other.example.com")
