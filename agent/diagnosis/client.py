"""Causes in our own certificate and key, or in what the server makes of them.

The same cause has other alerts on other stacks and some only close, so the server's word says how
sure a defect of our own file is as the cause; that there is one, the policy has found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.diagnosis.cause import Case, Confidence, Known, Row, Suspicion, add, cause, rows
from agent.policy import CATALOGUE as RULES
from agent.policy.rule import Severity, Violation
from agent.reason import Reason
from agent.result import ClientAuth, Probe

CERTAIN, LIKELY, POSSIBLE = Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE

_KB: Final = "https://help.salesforce.com/s/articleView?id=000383575"
_HELP: Final = "Salesforce Help: Configure Your API Client to Use Mutual Authentication"
_ROOTS: Final = "https://help.salesforce.com/s/articleView?id=000385468"
_REVOKED: Final = f"{_KB} (revocation is checked)"
_ALERTS: Final = "RFC 8446 §6.2"


class Complaint(Enum):
    """What a server holds against a certificate, when it says so."""

    ABSENT = "absent"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    UNTRUSTED = "untrusted"
    SELF_SIGNED = "self_signed"
    PURPOSE = "purpose"
    REVOKED = "revoked"
    PROOF = "proof"
    UNSAID = "unsaid"


# The others are all that some stack has for every defect: bad_certificate (Go, Java without one),
# certificate_unknown (Java), access_denied (GnuTLS), handshake_failure.
_BY_ALERT: Final[Mapping[str, Complaint]] = {
    "certificate_required": Complaint.ABSENT,
    "no_certificate": Complaint.ABSENT,
    "certificate_expired": Complaint.EXPIRED,
    "unknown_ca": Complaint.UNTRUSTED,
    "unsupported_certificate": Complaint.PURPOSE,
    "certificate_revoked": Complaint.REVOKED,
    "decrypt_error": Complaint.PROOF,
}
# Salesforce's page shows OpenSSL's words (X509_verify_cert_error_string); "self signed" and
# "unsupported … purpose" are those of OpenSSL 1.1.1. nginx has words of its own for none.
_BY_PAGE: Final[Mapping[str, Complaint]] = {
    "no client certificate provided": Complaint.ABSENT,
    "no required ssl certificate was sent": Complaint.ABSENT,
    "certificate has expired": Complaint.EXPIRED,
    "certificate is not yet valid": Complaint.NOT_YET_VALID,
    "unable to get local issuer certificate": Complaint.UNTRUSTED,
    "unable to get issuer certificate": Complaint.UNTRUSTED,
    "unable to verify the first certificate": Complaint.UNTRUSTED,
    "self-signed certificate in certificate chain": Complaint.UNTRUSTED,
    "self signed certificate in certificate chain": Complaint.UNTRUSTED,
    "self-signed certificate": Complaint.SELF_SIGNED,
    "self signed certificate": Complaint.SELF_SIGNED,
    "unsuitable certificate purpose": Complaint.PURPOSE,
    "unsupported certificate purpose": Complaint.PURPOSE,
    "certificate revoked": Complaint.REVOKED,
}


def _on_page(case: Case) -> str | None:
    """Return the words of a certificate error page if they are known ones."""
    if case.reason is not Reason.CLIENT_CERT_PAGE:
        return None
    return next((words for words in _BY_PAGE if words in case.detail.lower()), None)


def _complaint(case: Case) -> Complaint:
    if words := _on_page(case):
        return _BY_PAGE[words]
    return _BY_ALERT.get(case.alert or "", Complaint.UNSAID)


def _closed(case: Case) -> Confidence | None:
    """Return how sure it is that the server closed because of our answer about a certificate."""
    handshake = case.handshake
    if case.probe is not Probe.HANDSHAKE or handshake is None:
        return None
    if not handshake.certificate_requested or case.result.client_auth is not ClientAuth.UNCONFIRMED:
        return None
    if case.reason is Reason.TLS_EOF:
        if not case.at_the_door or case.unanswered:
            return LIKELY
        # At the door the beginning of an answer may have come before the end.
        return None if case.cut_short else POSSIBLE
    # Who closes with our request unread makes the kernel reset.
    return POSSIBLE if case.reason is Reason.TCP_RESET else None


def _turned_away(case: Case) -> bool:
    """Tell whether the server refused our answer about a certificate, aloud or by closing."""
    if case.probe is not Probe.HANDSHAKE or case.reason is Reason.MUTUAL_AUTH_FAILED:
        return False
    refused = case.result.client_auth in {ClientAuth.REJECTED, ClientAuth.SOFT_REJECTED}
    return refused or _closed(case) is not None


def _refused(case: Case) -> bool:
    """Tell whether it refused the certificate that we sent."""
    return _turned_away(case) and case.certificate_sent


def _said(case: Case) -> str:
    """Return how the server refused, as a sentence; of a page only words that are known."""
    if case.alert:
        return f"The server refused with the alert {case.alert}."
    if words := _on_page(case):
        return f"The server refused with a web page: {words}."
    if case.reason is Reason.CLIENT_CERT_PAGE:
        return "The server refused with a web page that does not say why."
    if case.status is not None:
        return f"The server refused with the status {case.status}."
    what = "our certificate" if case.certificate_sent else "our answer without a certificate"
    if _closed(case) is LIKELY:
        return f"The server closed the connection right after {what}, without a word."
    return f"The server ended the connection at the first request after {what}."


# --- defects of what we present


@dataclass(frozen=True, slots=True)
class _Defect:
    """A defect of our own that keeps a door shut: only what is critical does.

    `complaints` are those that name it; `most` is how sure it is then.
    """

    name: str
    meaning: str
    rules: tuple[str, ...]
    complaints: frozenset[Complaint] = frozenset()
    most: Confidence = CERTAIN

    def found(self, case: Case) -> Violation | None:
        """Return the policy's finding."""
        return case.ours(*self.rules, least=Severity.CRITICAL)

    def look(self, case: Case) -> Suspicion | None:
        """Look for it behind a refusal of our certificate."""
        found = self.found(case)
        if found is None or not _refused(case):
            return None
        complaint = _complaint(case)
        if complaint in self.complaints:
            confidence = self.most
        else:
            # A server that names something else may have stopped at the first thing it found.
            confidence = LIKELY if complaint is Complaint.UNSAID else POSSIBLE
        return Suspicion(confidence, f"{found.message} {_said(case)}", found.remedy)


_DEFECTS: Final = (
    _Defect(
        "client_certificate_expired",
        "Our certificate, or one above it, has expired.",
        ("expired",),
        frozenset({Complaint.EXPIRED}),
    ),
    _Defect(
        "client_certificate_not_yet_valid",
        "Our certificate is not valid yet.",
        ("not_yet_valid",),
        frozenset({Complaint.NOT_YET_VALID}),
    ),
    _Defect(
        "client_certificate_self_signed",
        "Our certificate is self-signed: no authority vouches for it.",
        ("leaf_self_signed",),
        frozenset({Complaint.SELF_SIGNED, Complaint.UNTRUSTED}),
    ),
    _Defect(
        "client_intermediate_missing",
        "Our file lacks an intermediate certificate, so that nothing leads to the root.",
        ("leaf_only", "intermediate_missing"),
        frozenset({Complaint.UNTRUSTED}),
        most=LIKELY,  # the root may be unknown besides
    ),
    _Defect(
        "client_chain_inconsistent",
        "Our file has an intermediate certificate that did not sign the one below it.",
        ("chain_signature_invalid", "aki_ski_problem", "ca_not_ca", "ca_ku_no_cert_sign"),
        frozenset({Complaint.UNTRUSTED}),
        most=LIKELY,
    ),
    _Defect(
        "server_certificate_presented",
        "We present the server's own certificate.",
        ("same_leaf_as_server",),
        frozenset({Complaint.PURPOSE}),
    ),
    _Defect(
        "client_certificate_regressed",
        "Our certificate was renewed, and lost the purpose that the one before it had.",
        ("renewed_cert_regressed",),
        frozenset({Complaint.PURPOSE}),
    ),
    _Defect(
        "client_certificate_not_for_clients",
        "Our certificate is not for clients: it lacks clientAuth.",
        ("eku_no_client_auth", "eku_empty_or_malformed"),
        frozenset({Complaint.PURPOSE}),
    ),
    _Defect(
        "client_authority_not_for_clients",
        "An authority above our certificate may not issue for clients.",
        ("ca_eku_excludes_client_auth",),
        frozenset({Complaint.PURPOSE}),
    ),
    _Defect(
        "client_key_usage_wrong",
        "Our certificate may not sign a handshake, or is an authority's.",
        ("ku_no_digital_signature", "leaf_is_ca"),
        frozenset({Complaint.PURPOSE}),
    ),
    _Defect(
        "client_chain_disordered",
        "Our file is not in order, leaf first, which not every server puts up with.",
        ("chain_out_of_order", "chain_leaf_not_first"),
        frozenset({Complaint.UNTRUSTED}),
        most=LIKELY,
    ),
    _Defect(
        "client_certificate_weak",
        "Our certificate, or one above it, has a weak key or signature.",
        ("weak_signature", "key_too_small", "rsa_exponent", "key_curve", "ca_weak"),
    ),
)
for _defect in _DEFECTS:
    add(
        Known(
            name=_defect.name,
            meaning=_defect.meaning,
            remedy=RULES[_defect.rules[0]].remedy,
            basis=RULES[_defect.rules[0]].reference,
            module=__name__,
            look=_defect.look,
        )
    )


def _spotless(case: Case) -> bool:
    """Tell whether nothing that we know of our own certificate would keep a door shut."""
    return not any(defect.found(case) for defect in _DEFECTS)


@cause(
    remedy="Ask the authority why; get a new certificate and upload it to the org.", basis=_REVOKED
)
def client_certificate_revoked(case: Case) -> Suspicion | None:
    """Our certificate was revoked."""
    if not _refused(case):
        return None
    complaint = _complaint(case)
    if found := case.ours("revoked"):
        grades = {Complaint.REVOKED: CERTAIN, Complaint.UNSAID: LIKELY}
        evidence = f"{found.message} {_said(case)}"
        return Suspicion(grades.get(complaint, POSSIBLE), evidence, found.remedy)
    return Suspicion(LIKELY, _said(case)) if complaint is Complaint.REVOKED else None


@cause(remedy=Reason.TLS_EOF.remedy, basis="measured: Node, Java's HttpsServer, nginx's stream")
def closed_after_certificate(case: Case) -> Suspicion | None:
    """The server refused our certificate by closing, as some servers do."""
    sure = _closed(case)
    if sure is None or not case.certificate_sent:
        return None
    return Suspicion(sure, _said(case))


# --- a chain without a gap, whose root the server may not trust

_UNTRUSTED: Final = frozenset({Complaint.UNTRUSTED, Complaint.SELF_SIGNED})


def _distrust(case: Case) -> Confidence | None:
    """Return how sure it is that the server does not trust our root; None when it cannot be."""
    if not _refused(case) or not _spotless(case):
        return None
    complaint = _complaint(case)
    if complaint in _UNTRUSTED:
        return LIKELY
    return POSSIBLE if complaint is Complaint.UNSAID else None


@cause(remedy="Get a certificate under a root that is listed at cacerts.jsp.", basis=_ROOTS)
def client_root_not_listed(case: Case) -> Suspicion | None:
    """Our chain has no gap, but leads to a root that is not among those that the server accepts."""
    found, distrust = case.ours("root_not_in_cacerts"), _distrust(case)
    if found is None or distrust is None:
        return None
    sure = CERTAIN if distrust is LIKELY else LIKELY
    return Suspicion(sure, f"{found.message} {_said(case)}", found.remedy)


@cause(
    remedy="Get a certificate from one of the authorities that the server named.",
    basis="RFC 8446 §4.2.4; RFC 5246 §7.4.4",
)
def client_issuer_not_accepted(case: Case) -> Suspicion | None:
    """The server named the authorities that it accepts, and ours is not one of them."""
    found = case.ours("issuer_not_accepted")
    if found is None or _distrust(case) is None:
        return None
    return Suspicion(LIKELY, f"{found.message} {_said(case)}", found.remedy)


@cause(
    remedy="Have the private root accepted: it must be listed at cacerts.jsp of the org.",
    basis=_ROOTS,
)
def client_root_private(case: Case) -> Suspicion | None:
    """Our chain is complete, but to a private root, which the server must be told to trust."""
    found, distrust = case.ours("root_private"), _distrust(case)
    if found is None or distrust is None:
        return None
    return Suspicion(distrust, f"{found.message} {_said(case)}", found.remedy)


@cause(
    remedy="Find out which root that is, and whether the server trusts it (cacerts.jsp).",
    basis=_ROOTS,
)
def client_root_unknown(case: Case) -> Suspicion | None:
    """Our chain has no gap, but its root is on no list that we have, and maybe not on theirs."""
    found, distrust = case.ours("root_unresolved"), _distrust(case)
    if found is None or distrust is None:
        return None
    return Suspicion(distrust, f"{found.message} {_said(case)}")


@cause(
    remedy="Compare the root with the server's list (cacerts.jsp); tell the server's owner.",
    basis=_ROOTS,
)
def client_root_not_trusted(case: Case) -> Suspicion | None:
    """We find no fault with our chain, but the server does not trust the root it leads to."""
    known = ("root_not_in_cacerts", "root_private", "root_unresolved")
    distrust = _distrust(case)
    if distrust is None or case.ours(*known):
        return None
    return Suspicion(distrust, _said(case))


# --- nothing of ours arrived, or not as it was


@cause(
    remedy="Configure certificate and key of the org; without them nobody is let in.", basis=_ALERTS
)
def no_certificate_sent(case: Case) -> Suspicion | None:
    """The server asked for a certificate, and we had none to present."""
    if not _came_without(case) or case.result.client_chain:
        return None
    return Suspicion(_missed(case), "" if _is_denied(case) else _said(case))


@cause(remedy=Reason.CLIENT_CERT_REQUIRED.remedy, basis="RFC 8446 §4.4.2.3; RFC 5246 §7.4.4")
def client_key_kind_not_taken(case: Case) -> Suspicion | None:
    """The server asked for a certificate, but takes none with a key of our kind: we sent none."""
    if not _came_without(case) or not case.result.client_chain:
        return None
    key = _key_kind(case)
    return Suspicion(LIKELY, key if _is_denied(case) else f"{key} {_said(case)}")


def _key_kind(case: Case) -> str:
    chain = case.result.client_chain
    return f"Our key is of the kind {chain[0].public_key.kind}." if chain else ""


def _is_denied(case: Case) -> bool:
    return case.reason is Reason.MUTUAL_AUTH_FAILED


def _came_without(case: Case) -> bool:
    """Tell whether the server turned us away after it asked for a certificate and got none."""
    handshake = case.handshake
    if handshake is None or not handshake.certificate_requested or handshake.certificate_sent:
        return False
    return _turned_away(case) or _is_denied(case)


def _missed(case: Case) -> Confidence:
    named = _complaint(case) is Complaint.ABSENT or case.reason is Reason.CLIENT_CERT_REQUIRED
    return CERTAIN if named or _is_denied(case) else LIKELY


@cause(
    remedy="Look for a load balancer or a proxy that ends TLS; it must pass the certificate on.",
    basis=_ALERTS,
)
def certificate_lost_on_the_way(case: Case) -> Suspicion | None:
    """We sent a certificate, and the server says that it got none: something between ends TLS."""
    if not _refused(case) or _complaint(case) is not Complaint.ABSENT:
        return None
    return Suspicion(LIKELY, _said(case))


@cause(
    remedy="Deploy certificate and key of one issuance; then look for a middlebox.",
    basis="RFC 8446 §4.4.3, §6.2 (decrypt_error)",
)
def client_key_proof_failed(case: Case) -> Suspicion | None:
    """The server could not verify the signature that proves that the key is ours."""
    if not _refused(case) or _complaint(case) is not Complaint.PROOF:
        return None
    return Suspicion(LIKELY, _said(case))


# --- what the server knows and we do not


@cause(
    remedy="Set this machine's clock (chrony, systemd-timesyncd).", basis="RFC 5280 §6.1.3 (a)(2)"
)
def clock_wrong(case: Case) -> Suspicion | None:
    """This machine's clock is wrong, or the server's."""
    if not _disputes_dates(case):
        return None
    if found := case.finding("clock_suspect"):
        return Suspicion(LIKELY, found.message, found.remedy)
    return Suspicion(POSSIBLE, _said(case) if _refused(case) else "")


def _disputes_dates(case: Case) -> bool:
    """Tell whether one side takes a date for past or to come that the other does not."""
    if case.reason in {Reason.SERVER_EXPIRED, Reason.SERVER_NOT_YET_VALID}:
        return True
    dated = _complaint(case) in {Complaint.EXPIRED, Complaint.NOT_YET_VALID}
    return _refused(case) and dated and not case.ours("expired", "not_yet_valid")


@cause(
    remedy="Ask the server's owner to renew the authorities in its trust store.",
    basis="RFC 4158 §2.3 (a verifier may build another path than the one that was sent)",
)
def authority_expired_at_server(case: Case) -> Suspicion | None:
    """The server found its way over an authority's certificate of its own that has expired."""
    if not _refused(case) or _complaint(case) is not Complaint.EXPIRED or case.ours("expired"):
        return None
    return Suspicion(POSSIBLE, _said(case))


@cause(
    remedy="Ask which kinds of key and signature the server takes; have one of these issued.",
    basis=_ALERTS,
)
def client_certificate_kind_unsupported(case: Case) -> Suspicion | None:
    """The server does not take certificates with a key or a signature of our kind."""
    if not _refused(case) or _complaint(case) is not Complaint.PURPOSE or not _spotless(case):
        return None
    return Suspicion(POSSIBLE, f"{_key_kind(case)} {_said(case)}".strip())


@cause(remedy=Reason.MUTUAL_AUTH_FAILED.remedy, basis=f"{_HELP}; {_KB}")
def client_certificate_not_uploaded(case: Case) -> Suspicion | None:
    """Our certificate is a good one, but not one that was uploaded to this org."""
    if not case.certificate_sent:
        return None
    found = case.ours("uploaded_cert_mismatch")
    evidence = found.message if found else ""
    if case.reason is Reason.MUTUAL_AUTH_FAILED:
        return Suspicion(CERTAIN if found else LIKELY, evidence)
    # RFC 8446 §6.2: a valid certificate, but access control decided not to go on.
    if _refused(case) and case.reason is Reason.CLIENT_ACCESS_DENIED and _spotless(case):
        return Suspicion(LIKELY if found else POSSIBLE, f"{evidence} {_said(case)}".strip())
    return None


@cause(
    remedy="Set `revocation` of the policy, or ask the authority; look at `sfmtls-agent check`.",
    basis=_REVOKED,
)
def client_certificate_perhaps_revoked(case: Case) -> Suspicion | None:
    """Our certificate may have been revoked: the server checks that, and we did not."""
    unasked = "revoked" in case.judgement.not_evaluated
    if not unasked or _distrust(case) is not POSSIBLE:
        return None
    return Suspicion(POSSIBLE)


@cause(remedy="Tell the server's owner: its machines must be configured alike.")
def servers_differ(case: Case) -> Suspicion | None:
    """Several machines answer to the name: one accepted our certificate, another does not."""
    if case.probe is Probe.HANDSHAKE or case.reason not in _OF_THE_CERTIFICATE:
        return None
    return Suspicion(LIKELY)


_OF_THE_CERTIFICATE: Final = frozenset(
    {
        Reason.CLIENT_CERT_REQUIRED,
        Reason.CLIENT_CERT_UNKNOWN_CA,
        Reason.CLIENT_CERT_BAD,
        Reason.CLIENT_CERT_EXPIRED,
        Reason.CLIENT_CERT_REVOKED,
        Reason.CLIENT_CERT_UNSUPPORTED,
        Reason.CLIENT_CERT_UNKNOWN,
        Reason.CLIENT_ACCESS_DENIED,
        Reason.CLIENT_CERT_PAGE,
        Reason.CLIENT_NOT_REQUESTED,
    }
)


# --- files

rows(
    __name__,
    Row(
        name="client_key_of_another_certificate",
        reasons=(Reason.CLIENT_KEY_MISMATCH,),
        confidence=CERTAIN,
        meaning="The private key belongs to another certificate.",
        quotes=True,
    ),
    Row(
        name="client_files_unusable",
        reasons=(Reason.CLIENT_MATERIAL_UNREADABLE,),
        confidence=CERTAIN,
        meaning="Our certificate or key file cannot be read or understood.",
        quotes=True,
    ),
    Row(
        name="secret_unreadable",
        reasons=(Reason.CREDENTIALS_UNREADABLE,),
        confidence=CERTAIN,
        meaning="The password, or another secret of the configuration, cannot be read.",
        quotes=True,
    ),
)
