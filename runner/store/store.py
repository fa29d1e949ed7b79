"""The door to the queue: open it, own it, write through its pen, read beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import structlog
from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.clock import Clock
from runner.errors import Fenced, LocalError, NotSent
from runner.files import make_private
from runner.jobs import Change
from runner.store import again, commits, engines, ownership, place, schema, set_back
from runner.store.again import Patience, Signed, reason
from runner.store.brink import Brink, mark_brinks
from runner.store.changes import apply
from runner.store.pen import Pen
from runner.store.room import Room
from runner.store.transactions import Transactions, transactions

T = TypeVar("T")
log = structlog.get_logger("runner")
BRINK_SECONDS = 10.0  # of the wall: what takes longer may have lost its lease, and its connection its patience


class Store:
    """An open queue. `worker` is this process's name in leases; None for one that only reads or decides.

    `record` and `write` return after the commit; `read` sees what is committed. A worker's database may be away for a
    while: they wait for it. `hurried` is set once the process wants to end, and nothing waits any more.
    """

    def __init__(
        self, url: URL, clock: Clock, writing: Transactions | None, reading: AsyncEngine, worker: int | None
    ) -> None:
        self.url, self.clock, self.worker = url, clock, worker
        self.hurried = asyncio.Event()
        self._reading = reading
        self._room = Room(clock, self.hurried)
        self._patience = None if self.sqlite else Patience(clock, again.PATIENCE if worker is not None else 0.0)
        self._pen = Pen(self._signed(writing)) if writing is not None else None
        self._reads: set[asyncio.Task[Any]] = set()

    def _signed(self, writing: Transactions) -> Transactions:
        return writing if self._patience is None else Signed(writing, self.worker, self._patience)

    async def record(self, *changes: Change, patient: bool = True) -> None:
        """Writes the changes of one step together. Raises Fenced if one of them did not hold any more: then nothing
        that it would have caused was written. Who is not `patient` hears of a full disk at once."""
        attempt = partial(self.pen.write_together, _apply_steps, changes)
        if not await (self._room.through(attempt) if patient else attempt()):
            raise Fenced(f"{changes[0].event}: the job has moved on")

    async def mark_brink(self, brink: Brink) -> None:
        """Commits that the first byte is about to leave. Raises Fenced when the lease is gone, and NotSent when the
        commit took so long that it may be gone by now: then nothing may."""
        began = self.clock.now()
        if not await self._room.through(partial(self.pen.write_together, mark_brinks, brink)):
            raise Fenced("the job has moved on before it was sent")
        if self.clock.real((self.clock.now() - began).total_seconds()) > BRINK_SECONDS:
            raise NotSent("it took too long to note that it was to be sent")

    async def write(self, function: Callable[..., T], *args: Any) -> T:
        """Runs `function(connection, *args)` in the pen's next transaction. Raises LocalError if it cannot commit."""
        return await self._room.through(partial(self.pen.write, function, *args))

    def wait_for_room(self, patience: timedelta) -> None:
        """From now on a full disk is borne for so long."""
        self._room.patience = patience

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Runs `function(connection, *args)` on a snapshot. Cancelling the caller never cancels the database call."""
        task = asyncio.ensure_future(self._read(function, *args))
        self._reads.add(task)
        task.add_done_callback(self._end_read)
        return await asyncio.shield(task)

    def _end_read(self, task: asyncio.Task[Any]) -> None:
        self._reads.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: then nobody is left to hear of it

    async def _read(self, function: Callable[..., T], *args: Any) -> T:
        attempt = partial(self._read_once, function, *args)
        try:
            return await (attempt() if self._patience is None else self._patience.through(attempt))
        except DBAPIError as error:
            hint = engines.DAMAGED if engines.is_damaged(error) else ""
            raise LocalError(f"the queue cannot be read: {reason(error)}", hint) from None

    async def _read_once(self, function: Callable[..., T], *args: Any) -> T:
        async with engines.connected(self._reading.connect()) as connection:
            return await connection.run_sync(function, *args)

    def steady(self) -> bool:
        """Whether the database was within reach long enough to judge who else lives."""
        return self._patience is None or self._patience.steady(ownership.SILENCE)

    def hurry(self) -> None:
        """The process wants to end: a database that is away, or does not answer at once, is not waited for any more."""
        self.hurried.set()
        if self._patience is not None:
            self._patience.hurry()

    def drop_ballast(self) -> None:
        """Gives back the disk space kept for the id of a task that was just paid for."""
        if self.sqlite:
            place.drop_ballast(engines.database_path(self.url))

    @property
    def pen(self) -> Pen:
        if self._pen is None:
            raise LocalError("this queue was opened for reading only")
        return self._pen

    @property
    def sqlite(self) -> bool:
        return engines.is_sqlite(self.url)

    async def close(self) -> None:
        self.hurry()
        if self._pen is not None:
            await self._pen.close()
        if self._reads:
            await asyncio.wait(self._reads)


def _apply_steps(connection: Connection, steps: Sequence[tuple[Change, ...]]) -> list[bool]:
    """Applies the first change of each step at once, then the second ones, and so on; tells which steps held whole.

    A step ends at its first change that does not hold: a later one could hold by chance, after somebody else's work.
    """
    held = [True] * len(steps)
    for nth in range(max(map(len, steps), default=0)):
        going = [n for n, step in enumerate(steps) if held[n] and nth < len(step)]
        moved = apply(connection, [steps[n][nth] for n in going])
        for at, n in enumerate(going):
            held[n] = at in moved
    return held


@asynccontextmanager
async def open_store(db: str, clock: Clock, *, own: bool = False) -> AsyncIterator[Store]:
    """The queue at `db` for writing, made if it is not there.

    `own`: work on it. On SQLite this takes the kernel lock (OwnedError if another has it) and rescues what dead
    processes left; on PostgreSQL it registers a worker. Without `own` the queue is open for short decisions of a
    person.
    """
    url = engines.parse(db)
    await _must_be_ours(url, own=own)
    lock = _prepare_place(url, own=own)
    writing, reading = transactions(url, owner=own), engines.reader(url, primary=True)
    try:
        await _to_its_end(schema.ensure(writing, reading, url, clock, own=own))
        async with _opened(url, clock, writing, reading, ownership.new_worker_id() if own else None) as store:
            if lock is not None:
                place.keep_ballast(engines.database_path(url))
                _tell_doubts(engines.database_path(url))
            yield store
    finally:
        try:
            await _to_its_end(_dispose(reading, writing))
        finally:
            if lock is not None:
                place.drop_ballast(engines.database_path(url))
                lock.release()


async def _must_be_ours(url: URL, *, own: bool) -> None:
    """Raises LocalError for a file that is no queue of ours, before a lock is left beside it: nothing of ours belongs
    next to a stranger's file."""
    queue = engines.database_path(url)
    if not own or not engines.is_sqlite(url) or not place.is_filled(queue):
        return
    place.check(queue)
    reading = engines.reader(url)
    try:
        await _to_its_end(schema.must_be_ours(reading, url))
    finally:
        await _to_its_end(_dispose(reading))


@asynccontextmanager
async def read_store(db: str, clock: Clock) -> AsyncIterator[Store]:
    """The queue at `db` for reading only. Raises LocalError if there is none, or if it is not a queue of ours."""
    url = engines.parse(db)
    if engines.is_sqlite(url):
        _must_be_there(url)
    reading = engines.reader(url)
    try:
        await _to_its_end(schema.check(reading, url))
        async with _opened(url, clock, None, reading, None) as store:
            yield store
    finally:
        await _to_its_end(_dispose(reading))


@asynccontextmanager
async def _opened(
    url: URL, clock: Clock, writing: Transactions | None, reading: AsyncEngine, worker: int | None
) -> AsyncIterator[Store]:
    store = Store(url, clock, writing, reading, worker)
    beating: asyncio.Task[None] | None = None
    try:
        if worker is not None:
            if store.sqlite:
                await store.write(ownership.register, clock.now(), worker)
            await rescue(store)
            if store.sqlite:  # of several hosts each has a clock of its own
                set_back.tell(await store.write(set_back.since_last_time, clock.now()))
            await store.write(ownership.look_again, clock.now())
            if not store.sqlite:
                beating = asyncio.create_task(_beat(store), name="heartbeat")
        yield store
    finally:
        if beating is not None:
            beating.cancel()
        await _to_its_end(store.close())


async def rescue(store: Store) -> int:
    """Takes over what dead workers left; returns how many jobs that were."""
    return await store.write(_rescue, store, store.clock.now())


def _rescue(connection: Connection, store: Store, now: datetime) -> int:
    """After the database was away others get the time to come back, like us: until then nobody is taken for dead."""
    assert store.worker is not None
    return ownership.rescue_dead(connection, now, store.worker, alone=store.sqlite) if store.steady() else 0


async def _beat(store: Store) -> None:
    """A sign of life every few seconds of the wall clock, and a look for others who gave none."""
    while True:
        await asyncio.sleep(ownership.HEARTBEAT_SECONDS)
        with suppress(LocalError):
            await rescue(store)


def _prepare_place(url: URL, *, own: bool) -> ownership.QueueLock | None:
    """SQLite only: checks the place, takes the lock, makes the file private. Returns the lock of an owner."""
    if not engines.is_sqlite(url):
        return None
    queue = engines.database_path(url)
    if not own:
        _must_be_there(url)
        return None
    place.check(queue)
    lock = ownership.QueueLock(queue)
    try:
        make_private(queue.parent)
        lock.acquire()
        if not queue.exists():
            commits.forget(queue)
        engines.create_private(queue)
    except OSError as error:
        lock.release()
        raise LocalError(f"cannot write the queue {queue}: {error.strerror}") from None
    return lock


def _tell_doubts(queue: Path) -> None:
    for doubt in place.doubts(queue):
        log.warning("the queue is not in a good place", why=doubt, hint="runner doctor tells what to do")


def _must_be_there(url: URL) -> None:
    """For those who do not make a queue: raises NoQueue where there is no file, LocalError where there is no reading
    it."""
    queue = engines.database_path(url)
    if not queue.exists():
        raise schema.no_queue(url)
    place.check_file(queue)


async def _dispose(reading: AsyncEngine, writing: Transactions | None = None) -> None:
    """Disposes readers first and the writer last: whoever closes the file last tidies up its WAL."""
    try:
        await reading.dispose()
    finally:
        if writing is not None:
            await writing.close()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Awaits what must not be cut short. Whoever is cancelled meanwhile, by whatever means, hears of it afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


__all__ = ["Store", "open_store", "read_store", "rescue"]
