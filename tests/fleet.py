"""What tests of the whole agent share: simulated orgs and the configuration that watches them."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.simulator.directory import host_name
from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, Simulator
from agent.simulator.soap import ORGANIZATION_ID

AGENT = """\
[agent]
interval = "{interval}"
timeouts = {{ dns = 0.5, tcp = 0.5, tls = 0.5, http = 0.5, cycle = 0.9 }}
state_directory = "state"
{agent}
[web]
listen = "127.0.0.1:0"
{web}
[defaults]
trust = {{ system = false, file = "server-root.pem" }}
certificate = "good.pem"
password = {{ file = "password.txt" }}
organization_id = "{organization}"
"""


class Fleet:
    """Simulators by org name and a folder that holds all that the agent needs."""

    def __init__(self, folder, *, interval="1s", agent="", web=""):
        self.folder = folder
        self.file = folder / "config.toml"
        self.pki = Pki.create(datetime.now(UTC))
        self.simulators = {}
        self._head = AGENT.format(
            interval=interval, agent=agent, web=web, organization=ORGANIZATION_ID
        )
        self._orgs = {}
        (folder / "server-root.pem").write_bytes(self.pki.servers.root_pem())
        (folder / "password.txt").write_text(PASSWORD.reveal())
        self.deploy(ClientCertificate.GOOD, "good.pem")

    def deploy(self, defect, name):
        """Write a new certificate with this defect, in one step as a careful operator would."""
        issued = self.pki.client(defect)
        new = self.folder / f".{name}"
        new.write_bytes(issued.chain_pem() + issued.key_pem())
        new.rename(self.folder / name)
        return issued

    async def add(self, name, scenario="healthy", **keys):
        """Start a simulator for a new org and put it into the configuration."""
        simulator = Simulator(SCENARIOS[scenario], self.pki, username=f"probe@{name}.example")
        await simulator.start()
        self.simulators[name] = simulator
        self.configure(name, **keys)
        return simulator

    def configure(self, name, **keys):
        simulator = self.simulators[name]
        standing = {
            "host": host_name(simulator.scenario),
            "connect_to": f"127.0.0.1:{simulator.port}",
            "username": simulator.service.username,
        }
        self._orgs[name] = standing | keys
        self.write()

    def drop(self, name):
        """Take an org out of the configuration; its simulator keeps running."""
        del self._orgs[name]
        self.write()

    def write(self, tail=""):
        text = self._head
        for name, keys in self._orgs.items():
            text += f"\n[orgs.{name}]\n"
            text += "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())
        self.file.write_text(text + tail)

    async def stop(self):
        for simulator in self.simulators.values():
            await simulator.stop()


def _toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + " }"
    return str(value) if isinstance(value, int | float) else f'"{value}"'
