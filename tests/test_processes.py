"""Work shared between processes: what they return, and what becomes of one that ends."""

import os
import signal
from pathlib import Path

import pytest

from agent.processes import in_processes


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_results_come_in_their_order(processes):
    assert in_processes(lambda number: number**2, 180, processes) == [n**2 for n in range(180)]


def test_nothing_is_sent_to_the_others_and_all_of_them_are_other_processes():
    with Path(os.devnull).open() as cannot_be_pickled:
        found = in_processes(lambda _: (os.getpid(), cannot_be_pickled.closed), 180, 2)

    assert os.getpid() not in {pid for pid, _ in found}
    assert not any(closed for _, closed in found)


@pytest.mark.parametrize("processes", [None, 1])
def test_little_work_is_done_here(processes):
    assert in_processes(lambda _: os.getpid(), 30, processes) == [os.getpid()] * 30


def test_what_the_work_raises_is_raised_here():
    def work(number):
        if number == 120:
            raise ValueError(f"not {number}")
        return number

    with pytest.raises(ValueError, match="not 120"):
        in_processes(work, 180, 2)


def test_when_one_is_killed_the_work_is_done_here():
    own = os.getpid()

    def work(number):
        if number == 120 and os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    assert in_processes(work, 180, 2) == [own] * 180


def test_ctrl_c_is_for_the_first_process_alone():
    # What runs in the background of a shell without job control ignores it already.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found = in_processes(lambda _: signal.getsignal(signal.SIGINT), 60, 2)

        assert found == [signal.SIG_IGN] * 60
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
