"""P9: many tasks in flight: memory; how late the loop is while every task is asked (as at each start) and four
downloads run; and what it costs to wait while nothing is due.

Measured once for each crowd, in a process of its own.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.children import get, in_child, provider
from tests.bench.measure import Lag, percentile
from tests.bench.provider import write_video
from tests.bench.queues import engine, environment, fill, manifest, silence
from tests.bench.results import Line, Spread, at_most
from tests.bench.sizes import MB, Size

DOWNLOADS = 4
RATE = 12 * MB  # bytes a second of each: four of them fill a line of 400 Mbit/s
MOST_MEMORY = {10_000: 110, 100_000: 150}  # MB
SETTLING = 1.0  # seconds until what was under way has ended


def measure(size: Size, _rounds: int) -> Sequence[Line]:
    return [line for tasks in size.crowds for line in _crowd(tasks, size.crowd_seconds)]


def _crowd(tasks: int, seconds: float) -> Sequence[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        big = folder / "big.mp4"
        write_video(big, int(RATE * seconds * 1.5))
        with provider(polls=0, big=big) as url:
            in_child("p09_crowd", "gathered", folder=folder, url=url, tasks=tasks)
            found = in_child("p09_crowd", "watched", folder=folder, url=url, seconds=seconds)
    crowd = f"{tasks:,} tasks in flight"
    asked = {"polls": Spread((found["polls"],), "/s"), "median": Spread((found["median"],), "ms")}
    return [
        Line("P9", f"{crowd}: most memory, MB", Spread((found["peak_mb"],), "MB"),
             at_most(MOST_MEMORY.get(tasks, 110))),
        Line("P9", "… how late the loop is with 4 downloads, 99th percentile", Spread((found["p99"],), "ms"),
             at_most(20), asked),
        Line("P9", "… CPU while nothing is due, % of a core", Spread((found["idle"],), "%"), at_most(3)),
    ]  # fmt: skip


def gathered(folder: str, url: str, tasks: int) -> dict[str, float]:
    """In a child: makes the queue."""

    async def make() -> None:
        order = manifest(Path(folder), 1, concurrency=100_000, poll_interval=300)
        async with engine(Path(folder), order, environment({"seedance2ai": url})) as made:
            urls = [f"{url}/paced?rate={RATE}&n={n}" for n in range(DOWNLOADS)]
            await fill(made, running=tasks, urls=urls)

    asyncio.run(make())
    return {}


def watched(folder: str, url: str, seconds: float) -> dict[str, float]:
    """In a child: lets an engine work on the queue, then lets it wait."""
    return asyncio.run(_watch(Path(folder), url, seconds))


async def _watch(folder: Path, url: str, seconds: float) -> dict[str, float]:
    async with engine(folder, None, environment({"seedance2ai": url})) as made:
        running = asyncio.create_task(made.run())
        await asyncio.sleep(min(SETTLING, seconds))
        polled = await _polled(url)
        async with Lag() as lag:
            await asyncio.sleep(seconds)
        polled = await _polled(url) - polled
        await silence(made)
        await asyncio.sleep(min(SETTLING, seconds))
        began, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        idle = (time.process_time() - began) / (time.perf_counter() - wall)
        made.stop.set()
        await running
    return {"p99": 1000 * percentile(lag.late, 0.99), "median": 1000 * percentile(lag.late, 0.5),
            "polls": polled / seconds, "idle": 100 * idle}  # fmt: skip


async def _polled(url: str) -> int:
    return int((await asyncio.to_thread(get, f"{url}/counted"))["polls"])
