"""Fuzz each target for a while: `python tests/fuzz/run.py --seconds 60 [TARGET…]`.

Needs atheris (`pip install atheris`), which is no requirement of the tests: what it finds is kept
under `regressions/`, named after its target, and replayed by `tests/test_fuzz_regressions.py`.
Exits 1 when anything was found or a target could not run, and 0 where there is no atheris.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

HERE = Path(__file__).resolve().parent
REGRESSIONS = HERE / "regressions"
TARGETS = ("pem", "der", "config", "soap", "revocation")


class Target(Protocol):
    """What a `fuzz_*.py` has: an input to try, and some to begin with."""

    one_input: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def target(name: str) -> Target:
    return cast("Target", import_module(f"fuzz.fuzz_{name}"))


def found(names: Iterable[str]) -> set[Path]:
    return {file for name in names for file in REGRESSIONS.glob(f"{name}-*")}


def fuzz(name: str, seconds: int) -> None:
    """Run one target in this process, which ends in here: libFuzzer leaves it without a word."""
    import atheris  # noqa: PLC0415 - only those who fuzz have it

    with atheris.instrument_imports(include=["agent"]):
        chosen = target(name)
    with TemporaryDirectory(prefix=f"fuzz-{name}-") as corpus:
        for number, seed in enumerate(chosen.seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-artifact_prefix={REGRESSIONS}/{name}-",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-max_len=16384",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], chosen.one_input)
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if find_spec("atheris") is None:
        print("skipped: atheris is not installed (pip install atheris)")  # noqa: T201
        return 0
    if arguments.alone:
        fuzz(names[0], arguments.seconds)
    before = found(TARGETS)
    ended = {}
    for name in names:
        command = [sys.executable, __file__, "--alone", "--seconds", str(arguments.seconds), name]
        ended[name] = subprocess.run(command, check=False).returncode
    for file in sorted(found(TARGETS) - before):
        print(f"found: {file}")  # noqa: T201
    failed = [name for name, code in ended.items() if code]
    if failed:
        print(f"failed: {', '.join(failed)}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    sys.exit(main())
