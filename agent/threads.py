"""Blocking work in threads that are kept for the next work; what hangs keeps nobody else waiting.

A pool of a fixed size stops when all of its threads hang, on a network mount or a dead resolver,
and a thread for each piece of work costs more than most of the work. Here an idle thread is taken
if there is one, and a new one if not. None of them keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, TypeVar

_Result = TypeVar("_Result")
_Work = Callable[[], None]

# A burst may need many; so many stay.
_MOST_IDLE: Final = 8

# Each waits for work in a queue of its own. The last one to be idle is the first to be taken: its
# stack is still warm.
_idle: Final[list[SimpleQueue[_Work]]] = []


def in_a_thread(work: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """Begin to do it at once, in another thread; what it raises is raised in whoever asks."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type] # there is one where no error is

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised again in whoever asked
            failed = error
        # The loop is gone when the agent has ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failed)

    _give(run)
    return future


def _give(work: _Work) -> None:
    try:
        queue = _idle.pop()
    except IndexError:
        queue = SimpleQueue()
        threading.Thread(target=_serve, args=(queue,), name="blocking work", daemon=True).start()
    queue.put(work)


def _serve(queue: SimpleQueue[_Work]) -> None:
    while True:
        queue.get()()
        if len(_idle) >= _MOST_IDLE:
            return
        _idle.append(queue)
