"""What `inspect` looks at: one file with certificates, offline, as of any date.

A file is a client's identity, or the chain of a server when a host is named. What can be read is
judged, what cannot is told with its PEM block. Content of private keys goes nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from agent import report
from agent.chain import Anchors, ChainAnalysis, pem_blocks, read_chain
from agent.org import Suppression
from agent.policy import CATALOGUE, Judgement, evaluate
from agent.policy.rule import Evidence, PrivateKey, Rule, Severity, Side
from agent.policy.tables import Tables

CLEAN: Final = 0
FINDINGS: Final = 1
UNREADABLE: Final = 2

# More than any chain needs, so that a device or a wrong file does not fill the memory.
_MOST_OCTETS: Final = 4 * 1024 * 1024

_KEY_LABELS: Final = frozenset(
    {"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY"}
)
# These compare the clock and the lists of this installation with the present, which another date
# says nothing about.
_ABOUT_THE_PRESENT: Final = frozenset({"clock_suspect", "trust_list_stale"})
# Whether there is a passphrase, a file alone does not tell.
_ABOUT_THE_PASSPHRASE: Final = frozenset({"key_encrypted_no_passphrase"})


@dataclass(frozen=True, slots=True)
class Question:
    """How to look at a file. With a `host` it is the chain of that server, else a client's.

    `supposed` tells that `now` is not the present. `profile` is a name in the tables' profiles.
    """

    now: datetime
    supposed: bool = False
    profile: str = "salesforce"
    host: str | None = None
    suppressions: tuple[Suppression, ...] = ()

    @property
    def side(self) -> Side:
        """Whose chain the file is taken for."""
        return Side.CLIENT if self.host is None else Side.SERVER


@dataclass(frozen=True, slots=True)
class Source:
    """A file's content as it was read; `mode` holds its permission bits, None when it has none.

    `owned`: it belongs to this process's user or to root, or whose it should be is not known.
    """

    name: str
    content: bytes = field(repr=False)
    mode: int | None = None
    owned: bool = True


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found in one file. `analysis` and `judgement` are None without a certificate."""

    name: str
    question: Question
    tables: Tables
    anchors: Anchors
    problems: tuple[str, ...]
    private_key: PrivateKey | None = None
    analysis: ChainAnalysis | None = None
    judgement: Judgement | None = None

    @property
    def exit_code(self) -> int:
        """0: nothing is worse than info; 1: something is; 2: something cannot be read."""
        if self.problems or self.judgement is None:
            return UNREADABLE
        worst = max((v.severity for v in self.judgement.violations), default=Severity.INFO)
        return FINDINGS if worst >= Severity.WARNING else CLEAN


def read_source(path: Path) -> Source | str:
    """Return the file, or why it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_OCTETS + 1)
            status = os.fstat(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    if len(content) > _MOST_OCTETS:
        return f"larger than {_MOST_OCTETS // 1024 // 1024} MiB, which no chain is"
    regular = stat.S_ISREG(status.st_mode)
    # Root may look at the file of any service's user.
    owned = os.geteuid() == 0 or status.st_uid in (0, os.geteuid())
    return Source(str(path), content, stat.S_IMODE(status.st_mode) if regular else None, owned)


def audit_file(path: Path, question: Question, tables: Tables, anchors: Anchors) -> Audit:
    """Return the audit of a file; that it cannot be read is part of it."""
    source = read_source(path)
    if isinstance(source, str):
        return Audit(str(path), question, tables, anchors, (source,))
    return audit(source, question, tables, anchors)


def audit(source: Source, question: Question, tables: Tables, anchors: Anchors) -> Audit:
    """Return the audit of what was read; never raises, whatever it is."""
    chain = read_chain(source.content)
    key, key_problems = _private_key(source)
    problems = (*chain.problems, *key_problems)
    if not chain.certificates:
        return Audit(source.name, question, tables, anchors, problems, key)
    client = question.side is Side.CLIENT
    evidence = Evidence(
        now=question.now,
        tables=tables,
        anchors=anchors,
        host=question.host,
        client_chain=chain.certificates if client else None,
        server_chain=None if client else chain.certificates,
        private_key=key if client else None,
        profile=question.profile,
        suppressions=question.suppressions,
    )
    return Audit(
        source.name,
        question,
        tables,
        anchors,
        problems,
        key,
        evidence.analysis(question.side),
        _judgement(evidence, _left_out(question, key)),
    )


def _left_out(question: Question, key: PrivateKey | None) -> frozenset[str]:
    left_out = _ABOUT_THE_PRESENT if question.supposed else frozenset()
    return left_out | _ABOUT_THE_PASSPHRASE if key and key.encrypted else left_out


def _judgement(evidence: Evidence, left_out: frozenset[str]) -> Judgement:
    rules: Mapping[str, Rule] = {n: r for n, r in CATALOGUE.items() if n not in left_out}
    judgement = evaluate(evidence, rules)
    not_evaluated = tuple(sorted({*judgement.not_evaluated, *left_out}))
    return Judgement(judgement.violations, not_evaluated, judgement.suppressed)


def _private_key(source: Source) -> tuple[PrivateKey | None, tuple[str, ...]]:
    """Return what is known of the first private key in the file, and what cannot be read."""
    digests: list[str | None] = []
    problems: list[str] = []
    for number, (label, body) in enumerate(pem_blocks(source.content), 1):
        if label not in _KEY_LABELS:
            continue
        if body is None:
            problems.append(f"block {number}: the private key begins and never ends")
        elif label == "ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in body:  # RFC 1421 §4.6.1.1
            digests.append(None)
        elif digest := _public_half(body):
            digests.append(digest)
        else:
            problems.append(f"block {number}: not a private key, or of an unknown kind")
    if not digests:
        return None, tuple(problems)
    key = PrivateKey(
        subject_public_key_info_sha256=digests[0],
        encrypted=digests[0] is None,
        blocks=len(digests),
        mode=source.mode,
        owned=source.owned,
    )
    return key, tuple(problems)


def _public_half(body: bytes) -> str | None:
    """Return the hash of the public half of an unencrypted key, None if it is no key."""
    try:
        private = serialization.load_der_private_key(
            base64.b64decode(b"".join(body.split()), validate=True),
            None,
            # It takes 36 ms, and a key that fails it fails to match its certificate or to load.
            unsafe_skip_rsa_key_validation=True,
        )
        encoded = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        return None
    return hashlib.sha256(encoded).hexdigest()


def moment(text: str) -> datetime:
    """Return an RFC 3339 date (at 00:00 UTC) or date-time, UTC unless it says; else ValueError."""
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date like 2027-03-15 or 2027-03-15T09:00:00Z") from None
    try:
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} lies outside of the calendar") from None


def as_json(audits: Iterable[Audit]) -> list[dict[str, Any]]:
    """Return the audits, ready for `json.dumps`. It is an interface.

    Each has `file`, `exit_code`, `problems` (with their PEM block), `side`, `host`, `at`,
    `profile`, `trust_list`, `private_key` (null when the file has none), and what was found:
    `certificates` as in the file, `paths` as fingerprints from leaf to root, `roots`,
    `violations`, `suppressed` and the names of the rules that were `not_evaluated`.
    """
    return [_audit_as_json(found) for found in audits]


def _audit_as_json(found: Audit) -> dict[str, Any]:
    analysis, judgement = found.analysis, found.judgement
    return {
        "file": found.name,
        "exit_code": found.exit_code,
        "problems": list(found.problems),
        "side": found.question.side.value,
        "host": found.question.host,
        "at": report.moment(found.question.now),
        "profile": found.question.profile,
        "trust_list": {
            "as_of": report.moment(found.tables.trust_list_as_of),
            "source": found.tables.trust_list_source,
        },
        "private_key": _key_as_json(found),
        "certificates": _certificates_as_json(analysis) if analysis else [],
        "paths": [[c.fingerprint_sha256 for c in p] for p in analysis.paths] if analysis else [],
        "roots": _roots_as_json(analysis) if analysis else [],
        "violations": [report.violation(v) for v in judgement.violations] if judgement else [],
        "suppressed": [
            report.suppressed(known) for known in (judgement.suppressed if judgement else ())
        ],
        "not_evaluated": list(judgement.not_evaluated) if judgement else [],
    }


def _key_as_json(found: Audit) -> dict[str, Any] | None:
    key = found.private_key
    if key is None:
        return None
    return {"encrypted": key.encrypted, "blocks": key.blocks, "belongs_to": owner(found)}


def owner(found: Audit) -> int | None:
    """Return the position of the certificate that the file's key belongs to, None if not known."""
    if not found.analysis or not found.private_key:
        return None
    digest = found.private_key.subject_public_key_info_sha256
    return next(
        (
            position
            for position, certificate in enumerate(found.analysis.certificates)
            if certificate.subject_public_key_info_sha256 == digest
        ),
        None,
    )


def _certificates_as_json(analysis: ChainAnalysis) -> list[dict[str, Any]]:
    return [
        shown
        | {
            "position": position,
            "is_ca": certificate.is_ca,
            "public_key": {
                "kind": certificate.public_key.kind,
                "bits": certificate.public_key.bits,
                "curve": certificate.public_key.curve,
            },
            "extended_key_usage": None
            if certificate.extended_key_usage is None
            else sorted(certificate.extended_key_usage),
        }
        for position, (shown, certificate) in enumerate(
            zip(report.certificates(analysis.certificates), analysis.certificates, strict=True)
        )
    ]


def _roots_as_json(analysis: ChainAnalysis) -> list[dict[str, Any]]:
    return [
        {
            "subject": root.certificate.subject,
            "kind": root.kind.value,
            "fingerprint_sha256": root.certificate.fingerprint_sha256,
            "sct_not_after": report.moment(root.sct_not_after) if root.sct_not_after else None,
        }
        for root in analysis.roots
    ]
