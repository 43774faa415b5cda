"""Keeps what was measured, with the machine it was measured on: `results/NAME.json`."""

from __future__ import annotations

import json
import os
import platform
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_FOLDER: Final = Path(__file__).parent / "results"


def save(name: str, figures: dict[str, Any]) -> None:
    """Write the figures of one benchmark in the place of those before. Times are seconds."""
    kept = {
        "taken": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "openssl": ssl.OPENSSL_VERSION,
        },
        **figures,
    }
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")


def _processor() -> str:
    models = (
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return next(models, platform.machine())
