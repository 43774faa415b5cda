"""The agent, logging in every two seconds, which no configuration may ask of a real org.

Run as a program, so that a test can kill it: `python tests/hurried_agent.py CONFIG`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from agent import config, logs
from agent.config import Settings
from agent.daemon import Daemon


def hurried(file: Path) -> Settings:
    settings = config.load(file)
    orgs = {name: replace(org, login_interval=2.0) for name, org in settings.orgs.items()}
    return replace(settings, orgs=orgs)


def main() -> None:
    file = Path(sys.argv[1])
    settings = hurried(file)
    logs.configure(settings.agent.log_level.value, settings.agent.log_format.value)
    asyncio.run(Daemon(settings, lambda: hurried(file), os.environ).run())


if __name__ == "__main__":
    main()
