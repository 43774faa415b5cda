"""How much work something is, counted, which is the same on every machine."""

import sys
from collections.abc import Callable

from agent import chain


def signature_checks(work: Callable[[], object]) -> int:
    """Return how many signatures were checked; a repeated check is remembered and costs nothing."""
    before = chain._signature.cache_info().misses
    work()
    return chain._signature.cache_info().misses - before


def calls(work: Callable[[], object]) -> int:
    """Return how many functions were called, Python's own included."""
    count = 0

    def profile(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count
