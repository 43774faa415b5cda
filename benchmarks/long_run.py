"""Ten minutes of what happens in years: nothing may grow, and nothing be left behind.

Runs the agent as a process while far sides, files and configuration change several times a second
(tests/turmoil.py), puts everything right, and compares what the process holds, and which series it
exports, with the beginning. Usage:

    python benchmarks/long_run.py [--orgs 12] [--seconds 600] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from turmoil import Sample, Turmoil

# What the allocator keeps and gives back; a leak of one object a cycle would be far more.
_GROWTH_KIB = 4 * 1024


async def main() -> int:
    """Run it and return 0 when nothing grew and nothing was left behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orgs", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        async with Turmoil(Path(folder), options.seed, orgs=options.orgs) as agent:
            before, series = await agent.held(), await agent.series()
            await agent.go(options.seconds, sampled=samples)
            await agent.calm()
            after, left = await agent.held(), await agent.series()
            errors = await agent.internal_errors()
            reloads = len(agent.entries("configuration reloaded"))
            bad = len(agent.entries("configuration not usable, the old one stays"))
    quarter = len(samples) // 4
    early = mean(sample.resident_kib for sample in samples[quarter : 2 * quarter])
    late = mean(sample.resident_kib for sample in samples[-quarter:])
    print(f"orgs, seconds, seed       {options.orgs}, {options.seconds}, {options.seed}")
    print(f"what happened             {dict(sorted(agent.acts.items()))}")
    print(f"reloads, bad ones         {reloads}, {bad}")
    print(f"before, after             {before}, {after}")
    print(f"resident, second quarter  {early / 1024:.1f} MiB")
    print(f"resident, last quarter    {late / 1024:.1f} MiB, {(late - early) / 1024:+.1f} MiB")
    print(f"descriptors               {min(s.descriptors for s in samples)} to ", end="")
    print(max(s.descriptors for s in samples))
    print(f"series as before          {left == series}")
    for org in sorted(series.keys() | left.keys()):
        then, now = Counter(series.get(org, ())), Counter(left.get(org, ()))
        for one in sorted((then - now).keys()):
            print(f"  {org} lost {one}")
        for one in sorted((now - then).keys()):
            print(f"  {org} gained {one}")
    print(f"internal errors           {errors:.0f}")
    kept = (
        left == series
        and not errors
        and late - early < _GROWTH_KIB
        and after.descriptors <= before.descriptors + 2
        and after.threads <= before.threads + 2
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
