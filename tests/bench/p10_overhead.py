"""P10: how much CPU one rendered job costs, with three polls and a file of 2 MB."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from tests.bench import plain
from tests.bench.children import provider
from tests.bench.measure import rounds_of
from tests.bench.queues import engine, environment, manifest, run_to_the_end
from tests.bench.results import Line, Spread, at_most, ratio, spreads
from tests.bench.sizes import MB, Size

POLLS = 3


def measure(size: Size, rounds: int) -> Sequence[Line]:
    jobs = size.overhead_jobs
    with provider(polls=POLLS, media_bytes=2 * MB) as url:
        spent = rounds_of(
            {
                "runner": lambda: asyncio.run(_runner(url, jobs)),
                "same stack": lambda: asyncio.run(_plain(plain.with_our_stack, url, jobs)),
                "plain httpx": lambda: asyncio.run(_plain(plain.with_httpx, url, jobs)),
            },
            rounds,
        )
    each = {name: [1000 * cpu / jobs for cpu in values] for name, values in spent.items()}
    raw = spreads("ms", each)
    return [
        Line("P10", "CPU for one rendered job, ms", Spread(tuple(each["runner"]), "ms"), at_most(8), raw),
        ratio("P10", "… against the same HTTP stack, nothing kept", each["runner"], each["same stack"], None, {}),
    ]


async def _runner(url: str, jobs: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        order = manifest(folder, jobs, concurrency=16)
        async with engine(folder, order, environment({"seedance2ai": url})) as made:
            began = time.process_time()
            await run_to_the_end(made, jobs)
            return time.process_time() - began


async def _plain(script: Any, url: str, jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        work: Coroutine[Any, Any, float] = script(url, Path(folder), jobs)
        await work
        return time.process_time() - began
