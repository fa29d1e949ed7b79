"""P1: jobs a second, end to end: submit with its three durable points, one poll, a small download, the ledger.

huey and persist-queue send nothing at all: they only commit, one after the other and with fsync, as many changes of
their queue as a job of ours makes. That is the most that a pipeline on them could do.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from huey.storage import SqliteStorage
from persistqueue import SQLiteAckQueue

from tests.bench import plain
from tests.bench.children import provider
from tests.bench.measure import rounds_of, seconds
from tests.bench.queues import MOTION, SCENE, engine, environment, manifest, run_to_the_end
from tests.bench.results import Line, at_least, ratio, spreads
from tests.bench.sizes import Size

CHANGES = 7  # of a job: claimed, brink, accepted, poll claimed, finished, download claimed, completed
PEERS = 4  # they get a quarter of the jobs: their rate does not depend on it
PAYLOAD = f"{SCENE}. {MOTION}".encode()


def measure(size: Size, rounds: int) -> Sequence[Line]:
    jobs = size.journey_jobs
    with provider() as url:
        variants: dict[str, Callable[[], float]] = {
            "runner": lambda: _fresh(lambda folder: asyncio.run(through_runner(url, folder, jobs))),
            "plain httpx": lambda: _fresh(lambda folder: asyncio.run(plain.with_httpx(url, folder, jobs))),
            "same stack": lambda: _fresh(lambda folder: asyncio.run(plain.with_our_stack(url, folder, jobs))),
            "huey": lambda: _fresh(lambda folder: huey(folder, jobs // PEERS)) * PEERS,
            "persist-queue": lambda: _fresh(lambda folder: persist_queue(folder, jobs // PEERS)) * PEERS,
        }
        took = rounds_of(variants, rounds)
    rates = {name: [jobs / t for t in times] for name, times in took.items()}
    raw = spreads("jobs/s", rates)
    ours = rates["runner"]
    return [
        ratio("P1", "jobs/s against plain httpx, nothing kept", ours, rates["plain httpx"], at_least(8), raw),
        ratio("P1", "… against the same HTTP stack, nothing kept", ours, rates["same stack"], at_least(0.8), {}),
        ratio("P1", "… against huey, SQLite with fsync", ours, rates["huey"], at_least(1), {}),
        ratio("P1", "… against persist-queue, SQLite with fsync", ours, rates["persist-queue"], at_least(1), {},
              f"both peers: {CHANGES} commits a job, and no request"),
    ]  # fmt: skip


def _fresh(work: Callable[[Path], float]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return work(Path(folder))


async def through_runner(url: str, folder: Path, jobs: int) -> float:
    """Seconds from the start of the engine, everything queued, to the last file published."""
    order = manifest(folder, jobs)
    async with engine(folder, order, environment({"seedance2ai": url})) as made:
        return await run_to_the_end(made, jobs)


def huey(folder: Path, jobs: int) -> float:
    """Three tasks a job, each taken from the queue and followed by the next; the intent and the result stored."""
    storage = SqliteStorage(filename=str(folder / "huey.db"), fsync=True)
    for _ in range(jobs):
        storage.enqueue(PAYLOAD)

    def work() -> None:
        for number in range(jobs):
            data = storage.dequeue()
            storage.put_data(f"intent-{number}".encode(), data)
            storage.enqueue(data, priority=1)
            data = storage.dequeue()
            storage.enqueue(data, priority=1)
            data = storage.dequeue()
            storage.put_data(f"result-{number}".encode(), data)

    took = seconds(work)
    storage.close()
    return took


def persist_queue(folder: Path, jobs: int) -> float:
    """Taken, put on, taken, put on, taken, acknowledged; and the intent put down."""
    queue = SQLiteAckQueue(str(folder), name="steps", auto_commit=True)
    intents = SQLiteAckQueue(str(folder), name="intents", auto_commit=True)
    for _ in range(jobs):
        queue.put(PAYLOAD)

    def work() -> None:
        for _ in range(jobs):
            intents.put(PAYLOAD)
            for _ in range(2):
                queue.ack(queue.get())
            queue.put(PAYLOAD)
            queue.put(PAYLOAD)

    took = seconds(work)
    queue.close()
    intents.close()
    return took
