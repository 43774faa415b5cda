"""What orgs presented before, over restarts: what is written, how often, and if that fails."""

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from boards import HANDSHAKE, org, result
from fleet import Fleet
from making import HOST, NOW, world
from structlog.testing import capture_logs

from agent import config
from agent.certificate import SERVER_AUTH
from agent.gate import Gatekeeper, Hold
from agent.history import History
from agent.org import Endpoint
from agent.policy.rule import Side
from agent.runner import OrgRunner
from agent.services import close_services, open_services
from agent.simulator.pki import Pki
from agent.store import FILE_NAME, Store, StoreError
from agent.succession import NEWS

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
EMEA = org("emea")


def client():
    return world().clients.chain()


def server(authority=None):
    chosen = authority or world().servers
    return (*chosen.chain(HOST, eku=(SERVER_AUTH,)), chosen.root.facts)


class Agent:
    """One process after the other on one state directory, with a count of what they wrote."""

    def __init__(self, folder):
        self.file = folder / FILE_NAME
        self.now = NOW
        self.batches = []
        self.start()

    def start(self):
        self.keeper = Gatekeeper(
            lambda _writes: Store.open(self.file), Hold(), os.environ, lambda: self.now
        )
        self.history = History(self.keeper.ask_at_once(Store.pasts), self.ask)

    async def ask(self, question):
        self.batches.append(question.keywords["kept"])
        return await self.keeper.ask(question)

    async def cycle(self, of=EMEA, client_chain=(), server_chain=(), after=MINUTE):
        """Run a cycle that shows these chains and wait until all is written."""
        self.now += after
        shown = result(
            of.name,
            client_chain=client_chain,
            handshake=replace(HANDSHAKE, server_chain=server_chain),
        )
        past = self.history.seen(of, shown, world().anchors, self.now)
        if self.history._writing is not None:
            await self.history._writing
        return past.client_before(), past.server_before(self.now)

    def restart(self):
        self.keeper.close()
        self.start()


@pytest.fixture
def agent(tmp_path):
    agent = Agent(tmp_path)
    yield agent
    agent.keeper.close()


async def test_what_changed_while_the_agent_was_down_is_noticed(agent):
    old, new = (client(), server()), (client(), server(world().chrome))
    await agent.cycle(EMEA, *old)
    agent.restart()

    assert await agent.cycle(EMEA, *new) == old


async def test_what_changed_before_a_restart_stays_known_and_the_news_end_when_they_would_have(
    agent,
):
    old, new = (client(), server()), (client(), server(world().chrome))
    await agent.cycle(EMEA, *old)
    await agent.cycle(EMEA, *new, after=HOUR)
    agent.restart()

    assert await agent.cycle(EMEA, *new) == old
    assert await agent.cycle(EMEA, *new, after=NEWS - 2 * MINUTE) == old
    agent.restart()
    assert await agent.cycle(EMEA, *new) == (old[0], None)


async def test_a_cycle_that_shows_nothing_takes_nothing_away(agent):
    old, new = (client(), server()), (client(), server(world().chrome))
    await agent.cycle(EMEA, *old)
    await agent.cycle(EMEA, *new)

    assert await agent.cycle() == old
    agent.restart()
    assert await agent.cycle() == (None, None), "within the hour only the first pair was written"
    assert await agent.cycle(EMEA, *new) == old


async def test_cycles_without_a_change_write_nothing(agent):
    chains = client(), server()
    for _ in range(300):
        await agent.cycle(EMEA, *chains)
    agent.restart()
    await agent.cycle(EMEA, *chains, after=30 * 24 * HOUR)

    assert len(agent.batches) == 1


async def test_servers_that_take_turns_are_written_once_an_hour_at_most(agent):
    turns = [server(), server(), server(world().chrome)]
    for number in range(24 * 60):
        await agent.cycle(server_chain=turns[number % 3])

    assert len(agent.batches) <= 24


async def test_a_change_within_the_hour_is_written_after_it(agent):
    last = server(world().chrome)
    for chain in (server(), last, last):
        await agent.cycle(server_chain=chain)
    assert agent.batches[-1]["emea"].server.present != last
    await agent.cycle(server_chain=last, after=HOUR)

    assert agent.batches[-1]["emea"].server.present == last


async def test_the_first_cycles_of_many_orgs_are_few_writes(agent):
    chains = client(), server()
    shown = result(client_chain=chains[0], handshake=replace(HANDSHAKE, server_chain=chains[1]))
    orgs = [org(f"org{number}") for number in range(500)]
    for each in orgs:
        agent.history.seen(each, shown, world().anchors, NOW)
        await asyncio.sleep(0)
    await agent.history._writing

    assert len(agent.batches) < 50
    assert sum(map(len, agent.batches)) == 500
    agent.restart()
    assert set(agent.history._kept) == {each.name for each in orgs}


async def test_what_an_org_of_this_name_presented_at_another_door_is_nothing_before_it(agent):
    await agent.cycle(EMEA, client(), server())
    agent.restart()
    elsewhere = replace(EMEA, endpoint=Endpoint("other.my.salesforce.com"))

    assert await agent.cycle(elsewhere, client(), server(world().chrome)) == (None, None)


async def test_a_look_reads_what_is_kept_and_changes_nothing_for_the_daemon(agent):
    old, new = (client(), server()), (client(), server(world().chrome))
    await agent.cycle(EMEA, *old)
    agent.restart()
    writes = len(agent.batches)
    daemon, agent.history = agent.history, agent.history.without_writing()

    assert await agent.cycle(EMEA, *new) == old
    assert len(agent.batches) == writes
    agent.history = daemon
    assert await agent.cycle(EMEA, *new) == old


async def test_a_state_file_that_cannot_be_written_is_told_once_and_nothing_else_stops(agent):
    old, new = (client(), server()), (client(), server(world().chrome))
    moved = agent.file.rename(agent.file.with_name("moved"))
    agent.file.touch()
    with capture_logs() as logged:
        await agent.cycle(EMEA, *old)
        assert await agent.cycle(EMEA, *new, after=HOUR) == old
    moved.rename(agent.file)

    ours = [entry for entry in logged if entry["event"] == "what orgs present cannot be kept"]
    assert len(ours) == 1
    assert "replaced" in ours[0]["error"]
    await agent.cycle(EMEA, *new, after=HOUR)
    agent.restart()
    assert await agent.cycle(EMEA, *new) == old


async def test_a_certificate_that_cannot_be_read_any_more_is_told_and_the_org_begins_anew(agent):
    await agent.cycle(EMEA, client(), server())
    await agent.cycle(org("apac"), client(), server())
    agent.keeper._store._connection.execute(
        "UPDATE presented SET der = x'3000' WHERE org = 'emea' AND position = 0"
    )
    agent.restart()
    with capture_logs() as logged:
        assert await agent.cycle(EMEA, client(), server(world().chrome)) == (None, None)
        assert (await agent.cycle(org("apac"), client()))[0] is not None

    assert [(e["event"], e["org"]) for e in logged] == [
        ("what was presented before cannot be read", "emea")
    ]


async def test_without_a_store_all_is_known_until_the_end(agent):
    agent.history = History()
    old, new = (client(), server()), (client(), server(world().chrome))
    await agent.cycle(EMEA, *old)

    assert await agent.cycle(EMEA, *new) == old
    assert agent.batches == []


def test_a_store_that_cannot_say_what_is_kept_is_a_store_error(tmp_path):
    store = Store.open(tmp_path / FILE_NAME)
    store.close()

    with pytest.raises(StoreError, match="closed"):
        store.pasts()


# --- a real door


async def found(fleet):
    """Do what the daemon does from a start to a stop, and return what is said of the server."""
    settings = config.load(fleet.file)
    services = open_services(settings.agent, os.environ)
    (watched,) = settings.orgs.values()
    services.board.add(watched)
    result = await OrgRunner(watched, services).run()
    if services.history._writing is not None:
        await services.history._writing
    await close_services(services)
    assert result.healthy, repr(result)
    violations = services.board.get("emea").violations
    return {violation.rule for violation in violations if violation.side is Side.SERVER}


async def test_another_root_of_a_server_is_told_over_restarts_and_another_leaf_is_not(tmp_path):
    fleet = Fleet(tmp_path)
    other = Pki.create(datetime.now(UTC)).servers
    trusted = tmp_path / "server-root.pem"
    trusted.write_bytes(trusted.read_bytes() + other.root_pem())
    told = []
    for authority in (fleet.pki.servers, fleet.pki.servers, other, other):
        fleet.pki = replace(fleet.pki, servers=authority)
        await fleet.add("emea")
        told.append("server_root_changed" in await found(fleet))
        await fleet.stop()

    assert told == [False, False, True, True]
