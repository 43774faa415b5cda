"""What every test may need, and nothing else."""

import os
import shutil

import pytest


def require_program(name: str) -> str:
    """Return the program's path; without it skip the test, or fail it when CI=true."""
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"{name} is not installed; .ci/run installs what component tests need"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
