"""What a scenario is: one defect of the far side and what the agent is expected to make of it.

One list serves tests and demo. A scenario is a function that gets the healthy one and returns it
with its defect; its name is the scenario's name, its docstring the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from agent.org import TlsVersion
from agent.reason import Reason
from agent.result import ClientAuth, Probe, Undetermined
from agent.simulator.door import Door, RefusalPage
from agent.simulator.http import Delivery, NotHttp, Response
from agent.simulator.pki import ClientCertificate, ServerCertificate
from agent.simulator.soap import Asked, Fault, LoginAnswer

Expectation = Reason | Undetermined | None
"""The reason of a failure, an Undetermined whose reason counts, or None for success."""

Mangle = Callable[[bytes], bytes]

_ALL_WELL: Final[Mapping[Probe, Expectation]] = MappingProxyType(
    {Probe.HANDSHAKE: None, Probe.LOGIN: None, Probe.SESSION: None, Probe.REFUSAL: None}
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One situation; every default is the healthy one.

    `answers` replace what the service would say, `mangles` change its bytes and `deliveries` the
    way it travels, each for what was asked. A probe that is not in `expected` is not run. The org
    is expected to be configured with `soap.ORGANIZATION_ID`, and with the enforcement probe if
    `expected` has it. `client_certificate` is what the agent presents.
    """

    name: str
    summary: str
    door: Door = Door.TLS13_REQUIRED
    refusal_page: RefusalPage = RefusalPage.SALESFORCE
    tls_min: TlsVersion = TlsVersion.TLS_1_2
    tls_max: TlsVersion = TlsVersion.TLS_1_3
    client_certificate: ClientCertificate = ClientCertificate.GOOD
    server_certificate: ServerCertificate = ServerCertificate.GOOD
    uploaded: bool = True  # whether the org knows this client certificate
    enforced: bool = True  # whether the user must authenticate mutually
    login_answer: LoginAnswer = field(default_factory=LoginAnswer)
    sessions_lost: int = 0
    lockout_after: int | None = None
    clock_skew: timedelta = timedelta()
    answers: Mapping[Asked, Fault | Response | NotHttp] = field(default_factory=dict)
    mangles: Mapping[Asked, Mangle] = field(default_factory=dict)
    deliveries: Mapping[Asked, Delivery] = field(default_factory=dict)
    expected_client_auth: ClientAuth = ClientAuth.ACCEPTED
    expected: Mapping[Probe, Expectation] = field(default_factory=lambda: _ALL_WELL)

    def __repr__(self) -> str:
        """Name it; the rest is in the list."""
        return f"<Scenario {self.name}>"

    @property
    def tls_versions(self) -> tuple[TlsVersion, TlsVersion]:
        """The lowest and highest TLS version that the door speaks."""
        return self.door.tls_versions((self.tls_min, self.tls_max))


_registered: dict[str, Scenario] = {}
SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(_registered)


def scenario(define: Callable[[Scenario], Scenario]) -> Callable[[Scenario], Scenario]:
    """Register the scenario that a function makes out of the healthy one, under its name."""
    add(define.__name__, define.__doc__ or "", define)
    return define


def add(name: str, summary: str, define: Callable[[Scenario], Scenario]) -> None:
    """Register a scenario; ValueError when its name is taken or nothing says what it is."""
    if name in _registered:
        raise ValueError(f"there are two scenarios {name}")
    if not summary.strip():
        raise ValueError(f"scenario {name} has no docstring")
    _registered[name] = define(Scenario(name, summary.strip()))


def door_fails(
    base: Scenario, reason: Reason, verdict: ClientAuth = ClientAuth.UNCONFIRMED
) -> Scenario:
    """Expect that the door does not open for this reason, so that nothing follows."""
    return replace(base, expected_client_auth=verdict, expected={Probe.HANDSHAKE: reason})


def login_fails(base: Scenario, reason: Reason) -> Scenario:
    """Expect that the door opens and the login fails for this reason."""
    expected: dict[Probe, Expectation] = {
        Probe.HANDSHAKE: None,
        Probe.LOGIN: reason,
        Probe.REFUSAL: None,
    }
    return replace(base, expected=expected)


def session_fails(base: Scenario, reason: Reason) -> Scenario:
    """Expect that the login works and the session call fails for this reason."""
    return replace(base, expected={**_ALL_WELL, Probe.SESSION: reason})


def also(base: Scenario, probe: Probe, expectation: Expectation) -> Scenario:
    """Expect this of one more probe."""
    return replace(base, expected={**base.expected, probe: expectation})
