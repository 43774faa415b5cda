"""Cases of agent/policy/strength.py."""

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from making import HOST, case, ec_key, make, rsa_key

from agent.certificate import CLIENT_AUTH, SERVER_AUTH, PublicKey


def client_with(w, key=None, **facts):
    """Return the client's chain with another key, or with facts that the library cannot make."""
    leaf, intermediate = w.clients.chain(key=key or ec_key("strength"))
    return w.evidence(client_chain=(replace(leaf, **facts), intermediate))


@case("key_too_small", "key_too_small client critical")
def an_rsa_key_of_1024_bits(w):
    return client_with(w, rsa_key(1024))


@case("key_too_small", "key_too_small client critical")
def an_rsa_key_of_2049_bits(w):
    return client_with(w, public_key=PublicKey("rsa", 2049, exponent=65537))


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
    return client_with(w, public_key=PublicKey("rsa", 2048, exponent=65537))


@case("weak_signature", "weak_signature client critical")
def a_certificate_signed_with_sha1(w):
    return client_with(w, signature_hash="sha1", signature_algorithm="1.2.840.10045.4.1")


@case("weak_signature", "weak_signature client critical")
def a_certificate_signed_with_what_the_library_cannot_name(w):
    return client_with(w, signature_hash=None, signature_algorithm="1.2.840.113549.1.1.2")


@case("weak_signature")
def a_certificate_signed_with_sha256(w):
    return client_with(w, signature_hash="sha256")


def chain_below(w, **differently):
    intermediate = make("Strength Intermediate", w.clients.root, ca=True, **differently)
    leaf = make("s.example.com", intermediate, eku=(CLIENT_AUTH,), names=("s.example.com",))
    return leaf.facts, intermediate.facts


@case("ca_weak", "ca_weak client critical")
def an_intermediate_with_a_small_key(w):
    return w.evidence(client_chain=chain_below(w, key=rsa_key(1024)))


@case("ca_weak", "ca_weak client critical")
def an_intermediate_signed_with_sha1(w):
    leaf, intermediate = w.client_chain
    return w.evidence(client_chain=(leaf, replace(intermediate, signature_hash="sha1")))


@case("ca_weak", "root_included client info")
def a_root_signed_with_sha1(w):
    root = replace(w.clients.root.facts, signature_hash="sha1")
    return w.evidence(client_chain=(*w.client_chain, root))


@case("ca_weak")
def an_intermediate_with_a_sufficient_key(w):
    return w.evidence(client_chain=chain_below(w, key=rsa_key(2048)))
