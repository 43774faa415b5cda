"""`make stack`: everything together, to play with."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import require_program

STACK = Path(__file__).parent.parent / "scripts" / "stack.py"
ANYWHERE = [f"--{what}=127.0.0.1:0" for what in ("agent", "prometheus", "alertmanager")]


@pytest.mark.component
@pytest.mark.slow
async def test_the_stack_says_where_everything_is_and_leaves_nothing_behind():
    require_program("prometheus")
    require_program("prometheus-alertmanager")
    process = await asyncio.create_subprocess_exec(
        sys.executable, STACK, *ANYWHERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told = ""
    try:
        async with asyncio.timeout(40):
            while "Ctrl-C" not in told:
                line = await process.stdout.readline()
                assert line, told
                told += line.decode()
        agent = re.search(r"(http://\S+)/metrics", told)[1]
        prometheus = re.search(r"Prometheus +(http://\S+)", told)[1]
        alertmanager = re.search(r"Alertmanager +(http://\S+)", told)[1]
        answers = [f"{agent}/metrics", f"{prometheus}/-/ready", f"{alertmanager}/-/ready"]
        async with httpx.AsyncClient(trust_env=False) as client:
            assert [(await client.get(url)).status_code for url in answers] == [200, 200, 200]
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(20):
                await process.communicate()
            for url in answers:
                with pytest.raises(httpx.ConnectError):
                    await client.get(url)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()
    assert process.returncode == 0


def test_without_the_packages_the_stack_says_how_to_get_them(tmp_path):
    done = subprocess.run(
        [sys.executable, STACK],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert (
        "    apt-get install --no-install-recommends prometheus prometheus-alertmanager\n"
        in done.stderr
    )
