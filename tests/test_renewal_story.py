"""A renewal from end to end: rehearsed beside a running daemon, deployed, seen in its metrics."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from fleet import Fleet
from test_commands import command
from test_daemon import Running

from agent.simulator.pki import ClientCertificate

pytestmark = pytest.mark.slow


class Deployment:
    """Versions of a certificate in folders, and a symbolic link to the one that is live."""

    def __init__(self, fleet):
        self._fleet = fleet
        self._fingerprints = {}

    def issue(self, version, defect):
        """Put a new certificate, chain and key into the folder of a version."""
        (self._fleet.folder / version).mkdir()
        issued = self._fleet.deploy(defect, f"{version}.pem")
        (self._fleet.folder / f"{version}.pem").rename(self.file(version))
        self._fingerprints[version] = fingerprint(issued.leaf)

    def file(self, version):
        return self._fleet.folder / version / "client.pem"

    def go_live(self, version):
        """Swap the link in one step, as a careful operator would."""
        (self._fleet.folder / "next").symlink_to(version)
        (self._fleet.folder / "next").rename(self._fleet.folder / "live")

    async def rehearse(self, version, *options):
        file = self.file(version)
        return await command(
            *("rehearse", "emea", "--certificate", file, "--private-key", file),
            *("--config", self._fleet.file, *options),
        )

    def presented(self, samples):
        """Return the versions whose leaf the metrics show."""
        shown = {
            dict(labels)["fingerprint_sha256"]
            for name, labels in samples
            if name == "sfmtls_certificate_info" and {("side", "client")} <= labels
        }
        return {version for version, leaf in self._fingerprints.items() if leaf in shown}


def fingerprint(certificate):
    return certificate.fingerprint(hashes.SHA256()).hex()


def violated(samples):
    """Return rule and severity of what the metrics say of the client's certificate."""
    found = (dict(labels) for name, labels in samples if name == "sfmtls_policy_violation")
    return {(one["rule"], one["severity"]) for one in found if one["side"] == "client"}


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    await fleet.stop()


@pytest.fixture
def deployment(fleet):
    deployment = Deployment(fleet)
    deployment.issue("current", ClientCertificate.GOOD)
    deployment.issue("for-servers", ClientCertificate.SERVER_AUTH_ONLY)
    deployment.issue("right", ClientCertificate.GOOD)
    deployment.go_live("current")
    return deployment


async def test_a_rehearsed_renewal_is_deployed_and_the_daemon_says_nothing(fleet, deployment):
    simulator = await fleet.add("emea", certificate="live/client.pem")
    async with Running(fleet) as running:
        await running.cycled("emea")
        before = await running.samples()

        bad, bad_text, _ = await deployment.rehearse("for-servers")
        good, good_text, _ = await deployment.rehearse("right", "--login")
        await running.cycled("emea", 2)
        beside = await running.samples()

        deployment.go_live("right")
        await running.cycled("emea", 2)
        after = await running.samples()

    assert bad == 1, bad_text
    assert "lost clientAuth" in bad_text
    assert "emea: do not deploy it" in bad_text
    assert good == 0, good_text
    assert "emea: the candidate is at least as good as the current one" in good_text

    assert deployment.presented(before) == deployment.presented(beside) == {"current"}
    org = ("org", "emea")
    for probe in ("login", "session", "refusal"):
        series = "sfmtls_probe_attempts_total", frozenset({org, ("probe", probe)})
        assert before[series] == beside[series] == 1, "the daemon's own, and no rehearsal's"
    budget = "sfmtls_login_budget_remaining", frozenset({org})
    assert simulator.record.logins == 2
    assert (before[budget], beside[budget]) == (29, 28), "the one that both share"

    assert deployment.presented(after) == {"right"}, "and the series of the old one are gone"
    assert violated(after) == violated(before)
    assert "renewed_cert_regressed" not in {rule for rule, _ in violated(after)}


async def test_the_same_renewal_deployed_against_advice_is_told_as_a_regression(fleet, deployment):
    await fleet.add("emea", certificate="live/client.pem")
    async with Running(fleet) as running:
        await running.cycled("emea")
        before = await running.samples()

        deployment.go_live("for-servers")
        await running.cycled("emea", 2)
        after = await running.samples()

    assert deployment.presented(after) == {"for-servers"}
    regressed = ("renewed_cert_regressed", "critical")
    assert regressed not in violated(before)
    assert regressed in violated(after)
    failing = (
        ("org", "emea"),
        ("probe", "handshake"),
        ("reason", "client_cert_unsupported"),
    )
    assert after["sfmtls_probe_failing", frozenset(failing)] == 1
