"""What can drift: files beside the code that must keep telling the truth."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import agent
from agent.cli import EX_CONFIG

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements):
    return {re.match(r"[\w-]+", text).group().lower() for text in requirements}


def test_every_run_time_dependency_has_its_reason_in_contributing():
    table = (ROOT / "CONTRIBUTING.md").read_text()
    wanted = names(PROJECT["project"]["dependencies"])

    missing = {
        name for name in wanted if not re.search(rf"^\|[^|]*\b{name}\b", table, re.MULTILINE)
    }

    assert missing == set()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt"])
def test_every_pinned_dependency_has_hashes_and_no_host(name):
    text = (ROOT / name).read_text()
    pinned = re.findall(
        r"^[\w.-]+==[^\n]*(?:\n {4}--hash=sha256:[0-9a-f]{64}[^\n]*)*", text, re.MULTILINE
    )

    assert len(pinned) > 20
    assert all("--hash=sha256:" in entry for entry in pinned)
    assert "://" not in text
    assert "--index-url" not in text


def test_every_run_time_dependency_is_pinned():
    pinned = names(
        re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    )

    assert names(PROJECT["project"]["dependencies"]) <= pinned


def test_the_unit_does_not_restart_after_a_bad_configuration_and_waits_for_ready():
    unit = (ROOT / "systemd" / "sfmtls-agent.service").read_text()

    assert f"RestartPreventExitStatus={EX_CONFIG}" in unit
    assert "Type=notify" in unit
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit
    assert "StateDirectory=sfmtls-agent" in unit


def test_every_layer_of_the_import_contract_exists():
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    found = {path.stem for path in Path(agent.__file__).parent.glob("*.py")} | {
        path.parent.name for path in Path(agent.__file__).parent.glob("*/__init__.py")
    }

    assert named == found - {"__init__"}
