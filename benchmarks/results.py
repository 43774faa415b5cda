"""Keeps what was measured, with the machine it was measured on: `results/NAME.json`.

$SFMTLS_RESULTS is another folder for what is only tried.
"""

from __future__ import annotations

import json
import math
import os
import platform
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

FOLDER: Final = Path(os.environ.get("SFMTLS_RESULTS", Path(__file__).parent / "results"))


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
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(_without_infinity(kept), indent=2, allow_nan=False)
    (FOLDER / f"{name}.json").write_text(text + "\n")


def load(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """Return what was saved last under this name, or None."""
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    kept: dict[str, Any] = json.loads(file.read_text(), object_hook=_with_infinity)
    return kept


# JSON has no number for it; what lies behind a histogram's last bucket is null there.
def _without_infinity(kept: Any) -> Any:  # noqa: ANN401 - any JSON
    match kept:
        case dict():
            return {key: _without_infinity(value) for key, value in kept.items()}
        case list():
            return [_without_infinity(value) for value in kept]
        case float() if math.isinf(kept):
            return None
    return kept


def _with_infinity(kept: dict[str, Any]) -> dict[str, Any]:
    return {key: math.inf if value is None else value for key, value in kept.items()}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios in the same round: machines are noisy, rounds less so."""
    return median(one / two for one, two in zip(ours, theirs, strict=True))


def _processor() -> str:
    models = (
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return next(models, platform.machine())
