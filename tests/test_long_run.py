"""An agent that goes through a lot holds in the end what it held in the beginning.

A year passes in half a minute here; `benchmarks/long_run.py` lets it last ten.
"""

from __future__ import annotations

import pytest
from turmoil import Turmoil


@pytest.mark.slow
async def test_after_all_that_can_happen_the_agent_holds_what_it_held_before(tmp_path):
    async with Turmoil(tmp_path, seed=5) as agent:
        before, series = await agent.held(), await agent.series()
        await agent.go(25)
        await agent.calm()
        after, series_after = await agent.held(), await agent.series()
        assert await agent.internal_errors() == 0

    assert len(agent.acts) > 10
    assert agent.entries("configuration reloaded")
    assert agent.entries("handshake failure")
    assert set(series_after) == set(agent.names)
    for name in agent.names:
        assert series_after[name] == series[name]
    assert after.descriptors <= before.descriptors + 2
    assert after.threads <= before.threads + 2
    assert after.children == 0
    assert after.resident_kib < before.resident_kib + 32 * 1024
    assert agent.process.returncode == 0
