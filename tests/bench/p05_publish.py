"""P5: from the moment a task ends at the provider to its file published here; the transfer itself takes no time.

In seconds of the clock that runner and sandbox share. The machine's own milliseconds count `speed`-fold in it. Measured
once.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, text

from runner.clock import Clock
from runner.store import Store
from tests.bench.children import get, sandbox
from tests.bench.measure import percentile
from tests.bench.queues import engine, environment, manifest, run_to_the_end
from tests.bench.results import Line, Spread, at_most
from tests.bench.sizes import Size

POLL_INTERVAL = 5.0  # seconds, the default
GOALS = {"happyhorse": 1.5, "seedance2ai": POLL_INTERVAL}
SLOTS = 10
MEDIAN = 30.0  # seconds that a task takes


def measure(size: Size, _rounds: int) -> Sequence[Line]:
    return [_line(name, size) for name in GOALS]


def _line(provider: str, size: Size) -> Line:
    late = asyncio.run(_late(provider, size.publish_tasks, size.publish_speed))
    raw = {"90th percentile": Spread((percentile(late, 0.9),), "s"), "most": Spread((max(late),), "s")}
    how = "with a list" if provider == "happyhorse" else "one by one"
    what = f"{provider} ({how}): from its end to the file published, median"
    return Line("P5", what, Spread((percentile(late, 0.5),), "s"), at_most(GOALS[provider]), raw)


async def _late(provider: str, tasks: int, speed: float) -> list[float]:
    with sandbox(speed=speed, render=MEDIAN) as ready, tempfile.TemporaryDirectory() as name:
        clock = Clock(speed, ready["anchor"])
        order = manifest(Path(name), tasks, provider=provider, concurrency=SLOTS, poll_interval=None)
        async with engine(Path(name), order, environment(ready["base_urls"], ready["keys"]), clock) as made:
            await run_to_the_end(made, tasks)
            published = await _published(made.store)
        ledger = await asyncio.to_thread(get, f"{ready['control']}/ledger?provider={provider}")
    accounts = ledger["providers"][provider]["accounts"].values()
    ended = {task["id"]: task["finishes_at"] for account in accounts for task in account["tasks"]}
    return [at - ended[task] for task, at in published.items()]


async def _published(store: Store) -> dict[str, float]:
    """When the last output of each task was published."""
    return await store.read(_published_in)


def _published_in(connection: Connection) -> dict[str, float]:
    rows = connection.execute(
        text("SELECT j.task_id, max(o.published_at) FROM outputs o JOIN jobs j ON j.id = o.job_id GROUP BY j.task_id")
    )
    return {task: at / 1e6 for task, at in rows.tuples()}
