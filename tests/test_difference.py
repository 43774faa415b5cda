"""What a renewal changes: every field by itself, and in words."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from making import CLIENT_NAME, NOW, ec_key, make, rsa_key, world

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import analyse
from agent.difference import changes

BEFORE = {"key": rsa_key(3072), "names": (CLIENT_NAME, "old.example.com")}


def chain(hierarchy=None, above=None, **differently):
    issuers = hierarchy or world().clients
    leaf = issuers.leaf(**(BEFORE | differently)).facts
    return analyse((leaf, *(above or (issuers.intermediate.facts,))), world().anchors)


def compared(before, after):
    return {change.field: change for change in changes(before, after, NOW)}


def told(before, after):
    """Return the verdicts of the fields that are not the same, but for the certificate itself."""
    return {
        field: change.verdict
        for field, change in compared(before, after).items()
        if change.verdict != "same" and field != "sha256"
    }


def test_a_certificate_is_the_same_as_itself_in_every_field():
    before = chain()

    found = compared(before, before)

    assert list(found) == [
        "subject",
        "names",
        "issuer",
        "root",
        "purposes",
        "validity",
        "key",
        "chain",
        "sha256",
    ]
    assert {change.verdict for change in found.values()} == {"same"}
    assert all(change.before == change.after for change in found.values())


def test_another_certificate_with_the_same_content_differs_in_its_fingerprint_and_reuses_the_key():
    before, after = chain(), chain()

    assert told(before, after) == {"key": "reused"}
    assert compared(before, after)["sha256"].verdict == "another certificate"


@pytest.mark.parametrize(
    ("differently", "verdicts"),
    [
        ({"names": (CLIENT_NAME,)}, {"names": "lost DNS:old.example.com"}),
        (
            {"names": (CLIENT_NAME, "new.example.com")},
            {"names": "lost DNS:old.example.com; new DNS:new.example.com"},
        ),
        ({"names": ("old.example.com", CLIENT_NAME)}, {}),
        ({"names": ()}, {"names": f"lost DNS:{CLIENT_NAME}, DNS:old.example.com"}),
        ({"eku": (SERVER_AUTH,)}, {"purposes": "lost clientAuth; new serverAuth"}),
        ({"eku": (CLIENT_AUTH, SERVER_AUTH)}, {"purposes": "new serverAuth"}),
        ({"eku": None}, {"purposes": "changed"}),
        ({"not_after": NOW + timedelta(days=150)}, {"validity": "ends 30 days later"}),
        ({"not_after": NOW + timedelta(days=119)}, {"validity": "ends 1 day earlier"}),
        ({"not_before": NOW - timedelta(days=1)}, {"validity": "ends on the same day"}),
        ({"key": rsa_key()}, {"key": "a new one, shorter"}),
        ({"key": ec_key("another kind")}, {"key": "a new one, of another kind"}),
    ],
)
def test_each_change_is_told_by_its_field_alone(differently, verdicts):
    assert told(chain(), chain(**differently)) == verdicts | (
        {} if "key" in differently else {"key": "reused"}
    )


def test_a_key_of_the_same_size_or_a_longer_one_is_just_new():
    for label, curve in (("same size", ec.SECP256R1), ("longer", ec.SECP384R1)):
        after = chain(key=ec_key(label, curve))

        assert told(chain(key=ec_key("before")), after) == {"key": "a new one"}


def test_another_subject_and_another_hierarchy_are_told_with_who_trusts_the_root():
    found = compared(chain(), chain(world().chrome, common_name="other.example.com"))

    assert found["subject"].verdict == found["issuer"].verdict == found["root"].verdict == "changed"
    assert found["root"].before == "CN=Clients Root (private)"
    assert found["root"].after == "O=Listed Ltd,CN=Chrome Root (on Chrome's list)"


def test_a_cross_signed_chain_has_some_roots_in_common_with_one_that_is_not():
    w = world()
    key = ec_key("cross-signed authority")
    listed = make("Crossed", w.chrome.root, ca=True, key=key)
    private = make("Crossed", w.clients.root, ca=True, key=key)
    leaf = make("crossed.example.com", listed, eku=(CLIENT_AUTH,)).facts
    crossed = analyse((leaf, listed.facts, private.facts), w.anchors)
    single = analyse((leaf, listed.facts), w.anchors)

    root = compared(crossed, single)["root"]

    assert root.verdict == "some in common"
    assert " or " in root.before
    assert " or " not in root.after


def test_roots_that_no_list_has_are_compared_by_their_names():
    w = world()
    unknown = chain(w.unknown)
    without_intermediate = chain(w.unknown, above=(w.unknown.leaf("beside").facts,))

    assert compared(unknown, chain(w.unknown))["root"].verdict == "same"
    assert compared(unknown, chain())["root"].verdict == "changed"
    root = compared(unknown, without_intermediate)["root"]
    assert root.before == "CN=Unknown Root (on no list)"
    assert root.after == "not reached without CN=Unknown Intermediate"
    assert root.verdict == "changed"


def test_a_chain_that_was_cut_is_shorter_and_one_that_was_completed_longer():
    w = world()
    leaf = w.clients.leaf().facts
    whole = analyse((leaf, w.clients.intermediate.facts), w.anchors)
    cut = analyse((leaf,), w.anchors)

    assert compared(whole, cut)["chain"].verdict == "shorter"
    assert compared(cut, whole)["chain"].verdict == "longer"
    assert compared(cut, whole)["chain"].before == "1 certificate"


def test_dates_come_with_the_length_of_the_life_and_what_is_left_of_it():
    expired = chain(not_before=NOW - timedelta(days=90), not_after=NOW - timedelta(days=3))

    validity = compared(expired, chain())["validity"]

    assert validity.before == "2026-08-26 to 2026-11-21, 87 days, EXPIRED 3 days ago"
    assert validity.after == "2026-09-25 to 2027-03-24, 180 days, 120 days left"
    assert validity.verdict == "ends 123 days later"


def test_a_thousand_names_are_counted_rather_than_listed():
    many = chain(names=[f"n{number:04}.example.com" for number in range(1000)])

    names = compared(chain(names=()), many)["names"]

    assert names.before == "(none)"
    assert names.after.endswith("n0004.example.com and 995 more")
    assert names.verdict == f"new {names.after}"
