"""What tests of whole cycles share: an org for a simulated door, its keys, and a gate."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from agent import identity, probe
from agent.credentials import Secret
from agent.login import PasswordLogin
from agent.org import (
    ClientIdentity,
    Endpoint,
    Enforcement,
    FromFile,
    Org,
    PasswordCredentials,
    Timeouts,
    TrustAnchors,
)
from agent.probe import Keys, Plan
from agent.probe.tls import client_context
from agent.result import LoginOutcome, Probe, ProbeResult, SkipCause, Skipped
from agent.simulator.directory import host_name
from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import Scenario
from agent.simulator.server import PASSWORD, Simulator
from agent.simulator.soap import ORGANIZATION_ID

# Long enough for a loaded machine on loopback, short enough for doors that never answer.
TIMEOUTS = Timeouts(dns=2, proxy=2, tcp=2, tls=0.8, client_auth=0.1, http=1.2, cycle=8)

ALL = frozenset(Probe)


@dataclass
class Gate:
    """Admits logins with these credentials, up to a number; remembers how they ended."""

    org: Org
    password: Secret = field(default_factory=lambda: PASSWORD)
    admits: int = 5
    ended: list[LoginOutcome] = field(default_factory=list)

    async def admit(self) -> PasswordLogin | Skipped:
        if self.admits == 0:
            return Skipped(SkipCause.BUDGET)
        self.admits -= 1
        return PasswordLogin(
            username=self.org.login.username,
            password=self.password,
            security_token=None,
            path=self.org.soap_path,
            host=self.org.endpoint.host,
            organization_id=self.org.organization_id,
        )

    async def done(self, outcome: LoginOutcome) -> None:
        self.ended.append(outcome)

    async def not_sent(self) -> None:
        self.admits += 1


class Stage:
    """A PKI, its files, and the orgs and keys that fit simulated doors."""

    def __init__(self, pki: Pki, folder: Path) -> None:
        self.pki = pki
        self.root = folder / "server-root.pem"
        self.root.write_bytes(pki.servers.root_pem())
        self._folder = folder
        self._keys: dict[ClientCertificate, Keys] = {}

    def org(self, simulator: Simulator, **changes) -> Org:
        scenario = simulator.scenario
        enforced = Enforcement(port=simulator.plain_port)
        standing = {
            "name": scenario.name,
            "endpoint": Endpoint(
                host=host_name(scenario), connect_to=(simulator.host, simulator.port)
            ),
            "identity": self.source(ClientCertificate.GOOD),
            "trust": TrustAnchors(system=False, file=str(self.root)),
            "login": PasswordCredentials(simulator.service.username, FromFile("unused")),
            "organization_id": ORGANIZATION_ID,
            "enforcement": enforced if Probe.ENFORCEMENT in scenario.expected else None,
            "timeouts": TIMEOUTS,
        }
        return Org(**(standing | changes))

    def source(self, defect: ClientCertificate) -> ClientIdentity:
        """Return where a certificate with this defect is kept, making it if need be."""
        file = self._folder / f"{defect.value}.pem"
        if not file.exists():
            issued = self.pki.client(defect)
            file.write_bytes(issued.chain_pem() + issued.key_pem())
        return ClientIdentity(FromFile(str(file)), FromFile(str(file)))

    def keys(self, defect: ClientCertificate) -> Keys:
        if defect not in self._keys:
            trust = TrustAnchors(system=False, file=str(self.root))
            endpoint = Endpoint("unused")
            bare = client_context(endpoint, trust, None)
            if defect is ClientCertificate.NONE:
                self._keys[defect] = Keys((), bare, bare)
            else:
                presented = identity.read(self.source(defect), environ=os.environ)
                presenting = client_context(endpoint, trust, presented)
                self._keys[defect] = Keys(presented.chain, presenting, bare)
        return self._keys[defect]

    async def cycle(
        self, simulator: Simulator, resolver, *, due=ALL, gate=None, **changes
    ) -> ProbeResult:
        org = self.org(simulator, **changes)
        keys = self.keys(simulator.scenario.client_certificate)
        gate = gate or Gate(org)
        plan = Plan(org, keys, due, gate if org.login else None)
        return await probe.run(plan, resolver, lambda: datetime.now(UTC))


def expects_login(scenario: Scenario) -> bool:
    """Tell whether the agent may send a password in this scenario."""
    return Probe.LOGIN in scenario.expected
