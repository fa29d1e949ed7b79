"""P2: durable changes a second through `Store.record`, asked for by 64 callers at once, each waiting for its commit.

A change here moves a job and writes its event: between `running` and `downloading`, there and back. Raw group commit
writes the very same rows of the same tables with plain `sqlite3` in one thread, whoever waits sharing a commit; the ORM
loads, changes and commits one after the other, which is its best case (SQLite has one writer).
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool
from sqlmodel.ext.asyncio.session import AsyncSession

from runner.clock import Clock
from runner.jobs import Change, Event, Standing, State
from runner.store import Store, open_store
from runner.store.tables import EventRow, Job
from tests.bench.measure import percentile, rounds_of
from tests.bench.queues import AT_ONCE, engine, environment, fill, manifest
from tests.bench.results import Line, Spread, at_least, at_most, ratio, spreads
from tests.bench.sizes import Size

WAYS = ((Event.FINISHED, State.RUNNING, State.DOWNLOADING), (Event.URL_EXPIRED, State.DOWNLOADING, State.RUNNING))
MOVE = """UPDATE jobs SET state = ?, due_at = ?, errors = 0, attempts = 1, generation = 1, looks = 0, task_id = ?,
    status = NULL, progress = NULL, error_kind = NULL, error_code = NULL, error_message = NULL, accepted_at = ?,
    finished_at = NULL, unsettled = 0, settle_at = NULL, settle_asks = 0, updated_at = ?, lease = NULL, owner = NULL
    WHERE id = ? AND state = ? AND coalesce(lease, 0) = 0"""
TELL = "INSERT INTO events (at, job_id, event, source, target, data) VALUES (?, ?, ?, ?, ?, '{}')"
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON", "temp_store=MEMORY",
           "cache_size=-16000")  # fmt: skip

Once = Callable[[int, int], Awaitable[None]]  # (which of the callers' jobs, which change of it)


def measure(size: Size, rounds: int) -> Sequence[Line]:
    variants = {"record": _through_record, "raw": _raw, "ORM": _orm}
    found = rounds_of(
        {name: lambda way=way: asyncio.run(_in_a_queue(way, size.change_seconds)) for name, way in variants.items()},
        rounds,
    )
    rates = {name: [len(late) / size.change_seconds for late in lates] for name, lates in found.items()}
    slowest = Spread(tuple(1000 * percentile(late, 0.99) for late in found["record"]), "ms")
    raw = spreads("changes/s", rates)
    return [
        ratio("P2", "durable changes/s, 64 callers, against raw group commit", rates["record"], rates["raw"],
              at_least(0.5), raw),
        ratio("P2", "… against a commit for each ORM change", rates["record"], rates["ORM"], at_least(50), {}),
        Line("P2", "… how long a caller waits, 99th percentile", slowest, at_most(10)),
    ]  # fmt: skip


async def _in_a_queue(way: Callable[[Path, float], Awaitable[list[float]]], seconds: float) -> list[float]:
    """How long each change took, in a fresh queue with a task for every caller."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        order = manifest(folder, 1)
        async with engine(folder, order, environment({"seedance2ai": "http://127.0.0.1:9"})) as made:
            await fill(made, running=AT_ONCE)
        return await way(folder / "queue.db", seconds)


async def _callers(once: Once, seconds: float) -> list[float]:
    late: list[float] = []
    ends = time.perf_counter() + seconds

    async def call(caller: int) -> None:
        number = 0
        while (began := time.perf_counter()) < ends:
            await once(caller, number)
            late.append(time.perf_counter() - began)
            number += 1

    await asyncio.gather(*(call(caller) for caller in range(AT_ONCE)))
    return late


async def _through_record(queue: Path, seconds: float) -> list[float]:
    async with open_store(str(queue), Clock(), own=True) as store:
        return await _callers(lambda caller, number: _record(store, caller + 2, number), seconds)


async def _record(store: Store, job: int, number: int) -> None:
    what, source, target = WAYS[number % 2]
    now = store.clock.now()
    standing = Standing(target, now, attempts=1, task_id=f"task-of-{job}", accepted_at=now)
    await store.record(Change(what, job, source, None, now, standing))


def prepare(connection: Any, _record: object = None) -> None:
    """The same settings for everybody, and transactions that begin when we say so."""
    connection.isolation_level = None
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


async def _raw(queue: Path, seconds: float) -> list[float]:
    pen = _RawPen(queue)
    try:
        return await _callers(lambda caller, number: pen.move(caller + 2, number), seconds)
    finally:
        pen.close()


class _RawPen:
    """One thread with one connection: takes what has come, applies it, commits, answers."""

    def __init__(self, queue: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._something = threading.Event()
        self._open = True
        self._thread = threading.Thread(target=self._write, args=(queue,))
        self._thread.start()

    async def move(self, job: int, number: int) -> None:
        done = self._loop.create_future()
        self._waiting.append((job, number, done))
        self._something.set()
        await done

    def close(self) -> None:
        self._open = False
        self._something.set()
        self._thread.join()

    def _write(self, queue: Path) -> None:
        connection = sqlite3.connect(queue)
        prepare(connection)
        while self._open:
            self._something.wait()
            self._something.clear()
            crowd, self._waiting = self._waiting, []
            if crowd:
                self._commit(connection, crowd)
                self._loop.call_soon_threadsafe(_answer, crowd)
        connection.close()

    def _commit(self, connection: sqlite3.Connection, crowd: Sequence[tuple[int, int, asyncio.Future[None]]]) -> None:
        now = round(time.time() * 1e6)
        connection.execute("BEGIN IMMEDIATE")
        ways = [(job, *WAYS[number % 2]) for job, number, _ in crowd]
        moves = [(to.value, now, f"task-of-{job}", now, now, job, source.value) for job, _, source, to in ways]
        moved = connection.executemany(MOVE, moves).rowcount
        tells = [(now, job, what.value, source.value, to.value) for job, what, source, to in ways]
        connection.executemany(TELL, tells)
        connection.execute("COMMIT")
        if moved != len(crowd):
            raise RuntimeError(f"{len(crowd) - moved} jobs were not where they were thought to be")


def _answer(crowd: Sequence[tuple[int, int, asyncio.Future[None]]]) -> None:
    for _, _, done in crowd:
        done.set_result(None)


async def _orm(queue: Path, seconds: float) -> list[float]:
    writing = create_async_engine(f"sqlite+aiosqlite:///{queue}", poolclass=StaticPool)
    event.listen(writing.sync_engine, "connect", prepare)
    one_writer = asyncio.Lock()

    async def move(caller: int, number: int) -> None:
        what, source, target = WAYS[number % 2]
        async with one_writer, AsyncSession(writing, expire_on_commit=False) as session:
            job = await session.get(Job, caller + 2)
            assert job is not None
            now = datetime.now(UTC)
            job.state, job.due_at, job.updated_at = target.value, now, now
            told = {"event": what.value, "source": source.value, "target": target.value, "data": "{}"}
            session.add(EventRow(at=now, job_id=job.id, **told))
            await session.commit()

    try:
        return await _callers(move, seconds)
    finally:
        await writing.dispose()
