"""The status page of a running daemon: wired, bounded and remembered over a restart."""

import asyncio
import os

import httpx
from fleet import Fleet
from test_daemon import until

from agent import config
from agent.daemon import Daemon


async def test_a_daemon_serves_its_page_tries_when_asked_and_remembers_over_a_restart(tmp_path):
    fleet = Fleet(tmp_path, web="lifecycle = true")
    await fleet.add("emea")
    await fleet.add("apac", "invalid_login")

    def load():
        return config.load(fleet.file)

    daemon = Daemon(load(), load, os.environ)
    host, port = await daemon.start()
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        asked = [client.post("/api/v1/orgs/apac/probe?login=true") for _ in range(20)]
        codes = [answer.status_code for answer in await asyncio.gather(*asked)]
        await until(daemon.board.every_org_seen)
        page = await client.get("/")
        before = await recent(client, "emea")
    assert set(codes) <= {200, 409, 429}
    assert fleet.simulators["apac"].record.logins == 1
    assert 'href="/orgs/emea"' in page.text
    await daemon.stop()

    again = Daemon(load(), load, os.environ)
    host, port = await again.start()
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        after = await recent(client, "emea")
    await again.stop()
    await fleet.stop()
    assert before == after[: len(before)]


async def recent(client, name):
    return (await client.get(f"/api/v1/orgs/{name}")).json()["recent"]
