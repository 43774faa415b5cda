"""Cases of agent/policy/server.py and agent/policy/revocation.py."""

from datetime import timedelta

from cryptography import x509
from making import HOST, NOW, REVOCABLE, Hierarchy, case, chrome_server, make, timestamps

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.policy.rule import Revocation, RevocationState
from agent.reason import Reason
from agent.result import Failure


@case("server_untrusted", "server_untrusted server critical")
def a_server_that_the_handshake_did_not_trust(w):
    failure = Failure(Reason.SERVER_UNTRUSTED, "self-signed certificate in certificate chain")
    return w.evidence(server_failure=failure)


@case("server_untrusted")
def a_server_that_the_handshake_trusted(w):
    return w.evidence(server_failure=None)


@case("server_untrusted", "ca_not_ca server critical")
def a_server_that_was_not_trusted_because_its_issuer_is_none(w):
    below = make(HOST, w.servers.leaf("between", eku=None, ku=None), names=(HOST,))
    between = w.servers.leaf("between", eku=None, ku=None).facts
    failure = Failure(Reason.SERVER_UNTRUSTED, "invalid CA certificate")
    chain = (below.facts, between, w.servers.intermediate.facts)
    return w.evidence(server_chain=chain, server_failure=failure)


@case("server_untrusted", "server_untrusted server critical")
def a_server_with_what_openssl_req_makes_when_told_nothing(w):
    begin, end = NOW - timedelta(days=1), NOW + timedelta(days=364)
    own = make(HOST, ca=True, ku=None, names=(HOST,), not_before=begin, not_after=end)
    failure = Failure(Reason.SERVER_UNTRUSTED, "self-signed certificate")
    return w.evidence(server_chain=(own.facts,), server_failure=failure)


@case("server_untrusted", "server_untrusted server critical", "server_eku server info")
def a_server_that_was_not_trusted_and_is_for_clients_too(w):
    chain = w.servers.chain(HOST, eku=(SERVER_AUTH, CLIENT_AUTH))
    failure = Failure(Reason.SERVER_UNTRUSTED, "unable to get local issuer certificate")
    return w.evidence(server_chain=chain, server_failure=failure)


@case("server_hostname_mismatch", "server_hostname_mismatch server critical")
def a_server_certificate_for_another_name(w):
    return w.evidence(server_chain=w.servers.chain("other.example.com", eku=(SERVER_AUTH,)))


@case("server_hostname_mismatch", "server_hostname_mismatch server critical")
def a_wildcard_two_labels_above(w):
    return w.evidence(server_chain=w.servers.chain("*.salesforce.com", eku=(SERVER_AUTH,)))


@case("server_hostname_mismatch")
def a_wildcard_for_the_first_label(w):
    return w.evidence(server_chain=w.servers.chain("*.my.salesforce.com", eku=(SERVER_AUTH,)))


@case("server_hostname_mismatch")
def the_name_that_was_configured_instead(w):
    chain = w.servers.chain("192.0.2.1", eku=(SERVER_AUTH,))
    return w.evidence(server_chain=chain, server_name="192.0.2.1")


@case("server_sct_missing", "server_sct_missing server info")
def a_public_server_certificate_with_one_timestamp(w):
    chain = chrome_server(w, extensions=(REVOCABLE, timestamps(NOW)))
    return w.evidence(server_chain=chain)


@case("server_sct_missing")
def a_private_server_certificate_without_timestamps(w):
    return w.evidence()


def with_features(w, *features):
    stated = (x509.TLSFeature([*features]), False)
    return w.evidence(server_chain=w.servers.chain(HOST, eku=(SERVER_AUTH,), extensions=(stated,)))


@case("server_must_staple", "server_must_staple server info")
def a_server_certificate_that_demands_a_stapled_response(w):
    return with_features(w, x509.TLSFeatureType.status_request)


@case("server_must_staple")
def a_server_certificate_that_demands_another_feature(w):
    return with_features(w, x509.TLSFeatureType.status_request_v2)


@case("server_must_staple", "cert_extension_malformed server critical")
def a_server_certificate_whose_features_cannot_be_read(w):
    broken = (x509.UnrecognizedExtension(x509.TLSFeature.oid, b"\x30\x03\x02"), False)
    return w.evidence(server_chain=w.servers.chain(HOST, eku=(SERVER_AUTH,), extensions=(broken,)))


@case("tls_version", "tls_version server critical")
def tls_1_1(w):
    return w.evidence(tls_version="TLSv1.1")


@case("tls_version", "tls_version server info")
def tls_1_2(w):
    return w.evidence(tls_version="TLSv1.2")


@case("tls_version")
def tls_1_3(w):
    return w.evidence(tls_version="TLSv1.3")


@case("server_root_changed", "server_root_changed server warning")
def a_server_chain_that_led_to_another_root(w):
    before = w.clients.chain(HOST, eku=(SERVER_AUTH,))
    return w.evidence(previous_server_chain=before)


@case("server_root_changed")
def a_server_chain_that_was_renewed_under_its_root(w):
    before = w.servers.chain(HOST, eku=(SERVER_AUTH,), serial=2**90)
    return w.evidence(previous_server_chain=before)


@case("server_issuer_changed", "server_issuer_changed server info")
def a_server_chain_from_another_intermediate_of_its_root(w):
    other = make("Servers Old", w.servers.root, ca=True, path_length=0)
    before = Hierarchy(w.servers.root, other).chain(HOST, eku=(SERVER_AUTH,))
    return w.evidence(previous_server_chain=before)


@case("server_issuer_changed")
def a_server_chain_that_did_not_change(w):
    return w.evidence(previous_server_chain=w.server_chain)


def answered(w, state):
    leaf, intermediate = w.client_chain
    return w.evidence(
        revocation={
            leaf.fingerprint_sha256: Revocation(state, "2026-11-01, key compromise"),
            intermediate.fingerprint_sha256: Revocation(RevocationState.GOOD),
        }
    )


@case("revoked", "revoked client critical")
def a_client_certificate_that_was_revoked(w):
    return answered(w, RevocationState.REVOKED)


@case("revoked")
def a_client_certificate_that_was_not_revoked(w):
    return answered(w, RevocationState.GOOD)


@case("crl_unavailable", "crl_unavailable client warning")
def a_revocation_list_that_cannot_be_fetched(w):
    return answered(w, RevocationState.UNAVAILABLE)


@case("crl_unavailable")
def revocation_that_is_not_asked_for(w):
    return w.evidence(revocation=None)


@case("crl_stale", "crl_stale client warning")
def a_revocation_list_that_is_outdated(w):
    return answered(w, RevocationState.STALE)


@case("crl_stale")
def a_revocation_list_that_is_fresh(w):
    return answered(w, RevocationState.GOOD)


@case("revocation_info_missing", "revocation_info_missing server warning")
def a_public_server_certificate_that_cannot_be_revoked(w):
    return w.evidence(server_chain=chrome_server(w, extensions=(timestamps(NOW, NOW),)))


@case("revocation_info_missing")
def a_public_server_certificate_that_can_be_revoked(w):
    return w.evidence(server_chain=chrome_server(w))
