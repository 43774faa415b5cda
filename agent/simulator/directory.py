"""What `simulate --directory` writes: everything to use the simulated far side by hand.

The files are the far side's own idea of a client: certificate and key, the root to trust, the login
request and a configuration for the agent. Whatever holds a secret is readable by its owner only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from agent.credentials import Secret
from agent.org import authority
from agent.result import Probe
from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import Scenario
from agent.simulator.server import Simulator
from agent.simulator.soap import ORGANIZATION_ID, login_envelope

_SECRET: Final = 0o600
_PUBLIC: Final = 0o644


def write(directory: Path, simulator: Simulator, pki: Pki, password: Secret) -> None:
    """Write the files for a simulator that has started; OSError when that is not possible.

    `fullcert.pem` holds the scenario's client certificate, its chain and its key, unencrypted. In
    a scenario without client certificate it is a good one: who leaves it out is such a client.
    """
    scenario = simulator.scenario
    presented = pki.client(scenario.client_certificate) or pki.client(ClientCertificate.GOOD)
    if presented is None:
        raise ValueError("a good client certificate is not none")
    username = simulator.service.username
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "fullcert.pem", presented.chain_pem() + presented.key_pem(), _SECRET)
    _write(directory / "server-root.pem", pki.servers.root_pem(), _PUBLIC)
    _write(directory / "login.txt", login_envelope(username, password), _SECRET)
    _write(directory / "password.txt", password.reveal().encode(), _SECRET)
    _write(directory / "config.toml", configuration(simulator).encode(), _PUBLIC)


def configuration(simulator: Simulator) -> str:
    """Return a configuration of the agent whose one org is the simulated one."""
    scenario = simulator.scenario
    enforced = Probe.ENFORCEMENT in scenario.expected
    return (
        "[agent]\n"
        'state_directory = "state"\n'
        "\n"
        "[web]\n"
        'listen = "127.0.0.1:10843"\n'
        "\n"
        f"[orgs.{scenario.name}]\n"
        f'host = "{host_name(scenario)}"\n'
        f'connect_to = "{authority(simulator.host, simulator.port)}"\n'
        'certificate = "fullcert.pem"\n'
        'private_key = "fullcert.pem"\n'
        'trust = { system = false, file = "server-root.pem" }\n'
        # A JSON string without escaped characters beyond these is a TOML string too.
        f"username = {json.dumps(simulator.service.username, ensure_ascii=False)}\n"
        'password = { file = "password.txt" }\n'
        f'organization_id = "{ORGANIZATION_ID}"\n'
        + (f"enforcement = true\nenforcement_port = {simulator.plain_port}\n" if enforced else "")
    )


def host_name(scenario: Scenario) -> str:
    """Return the My Domain name of a scenario's org; the simulator's certificate covers it."""
    return f"{scenario.name.replace('_', '-')}.my.salesforce.com"


def _write(file: Path, content: bytes, mode: int) -> None:
    # Written beside and moved into place: nobody ever reads half of it, or an old file's rights.
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
    new.replace(file)
