"""An agent's page as it is served, over orgs that stand before simulated doors."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import jsonschema_rs
from prometheus_client import CollectorRegistry

import agent
from agent import config
from agent.chain import Anchors
from agent.journal import Journal
from agent.metrics import Exposition, Instruments
from agent.ondemand import OnDemand, Turns
from agent.result import Probe
from agent.runner import OrgRunner
from agent.services import close_services, open_services
from agent.simulator.directory import host_name
from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, Simulator
from agent.simulator.soap import ORGANIZATION_ID
from agent.status import Desk
from agent.status.openapi import description
from agent.web import Guard, StatusSite, WebServer, create_app

HEAD = """\
[agent]
timeouts = {{ dns = 2, tcp = 2, tls = 0.8, client_auth = 0.1, http = 1.2, cycle = 8 }}
state_directory = "state"
[defaults]
trust = {{ system = false, file = "server-root.pem" }}
password = {{ file = "password.txt" }}
organization_id = "{organization}"
{defaults}
"""
AT_ONCE = 30


def now():
    return datetime.now(UTC)


@dataclass
class Watched:
    """What tests ask of it."""

    services: object
    runners: dict
    simulators: dict
    guard: Guard
    folder: Path
    journal: Journal = field(default_factory=Journal)
    turns: Turns = field(default_factory=Turns)
    probing: bool = True
    listen: str = ""
    port: int = 0
    cycles: int = 0

    def __post_init__(self):
        self.ondemand = OnDemand(self.turn, self.turns, time.monotonic)

    def site(self):
        """Return the pages, wired as the daemon does."""
        desk = Desk(
            self.services.board,
            self.journal,
            version=agent.__version__,
            now=now,
            anchors=self._anchors,
        )
        return StatusSite(desk, self.ondemand.ask if self.probing else None, self.listen)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def _anchors(self, name):
        runner = self.runners.get(name)
        return Anchors(()) if runner is None else runner.judge.seen.anchors

    async def turn(self, name, only=None):
        """Run a cycle of one org, as the daemon does."""
        async with self.turns.of(name):
            runner = self.runners.get(name)
            if runner is None:
                return None
            result = await runner.run(0.0, only)
            self.cycles += 1
            self.journal.take(result, self.services.board.get(name))
            return result

    async def look(self, *names):
        """Run a cycle of these orgs, or of all, some at a time."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def turn(name):
            async with slots:
                await self.turn(name)

        await asyncio.gather(*map(turn, names or self.runners))

    def client(self, **differently):
        return httpx.AsyncClient(base_url=self.url, trust_env=False, **differently)


def validator(name):
    """Return a validator of one of the described documents."""
    components = description("1")["components"]
    described = {"$ref": f"#/components/schemas/{name}", "components": components}
    return jsonschema_rs.validator_for(described, validate_formats=True)


@asynccontextmanager
async def watching(folder, scenarios, *, probing=True, web_config=None, defaults="", listen=""):
    """Serve the page of an org for each scenario, or name of one."""
    pki = Pki.create(now())
    (folder / "server-root.pem").write_bytes(pki.servers.root_pem())
    (folder / "password.txt").write_text(PASSWORD.reveal())
    text = HEAD.format(organization=ORGANIZATION_ID, defaults=defaults)
    async with AsyncExitStack() as stack:
        simulators = {}
        for org, scenario in scenarios.items():
            played = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
            simulator = Simulator(played, pki, username=f"probe@{org}.example")
            simulators[org] = await stack.enter_async_context(simulator)
            text += _org(folder, pki, org, simulator)
        (folder / "config.toml").write_text(text)
        settings = config.load(folder / "config.toml", os.environ)
        services = open_services(settings.agent, os.environ)
        stack.push_async_callback(close_services, services)
        for org in settings.orgs.values():
            services.board.add(org)
        runners = {name: OrgRunner(org, services) for name, org in settings.orgs.items()}
        if web_config is not None:
            (folder / "web-config.yml").write_text(web_config)
        guard = Guard(folder / "web-config.yml" if web_config is not None else None, seconds=3600)
        watched = Watched(services, runners, simulators, guard, folder)
        watched.probing, watched.listen = probing, listen
        app = create_app(
            Exposition(services.board, Instruments(CollectorRegistry())),
            readiness=services.board.every_org_seen,
            now=now,
            guard=watched.guard,
            pages=watched.site().routes(),
        )
        server = WebServer(app, watched.guard)
        _, watched.port = await server.start("127.0.0.1", 0)
        stack.push_async_callback(server.stop)
        stack.push_async_callback(watched.ondemand.drain, 5)
        yield watched


def _org(folder, pki, name, simulator):
    scenario = simulator.scenario
    wanted = scenario.client_certificate
    file = folder / f"{wanted.value}.pem"
    if not file.exists():
        issued = pki.client(wanted) or pki.client(ClientCertificate.GOOD)
        file.write_bytes(issued.chain_pem() + issued.key_pem())
        file.chmod(0o600)
    enforced = Probe.ENFORCEMENT in scenario.expected
    return (
        f"[orgs.{name}]\n"
        f'host = "{host_name(scenario)}"\n'
        f'connect_to = "{simulator.host}:{simulator.port}"\n'
        f'certificate = "{file.name}"\n'
        f'username = "{simulator.service.username}"\n'
        + (f"enforcement = true\nenforcement_port = {simulator.plain_port}\n" if enforced else "")
    )
