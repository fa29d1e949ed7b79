"""P7: from the start of the process to its first poll, with a full queue and many tasks in flight, against an empty
queue with one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.children import get, provider, runner_command
from tests.bench.measure import rounds_of
from tests.bench.queues import engine, environment, fill, manifest
from tests.bench.results import Line, at_most, ratio, spreads
from tests.bench.sizes import Size

PATIENCE = 60.0  # seconds


def measure(size: Size, rounds: int) -> Sequence[Line]:
    with tempfile.TemporaryDirectory() as name, provider(polls=0) as url:
        folder = Path(name)
        asyncio.run(_queue(folder / "full", url, size.resume_queued, size.resume_running))
        asyncio.run(_queue(folder / "empty", url, 0, 1))
        took = rounds_of(
            {which: lambda which=which: _until_first_poll(folder / which, url) for which in ("full", "empty")}, rounds
        )
    what = f"process start to first poll, {size.resume_queued:,} queued and {size.resume_running:,} in flight"
    return [ratio("P7", f"{what}, against none and 1", took["full"], took["empty"], at_most(1.3), spreads("s", took))]


async def _queue(folder: Path, url: str, queued: int, running: int) -> None:
    """A queue whose slots are all taken: nothing new is submitted while it is measured."""
    order = manifest(folder, 1, concurrency=max(1, running), poll_interval=None)
    async with engine(folder, order, environment({"seedance2ai": url})) as made:
        await fill(made, queued=queued, running=running)


def _until_first_poll(folder: Path, url: str) -> float:
    get(f"{url}/reset")
    variables = {**os.environ, **environment({"seedance2ai": url})}
    began = time.time()
    process = subprocess.Popen(runner_command("run", "--db", "queue.db", "--quiet"), cwd=folder, env=variables,
                               stdin=subprocess.DEVNULL)  # fmt: skip
    try:
        while (polled := get(f"{url}/counted")["first_poll_at"]) is None:
            if process.poll() is not None or time.time() - began > PATIENCE:
                raise RuntimeError(f"runner asked for nothing (it ended with {process.returncode})")
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    return float(polled - began)
