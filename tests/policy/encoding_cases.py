"""Cases of agent/policy/encoding.py and agent/policy/verifier.py."""

from dataclasses import replace

from cryptography import x509
from making import CLIENT_NAME, HOST, case, chrome_client, der_of, make, reissued

from agent.certificate import CLIENT_AUTH, SERVER_AUTH

UNDER_CHROME = "client_root_in_chrome_list client warning"
UNKNOWN = x509.ObjectIdentifier("1.3.6.1.4.1.32473.1")  # RFC 5612: for documentation


def numbered(w, *octets):
    """Return evidence with a client's certificate of this serial number, which no library makes."""
    leaf = reissued(
        w.clients.leaf(),
        w.clients.intermediate,
        lambda fields: [fields[0], der_of(0x02, bytes(octets)), *fields[2:]],
    )
    return w.evidence(client_chain=(leaf, w.clients.intermediate.facts))


@case("serial_bad", "serial_bad client critical")
def a_serial_number_that_is_negative(w):
    return numbered(w, 0xFF)


@case("serial_bad", "serial_bad client critical")
def a_serial_number_of_zero(w):
    return numbered(w, 0)


@case("serial_bad", "serial_bad client info")
def a_private_serial_number_that_counts(w):
    return w.evidence(client_chain=w.clients.chain(serial=17))


@case("serial_bad", "serial_bad client warning", UNDER_CHROME)
def a_public_serial_number_that_counts(w):
    return w.evidence(client_chain=chrome_client(w, serial=17))


@case("serial_bad", "serial_bad client critical")
def a_serial_number_of_21_octets(w):
    return numbered(w, 0x01, *bytes(20))


@case("serial_bad")
def the_longest_serial_number(w):
    return w.evidence(client_chain=w.clients.chain(serial=2**159 - 1))


def of_version_1(made, issuer):
    """Return the certificate as it would be of version 1: that has no extensions."""
    return reissued(made, issuer, lambda fields: fields[1:7])


@case("version_not_v3", "version_not_v3 client critical")
def a_client_certificate_of_version_1(w):
    leaf = of_version_1(w.clients.leaf(), w.clients.intermediate)
    return w.evidence(client_chain=(leaf, w.clients.intermediate.facts))


@case("version_not_v3", "version_not_v3 server critical")
def a_public_server_certificate_of_version_1(w):
    issuer = w.other_chrome.intermediate
    leaf = of_version_1(w.other_chrome.leaf(HOST), issuer)
    return w.evidence(server_chain=(leaf, issuer.facts))


@case("version_not_v3")
def a_client_certificate_of_version_3(w):
    leaf = reissued(w.clients.leaf(), w.clients.intermediate, lambda fields: fields)
    return w.evidence(client_chain=(leaf, w.clients.intermediate.facts))


@case(
    "unknown_critical_extension",
    "unknown_critical_extension client critical",
)
def a_critical_extension_that_nobody_understands(w):
    unknown = (x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), True)
    return w.evidence(client_chain=w.clients.chain(extensions=(unknown,)))


@case("unknown_critical_extension")
def an_extension_that_nobody_needs_to_understand(w):
    unknown = (x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), False)
    return w.evidence(client_chain=w.clients.chain(extensions=(unknown,)))


@case(
    "cert_extension_malformed",
    "cert_extension_malformed client critical",
)
def an_extension_that_cannot_be_read(w):
    broken = (x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, b"\x30\x03\x01"), False)
    return w.evidence(client_chain=w.clients.chain(eku=None, extensions=(broken,)))


@case("cert_extension_malformed", "cert_extension_malformed client critical")
def a_key_of_a_kind_that_nobody_knows(w):
    unknown = der_of(0x30, der_of(0x30, bytes.fromhex("06032b657f")), der_of(0x03, bytes(33)))
    leaf = reissued(
        w.clients.leaf(),
        w.clients.intermediate,
        lambda fields: [*fields[:6], unknown, *fields[7:]],
    )
    return w.evidence(client_chain=(leaf, w.clients.intermediate.facts))


@case(
    "cert_extension_malformed",
    "cert_extension_malformed client critical",
    "eku_missing client warning",
    "san_missing client info",
)
def an_intermediate_that_cannot_be_read_above_a_leaf_with_defects_of_its_own(w):
    broken = (x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, b"\x30\x03\x01"), False)
    intermediate = make("Unreadable", w.clients.root, ca=True, extensions=(broken,))
    leaf = make(CLIENT_NAME, intermediate)
    return w.evidence(client_chain=(leaf.facts, intermediate.facts))


@case("cert_extension_malformed")
def extensions_that_can_be_read(w):
    return w.evidence(client_chain=w.clients.chain())


@case("san_missing", "san_missing client info")
def a_client_certificate_without_names(w):
    return w.evidence(client_chain=w.clients.chain(names=()))


@case("san_missing", "san_missing server critical")
def a_server_certificate_without_names(w):
    return w.evidence(server_chain=w.servers.chain(HOST, eku=(SERVER_AUTH,), names=()))


@case("san_missing")
def a_client_certificate_with_an_address_for_a_name(w):
    return w.evidence(client_chain=w.clients.chain(names=("192.0.2.1",)))


def policies(oid):
    return x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier(oid), None)])


@case("policy_oids", "policy_oids client info")
def a_domain_validated_client_certificate(w):
    stated = (policies("2.23.140.1.2.1"), False)
    return w.evidence(client_chain=w.clients.chain(extensions=(stated,)))


@case("policy_oids")
def a_client_certificate_under_its_authoritys_own_policy(w):
    stated = (policies("1.3.6.1.4.1.32473.2"), False)
    return w.evidence(client_chain=w.clients.chain(extensions=(stated,)))


def constrained(w, permitted):
    names = x509.NameConstraints([x509.DNSName(permitted)], None)
    intermediate = make(
        "Constrained", w.clients.root, ca=True, path_length=0, extensions=((names, True),)
    )
    leaf = make("a.example.com", intermediate, eku=(CLIENT_AUTH,), names=("a.example.com",))
    return leaf.facts, intermediate.facts


@case("name_constraint_violated", "name_constraint_violated client critical")
def a_name_that_its_authority_may_not_issue_for(w):
    return w.evidence(client_chain=constrained(w, "example.org"))


@case("name_constraint_violated")
def a_name_that_its_authority_may_issue_for(w):
    return w.evidence(client_chain=constrained(w, "example.com"))


@case("verifier_disagrees", "verifier_disagrees client warning")
def a_critical_extension_that_only_the_verifier_sees(w):
    unknown = (x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), True)
    leaf, intermediate = w.clients.chain(extensions=(unknown,))
    overlooked = replace(leaf, unknown_critical_extensions=())
    return w.evidence(client_chain=(overlooked, intermediate))


@case("verifier_disagrees", "verifier_disagrees client warning", "endpoint_port org critical")
def the_same_at_a_door_that_is_wrong(w):
    return replace(a_critical_extension_that_only_the_verifier_sees(w), port=443)


@case("verifier_disagrees", "unknown_critical_extension client critical")
def a_critical_extension_that_a_rule_sees_too(w):
    unknown = (x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), True)
    return w.evidence(client_chain=w.clients.chain(extensions=(unknown,)))
