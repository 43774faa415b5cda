"""`inspect` of any file: an audit that can be drawn and written as JSON, never an exception."""

import json
from collections.abc import Iterator

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from fuzz import fixed

from agent.audit import Question, Source, as_json, audit
from agent.chain import read_chain
from agent.drawing import tree
from agent.policy.tables import shipped_tables

QUESTIONS = (Question(fixed.AT), Question(fixed.AT, host="example.my.salesforce.com"))


def one_input(data: bytes) -> None:
    read_chain(data)
    for question in QUESTIONS:
        found = audit(Source("fuzz.pem", data, 0o600), question, shipped_tables(), fixed.anchors())
        json.dumps(as_json([found]))
        if found.analysis:
            tree(found.analysis, found.anchors, fixed.AT)


def seeds() -> Iterator[bytes]:
    leaf, authority = fixed.leaf(), fixed.authority()
    chain = leaf.pem + authority.intermediate.pem
    plain, encrypted = NoEncryption(), BestAvailableEncryption(b"correct horse")
    yield chain
    yield chain + authority.root.pem + leaf.pem
    yield authority.root.pem
    for form, protection in (
        (PrivateFormat.PKCS8, plain),
        (PrivateFormat.TraditionalOpenSSL, plain),
        (PrivateFormat.PKCS8, encrypted),
    ):
        yield leaf.key.private_bytes(Encoding.PEM, form, protection) + chain
    yield chain.replace(b"-----END CERTIFICATE-----", b"")
    yield chain.replace(b"BEGIN CERTIFICATE", b"BEGIN TRUSTED CERTIFICATE")
