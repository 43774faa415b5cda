"""Much work of Python's own, shared between the processor's cores.

Threads would take turns. The processes here are copies of this one: they have all that it has, so
that nothing, and no secret, needs to be sent to them. Only what they return is.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, TypeVar

_Result = TypeVar("_Result")

# What is handed out at a time, so that handing it out costs little beside it.
_AT_ONCE: Final = 50

# Of a copy: what it was made to do.
_work: Callable[[int], Any] | None = None


def in_processes(
    work: Callable[[int], _Result], count: int, processes: int | None = None
) -> list[_Result]:
    """Return what `work` gives for 0, 1, … in this order; it can be pickled.

    None uses the cores that this process may use, so far as each gets enough to do. Call it before
    there are threads: a copy has none, but may have a lock that one held.
    """
    if processes is None:
        processes = min(len(os.sched_getaffinity(0)), count // (4 * _AT_ONCE))
    if processes > 1:
        try:
            with ProcessPoolExecutor(
                processes,
                mp_context=multiprocessing.get_context("fork"),
                initializer=_begin,
                initargs=(work,),
            ) as pool:
                return list(pool.map(_do, range(count), chunksize=_AT_ONCE))
        except BrokenProcessPool:
            # One was killed, most likely for want of memory.
            pass
    return [work(number) for number in range(count)]


def _begin(work: Callable[[int], Any]) -> None:
    global _work  # noqa: PLW0603 - the one thing that a copy does
    _work = work
    # Ctrl-C is for all that run on the terminal; the first process tells about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _do(number: int) -> Any:  # noqa: ANN401 - whatever the work gives
    if _work is None:
        raise RuntimeError("this process was not begun")
    return _work(number)
