"""The simulator as a program of its own: one scenario, until it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from agent.org import authority
from agent.simulator import directory as files
from agent.simulator.pki import Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, Simulator


async def serve(
    scenario_name: str,
    listen_host: str,
    listen_port: int,
    directory: Path | None,
    announce: Callable[[str], None],
) -> None:
    """Play a scenario until cancelled; the first line announced is `listening on HOST:PORT`.

    KeyError when there is no such scenario, OSError when the port or the directory cannot be used.
    """
    pki = Pki.create(datetime.now(UTC))
    simulator = Simulator(SCENARIOS[scenario_name], pki, host=listen_host, port=listen_port)
    async with simulator:
        if directory is not None:
            files.write(directory, simulator, pki, PASSWORD)
        announce(f"listening on {authority(simulator.host, simulator.port)}")
        announce(f"scenario {scenario_name}: {simulator.scenario.summary}")
        plain = authority(simulator.host, simulator.plain_port)
        announce(f"without client certificates, like port 443: {plain}")
        if directory is not None:
            announce(f"client certificate, root, login.txt and config.toml: {directory}")
        await asyncio.Event().wait()
