"""Cases of agent/policy/purpose.py."""

from dataclasses import replace
from datetime import timedelta

from cryptography import x509
from making import (
    CLIENT_NAME,
    HOST,
    NOW,
    case,
    chrome_client,
    chrome_server,
    key_usage,
    make,
)

from agent.certificate import ANY_EXTENDED_KEY_USAGE, CLIENT_AUTH, SERVER_AUTH

BOTH = (CLIENT_AUTH, SERVER_AUTH)
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"
UNDER_CHROME = "client_root_in_chrome_list client warning"


@case("eku_dual", "eku_dual client critical", UNDER_CHROME)
def a_public_client_certificate_for_servers_too(w):
    return w.evidence(client_chain=chrome_client(w, eku=BOTH))


@case("eku_dual", "eku_dual client warning")
def a_private_client_certificate_for_servers_too(w):
    return w.evidence(client_chain=w.clients.chain(eku=BOTH))


@case("eku_dual", UNDER_CHROME)
def a_public_client_certificate_for_clients_only(w):
    return w.evidence(client_chain=chrome_client(w))


@case("eku_no_client_auth", "eku_no_client_auth client critical")
def a_client_certificate_for_servers_only(w):
    return w.evidence(client_chain=w.clients.chain(eku=(SERVER_AUTH,)))


@case("eku_no_client_auth", "eku_no_client_auth client critical")
def a_client_certificate_from_an_authority_for_servers_only(w):
    intermediate = make("Servers Only", w.clients.root, ca=True, path_length=0, eku=(SERVER_AUTH,))
    leaf = make(CLIENT_NAME, intermediate, eku=(SERVER_AUTH,), names=(CLIENT_NAME,))
    return w.evidence(client_chain=(leaf.facts, intermediate.facts))


@case("eku_no_client_auth", "eku_any client warning")
def a_client_certificate_for_any_purpose(w):
    return w.evidence(client_chain=w.clients.chain(eku=(ANY_EXTENDED_KEY_USAGE,)))


@case("eku_missing", "eku_missing client warning")
def a_client_certificate_without_purpose(w):
    return w.evidence(client_chain=w.clients.chain(eku=None))


@case("eku_missing")
def a_server_certificate_without_purpose(w):
    return w.evidence(server_chain=w.servers.chain(HOST, eku=None))


@case("eku_any", "eku_any client warning")
def a_client_certificate_for_clients_and_any_purpose(w):
    return w.evidence(client_chain=w.clients.chain(eku=(CLIENT_AUTH, ANY_EXTENDED_KEY_USAGE)))


@case("eku_any", "eku_any server warning")
def a_server_certificate_for_any_purpose(w):
    return w.evidence(server_chain=w.servers.chain(HOST, eku=(ANY_EXTENDED_KEY_USAGE,)))


@case("eku_any")
def a_client_certificate_for_its_one_purpose(w):
    return w.evidence(client_chain=w.clients.chain(eku=(CLIENT_AUTH,)))


@case("eku_extra", "eku_extra client warning")
def a_client_certificate_for_code_signing_too(w):
    return w.evidence(client_chain=w.clients.chain(eku=(CLIENT_AUTH, CODE_SIGNING)))


@case("eku_extra")
def a_server_certificate_for_its_one_purpose(w):
    return w.evidence(server_chain=w.servers.chain(HOST, eku=(SERVER_AUTH,)))


def with_usage(encoded):
    """Return an extended key usage with this content, readable or not."""
    return x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, encoded), False


@case("eku_empty_or_malformed", "eku_empty_or_malformed client critical")
def an_extended_key_usage_that_names_nothing(w):
    return w.evidence(client_chain=w.clients.chain(eku=None, extensions=(with_usage(b"\x30\x00"),)))


@case("eku_empty_or_malformed", "eku_empty_or_malformed server critical")
def a_public_server_certificate_whose_extended_key_usage_names_nothing(w):
    chain = chrome_server(w, eku=None, extensions=(with_usage(b"\x30\x00"),))
    return w.evidence(server_chain=chain)


@case("eku_empty_or_malformed", "cert_extension_malformed client critical")
def an_extended_key_usage_that_cannot_be_read(w):
    return w.evidence(
        client_chain=w.clients.chain(eku=None, extensions=(with_usage(b"\x30\x03\x01"),))
    )


@case("eku_empty_or_malformed", "eku_missing client warning")
def an_absent_extended_key_usage(w):
    return w.evidence(client_chain=w.clients.chain(eku=None))


@case("ku_no_digital_signature", "ku_no_digital_signature client critical")
def a_client_certificate_that_may_only_encipher(w):
    return w.evidence(client_chain=w.clients.chain(ku=key_usage("key_encipherment")))


@case("ku_no_digital_signature")
def a_client_certificate_that_may_sign_and_encipher(w):
    usage = key_usage("digital_signature", "key_encipherment")
    return w.evidence(client_chain=w.clients.chain(ku=usage))


@case("ku_missing", "ku_missing client info")
def a_client_certificate_without_key_usage(w):
    return w.evidence(client_chain=w.clients.chain(ku=None))


@case("ku_missing")
def a_server_certificate_without_key_usage(w):
    return w.evidence(server_chain=w.servers.chain(HOST, eku=(SERVER_AUTH,), ku=None))


@case("ku_cert_sign_on_leaf", "ku_cert_sign_on_leaf client critical")
def a_client_certificate_that_may_sign_certificates(w):
    usage = key_usage("digital_signature", "key_cert_sign")
    return w.evidence(client_chain=w.clients.chain(ku=usage))


@case("ku_cert_sign_on_leaf")
def a_client_certificate_that_may_sign_the_handshake_only(w):
    return w.evidence(client_chain=w.clients.chain(ku=key_usage("digital_signature")))


@case("leaf_is_ca", "leaf_is_ca client critical")
def a_client_certificate_that_is_an_authority(w):
    usage = key_usage("digital_signature", "key_cert_sign")
    days = timedelta(days=90)
    chain = w.clients.chain(ca=True, ku=usage, not_before=NOW - days, not_after=NOW + days)
    return w.evidence(client_chain=chain)


@case("leaf_is_ca", "leaf_is_ca client critical")
def an_intermediate_deployed_as_the_clients_certificate(w):
    return w.evidence(client_chain=(w.clients.intermediate.facts,))


@case("leaf_is_ca")
def a_client_certificate_without_basic_constraints(w):
    return w.evidence(client_chain=w.clients.chain(constraints=False))


@case("ca_eku_excludes_client_auth", "ca_eku_excludes_client_auth client critical")
def an_intermediate_that_may_issue_for_servers_only(w):
    intermediate = make("Servers Only", w.clients.root, ca=True, path_length=0, eku=(SERVER_AUTH,))
    leaf = make("trap.example.com", intermediate, eku=(CLIENT_AUTH,), names=("trap.example.com",))
    return w.evidence(client_chain=(leaf.facts, intermediate.facts))


@case("ca_eku_excludes_client_auth")
def an_intermediate_that_may_issue_for_clients_too(w):
    intermediate = make("Either", w.clients.root, ca=True, path_length=0, eku=BOTH)
    leaf = make("fine.example.com", intermediate, eku=(CLIENT_AUTH,), names=("fine.example.com",))
    return w.evidence(client_chain=(leaf.facts, intermediate.facts))


@case("ca_eku_missing_public", "ca_eku_missing_public client warning", UNDER_CHROME)
def a_public_intermediate_without_purpose(w):
    intermediate = make("Plain", w.chrome.root, ca=True, path_length=0, organization="Listed Ltd")
    plain = replace(w.chrome, intermediate=intermediate)
    return w.evidence(client_chain=chrome_client(replace(w, chrome=plain)))


@case("ca_eku_missing_public")
def a_private_intermediate_without_purpose(w):
    return w.evidence(client_chain=w.clients.chain())


@case("ca_eku_not_dedicated", "ca_eku_not_dedicated server info")
def an_old_public_intermediate_for_both(w):
    return w.evidence(server_chain=chrome_server(w, w.chrome))


@case("ca_eku_not_dedicated", "ca_eku_not_dedicated server warning")
def a_new_public_intermediate_for_both(w):
    intermediate = make(
        "New For Both",
        w.chrome.root,
        ca=True,
        organization="Listed Ltd",
        eku=BOTH,
        not_before=NOW.replace(month=7),
    )
    new = replace(w.chrome, intermediate=intermediate)
    return w.evidence(server_chain=chrome_server(w, new))


@case("ca_eku_not_dedicated")
def a_public_intermediate_for_servers(w):
    return w.evidence(server_chain=chrome_server(w))


@case("server_eku", "server_eku server critical")
def a_server_certificate_for_clients_only(w):
    return w.evidence(server_chain=w.servers.chain(HOST, eku=(CLIENT_AUTH,)))


@case("server_eku", "server_eku server critical")
def a_public_server_certificate_without_purpose(w):
    return w.evidence(server_chain=chrome_server(w, eku=None))


@case("server_eku")
def a_private_server_certificate_without_purpose(w):
    return w.evidence(server_chain=w.servers.chain(HOST, eku=None))


@case("server_eku", "server_eku server info")
def a_public_server_certificate_for_both_issued_in_time(w):
    return w.evidence(server_chain=chrome_server(w, eku=BOTH))


@case("server_eku")
def a_public_server_certificate_for_servers_only(w):
    return w.evidence(server_chain=chrome_server(w))
