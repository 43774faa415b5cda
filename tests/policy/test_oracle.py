"""What pkilint and the rules both judge, they judge alike.

pkilint is another's reading of RFC 5280 and of the CA/Browser Forum's Baseline Requirements. It
does not know Chrome's and Salesforce's rules and sees one certificate at a time, so only the
intersection is compared: for each concern, pkilint's codes on one side and our findings on the
other.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from making import (
    HOST,
    NOW,
    REVOCABLE,
    Hierarchy,
    at,
    ec_key,
    key_usage,
    make,
    rsa_key,
    timestamps,
    world,
)
from pkilint import finding_filter, loader
from pkilint.cabf import serverauth
from pkilint.cabf.serverauth.serverauth_constants import CertificateType
from pkilint.pkix import certificate as pkix
from test_dates import BOUNDARIES

from agent.certificate import ANY_EXTENDED_KEY_USAGE, CLIENT_AUTH, SERVER_AUTH, Certificate, read
from agent.policy import evaluate

BR = "cabf.serverauth."
LEAF = f"{BR}subscriber."
EMAIL, CODE = "1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.3"

# Each concern: pkilint's codes, and our findings as "rule severity".
CONCERNS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    name: (frozenset(theirs), frozenset(ours))
    for name, theirs, ours in (
        ("no purpose", [f"{LEAF}extended_key_usage_extension_absent"], ["eku_missing warning"]),
        (
            "not for servers",
            [f"{LEAF}serverauth_eku_absent", f"{LEAF}extended_key_usage_extension_absent"],
            ["server_eku critical"],
        ),
        ("any purpose", [f"{LEAF}anyeku_eku_present"], ["eku_any warning"]),
        (
            "other purposes",
            [f"{LEAF}emailprotection_eku_present", f"{LEAF}codesigning_eku_present"],
            ["eku_extra warning"],
        ),
        ("unreadable", ["itu.invalid_asn1_syntax"], ["cert_extension_malformed critical"]),
        ("no name", [f"{LEAF}subject_altname_extension_absent"], ["san_missing critical"]),
        (
            "no issuer key",
            ["pkix.authority_key_identifier_extension_absent"],
            ["aki_ski_problem warning"],
        ),
        ("short key", ["cabf.rsa_modulus_invalid_length"], ["key_too_small critical"]),
        (
            "small exponent",
            ["cabf.rsa_exponent_not_in_recommended_range"],
            ["rsa_exponent warning"],
        ),
        (
            "other key",
            [f"{BR}prohibited_subject_public_key_algorithm_encoding"],
            ["key_curve critical", "key_type_unusual warning"],
        ),
        ("no key usage", [f"{LEAF}key_usage_extension_absent"], ["ku_missing info"]),
        (
            "may not sign",
            [f"{BR}subscriber_required_ku_missing"],
            ["ku_no_digital_signature critical"],
        ),
        (
            "may issue",
            [f"{BR}subscriber_prohibited_ku_present"],
            ["ku_cert_sign_on_leaf critical"],
        ),
        ("authority", [f"{BR}subscriber_basic_constraints_ca_bit_set"], ["leaf_is_ca critical"]),
        (
            "not revocable",
            [f"{LEAF}revocation_information_absent"],
            ["revocation_info_missing warning"],
        ),
        (
            "too long",
            [
                f"{BR}certificate_validity_period_exceeds_{days}_days"
                for days in (47, 100, 200, 398)
            ],
            ["validity_too_long critical"],
        ),
        (
            "ends first",
            ["pkix.certificate_negative_validity_period"],
            ["validity_negative critical"],
        ),
        (
            "serial number",
            ["pkix.certificate_serial_number_out_of_range"],
            ["serial_bad critical"],
        ),
        (
            "issuer may not issue",
            ["pkix.ca_certificate_keycertsign_keyusage_not_set"],
            ["ca_ku_no_cert_sign critical"],
        ),
    )
}


@dataclass(frozen=True)
class Linter:
    """pkilint for one type of certificate."""

    type: CertificateType

    def codes(self, certificate: Certificate) -> set[str]:
        linter = linter_of(self.type)
        document = loader.RFC5280CertificateDocumentLoader().load_der_document(certificate.der, "-")
        results, _ = finding_filter.filter_results(
            serverauth.create_serverauth_finding_filters(self.type), linter.validate(document.root)
        )
        return {told.finding.code for result in results for told in result.finding_descriptions}


@cache
def linter_of(kind: CertificateType):
    return pkix.create_pkix_certificate_validator_container(
        serverauth.create_decoding_validators(), serverauth.create_validators(kind)
    )


LEAVES = Linter(CertificateType.DV_FINAL_CERTIFICATE)
AUTHORITIES = Linter(CertificateType.INTERNAL_UNCONSTRAINED_TLS_CA)


def theirs(linter: Linter, certificate: Certificate) -> set[str]:
    codes = linter.codes(certificate)
    return {name for name, (wanted, _) in CONCERNS.items() if codes & wanted}


def ours(chain: tuple[Certificate, ...], position: int = 0) -> set[str]:
    """Return what the rules say of one certificate, be it presented by a server or a client."""
    found = {
        f"{violation.rule} {violation.severity}"
        for side in ("server_chain", "client_chain")
        for violation in evaluate(world().evidence(**{side: chain})).violations
        if violation.fingerprint == chain[position].fingerprint_sha256
        and violation.side == side.partition("_")[0]
    }
    return {name for name, (_, wanted) in CONCERNS.items() if found & wanted}


def issuer() -> Hierarchy:
    return world().other_chrome


LOGGED = timestamps(NOW, NOW)


def leaf(**differently) -> Certificate:
    """Return a server's leaf as public authorities make them, for 180 days."""
    wanted: dict[str, object] = {"eku": (SERVER_AUTH,), "extensions": (REVOCABLE, LOGGED)}
    return issuer().leaf(HOST, **(wanted | differently)).facts


def changed(certificate: Certificate, old: bytes, new: bytes) -> Certificate:
    """Return the certificate with bytes of its own exchanged; the signature no longer fits."""
    assert certificate.der.count(old) == 1
    return read(certificate.der.replace(old, new))


def ending_first() -> Certificate:
    sound = leaf(not_before=at("2026-11-01"), not_after=at("2026-12-01"))
    return changed(sound, b"261201000000Z", b"261001000000Z")


def with_a_negative_number() -> Certificate:
    serial = 0x7F << 144
    return changed(
        leaf(serial=serial), b"\x02\x13" + serial.to_bytes(19), b"\x02\x13\xff" + bytes(18)
    )


def lasting(days: int) -> dict[str, object]:
    # The period includes its last second (RFC 5280 §4.1.2.5).
    return {"not_before": NOW, "not_after": NOW + timedelta(days=days, seconds=-1)}


SIGNING = "digital_signature"
MALFORMED = (x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, b"\x30\x03\x01"), False)

VARIANTS = {
    "sound": (leaf, set()),
    "no purpose": (lambda: leaf(eku=None), {"no purpose", "not for servers"}),
    "for clients": (lambda: leaf(eku=(CLIENT_AUTH,)), {"not for servers"}),
    "for both": (lambda: leaf(eku=(CLIENT_AUTH, SERVER_AUTH)), set()),
    "any purpose": (lambda: leaf(eku=(SERVER_AUTH, ANY_EXTENDED_KEY_USAGE)), {"any purpose"}),
    "for e-mail": (lambda: leaf(eku=(SERVER_AUTH, EMAIL)), {"other purposes"}),
    "for code": (lambda: leaf(eku=(SERVER_AUTH, CODE)), {"other purposes"}),
    "broken purpose": (
        lambda: leaf(eku=None, extensions=(REVOCABLE, LOGGED, MALFORMED)),
        {"unreadable"},
    ),
    "no name": (lambda: leaf(names=()), {"no name"}),
    "no issuer key": (lambda: leaf(aki=None), {"no issuer key"}),
    "RSA 1024": (lambda: leaf(key=rsa_key(1024)), {"short key"}),
    "RSA 2048": (lambda: leaf(key=rsa_key()), set()),
    "exponent 3": (lambda: leaf(key=rsa_key(2048, 3)), {"small exponent"}),
    "P-384": (lambda: leaf(key=ec_key("oracle", ec.SECP384R1)), set()),
    "P-521": (lambda: leaf(key=ec_key("oracle", ec.SECP521R1)), set()),
    "secp256k1": (lambda: leaf(key=ec_key("oracle", ec.SECP256K1)), {"other key"}),
    "Ed25519": (lambda: leaf(key=ed25519.Ed25519PrivateKey.generate()), {"other key"}),
    "no key usage": (lambda: leaf(ku=None), {"no key usage"}),
    "may agree only": (lambda: leaf(ku=key_usage("key_agreement")), {"may not sign"}),
    "may certify": (lambda: leaf(ku=key_usage(SIGNING, "key_cert_sign")), {"may issue"}),
    "may sign lists": (lambda: leaf(ku=key_usage(SIGNING, "crl_sign")), {"may issue"}),
    "not revocable": (lambda: leaf(extensions=(LOGGED,)), {"not revocable"}),
    "a week": (lambda: leaf(extensions=(LOGGED,), **lasting(7)), set()),
    "200 days": (lambda: leaf(**lasting(200)), set()),
    "201 days": (lambda: leaf(**lasting(201)), {"too long"}),
    "ends first": (ending_first, {"ends first"}),
    "negative serial number": (with_a_negative_number, {"serial number"}),
    "longest serial number": (lambda: leaf(serial=2**159 - 1), set()),
}


@pytest.mark.parametrize(("made", "concerns"), VARIANTS.values(), ids=list(VARIANTS))
def test_a_leaf_is_judged_alike(made, concerns):
    certificate = made()

    assert theirs(LEAVES, certificate) == concerns
    assert ours((certificate, issuer().intermediate.facts)) == concerns


@pytest.mark.parametrize(
    ("begin", "length", "too_long"),
    # pkilint takes the limit of 2020 for older certificates too.
    [boundary for boundary in BOUNDARIES if boundary[0] >= "2020-09-01"],
)
def test_the_boundaries_of_the_schedule_are_the_same(begin, length, too_long):
    dated = leaf(not_before=at(begin), not_after=at(begin) + length)

    assert ("too long" in theirs(LEAVES, dated)) is too_long
    assert ("too long" in ours((dated, issuer().intermediate.facts))) is too_long


@pytest.mark.parametrize(
    ("usage", "concerns"),
    [
        (("key_cert_sign", "crl_sign"), set()),
        (("crl_sign",), {"issuer may not issue"}),
        (("key_cert_sign",), set()),
    ],
)
def test_an_authority_is_judged_alike(usage, concerns):
    authority = make(
        "Oracle Intermediate",
        issuer().root,
        ca=True,
        path_length=0,
        eku=(SERVER_AUTH,),
        ku=key_usage(*usage),
    )
    made = make(HOST, authority, eku=(SERVER_AUTH,), names=(HOST,))

    assert theirs(AUTHORITIES, authority.facts) == concerns
    assert ours((made.facts, authority.facts), 1) == concerns


def test_of_an_authority_in_a_leafs_place_pkilint_says_more_where_one_cause_is_one_finding():
    certificate = leaf(ca=True, ku=None, **lasting(180))

    assert theirs(LEAVES, certificate) == {"authority", "no key usage"}
    assert ours((certificate, issuer().intermediate.facts)) == {"authority"}


def test_every_concern_is_shown_by_some_certificate():
    shown: Iterable[set[str]] = (concerns for _, concerns in VARIANTS.values())

    assert set().union(*shown) | {"issuer may not issue", "authority"} == set(CONCERNS)


def with_servers_if_any(purposes: set[str]) -> set[str]:
    """Add serverAuth to "any": for pkilint it is missing then, while TLS libraries take any."""
    return purposes | {SERVER_AUTH} if ANY_EXTENDED_KEY_USAGE in purposes else purposes


PURPOSES = st.sets(
    st.sampled_from([SERVER_AUTH, CLIENT_AUTH, ANY_EXTENDED_KEY_USAGE, EMAIL, CODE]), min_size=1
)


@settings(max_examples=40)
@given(
    purposes=st.none() | PURPOSES.map(with_servers_if_any),
    # pkilint says either what is missing or what is too much, so nothing is missing here.
    usages=st.none() | st.sets(st.sampled_from(["key_cert_sign", "crl_sign"])),
    days=st.integers(8, 420),
    named=st.booleans(),
    identified=st.booleans(),
    revocable=st.booleans(),
)
def test_leaves_with_several_defects_are_judged_alike(  # noqa: PLR0917 - hypothesis names them
    purposes, usages, days, named, identified, revocable
):
    given_away = {} if identified else {"aki": None}
    certificate = leaf(
        eku=purposes,
        ku=None if usages is None else key_usage(SIGNING, *usages),
        names=(HOST,) if named else (),
        extensions=(REVOCABLE, LOGGED) if revocable else (LOGGED,),
        **lasting(days),
        **given_away,
    )

    assert ours((certificate, issuer().intermediate.facts)) == theirs(LEAVES, certificate)
