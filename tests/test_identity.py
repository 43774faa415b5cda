"""Which files are a certificate and its key, and what happens when they change."""

from __future__ import annotations

import base64
import datetime as dt
import os
import re
import ssl
from dataclasses import dataclass
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import identity
from agent.identity import Identity, IdentityError, Rotation
from agent.org import ClientIdentity, FromCredential, FromFile, FromVariable
from agent.reason import Reason
from agent.result import Failure

CANARY = "hunter2-canary"
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


def made(subject: str, key, issuer: str, issuer_key) -> x509.Certificate:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]),
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=start,
        not_valid_after=start + dt.timedelta(days=90),
    )
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, algorithm)


@dataclass(frozen=True)
class Pair:
    key: ec.EllipticCurvePrivateKey
    leaf: x509.Certificate
    issuer: x509.Certificate

    @property
    def chain_pem(self) -> bytes:
        return pem(self.leaf) + pem(self.issuer)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)


@cache
def pair(name: str = "leaf") -> Pair:
    return pair_of(ec.generate_private_key(ec.SECP256R1()), name)


def pair_of(key, name: str = "leaf") -> Pair:
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = made("authority", authority, "root", authority)
    return Pair(key, made(name, key, "authority", authority), issuer)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key, kind=PKCS8, encryption=PLAIN) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, kind, encryption)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def source(tmp_path):
    """Return a writer of certificate and key files; without a key both are in one file."""

    def write(certificate: bytes, key: bytes | None = None, passphrase=None) -> ClientIdentity:
        (tmp_path / "cert.pem").write_bytes(certificate)
        where = FromFile(str(tmp_path / "cert.pem"))
        if key is None:
            return ClientIdentity(where, where, passphrase)
        (tmp_path / "key.pem").write_bytes(key)
        return ClientIdentity(where, FromFile(str(tmp_path / "key.pem")), passphrase)

    return write


def read(source: ClientIdentity, **environ: str) -> Identity:
    return identity.read(source, environ=environ)


def failure(source: ClientIdentity, **environ: str) -> Failure:
    with pytest.raises(IdentityError) as caught:
        identity.read(source, environ=environ)
    assert str(caught.value) == str(caught.value.failure)
    assert caught.value.__cause__ is None
    return caught.value.failure


def unreadable(source: ClientIdentity, **environ: str) -> str:
    found = failure(source, **environ)
    assert found.reason is Reason.CLIENT_MATERIAL_UNREADABLE
    return found.detail.replace(source.certificate.path, "CERT").replace(
        source.private_key.path, "KEY"
    )


def subjects(found: Identity) -> list[str]:
    return [facts.subject for facts in found.chain]


# --- what is usable


def test_certificate_and_key_are_read_in_the_order_of_the_files(source):
    found = read(source(pair().chain_pem, pair().key_pem))

    assert subjects(found) == ["CN=leaf", "CN=authority"]
    assert found.leaf is found.chain[0]
    assert found.certificate_pem == pair().chain_pem
    assert found.key_pem.reveal().encode() == pair().key_pem
    assert found.passphrase is None


def test_openssl_takes_what_is_normalised(source, tmp_path):
    messy = b"  text\r\n" + pair().chain_pem.replace(b"\n", b"  \r\n\t")
    found = read(source(messy, pair().key_pem.replace(b"\n", b" \r\n")))
    (tmp_path / "normal.pem").write_bytes(found.certificate_pem + found.key_pem.reveal().encode())

    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(tmp_path / "normal.pem")

    assert found.certificate_pem == pair().chain_pem


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda: (k := rsa_key(), key_pem(k, TRADITIONAL)), id="PKCS#1"),
        pytest.param(lambda: (k := rsa_key(), key_pem(k)), id="PKCS#8 RSA"),
        pytest.param(lambda: (k := pair().key, key_pem(k, TRADITIONAL)), id="SEC1 EC"),
        pytest.param(lambda: (k := pair().key, key_pem(k)), id="PKCS#8 EC"),
        pytest.param(lambda: (k := ed25519.Ed25519PrivateKey.generate(), key_pem(k)), id="Ed25519"),
        pytest.param(
            lambda: (
                k := pair().key,
                b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
                + key_pem(k, TRADITIONAL),
            ),
            id="with EC parameters before it",
        ),
    ],
)
def test_every_usual_format_of_a_key_loads(key, source):
    private, text = key()

    assert subjects(read(source(pair_of(private).chain_pem, text))) == ["CN=leaf", "CN=authority"]


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    "order",
    [(0, 1, 2), (2, 0, 1), (0, 2, 1)],
    ids=["key last", "key first", "key between"],
)
def test_certificate_and_key_may_share_a_file_in_any_order(order, source):
    parts = [pem(pair().leaf), pem(pair().issuer), pair().key_pem]

    found = read(source(b"".join(parts[i] for i in order)))

    assert subjects(found) == ["CN=leaf", "CN=authority"]
    assert found.certificate_pem == pair().chain_pem


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"\n\n  \nBag Attributes\n  friendlyName: x\nsubject=CN = leaf\n" + text,
        lambda text: text.replace(b"-----BEGIN", b" \n # text \n-----BEGIN"),
        lambda text: text + b"\n\n   \ntext",
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"  \n"),
        lambda text: text.replace(b"\n", b"\n  "),
        lambda text: text.rstrip(b"\n"),
        lambda text: b"\xef\xbb\xbf\n" + text,
        lambda text: text.replace(b"BEGIN CERT", b"BEGIN X509 CERT").replace(
            b"END CERT", b"END X509 CERT"
        ),
    ],
    ids=[
        "leading",
        "middle",
        "trailing",
        "CRLF",
        "spaces",
        "indented",
        "no end",
        "BOM",
        "old label",
    ],
)
def test_text_space_and_line_ends_around_and_in_the_blocks_do_no_harm(spoil, source):
    found = read(source(spoil(pair().chain_pem), spoil(pair().key_pem)))

    assert found == read(source(pair().chain_pem, pair().key_pem))


def test_a_systemd_credential_works_for_both(tmp_path):
    (tmp_path / "both").write_bytes(pair().chain_pem + pair().key_pem)
    where = FromCredential("both")

    assert read(ClientIdentity(where, where), CREDENTIALS_DIRECTORY=str(tmp_path)).leaf


# --- encrypted keys

ENCRYPTION = serialization.BestAvailableEncryption(CANARY.encode())
PASSPHRASE = FromVariable("PASSPHRASE")


@pytest.mark.parametrize("kind", [PKCS8, TRADITIONAL], ids=["PKCS#8", "traditional"])
def test_an_encrypted_key_opens_with_its_passphrase_only(kind, source, tmp_path):
    text = key_pem(pair().key, kind, ENCRYPTION)
    with_passphrase = source(pair().chain_pem, text, PASSPHRASE)

    found = read(with_passphrase, PASSPHRASE=CANARY)
    assert found.passphrase is not None
    assert CANARY not in repr(found)
    (tmp_path / "both.pem").write_bytes(found.certificate_pem + found.key_pem.reveal().encode())
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
        tmp_path / "both.pem", password=found.passphrase.reveal()
    )

    wrong = unreadable(with_passphrase, PASSPHRASE="wrong-canary")
    assert wrong.startswith("file KEY: PEM block 1: the passphrase does not open the private key")
    assert "canary" not in wrong
    missing = unreadable(source(pair().chain_pem, text))
    assert missing == (
        "file KEY: PEM block 1 is an encrypted private key; give `private_key_passphrase`"
    )
    unset = unreadable(with_passphrase)
    assert unset == "environment variable PASSPHRASE is not set"


def test_a_passphrase_for_a_key_that_needs_none_is_not_used(source):
    found = read(source(pair().chain_pem, pair().key_pem, PASSPHRASE), PASSPHRASE=CANARY)

    assert found.passphrase is None


# --- what is not usable, and why


def test_a_key_of_another_certificate_is_a_mismatch(source):
    found = failure(source(pair().chain_pem, pair("other").key_pem))

    assert found.reason is Reason.CLIENT_KEY_MISMATCH
    assert "the key in block 1 does not belong to any of the 2 certificates" in found.detail


def test_a_leaf_that_is_not_first_is_a_mismatch_that_says_where_it_is(source):
    chain = pem(pair().issuer) + pem(pair("other").issuer) + pem(pair().leaf)

    found = failure(source(chain, pair().key_pem))

    assert found.reason is Reason.CLIENT_KEY_MISMATCH
    assert "the key belongs to certificate 3 of 3" in found.detail


def block(label: str, body: bytes = b"AAAA") -> bytes:
    return b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (label.encode(), body, label.encode())


def by_message(value: bytes | str) -> str:
    """Name a case by its message: the bytes are made anew in every process."""
    return value if isinstance(value, str) else "file"


LEAF = pem(pair().leaf)


@pytest.mark.parametrize(
    ("certificate", "message"),
    [
        (b"", "file CERT is empty"),
        (b"no PEM at all", "file CERT has no PEM block"),
        (block("CERTIFICATE"), "file CERT: PEM block 1 is not a certificate inside"),
        (LEAF + block("CERTIFICATE", b"!?"), "file CERT: PEM block 2 (certificate) is not base64"),
        (LEAF + block("CERTIFICATE"), "file CERT: PEM block 2 is not a certificate inside"),
        (LEAF + block("CERTIFICATE", b""), "file CERT: PEM block 2 is not a certificate inside"),
        (LEAF + block("GARBAGE"), "file CERT: PEM block 2 is a GARBAGE: only certificates and"),
        (
            LEAF[:-40],
            "file CERT: PEM block 1 (CERTIFICATE) has no end; the file may be half written",
        ),
        (LEAF[:-40] + b"\n" + LEAF, "file CERT: PEM block 1 (CERTIFICATE) has no end"),
        (LEAF + b"-----END CERTIFICATE-----\n", "file CERT: PEM block 2 ends as something that"),
        (
            block("TRUSTED CERTIFICATE"),
            "is a TRUSTED CERTIFICATE: convert it with `openssl x509 -in",
        ),
        (block("CERTIFICATE REQUEST"), "is a CERTIFICATE REQUEST: it is the request"),
        (block("PKCS7"), "is a PKCS7: convert it with `openssl pkcs7 -print_certs"),
        (pair().key_pem, "file CERT has no certificate in its 1 PEM block(s)"),
        (
            der(pair().leaf),
            "is a certificate in DER format, PEM is needed: `openssl x509 -inform DER",
        ),
        (LEAF.decode().encode("utf-16"), "file CERT is UTF-16 text"),
    ],
    ids=by_message,
)
def test_a_certificate_file_that_is_none_is_refused_by_file_and_block(certificate, message, source):
    assert message in unreadable(source(certificate, pair().key_pem))


def test_a_pkcs12_file_is_named_with_the_command_that_converts_it(source):
    store = pkcs12.serialize_key_and_certificates(b"x", pair().key, pair().leaf, None, PLAIN)

    assert "is in PKCS#12 format, PEM is needed: `openssl pkcs12 -in" in unreadable(source(store))


KEY = pair().key_pem
KEY_DER = pair().key.private_bytes(serialization.Encoding.DER, PKCS8, PLAIN)
ENCRYPTED_DER = pair().key.private_bytes(serialization.Encoding.DER, PKCS8, ENCRYPTION)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (b"\n", "file KEY is empty"),
        (LEAF, "file KEY has no private key in its 1 PEM block(s)"),
        (KEY + LEAF + KEY, "file KEY has 2 private keys (PEM blocks 1, 3); leave one"),
        (block("PRIVATE KEY"), "file KEY: PEM block 1 is not a private key inside"),
        (block("RSA PRIVATE KEY"), "file KEY: PEM block 1 is not a private key inside"),
        (
            LEAF + block("EC PRIVATE KEY", b"\xff"),
            "file KEY: PEM block 2 (private key) is not base64",
        ),
        (KEY[:100], "file KEY: PEM block 1 (PRIVATE KEY) has no end; the file may be half written"),
        (block("OPENSSH PRIVATE KEY"), "is a OPENSSH PRIVATE KEY: convert it with `ssh-keygen"),
        (block("PUBLIC KEY"), "is a PUBLIC KEY: it is the public half"),
        (KEY_DER, "is a private key in DER format, PEM is needed: `openssl pkey -inform DER"),
        (ENCRYPTED_DER, "is a private key in DER format, PEM is needed"),
    ],
    ids=by_message,
)
def test_a_key_file_that_is_none_is_refused_by_file_and_block(key, message, source):
    found = unreadable(source(LEAF, key))

    assert message in found
    assert KEY.splitlines()[1].decode() not in found


def test_an_absent_file_is_named(source, tmp_path):
    found = source(LEAF, KEY)
    (tmp_path / "key.pem").unlink()

    assert unreadable(found) == "file KEY cannot be read: No such file or directory"


# --- the digest


def test_the_digest_changes_with_the_certificate_and_not_with_the_text_around_it(source):
    first = read(source(pair().chain_pem, KEY))

    assert read(source(b"text\n" + pair().chain_pem, KEY + b"text\n")).digest == first.digest
    assert read(source(LEAF, KEY)).digest != first.digest
    assert read(source(pair("other").chain_pem, pair("other").key_pem)).digest != first.digest


def test_the_digest_is_not_made_of_the_key_file(source):
    plain = read(source(LEAF, KEY))

    assert read(source(LEAF, key_pem(pair().key, TRADITIONAL))).digest == plain.digest


# --- rotation


def test_a_rotated_pair_is_taken_at_the_next_look(source):
    rotation = Rotation(source(pair().chain_pem, KEY), {})
    first = rotation.refresh()
    assert rotation.refresh() is first

    source(pair("new").chain_pem, pair("new").key_pem)
    second = rotation.refresh()

    assert isinstance(second, Identity)
    assert subjects(second)[0] == "CN=new"
    assert rotation.current is second
    assert (rotation.changes, rotation.failures, rotation.last_failure) == (1, 0, None)


def test_content_counts_and_not_the_time_of_the_file(source, tmp_path):
    rotation = Rotation(source(pair().chain_pem + KEY), {})
    first = rotation.refresh()
    times = (tmp_path / "cert.pem").stat().st_mtime_ns

    source(pair("new").chain_pem + pair("new").key_pem)
    os.utime(tmp_path / "cert.pem", ns=(times, times))
    assert rotation.refresh() != first
    assert rotation.changes == 1

    os.utime(tmp_path / "cert.pem", ns=(0, 0))
    rotation.refresh()
    assert rotation.changes == 1


def test_a_change_of_the_text_around_the_blocks_is_no_new_identity(source):
    rotation = Rotation(source(pair().chain_pem, KEY), {})
    first = rotation.refresh()

    source(b"a comment\n" + pair().chain_pem, KEY)

    assert rotation.refresh() is first
    assert rotation.changes == 0


def test_a_symlink_swap_is_noticed(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "both.pem").write_bytes(pair(name).chain_pem + pair(name).key_pem)
    (tmp_path / "..data").symlink_to("old")
    (tmp_path / "both.pem").symlink_to("..data/both.pem")
    where = FromFile(str(tmp_path / "both.pem"))
    rotation = Rotation(ClientIdentity(where, where), {})
    assert subjects(rotation.refresh())[0] == "CN=old"

    (tmp_path / "..next").symlink_to("new")
    (tmp_path / "..next").rename(tmp_path / "..data")

    assert subjects(rotation.refresh())[0] == "CN=new"


@pytest.mark.parametrize(
    ("certificate", "key", "reason"),
    [
        (pair("new").chain_pem, KEY, Reason.CLIENT_KEY_MISMATCH),
        (pair("new").chain_pem[:300], pair("new").key_pem, Reason.CLIENT_MATERIAL_UNREADABLE),
        (pair("new").chain_pem, b"", Reason.CLIENT_MATERIAL_UNREADABLE),
        (None, pair("new").key_pem, Reason.CLIENT_MATERIAL_UNREADABLE),
    ],
    ids=["only the certificate", "half of it", "empty key", "certificate gone"],
)
def test_a_half_rotated_pair_keeps_the_old_one_counts_once_and_heals(
    certificate, key, reason, source, tmp_path
):
    rotation = Rotation(source(pair().chain_pem, KEY), {})
    first = rotation.refresh()

    source(certificate or b"", key)
    if certificate is None:
        (tmp_path / "cert.pem").unlink()
    assert rotation.refresh() is first
    assert rotation.refresh() is first
    assert (rotation.changes, rotation.failures) == (0, 1)
    assert rotation.last_failure is not None
    assert rotation.last_failure.reason is reason

    source(pair("new").chain_pem, pair("new").key_pem)
    healed = rotation.refresh()
    assert subjects(healed)[0] == "CN=new"
    assert (rotation.changes, rotation.failures, rotation.last_failure) == (1, 1, None)


def test_each_different_bad_content_counts_and_the_old_files_heal_too(source):
    rotation = Rotation(source(pair().chain_pem, KEY), {})
    first = rotation.refresh()
    for wrong in (b"x", b"y", b"y"):
        source(wrong, KEY)
        assert rotation.refresh() is first
    assert rotation.failures == 2

    source(pair().chain_pem, KEY)

    assert rotation.refresh() is first
    assert (rotation.changes, rotation.failures, rotation.last_failure) == (0, 2, None)


def test_without_a_good_pair_there_is_a_failure_until_there_is_one(source):
    rotation = Rotation(source(b"x", KEY), {})
    for _ in range(2):
        found = rotation.refresh()
        assert isinstance(found, Failure)
        assert found.reason is Reason.CLIENT_MATERIAL_UNREADABLE
    assert (rotation.current, rotation.failures) == (None, 1)

    source(pair().chain_pem, KEY)

    assert isinstance(rotation.refresh(), Identity)
    assert (rotation.changes, rotation.last_failure) == (0, None)


def test_a_changed_passphrase_is_a_change(source):
    environ = {"PASSPHRASE": "wrong"}
    text = key_pem(pair().key, PKCS8, ENCRYPTION)
    rotation = Rotation(source(pair().chain_pem, text, PASSPHRASE), environ)
    assert isinstance(rotation.refresh(), Failure)

    environ["PASSPHRASE"] = CANARY

    assert isinstance(rotation.refresh(), Identity)


def test_nothing_that_can_be_printed_shows_a_secret(source):
    environ = {"PASSPHRASE": CANARY}
    files = source(pair().chain_pem, key_pem(pair().key, PKCS8, ENCRYPTION), PASSPHRASE)
    rotation = Rotation(files, environ)
    shown = f"{read(files, **environ)!r} {rotation.refresh()!r} {rotation!r}"

    body = re.sub(r"\s", "", read(files, **environ).key_pem.reveal())[40:80]
    assert CANARY not in shown
    assert body not in re.sub(r"\s|\\n", "", shown)


# --- whatever the bytes are, there is an Identity or an IdentityError

LABELS = st.sampled_from(
    [
        "CERTIFICATE",
        "PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "RSA PRIVATE KEY",
        "EC PRIVATE KEY",
        "X",
    ]
)
BODIES = st.binary(max_size=60) | st.binary(max_size=60).map(base64.b64encode)
BLOCKS = st.lists(st.builds(block, LABELS, BODIES), max_size=4).map(b"".join)


@st.composite
def damaged(draw, good: bytes) -> bytes:
    """Return the DER with a few of its bytes changed."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


FUZZ = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def identity_or_error(source: ClientIdentity) -> None:
    try:
        found = identity.read(source, environ={"PASSPHRASE": "x"})
    except IdentityError:
        assert failure(source, PASSPHRASE="x").detail
    else:
        assert found.chain


@FUZZ
@given(content=st.binary(max_size=200) | BLOCKS | BLOCKS.map(lambda some: some + KEY + LEAF))
def test_arbitrary_bytes_give_an_identity_error_and_no_other(content, source):
    identity_or_error(source(content))
    identity_or_error(source(content, passphrase=PASSPHRASE))


@FUZZ
@given(content=damaged(der(pair().leaf)))
def test_a_damaged_certificate_gives_an_identity_error_or_none(content, source):
    text = ssl.DER_cert_to_PEM_cert(content).encode()

    identity_or_error(source(text + KEY))
    identity_or_error(source(content, KEY))


@FUZZ
@given(content=damaged(KEY_DER))
def test_a_damaged_key_gives_an_identity_error_or_none(content, source):
    identity_or_error(source(LEAF + block("PRIVATE KEY", base64.b64encode(content))))
    identity_or_error(source(LEAF, content))


def test_a_pair_that_whoever_presents_it_cannot_use_is_counted_once_and_the_old_one_stays(source):
    where = source(pair().chain_pem, pair().key_pem)
    rotation = Rotation(where, {})
    old = rotation.refresh()
    source(pair("new").chain_pem, pair("new").key_pem)
    refusal = Failure(Reason.CLIENT_MATERIAL_UNREADABLE, "too weak")
    asked = []

    def refuse(fresh):
        asked.append(fresh.leaf.subject)
        return refusal

    assert [rotation.refresh(refuse) for _ in range(2)] == [old, old]
    assert (rotation.failures, rotation.changes) == (1, 0)
    assert rotation.last_failure == refusal
    assert len(asked) == 1


def test_its_twin_that_can_be_used_replaces_the_old_one(source):
    where = source(pair().chain_pem, pair().key_pem)
    rotation = Rotation(where, {})
    old = rotation.refresh()
    source(pair("new").chain_pem, pair("new").key_pem)
    new = rotation.refresh(lambda _: None)

    assert new != old
    assert (rotation.failures, rotation.changes) == (0, 1)
