"""What `check` finds for one org, offline."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from agent.inspection import inspect
from agent.org import ClientIdentity, Endpoint, FromFile, Org, TrustAnchors
from agent.simulator.pki import ClientCertificate, Pki


@pytest.fixture
def org(tmp_path):
    pki = Pki.create(datetime.now(UTC))
    (tmp_path / "root.pem").write_bytes(pki.servers.root_pem())
    issued = pki.client(ClientCertificate.GOOD)
    (tmp_path / "chain.pem").write_bytes(issued.chain_pem())
    (tmp_path / "key.pem").write_bytes(issued.key_pem())
    return Org(
        name="emea",
        endpoint=Endpoint("emea.my.salesforce.com"),
        identity=ClientIdentity(
            FromFile(str(tmp_path / "chain.pem")), FromFile(str(tmp_path / "key.pem"))
        ),
        trust=TrustAnchors(system=False, file=str(tmp_path / "root.pem")),
    )


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False)])
def test_a_private_key_that_everybody_can_read_is_a_warning(org, tmp_path, mode, warned):
    (tmp_path / "chain.pem").chmod(0o644)
    (tmp_path / "key.pem").chmod(mode)
    found = inspect(org, {})
    expected = f"orgs.emea.private_key: file {tmp_path}/key.pem can be read by every user of this"

    assert found.problems == ()
    assert list(found.warnings) == [f"{expected} machine"] * warned


def test_a_file_that_holds_chain_and_key_is_as_secret_as_the_key(org, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "chain.pem").read_bytes() + (tmp_path / "key.pem").read_bytes())
    both.chmod(0o644)
    where = FromFile(str(both))
    found = inspect(dataclasses.replace(org, identity=ClientIdentity(where, where)), {})

    assert len(found.warnings) == 1
