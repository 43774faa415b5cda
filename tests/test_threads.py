"""Blocking work beside the event loop: idle threads are used again, hanging ones do not matter."""

import asyncio
import threading

import pytest

from agent.threads import in_a_thread


async def test_the_result_and_the_error_come_back():
    def fail():
        raise OSError("no such disk")

    assert await in_a_thread(lambda: 5) == 5
    with pytest.raises(OSError, match="no such disk"):
        await in_a_thread(fail)


async def test_an_idle_thread_is_used_again():
    seen = set()
    for _ in range(50):
        seen.add(await in_a_thread(threading.get_ident))
        # The thread says so before it is idle.
        await asyncio.sleep(0.002)

    assert threading.get_ident() not in seen
    assert len(seen) < 10


async def test_what_hangs_keeps_nothing_else_waiting():
    go_on = threading.Event()
    hanging = [in_a_thread(go_on.wait) for _ in range(40)]

    async with asyncio.timeout(10):
        assert await in_a_thread(lambda: "done") == "done"
    assert not any(future.done() for future in hanging)
    go_on.set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*hanging) == [True] * 40


async def test_after_a_burst_only_a_few_threads_stay():
    go_on = threading.Event()
    burst = [in_a_thread(go_on.wait) for _ in range(40)]
    go_on.set()
    await asyncio.gather(*burst)
    for _ in range(1000):
        if len(_serving()) > 8:
            await asyncio.sleep(0.005)

    assert 0 < len(_serving()) <= 8


async def test_work_that_nobody_waits_for_any_more_is_no_error(caplog):
    go_on = threading.Event()
    future = in_a_thread(go_on.wait)
    future.cancel()
    go_on.set()
    await in_a_thread(lambda: None)
    await asyncio.sleep(0.05)

    assert not caplog.records


def _serving():
    return [thread for thread in threading.enumerate() if thread.name == "blocking work"]
