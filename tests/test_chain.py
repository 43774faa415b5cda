"""Links, paths and anchors; reading chains from files, whatever is in them."""

import base64
from dataclasses import replace
from itertools import permutations

import pytest
from counting import calls, signature_checks
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from making import CLIENT_NAME, ec_key, hierarchy, make, rsa_key, world

from agent import certificate, chain
from agent.chain import Anchor, AnchorKind, Anchors, Link, analyse, read_chain

OTHER = hierarchy("Other")
NO_ANCHORS = Anchors([])


def facts(*made):
    return tuple(found.facts for found in made)


def said_to_be_sha1(made):
    """Return the certificate with sha1WithRSAEncryption in place of sha256WithRSAEncryption.

    The library makes none itself; nor does it check the signature, which fits neither.
    """
    sha256_with_rsa = bytes.fromhex("2a864886f70d01010b")
    return certificate.read(made.facts.der.replace(sha256_with_rsa, sha256_with_rsa[:-1] + b"\x05"))


# --- links


def test_a_certificate_is_linked_with_the_one_that_signed_it():
    w = world()

    assert chain.link(w.clients.root.facts, w.clients.intermediate.facts) is Link.SIGNED
    assert chain.issued(w.clients.root.facts, w.clients.intermediate.facts)


def test_a_certificate_is_not_linked_with_one_of_another_name():
    w = world()

    assert chain.link(w.servers.root.facts, w.clients.intermediate.facts) is Link.NONE
    assert not chain.issued(w.servers.root.facts, w.clients.intermediate.facts)


def test_a_name_that_fits_is_not_enough():
    w = world()
    impostor = make("Clients Root", ca=True, key=ec_key("impostor"))

    assert chain.link(impostor.facts, w.clients.intermediate.facts) is Link.BROKEN
    assert not chain.issued(impostor.facts, w.clients.intermediate.facts)


@pytest.mark.parametrize(
    ("issuer_key", "expected"), [("old", Link.IDENTIFIED), ("impostor", Link.BROKEN)]
)
def test_a_sha1_signature_is_not_checked_but_its_key_identifiers_are(issuer_key, expected):
    root = make("Old", ca=True, key=rsa_key())
    candidate = root if issuer_key == "old" else make("Old", ca=True, key=ec_key("impostor"))

    assert chain.link(candidate.facts, said_to_be_sha1(make("below", root))) is expected


def test_a_sha1_signature_without_identifiers_is_taken_by_its_name():
    root = make("Old", ca=True, key=rsa_key())
    below = said_to_be_sha1(make("below", root, aki=None))

    assert chain.link(root.facts, below) is Link.IDENTIFIED
    assert below.signature_hash == "sha1"


def test_a_signature_that_nobody_here_can_check_is_taken_by_its_identifiers():
    root = make("Old", ca=True, key=rsa_key())
    # sha256WithRSAEncryption, with its last arc replaced by one that is not assigned
    unknown = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d01017f")
    below = certificate.read(make("below", root).facts.der.replace(*unknown))

    assert below.signature_hash is None
    assert chain.link(root.facts, below) is Link.IDENTIFIED


def test_names_that_differ_in_their_encoding_only_are_one_name():
    root = make("Encoded", ca=True, key=ec_key("encoded"))
    utf8, printable = b"\x0c\x07Encoded", b"\x13\x07Encoded"
    below = make("below", root)
    other = certificate.read(root.facts.der.replace(utf8, printable))
    impostor = certificate.read(
        make("Encoded", ca=True, key=ec_key("impostor")).facts.der.replace(utf8, printable)
    )

    assert other.subject == root.facts.subject
    assert other.der != root.facts.der
    assert chain.link(other, below.facts) is Link.IDENTIFIED
    assert chain.link(impostor, below.facts) is Link.BROKEN


def test_a_key_of_another_kind_is_a_broken_link():
    w = world()
    impostor = make("Clients Root", ca=True, key=rsa_key())

    assert chain.link(impostor.facts, w.clients.intermediate.facts) is Link.BROKEN


def test_only_a_certificate_made_with_its_own_key_is_self_signed():
    w = world()
    rolled_over = make("Clients Root", w.clients.root, ca=True, key=ec_key("new generation"))

    assert chain.self_signed(w.clients.root.facts)
    assert rolled_over.facts.self_issued
    assert not chain.self_signed(rolled_over.facts)


# --- walking without anchors


def test_a_path_is_found_whatever_the_order():
    w = world()
    leaf, intermediate = w.client_chain
    root = w.clients.root.facts

    for rest in permutations([intermediate, root, OTHER.intermediate.facts]):
        assert chain.path_from_leaf([leaf, *rest]) == (leaf, intermediate, root)


def test_nothing_has_no_path():
    assert chain.path_from_leaf([]) == ()
    assert chain.missing_intermediate([]) is None


def test_the_missing_issuer_of_a_leaf_is_named():
    w = world()
    leaf, intermediate = w.client_chain

    assert chain.missing_intermediate([leaf]) == "CN=Clients Intermediate"
    assert chain.missing_intermediate([leaf, OTHER.intermediate.facts]) == "CN=Clients Intermediate"
    assert chain.missing_intermediate([leaf, intermediate]) is None
    assert chain.missing_intermediate([w.clients.root.facts]) is None


# --- paths to anchors


def test_a_chain_is_followed_to_the_anchor_that_is_not_sent():
    w = world()

    analysis = analyse(w.client_chain, w.anchors)

    assert analysis.paths == ((*w.client_chain, w.clients.root.facts),)
    assert [root.kind for root in analysis.roots] == [AnchorKind.PRIVATE]
    assert analysis.private
    assert not analysis.public
    assert analysis.authorities() == (w.clients.intermediate.facts, w.clients.root.facts)
    assert analysis.position(w.clients.root.facts) is None
    assert analysis.position(w.clients.intermediate.facts) == 1


def test_an_expired_chain_still_tells_its_root():
    w = world()
    leaf, intermediate = w.client_chain
    expired = replace(leaf, not_after=leaf.not_before)

    analysis = analyse((expired, intermediate), w.anchors)

    assert [root.certificate for root in analysis.roots] == [w.clients.root.facts]


def test_a_root_that_nobody_knows_is_private_if_it_is_sent_and_unknown_if_not():
    leaf, intermediate = OTHER.chain()

    sent = analyse((leaf, intermediate, OTHER.root.facts), NO_ANCHORS)
    unsent = analyse((leaf, intermediate), NO_ANCHORS)

    assert [root.certificate for root in sent.roots] == [OTHER.root.facts]
    assert sent.private
    assert unsent.roots == ()
    assert not unsent.private
    assert unsent.ways == ((leaf, intermediate),)
    assert unsent.path == (leaf, intermediate)


def test_an_anchor_is_known_by_its_key_even_in_another_certificate():
    renewed = make("Chrome Root", ca=True, organization="Listed Ltd", serial=2**100)
    w = world()

    analysis = analyse((*w.chrome.chain(), renewed.facts), w.anchors)

    assert renewed.key is w.chrome.root.key
    assert [root.kind for root in analysis.roots] == [AnchorKind.CHROME]
    assert analysis.in_chrome_list


def test_of_two_anchors_with_one_key_the_first_one_counts():
    w = world()
    chrome = Anchor(w.chrome.root.facts, AnchorKind.CHROME)
    own = Anchor(w.chrome.root.facts, AnchorKind.PRIVATE)

    assert Anchors([chrome, own]).anchor(w.chrome.root.facts).kind is AnchorKind.CHROME
    assert Anchors([own, chrome]).anchor(w.chrome.root.facts).kind is AnchorKind.PRIVATE
    assert len(Anchors([chrome, own])) == 1


def test_all_paths_of_a_cross_signed_authority_are_found_in_any_order():
    w = world()
    issuing = make("Issuing", w.clients.root, ca=True)
    crossed = make("Issuing", w.chrome.root, ca=True, key=issuing.key)
    leaf = make(CLIENT_NAME, issuing)

    for order in permutations(facts(issuing, crossed)):
        analysis = analyse((leaf.facts, *order), w.anchors)

        assert {path[-1] for path in analysis.paths} == facts_set(w.clients.root, w.chrome.root)
        assert analysis.root_keys == {
            found.facts.subject_public_key_info_sha256 for found in (w.clients.root, w.chrome.root)
        }
        assert analysis.extra == ()


def facts_set(*made):
    return set(facts(*made))


def test_authorities_that_sign_each_other_do_not_go_round_for_ever():
    one = make("One", ca=True, key=ec_key("one"))
    two = make("Two", ca=True, key=ec_key("two"))
    one_by_two = make("One", two, ca=True, key=ec_key("one"))
    two_by_one = make("Two", one, ca=True, key=ec_key("two"))
    leaf = make(CLIENT_NAME, one_by_two)

    analysis = analyse(facts(leaf, one_by_two, two_by_one), NO_ANCHORS)

    assert analysis.paths == ()
    assert analysis.walk == facts(leaf, one_by_two, two_by_one)


def test_a_crowd_of_authorities_that_all_sign_each_other_is_followed_as_far_as_the_bound():
    names = [f"Crowd {number}" for number in range(7)]
    roots = {name: make(name, ca=True, key=ec_key(name)) for name in names}
    crowd = [
        make(subject, roots[issuer], ca=True, key=ec_key(subject))
        for subject in names
        for issuer in names
        if subject != issuer
    ]
    leaf = make(CLIENT_NAME, roots[names[0]])

    sent = (leaf.facts, *facts(*crowd))

    # Each authority has six certificates, of which each could have signed six others.
    assert signature_checks(lambda: analyse(sent, NO_ANCHORS)) <= len(sent) * 6
    assert analyse(sent, NO_ANCHORS).paths == ()


def test_a_hundred_intermediates_are_followed_as_far_as_the_bound():
    issuer = make("Deep 0", ca=True)
    made = []
    for number in range(1, 101):
        issuer = make(f"Deep {number}", issuer, ca=True)
        made.append(issuer)
    leaf = make(CLIENT_NAME, issuer)
    sent = (leaf.facts, *facts(*reversed(made)))

    assert signature_checks(lambda: analyse(sent, NO_ANCHORS)) == 32
    analysis = analyse(sent, NO_ANCHORS)
    assert analysis.paths == ()
    assert len(analysis.walk) == 33
    assert analysis.extra == ()


def test_a_thousand_names_are_read_at_a_cost_in_proportion():
    def reading(count):
        made = make(CLIENT_NAME, names=[f"host-{number}.example.com" for number in range(count)])
        return lambda: read_chain(made.pem)

    few, many = calls(reading(10)), calls(reading(1000))

    assert many - few <= 990 * 10


def test_an_empty_chain_has_nothing_to_analyse():
    with pytest.raises(ValueError, match="an empty chain has nothing to analyse"):
        analyse((), NO_ANCHORS)


# --- which one is the leaf


def test_the_leaf_is_the_certificate_of_the_presenters_key():
    w = world()
    leaf, intermediate = w.client_chain

    analysis = analyse((intermediate, leaf), w.anchors, leaf.subject_public_key_info_sha256)

    assert analysis.leaf == leaf
    assert analysis.leaf_position == 1


def test_without_a_key_the_leaf_is_the_first_that_is_no_authority():
    w = world()
    leaf, intermediate = w.client_chain

    assert analyse((intermediate, leaf), w.anchors).leaf == leaf
    assert analyse((intermediate,), w.anchors).leaf == intermediate


# --- too much


def test_what_is_on_no_path_is_extra_and_what_repeats_is_a_duplicate():
    w = world()
    leaf, intermediate = w.client_chain

    analysis = analyse((leaf, OTHER.intermediate.facts, intermediate, leaf), w.anchors)

    assert analysis.extra == (1,)
    assert analysis.duplicates == (3,)


def test_what_is_on_a_branch_that_leads_nowhere_is_not_extra():
    w = world()
    leaf, intermediate = w.client_chain
    gone = make("Gone Root", ca=True)
    crossed = make("Clients Intermediate", gone, ca=True, key=w.clients.intermediate.key)

    for order in permutations((intermediate, crossed.facts)):
        analysis = analyse((leaf, *order), w.anchors)

        assert analysis.paths == ((leaf, intermediate, w.clients.root.facts),)
        assert analysis.extra == ()


def test_beyond_the_bound_only_what_nobody_names_is_extra():
    w = world()
    strangers = [make(f"Stranger {number}", ca=True) for number in range(40)]
    named = make("Named", strangers[0], ca=True)
    below = make("Below", named, ca=True)

    analysis = analyse((*w.client_chain, *facts(*strangers, below, named)), w.anchors)

    assert analysis.extra == (*range(2, 42), 42)
    assert analysis.certificates[43] == named.facts


def test_what_no_path_can_do_without_is_inevitable():
    w = world()
    other = make("Other Way", ca=True)
    policy = make("Policy Either Way", w.clients.root, ca=True)
    crossed = make("Policy Either Way", other, ca=True, key=policy.key)
    issuing = make("Issuing Either Way", policy, ca=True)
    leaf = make(CLIENT_NAME, issuing)

    one = analyse(facts(leaf, issuing, policy), w.anchors)
    both = analyse(facts(leaf, issuing, policy, crossed, other), w.anchors)

    assert one.inevitable() == facts(issuing, policy, w.clients.root)
    assert both.inevitable() == facts(issuing)


# --- reading files

NOT_A_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_a_pem_file_is_read_in_its_order_and_keys_are_skipped():
    w = world()
    leaf = w.clients.leaf()
    key = leaf.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

    found = read_chain(b"a comment\n" + leaf.pem + key + w.clients.intermediate.pem)

    assert found.certificates == facts(leaf, w.clients.intermediate)
    assert found.problems == ()


def test_one_bad_block_does_not_hide_the_others_and_its_number_is_told():
    w = world()

    found = read_chain(w.clients.intermediate.pem + NOT_A_CERTIFICATE + w.clients.root.pem)

    assert found.certificates == facts(w.clients.intermediate, w.clients.root)
    (problem,) = found.problems
    assert problem.startswith("block 2: not a certificate (")


def test_a_block_that_is_no_base64_is_told():
    found = read_chain(b"-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n")

    assert found.certificates == ()
    assert found.problems[0].startswith("block 1: not a certificate (")


def test_a_block_that_never_ends_is_told():
    w = world()
    truncated = w.clients.intermediate.pem[:-30]

    assert read_chain(truncated).problems == ("block 1: it begins and never ends",)
    found = read_chain(truncated + w.clients.root.pem)
    assert found.certificates == facts(w.clients.root)
    assert found.problems == ("block 1: it begins and never ends",)


def test_a_der_file_is_read():
    w = world()

    assert read_chain(w.clients.root.facts.der).certificates == facts(w.clients.root)


def test_openssls_trusted_certificate_is_read_without_its_trust_settings():
    der = world().clients.root.facts.der
    settings = bytes.fromhex("300c300a06082b06010505070302")
    block = (
        b"-----BEGIN TRUSTED CERTIFICATE-----\n"
        + base64.encodebytes(der + settings)
        + b"-----END TRUSTED CERTIFICATE-----\n"
    )

    assert read_chain(block).certificates == facts(world().clients.root)


def test_an_end_of_another_block_does_not_end_one():
    w = world()
    key = b"-----END PRIVATE KEY-----\n"

    assert read_chain(key + w.clients.root.pem).certificates == facts(w.clients.root)


@pytest.mark.parametrize(
    "content", [b"", b"\x04", b"\x30", b"\x30\x03\x02\x01\x00", b"\x30\x84\xff\xff\xff\xff"]
)
def test_a_trusted_certificate_that_is_none_is_told(content):
    block = (
        b"-----BEGIN TRUSTED CERTIFICATE-----\n"
        + base64.encodebytes(content)
        + b"-----END TRUSTED CERTIFICATE-----\n"
    )

    found = read_chain(block)

    assert found.certificates == ()
    assert found.problems[0].startswith("block 1: not a certificate (")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "neither PEM nor DER: no block begins and no certificate starts"),
        (b"hello", "neither PEM nor DER: no block begins and no certificate starts"),
        (b"\x30\x03\x02\x01\x00", "DER, but not one certificate"),
        (
            b"-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n",
            "block 1: PKCS7 is not read, convert it to PEM certificates",
        ),
        (
            b"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n",
            "no certificate among the PEM blocks",
        ),
    ],
)
def test_what_is_no_chain_is_told(data, problem):
    found = read_chain(data)

    assert found.certificates == ()
    assert found.problems[0].startswith(problem)


@given(st.binary(max_size=300))
def test_reading_never_raises(data):
    found = read_chain(data)

    assert found.problems or found.certificates


@given(
    position=st.integers(0, 10_000),
    replacement=st.binary(min_size=1, max_size=4),
    wrap=st.booleans(),
)
def test_a_damaged_certificate_is_read_or_told_but_never_raises(position, replacement, wrap):
    der = world().client_chain[0].der
    position %= len(der)
    damaged = der[:position] + replacement + der[position + len(replacement) :]
    data = damaged
    if wrap:
        data = (
            b"-----BEGIN CERTIFICATE-----\n"
            + base64.encodebytes(damaged)
            + b"-----END CERTIFICATE-----\n"
        )

    found = read_chain(data)

    assert found.problems or found.certificates
    if found.certificates:
        analyse(found.certificates, world().anchors)


def test_many_beginnings_without_an_end_are_read_at_a_cost_in_proportion():
    def reading(count):
        return lambda: read_chain(b"-----BEGIN CERTIFICATE-----\n" * count)

    found = reading(30_000)()

    assert found.certificates == ()
    assert len(found.problems) == 30_000
    assert calls(reading(30_000)) <= 11 * calls(reading(3000))
