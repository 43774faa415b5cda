"""Any revocation list and any OCSP answer: an answer, and no "good" unless somebody signed it.

The first byte chooses what the rest is: a list or an answer as it comes from the network, or the
content of one, which is then signed: an authority may err, too.
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from fuzz import fixed

from agent.policy.rule import Revocation, RevocationState
from agent.revocation.lists import judge, read_list
from agent.revocation.responder import read_answer, request

DAY = timedelta(days=1)
LIST, ANSWER, LIST_CONTENT, ANSWER_CONTENT = (bytes([kind]) for kind in range(4))
# ecdsa-with-SHA256 (RFC 5758 §3.2) and id-pkix-ocsp-basic (RFC 6960 §4.2.1).
ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")
BASIC = bytes.fromhex("06092b0601050507300101")


@cache
def asked() -> bytes:
    return request(fixed.leaf().facts, fixed.authority().intermediate.facts)


def one_input(data: bytes) -> None:
    kind, rest = bytes([(data or LIST)[0] % 4]), data[1:]
    if kind == LIST:
        assert in_list(rest).state is not RevocationState.GOOD
    elif kind == ANSWER:
        assert in_answer(rest).state is not RevocationState.GOOD
    else:
        as_signed(kind, rest)


def in_list(data: bytes) -> Revocation:
    leaf, issuer = fixed.leaf().facts, fixed.authority().intermediate.facts
    try:
        return judge(read_list(data), leaf, issuer, fixed.AT).revocation
    except ValueError as error:
        return Revocation(RevocationState.UNAVAILABLE, str(error))


def in_answer(data: bytes) -> Revocation:
    issuer = fixed.authority().intermediate.facts
    return read_answer(data, asked(), issuer, fixed.AT).revocation


def as_signed(kind: bytes, content: bytes) -> Revocation:
    if kind == LIST_CONTENT:
        return in_list(signed(content))
    basic = element(0x30, BASIC, element(0x04, signed(content)))
    return in_answer(element(0x30, b"\x0a\x01\x00", element(0xA0, basic)))


def signed(content: bytes) -> bytes:
    key = fixed.authority().intermediate.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(content, ec.ECDSA(hashes.SHA256()))
    return element(0x30, content, ALGORITHM, element(0x03, b"\0", signature))


def element(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    length = bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets
    return bytes([tag]) + length + content


def seeds() -> Iterator[bytes]:
    leaf, issuer = fixed.leaf(), fixed.authority().intermediate
    entry = x509.RevokedCertificateBuilder(leaf.parsed.serial_number, fixed.AT - DAY)
    reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
    revoked = entry.add_extension(reason, critical=False).build()
    builder = x509.CertificateRevocationListBuilder(
        issuer.parsed.subject, fixed.AT - DAY, fixed.AT + DAY
    )
    number = builder.add_extension(x509.CRLNumber(1), critical=False)
    delta = number.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    scope = x509.IssuingDistributionPoint(
        [x509.UniformResourceIdentifier("http://crl.example.com/ca.crl")],
        relative_name=None,
        only_contains_user_certs=True,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    scoped = number.add_extension(scope, critical=True)
    # None of them says good, and rightly: that would end the fuzzing at once.
    for wanted in (number.add_revoked_certificate(revoked), delta, scoped):
        found = wanted.sign(issuer.key, hashes.SHA256())
        if wanted is not scoped:
            yield LIST + found.public_bytes(Encoding.DER)
        yield LIST_CONTENT + found.tbs_certlist_bytes
    answer = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf.parsed,
        issuer=issuer.parsed,
        algorithm=hashes.SHA1(),  # noqa: S303 - names the issuer, as every responder must
        cert_status=ocsp.OCSPCertStatus.REVOKED,
        this_update=fixed.AT - DAY,
        next_update=fixed.AT + DAY,
        revocation_time=fixed.AT - DAY,
        revocation_reason=x509.ReasonFlags.superseded,
    )
    signed_answer = (
        answer.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.parsed)
        .add_extension(x509.OCSPNonce(bytes(32)), critical=False)
        .certificates([issuer.parsed])
        .sign(issuer.key, hashes.SHA256())
    )
    yield ANSWER + signed_answer.public_bytes(Encoding.DER)
    yield ANSWER_CONTENT + signed_answer.tbs_response_bytes
    status = ocsp.OCSPResponseStatus.TRY_LATER
    yield ANSWER + ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
