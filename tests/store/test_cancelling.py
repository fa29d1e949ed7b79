"""Cancelling whoever waits for the database cancels nothing in it: no hang, no half a step, no transaction left open.

A task cancelled inside a driver's call can leave its transaction open, with a row that the next commit takes along, or
hang for ever; both were seen, natively (Ctrl-C, a test runner) and through anyio's scopes, and shields of one kind do
not hold off the other.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import anyio
import asyncpg
import pytest
from sqlalchemy import Connection, select, update

from runner.errors import NoQueue
from runner.store import Store, open_store, read_store
from runner.store.facts import meta
from store.kit import HandClock, Held, fill, outcome, plain, rows

TIMES = 150  # of each kind, on each engine
PATIENCE = 60.0

Cancel = Callable[[Coroutine[Any, Any, Any], int], Coroutine[Any, Any, bool]]


async def natively(work: Coroutine[Any, Any, Any], ticks: int) -> bool:
    """Cancels the task after so many turns of the loop, and once more while it ends; tells whether it was through."""
    task = asyncio.create_task(work)
    for pause in (ticks, 3):
        for _ in range(pause):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait([task])
    return not task.cancelled()


async def by_scope(work: Coroutine[Any, Any, Any], ticks: int) -> bool:
    """The same through anyio's cancel scope."""
    through = False

    async def run() -> None:
        nonlocal through
        await work
        through = True

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for _ in range(ticks):
            await asyncio.sleep(0)
        group.cancel_scope.cancel()
    return through


@pytest.fixture(params=[natively, by_scope], ids=["natively", "by anyio"])
def cancel(request: pytest.FixtureRequest) -> Cancel:
    return request.param  # type: ignore[no-any-return]


def increment(connection: Connection) -> int:
    """Two statements: half of it would be seen."""
    value = int(connection.execute(select(meta.c.value).where(meta.c.name == "counter")).scalar_one())
    connection.execute(update(meta).where(meta.c.name == "counter").values(value=str(value + 1)))
    connection.execute(update(meta).where(meta.c.name == "twin").values(value=str(value + 1)))
    return value + 1


def counters(connection: Connection) -> tuple[int, int]:
    values = dict(
        connection.execute(select(meta.c.name, meta.c.value).where(meta.c.name.in_(["counter", "twin"]))).all()
    )
    return int(values["counter"]), int(values["twin"])


def start_counting(connection: Connection) -> None:
    connection.execute(meta.delete().where(meta.c.name.in_(["counter", "twin"])))
    connection.execute(meta.insert().values([{"name": "counter", "value": "0"}, {"name": "twin", "value": "0"}]))


async def nothing_is_open(store: Store) -> bool:
    """Whether somebody else may write at once, and nobody sits in a transaction."""
    if store.sqlite:
        with closing(sqlite3.connect(str(store.url.database), timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        return True
    watcher = await asyncpg.connect(plain(store.url.render_as_string(hide_password=False)))
    try:
        idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = current_database()"
        return bool(await watcher.fetchval(idle) == 0)
    finally:
        await watcher.close()


async def test_cancelled_writes_happen_whole_or_not_at_all(store: Store, cancel: Cancel) -> None:
    await store.write(start_counting)
    chance = random.Random(7)
    through = 0
    async with asyncio.timeout(PATIENCE):
        for _ in range(TIMES):
            through += await cancel(store.write(increment), chance.randrange(25))
        last = await store.write(increment)
    assert through < TIMES, "some were cancelled"
    assert await store.read(counters) == (last, last)
    assert through + 1 <= last <= TIMES + 1
    assert await nothing_is_open(store)


async def test_cancelled_reads_leave_their_connection_as_it_was(store: Store, cancel: Cancel) -> None:
    await store.write(start_counting)
    chance = random.Random(8)
    with troubles() as found:
        async with asyncio.timeout(PATIENCE):
            for n in range(TIMES):
                await cancel(store.read(counters), chance.randrange(40))
                if n % 50 == 0:
                    await store.write(increment)
            assert await store.read(counters) == (3, 3), "no reader is stuck on an old snapshot"
    assert found == []
    assert await nothing_is_open(store)


async def test_crowds_of_cancelled_callers(store: Store, cancel: Cancel) -> None:
    """Many wait for one commit, and some of them are cancelled: the others hear of theirs."""
    await store.write(start_counting)
    chance = random.Random(9)
    async with asyncio.timeout(PATIENCE):
        for _ in range(15):
            cancelled = [cancel(store.write(increment), chance.randrange(20)) for _ in range(5)]
            steady = [store.write(increment) for _ in range(5)]
            found = await asyncio.gather(*cancelled, *steady)
            assert all(isinstance(n, int) for n in found)
    first, second = await store.read(counters)
    assert first == second
    assert 75 <= first <= 150


async def test_whoever_is_cancelled_in_a_commit_finds_it_done(store: Store) -> None:
    """Cancelled while its transaction is open: that commits all the same, and the next writer goes on after it."""
    await store.write(start_counting)
    transaction = Held(store, increment)
    await transaction.applied()
    transaction.task.cancel()
    assert isinstance(await outcome(transaction.task), asyncio.CancelledError)
    following = asyncio.create_task(store.write(increment))
    transaction.let_go()
    assert await following == 2
    assert await store.read(counters) == (2, 2)


async def test_a_queue_that_is_closed_by_a_cancelled_task_is_closed(db: str, cancel: Cancel) -> None:
    """Opening and closing too: the lock is free again; no thread, no task and no transaction is left behind."""
    chance = random.Random(10)
    before = threading.active_count()

    async def session() -> None:
        async with open_store(db, HandClock(), own=True) as store:
            await fill(store, 3)
            await asyncio.gather(store.read(lambda _: None), store.write(lambda _: None))

    async def reading() -> None:
        with suppress(NoQueue):
            async with read_store(db, HandClock()) as store:
                await store.read(lambda _: None)

    async with asyncio.timeout(PATIENCE):
        with troubles() as found:
            for _ in range(15):
                await cancel(session(), int(2 ** chance.uniform(0, 15)))
                await cancel(reading(), int(2 ** chance.uniform(0, 12)))
        assert found == []
        async with open_store(db, HandClock(), own=True) as store:
            await fill(store, 3)
            assert len(await rows(store, meta, meta.c.name == "salt")) == 1
            assert await nothing_is_open(store)
    assert threading.active_count() <= before + 1


@contextmanager
def troubles() -> Iterator[list[str]]:
    """What the loop would have complained about meanwhile: tasks that were never ended, errors nobody heard."""
    loop = asyncio.get_running_loop()
    found: list[str] = []
    loop.set_exception_handler(lambda _, context: found.append(context["message"]))
    try:
        yield found
        gc.collect()
    finally:
        loop.set_exception_handler(None)
