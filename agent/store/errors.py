"""What can be wrong with the state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


class StoreError(Exception):
    """The state file cannot be used; the message says which and why."""


class LostError(StoreError):
    """What was remembered is not there any more: the file is damaged, gone, or an older copy."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What was remembered until `at` is lost. `set_aside` is the name that its file has now."""

    at: datetime
    why: str
    set_aside: str | None = None
