"""Revocation: what lists and responders say, asked of a server on loopback."""

import asyncio
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest
import structlog
from conftest import require_program
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from making import HOST, NOW, Hierarchy, Made, hierarchy, key_usage, make, rsa_key, world
from revoking import (
    DER,
    STOLEN,
    TOMORROW,
    YESTERDAY,
    Library,
    crl,
    permit_all,
    points,
    serving,
)

from agent.certificate import SERVER_AUTH, Certificate, read
from agent.chain import Anchor, AnchorKind, Anchors, Link, link
from agent.org import RevocationCheck
from agent.policy import evaluate
from agent.policy.rule import Revocation, RevocationState
from agent.probe.dns import Resolver
from agent.revocation import Limits, RevocationChecker, RevocationWatch, pairs
from agent.revocation.checker import Subject, Told
from agent.revocation.fetch import Place, Unanswered, fetch, place, routable
from agent.revocation.lists import judge, read_list
from agent.revocation.responder import read_answer, request
from agent.revocation.watch import Pair

GOOD, REVOKED = RevocationState.GOOD, RevocationState.REVOKED
UNAVAILABLE, STALE = RevocationState.UNAVAILABLE, RevocationState.STALE
HELD = x509.ReasonFlags.certificate_hold
LIST = "http://crl.example.com/ca.crl"
# sha256WithRSAEncryption and sha1WithRSAEncryption differ in the byte after this (RFC 8017 §A.2.4).
RSA_WITH = bytes.fromhex("06092a864886f70d0101")


@asynccontextmanager
async def checking(**differently) -> AsyncIterator[RevocationChecker]:
    checker = RevocationChecker(**({"permitted": permit_all} | differently))
    try:
        yield checker
    finally:
        checker.close()


async def told(made: Made, issuer: Made, *, ocsp: bool = True, **differently) -> Told:
    async with checking(**differently) as checker:
        return await checker.ask(Subject(made.facts, issuer.facts, ocsp), NOW)


async def answer_for(made: Made, issuer: Made, **differently) -> Revocation:
    return (await told(made, issuer, **differently)).revocation


def responders(*urls: str) -> tuple[x509.ExtensionType, bool]:
    method = AuthorityInformationAccessOID.OCSP
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(method, x509.UniformResourceIdentifier(url)) for url in urls]
    ), False


@pytest.fixture(scope="module")
def authority() -> Hierarchy:
    return hierarchy("Revoking")


def leaf(authority: Hierarchy, *extensions: tuple[x509.ExtensionType, bool], **differently) -> Made:
    return authority.leaf(extensions=extensions, **differently)


def scope(**differently) -> tuple[x509.ExtensionType, bool]:
    wanted: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    if "full_name" in differently:
        differently["full_name"] = [x509.UniformResourceIdentifier(differently["full_name"])]
    return x509.IssuingDistributionPoint(**(wanted | differently)), True


def says(data: bytes, made: Made, issuer: Made, now: datetime = NOW) -> Revocation:
    return judge(read_list(data), made.facts, issuer.facts, now).revocation


# --- lists, without a network


def test_a_certificate_that_is_not_on_the_list_is_good(authority):
    made = leaf(authority, points(LIST))
    data = crl(authority.intermediate, 5, 6, 7)

    assert says(data, made, authority.intermediate) == Revocation(GOOD)


@pytest.mark.parametrize("others", [(), (5,), (5, 6, 7)])
def test_a_certificate_on_the_list_is_revoked_with_date_and_reason(authority, others):
    made = leaf(authority, points(LIST))
    data = crl(authority.intermediate, *others, made.parsed.serial_number)

    assert says(data, made, authority.intermediate) == Revocation(
        REVOKED, "says revoked since 2026-11-23 12:00 UTC, keyCompromise"
    )


def test_an_entry_without_a_reason_says_so(authority):
    made = leaf(authority)
    data = crl(authority.intermediate, made.parsed.serial_number, reason=None)

    assert says(data, made, authority.intermediate).detail.endswith("no reason given")


@given(st.lists(st.integers(1, 2**159 - 1), max_size=40, unique=True), st.integers(1, 2**159 - 1))
def test_the_entry_of_a_serial_number_is_the_one_that_the_library_finds(listed, other):
    data = crl(hierarchy("Listed").intermediate, *listed)
    found, theirs = read_list(data), x509.load_der_x509_crl(data)

    for serial in (*listed, other):
        ours = found.entry(serial)
        expected = theirs.get_revoked_certificate_by_serial_number(serial)
        assert (ours and ours.serial_number) == (expected and expected.serial_number)


def test_a_serial_number_inside_another_entry_is_not_an_entry(authority):
    # DER of the small number 5 is 02 01 05: put it into a longer one.
    data = crl(authority.intermediate, int.from_bytes(b"\x02\x01\x05\x11"))

    assert data.count(b"\x02\x01\x05") == 1
    assert read_list(data).entry(5) is None


def test_a_list_of_nothing_is_read_whether_the_entries_are_empty_or_absent(authority):
    made = leaf(authority)

    assert says(crl(authority.intermediate), made, authority.intermediate).state is GOOD


def test_an_armoured_list_is_read_too(authority):
    made = leaf(authority)
    data = crl(authority.intermediate, made.parsed.serial_number)
    armoured = x509.load_der_x509_crl(data).public_bytes(serialization.Encoding.PEM)

    assert says(armoured, made, authority.intermediate).state is REVOKED


@pytest.mark.parametrize(
    ("key", "signing"),
    [
        (rsa_key(), {}),
        (
            rsa_key(),
            {"rsa_padding": padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)},
        ),
        (ed25519.Ed25519PrivateKey.generate(), {}),
    ],
    ids=["rsa", "rsa-pss", "ed25519"],
)
def test_a_list_signed_with_any_usual_kind_of_key_is_believed(key, signing):
    issuer = make("Issuer", ca=True, key=key)
    other = make("Issuer", ca=True)
    made = make("leaf.example.com", issuer)
    data = crl(issuer, **signing)

    assert says(data, made, issuer).state is GOOD
    assert says(data, made, other) == Revocation(UNAVAILABLE, "is not signed with the issuer's key")


def test_a_list_whose_signature_anybody_could_make_is_not_read():
    issuer = make("Issuer", ca=True, key=rsa_key())
    data = crl(issuer)
    claimed = data.replace(RSA_WITH + b"\x0b", RSA_WITH + b"\x05")

    with pytest.raises(ValueError, match="is signed with sha1, which proves nothing"):
        read_list(claimed)
    assert says(data, make("leaf.example.com", issuer), issuer).state is GOOD


def test_a_list_with_a_changed_byte_is_not_believed(authority):
    made = leaf(authority)
    data = crl(authority.intermediate, made.parsed.serial_number)
    wanted = made.parsed.serial_number.to_bytes(20).lstrip(b"\0")
    changed = data.replace(wanted, wanted[:-1] + bytes([wanted[-1] ^ 1]))

    assert changed != data
    assert says(changed, made, authority.intermediate) == Revocation(
        UNAVAILABLE, "is not signed with the issuer's key"
    )


def test_a_list_past_its_next_update_is_stale_and_good_a_moment_before(authority):
    made = leaf(authority)
    data = crl(authority.intermediate, 5)

    assert says(data, made, authority.intermediate, TOMORROW).state is GOOD
    assert says(data, made, authority.intermediate, TOMORROW + timedelta(seconds=1)) == Revocation(
        STALE, "should have been replaced 2026-11-25 12:00 UTC"
    )


@pytest.mark.parametrize(("reason", "state"), [(STOLEN, REVOKED), (None, REVOKED), (HELD, STALE)])
def test_an_old_list_still_revokes_unless_the_certificate_was_only_held(authority, reason, state):
    made = leaf(authority)
    data = crl(authority.intermediate, made.parsed.serial_number, reason=reason)

    assert says(data, made, authority.intermediate).state is REVOKED
    assert says(data, made, authority.intermediate, TOMORROW + timedelta(hours=1)).state is state


def test_a_list_of_the_future_is_not_used(authority):
    made = leaf(authority)
    data = crl(authority.intermediate, this_update=NOW + timedelta(minutes=6))

    found = says(data, made, authority.intermediate)

    assert found == Revocation(UNAVAILABLE, "is valid only from 2026-11-24 12:06 UTC")
    assert says(data, made, authority.intermediate, NOW + timedelta(minutes=2)).state is GOOD


def test_a_list_of_another_authority_is_not_used(authority):
    made = leaf(authority)

    found = says(crl(hierarchy("Stranger").intermediate), made, authority.intermediate)

    assert found == Revocation(UNAVAILABLE, "is a list of another authority")


def test_an_authority_that_may_not_sign_lists_is_not_believed():
    for usage, state in (("key_cert_sign",), UNAVAILABLE), (("key_cert_sign", "crl_sign"), GOOD):
        issuer = make("Issuer", ca=True, ku=key_usage(*usage))
        assert says(crl(issuer), make("leaf.example.com", issuer), issuer).state is state


@pytest.mark.parametrize(
    ("extension", "problem"),
    [
        ((x509.DeltaCRLIndicator(1), True), "holds only the changes since another list (delta)"),
        (scope(indirect_crl=True), "is an indirect list, which is not read"),
        (
            scope(only_some_reasons=frozenset({STOLEN})),
            "covers only some reasons for revocation",
        ),
        (scope(only_contains_attribute_certs=True), "covers only attribute certificates"),
        (scope(only_contains_ca_certs=True), "covers only authorities"),
        (
            scope(full_name="http://crl.example.com/other.crl"),
            "is a list for other certificates of this authority",
        ),
        (
            scope(
                relative_name=x509.RelativeDistinguishedName(
                    [x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")]
                )
            ),
            "is for a place told by a relative name, which is not read",
        ),
        (
            (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
            "has a critical extension that is not understood (1.2.3.4)",
        ),
        ((scope(only_contains_user_certs=True)), None),
        (scope(full_name=LIST), None),
        ((x509.CRLNumber(7), False), None),
        (
            (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False),
            None,
        ),
    ],
)
def test_a_list_that_does_not_cover_the_certificate_is_no_answer(authority, extension, problem):
    made = leaf(authority, points(LIST))
    data = crl(authority.intermediate, made.parsed.serial_number, extensions=(extension,))

    found = says(data, made, authority.intermediate)

    assert (found.state, found.detail if problem else None) == (
        (UNAVAILABLE, problem) if problem else (REVOKED, None)
    )


def test_a_list_of_end_entities_says_nothing_about_an_authority(authority):
    data = crl(authority.root, extensions=(scope(only_contains_user_certs=True),))
    other = crl(authority.root, extensions=(scope(only_contains_ca_certs=True),))

    assert says(data, authority.intermediate, authority.root).state is UNAVAILABLE
    assert says(other, authority.intermediate, authority.root).state is GOOD


def test_a_list_without_a_next_update_is_not_used(authority):
    made = leaf(authority)
    complete = crl(authority.intermediate)
    date = b"\x17\x0d" + f"{TOMORROW:%y%m%d%H%M%SZ}".encode()

    def found(removed: bytes) -> Revocation:
        data = resigned(complete, authority.intermediate, removed)
        return says(data, made, authority.intermediate)

    assert found(date) == Revocation(UNAVAILABLE, "does not say when the next one comes")
    assert found(b"").state is GOOD


def resigned(data: bytes, issuer: Made, removed: bytes) -> bytes:
    """Take a part out of a list and sign the rest."""
    parsed = x509.load_der_x509_crl(data)
    signed = parsed.tbs_certlist_bytes
    algorithm = data[data.index(signed) + len(signed) :]
    content = element(signed[HEADER[signed[1]] :].replace(removed, b""))
    signature = issuer.key.sign(content, ec.ECDSA(hashes.SHA256()))
    return element(
        content
        + algorithm[: 2 + algorithm[1]]
        + b"\x03"
        + bytes([len(signature) + 1, 0])
        + signature
    )


# The length of a DER header, by its second byte: other values are the short form.
HEADER = dict.fromkeys(range(128), 2) | {0x81: 3, 0x82: 4}


def element(content: bytes) -> bytes:
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    length = octets if size < 128 else bytes([0x80 | len(octets)]) + octets
    return b"\x30" + length + content


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x80", b"<html>", b"\x30\x03\x02\x01\x05"])
def test_what_is_no_list_is_said_to_be_none(data):
    with pytest.raises(ValueError, match="is not a revocation list"):
        read_list(data)


def test_an_odd_name_is_read_without_a_warning():
    with pytest.warns(UserWarning, match="Attribute's length must be >= 2 and <= 2"):
        country = x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "Atlantis", _validate=False)
    odd = x509.Name([country])
    root = make("Root", ca=True)
    wanted = x509.CertificateRevocationListBuilder(odd, YESTERDAY, TOMORROW)
    data = wanted.sign(root.key, hashes.SHA256()).public_bytes(DER)

    found = says(data, make("leaf.example.com", root), root)

    assert found == Revocation(UNAVAILABLE, "is a list of another authority")


@cache
def mutable() -> tuple[Made, bytes]:
    made = world().clients.leaf(serial=0x1234567890)
    return made, crl(world().clients.intermediate, made.parsed.serial_number)


def mutated(original: bytes, place_of_it: float, change: int) -> bytes:
    changed = bytearray(original)
    changed[int(place_of_it * len(original))] ^= change
    return bytes(changed)


PLACES = st.floats(0, 1, exclude_max=True)
CHANGES = st.integers(1, 255)


@given(PLACES, CHANGES)
def test_a_mutated_list_says_nothing_or_the_same(position, change):
    # The same: one bit beside the signature counts its unused bits, which are none.
    made, original = mutable()
    issuer = world().clients.intermediate
    try:
        found = says(mutated(original, position, change), made, issuer)
    except ValueError as error:
        found = Revocation(UNAVAILABLE, str(error))

    assert found.state is UNAVAILABLE or found == says(original, made, issuer)
    assert found.detail.split()[0] in {"is", "has", "says"}
    assert says(original, made, issuer).state is REVOKED


# --- answers of responders, without a network


@dataclass(frozen=True)
class Responder:
    """Answers for an authority, with whatever differs from a right answer."""

    authority: Made
    signer: Made | None = None
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    reason: x509.ReasonFlags | None = None
    this_update: datetime = YESTERDAY
    next_update: datetime | None = TOMORROW
    nonce: bytes | None = None
    encoding: ocsp.OCSPResponderEncoding = ocsp.OCSPResponderEncoding.HASH
    enclosed: tuple[Made, ...] = ()
    about: Made | None = None
    algorithm: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)

    def answer(self, made: Made) -> bytes:
        signer = self.signer or self.authority
        revoked = self.status is ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=(self.about or made).parsed,
            issuer=self.authority.parsed,
            algorithm=hashes.SHA1(),  # noqa: S303 - names the issuer, as every responder must
            cert_status=self.status,
            this_update=self.this_update,
            next_update=self.next_update,
            revocation_time=YESTERDAY if revoked else None,
            revocation_reason=self.reason,
        )
        builder = builder.responder_id(self.encoding, signer.parsed)
        if self.enclosed:
            builder = builder.certificates([other.parsed for other in self.enclosed])
        if self.nonce:
            builder = builder.add_extension(x509.OCSPNonce(self.nonce), critical=False)
        return builder.sign(signer.key, self.algorithm).public_bytes(DER)


def heard(responder: Responder, made: Made) -> Revocation:
    asked = request(made.facts, responder.authority.facts)
    return read_answer(responder.answer(made), asked, responder.authority.facts, NOW).revocation


UNHEARD_OF = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def delegate(authority: Hierarchy, issuer: Made | None = None, **differently) -> Made:
    wanted = {"eku": (ExtendedKeyUsageOID.OCSP_SIGNING.dotted_string,)}
    return make("Responder", issuer or authority.intermediate, **(wanted | differently))


@pytest.mark.parametrize("encoding", list(ocsp.OCSPResponderEncoding))
@pytest.mark.parametrize("nonce", [None, bytes(32)])
def test_a_good_answer_is_believed_with_and_without_a_nonce_of_its_own(authority, encoding, nonce):
    responder = Responder(authority.intermediate, encoding=encoding, nonce=nonce)

    assert heard(responder, leaf(authority)) == Revocation(GOOD)


@pytest.mark.parametrize(
    ("reason", "words"), [(STOLEN, "keyCompromise"), (None, "no reason given")]
)
def test_an_answer_tells_date_and_reason_of_a_revocation(authority, reason, words):
    responder = Responder(authority.intermediate, status=ocsp.OCSPCertStatus.REVOKED, reason=reason)

    assert heard(responder, leaf(authority)) == Revocation(
        REVOKED, f"says revoked since 2026-11-23 12:00 UTC, {words}"
    )


def test_a_responder_that_does_not_know_the_certificate_gives_no_answer(authority):
    responder = Responder(authority.intermediate, status=ocsp.OCSPCertStatus.UNKNOWN)

    assert heard(responder, leaf(authority)) == Revocation(
        UNAVAILABLE, "does not know the certificate"
    )


@pytest.mark.parametrize(
    "differently",
    [{}, {"ku": None}, {"extensions": ((UNHEARD_OF, False),)}],
    ids=["usual", "a key for anything", "an extension that nobody knows"],
)
def test_a_certificate_that_the_issuer_made_for_it_may_sign(authority, differently):
    responder = delegate(authority, **differently)

    found = heard(
        Responder(authority.intermediate, signer=responder, enclosed=(responder,)), leaf(authority)
    )

    assert found == Revocation(GOOD)


NOT_ASKED = "gave an answer signed by somebody whom the issuer did not ask to"


@pytest.mark.parametrize(
    "signer",
    [
        lambda a: delegate(a, eku=("1.3.6.1.5.5.7.3.2",)),
        lambda a: delegate(a, eku=None),
        lambda a: delegate(a, issuer=a.root),
        lambda a: delegate(a, issuer=hierarchy("Revoking ").intermediate),
        lambda a: delegate(a, issuer=make("Revoking Intermediate", ca=True, key=rsa_key())),
        lambda a: delegate(a, not_after=NOW - timedelta(seconds=1)),
        lambda a: delegate(a, not_before=NOW + timedelta(seconds=1)),
        lambda a: delegate(a, ku=key_usage("key_encipherment")),
        lambda a: delegate(a, extensions=((UNHEARD_OF, True),)),
    ],
    ids=[
        "other purpose",
        "no purpose",
        "the root made it",
        "another made it",
        "a namesake made it",
        "expired",
        "not yet",
        "a key for something else",
        "a critical extension that nobody knows",
    ],
)
def test_a_certificate_that_was_not_made_for_it_may_not_sign(authority, signer):
    made = signer(authority)

    found = heard(Responder(authority.intermediate, signer=made, enclosed=(made,)), leaf(authority))

    assert found == Revocation(UNAVAILABLE, NOT_ASKED)


def test_a_delegate_whose_own_signature_is_sha1_may_not_sign(authority):
    # Elsewhere key identifiers do for a signature that cannot be checked; here they may not.
    issuer = hierarchy("Old").intermediate
    namesake = make("Old Intermediate", ca=True, key=rsa_key())
    identifier = bytes.fromhex(issuer.facts.subject_key_identifier or "")
    signed = delegate(authority, issuer=namesake, aki=identifier)
    claimed = signed.facts.der.replace(RSA_WITH + b"\x0b", RSA_WITH + b"\x05")
    for der, link_found in ((claimed, Link.IDENTIFIED), (signed.facts.der, Link.BROKEN)):
        forged = Made(read(der), signed.key)
        assert link(issuer.facts, forged.facts) is link_found
        responder = Responder(issuer, signer=forged, enclosed=(forged,))
        assert heard(responder, make("leaf.example.com", issuer)).detail == NOT_ASKED


def test_another_key_under_the_issuers_name_is_not_believed(authority):
    namesake = make("Revoking Intermediate", ca=True, key=rsa_key())

    found = heard(
        Responder(
            authority.intermediate, signer=namesake, encoding=ocsp.OCSPResponderEncoding.NAME
        ),
        leaf(authority),
    )

    assert found == Revocation(UNAVAILABLE, "gave an answer with a wrong signature")


def test_an_answer_to_another_question_is_none(authority):
    other = Responder(authority.intermediate, about=leaf(authority))

    assert heard(other, leaf(authority)) == Revocation(
        UNAVAILABLE, "answered about other certificates"
    )
    assert heard(Responder(authority.intermediate), leaf(authority)) == Revocation(GOOD)


def test_an_answer_about_the_same_number_of_another_authority_is_none(authority):
    issuer, made = authority.intermediate, leaf(authority)
    namesake = make("Revoking Intermediate", ca=True, key=rsa_key())
    asked = request(made.facts, issuer.facts)

    def found(about: Made) -> Revocation:
        data = Responder(about, signer=issuer).answer(made)
        return read_answer(data, asked, issuer.facts, NOW).revocation

    assert found(namesake) == Revocation(UNAVAILABLE, "answered about other certificates")
    assert found(issuer) == Revocation(GOOD)


@pytest.mark.parametrize(("others", "state"), [(7, GOOD), (8, UNAVAILABLE)])
def test_few_of_very_many_certificates_in_an_answer_are_looked_at(authority, others, state):
    signer = delegate(authority)
    enclosed = (*(leaf(authority) for _ in range(others)), signer)
    responder = Responder(authority.intermediate, signer=signer, enclosed=enclosed)

    assert heard(responder, leaf(authority)).state is state


@pytest.mark.parametrize(
    ("this_update", "next_update", "found"),
    [
        (YESTERDAY, NOW, Revocation(GOOD)),
        (
            YESTERDAY,
            NOW - timedelta(seconds=1),
            Revocation(STALE, "should have been replaced 2026-11-24 11:59 UTC"),
        ),
        (YESTERDAY, None, Revocation(GOOD)),
        (
            YESTERDAY - timedelta(seconds=1),
            None,
            Revocation(STALE, "should have been replaced 2026-11-24 11:59 UTC"),
        ),
        (
            NOW + timedelta(minutes=6),
            TOMORROW,
            Revocation(UNAVAILABLE, "gave an answer for the time from 2026-11-24 12:06 UTC"),
        ),
        (NOW + timedelta(minutes=4), TOMORROW, Revocation(GOOD)),
    ],
)
def test_an_answer_counts_in_its_time_only(authority, this_update, next_update, found):
    responder = Responder(authority.intermediate, this_update=this_update, next_update=next_update)

    assert heard(responder, leaf(authority)) == found


@pytest.mark.parametrize("status", [s for s in ocsp.OCSPResponseStatus if s.value])
def test_a_responder_that_declines_is_unavailable(authority, status):
    made = leaf(authority)
    asked = request(made.facts, authority.intermediate.facts)
    declined = ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(DER)

    found = read_answer(declined, asked, authority.intermediate.facts, NOW).revocation

    assert found == Revocation(UNAVAILABLE, f"answered {status.name.lower()}")


@cache
def answered() -> tuple[bytes, bytes, int]:
    """Return a question, a good answer, and how much of it is not the enclosed certificate."""
    w = world().clients
    made, responder = w.leaf(serial=0x1234567890), delegate(w)
    asked = request(made.facts, w.intermediate.facts)
    speaker = Responder(
        w.intermediate,
        signer=responder,
        enclosed=(responder,),
        status=ocsp.OCSPCertStatus.REVOKED,
    )
    answer = speaker.answer(made)
    return asked, answer, len(answer) - len(responder.facts.der)


@given(PLACES, CHANGES)
def test_a_mutated_answer_says_nothing_or_the_same(position, change):
    asked, original, size = answered()
    issuer = world().clients.intermediate.facts
    changed = mutated(original[:size], position, change) + original[size:]
    found = read_answer(changed, asked, issuer, NOW).revocation

    assert (
        found.state is UNAVAILABLE or found == read_answer(original, asked, issuer, NOW).revocation
    )
    assert read_answer(original, asked, issuer, NOW).revocation.state is REVOKED


# --- whom to ask


def evidence(*, server: tuple[Certificate, ...] | None = None, **differently):
    return world().evidence(server_chain=server, **differently)


def test_each_certificate_of_both_chains_is_paired_with_its_issuer():
    w = world()

    assert pairs(w.evidence()) == (
        (w.client_chain[0], w.clients.intermediate.facts),
        (w.clients.intermediate.facts, w.clients.root.facts),
        (w.server_chain[0], w.servers.intermediate.facts),
        (w.servers.intermediate.facts, w.servers.root.facts),
    )


def test_the_clients_own_chain_counts_although_nobody_knows_its_root():
    w = world()
    made, intermediate = w.unknown.chain()

    assert pairs(evidence(client_chain=(made, intermediate))) == ((made, intermediate),)


def test_a_certificate_with_two_issuers_of_one_name_and_key_is_asked_about_once():
    cross = make("Clients Intermediate", world().chrome.root, ca=True)
    made, intermediate = world().client_chain

    found = pairs(evidence(client_chain=(made, intermediate, cross.facts)))

    assert [certificate for certificate, _ in found] == [made, intermediate, cross.facts]


def chain_of(*made: Made) -> tuple[Certificate, ...]:
    return tuple(each.facts for each in made)


def test_a_server_whose_root_nobody_knows_makes_us_ask_nobody():
    w = world()
    stranger = w.unknown
    chain = (*stranger.chain(HOST, eku=(SERVER_AUTH,)), stranger.root.facts)
    known = Anchors([Anchor(stranger.root.facts, AnchorKind.PRIVATE)])

    assert pairs(evidence(client_chain=None, server=chain)) == ()
    assert pairs(evidence(client_chain=None, server=chain, anchors=known)) == tuple(pairwise(chain))


@pytest.mark.parametrize("ca", [True, False])
def test_a_server_that_made_its_own_issuer_out_of_a_leaf_makes_us_ask_nobody(ca):
    w = world()
    usage = key_usage("key_cert_sign", "crl_sign")
    issuer = make("bought.example.com", w.servers.root, ca=ca, ku=usage)
    made = make(HOST, issuer, eku=(SERVER_AUTH,), names=(HOST,))
    chain = chain_of(made, issuer)

    found = pairs(evidence(client_chain=None, server=chain))

    assert found == (tuple(pairwise((*chain, w.servers.root.facts))) if ca else ())


@pytest.mark.parametrize("claimed", [True, False])
def test_a_server_with_a_signature_that_cannot_be_checked_makes_us_ask_nobody(claimed):
    root = make("Old Root", ca=True, key=rsa_key())
    der = make(HOST, root, eku=(SERVER_AUTH,), names=(HOST,)).facts.der
    made = read(der.replace(RSA_WITH + b"\x0b", RSA_WITH + b"\x05") if claimed else der)
    anchors = Anchors([Anchor(root.facts, AnchorKind.PRIVATE)])

    found = pairs(evidence(client_chain=None, server=(made,), anchors=anchors))

    assert link(root.facts, made) is (Link.IDENTIFIED if claimed else Link.SIGNED)
    assert found == (() if claimed else ((made, root.facts),))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://crl.example.com/a.crl", Place("crl.example.com", 80, "/a.crl")),
        ("http://crl.example.com", Place("crl.example.com", 80, "/")),
        ("HTTP://CRL.example.com:8080/a?b=c#d", Place("crl.example.com", 8080, "/a?b=c")),
        ("http://[2001:db8::1]/", Place("2001:db8::1", 80, "/")),
        ("https://crl.example.com/a", Unanswered("is not asked: https, not http")),
        ("ldap:///CN=CA?crl", Unanswered("is not asked: ldap, not http")),
        ("crl.example.com", Unanswered("is not asked: no scheme, not http")),
        ("http://crl.example.com:port/", Unanswered("is no usable URL")),
        ("http://[::1/", Unanswered("is no usable URL")),
        ("http:///a.crl", Unanswered("is no usable URL")),
        ("http://user@crl.example.com/", Unanswered("is no usable URL")),
        ("http://crl.example.com/a b", Unanswered("is no usable URL")),
        ("http://crl.example.com/\r\nX: y", Unanswered("is no usable URL")),
        ("http://crl.example.com/" + "a" * 3000, Unanswered("is no usable URL")),
    ],
)
def test_only_plain_http_urls_are_asked(url, found):
    assert place(url) == found


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("192.0.2.1", True),
        ("10.1.2.3", True),
        ("2001:db8::1", True),
        ("fd00::1", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - refused, not bound
    ],
)
def test_a_certificate_cannot_send_us_to_this_machine_or_beside_it(address, may):
    assert routable(ip_address(address)) is may


async def test_a_name_is_judged_by_the_address_that_is_dialled(library):
    looked_up: list[str] = []

    def look_up(host: str, port: int):
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "192.0.2.1"
        return ((socket.AF_INET, (address, port)),)

    url = f"http://crl.example.com:{library.port}/ca.crl"
    library.publish("/ca.crl", b"a list")

    refused = await fetch(url, 100, Resolver(look_up=look_up), 5.0)
    looked_up.clear()
    answered = await fetch(url, 100, Resolver(look_up=look_up), 5.0, permit_all)

    assert refused == Unanswered("is not asked: its address is on this machine or beside it")
    assert (answered, looked_up, library.asked) == (b"a list", ["crl.example.com"], ["/ca.crl"])


# --- asking


def response(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (response("404 Not Found"), "answered 404"),
        (response("503 Busy", b"later"), "answered 503"),
        (response("204 No Content"), "answered 204"),
        (
            response("302 Found", b"", "Location: http://127.0.0.1/x"),
            "answered with a redirect to 'http://127.0.0.1/x', which is not followed",
        ),
        (
            response("200 OK", b"", "Content-Encoding: gzip"),
            "answered with a Content-Encoding that nobody asked for",
        ),
        (b"<html>captive portal</html>", "is not a revocation list"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "gave no complete HTTP answer"),
        (b"HTTP/9 no\r\n\r\n", "gave no complete HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2001\r\n\r\n", "answered with more than 2000 bytes"),
        (
            b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2001,
            "answered with more than 2000 bytes",
        ),
    ],
)
async def test_what_is_no_list_leaves_the_certificate_unchecked(
    library, authority, answer, problem
):
    made = leaf(authority, points(library.publish("/ca.crl", answer)))

    found = await answer_for(made, authority.intermediate, limits=Limits(list_bytes=2000))

    assert found == Revocation(UNAVAILABLE, f"{library.url('/ca.crl')} {problem}")


async def test_a_list_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(library, authority):
    data = crl(authority.intermediate)
    made = leaf(authority, points(library.publish("/ca.crl", data)))

    async def found(limit: int) -> RevocationState:
        limits = Limits(list_bytes=limit)
        return (await answer_for(made, authority.intermediate, limits=limits)).state

    assert await found(len(data)) is GOOD
    assert await found(len(data) - 1) is UNAVAILABLE


async def test_a_server_that_is_too_slow_leaves_the_certificate_unchecked(library, authority):
    library.gate.clear()
    url = library.publish("/ca.crl", crl(authority.intermediate))
    made = leaf(authority, points(url))

    slow = await answer_for(made, authority.intermediate, limits=Limits(seconds=0.05))
    library.gate.set()
    quick = await answer_for(made, authority.intermediate)

    assert slow == Revocation(UNAVAILABLE, f"{url} gave no whole answer in 0.05 s")
    assert quick == Revocation(GOOD)


async def test_a_refused_connection_leaves_the_certificate_unchecked(authority):
    async with serving(Library().serve) as port:
        pass
    made = leaf(authority, points(f"http://127.0.0.1:{port}/ca.crl"))

    found = await answer_for(made, authority.intermediate)

    assert found.state is UNAVAILABLE
    assert f"could not be reached (127.0.0.1:{port} " in found.detail


async def test_a_name_that_nobody_knows_leaves_the_certificate_unchecked(authority):
    def look_up(host: str, port: int):
        raise socket.gaierror(socket.EAI_NONAME, f"no {host}, least of all on {port}")

    made = leaf(authority, points(LIST))

    found = await answer_for(made, authority.intermediate, resolver=Resolver(look_up=look_up))

    assert found == Revocation(
        UNAVAILABLE,
        f"{LIST} could not be reached (crl.example.com: no crl.example.com, least of all on 80)",
    )


GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
RESET = struct.pack("ii", 1, 0)  # l_onoff, l_linger of SO_LINGER (socket(7))


@pytest.mark.parametrize(
    ("sends", "resets", "found"),
    [
        (b"", False, Unanswered("gave no complete HTTP answer")),
        (b"", True, Unanswered("was lost (Connection reset by peer)")),
        (GO_ON, False, Unanswered("gave no complete HTTP answer")),
        (GO_ON + b"HTTP/1.1 200 OK\r\n\r\na list", False, b"a list"),
        (b"HTTP/1.0 200 OK\r\n\r\na list", False, b"a list"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\na list\r\n0\r\n\r\n",
            False,
            b"a list",
        ),
    ],
    ids=["nothing", "reset", "only to go on", "after a while", "to the end", "in chunks"],
)
async def test_what_is_sent_is_read_to_its_end(sends, resets, found):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sends)
        if resets:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with serving(serve) as port:
        got = await fetch(f"http://127.0.0.1:{port}/", 100, Resolver(), 5.0, permit_all)

    assert got == found


async def test_a_place_on_this_machine_is_not_asked_unless_it_is_permitted(library, authority):
    made = leaf(authority, points(library.publish("/ca.crl", crl(authority.intermediate))))

    found = await answer_for(made, authority.intermediate, permitted=routable)

    assert found == Revocation(
        UNAVAILABLE,
        f"{library.url('/ca.crl')} is not asked: its address is on this machine or beside it",
    )
    assert library.asked == []


async def test_a_place_that_is_not_plain_http_is_skipped_with_the_reason(library, authority):
    good = library.publish("/ca.crl", crl(authority.intermediate))
    urls = ("ldap://ldap.example.com/cn=ca", "https://crl.example.com/ca.crl")
    many = tuple(f"ldap://ldap{number}.example.com/cn=ca" for number in range(5))

    skipped = await answer_for(leaf(authority, points(*urls)), authority.intermediate)
    found = await answer_for(leaf(authority, points(*urls, *many, good)), authority.intermediate)

    assert skipped == Revocation(
        UNAVAILABLE,
        "ldap://ldap.example.com/cn=ca is not asked: ldap, not http; "
        "https://crl.example.com/ca.crl is not asked: https, not http",
    )
    assert found == Revocation(GOOD)
    assert library.asked == ["/ca.crl"]


async def test_few_of_very_many_places_are_asked(library, authority):
    made = leaf(authority, points(*(library.url(f"/{number}.crl") for number in range(50))))

    assert (await answer_for(made, authority.intermediate)).state is UNAVAILABLE
    assert library.asked == ["/0.crl", "/1.crl", "/2.crl", "/3.crl"]


# --- OCSP after the list


def speaking(responder: Responder, made: list[Made]) -> Callable[[bytes], bytes]:
    """Answer about the one of these certificates that is asked about."""

    def answer(question: bytes) -> bytes:
        serial = ocsp.load_der_ocsp_request(question).serial_number
        return responder.answer(next(m for m in made if m.parsed.serial_number == serial))

    return answer


LATE = partial(crl, next_update=NOW - timedelta(hours=1))


@pytest.mark.parametrize(
    ("listed", "wanted", "found"),
    [
        (crl, True, (GOOD, ["/ca.crl"])),
        (LATE, True, (GOOD, ["/ca.crl", "/ocsp"])),
        (None, True, (GOOD, ["/ca.crl", "/ocsp"])),
        (LATE, False, (STALE, ["/ca.crl"])),
        (None, False, (UNAVAILABLE, ["/ca.crl"])),
    ],
    ids=["list good", "list stale", "no list", "list stale, no ocsp", "no list, no ocsp"],
)
async def test_the_responder_is_asked_when_the_list_gives_no_answer(
    library, authority, listed, wanted, found
):
    made: list[Made] = []
    if listed:
        library.publish("/ca.crl", listed(authority.intermediate))
    url = library.publish("/ocsp", speaking(Responder(authority.intermediate), made))
    made.append(leaf(authority, points(library.url("/ca.crl")), responders(url)))

    answer = await answer_for(made[0], authority.intermediate, ocsp=wanted)

    assert (answer.state, library.asked) == found


async def test_when_nobody_answers_the_detail_names_everybody(library, authority):
    made = leaf(
        authority, points(library.url("/ca.crl")), responders(library.publish("/ocsp", b"?"))
    )

    found = await answer_for(made, authority.intermediate)

    assert found.state is UNAVAILABLE
    assert found.detail.startswith(
        f"{library.url('/ca.crl')} answered 404; {library.url('/ocsp')} gave no usable OCSP answer"
    )


async def test_an_answer_over_the_limit_is_not_read(library, authority):
    url = library.publish("/ocsp", b"x" * 65537)

    found = await answer_for(leaf(authority, responders(url)), authority.intermediate)

    assert found == Revocation(UNAVAILABLE, f"{url} answered with more than 65536 bytes")


@pytest.mark.parametrize(
    ("no_check", "listed", "state"),
    [
        (False, "revoked", UNAVAILABLE),
        (False, "others", GOOD),
        (False, "nothing", GOOD),
        (True, "revoked", GOOD),
    ],
)
async def test_a_responder_whose_own_certificate_was_revoked_is_not_believed(
    library, authority, no_check, listed, state
):
    issuer = authority.intermediate
    url = library.url("/delegates.crl")
    extra = ((x509.OCSPNoCheck(), False),) if no_check else ()
    signer = delegate(authority, extensions=(points(url), *extra))
    if listed != "nothing":
        serial = signer.parsed.serial_number if listed == "revoked" else 5
        library.publish("/delegates.crl", crl(issuer, serial))
    made: list[Made] = []
    responder = Responder(issuer, signer=signer, enclosed=(signer,))
    asked = library.publish("/ocsp", speaking(responder, made))
    made.append(leaf(authority, responders(asked)))

    found = await answer_for(made[0], issuer)

    assert found == Revocation(
        state,
        ""
        if state is GOOD
        else f"{asked} answers with a certificate of which {url} says revoked since "
        "2026-11-23 12:00 UTC, keyCompromise",
    )


async def test_an_issuer_that_answers_itself_is_not_asked_about_again(library):
    root = make("Root", ca=True)
    url = library.publish("/root.crl", crl(root))
    issuer = make("Issuer", root, ca=True, extensions=(points(url),))
    made: list[Made] = []
    asked = library.publish("/ocsp", speaking(Responder(issuer), made))
    made.append(make("leaf.example.com", issuer, extensions=(responders(asked),)))

    assert await answer_for(made[0], issuer) == Revocation(GOOD)
    assert library.asked == ["/ocsp"]


# --- what is known to the cycles


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


CRL, BOTH = RevocationCheck.CRL, RevocationCheck.CRL_AND_OCSP


@dataclass
class Watching:
    """A watch at work, with its clock and the count of the bugs that it caught."""

    watch: RevocationWatch
    checker: RevocationChecker
    clock: Clock
    bugs: list[None]

    async def later(self, moment: datetime, *chain: Pair, mode: RevocationCheck = CRL):
        """Let cycles ask at a moment until everything is answered; return what they see then."""
        self.clock.now = moment
        self.watch.answers(chain, mode)
        await self.watch.settled()
        return self.watch.answers(chain, mode)

    async def states(self, moment: datetime, *chain: Pair) -> list[RevocationState]:
        return [answer.state for answer in (await self.later(moment, *chain) or {}).values()]


@asynccontextmanager
async def watching(at_once: int = 4, **differently) -> AsyncIterator[Watching]:
    checker = RevocationChecker(**({"permitted": permit_all} | differently))
    clock, bugs = Clock(), []
    watch = RevocationWatch(checker, clock, at_once=at_once, bug=lambda: bugs.append(None))
    watch.start()
    try:
        yield Watching(watch, checker, clock, bugs)
    finally:
        await watch.aclose()


def pair(authority: Hierarchy, *extensions: tuple[x509.ExtensionType, bool]) -> Pair:
    return leaf(authority, *extensions).facts, authority.intermediate.facts


async def test_a_cycle_sees_what_is_known_and_never_waits(library, authority):
    library.gate.clear()
    made: list[Made] = []
    url = library.publish("/ocsp", speaking(Responder(authority.intermediate), made))
    made.append(leaf(authority, responders(url)))
    chain = [(made[0].facts, authority.intermediate.facts)]
    async with watching() as w:
        first = w.watch.answers(chain, BOTH)
        await library.arrivals.get()
        meanwhile = w.watch.answers(chain, BOTH)
        library.gate.set()
        await w.watch.settled()
        after = w.watch.answers(chain, BOTH)

    assert (first, meanwhile) == (None, None)
    assert after == {made[0].facts.fingerprint_sha256: Revocation(GOOD)}
    assert library.asked == ["/ocsp"]


async def test_a_list_decides_about_each_certificate_of_a_chain(library):
    authority = hierarchy("Chain")
    intermediate = make(
        "Listed", authority.root, ca=True, extensions=(points(library.url("/root.crl")),)
    )
    made = make("a.example.com", intermediate, extensions=(points(library.url("/ca.crl")),))
    library.publish("/root.crl", crl(authority.root, intermediate.parsed.serial_number))
    library.publish("/ca.crl", crl(intermediate))
    chain = chain_of(made, intermediate, authority.root)
    async with watching() as w:
        found = await w.later(NOW, *pairs(evidence(client_chain=chain)))

    assert found == {
        made.facts.fingerprint_sha256: Revocation(GOOD),
        intermediate.facts.fingerprint_sha256: Revocation(
            REVOKED,
            f"{library.url('/root.crl')} says revoked since 2026-11-23 12:00 UTC, keyCompromise",
        ),
    }


@pytest.mark.parametrize(
    ("mode", "found", "asked"),
    [
        (RevocationCheck.OFF, None, []),
        (CRL, None, []),
        (BOTH, Revocation(GOOD), ["/ocsp"]),
    ],
)
async def test_only_those_are_asked_whom_the_operator_wants_asked(
    library, authority, mode, found, asked
):
    made: list[Made] = []
    url = library.publish("/ocsp", speaking(Responder(authority.intermediate), made))
    made.append(leaf(authority, responders(url)))
    async with watching() as w:
        answers = await w.later(NOW, (made[0].facts, authority.intermediate.facts), mode=mode)

    assert answers == (found and {made[0].facts.fingerprint_sha256: found})
    assert library.asked == asked


async def test_two_orgs_may_want_the_same_certificate_checked_differently(library, authority):
    made: list[Made] = []
    responder = speaking(Responder(authority.intermediate), made)
    made.append(
        leaf(
            authority,
            points(library.url("/ca.crl")),
            responders(library.publish("/ocsp", responder)),
        )
    )
    both = (made[0].facts, authority.intermediate.facts)
    async with watching() as w:
        lists_only = await w.later(NOW, both, mode=CRL)
        either = await w.later(NOW, both, mode=BOTH)

    states = [answer.state for found in (lists_only, either) for answer in (found or {}).values()]
    assert states == [UNAVAILABLE, GOOD]


async def test_certificates_of_one_authority_cost_one_fetch(library, authority):
    url = library.publish("/ca.crl", crl(authority.intermediate))
    async with watching() as w:
        found = await w.states(NOW, *(pair(authority, points(url)) for _ in range(20)))

    assert found == [GOOD] * 20
    assert library.asked == ["/ca.crl"]


HOURS, MINUTES, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


@pytest.mark.parametrize(
    ("next_update", "early", "late"),
    [
        (NOW + 2 * HOURS, 96 * MINUTES - SECOND, 2 * HOURS),
        (NOW + 30 * 24 * HOURS, 19.2 * HOURS - SECOND, 24 * HOURS),
        (NOW + 3 * MINUTES, 10 * MINUTES - SECOND, 10 * MINUTES),
        (NOW - 2 * HOURS, 10 * MINUTES - SECOND, 10 * MINUTES),
    ],
    ids=["about its next update", "a day at most", "a pause at least", "after a pause when stale"],
)
async def test_a_list_is_fetched_again_in_the_last_fifth_of_its_time(
    library, authority, next_update, early, late
):
    url = library.publish("/ca.crl", crl(authority.intermediate, next_update=next_update))
    asked = pair(authority, points(url))
    counts = []
    async with watching() as w:
        for moment in (NOW, NOW + early, NOW + late):
            await w.later(moment, asked)
            counts.append(len(library.asked))

    assert counts == [1, 1, 2]


async def test_an_answer_of_a_responder_is_kept_as_long(library, authority):
    made: list[Made] = []
    responder = Responder(authority.intermediate, next_update=NOW + 2 * HOURS)
    made.append(leaf(authority, responders(library.publish("/ocsp", speaking(responder, made)))))
    counts = []
    async with watching() as w:
        for moment in (NOW, NOW + 96 * MINUTES - SECOND, NOW + 2 * HOURS):
            await w.later(moment, (made[0].facts, authority.intermediate.facts), mode=BOTH)
            counts.append(len(library.asked))

    assert counts == [1, 1, 2]


async def test_what_was_asked_together_is_not_asked_together_for_ever(library, authority):
    made: list[Made] = []
    url = library.publish("/ocsp", speaking(Responder(authority.intermediate), made))
    made.extend(leaf(authority, responders(url)) for _ in range(40))
    issuer = authority.intermediate.facts
    async with checking() as checker:
        found = [await checker.ask(Subject(m.facts, issuer, ocsp=True), NOW) for m in made]

    due = [(answer.due - NOW) / (TOMORROW - NOW) for answer in found]
    assert min(due) >= 0.8
    assert max(due) <= 1
    assert max(due) - min(due) > 0.1


async def test_a_revocation_is_seen_when_the_list_is_renewed(library, authority):
    url = library.publish("/ca.crl", crl(authority.intermediate))
    made = leaf(authority, points(url))
    asked = (made.facts, authority.intermediate.facts)
    renewed = crl(authority.intermediate, made.parsed.serial_number, next_update=NOW + 72 * HOURS)
    async with watching() as w:
        before = await w.states(NOW, asked)
        library.publish("/ca.crl", renewed)
        after = await w.states(TOMORROW, asked)

    assert (before, after) == ([GOOD], [REVOKED])


async def test_a_place_that_failed_is_left_alone_for_a_while_whoever_wants_it(library, authority):
    url = library.url("/ca.crl")
    first, second = pair(authority, points(url)), pair(authority, points(url))
    counts = []
    async with watching() as w:
        for minutes in (0, 1, 9, 10, 11, 19, 20):
            await w.later(NOW + minutes * MINUTES, first, second)
            counts.append(len(library.asked))

    assert counts == [1, 1, 1, 2, 2, 2, 3]


async def test_a_list_that_says_nothing_is_fetched_again_after_the_same_while(library, authority):
    stranger = hierarchy("Stranger").intermediate
    asked = pair(authority, points(library.publish("/ca.crl", crl(stranger))))
    states = []
    async with watching() as w:
        for minutes in (0, 9, 10):
            states += await w.states(NOW + minutes * MINUTES, asked)
            library.publish("/ca.crl", crl(authority.intermediate))

    assert states == [UNAVAILABLE, UNAVAILABLE, GOOD]


@pytest.mark.parametrize("revoked", [False, True])
async def test_an_answer_outlives_a_failure_to_renew_it_and_a_revocation_outlives_all(
    library, authority, revoked
):
    last = NOW + 30 * HOURS
    made = leaf(authority, points(library.url("/ca.crl")))
    listed = (made.parsed.serial_number,) if revoked else ()
    library.publish("/ca.crl", crl(authority.intermediate, *listed, next_update=last))
    states = []
    async with watching() as w:
        for moment in (NOW, NOW + 24 * HOURS, last, last + HOURS):
            states += await w.states(moment, (made.facts, authority.intermediate.facts))
            library.answers.clear()

    assert states == ([REVOKED] * 4 if revoked else [GOOD, GOOD, GOOD, UNAVAILABLE])
    assert len(library.asked) == 4


async def test_a_certificate_that_is_taken_off_the_list_is_good_again(library, authority):
    made = leaf(authority, points(library.url("/ca.crl")))
    asked = (made.facts, authority.intermediate.facts)
    serial = made.parsed.serial_number
    library.publish("/ca.crl", crl(authority.intermediate, serial, reason=HELD))
    async with watching() as w:
        held = await w.states(NOW, asked)
        library.publish("/ca.crl", crl(authority.intermediate, next_update=NOW + 72 * HOURS))
        lifted = await w.states(TOMORROW, asked)

    assert (held, lifted) == ([REVOKED], [GOOD])


async def test_lists_are_kept_for_those_who_ask_soon_after_and_then_dropped(library, authority):
    url = library.publish("/ca.crl", crl(authority.intermediate))
    counts = []
    async with watching() as w:
        for minutes in (0, 9, 10):
            moment = NOW + minutes * MINUTES
            await w.later(moment, pair(authority, points(url)))
            counts.append(len(library.asked))
        w.clock.now = NOW + 20 * MINUTES
        w.watch.answers([], CRL)

        assert w.checker._lists == {}
    assert counts == [1, 1, 2]


async def test_lists_over_the_space_for_them_are_dropped_oldest_first(library, authority):
    data = crl(authority.intermediate)
    urls = [library.publish(f"/{number}.crl", data) for number in range(3)]
    async with watching(limits=Limits(kept_list_bytes=2 * len(data))) as w:
        for url in (*urls, urls[2], urls[1], urls[0]):
            await w.later(NOW, pair(authority, points(url)))

    assert library.asked == ["/0.crl", "/1.crl", "/2.crl", "/0.crl"]


async def test_what_no_cycle_asks_for_is_never_fetched_again_and_forgotten(library, authority):
    url = library.publish("/ca.crl", crl(authority.intermediate, next_update=NOW + 96 * HOURS))
    removed, stays = pair(authority, points(url)), pair(authority, points(url))
    async with watching() as w:
        await w.later(NOW, stays, removed)
        known = {}
        for hours in (24, 47, 49):
            await w.later(NOW + hours * HOURS, stays)
            known[hours] = len(w.watch._watched)
        again = w.watch.answers([removed], CRL)

    assert known == {24: 2, 47: 2, 49: 1}
    assert again is None


# --- never too much at once, and nothing left behind


async def test_only_so_many_places_are_asked_at_once(library, authority):
    library.gate.clear()
    data = crl(authority.intermediate)
    chain = [pair(authority, points(library.publish(f"/{n}.crl", data))) for n in range(6)]
    async with watching(at_once=2) as w:
        w.watch.answers(chain, CRL)
        await library.arrivals.get()
        await library.arrivals.get()
        library.gate.set()
        await w.watch.settled()

    assert len(library.asked) == 6
    assert library.most == 2


async def test_a_responder_is_asked_one_thing_at_a_time(library, authority):
    library.seconds = 0.005
    made: list[Made] = []
    url = library.publish("/ocsp", speaking(Responder(authority.intermediate), made))
    made.extend(leaf(authority, responders(url)) for _ in range(8))
    async with watching() as w:
        found = await w.later(
            NOW, *((m.facts, authority.intermediate.facts) for m in made), mode=BOTH
        )

    assert len(found or {}) == 8
    assert library.most == 1


async def test_a_bug_is_counted_and_stops_no_other_check(library, authority):
    def permitted(address: object) -> bool:
        return 1 / (str(address) != "127.0.0.2") > 0

    url = library.publish("/ca.crl", crl(authority.intermediate))
    bad = pair(authority, points(f"http://127.0.0.2:{library.port}/ca.crl"))
    good = pair(authority, points(url))
    async with watching(at_once=1, permitted=permitted) as w:
        with structlog.testing.capture_logs() as entries:
            found = await w.later(NOW, bad, good)
            again = await w.later(NOW + 9 * MINUTES, bad, good)

    assert found == again
    assert found == {
        bad[0].fingerprint_sha256: Revocation(UNAVAILABLE, "a bug in the agent, see the log"),
        good[0].fingerprint_sha256: Revocation(GOOD),
    }
    assert [entry["event"] for entry in entries] == [
        "a bug in the agent stopped a check for revocation"
    ]
    assert len(w.bugs) == 1


async def test_closing_ends_what_is_under_way(library, authority):
    library.gate.clear()
    url = library.publish("/ca.crl", crl(authority.intermediate))
    async with watching() as w:
        w.watch.answers([pair(authority, points(url))], CRL)
        await library.arrivals.get()
        at_work = working()

    assert (len(at_work), working()) == (4, set())
    assert library.concurrent == 1


def working() -> set[str]:
    return {n for task in asyncio.all_tasks() if (n := task.get_name()).startswith("revocation")}


# --- what the policy makes of it


@pytest.mark.parametrize(
    ("publish", "rules"),
    [
        (lambda issuer, _: crl(issuer, 5), set()),
        (crl, {"revoked"}),
        (lambda issuer, _: LATE(issuer, 5), {"crl_stale"}),
        (lambda *_: response("404 Not Found"), {"crl_unavailable"}),
    ],
    ids=["good", "revoked", "stale", "unavailable"],
)
async def test_the_policy_finds_what_the_authority_said(library, publish, rules):
    w = world()
    url = library.url("/ca.crl")
    made = w.clients.leaf(extensions=(points(url),))
    library.publish("/ca.crl", publish(w.clients.intermediate, made.parsed.serial_number))
    seen = w.evidence(client_chain=(made.facts, w.clients.intermediate.facts))
    async with watching() as watched:
        answers = await watched.later(NOW, *pairs(seen))

    found = evaluate(replace(seen, revocation=answers)).violations

    assert {(v.rule, v.side, v.position) for v in found} == {(rule, "client", 0) for rule in rules}
    assert all(url in v.message for v in found)


# --- somebody else's lists and answers


@dataclass(frozen=True)
class OpenSsl:
    """An authority whose lists and answers `openssl ca` and `openssl ocsp` make."""

    program: str
    directory: Path
    issuer: Made

    def run(self, *arguments: str) -> None:
        command = [self.program, *arguments]
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True)

    def write(self, *lines: str) -> None:
        """Write what `openssl ca` keeps; a line for each certificate (its index.txt)."""
        key = self.issuer.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        settings = "[ca]\ndefault_ca=a\n[a]\ndatabase=index.txt\ncrlnumber=crlnumber\n"
        for file, content in {
            "key.pem": key,
            "ca.pem": self.issuer.pem,
            "crlnumber": b"01\n",
            "ca.cnf": f"{settings}default_md=sha256\ndefault_crl_days=1\n".encode(),
            "index.txt": "".join(f"{line}\tunknown\t/CN=x\n" for line in lines).encode(),
        }.items():
            (self.directory / file).write_bytes(content)

    def list(self) -> bytes:
        where = ("-config", "ca.cnf", "-keyfile", "key.pem", "-cert", "ca.pem", "-out", "ca.crl")
        self.run("ca", "-gencrl", *where)
        return (self.directory / "ca.crl").read_bytes()

    @contextmanager
    def responder(self) -> Iterator[str]:
        """Let it answer and give its URL."""
        keys = ("-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "key.pem")
        command = (self.program, "ocsp", "-index", "index.txt", *keys, "-ndays", "1", "-port", "0")
        with subprocess.Popen(command, cwd=self.directory, stdout=subprocess.PIPE) as process:
            try:
                # ACCEPT [::]:37123 PID=4711
                listening = process.stdout.readline().decode().split()[1]
                yield f"http://127.0.0.1:{listening.rpartition(':')[2]}/"
            finally:
                process.terminate()


def indexed(serial: int, revoked: str = "") -> str:
    digits = f"{serial:X}"
    state = "R" if revoked else "V"
    return f"{state}\t360101000000Z\t{revoked}\t{digits.zfill(len(digits) + len(digits) % 2)}"


@pytest.mark.component
async def test_the_lists_and_answers_of_openssl_are_understood(library, tmp_path):
    authority = hierarchy("OpenSSL")
    openssl = OpenSsl(require_program("openssl"), tmp_path, authority.intermediate)
    good, stolen = 0x1234567890, 0x9876543210
    openssl.write(indexed(good), indexed(stolen, "260101000000Z,keyCompromise"))
    by_list = points(library.publish("/ca.crl", openssl.list()))
    found: dict[str, list[Revocation]] = {}
    with openssl.responder() as url:
        async with checking() as checker:
            for extension in (by_list, responders(url)):
                for serial in (good, stolen):
                    made = leaf(authority, extension, serial=serial)
                    subject = Subject(made.facts, authority.intermediate.facts, ocsp=True)
                    answer = await checker.ask(subject, datetime.now(UTC))
                    found.setdefault(f"{serial:x}", []).append(answer.revocation)

    why = "says revoked since 2026-01-01 00:00 UTC, keyCompromise"
    assert found == {
        f"{good:x}": [Revocation(GOOD)] * 2,
        f"{stolen:x}": [
            Revocation(REVOKED, f"{library.url('/ca.crl')} {why}"),
            Revocation(REVOKED, f"{url} {why}"),
        ],
    }
