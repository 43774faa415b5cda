"""Cases of agent/policy/renewal.py."""

from making import Hierarchy, case, ec_key, make, rsa_key

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.policy.rule import OtherOrg


def used_elsewhere(w, fingerprint, key):
    return w.evidence(other_orgs=(OtherOrg("emea", fingerprint, key),))


@case("cert_shared_between_orgs", "cert_shared_between_orgs client critical")
def another_org_with_this_certificate(w):
    leaf = w.client_chain[0]
    return used_elsewhere(w, leaf.fingerprint_sha256, leaf.subject_public_key_info_sha256)


@case("cert_shared_between_orgs", "cert_shared_between_orgs client warning")
def another_org_with_this_key(w):
    return used_elsewhere(w, "00", w.client_chain[0].subject_public_key_info_sha256)


@case("cert_shared_between_orgs")
def another_org_with_a_certificate_of_its_own(w):
    return used_elsewhere(w, "00", "00")


@case("uploaded_cert_mismatch", "uploaded_cert_mismatch client critical")
def a_certificate_that_was_not_uploaded(w):
    return w.evidence(uploaded=frozenset({w.server_chain[0].fingerprint_sha256}))


@case("uploaded_cert_mismatch")
def a_certificate_that_was_uploaded_beside_another(w):
    both = (w.client_chain[0], w.server_chain[0])
    return w.evidence(uploaded=frozenset(found.fingerprint_sha256 for found in both))


def renewed(w, before=None, **now):
    old = {"key": ec_key("before"), "serial": 2**90}
    new = {"key": ec_key("after"), "serial": 2**91}
    return w.evidence(
        previous_client_chain=before or w.clients.chain(**old),
        client_chain=w.clients.chain(**(new | now)),
    )


@case("renewed_cert_regressed", "renewed_cert_regressed client critical")
def a_renewal_from_an_authority_that_is_for_servers_only(w):
    issuer = make("Servers Only", w.clients.root, ca=True, path_length=0, eku=(SERVER_AUTH,))
    leaf = Hierarchy(w.clients.root, issuer).leaf(eku=(SERVER_AUTH,), key=ec_key("after"))
    return w.evidence(previous_client_chain=w.client_chain, client_chain=(leaf.facts, issuer.facts))


@case(
    "renewed_cert_regressed",
    "renewed_cert_regressed client warning",
    "eku_no_client_auth client critical",
)
def a_renewal_for_another_subject_that_was_never_for_clients(w):
    before = w.clients.chain("old.example.com", names=(), eku=(SERVER_AUTH,))
    return renewed(w, before=before, eku=(SERVER_AUTH,))


@case("renewed_cert_regressed", "renewed_cert_regressed client critical")
def a_renewal_that_lost_client_auth(w):
    return renewed(w, eku=(SERVER_AUTH,))


@case("renewed_cert_regressed", "renewed_cert_regressed client warning")
def a_renewal_that_lost_a_name(w):
    return renewed(w, names=("other.example.com",))


@case("renewed_cert_regressed", "renewed_cert_regressed client warning")
def a_renewal_under_another_root(w):
    return renewed(w, before=w.servers.chain(key=ec_key("before")))


@case("renewed_cert_regressed", "renewed_cert_regressed client warning")
def a_renewal_for_another_subject(w):
    return renewed(w, before=w.clients.chain("old.example.com", names=()))


@case("renewed_cert_regressed", "renewed_cert_regressed client warning")
def a_renewal_with_a_shorter_key(w):
    return renewed(w, before=w.clients.chain(key=rsa_key(3072)), key=rsa_key(2048))


@case("renewed_cert_regressed")
def no_renewal(w):
    return w.evidence(previous_client_chain=w.client_chain)


@case("renewed_cert_regressed")
def a_renewal_like_the_one_before(w):
    return renewed(w)


@case("renewed_cert_regressed")
def a_renewal_from_another_intermediate_of_the_same_root(w):
    other = make("Clients Old", w.clients.root, ca=True, path_length=0)
    leaf = make(
        "integration.example.com",
        other,
        eku=(CLIENT_AUTH,),
        names=("integration.example.com",),
        key=ec_key("before"),
    )
    return renewed(w, before=(leaf.facts, other.facts))


@case("key_reused", "key_reused client info")
def a_renewal_with_the_old_key(w):
    return renewed(w, key=ec_key("before"))


@case("key_reused")
def a_renewal_with_a_new_key(w):
    return renewed(w)
