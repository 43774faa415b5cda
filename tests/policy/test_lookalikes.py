"""Chains as public sites send them: the names and purposes are theirs, the keys are ours."""

from datetime import timedelta
from itertools import permutations

import pytest
from making import HOST, NOW, REVOCABLE, Hierarchy, at, make, timestamps, world

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import Anchor, AnchorKind, Anchors, analyse
from agent.policy import evaluate

LOGGED = (REVOCABLE, timestamps(NOW - timedelta(days=60), NOW - timedelta(days=60)))
DIGICERT = "DigiCert Inc"

DIGICERT_G2 = make("DigiCert Global Root G2", ca=True, organization=DIGICERT)
DIGICERT_TLS = make(
    "DigiCert Global G2 TLS RSA SHA256 2020 CA1",
    DIGICERT_G2,
    ca=True,
    organization=DIGICERT,
    path_length=0,
    eku=(SERVER_AUTH, CLIENT_AUTH),
)
DIGICERT_PLAIN = make(
    "DigiCert Global CA G2", DIGICERT_G2, ca=True, organization=DIGICERT, path_length=0
)
ISRG_X1 = make("ISRG Root X1", ca=True, organization="Internet Security Research Group")
ISRG_X2 = make("ISRG Root X2", ca=True, organization="Internet Security Research Group")
ISRG_X2_BY_X1 = make(
    "ISRG Root X2",
    ISRG_X1,
    ca=True,
    organization="Internet Security Research Group",
    key=ISRG_X2.key,
)
LETS_ENCRYPT_E7 = make(
    "E7", ISRG_X2, ca=True, organization="Let's Encrypt", path_length=0, eku=(SERVER_AUTH,)
)
GLOBALSIGN_R1 = make("GlobalSign Root CA", ca=True, organization="GlobalSign nv-sa")
GTS_R4 = make("GTS Root R4", ca=True, organization="Google Trust Services LLC")
GTS_R4_BY_R1 = make(
    "GTS Root R4",
    GLOBALSIGN_R1,
    ca=True,
    organization="Google Trust Services LLC",
    key=GTS_R4.key,
)
GTS_WE1 = make(
    "WE1", GTS_R4, ca=True, organization="Google Trust Services", path_length=0, eku=(SERVER_AUTH,)
)
ANCHORS = Anchors(
    [
        Anchor(DIGICERT_G2.facts, AnchorKind.CHROME, at("2027-09-14T23:59:59")),
        Anchor(ISRG_X1.facts, AnchorKind.CHROME),
        Anchor(ISRG_X2.facts, AnchorKind.CHROME),
        Anchor(GTS_R4.facts, AnchorKind.CHROME),
        Anchor(world().clients.root.facts, AnchorKind.PRIVATE),
    ]
)


def leaf(issuer, common_name=HOST, eku=(SERVER_AUTH,)):
    return make(common_name, issuer, eku=eku, names=(common_name,), extensions=LOGGED)


@pytest.mark.parametrize(
    ("sent", "roots"),
    [
        ((leaf(DIGICERT_TLS), DIGICERT_TLS), {"DigiCert Global Root G2"}),
        ((leaf(DIGICERT_PLAIN), DIGICERT_PLAIN), {"DigiCert Global Root G2"}),
        ((leaf(LETS_ENCRYPT_E7), LETS_ENCRYPT_E7), {"ISRG Root X2"}),
        (
            (leaf(LETS_ENCRYPT_E7), LETS_ENCRYPT_E7, ISRG_X2_BY_X1),
            {"ISRG Root X2", "ISRG Root X1"},
        ),
        # The cross-signed root leads to one that no list has any more; the known one counts.
        ((leaf(GTS_WE1), GTS_WE1, GTS_R4_BY_R1), {"GTS Root R4"}),
        (
            (leaf(GTS_WE1), GTS_WE1, GTS_R4_BY_R1, GLOBALSIGN_R1),
            {"GTS Root R4", "GlobalSign Root CA"},
        ),
    ],
)
def test_the_root_is_found_although_it_is_not_sent(sent, roots):
    for order in permutations([made.facts for made in sent[1:]]):
        analysis = analyse((sent[0].facts, *order), ANCHORS)

        found = {
            root.certificate.subject.partition("CN=")[2].partition(",")[0]
            for root in analysis.roots
        }
        assert found == roots


def salesforce_and_digicert():
    """Return the case that the policy is about: a DigiCert client at Salesforce's DigiCert door."""
    client = leaf(DIGICERT_TLS, "integration.example.com", (SERVER_AUTH, CLIENT_AUTH))
    return world().evidence(
        anchors=ANCHORS,
        accepted_roots=None,
        client_chain=(client.facts, DIGICERT_TLS.facts),
        server_chain=(leaf(DIGICERT_TLS).facts, DIGICERT_TLS.facts),
    )


def test_a_digicert_client_at_salesforces_door_shares_its_root():
    found = {
        f"{v.rule} {v.side} {v.severity}" for v in evaluate(salesforce_and_digicert()).violations
    }

    assert found == {
        "shared_public_root  critical",
        "eku_dual client critical",
        "root_constrained client info",
        "root_constrained server info",
        "ca_eku_not_dedicated server info",
    }


def test_a_private_client_at_salesforces_door_does_not():
    w = world()
    evidence = w.evidence(
        anchors=ANCHORS, server_chain=(leaf(DIGICERT_TLS).facts, DIGICERT_TLS.facts)
    )

    found = {f"{v.rule} {v.side} {v.severity}" for v in evaluate(evidence).violations}

    assert found == {"root_constrained server info", "ca_eku_not_dedicated server info"}


def test_of_the_orders_of_a_cross_signed_file_those_are_right_that_begin_with_a_path():
    sent = {"WE1": GTS_WE1, "R4 by R1": GTS_R4_BY_R1, "R1": GLOBALSIGN_R1, "R4": GTS_R4}
    client = leaf(GTS_WE1, "integration.example.com", (CLIENT_AUTH,))

    right = set()
    for order in permutations(sent):
        chain = (client.facts, *(sent[name].facts for name in order))
        found = evaluate(world().evidence(anchors=ANCHORS, client_chain=chain)).violations
        if "chain_out_of_order" not in {violation.rule for violation in found}:
            right.add(order)

    # R4 is an anchor itself and R1 signed it as well: what follows WE1 does not matter.
    assert right == {order for order in permutations(sent) if order[0] == "WE1"}


# --- cross-signed: two roots can be reached, and either may be shared

CLIENT_ISSUING = make(
    "Cross Issuing", world().clients.root, ca=True, path_length=0, organization="Cross Ltd"
)
CLIENT_ISSUING_BY_CHROME = make(
    "Cross Issuing",
    world().chrome.root,
    ca=True,
    path_length=0,
    organization="Cross Ltd",
    key=CLIENT_ISSUING.key,
    eku=(CLIENT_AUTH,),
)
CROSSED_LEAF = make(
    "integration.example.com",
    CLIENT_ISSUING,
    eku=(CLIENT_AUTH,),
    names=("integration.example.com",),
    extensions=(REVOCABLE,),
)
CHROME_SERVERS = Hierarchy(
    world().chrome.root,
    make(
        "Chrome Servers",
        world().chrome.root,
        ca=True,
        path_length=0,
        organization="Listed Ltd",
        eku=(SERVER_AUTH,),
    ),
)


@pytest.mark.parametrize(
    "order",
    list(permutations([CLIENT_ISSUING, CLIENT_ISSUING_BY_CHROME])),
    ids=["private first", "public first"],
)
def test_a_shared_root_is_found_whatever_the_order_of_the_intermediates(order):
    w = world()
    chain = (CROSSED_LEAF.facts, *(made.facts for made in order))
    server = CHROME_SERVERS.chain(HOST, eku=(SERVER_AUTH,), extensions=LOGGED)

    evidence = w.evidence(client_chain=chain, server_chain=server)
    found = {f"{v.rule} {v.side} {v.severity}" for v in evaluate(evidence).violations}

    assert {root.certificate for root in evidence.client.roots} == {
        w.clients.root.facts,
        w.chrome.root.facts,
    }
    assert found == {"shared_public_root  critical", "chain_ambiguous client info"}


@pytest.mark.parametrize(
    "order",
    list(permutations([CLIENT_ISSUING, CLIENT_ISSUING_BY_CHROME])),
    ids=["private first", "public first"],
)
def test_two_roots_of_which_none_is_shared_are_reported_and_no_more(order):
    w = world()
    chain = (CROSSED_LEAF.facts, *(made.facts for made in order))

    found = {
        f"{v.rule} {v.side} {v.severity}"
        for v in evaluate(w.evidence(client_chain=chain)).violations
    }

    assert found == {
        "chain_ambiguous client info",
        "client_root_in_chrome_list client warning",
    }
