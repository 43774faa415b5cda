"""The parts of the agent whose bugs are caught and counted apart.

A bug is what is ours to mend: the traceback is in the log, everything else goes on.
"""

from __future__ import annotations

from enum import StrEnum


class Component(StrEnum):
    """Where a bug was caught; the label of sfmtls_internal_errors_total."""

    CYCLE = "cycle"
    POLICY = "policy"
    RELOAD = "reload"
    REVOCATION = "revocation"
    WEB = "web"
