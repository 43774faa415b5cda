"""Links between certificates: who signed whom, and what is missing between.

Certificates are compared by names, identifiers and signatures; no trust store is asked here.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from agent.certificate import Certificate


def issued(issuer: Certificate, subject: Certificate) -> bool:
    """Tell whether `issuer`'s name and key made `subject` (RFC 5280 §6.1.3 a)."""
    if subject.issuer != issuer.subject:
        return False
    try:
        x509.load_der_x509_certificate(subject.der).verify_directly_issued_by(
            x509.load_der_x509_certificate(issuer.der)
        )
    except (InvalidSignature, TypeError):
        return False
    except ValueError:
        # The library refuses to check SHA-1 and MD5 signatures; the names must do then.
        return True
    return True


def path_from_leaf(certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """Return the longest path that starts at the first certificate, whatever the others' order."""
    if not certificates:
        return ()
    path = [certificates[0]]
    rest = list(certificates[1:])
    while not path[-1].self_issued:
        issuer = next((candidate for candidate in rest if issued(candidate, path[-1])), None)
        if issuer is None:
            break
        rest.remove(issuer)
        path.append(issuer)
    return tuple(path)


def missing_intermediate(certificates: Sequence[Certificate]) -> str | None:
    """Return the name of the issuer that is missing right above the leaf, or None.

    A root is usually not sent, so a path that ends at a CA certificate is taken as complete; a leaf
    whose own issuer is absent is not, because no public root signs leaves directly (BR §7.1.2).
    """
    path = path_from_leaf(certificates)
    if not path or path[-1].is_ca or path[-1].self_issued:
        return None
    return path[-1].issuer
