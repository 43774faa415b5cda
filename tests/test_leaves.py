"""Which orgs present one certificate, or one key."""

from dataclasses import replace

import pytest
from boards import certificate, org

from agent.leaves import Leaves
from agent.org import Endpoint
from agent.policy.rule import OtherOrg

LEAF = certificate("CN=leaf")
OTHER = certificate("CN=other leaf")
RENEWED = replace(
    certificate("CN=renewed leaf"),
    subject_public_key_info_sha256=LEAF.subject_public_key_info_sha256,
)


def at(name, host=None, **changes):
    return org(name, endpoint=Endpoint(host or f"{name}.my.salesforce.com"), **changes)


EMEA, APAC, AMER = at("emea"), at("apac"), at("amer")


def known(*shown, configured=lambda _: True):
    leaves = Leaves(configured)
    for each, leaf in shown:
        leaves.put(each, leaf)
    return leaves


def names(leaves, asked):
    return [other.org for other in leaves.sharing(asked)]


def test_orgs_with_certificates_of_their_own_share_nothing():
    leaves = known((EMEA, LEAF), (APAC, OTHER))

    assert leaves.sharing(EMEA) == leaves.sharing(APAC) == leaves.sharing(AMER) == ()


def test_the_same_certificate_is_shared_and_each_is_told_the_others():
    leaves = known((EMEA, LEAF), (APAC, LEAF), (AMER, OTHER))

    assert leaves.sharing(EMEA) == (
        OtherOrg("apac", LEAF.fingerprint_sha256, LEAF.subject_public_key_info_sha256),
    )
    assert names(leaves, APAC) == ["emea"]
    assert names(leaves, AMER) == []


def test_the_same_key_in_another_certificate_is_shared_too():
    (other,) = known((EMEA, LEAF), (APAC, RENEWED)).sharing(EMEA)

    assert other.fingerprint_sha256 == RENEWED.fingerprint_sha256


def test_an_org_that_presents_another_leaf_shares_no_more():
    leaves = known((EMEA, LEAF), (APAC, LEAF))
    leaves.put(APAC, OTHER)

    assert (names(leaves, EMEA), names(leaves, APAC)) == ([], [])
    leaves.put(APAC, LEAF)
    assert names(leaves, EMEA) == ["apac"]


def test_an_org_that_is_configured_no_more_vanishes_and_may_come_back():
    configured = {"emea", "apac"}
    leaves = known((EMEA, LEAF), (APAC, LEAF), configured=lambda name: name in configured)
    assert names(leaves, EMEA) == ["apac"]

    configured.discard("apac")
    assert names(leaves, EMEA) == []
    configured.add("apac")
    leaves.put(APAC, OTHER)
    assert names(leaves, EMEA) == []


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"host": "acme.my.salesforce.com"}, {"host": "ACME.my.salesforce.com"}, False),
        ({"host": "acme.my.salesforce.com"}, {"host": "acme2.my.salesforce.com"}, True),
        ({"organization_id": "00D000000000001"}, {"organization_id": "00D000000000001AAA"}, False),
        ({"organization_id": "00D000000000001"}, {"organization_id": "00D000000000002"}, True),
        ({"organization_id": "00D000000000001"}, {}, True),
    ],
)
def test_two_entries_for_one_salesforce_org_do_not_share(one, other, shared):
    first, second = at("one", **one), at("two", **other)
    leaves = known((first, LEAF), (second, LEAF))

    assert names(leaves, first) == ["two"] * shared
    assert names(leaves, second) == ["one"] * shared


def test_a_hundred_are_named_and_none_with_the_certificate_is_left_out_for_one_with_the_key():
    with_the_key = [(at(f"key{number}"), RENEWED) for number in range(300)]
    leaves = known(*with_the_key, (EMEA, LEAF), (APAC, LEAF))

    found = names(leaves, EMEA)
    assert (len(found), found[0]) == (100, "apac")
