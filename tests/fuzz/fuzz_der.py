"""A certificate in any encoding: facts and a judgement, or a ValueError when it is read alone.

It is judged as the leaf of both sides and as an authority, beside certificates that are sound.
"""

from collections.abc import Iterator

from fuzz import fixed
from making import HOST

from agent.certificate import read
from agent.chain import read_chain
from agent.drawing import tree
from agent.policy import evaluate
from agent.policy.rule import Evidence
from agent.policy.tables import shipped_tables


def one_input(data: bytes) -> None:
    read_chain(data)
    try:
        certificate = read(data)
    except ValueError:
        return
    leaf, issuer = fixed.leaf().facts, fixed.authority().intermediate.facts
    for chain in ((certificate, issuer), (leaf, certificate), (leaf, issuer, certificate)):
        evidence = Evidence(
            now=fixed.AT,
            tables=shipped_tables(),
            anchors=fixed.anchors(),
            host=HOST,
            client_chain=chain,
            server_chain=chain,
        )
        judgement = evaluate(evidence)
        bugs = [v.message for v in judgement.violations if v.rule == "internal"]
        assert not bugs, bugs
        tree(evidence.client, evidence.anchors, fixed.AT)


def seeds() -> Iterator[bytes]:
    authority = fixed.authority()
    for made in (fixed.leaf(), authority.intermediate, authority.root):
        yield made.facts.der
