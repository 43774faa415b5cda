"""Rules about the client's files: the private key, its protection, and what is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.policy.rule import Evidence, Finding, Severity, Side, rule

_KEY: Final = ("private_key",)
_PRACTICE: Final = "NIST SP 800-57 Part 1 Rev. 5 §6"
_GROUP_OR_OTHERS: Final = 0o077
_OTHERS_READ: Final = 0o004


@rule(
    Severity.CRITICAL,
    needs=("client_chain", "private_key"),
    remedy="Deploy certificate and key of one and the same issuance.",
    reference="RFC 8446 §4.4.3",
    unless=("key_missing", "key_encrypted_no_passphrase"),
)
def key_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """The private key belongs to no certificate of the client's file."""
    key = evidence.private_key
    leaf = evidence.client.leaf
    if (
        key
        and key.subject_public_key_info_sha256
        and key.subject_public_key_info_sha256 != leaf.subject_public_key_info_sha256
    ):
        yield Finding(
            f"The private key does not belong to {leaf.subject}, nor to any other certificate of "
            "the client's file.",
            Side.CLIENT,
            leaf,
            evidence.client.leaf_position,
        )


@rule(
    Severity.CRITICAL,
    needs=_KEY,
    remedy="Put the private key into the file, or correct `private_key`.",
    reference="RFC 7468 §10",
)
def key_missing(evidence: Evidence) -> Iterator[Finding]:
    """The client's key file holds no private key."""
    key = evidence.private_key
    if key and key.blocks == 0:
        yield Finding("The client's key file holds no private key.", Side.CLIENT)


@rule(
    Severity.WARNING,
    needs=_KEY,
    remedy="Leave only the key that belongs to the certificate in the file.",
    reference="RFC 7468 §10",
)
def key_multiple(evidence: Evidence) -> Iterator[Finding]:
    """The client's key file holds several private keys, of which the first one is used."""
    key = evidence.private_key
    if key and key.blocks > 1:
        yield Finding(
            f"The client's key file holds {key.blocks} private keys; the first one is used.",
            Side.CLIENT,
        )


@rule(
    Severity.CRITICAL,
    needs=_KEY,
    remedy="Configure `private_key_passphrase`, or check that it is the right one.",
    reference="RFC 5958 §3",
    unless=("key_missing",),
)
def key_encrypted_no_passphrase(evidence: Evidence) -> Iterator[Finding]:
    """The client's key is encrypted and cannot be opened: no passphrase, or a wrong one."""
    key = evidence.private_key
    if key and key.encrypted and key.subject_public_key_info_sha256 is None:
        yield Finding("The client's private key is encrypted and could not be opened.", Side.CLIENT)


@rule(
    Severity.INFO,
    needs=_KEY,
    remedy="Nothing, if file permissions protect it; a systemd credential protects it better.",
    reference=_PRACTICE,
    unless=("key_missing", "key_file_mode"),
)
def key_unencrypted(evidence: Evidence) -> Iterator[Finding]:
    """The client's key is stored without encryption in a file."""
    key = evidence.private_key
    if key and not key.encrypted and key.mode is not None:
        yield Finding(
            "The client's private key is stored without encryption, in a file with the mode "
            f"{key.mode & 0o777:04o}.",
            Side.CLIENT,
        )


@rule(
    Severity.CRITICAL,
    needs=_KEY,
    remedy="Give the file to the agent's user and set its mode to 0400.",
    reference=_PRACTICE,
    unless=("key_missing",),
)
def key_file_mode(evidence: Evidence) -> Iterator[Finding]:
    """Others than the agent's user can get at the client's key: critical when all can read it."""
    key = evidence.private_key
    if not key or key.mode is None:
        return
    if key.mode & _GROUP_OR_OTHERS or not key.owned:
        everybody = bool(key.mode & _OTHERS_READ)
        yield Finding(
            f"The client's key file has the mode {key.mode & 0o777:04o}"
            + (", so that everybody can read it" if everybody else "")
            + ("." if key.owned else ", and belongs to another user."),
            Side.CLIENT,
            severity=Severity.CRITICAL if everybody else Severity.WARNING,
        )


@rule(
    Severity.WARNING,
    remedy="See the message; the pair that was in use before is still in use.",
    reference="-",
)
def client_file_changed(evidence: Evidence) -> Iterator[Finding]:
    """The client's files changed, and what is in them now cannot be used."""
    if evidence.identity_problem is not None:
        yield Finding(
            f"The client's files changed, but cannot be used: {evidence.identity_problem}.",
            Side.CLIENT,
        )
