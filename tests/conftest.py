"""What every test may need, and nothing else."""

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings
from revoking import Library, serving

# The machine may be busy, and a first example may make what the others use: no time is asserted.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")


def require_program(name: str) -> str:
    """Return the program's path; without it skip the test, or fail it when CI=true."""
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"{name} is not installed; .ci/run installs what component tests need"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
async def library() -> AsyncIterator[Library]:
    """Serve what an authority publishes on loopback."""
    found = Library()
    found.gate.set()
    async with serving(found.serve) as found.port:
        yield found
        found.gate.set()
