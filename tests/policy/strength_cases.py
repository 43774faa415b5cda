"""Cases of agent/policy/strength.py."""

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from making import ECDSA_WITH_SHA1, HOST, case, der_of, ec_key, make, reissued, rsa_key

from agent.certificate import CLIENT_AUTH, SERVER_AUTH, PublicKey


def client_with(w, key=None, **facts):
    """Return the client's chain with another key, or with facts that the library cannot make."""
    leaf, intermediate = w.clients.chain(key=key or ec_key("strength"))
    return w.evidence(client_chain=(replace(leaf, **facts), intermediate))


@case("key_too_small", "key_too_small client critical")
def an_rsa_key_of_1024_bits(w):
    return client_with(w, rsa_key(1024))


@case("key_too_small", "key_too_small client critical")
def an_rsa_key_of_2050_bits(w):
    return client_with(w, rsa_key(2050))


@case("key_too_small")
def an_rsa_key_of_2048_bits(w):
    return client_with(w, rsa_key(2048))


@case("key_curve", "key_curve client warning")
def a_client_key_on_another_curve(w):
    return client_with(w, ec_key("k", ec.SECP256K1))


@case("key_curve", "key_curve server critical")
def a_server_key_on_another_curve(w):
    return w.evidence(
        server_chain=w.servers.chain(HOST, eku=(SERVER_AUTH,), key=ec_key("k", ec.SECP256K1))
    )


@case("key_curve")
def a_client_key_on_p384(w):
    return client_with(w, ec_key("p384", ec.SECP384R1))


@case("key_type_unusual", "key_type_unusual client warning")
def an_ed25519_key(w):
    return client_with(w, ed25519.Ed25519PrivateKey.generate())


@case("key_type_unusual")
def an_rsa_key(w):
    return client_with(w, rsa_key())


@case("rsa_exponent", "rsa_exponent client warning")
def an_exponent_of_3(w):
    return client_with(w, rsa_key(2048, 3))


@case("rsa_exponent", "rsa_exponent client critical")
def an_even_exponent(w):
    return client_with(w, public_key=PublicKey("rsa", 2048, exponent=65536))


@case("rsa_exponent", "rsa_exponent client critical")
def an_exponent_of_1(w):
    return client_with(w, public_key=PublicKey("rsa", 2048, exponent=1))


@case("rsa_exponent")
def an_exponent_of_65537(w):
    return client_with(w, rsa_key(2048, 65537))


@case("rsa_exponent", "cert_extension_malformed client critical")
def an_exponent_that_the_library_refuses_to_read(w):
    numbers = rsa_key(2048).public_key().public_numbers()
    pair = der_of(0x30, der_of(0x02, numbers.n.to_bytes(257)), der_of(0x02, b"\x02"))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")  # rsaEncryption (RFC 3279 §2.3.1)
    key = der_of(0x30, algorithm, der_of(0x03, b"\x00", pair))
    leaf = reissued(
        w.clients.leaf(), w.clients.intermediate, lambda fields: [*fields[:6], key, *fields[7:]]
    )
    return w.evidence(client_chain=(leaf, w.clients.intermediate.facts))


def signed_with(made, issuer, algorithm):
    """Return the certificate with another signature algorithm."""
    return reissued(made, issuer, lambda fields: [*fields[:2], algorithm, *fields[3:]])


def client_signed_with(w, algorithm):
    leaf = signed_with(w.clients.leaf(), w.clients.intermediate, algorithm)
    return w.evidence(client_chain=(leaf, w.clients.intermediate.facts))


@case("weak_signature", "weak_signature client critical")
def a_certificate_signed_with_sha1(w):
    return client_signed_with(w, ECDSA_WITH_SHA1)


@case("weak_signature", "weak_signature client critical")
def a_certificate_said_to_be_signed_with_what_the_library_cannot_name(w):
    # md2WithRSAEncryption (RFC 3279 §2.2.1)
    return client_signed_with(w, bytes.fromhex("300d06092a864886f70d0101020500"))


@case("weak_signature")
def a_certificate_signed_with_sha256(w):
    # ecdsa-with-SHA256 (RFC 5758 §3.2)
    return client_signed_with(w, bytes.fromhex("300a06082a8648ce3d040302"))


def chain_below(w, **differently):
    intermediate = make("Strength Intermediate", w.clients.root, ca=True, **differently)
    leaf = make("s.example.com", intermediate, eku=(CLIENT_AUTH,), names=("s.example.com",))
    return leaf.facts, intermediate.facts


@case("ca_weak", "ca_weak client critical")
def an_intermediate_with_a_small_key(w):
    return w.evidence(client_chain=chain_below(w, key=rsa_key(1024)))


@case("ca_weak", "ca_weak client critical")
def an_intermediate_signed_with_sha1(w):
    intermediate = signed_with(w.clients.intermediate, w.clients.root, ECDSA_WITH_SHA1)
    return w.evidence(client_chain=(w.client_chain[0], intermediate))


@case("ca_weak", "root_included client info")
def a_root_signed_with_sha1(w):
    root = signed_with(w.clients.root, w.clients.root, ECDSA_WITH_SHA1)
    known = frozenset({root.fingerprint_sha256, w.clients.root.facts.fingerprint_sha256})
    return w.evidence(client_chain=(*w.client_chain, root), accepted_roots=known)


@case("ca_weak")
def an_intermediate_with_a_sufficient_key(w):
    return w.evidence(client_chain=chain_below(w, key=rsa_key(2048)))
