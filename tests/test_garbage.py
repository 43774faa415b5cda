"""Who looks for cycles of dead objects, and when."""

import gc
import weakref

import pytest

from agent.garbage import Collector


class Node:
    """Something that can refer to itself."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def collector():
    collector = Collector()
    collector.start()
    yield collector
    collector.stop()


def dead():
    return weakref.ref(Node())


def test_python_takes_no_whole_look_by_itself_until_the_end():
    before = gc.get_threshold()
    collector = Collector()
    collector.start()
    during = gc.get_threshold()
    collector.stop()

    assert during[:2] == before[:2], "what is young is looked at as always"
    assert during[2] > 10**9
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_a_look_lets_go_of_dead_cycles(collector):
    gone = dead()
    collector.look()

    assert gone() is None


def test_what_outlived_a_look_is_left_out_of_the_next_until_all_is_looked_at(collector):
    node = Node()
    gone = weakref.ref(node)
    collector.look()
    del node
    collector.look()
    assert gone() is not None

    collector.look_at_all()
    collector.look()
    assert gone() is None
