"""The catalogue of rules as a book: for a person, as JSON, and as the page `docs/rules.md`.

Everything in it is said where the rule is written; nothing is said here again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from agent.policy import CATALOGUE
from agent.policy.rule import BOTH, CLIENT, SERVER, Rule

_HEAD: Final = """\
# Rules

What the agent says about certificates, chains and doors. `sfmtls-agent rules` prints the same; this
page is made from the rules themselves, and a test compares the two.

The severity is a rule's worst: a finding may be milder, as its text tells. A finding names the date
from which it counts. A rule without its evidence is not evaluated, and told as such. Of several
rules that see one cause, the one that names it best speaks, the others are silent.
"""


def chosen(name: str | None) -> tuple[Rule, ...]:
    """Return the rule of this name, or all by name when it is None; empty when there is none."""
    return tuple(rule for key, rule in sorted(CATALOGUE.items()) if name in {None, key})


def meaning(rule: Rule) -> str:
    """Return what a rule means, as one paragraph."""
    return " ".join(rule.documentation.split())


def about(rule: Rule) -> str:
    """Return whose certificates a rule is about, or "the org" where it is about none."""
    if rule.either:
        return "client and server"
    needed = frozenset(rule.needs)
    if needed >= frozenset(BOTH):
        return "client with server"
    return (
        "client" if needed & {*CLIENT, "private_key"} else "server" if needed & {*SERVER} else "org"
    )


def as_json(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """Return rules, ready for `json.dumps`. It is an interface; `severity` is a rule's worst."""
    return [
        {
            "rule": rule.name,
            "severity": rule.severity.value,
            "about": about(rule),
            "meaning": meaning(rule),
            "remedy": rule.remedy,
            "server_remedy": rule.server_remedy,
            "reference": rule.reference,
            "needs": list(rule.needs),
            "silent_when": list(rule.unless),
        }
        for rule in rules
    ]


def markdown() -> str:
    """Return the page of all rules, grouped by the modules they are written in."""
    by_module: dict[str, list[Rule]] = {}
    for rule in chosen(None):
        by_module.setdefault(rule.module, []).append(rule)
    lines = [_HEAD]
    lines.extend(line for module in sorted(by_module) for line in _contents(by_module, module))
    for module in sorted(by_module):
        lines.extend(("", f"## {_subject(module)}", "", f"{_about_module(module)}"))
        for rule in by_module[module]:
            lines.extend(_section(rule))
    return "\n".join(lines) + "\n"


def _contents(by_module: Mapping[str, list[Rule]], module: str) -> Iterator[str]:
    links = ", ".join(f"[`{rule.name}`](#{rule.name})" for rule in by_module[module])
    yield f"- **{_subject(module)}**: {links}"


def _section(rule: Rule) -> Iterator[str]:
    yield from ("", f"### `{rule.name}`", "")
    yield f"**{rule.severity}** · {about(rule)}"
    yield from ("", _escaped(meaning(rule)), "")
    yield f"- Remedy: {_escaped(rule.remedy)}"
    if rule.server_remedy and rule.server_remedy != rule.remedy:
        yield f"- On the server's side: {_escaped(rule.server_remedy)}"
    if rule.unless:
        yield "- Silent when one of these speaks: " + ", ".join(f"`{n}`" for n in rule.unless)
    if rule.last_resort:
        yield "- Silent when anything critical speaks"
    if rule.reference != "-":
        yield f"- Reference: {_escaped(rule.reference)}"


def _subject(module: str) -> str:
    return module.rpartition(".")[2].capitalize()


def _about_module(module: str) -> str:
    documentation = sys.modules[module].__doc__ or ""
    return documentation.splitlines()[0]


def _escaped(text: str) -> str:
    """Return text with what Markdown would take for an HTML tag made plain."""
    return text.replace("<", "\\<")
