"""P1: jobs a second, end to end: submit with its three durable points, one poll, a small download, the ledger.

huey and persist-queue stand where a script on our HTTP stack keeps its steps: as many commits a job as ours (7, with
fsync), taken at once where they fall due, without a thread in between. `alone` is how many jobs a second their commits
would allow if there were nothing to send.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from huey.storage import SqliteStorage
from persistqueue import SQLiteAckQueue

from tests.bench import plain
from tests.bench.children import provider
from tests.bench.measure import rounds_of, seconds
from tests.bench.queues import MOTION, SCENE, engine, environment, manifest, run_to_the_end
from tests.bench.results import Line, at_least, ratio, spreads
from tests.bench.sizes import Size

PAYLOAD = f"{SCENE}. {MOTION}".encode()
STEPS = range(plain.STEPS)


def measure(size: Size, rounds: int) -> Sequence[Line]:
    jobs = size.journey_jobs
    with provider() as url:
        variants: dict[str, Callable[[Path], float]] = {
            "runner": lambda folder: asyncio.run(through_runner(url, folder, jobs)),
            "plain httpx": lambda folder: asyncio.run(plain.with_httpx(url, folder, jobs)),
            "same stack": lambda folder: asyncio.run(plain.with_our_stack(url, folder, jobs)),
            "huey": lambda folder: asyncio.run(plain.with_our_stack(url, folder, jobs, huey(folder, jobs))),
            "persist-queue": lambda folder: asyncio.run(plain.with_our_stack(url, folder, jobs, acked(folder, jobs))),
            "huey alone": lambda folder: _alone(huey(folder, jobs), jobs),
            "persist-queue alone": lambda folder: _alone(acked(folder, jobs), jobs),
        }
        took = rounds_of({name: lambda way=way: _fresh(way) for name, way in variants.items()}, rounds)
    rates = {name: [jobs / t for t in times] for name, times in took.items()}
    ours = rates["runner"]
    return [
        ratio("P1", "jobs/s against plain httpx, nothing kept", ours, rates["plain httpx"], at_least(8),
              spreads("jobs/s", rates)),
        ratio("P1", "… against the same HTTP stack, nothing kept", ours, rates["same stack"], at_least(0.8), {}),
        ratio("P1", "… against huey, SQLite with fsync", ours, rates["huey"], at_least(1), {}),
        ratio("P1", "… against persist-queue, SQLite with fsync", ours, rates["persist-queue"], at_least(1), {}),
    ]  # fmt: skip


def _fresh(work: Callable[[Path], float]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return work(Path(folder))


async def through_runner(url: str, folder: Path, jobs: int) -> float:
    """Seconds from the start of the engine, everything queued, to the last file published."""
    order = manifest(folder, jobs)
    async with engine(folder, order, environment({"seedance2ai": url})) as made:
        return await run_to_the_end(made, jobs)


def _alone(keep: plain.Keep, jobs: int) -> float:
    return seconds(lambda: [keep(step) for _ in range(jobs) for step in STEPS])


def huey(folder: Path, jobs: int) -> plain.Keep:
    """Three tasks a job, each taken from the queue and followed by the next; the intent and the result stored."""
    storage = SqliteStorage(filename=str(folder / "huey.db"), fsync=True)
    names = count()
    for _ in range(jobs):
        storage.enqueue(PAYLOAD)

    def store() -> None:
        storage.put_data(f"kept-{next(names)}".encode(), PAYLOAD)

    def put_on() -> None:
        storage.enqueue(PAYLOAD)

    steps = (storage.dequeue, store, put_on, storage.dequeue, put_on, storage.dequeue, store)
    return lambda step: steps[step]()


def acked(folder: Path, jobs: int) -> plain.Keep:
    """persist-queue: the intent put down; three times something is taken, and acknowledged or put on."""
    queue = SQLiteAckQueue(str(folder), name="steps", auto_commit=True)
    intents = SQLiteAckQueue(str(folder), name="intents", auto_commit=True)
    taken: list[bytes] = []
    for _ in range(jobs):
        queue.put(PAYLOAD)

    def take() -> None:
        taken.append(queue.get())

    steps = (take, lambda: intents.put(PAYLOAD), lambda: queue.put(PAYLOAD), take, lambda: queue.put(PAYLOAD), take,
             lambda: queue.ack(taken.pop()))  # fmt: skip
    return lambda step: steps[step]()
