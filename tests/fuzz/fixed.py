"""A hierarchy whose keys are the same in every process, so that what was found once stays found."""

from datetime import UTC, datetime
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec
from making import HOST, NOW, REVOCABLE, Hierarchy, Made, make, timestamps

from agent.certificate import CLIENT_AUTH, SERVER_AUTH
from agent.chain import Anchor, AnchorKind, Anchors

AT = datetime(2026, 11, 24, tzinfo=UTC)


def key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


@cache
def authority() -> Hierarchy:
    root = make("Fuzz Root", ca=True, key=key(1), serial=1 << 90)
    intermediate = make("Fuzz Issuer", root, ca=True, key=key(2), serial=1 << 91, path_length=0)
    return Hierarchy(root, intermediate)


@cache
def leaf() -> Made:
    return authority().leaf(
        HOST,
        key=key(3),
        serial=1 << 92,
        eku=(CLIENT_AUTH, SERVER_AUTH),
        names=(HOST, "192.0.2.1"),
        extensions=(REVOCABLE, timestamps(NOW)),
    )


@cache
def anchors() -> Anchors:
    return Anchors([Anchor(authority().root.facts, AnchorKind.CHROME)])
