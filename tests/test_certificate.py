"""What a Certificate says of an encoding, and that odd encodings do not break it."""

import gc
import weakref
from contextlib import suppress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, x25519
from cryptography.x509.oid import AuthorityInformationAccessOID
from hypothesis import given
from hypothesis import strategies as st
from making import NOW, REVOCABLE, ec_key, key_usage, make, rsa_key, timestamps, world

from agent import certificate
from agent.certificate import CLIENT_AUTH, SERVER_AUTH, PublicKey

UNKNOWN = x509.ObjectIdentifier("1.3.6.1.4.1.32473.1")  # RFC 5612: for documentation


def test_a_certificate_is_read_under_the_standards_names():
    issuer = make("Issuer", ca=True, organization="Issuer Ltd", path_length=3)
    made = make(
        "leaf.example.com",
        issuer,
        organization="Example Ltd",
        serial=0x0A1B2C,
        eku=(CLIENT_AUTH, SERVER_AUTH),
        names=("leaf.example.com", "192.0.2.1"),
    )

    found = made.facts

    assert found.subject == "O=Example Ltd,CN=leaf.example.com"
    assert found.issuer == "O=Issuer Ltd,CN=Issuer"
    assert found.organization == "Example Ltd"
    assert found.serial_number == "0a1b2c"
    assert found.not_before == NOW - timedelta(days=60)
    assert found.not_after == NOW + timedelta(days=120)
    assert found.lifetime_seconds == 180 * 86_400 + 1
    assert found.version == 3
    assert not found.is_ca
    assert not found.self_issued
    assert found.extended_key_usage == {CLIENT_AUTH, SERVER_AUTH}
    assert found.key_usage == {"digitalSignature"}
    assert found.subject_alternative_names == ("DNS:leaf.example.com", "IP:192.0.2.1")
    assert found.authority_key_identifier == issuer.facts.subject_key_identifier
    assert found.signature_hash == "sha256"
    assert found.signature_algorithm == "1.2.840.10045.4.3.2"
    assert found.fingerprint_sha256 == made.parsed.fingerprint(hashes.SHA256()).hex()
    assert found.malformed == ()
    assert issuer.facts.is_ca
    assert issuer.facts.path_length == 3
    assert issuer.facts.self_issued


def test_what_is_absent_is_none_or_empty():
    found = make("bare.example.com", ku=None, constraints=False, aki=None).facts

    assert found.extended_key_usage is None
    assert found.key_usage is None
    assert found.path_length is None
    assert found.organization is None
    assert found.authority_key_identifier is None
    assert found.subject_alternative_names == ()
    assert found.ca_issuers == ()
    assert found.ocsp_responders == ()
    assert found.crl_distribution_points == ()
    assert found.certificate_policies == ()
    assert found.signed_certificate_timestamps == ()
    assert found.unknown_critical_extensions == ()


def test_the_places_to_ask_are_read():
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(method, x509.UniformResourceIdentifier(uri))
            for method, uri in (
                (AuthorityInformationAccessOID.CA_ISSUERS, "http://ca.example.com/ca.cer"),
                (AuthorityInformationAccessOID.OCSP, "http://ocsp.example.com"),
            )
        ]
    )
    found = make("leaf.example.com", extensions=((access, False), REVOCABLE)).facts

    assert found.ca_issuers == ("http://ca.example.com/ca.cer",)
    assert found.ocsp_responders == ("http://ocsp.example.com",)
    assert found.crl_distribution_points == ("http://crl.example.com/ca.crl",)


def test_embedded_timestamps_are_read_as_moments():
    found = make("leaf.example.com", extensions=(timestamps(NOW, NOW - timedelta(hours=1)),)).facts

    assert found.signed_certificate_timestamps == (NOW, NOW - timedelta(hours=1))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (ec_key("a"), PublicKey("ec", 256, "secp256r1")),
        (ec_key("b", ec.SECP384R1), PublicKey("ec", 384, "secp384r1")),
        (rsa_key(2048), PublicKey("rsa", 2048, exponent=65537)),
        (ed25519.Ed25519PrivateKey.generate(), PublicKey("ed25519", 256)),
        (ed448.Ed448PrivateKey.generate(), PublicKey("ed448", 456)),
    ],
    ids=lambda value: value.kind if isinstance(value, PublicKey) else "key",
)
def test_a_key_is_read_with_kind_and_size(key, expected):
    assert make("key.example.com", key=key).facts.public_key == expected


def test_only_critical_extensions_that_nobody_understands_are_named():
    def found(*, critical):
        unknown = (x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), critical)
        return make("leaf.example.com", extensions=(unknown,)).facts

    assert found(critical=True).unknown_critical_extensions == ("1.3.6.1.4.1.32473.1",)
    assert found(critical=False).unknown_critical_extensions == ()


def test_one_odd_extension_does_not_hide_the_dates():
    odd = (x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, b"\x30\x03\x01"), False)
    found = make("odd.example.com", extensions=(odd,)).facts

    assert found.not_after == NOW + timedelta(days=120)
    assert found.malformed[0].startswith("extensions: ")
    assert found.extended_key_usage is None


def test_a_certificate_prints_who_it_is_and_until_when():
    assert repr(make("who.example.com").facts) == (
        "<Certificate 'CN=who.example.com' until 2027-03-24>"
    )


def test_reading_the_same_encoding_twice_gives_the_same_value():
    der = bytes(world().client_chain[0].der)

    assert certificate.read(der) == world().client_chain[0]
    assert hash(certificate.read(der)) == hash(world().client_chain[0])


def test_an_authority_may_sign_certificates_and_lists():
    usage = key_usage("key_cert_sign", "crl_sign", "content_commitment", "data_encipherment")
    found = make("Authority", ca=True, ku=usage).facts

    assert found.key_usage == {"keyCertSign", "cRLSign", "nonRepudiation", "dataEncipherment"}


@pytest.mark.parametrize("data", [b"", b"\x30", b"hello", b"\x30\x03\x02\x01\x00"])
def test_what_is_no_certificate_is_a_value_error(data):
    with pytest.raises(ValueError, match=r".+"):
        certificate.read(data)


def changed(made, before, after):
    der = made.facts.der
    assert bytes.fromhex(before) in der
    return der.replace(bytes.fromhex(before), bytes.fromhex(after))


def test_a_version_that_does_not_exist_is_a_value_error():
    with pytest.raises(ValueError, match="not a valid X509 version"):
        certificate.read(changed(make("leaf.example.com"), "a003020102", "a003020109"))


def test_a_key_of_a_kind_that_nobody_knows_does_not_hide_the_rest():
    made = make("leaf.example.com")

    # id-ecPublicKey, with its last arc replaced by one that is not assigned
    found = certificate.read(changed(made, "06072a8648ce3d0201", "06072a8648ce3d027f"))

    assert found.public_key == PublicKey("unknown")
    assert found.malformed[0].startswith("public key: ")
    assert found.not_after == made.facts.not_after
    assert found.subject_public_key_info_sha256 != made.facts.subject_public_key_info_sha256


def test_a_key_that_cannot_sign_is_of_unknown_kind():
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(x25519.X25519PrivateKey.generate().public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
    )
    signed = builder.sign(ec_key("signer"), hashes.SHA256())

    found = certificate.read(signed.public_bytes(serialization.Encoding.DER))

    assert found.public_key == PublicKey("unknown")
    assert found.malformed == ()


def test_dsa_keys_are_read():
    key = dsa.generate_private_key(1024)  # noqa: S505 - it is not to protect anything

    assert make("dsa.example.com", make("Issuer", ca=True), key=key).facts.public_key == PublicKey(
        "dsa", 1024
    )


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_one_changed_byte_gives_a_certificate_or_a_value_error(position, value):
    der = bytearray(world().client_chain[0].der)
    der[position % len(der)] = value

    with suppress(ValueError):
        found = certificate.read(bytes(der))
        assert found.der == bytes(der)


def test_a_name_written_as_a_bit_string_makes_it_no_certificate_and_no_other_error():
    der = make("\x00abc").facts.der
    utf8_string, bit_string = b"\x0c\x04\x00abc", b"\x03\x04\x00abc"
    assert certificate.read(der).subject == "CN=\\00abc"

    with pytest.raises(ValueError, match=r"."):
        certificate.read(der.replace(utf8_string, bit_string))


def test_a_certificate_is_read_once_for_as_long_as_somebody_holds_it():
    der = make("held.example.com").facts.der
    found = certificate.read(der)

    assert certificate.read(bytes(bytearray(der))) is found
    known = weakref.ref(found)
    del found
    gc.collect()
    assert known() is None
