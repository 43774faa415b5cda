from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from simulator_client import pki

from agent.certificate import read
from agent.chain import missing_intermediate, path_from_leaf
from agent.credentials import Secret
from agent.simulator.pki import (
    SERVER_NAMES,
    Authority,
    ClientCertificate,
    Issued,
    KeyForm,
    KeyKind,
    Pki,
    ServerCertificate,
)

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def then() -> Pki:
    return Pki.create(AT)


def read_all(issued: Issued):
    return [
        read(certificate.public_bytes(serialization.Encoding.DER))
        for certificate in issued.presented
    ]


def usage(issued: Issued) -> list[x509.ObjectIdentifier]:
    return list(issued.leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def names(issued: Issued) -> x509.SubjectAlternativeName:
    return issued.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def lives(issued: Issued, now: datetime) -> bool:
    return issued.leaf.not_valid_before_utc <= now <= issued.leaf.not_valid_after_utc


def defects(issued: Issued, authority: Authority, purpose: x509.ObjectIdentifier) -> set[str]:
    """Name all that is wrong, so that a case can show that it has its own defect and no other."""
    found = set()
    chain = read_all(issued)
    if issued.leaf.not_valid_after_utc < AT:
        found.add("expired")
    if issued.leaf.not_valid_before_utc > AT:
        found.add("not_yet_valid")
    if usage(issued) != [purpose]:
        found.add("purpose")
    if issued.leaf.issuer == issued.leaf.subject:
        found.add("self_signed")
    elif issued.root != authority.root:
        found.add("unknown")
    if missing_intermediate(chain):
        found.add("intermediate_missing")
    path = path_from_leaf(chain)
    if len(path) < len(set(chain)):
        found.add("unrelated")
    if len(set(chain)) < len(chain):
        found.add("duplicate")
    if "unrelated" not in found and [*path] != [
        c for i, c in enumerate(chain) if c not in chain[:i]
    ]:
        found.add("wrong_order")
    return found


@pytest.mark.parametrize(
    ("defect", "found"),
    [
        (ClientCertificate.GOOD, set()),
        (ClientCertificate.EXPIRING, set()),
        (ClientCertificate.UNKNOWN_CA, {"unknown"}),
        (ClientCertificate.SELF_SIGNED, {"self_signed"}),
        (ClientCertificate.EXPIRED, {"expired"}),
        (ClientCertificate.NOT_YET_VALID, {"not_yet_valid"}),
        (ClientCertificate.SERVER_AUTH_ONLY, {"purpose"}),
        (ClientCertificate.INTERMEDIATE_MISSING, {"intermediate_missing"}),
        (ClientCertificate.WRONG_ORDER, {"wrong_order"}),
    ],
)
def test_a_client_certificate_has_its_own_defect_and_no_other(then, defect, found):
    issued = then.client(defect)

    assert defects(issued, then.clients, ExtendedKeyUsageOID.CLIENT_AUTH) == found


def test_every_client_defect_is_in_the_table_above_or_is_no_certificate_at_all(then):
    assert then.client(ClientCertificate.NONE) is None
    assert len(ClientCertificate) == 10


@pytest.mark.parametrize(
    ("defect", "found"),
    [
        (ServerCertificate.GOOD, set()),
        (ServerCertificate.EXPIRING, set()),
        (ServerCertificate.WRONG_NAME, set()),
        (ServerCertificate.UNKNOWN_ROOT, {"unknown"}),
        (ServerCertificate.SELF_SIGNED, {"self_signed"}),
        (ServerCertificate.EXPIRED, {"expired"}),
        (ServerCertificate.NOT_YET_VALID, {"not_yet_valid"}),
        (ServerCertificate.CLIENT_AUTH_ONLY, {"purpose"}),
        (ServerCertificate.INTERMEDIATE_MISSING, {"intermediate_missing"}),
        (ServerCertificate.WRONG_ORDER, {"wrong_order"}),
        (ServerCertificate.DUPLICATE, {"duplicate"}),
        (ServerCertificate.UNRELATED_EXTRA, {"unrelated"}),
    ],
)
def test_a_server_certificate_has_its_own_defect_and_no_other(then, defect, found):
    issued = then.server(defect)

    assert defects(issued, then.servers, ExtendedKeyUsageOID.SERVER_AUTH) == found
    right_name = "localhost" in names(issued).get_values_for_type(x509.DNSName)
    assert right_name is (defect is not ServerCertificate.WRONG_NAME)


def test_a_server_certificate_is_for_loopback_and_my_domain_names_unless_asked_otherwise(then):
    found = names(then.server())

    assert found.get_values_for_type(x509.DNSName) == list(SERVER_NAMES[:3])
    assert [str(ip) for ip in found.get_values_for_type(x509.IPAddress)] == list(SERVER_NAMES[3:])
    other = names(then.server(names=("door.example",)))
    assert other.get_values_for_type(x509.DNSName) == ["door.example"]


def test_an_expiring_certificate_has_three_days_left(then):
    for issued in (
        then.client(ClientCertificate.EXPIRING),
        then.server(ServerCertificate.EXPIRING),
    ):
        assert lives(issued, AT)
        assert issued.leaf.not_valid_after_utc - AT == timedelta(days=3)


def test_the_three_hierarchies_have_nothing_in_common(then):
    authorities = (then.servers, then.clients, then.strangers)

    assert len({authority.root for authority in authorities}) == 3
    assert len({authority.intermediate for authority in authorities}) == 3


def test_a_good_chain_verifies_under_the_strictest_rules_of_openssl(then):
    for issued in (then.client(), then.server()):
        path = path_from_leaf(read_all(issued))
        assert [c.is_ca for c in path] == [False, True]
        leaf = issued.leaf.extensions
        assert leaf.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        assert leaf.get_extension_for_class(x509.BasicConstraints).critical


def test_an_rsa_hierarchy_has_2048_bit_keys():
    authority = Authority.create("RSA", AT, KeyKind.RSA)
    issued = authority.issue("probe", ExtendedKeyUsageOID.CLIENT_AUTH)

    assert isinstance(issued.key, rsa.RSAPrivateKey)
    assert issued.key.key_size == 2048
    assert b"BEGIN RSA PRIVATE KEY" in issued.key_pem(KeyForm.TRADITIONAL)


@pytest.mark.parametrize(
    ("form", "label"),
    [(KeyForm.PKCS8, b"BEGIN PRIVATE KEY"), (KeyForm.TRADITIONAL, b"BEGIN EC PRIVATE KEY")],
)
def test_a_key_is_written_in_the_form_asked_for_and_is_the_same_key(then, form, label):
    issued = then.client()
    written = issued.key_pem(form)

    assert label in written
    loaded = serialization.load_pem_private_key(written, None)
    assert loaded.public_key() == issued.leaf.public_key()


def test_an_encrypted_key_opens_with_its_passphrase_only(then, tmp_path: Path):
    issued = then.client()
    file = tmp_path / "client.pem"
    file.write_bytes(issued.chain_pem() + issued.key_pem(passphrase=Secret("open sesame")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    context.load_cert_chain(file, password="open sesame")
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain(file, password="open barley")


def test_a_key_is_not_shown(then):
    issued = then.client()

    assert "PRIVATE" not in repr(issued)
    assert "PrivateKey" not in repr(issued)
    assert "PrivateKey" not in repr(then)


def test_the_pki_of_the_tests_is_valid_now():
    assert lives(pki().client(), datetime.now(UTC))
