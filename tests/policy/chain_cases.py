"""Cases of agent/policy/chain.py."""

from datetime import timedelta

from making import (
    CLIENT_NAME,
    NOW,
    case,
    ec_key,
    hierarchy,
    key_usage,
    make,
    reissued,
)

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import Anchor, AnchorKind, Anchors
from agent.policy.rule import PrivateKey

SECOND = hierarchy("Second")


def deep(w, *, path_length=1, **differently):
    """Return leaf, issuing authority and a policy authority between it and the clients' root."""
    policy = make("Policy", w.clients.root, ca=True, path_length=path_length)
    issuing = make("Issuing", policy, ca=True, **differently)
    leaf = make("deep.example.com", issuing, eku=(CLIENT_AUTH,), names=("deep.example.com",))
    return leaf.facts, issuing.facts, policy.facts


# --- order


@case("chain_out_of_order", "chain_out_of_order client critical")
def a_client_chain_whose_intermediates_are_swapped(w):
    leaf, issuing, policy = deep(w)
    return w.evidence(client_chain=(leaf, policy, issuing))


@case("chain_out_of_order", "chain_out_of_order server warning")
def a_server_chain_with_the_root_in_the_middle(w):
    leaf, intermediate = w.server_chain
    return w.evidence(server_chain=(leaf, w.servers.root.facts, intermediate))


@case("chain_out_of_order", "chain_out_of_order client critical")
def a_reversed_chain_of_which_nobody_knows_the_key(w):
    return w.evidence(client_chain=w.client_chain[::-1], private_key=PrivateKey(None, blocks=1))


@case("chain_out_of_order")
def a_long_chain_in_order(w):
    return w.evidence(client_chain=deep(w))


def crossed(w, *order):
    """Return evidence with a client's chain of which both ways up are sent, roots and all."""
    one, other = make("Cross Root A", ca=True), make("Cross Root B", ca=True)
    by_one = make("Crossed", one, ca=True, path_length=0)
    sent = {
        "by A": by_one,
        "by B": make("Crossed", other, ca=True, path_length=0, key=by_one.key),
        "A": one,
        "B": other,
    }
    leaf = make(CLIENT_NAME, by_one, eku=(CLIENT_AUTH,), names=(CLIENT_NAME,))
    known = frozenset({one.facts.fingerprint_sha256})
    chain = (leaf.facts, *(sent[which].facts for which in order))
    return w.evidence(client_chain=chain, accepted_roots=known)


@case("chain_out_of_order", "chain_ambiguous client info", "root_included client info")
def a_cross_signed_chain_that_begins_with_a_path(w):
    return crossed(w, "by A", "by B", "A", "B")


@case("chain_out_of_order", "chain_ambiguous client info", "root_included client info")
def a_cross_signed_chain_with_one_path_after_the_other(w):
    return crossed(w, "by A", "A", "by B", "B")


@case(
    "chain_out_of_order",
    "chain_out_of_order client critical",
    "chain_ambiguous client info",
    "root_included client info",
)
def a_cross_signed_chain_that_begins_with_a_root(w):
    return crossed(w, "A", "by A", "by B", "B")


@case("chain_leaf_not_first", "chain_leaf_not_first client critical")
def the_key_belongs_to_the_second_certificate(w):
    leaf, intermediate = w.client_chain
    key = PrivateKey(leaf.subject_public_key_info_sha256, encrypted=True)
    return w.evidence(client_chain=(intermediate, leaf), private_key=key)


@case("chain_leaf_not_first", "chain_leaf_not_first client critical")
def the_key_is_that_of_the_intermediate(w):
    key = PrivateKey(w.client_chain[1].subject_public_key_info_sha256, encrypted=True)
    return w.evidence(private_key=key)


@case("chain_leaf_not_first")
def the_key_belongs_to_the_first_certificate(w):
    key = PrivateKey(w.client_chain[0].subject_public_key_info_sha256, encrypted=True)
    return w.evidence(private_key=key)


# --- what is missing


@case("intermediate_missing", "intermediate_missing server critical")
def a_server_that_sends_its_leaf_alone(w):
    return w.evidence(server_chain=w.server_chain[:1])


@case("intermediate_missing", "intermediate_missing client critical")
def a_client_chain_that_breaks_off_below_a_public_owner(w):
    policy = make("Policy", w.chrome.root, ca=True, organization="Listed Ltd")
    issuing = make("Issuing", policy, ca=True, organization="Listed Ltd", eku=(CLIENT_AUTH,))
    leaf = make("deep.example.com", issuing, eku=(CLIENT_AUTH,), names=("deep.example.com",))
    return w.evidence(client_chain=(leaf.facts, issuing.facts))


@case("intermediate_missing", "intermediate_missing client critical")
def a_client_chain_with_another_intermediate_instead(w):
    leaf, _ = w.client_chain
    return w.evidence(client_chain=(leaf, SECOND.intermediate.facts))


@case("intermediate_missing", "intermediate_missing client critical")
def a_client_chain_with_the_root_instead(w):
    return w.evidence(client_chain=(w.client_chain[0], w.clients.root.facts))


@case("intermediate_missing")
def an_anchor_that_issued_the_leaf_itself(w):
    intermediate = w.servers.intermediate.facts
    anchors = Anchors(
        [
            Anchor(intermediate, AnchorKind.PRIVATE),
            Anchor(w.clients.root.facts, AnchorKind.PRIVATE),
        ]
    )
    return w.evidence(server_chain=w.server_chain[:1], anchors=anchors)


@case("leaf_only", "leaf_only client critical")
def a_client_that_presents_its_leaf_alone(w):
    return w.evidence(client_chain=w.client_chain[:1])


@case("leaf_only")
def a_client_whose_leaf_was_issued_by_a_root(w):
    leaf = make("direct.example.com", w.clients.root, eku=(CLIENT_AUTH,), names=("a.example.com",))
    return w.evidence(client_chain=(leaf.facts,))


@case(
    "root_unresolved",
    "root_unresolved client info",
    "root_unresolved server warning",
)
def chains_to_roots_that_nobody_knows(w):
    return w.evidence(
        client_chain=w.unknown.chain(),
        server_chain=SECOND.chain("example.my.salesforce.com", eku=(SERVER_AUTH,)),
    )


@case("root_unresolved")
def chains_to_roots_of_the_operator(w):
    return w.evidence()


# --- what is too much


@case("root_included", "root_included client info")
def a_client_chain_with_its_root(w):
    return w.evidence(client_chain=(*w.client_chain, w.clients.root.facts))


@case("root_included")
def a_client_chain_without_its_root(w):
    return w.evidence(client_chain=w.client_chain)


@case("chain_extra", "chain_extra client warning")
def a_client_chain_with_an_unrelated_certificate(w):
    return w.evidence(client_chain=(*w.client_chain, SECOND.intermediate.facts))


@case("chain_extra", "chain_extra client warning")
def a_client_chain_with_an_unrelated_root(w):
    return w.evidence(client_chain=(*w.client_chain, SECOND.root.facts))


@case("chain_extra", "chain_extra client warning")
def a_client_chain_with_a_whole_list_of_roots(w):
    roots = (make(f"Listed {number}", ca=True).facts for number in range(9))
    return w.evidence(client_chain=(*w.client_chain, *roots))


@case("chain_extra", "chain_extra client warning")
def a_client_chain_with_an_unrelated_certificate_twice(w):
    return w.evidence(client_chain=(*w.client_chain, *[SECOND.intermediate.facts] * 2))


@case("chain_extra", "expired client critical")
def a_client_chain_with_an_unrelated_certificate_that_has_expired(w):
    old = make("Old Intermediate", SECOND.root, ca=True, not_after=NOW - timedelta(days=1))
    return w.evidence(client_chain=(*w.client_chain, old.facts))


@case("chain_extra", "root_unresolved client info")
def a_client_chain_with_both_ways_to_roots_that_nobody_knows(w):
    other = make("Nobody Knows Either", ca=True)
    crossed = make("Unknown Intermediate", other, ca=True, key=w.unknown.intermediate.key)
    return w.evidence(client_chain=(*w.unknown.chain(), crossed.facts))


@case("chain_extra")
def a_server_chain_without_any(w):
    return w.evidence(server_chain=w.server_chain)


@case("chain_duplicate", "chain_duplicate client warning")
def a_client_chain_that_repeats_its_intermediate(w):
    return w.evidence(client_chain=(*w.client_chain, w.client_chain[1]))


@case("chain_duplicate")
def two_certificates_of_one_authority_that_differ(w):
    renewed = make(
        "Clients Intermediate",
        w.clients.root,
        ca=True,
        path_length=0,
        key=w.clients.intermediate.key,
        serial=2**100,
    )
    return w.evidence(client_chain=(*w.client_chain, renewed.facts))


def descending(w, count):
    """Return a chain of this many certificates below the clients' root."""
    issuer, sent = w.clients.root, []
    for number in range(count - 1):
        issuer = make(f"Descending {number}", issuer, ca=True)
        sent.append(issuer.facts)
    leaf = make(CLIENT_NAME, issuer, eku=(CLIENT_AUTH,), names=(CLIENT_NAME,))
    return w.evidence(client_chain=(leaf.facts, *reversed(sent)))


@case("chain_too_long", "chain_too_long client warning", "root_unresolved client info")
def a_client_chain_of_eleven(w):
    return descending(w, 11)


@case("chain_too_long", "chain_too_long client warning")
def a_client_chain_of_66_000_octets(w):
    names = [f"host-{number}.example.com" for number in range(3000)]
    return w.evidence(client_chain=w.clients.chain(names=names))


@case("chain_too_long", "chain_duplicate client warning")
def a_client_chain_of_eleven_because_of_repetitions(w):
    leaf, intermediate = w.client_chain
    return w.evidence(client_chain=(leaf, *[intermediate] * 10))


@case("chain_too_long", "root_unresolved client info")
def a_client_chain_of_ten(w):
    return descending(w, 10)


@case("chain_ambiguous", "chain_ambiguous client info")
def a_client_chain_with_a_cross_signed_authority(w):
    other = make("Third Root", ca=True)
    crossed = make("Clients Root", other, ca=True, key=w.clients.root.key)
    anchors = Anchors(
        [
            Anchor(found.facts, AnchorKind.PRIVATE)
            for found in (w.clients.root, w.servers.root, other)
        ]
    )
    return w.evidence(client_chain=(*w.client_chain, crossed.facts), anchors=anchors)


@case("chain_ambiguous")
def a_client_chain_whose_authority_is_not_cross_signed(w):
    return w.evidence(client_chain=w.client_chain)


# --- who may issue


@case("chain_signature_invalid", "chain_signature_invalid client critical")
def an_intermediate_of_another_generation(w):
    leaf, _ = w.client_chain
    other = make(
        "Clients Intermediate",
        w.clients.root,
        ca=True,
        path_length=0,
        key=ec_key("another generation"),
    )
    return w.evidence(client_chain=(leaf, other.facts))


@case("chain_signature_invalid", "chain_signature_invalid client critical")
def an_intermediate_of_a_root_that_is_known_with_another_key(w):
    root = make("Clients Root", ca=True, key=ec_key("another root"))
    intermediate = make("Clients Intermediate", root, ca=True)
    leaf = make(CLIENT_NAME, intermediate, eku=(CLIENT_AUTH,), names=(CLIENT_NAME,))
    return w.evidence(client_chain=(leaf.facts, intermediate.facts))


@case("chain_signature_invalid", "chain_extra client warning")
def both_generations_side_by_side(w):
    other = make(
        "Clients Intermediate",
        w.clients.root,
        ca=True,
        path_length=0,
        key=ec_key("another generation"),
    )
    return w.evidence(client_chain=(*w.client_chain, other.facts))


@case("ca_not_ca", "ca_not_ca client critical")
def a_leaf_that_issued_another(w):
    leaf = w.clients.leaf(ku=None)
    below = make("below.example.com", leaf, eku=(CLIENT_AUTH,), names=("below.example.com",))
    return w.evidence(client_chain=(below.facts, leaf.facts, w.clients.intermediate.facts))


@case("ca_not_ca", "ca_not_ca client critical")
def an_intermediate_of_version_1(w):
    old = make("Version 1", w.clients.root, ca=True)
    leaf = make(CLIENT_NAME, old, eku=(CLIENT_AUTH,), names=(CLIENT_NAME,))
    intermediate = reissued(old, w.clients.root, lambda fields: fields[1:7])
    return w.evidence(client_chain=(leaf.facts, intermediate))


@case("ca_not_ca", "verifier_disagrees client warning")
def a_root_of_version_1(w):
    root = make("Version 1 Root", ca=True)
    leaf = make(CLIENT_NAME, root, eku=(CLIENT_AUTH,), names=(CLIENT_NAME,))
    old = reissued(root, root, lambda fields: fields[1:7])
    anchors = Anchors([Anchor(found, AnchorKind.PRIVATE) for found in (old, w.servers.root.facts)])
    known = frozenset({old.fingerprint_sha256})
    return w.evidence(client_chain=(leaf.facts,), anchors=anchors, accepted_roots=known)


@case("ca_not_ca", "ca_not_ca client critical")
def a_root_that_is_no_authority(w):
    root = make("No Authority", ku=None)
    leaf = make("n.example.com", root, eku=(CLIENT_AUTH,), names=("n.example.com",))
    anchors = Anchors([Anchor(found.facts, AnchorKind.PRIVATE) for found in (root, w.servers.root)])
    known = frozenset({root.facts.fingerprint_sha256})
    return w.evidence(client_chain=(leaf.facts,), anchors=anchors, accepted_roots=known)


@case("ca_not_ca")
def an_authority_that_issued_another(w):
    return w.evidence(client_chain=deep(w))


@case("ca_ku_no_cert_sign", "ca_ku_no_cert_sign client critical")
def an_authority_that_may_only_sign_lists(w):
    return w.evidence(client_chain=deep(w, ku=key_usage("crl_sign")))


@case("ca_ku_no_cert_sign")
def an_authority_without_key_usage(w):
    return w.evidence(client_chain=deep(w, ku=None))


@case("pathlen_exceeded", "pathlen_exceeded client critical")
def an_authority_below_one_that_may_have_none(w):
    return w.evidence(client_chain=deep(w, path_length=0))


@case("pathlen_exceeded", "chain_ambiguous client info")
def an_authority_of_which_only_one_certificate_allows_too_little(w):
    root = make("Generous Root", ca=True)
    leaf, issuing, policy = deep(w, path_length=0)
    generous = make("Policy", root, ca=True, path_length=1, key=ec_key("Policy None"))
    anchors = Anchors(
        [
            Anchor(found.facts, AnchorKind.PRIVATE)
            for found in (w.clients.root, w.servers.root, root)
        ]
    )
    return w.evidence(client_chain=(leaf, issuing, policy, generous.facts), anchors=anchors)


@case("pathlen_exceeded")
def an_authority_below_one_that_may_have_one(w):
    return w.evidence(client_chain=deep(w, path_length=1))


@case("aki_ski_problem", "aki_ski_problem client warning")
def a_leaf_that_names_no_issuer_key(w):
    return w.evidence(client_chain=w.clients.chain(aki=None))


@case("aki_ski_problem", "aki_ski_problem client critical")
def a_leaf_that_names_another_issuer_key(w):
    return w.evidence(client_chain=w.clients.chain(aki=b"\x01" * 20))


@case("aki_ski_problem", "chain_ambiguous client info")
def a_leaf_that_names_the_key_of_one_of_its_issuers(w):
    other = make("Renumbered Root", ca=True)
    # Who signs for another authority may number its key otherwise (RFC 5280 §4.2.1.2).
    renumbered = reissued(
        make("Clients Intermediate", other, ca=True, key=w.clients.intermediate.key),
        other,
        lambda fields: [*fields[:7], _other_key_identifier(fields[7], w)],
    )
    anchors = Anchors(
        [
            Anchor(found.facts, AnchorKind.PRIVATE)
            for found in (w.clients.root, w.servers.root, other)
        ]
    )
    return w.evidence(client_chain=(*w.client_chain, renumbered), anchors=anchors)


def _other_key_identifier(extensions, w):
    own = bytes.fromhex(w.clients.intermediate.facts.subject_key_identifier)
    return extensions.replace(own, own[::-1])


@case("aki_ski_problem")
def a_leaf_that_names_its_issuers_key(w):
    return w.evidence(client_chain=w.clients.chain())


@case("leaf_self_signed", "leaf_self_signed client critical")
def a_self_signed_client_certificate(w):
    leaf = make("alone.example.com", eku=(CLIENT_AUTH,), names=("alone.example.com",))
    return w.evidence(client_chain=(leaf.facts,))


@case("leaf_self_signed", "leaf_self_signed client critical")
def what_openssl_req_makes_when_told_nothing(w):
    begin, end = NOW - timedelta(days=1), NOW + timedelta(days=364)
    leaf = make(CLIENT_NAME, ca=True, ku=None, not_before=begin, not_after=end)
    return w.evidence(client_chain=(leaf.facts,), accepted_roots=None)


@case("leaf_self_signed", "root_private client info")
def a_client_certificate_from_a_home_made_authority(w):
    root = make("Home", ca=True)
    leaf = make("home.example.com", root, eku=(CLIENT_AUTH,), names=("home.example.com",))
    anchors = Anchors([Anchor(found.facts, AnchorKind.PRIVATE) for found in (root, w.servers.root)])
    return w.evidence(client_chain=(leaf.facts,), anchors=anchors, accepted_roots=None)
