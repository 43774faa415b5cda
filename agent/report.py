"""A cycle as JSON: the shape that `probe --json` prints. It is an interface.

`success` of a probe is true, false or null: not run, or undetermined. Moments are RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from agent.certificate import Certificate
from agent.chain import role
from agent.diagnosis import Cause, diagnose
from agent.policy import Judgement, Suppressed
from agent.policy.rule import Violation
from agent.result import Failure, Outcome, ProbeResult, Skipped, Success, Undetermined


def cycle(result: ProbeResult, judgement: Judgement) -> dict[str, Any]:
    """Return one cycle of one org and how it was judged, ready for `json.dumps`."""
    handshake = result.handshake
    return {
        "org": result.org,
        "healthy": result.healthy,
        "client_auth": result.client_auth.value,
        "alert": handshake.alert if handshake else None,
        "tls_version": handshake.tls_version if handshake else None,
        "cipher_suite": handshake.cipher_suite if handshake else None,
        "address": result.address,
        "stages": {stage.value: round(took, 6) for stage, took in result.stages.items()},
        "probes": {probe.value: outcome(seen) for probe, seen in result.outcomes.items()},
        "causes": [cause(found) for found in diagnose(result, judgement)],
        "certificates": {
            "client": certificates(result.client_chain),
            "server": certificates(result.server_chain),
        },
        "violations": [violation(found) for found in judgement.violations],
        "suppressed": [suppressed(found) for found in judgement.suppressed],
    }


def outcome(seen: Outcome) -> dict[str, Any]:
    """Return the outcome of one probe; `reason` is a Reason's or a skip cause's label, or null."""
    match seen:
        case Success(detail):
            return {"success": True, "reason": None, "detail": detail}
        case Failure(reason, detail):
            return {"success": False, "reason": reason.value, "detail": detail}
        case Undetermined(reason, detail):
            return {"success": None, "reason": reason.value, "detail": detail}
        case Skipped(cause, detail):
            return {"success": None, "reason": cause.value, "detail": detail}


def cause(found: Cause) -> dict[str, Any]:
    """Return one likely cause; `confidence` is certain, likely or possible."""
    return {
        "cause": found.name,
        "confidence": found.confidence.value,
        "sentence": found.sentence,
        "remedy": found.remedy,
    }


def certificates(chain: Sequence[Certificate]) -> list[dict[str, Any]]:
    """Return a chain as presented, leaf first."""
    return [
        {
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "serial_number": certificate.serial_number,
            "not_before": moment(certificate.not_before),
            "not_after": moment(certificate.not_after),
            "fingerprint_sha256": certificate.fingerprint_sha256,
            "role": role(position, certificate),
        }
        for position, certificate in enumerate(chain)
    ]


def violation(found: Violation) -> dict[str, Any]:
    """Return one finding of the policy."""
    return {
        "rule": found.rule,
        "severity": found.severity.value,
        "side": found.side.value,
        "position": found.position,
        "fingerprint": found.fingerprint,
        "subject": found.subject,
        "message": found.message,
        "remedy": found.remedy,
        "reference": found.reference,
        "bites_from": moment(found.bites_from) if found.bites_from else None,
    }


def suppressed(found: Suppressed) -> dict[str, Any]:
    """Return one finding that the operator suppressed, until when and why."""
    return violation(found.violation) | {
        "until": moment(found.suppression.until),
        "reason": found.suppression.reason,
    }


def moment(when: datetime) -> str:
    """Return a moment as RFC 3339 text in UTC, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
