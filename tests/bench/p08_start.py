"""P8: what a command costs before it does anything, and `status` of many jobs against the same of a thousand."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.children import runner_command
from tests.bench.measure import rounds_of, seconds
from tests.bench.queues import engine, environment, fill, manifest
from tests.bench.results import Line, at_most, ratio, spreads
from tests.bench.sizes import Size

FEW = 1000


def measure(size: Size, rounds: int) -> Sequence[Line]:
    return [_help(size, rounds), _status(size, rounds)]


def _help(size: Size, rounds: int) -> Line:
    took = rounds_of(
        {
            "runner --help": lambda: _run(runner_command("--help"), size.starts),
            "import httpx": lambda: _run([sys.executable, "-c", "import httpx"], size.starts),
            "python": lambda: _run([sys.executable, "-c", ""], size.starts),
        },
        rounds,
    )
    return ratio("P8", "runner --help against `import httpx`", took["runner --help"], took["import httpx"],
                 at_most(1.2), spreads("s", took))  # fmt: skip


def _status(size: Size, rounds: int) -> Line:
    jobs = size.status_jobs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for which, many in (("many", jobs), ("few", min(jobs, FEW))):
            asyncio.run(_queue(folder / which, many))
        took = rounds_of(
            {
                "many": lambda: _run(_status_command(folder / "many"), size.starts),
                "few": lambda: _run(_status_command(folder / "few"), size.starts),
            },
            rounds,
        )
    what = f"runner status of {jobs:,} jobs against {min(jobs, FEW):,}"
    return ratio("P8", what, took["many"], took["few"], at_most(3), spreads("s", took))


def _status_command(folder: Path) -> Sequence[str]:
    return runner_command("status", "--db", str(folder / "queue.db"), "--json")


async def _queue(folder: Path, jobs: int) -> None:
    """Half of them queued, the rest in flight: two states to count."""
    order = manifest(folder, 1)
    async with engine(folder, order, environment({"seedance2ai": "http://127.0.0.1:9"})) as made:
        await fill(made, queued=jobs // 2, running=jobs - jobs // 2 - 1)


def _run(command: Sequence[str], times: int) -> float:
    """Seconds of one run, the quickest of a few: a start is disturbed easily, and never made quicker."""
    return min(seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)) for _ in range(times))
