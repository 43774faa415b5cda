"""The demo: simulated orgs in good and bad health, the agent watching them, and its endpoint.

Everything is real but the far side: the same configuration, daemon and metrics as in production,
with short intervals so that there is something to see within seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent import config
from agent.daemon import Daemon
from agent.org import authority
from agent.result import Probe
from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import SCENARIOS, Scenario
from agent.simulator.server import PASSWORD, Simulator
from agent.simulator.soap import ORGANIZATION_ID

# Org → scenario: what a stranger should see first, the doors that open and each kind of trouble.
ORGS: Final[Mapping[str, str]] = {
    "healthy": "healthy",
    "healthy-tls12": "tls12_required_good",
    "healthy-soft-door": "soft_tls13_good",
    "certificate-expiring": "tls13_required_expiring",
    "certificate-expired": "tls13_required_expired",
    "intermediate-missing": "tls13_required_intermediate_missing",
    "soft-refusal": "soft_tls13_intermediate_missing",
    "open-door": "optional_good",
    "no-mutual-tls": "not_asking",
    "server-expired": "server_expired",
    "wrong-password": "invalid_login",
    "password-expired": "password_expired",
    "not-uploaded": "mutual_auth_failed",
    "enforcement-off": "enforcement_off",
    "maintenance": "door_maintenance_503",
    "hanging": "accept_and_hang",
}

_AGENT: Final = """\
[agent]
interval = "5s"
login_interval = "60s"
timeouts = { tls = "1500ms", http = "2s", cycle = "4s" }
state_directory = "state"

[web]
listen = "LISTEN"

[defaults]
port = 8443
trust = { system = false, file = "server-root.pem" }
password = { file = "password.txt" }
organization_id = "ORGANIZATION"
refusal_interval = "30s"
logins_per_hour = 60
"""


async def run(host: str, port: int, seconds: float | None, announce: Callable[[str], None]) -> None:
    """Play everything until SIGINT, SIGTERM or, if given, for some seconds.

    OSError when the endpoint's address is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="sfmtls-demo-") as folder:
        async with AsyncExitStack() as stack:
            file = await _far_side(Path(folder), authority(host, port), stack)
            settings = config.load(file)
            daemon = Daemon(settings, lambda: config.load(file), os.environ)
            address = await daemon.start()
            try:
                _explain(authority(*address), file, announce)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await stop.wait()
            finally:
                await daemon.stop()


async def _far_side(folder: Path, listen: str, stack: AsyncExitStack) -> Path:
    """Start a simulator for each org and return the configuration that watches them all."""
    pki = Pki.create(datetime.now(UTC))
    (folder / "server-root.pem").write_bytes(pki.servers.root_pem())
    _write_private(folder / "password.txt", PASSWORD.reveal().encode())
    text = _AGENT.replace("LISTEN", listen).replace("ORGANIZATION", ORGANIZATION_ID)
    for org, name in ORGS.items():
        simulator = Simulator(SCENARIOS[name], pki, username=f"probe@{org}.example")
        await stack.enter_async_context(simulator)
        _write_identity(folder / f"{org}.pem", pki, simulator.scenario)
        text += _org(org, simulator)
    file = folder / "config.toml"
    file.write_text(text)
    return file


def _write_identity(file: Path, pki: Pki, scenario: Scenario) -> None:
    issued = pki.client(scenario.client_certificate) or pki.client(ClientCertificate.GOOD)
    if issued is None:
        raise ValueError("a good client certificate is not none")
    _write_private(file, issued.chain_pem() + issued.key_pem())


def _write_private(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)


def _org(name: str, simulator: Simulator) -> str:
    enforced = Probe.ENFORCEMENT in simulator.scenario.expected
    return (
        f"\n[orgs.{name}]  # {simulator.scenario.summary}\n"
        f'host = "{name}.my.salesforce.com"\n'
        f'connect_to = "{authority(simulator.host, simulator.port)}"\n'
        f'certificate = "{name}.pem"\n'
        f'username = "{simulator.service.username}"\n'
        + (f"enforcement = true\nenforcement_port = {simulator.plain_port}\n" if enforced else "")
    )


def _explain(address: str, file: Path, announce: Callable[[str], None]) -> None:
    width = max(map(len, ORGS))
    announce(f"The agent watches {len(ORGS)} simulated orgs every 5 seconds:")
    for org, name in ORGS.items():
        announce(f"  {org:{width}}  {SCENARIOS[name].summary.splitlines()[0]}")
    announce("")
    announce(f"  status    http://{address}/")
    announce(f"  metrics   http://{address}/metrics")
    announce(f"  ready?    http://{address}/-/ready")
    announce("")
    announce("Look at which doors are open, what fails and why, and when certificates end:")
    for family in ("client_auth", "probe_failing", "certificate_expiry_days"):
        pattern = " 1$" if family == "client_auth" else ""
        filtered = f" | grep '{pattern}'" if pattern else ""
        announce(f"  curl -s http://{address}/metrics | grep '^sfmtls_{family}'{filtered}")
    announce("Or ask as an operator would, in another terminal:")
    announce(f"  sfmtls-agent probe --config {file}")
    announce("")
    announce("Ctrl-C ends it.")
