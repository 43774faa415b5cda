"""Cases of agent/policy/roots.py."""

from dataclasses import replace
from datetime import timedelta

from making import (
    HOST,
    NOW,
    REVOCABLE,
    Hierarchy,
    at,
    case,
    chrome_client,
    chrome_server,
    ec_key,
    hierarchy,
    make,
    timestamps,
)

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import Anchor, AnchorKind, Anchors

UNDER_CHROME = "client_root_in_chrome_list client warning"
SECOND = hierarchy("Second")


def servers_only(w):
    """Return another intermediate of the clients' Chrome root, for servers."""
    intermediate = make(
        "Chrome Servers",
        w.chrome.root,
        ca=True,
        path_length=0,
        organization="Listed Ltd",
        eku=(SERVER_AUTH,),
    )
    return Hierarchy(w.chrome.root, intermediate)


@case("shared_public_root", "shared_public_root org critical")
def two_intermediates_of_one_root_of_chromes_list(w):
    return w.evidence(client_chain=chrome_client(w), server_chain=chrome_server(w, servers_only(w)))


@case("shared_public_root", "shared_public_root org warning")
def the_same_a_day_before_the_policy(w):
    now = at("2026-06-14")
    lives = {"not_before": now - timedelta(days=60), "not_after": now + timedelta(days=120)}
    return w.evidence(
        now=now,
        tables=replace(w.evidence().tables, trust_list_as_of=at("2026-06-01")),
        client_chain=chrome_client(w, **lives),
        server_chain=chrome_server(w, servers_only(w), **lives),
    )


@case("shared_public_root", UNDER_CHROME)
def two_roots_of_chromes_list(w):
    return w.evidence(client_chain=chrome_client(w), server_chain=chrome_server(w))


@case("shared_root_unlisted", "shared_root_unlisted org info")
def one_private_root_for_both(w):
    return w.evidence(server_chain=w.clients.chain(HOST, eku=(SERVER_AUTH,)))


@case("shared_root_unlisted", "shared_root_unlisted org warning")
def one_public_root_outside_chromes_list_for_both(w):
    return w.evidence(
        client_chain=w.public.chain(extensions=(REVOCABLE,)),
        server_chain=chrome_server(w, w.public),
    )


@case("shared_root_unlisted")
def two_private_roots(w):
    return w.evidence()


@case(
    "shared_intermediate",
    "shared_intermediate org critical",
    "root_unresolved client info",
    "root_unresolved server warning",
)
def one_intermediate_below_an_unknown_root(w):
    return w.evidence(
        client_chain=w.unknown.chain(),
        server_chain=w.unknown.chain(HOST, eku=(SERVER_AUTH,)),
    )


@case(
    "shared_intermediate",
    "shared_intermediate org critical",
    "root_unresolved client info",
    "root_unresolved server warning",
)
def two_intermediates_below_one_unknown_root(w):
    other = make("Unknown Servers", w.unknown.root, ca=True, path_length=0)
    servers = Hierarchy(w.unknown.root, other)
    return w.evidence(
        client_chain=w.unknown.chain(), server_chain=servers.chain(HOST, eku=(SERVER_AUTH,))
    )


def crossed(w, client_root, server_root):
    """Return chains through one authority that each file leads to another root."""
    key = ec_key("crossed for both")
    client, server = (
        make("Crossed For Both", found.root, ca=True, path_length=0, key=key)
        for found in (client_root, server_root)
    )
    return w.evidence(
        client_chain=Hierarchy(client_root.root, client).chain(extensions=(REVOCABLE,)),
        server_chain=chrome_server(w, Hierarchy(server_root.root, server)),
    )


@case(
    "shared_intermediate",
    "shared_intermediate org critical",
    "ca_eku_missing_public server warning",
)
def an_authority_that_a_root_of_chromes_list_signed_for_the_server(w):
    return crossed(w, w.clients, w.other_chrome)


@case("shared_intermediate", "shared_intermediate org warning")
def an_authority_that_another_public_root_signed_for_the_server(w):
    return crossed(w, w.clients, w.public)


@case("shared_intermediate", "shared_intermediate org info")
def an_authority_that_two_private_roots_signed(w):
    return crossed(w, w.clients, w.servers)


@case(
    "shared_intermediate",
    "shared_intermediate org critical",
    "root_private client info",
    "root_included client info",
    "root_unresolved server warning",
)
def a_root_that_only_the_client_sends(w):
    client = (*w.unknown.chain(), w.unknown.root.facts)
    other = make("Unknown Servers", w.unknown.root, ca=True, path_length=0)
    server = Hierarchy(w.unknown.root, other).chain(HOST, eku=(SERVER_AUTH,))
    return w.evidence(client_chain=client, server_chain=server, accepted_roots=None)


@case("shared_intermediate", "root_unresolved client info", "root_unresolved server warning")
def two_unknown_roots(w):
    return w.evidence(
        client_chain=w.unknown.chain(), server_chain=SECOND.chain(HOST, eku=(SERVER_AUTH,))
    )


@case("client_root_in_chrome_list", UNDER_CHROME)
def a_client_certificate_under_chromes_list(w):
    return w.evidence(client_chain=chrome_client(w))


@case(
    "client_root_in_chrome_list",
    "client_root_in_chrome_list client critical",
    "trust_list_stale org info",
)
def a_client_certificate_issued_under_chromes_list_after_the_policy(w):
    now = at("2027-05-15")
    lives = {"not_before": now - timedelta(days=30), "not_after": now + timedelta(days=60)}
    return w.evidence(
        now=now,
        client_chain=chrome_client(w, **lives),
        server_chain=w.servers.chain(HOST, eku=(SERVER_AUTH,), **lives),
        host=HOST,
    )


@case("client_root_in_chrome_list")
def a_client_certificate_under_another_public_list(w):
    return w.evidence(client_chain=w.public.chain(extensions=(REVOCABLE,)))


def owned_by(w, owner):
    """Return evidence with a client's chain below a public root of this owner."""
    owned = hierarchy(f"{owner} Test", owner, (CLIENT_AUTH,))
    anchors = Anchors(
        [
            Anchor(owned.root.facts, AnchorKind.PUBLIC),
            Anchor(w.servers.root.facts, AnchorKind.PRIVATE),
        ]
    )
    return w.evidence(
        client_chain=owned.chain(extensions=(REVOCABLE,)), anchors=anchors, accepted_roots=None
    )


@case("clientauth_not_renewable", "clientauth_not_renewable client warning")
def an_authority_that_has_stopped_already(w):
    return owned_by(w, "Let's Encrypt")


def chrome_owned(w, owner, issued):
    """Return evidence, a day after it was issued, with a client's chain of this owner of a root."""
    owned = hierarchy(f"{owner} Chrome Test", owner, (CLIENT_AUTH,))
    anchors = Anchors(
        [
            Anchor(owned.root.facts, AnchorKind.CHROME),
            Anchor(w.servers.root.facts, AnchorKind.PRIVATE),
        ]
    )
    lives = {"not_before": issued, "not_after": issued + timedelta(days=90)}
    return w.evidence(
        now=issued + timedelta(days=1),
        tables=replace(w.evidence().tables, trust_list_as_of=issued),
        client_chain=owned.chain(extensions=(REVOCABLE,), **lives),
        server_chain=w.servers.chain(HOST, eku=(SERVER_AUTH,), **lives),
        anchors=anchors,
        accepted_roots=frozenset({owned.root.facts.fingerprint_sha256}),
    )


@case("clientauth_not_renewable", "clientauth_not_renewable client warning")
def an_authority_of_chromes_list_that_stops_before_the_renewal(w):
    return chrome_owned(w, "DigiCert Inc", at("2027-02-01"))


@case("clientauth_not_renewable", UNDER_CHROME)
def an_authority_of_chromes_list_that_stops_after_the_renewal(w):
    return chrome_owned(w, "DigiCert Inc", at("2026-11-24"))


@case("clientauth_not_renewable", "client_root_in_chrome_list client critical")
def an_authority_that_issued_although_it_had_to_stop(w):
    return chrome_owned(w, "DigiCert Inc", at("2027-03-15"))


@case("clientauth_not_renewable")
def an_authority_that_stops_after_the_next_renewal(w):
    return owned_by(w, "DigiCert Inc")


@case("root_private", "root_private client info")
def a_private_root_of_which_nothing_is_known(w):
    return w.evidence(accepted_roots=None)


@case("root_private")
def a_private_root_that_the_server_accepts(w):
    known = frozenset({w.clients.root.facts.fingerprint_sha256})
    return w.evidence(accepted_roots=known)


@case("root_not_in_cacerts", "root_not_in_cacerts client critical")
def a_root_that_the_server_does_not_list(w):
    known = frozenset({w.public.root.facts.fingerprint_sha256})
    return w.evidence(accepted_roots=known)


@case("root_not_in_cacerts")
def a_root_that_the_server_lists(w):
    known = frozenset({w.clients.root.facts.fingerprint_sha256})
    return w.evidence(accepted_roots=known)


def phased_out(w, limit, logged):
    anchors = Anchors(
        [
            Anchor(w.other_chrome.root.facts, AnchorKind.CHROME, limit),
            Anchor(w.clients.root.facts, AnchorKind.PRIVATE),
        ]
    )
    chain = chrome_server(w, extensions=(REVOCABLE, timestamps(logged, logged)))
    return w.evidence(server_chain=chain, anchors=anchors)


@case("root_constrained", "root_constrained server info")
def a_server_certificate_logged_before_its_root_is_phased_out(w):
    return phased_out(w, at("2027-09-14"), NOW - timedelta(days=60))


@case("root_constrained", "root_constrained server critical")
def a_server_certificate_logged_after_its_root_was_phased_out(w):
    return phased_out(w, at("2026-06-14"), NOW - timedelta(days=60))


@case("root_constrained")
def a_server_certificate_below_a_root_that_stays(w):
    return phased_out(w, None, NOW - timedelta(days=60))


def two_owned(w, organization):
    other = hierarchy(f"{organization} Other Root", organization, (SERVER_AUTH,))
    anchors = Anchors(
        [
            Anchor(w.public.root.facts, AnchorKind.PUBLIC),
            Anchor(other.root.facts, AnchorKind.PUBLIC),
        ]
    )
    return w.evidence(
        anchors=anchors,
        client_chain=w.public.chain(extensions=(REVOCABLE,)),
        server_chain=chrome_server(w, other),
    )


@case("same_ca_owner", "same_ca_owner org info")
def two_roots_of_one_owner(w):
    return two_owned(w, "Public Ltd")


@case("same_ca_owner")
def two_roots_of_two_owners(w):
    return two_owned(w, "Another Ltd")


@case(
    "same_leaf_as_server",
    "same_leaf_as_server org critical",
    "server_eku server info",
)
def the_servers_own_certificate(w):
    chain = w.servers.chain(HOST, eku=(CLIENT_AUTH, SERVER_AUTH))
    known = frozenset({w.servers.root.facts.fingerprint_sha256})
    return w.evidence(client_chain=chain, server_chain=chain, accepted_roots=known)


@case("same_leaf_as_server", "same_leaf_as_server org critical")
def the_servers_own_certificate_for_servers_only(w):
    known = frozenset({w.servers.root.facts.fingerprint_sha256})
    return w.evidence(client_chain=w.server_chain, accepted_roots=known)


@case("same_leaf_as_server", "same_leaf_as_server org critical")
def the_servers_own_certificate_under_a_root_of_chromes_list(w):
    chain = chrome_server(w)
    return w.evidence(client_chain=chain, server_chain=chain)


@case("same_leaf_as_server")
def two_certificates(w):
    return w.evidence()


@case("same_key_as_server", "same_key_as_server org critical")
def the_servers_own_key(w):
    key = w.servers.leaf(HOST).key
    return w.evidence(client_chain=w.clients.chain(key=key))


@case(
    "same_key_as_server",
    "same_key_as_server org critical",
    "shared_public_root org critical",
)
def the_servers_own_key_under_its_own_root(w):
    server = chrome_server(w, servers_only(w), key=ec_key("shared"))
    client = chrome_client(w, key=ec_key("shared"))
    return w.evidence(client_chain=client, server_chain=server)


@case("same_key_as_server")
def a_key_of_its_own(w):
    return w.evidence()


@case("trust_list_stale", "trust_list_stale org info")
def a_list_of_181_days(w):
    as_of = NOW - timedelta(days=181)
    return w.evidence(tables=replace(w.evidence().tables, trust_list_as_of=as_of))


@case("trust_list_stale", "trust_list_stale org info")
def a_list_of_mozillas_of_366_days(w):
    as_of = NOW - timedelta(days=366)
    return w.evidence(tables=replace(w.evidence().tables, mozilla_list_as_of=as_of))


@case("trust_list_stale")
def a_list_of_mozillas_of_365_days(w):
    as_of = NOW - timedelta(days=365)
    return w.evidence(tables=replace(w.evidence().tables, mozilla_list_as_of=as_of))


@case("trust_list_stale")
def a_list_of_180_days(w):
    as_of = NOW - timedelta(days=180)
    return w.evidence(tables=replace(w.evidence().tables, trust_list_as_of=as_of))
