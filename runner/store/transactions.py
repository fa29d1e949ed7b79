"""Where the pen's transactions run, one after the other: never in a task that somebody may cancel.

On SQLite a thread of its own runs a whole transaction in one go: a hop per commit instead of a dozen per statement, and
nothing to cancel half-way. (A task cancelled inside a driver's call can leave half a step visible, or hang for ever.)
On PostgreSQL the driver is asynchronous, and the transaction runs on the loop, in the pen's own task. What may go wrong
on the way to its server, and when it is tried again, `again` knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.failpoints import reached
from runner.store import commits, engines

T = TypeVar("T")


class Transactions(Protocol):
    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """`function(connection, *args)` in one transaction, committed when this returns; rolled back if it raises."""

    async def close(self) -> None: ...


def transactions(url: URL, *, owner: bool) -> Transactions:
    """The writing side of a queue. `owner`: see `engines.sync_writer`."""
    if engines.is_sqlite(url):
        counter = commits.Counter(engines.database_path(url)) if owner else None
        return _InThread(engines.sync_writer(url, owner=owner), counter)
    return _OnLoop(engines.writer(url))


@asynccontextmanager
async def migration(url: URL, normal: Transactions) -> AsyncIterator[Transactions]:
    """Where the steps of a migration run, in place of the queue's `normal` transactions."""
    if not engines.is_sqlite(url):
        yield normal
        return
    special = _InThread(engines.sync_writer(url, migrating=True))
    try:
        yield special
    finally:
        await special.close()


class _InThread:
    def __init__(self, engine: Engine, counter: commits.Counter | None = None) -> None:
        self._engine, self._counter = engine, counter
        self._thread = ThreadPoolExecutor(1, "pen")

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, function, args)

    def _transact(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        counter = self._counter
        with self._engine.begin() as connection:
            before = counter.begin(connection) if counter else 0
            result = function(connection, *args)
            counted = counter.count(connection, before) if counter else None
            reached("before-commit")
        reached("after-commit")
        if counter and counted is not None:
            counter.note(counted)
        return result

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        self._engine.dispose()
        if self._counter:
            self._counter.close()


class _OnLoop:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        async with engines.connected(self._engine.begin()) as connection:
            result = await connection.run_sync(function, *args)
            reached("before-commit")
        reached("after-commit")
        return result

    async def close(self) -> None:
        await self._engine.dispose()
