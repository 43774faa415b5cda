"""OCSP without a network (RFC 6960): what to ask a responder, and what its answer says.

An answer is believed when the issuer's key signed it, or a certificate that the issuer made for
this purpose (§4.2.2.2). No nonce is sent: an answer without one would have to be believed as well
(RFC 5019 §4), so it would prove nothing; that the answer is fresh, its dates tell.
"""

from __future__ import annotations

import warnings
from base64 import b64encode
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent import certificate as certificates
from agent.certificate import Certificate, name_text, parse
from agent.chain import Link, link
from agent.revocation.answer import (
    CLOCK_SKEW,
    UNREADABLE,
    Answer,
    conclude,
    moment,
    unavailable,
)
from agent.revocation.signature import Signed

_OCSP_SIGNING: Final = ExtendedKeyUsageOID.OCSP_SIGNING.dotted_string
_SIGNING: Final = frozenset({"digitalSignature", "nonRepudiation"})
# An answer without nextUpdate says that newer information is always to be had (§4.2.2.1).
_OLDEST_WITHOUT_NEXT_UPDATE: Final = timedelta(days=1)
_MAX_CERTIFICATES: Final = 8


def request(certificate: Certificate, issuer: Certificate) -> bytes:
    """Return the question about one certificate, in DER."""
    # SHA-1 only names the issuer here, and it is the one hash that every responder must know
    # (RFC 5019 §2.1.1).
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        parse(certificate.der),
        parse(issuer.der),
        hashes.SHA1(),  # noqa: S303 - as said above
    )
    return builder.build().public_bytes(serialization.Encoding.DER)


def address(url: str, asked: bytes) -> str:
    """Return where to GET the answer of the responder at `url` (§A.1, RFC 5019 §5)."""
    return f"{url.removesuffix('/')}/{quote(b64encode(asked), safe='')}"


def read_answer(data: bytes, asked: bytes, issuer: Certificate, now: datetime) -> Answer:
    """Return what the answer to the request `asked` says; `issuer` made the certificate."""
    question = ocsp.load_der_ocsp_request(asked)
    try:
        response = ocsp.load_der_ocsp_response(data)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return unavailable(f"answered {response.response_status.name.lower()}")
        signer = _signer(response, issuer, now)
        if isinstance(signer, str):
            return unavailable(signer)
        single = next((s for s in response.responses if _same(s, question)), None)
        if single is None:
            return unavailable("answered about other certificates")
        return _status(single, _to_be_checked(signer, issuer), now)
    except UNREADABLE as error:
        return unavailable(f"gave no usable OCSP answer ({error})")


def _status(single: ocsp.OCSPSingleResponse, delegate: Certificate | None, now: datetime) -> Answer:
    status, begins = single.certificate_status, single.this_update_utc
    if begins > now + CLOCK_SKEW:
        return unavailable(f"gave an answer for the time from {moment(begins)}")
    if status is ocsp.OCSPCertStatus.UNKNOWN:
        return unavailable("does not know the certificate")
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    date = (single.revocation_time_utc or begins) if revoked else None
    last = single.next_update_utc or begins + _OLDEST_WITHOUT_NEXT_UPDATE
    said = conclude(date, single.revocation_reason, last, now)
    return Answer(said, single.next_update_utc, delegate)


def _same(single: ocsp.OCSPSingleResponse, question: ocsp.OCSPRequest) -> bool:
    return (
        single.serial_number == question.serial_number
        and single.hash_algorithm.name == question.hash_algorithm.name
        and single.issuer_name_hash == question.issuer_name_hash
        and single.issuer_key_hash == question.issuer_key_hash
    )


def _signer(response: ocsp.OCSPResponse, issuer: Certificate, now: datetime) -> Certificate | str:
    """Return whose certificate the answer is signed with, or why it is not believed."""
    signed = Signed.read(
        response.signature, response.tbs_response_bytes, response.signature_hash_algorithm
    )
    authorities = (issuer, *_delegates(response, issuer, now))
    named = [authority for authority in authorities if _is_responder(authority, response)]
    if not named:
        return "gave an answer signed by somebody whom the issuer did not ask to"
    found = next((authority for authority in named if signed.by(authority)), None)
    return found or "gave an answer with a wrong signature"


def _delegates(
    response: ocsp.OCSPResponse, issuer: Certificate, now: datetime
) -> list[Certificate]:
    """Return the certificates in the answer whose holders may answer for the issuer."""
    enclosed = [
        certificates.read(c.public_bytes(serialization.Encoding.DER))
        for c in response.certificates[:_MAX_CERTIFICATES]
    ]
    return [
        c
        for c in enclosed
        if c.issuer == issuer.subject
        and _OCSP_SIGNING in (c.extended_key_usage or ())
        and (c.key_usage is None or c.key_usage & _SIGNING)
        and not c.unknown_critical_extensions
        and c.not_before <= now <= c.not_after
        # Not `issued`, which lets key identifiers do where a signature cannot be checked.
        and link(issuer, c) is Link.SIGNED
    ]


def _is_responder(authority: Certificate, response: ocsp.OCSPResponse) -> bool:
    with warnings.catch_warnings(action="ignore"):  # of odd names, as in certificate.parse
        name = response.responder_name
    if name is not None:
        return authority.subject == name_text(name)
    key = x509.SubjectKeyIdentifier.from_public_key(parse(authority.der).public_key()).digest
    return key == response.responder_key_hash


def _to_be_checked(signer: Certificate, issuer: Certificate) -> Certificate | None:
    """Return the signer if it may have been revoked in its turn (§4.2.2.2.1)."""
    if signer == issuer:
        return None
    try:
        parse(signer.der).extensions.get_extension_for_class(x509.OCSPNoCheck)
    except x509.ExtensionNotFound:
        return signer
    return None
