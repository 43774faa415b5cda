"""Dates are data: profiles, deadlines, the validity schedule, thresholds, and what is shipped."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from importlib.metadata import version

import pytest
from making import HOST, NOW, REVOCABLE, at, chrome_client, chrome_server, world
from test_lookalikes import salesforce_and_digicert

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import AnchorKind, read_chain
from agent.policy import Severity, Side, deadlines, evaluate
from agent.policy.deadline import DEADLINES
from agent.policy.rule import Thresholds
from agent.policy.tables import (
    ChromeList,
    read_chrome_list,
    read_tables,
    shipped_anchors,
    shipped_tables,
    with_chrome_list,
)
from agent.policy.validity import expiry_notice, renewal_moment

BOTH = (CLIENT_AUTH, SERVER_AUTH)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def severities(evidence, rule):
    return [v.severity.value for v in evaluate(evidence).violations if v.rule == rule]


# --- the five clientAuth cases: authority, clients only, servers only, both before, both after


@pytest.mark.parametrize(
    ("usage", "issued", "expected"),
    [
        ((CLIENT_AUTH,), "2027-03-15", ["critical"]),  # lacks serverAuth, whenever it was issued
        ((SERVER_AUTH,), "2027-03-15", []),
        (BOTH, "2027-03-14T23:59:59", ["info"]),
        (BOTH, "2027-03-15", ["critical"]),
    ],
)
def test_a_public_server_leaf_may_assert_client_auth_only_if_issued_before_the_day(
    usage, issued, expected
):
    begin = at(issued)
    chain = chrome_server(
        world(), eku=usage, not_before=begin, not_after=begin + 90 * DAY, extensions=(REVOCABLE,)
    )

    assert severities(world().evidence(now=begin, server_chain=chain), "server_eku") == expected


def test_an_authority_may_assert_both_purposes_whenever_it_was_issued():
    chain = chrome_server(world(), world().chrome)
    now = at("2027-04-15")

    assert severities(world().evidence(now=now, server_chain=chain), "server_eku") == []


@pytest.mark.parametrize(
    ("profile", "issued", "now", "expected"),
    [
        ("salesforce", "2026-06-01", "2026-06-14T23:59:59", ["warning"]),
        ("salesforce", "2026-06-01", "2026-06-15", ["critical"]),
        ("chrome-1.8", "2026-06-01", "2026-06-15", ["warning"]),
        ("chrome-1.8", "2027-03-14T23:59:59", "2027-04-01", ["warning"]),
        ("chrome-1.8", "2027-03-15", "2027-04-01", ["critical"]),
    ],
)
@pytest.mark.parametrize("rule", ["eku_dual", "shared_public_root"])
def test_a_profile_says_from_when_on_hierarchies_must_be_separate(
    rule, profile, issued, now, expected
):
    w = world()
    begin = at(issued)
    evidence = w.evidence(
        now=at(now),
        profile=profile,
        client_chain=chrome_client(w, eku=BOTH, not_before=begin, not_after=begin + 90 * DAY),
        server_chain=chrome_server(w, w.chrome),
    )

    assert severities(evidence, rule) == expected


def test_a_certificate_for_both_under_a_private_root_is_a_warning_in_every_profile():
    w = world()
    chain = w.clients.chain(eku=BOTH)

    for profile in shipped_tables().profiles:
        evidence = w.evidence(profile=profile, client_chain=chain)
        assert severities(evidence, "eku_dual") == ["warning"]


def test_another_date_in_the_table_gives_another_judgement():
    w = world()
    tables = shipped_tables()
    profile = tables.profiles["salesforce"]
    later = replace(profile.separate_hierarchies, date=NOW + DAY)
    postponed = replace(
        tables, profiles={"salesforce": replace(profile, separate_hierarchies=later)}
    )
    evidence = w.evidence(client_chain=chrome_client(w, eku=BOTH))

    assert severities(evidence, "eku_dual") == ["critical"]
    assert severities(replace(evidence, tables=postponed), "eku_dual") == ["warning"]


def test_a_finding_says_from_when_on_it_bites():
    w = world()
    violations = evaluate(w.evidence(client_chain=chrome_client(w, eku=BOTH))).violations

    bites = {v.rule: v.bites_from for v in violations}
    assert bites == {
        "eku_dual": at("2026-06-15"),
        "client_root_in_chrome_list": at("2027-03-15"),
    }


# --- the validity schedule: first and last moment of each limit, and odd ones

REGIMES = [
    ("2020-09-01T00:00:00", "2026-03-14T23:59:59", 398),
    ("2026-03-15T00:00:00", "2027-03-14T23:59:59", 200),
    ("2027-03-15T00:00:00", "2029-03-14T23:59:59", 100),
    ("2029-03-15T00:00:00", "2031-12-31T23:59:59", 47),
]
BOUNDARIES = [
    (begin, length, too_long)
    for first, last, days in REGIMES
    for begin in (first, last)
    for length, too_long in (
        ((days - 1) * DAY, False),
        (days * DAY - SECOND, False),
        (days * DAY, True),  # both ends count, so this is a second more
        ((days + 1) * DAY, True),
    )
] + [
    ("2020-08-31T23:59:59", 825 * DAY, False),  # before the first limit that we know
    ("2026-03-15T00:00:00", 398 * DAY - SECOND, True),
    ("2027-03-15T00:00:00", 200 * DAY - SECOND, True),
    ("2029-03-15T00:00:00", 100 * DAY - SECOND, True),
    ("2028-01-01T00:00:00", 100 * DAY - SECOND, False),  # over a leap day
    ("2028-01-01T00:00:00", 100 * DAY, True),
    ("2030-01-01T00:00:00", timedelta(hours=160), False),
]


def test_there_are_thirty_nine_boundaries():
    assert len(BOUNDARIES) == 39


@pytest.mark.parametrize(("begin", "length", "too_long"), BOUNDARIES)
def test_public_certificates_may_be_valid_as_long_as_the_schedule_says(begin, length, too_long):
    w = world()
    leaf, intermediate = chrome_server(w)
    dated = replace(leaf, not_before=at(begin), not_after=at(begin) + length)
    evidence = w.evidence(now=at(begin) + DAY, server_chain=(dated, intermediate))

    assert severities(evidence, "validity_too_long") == (["critical"] if too_long else [])


# --- thresholds

NOTICES = [
    # lifetime, renewal due, warning, critical for a server, critical for a client; days left
    (398, 398 / 3, 30, 7, 14),
    (200, 200 / 3, 30, 7, 14),
    (100, 100 / 3, 25, 7, 14),
    (90, 30, 22.5, 7, 14),
    (47, 47 / 3, 11.75, 4.7, 9.4),
    (160 / 24, 80 / 24, 40 / 24, 16 / 24, 32 / 24),
]


@pytest.mark.parametrize(("lifetime", "due", "warning", "server", "client"), NOTICES)
def test_notice_periods_are_fractions_of_the_lifetime_with_caps(
    lifetime, due, warning, server, client
):
    leaf = replace(
        world().client_chain[0], not_before=NOW, not_after=NOW + timedelta(days=lifetime)
    )

    def left(moment: datetime) -> float:
        return (leaf.not_after - moment) / DAY

    def notice(side: Side) -> list[float]:
        return [period / DAY for period in expiry_notice(leaf, side, Thresholds())]

    assert left(renewal_moment(leaf)) == pytest.approx(due)
    assert notice(Side.SERVER) == pytest.approx([warning, server])
    assert notice(Side.CLIENT) == pytest.approx([warning, client])


def test_the_operator_may_set_other_notice_periods():
    w = world()
    own = Thresholds(expiry_warning=130 * DAY, expiry_critical=121 * DAY)

    assert severities(w.evidence(), "expiring") == []
    assert severities(w.evidence(thresholds=own), "expiring") == ["critical", "critical"]
    assert severities(w.evidence(thresholds=replace(own, expiry_critical=DAY)), "expiring") == [
        "warning",
        "warning",
    ]


@pytest.mark.parametrize(
    ("given", "notice"),
    [
        ({}, (30, 14)),
        ({"expiry_warning": 7 * DAY}, (7, 3.5)),
        ({"expiry_warning": 60 * DAY}, (60, 14)),
        ({"expiry_critical": 60 * DAY}, (120, 60)),
        ({"expiry_critical": 3 * DAY}, (30, 3)),
        ({"expiry_warning": 10 * DAY, "expiry_critical": 9 * DAY}, (10, 9)),
    ],
)
def test_one_notice_period_alone_leaves_a_warning_before_it_is_critical(given, notice):
    leaf = replace(world().client_chain[0], not_before=NOW, not_after=NOW + 398 * DAY)

    found = expiry_notice(leaf, Side.CLIENT, Thresholds(**given))

    assert [period / DAY for period in found] == list(notice)


def test_time_passing_never_undoes_an_expiry():
    w = world()
    evidence = w.evidence()
    ranks = []
    for day in range(-1, 200, 3):
        found = evaluate(replace(evidence, now=NOW + day * DAY)).violations
        of_leaf = [
            v.severity.rank
            for v in found
            if v.rule in {"renewal_due", "expiring", "expired"} and v.side is Side.CLIENT
        ]
        ranks.append(max(of_leaf, default=-1))

    assert ranks == sorted(ranks)
    assert set(ranks) == {-1, 0, 1, 2}


# --- deadlines


def test_deadlines_are_those_that_concern_the_org():
    w = world()

    assert deadlines(w.evidence()) == {}
    assert deadlines(w.evidence(soap_login=True, api_version="31.0")) == {
        "soap_login_retirement": at("2027-06-01"),
        "api_version_deprecation": at("2027-06-01"),
        "api_version_removal": at("2028-06-01"),
    }


def test_every_deadline_has_a_meaning():
    found = deadlines(salesforce_and_digicert())

    assert set(found) == {"client_auth_cutoff", "server_root_phase_out"}
    assert found["client_auth_cutoff"] == at("2027-03-01")
    assert found["server_root_phase_out"].date().isoformat() == "2027-09-14"
    assert set(found) <= set(DEADLINES)
    assert set(deadlines(world().evidence(soap_login=True, api_version="31.0"))) <= set(DEADLINES)


def test_an_authority_that_stops_client_auth_is_no_deadline_for_a_certificate_without_it():
    evidence = salesforce_and_digicert()
    leaf, intermediate = evidence.client_chain
    without = (replace(leaf, extended_key_usage=frozenset({SERVER_AUTH})), intermediate)

    assert "client_auth_cutoff" in deadlines(evidence)
    assert "client_auth_cutoff" not in deadlines(replace(evidence, client_chain=without))


def test_what_was_not_seen_has_no_deadline():
    assert deadlines(world().evidence(client_chain=None, server_chain=None)) == {}


@pytest.mark.parametrize("version", ["41.0", "64.0", "6.0", "", "v51.0"])
def test_an_api_version_that_no_table_names_has_no_end(version):
    assert deadlines(world().evidence(api_version=version)) == {}


# --- what is shipped


def test_every_date_names_its_source():
    tables = shipped_tables()

    for dated in (
        *tables.dates.values(),
        *tables.api_versions,
        *tables.validity,
        *tables.client_auth_cutoffs,
    ):
        assert "http" in dated.source or "§" in dated.source or "Salesforce" in dated.source
    assert set(tables.profiles) == {"salesforce", "chrome-1.8"}


def test_two_dates_of_one_id_are_refused():
    data = resources.files("agent") / "data"
    text, roots = ((data / name).read_text() for name in ("policy.toml", "chrome_roots.tsv"))
    first = text[text.index("[[dates]]") : text.index("[[dates]]", text.index("[[dates]]") + 1)]

    read_tables(text, roots)
    with pytest.raises(ValueError, match="two policy dates have one id"):
        read_tables(text + "\n" + first, roots)


def test_chromes_hundred_roots_are_shipped_with_their_constraints():
    anchors = shipped_anchors()
    roots = {
        name: anchors.named(name)
        for name in (
            "CN=DigiCert Global Root G2,OU=www.digicert.com,O=DigiCert Inc,C=US",
            "CN=ISRG Root X1,O=Internet Security Research Group,C=US",
        )
    }

    found = [anchors.anchor(certificate) for (certificate,) in roots.values()]

    assert [anchor.kind for anchor in found] == [AnchorKind.CHROME, AnchorKind.CHROME]
    assert found[0].sct_not_after is not None
    assert found[0].sct_not_after.date().isoformat() == "2027-09-14"
    assert found[1].sct_not_after is None


def test_the_shipped_lists_hold_what_they_say():
    anchors = shipped_anchors()
    kinds = [
        anchors.anchor(anchor).kind for name in anchors.names for anchor in anchors.named(name)
    ]

    assert kinds.count(AnchorKind.CHROME) == 100
    assert kinds.count(AnchorKind.PUBLIC) > 10
    assert AnchorKind.PRIVATE not in kinds


def test_the_table_and_the_certificates_of_chromes_list_are_the_same_roots():
    data = resources.files("agent") / "data"
    table = (data / "chrome_roots.tsv").read_text().splitlines()
    rows = {line.split("\t")[1] for line in table if line[0].isdigit()}
    certificates = read_chain((data / "chrome_roots.pem").read_bytes())

    assert {found.fingerprint_sha256 for found in certificates.certificates} == rows
    assert certificates.problems == ()
    assert len(rows) == 100
    assert shipped_tables().trust_list_source.startswith("Debian chromium ")
    assert shipped_tables().trust_list_as_of == at("2026-11-02")


def test_the_operators_own_roots_are_private_unless_a_public_list_has_them():
    w = world()
    (listed,) = shipped_anchors().named("CN=ISRG Root X1,O=Internet Security Research Group,C=US")
    anchors = shipped_anchors([w.clients.root.facts, listed])

    assert anchors.anchor(w.clients.root.facts).kind is AnchorKind.PRIVATE
    assert w.clients.root.facts in anchors
    assert anchors.anchor(listed).kind is AnchorKind.CHROME


# --- a list of the operator's own

G2 = "cb3ccbb76031e5e0138f8dd39a23f9de47ffc35e43c1144cea27d46a5ab1cb5f"  # DigiCert Global Root G2
X1 = "96bcec06264976f37460779acf28c5a7cfe8a3c0aae11a8ffcee05c0bddf08c6"  # ISRG Root X1
NOWHERE = "00" * 32
NAMES = {
    G2: "CN=DigiCert Global Root G2,OU=www.digicert.com,O=DigiCert Inc,C=US",
    X1: "CN=ISRG Root X1,O=Internet Security Research Group,C=US",
}

MARKDOWN = f"""\
<!-- mdformat off(generated) -->
# Chrome Root Store
Version: 41

[TOC]

## Trusted Roots
SHA 256 Hash | Subject | NotBefore | NotAfter
---|---|---|---
{X1} | {NAMES[X1]} | 2015-06-04 | 2035-06-04
{NOWHERE} | CN=Nowhere,O=Trust\\, Inc.,C=XX | 2026-01-01 | 2041-01-01
## Constrained Roots
To learn more about constraints, click [here](https://chromium.googlesource.com/).

SHA 256 Hash | Subject | NotBefore | NotAfter
---|---|---|---
{G2} | {NAMES[G2]} | 2013-08-01 | 2038-01-15
"""
TEXTPROTO = f"""\
# Chrome Root Store.
version_major: 41

# {NAMES[X1]}
trust_anchors {{
  sha256_hex: "{X1}"
  crs_root_id: 32
}}

trust_anchors {{
  sha256_hex: "{G2}"
  ev_policy_oids: "2.23.140.1.1"
  constraints: {{
    sct_not_after_sec: 1820966399
    min_version: "153.0.8010.0"
  }}
  constraints: {{
    max_version_exclusive: "153.0.8010.0"
  }}
}}

trust_anchors {{
  sha256_hex: "{NOWHERE}"
}}

additional_certs {{
  sha256_hex: "{"11" * 32}"
  tls_trust_anchor: true
}}
"""
TABLE = f"""\
# Chrome Root Store: the roots that Chrome trusts for TLS
# source: a newer chromium
# as of: 2027-02-01
sha256_cert\tsct_not_after
{X1}\t
{G2}\t2027-09-14T23:59:59Z
{NOWHERE}\t
"""


@pytest.mark.parametrize(
    ("text", "source", "as_of"),
    [
        (MARKDOWN, "Chrome Root Store version 41", None),
        (TEXTPROTO, "Chrome Root Store version 41", None),
        (TABLE, "a newer chromium", at("2027-02-01")),
    ],
    ids=["root_store.md", "root_store.textproto", "chrome_roots.tsv"],
)
def test_a_list_of_the_operators_own_is_read_in_any_of_its_forms(text, source, as_of):
    listed = read_chrome_list(text)

    assert listed.roots == {X1: None, G2: at("2027-09-14T23:59:59"), NOWHERE: None}
    assert (listed.source, listed.as_of) == (source, as_of)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[trust]\n",
        MARKDOWN.replace(" | ", " "),
        TEXTPROTO.replace("trust_anchors", "additional_certs"),
        TEXTPROTO.replace("1820966399", "1820966399" * 3),
        TABLE.replace("sct_not_after", "another column"),
        TABLE.replace("2027-02-01", "a Monday"),
    ],
)
def test_what_is_no_list_of_chromes_roots_is_refused(text):
    with pytest.raises(ValueError, match="not a list of Chrome's roots"):
        read_chrome_list(text)


def test_a_list_of_the_operators_own_says_which_roots_are_on_chromes():
    w = world()
    own = w.clients.root.facts
    listed = ChromeList({X1: None, own.fingerprint_sha256: NOW, NOWHERE: None}, "ours")

    anchors = shipped_anchors([own, w.servers.root.facts], listed)

    def standing(*names):
        found = [anchors.anchor(c) for name in names for c in anchors.named(name)]
        return [(anchor.kind, anchor.sct_not_after) for anchor in found]

    assert standing(NAMES[X1], NAMES[G2]) == [(AnchorKind.CHROME, None), (AnchorKind.PUBLIC, None)]
    assert standing(own.subject) == [(AnchorKind.CHROME, NOW)]
    assert standing(w.servers.root.facts.subject) == [(AnchorKind.PRIVATE, None)]
    assert listed.without_certificate(anchors) == (NOWHERE,)
    assert len(anchors) == len(shipped_anchors()) + 2


def test_the_shipped_list_given_as_the_operators_own_changes_nothing():
    table = (resources.files("agent") / "data" / "chrome_roots.tsv").read_text()
    anchors, same = shipped_anchors(), shipped_anchors((), read_chrome_list(table))

    def known(found):
        certificates = {c for name in found.names for c in found.named(name)}
        return {(c, found.anchor(c).kind, found.anchor(c).sct_not_after) for c in certificates}

    assert known(anchors) == known(same)


def test_what_is_said_of_the_lists_age_is_said_of_the_operators_own():
    tables = shipped_tables()
    dated, undated = ChromeList({}, "ours", at("2026-01-01")), ChromeList({}, "ours")

    old = with_chrome_list(tables, dated, otherwise=NOW)
    fresh = with_chrome_list(tables, undated, otherwise=NOW)

    (finding,) = evaluate(world().evidence(tables=old)).violations
    assert finding.rule == "trust_list_stale"
    assert finding.message == "The list of Chrome's roots is 327 days old (2026-01-01, ours)."
    assert evaluate(world().evidence(tables=fresh)).violations == ()


def test_mozillas_list_is_as_old_as_certifi():
    year, month, day = map(int, version("certifi").split("."))

    assert shipped_tables().mozilla_list_as_of == datetime(year, month, day, tzinfo=UTC)


def test_the_lists_organizations_that_stop_client_auth_own_public_roots():
    owners = {name.casefold() for name in shipped_anchors().public_organizations}

    for cutoff in shipped_tables().client_auth_cutoffs:
        assert cutoff.organizations & owners, cutoff.name


def test_a_severity_is_a_label():
    assert [str(severity) for severity in Severity] == ["info", "warning", "critical"]
    assert HOST.endswith(shipped_tables().my_domain_suffixes)


def test_a_certificate_that_never_expires_breaks_no_rule():
    w = world()
    never = w.clients.chain(not_after=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))

    found = evaluate(w.evidence(client_chain=never))

    assert "internal" not in {violation.rule for violation in found.violations}
