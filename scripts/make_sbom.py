#!/usr/bin/env python3
"""Prints a bill of materials (CycloneDX 1.6, JSON) of the agent and the dependencies in its lock.

    .venv/bin/python scripts/make_sbom.py requirements.txt > sfmtls-agent.cdx.json

Versions and hashes are those of the lock: of every file of a release, since each machine takes its
own. Licences, and what needs what, are read from the packages that are installed beside this
Python, or in the directory after --packages; they must be the locked ones. The same lock gives the
same bytes: the moment in it is SOURCE_DATE_EPOCH, and without that there is none.

It belongs to what brings the dependencies along, such as the Debian package. The wheel does not,
and its users may have others: a bill of the lock in there would say what nobody knows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_AGENT: Final = "sfmtls-agent"
_ENTRY: Final = re.compile(
    r"^(?P<pin>[^#\s][^\\\n]*)(?P<hashes>(?:\\\n +--hash=\S+ *)*)", re.MULTILINE
)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# What a package says that has no SPDX expression (PEP 639): free text, or a classifier. One that is
# not here is looked up by whoever adds the package; "BSD License", for one, is several.
_SPDX: Final = {
    "Apache-2.0": "Apache-2.0",
    "BSD-3-Clause": "BSD-3-Clause",
    "MIT": "MIT",
    "MPL-2.0": "MPL-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
}
# Those that were looked up, in the text that the package brings.
_READ: Final = {"jinja2": "BSD-3-Clause"}

_Json = dict[str, Any]


def bill(lock: str, installed: Mapping[str, Distribution], epoch: int | None) -> _Json:
    """Return the bill of a lock's text; SystemExit when another version is installed."""
    hashes = dict(_locked(lock))
    names = {pin.name for pin in hashes}
    for pin in hashes:
        if pin.name not in installed:
            raise SystemExit(f"{pin.name} is in the lock, but is not installed")
        if (found := installed[pin.name].version) not in pin.specifier:
            raise SystemExit(f"{pin.name} {found} is installed, but the lock has {pin}")
    agent = _component("application", installed[_AGENT])
    metadata: _Json = {"component": agent}
    if epoch is not None:
        metadata = {"timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(), **metadata}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(NAMESPACE_URL, f"{agent['purl']}\n{lock}").urn,
        "version": 1,
        "metadata": metadata,
        "components": [
            _component("library", installed[pin.name])
            | {"hashes": [{"alg": "SHA-256", "content": digest} for digest in digests]}
            for pin, digests in hashes.items()
        ],
        "dependencies": [
            {
                "ref": _address(installed[name]),
                "dependsOn": [
                    _address(installed[each]) for each in _needed(installed[name], names)
                ],
            }
            for name in (_AGENT, *sorted(names))
        ],
    }


def _locked(text: str) -> Iterator[tuple[Requirement, Sequence[str]]]:
    """Return each pin that holds for this Python on this machine, and its files' hashes."""
    for entry in _ENTRY.finditer(text):
        pin = Requirement(entry["pin"])
        pin.name = canonicalize_name(pin.name)
        if pin.marker is None or pin.marker.evaluate():
            yield pin, _HASH.findall(entry["hashes"])


def _component(kind: str, found: Distribution) -> _Json:
    return {
        "type": kind,
        "bom-ref": _address(found),
        "name": canonicalize_name(found.name),
        "version": found.version,
        "description": found.metadata["Summary"],
        "licenses": [{"expression": _licence(found)}],
        "purl": _address(found),
    }


def _address(found: Distribution) -> str:
    # Of the characters in a version (PEP 440), the package URL's standard quotes these.
    version = found.version.replace("!", "%21").replace("+", "%2B")
    return f"pkg:pypi/{canonicalize_name(found.name)}@{version}"


def _licence(found: Distribution) -> str:
    for expression in found.metadata.get_all("License-Expression", []):
        return str(expression)
    older = [text for key in ("License", "Classifier") for text in found.metadata.get_all(key, [])]
    known = next(
        (_SPDX[text] for text in older if text in _SPDX), _READ.get(canonicalize_name(found.name))
    )
    if known is None:
        raise SystemExit(f"the licence of {found.name} is not known: {older}")
    return known


def _needed(found: Distribution, names: set[str]) -> list[str]:
    """Return those of the names that a package needs here, as it says itself."""
    wanted = [Requirement(text) for text in found.requires or ()]
    here = (each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""}))
    return sorted({canonicalize_name(each.name) for each in here} & names)


def main() -> None:
    """Print the bill of the lock that the arguments name."""
    parser = argparse.ArgumentParser(description="Prints a bill of materials of the agent.")
    parser.add_argument("lock", type=Path, help="requirements.txt")
    parser.add_argument("--packages", help="the directory that the packages are installed in")
    arguments = parser.parse_args()
    path = sys.path if arguments.packages is None else [arguments.packages]
    # The first of a name is the one that an import takes.
    found = reversed([*distributions(path=path)])
    installed: dict[str, Distribution] = {canonicalize_name(each.name): each for each in found}
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    lock = arguments.lock.read_text(encoding="utf-8")
    printed = bill(lock, installed, int(epoch) if epoch else None)
    sys.stdout.write(json.dumps(printed, indent=2) + "\n")


if __name__ == "__main__":
    main()
