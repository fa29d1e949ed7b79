"""What the tests of the store share: a clock moved by hand, a queue with some jobs, and the steps of a job's life."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Connection, func, make_url, select
from sqlalchemy.util import await_only

from runner.clock import Clock
from runner.errors import ErrorKind
from runner.exchange import Accepted, Action, Phase, Refusal, Report, ResultFile
from runner.jobs import Change, Event, Failure, OutputRow, State
from runner.limits import Window
from runner.store import Store, open_store
from runner.store.brink import Brink
from runner.store.changes import events, jobs
from runner.store.claims import Round, Wants, claim
from runner.store.enqueue import AccountSettings, Enqueued, NewBatch, NewJob, enqueue, save_accounts
from runner.store.intents import Claim, Intent
from runner.store.work import Work, load, peek
from runner.verdicts.polling import Poll, after_poll
from runner.verdicts.submission import Outcome, Submission, after_submission, idempotency_key

T0 = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
ACCOUNT = "lane"
TESTS = Path(__file__).parents[1]
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
PATIENCE = 30.0  # seconds until a test that waits for something that never happens is called a failure


class HandClock(Clock):
    """A clock that stands still until a test moves it."""

    __slots__ = ("at",)

    def __init__(self, at: datetime = T0, speed: float = 1.0) -> None:
        object.__setattr__(self, "speed", speed)
        object.__setattr__(self, "anchor", at.timestamp())
        object.__setattr__(self, "at", at)

    def now(self) -> datetime:
        return self.at  # type: ignore[no-any-return]

    def move(self, seconds: float) -> None:
        object.__setattr__(self, "at", self.at + timedelta(seconds=seconds))


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


# What a manifest would ask for


def settings(
    name: str = ACCOUNT, *, concurrency: int = 5, windows: Iterable[tuple[int, int]] = (), provider: str = "seedance2ai"
) -> AccountSettings:
    return AccountSettings(
        name, provider, f"fingerprint of {name}", concurrency, tuple(Window(*w) for w in windows), seconds(5),
        timedelta(hours=6), exclusive=False,
    )  # fmt: skip


def order(n: int, account: str = ACCOUNT, *, priority: int = 0, price: str | None = "10", shape: str = "5s") -> NewJob:
    key = f"{n:04x}" + "0123456789abcdef" * 3
    return NewJob(
        key=key, name="clip", take=1, account=account, provider="seedance2ai", model="sd2", shape=shape,
        spec=f'{{"prompt": "shot {n}"}}', variables=f'{{"shot": "{n}"}}', output=f"renders/shot-{n}.mp4",
        place="night.yaml:3:5", priority=priority, estimated=None if price is None else Decimal(price),
    )  # fmt: skip


def batch(name: str = "night", budget: Mapping[str, str] | None = None) -> NewBatch:
    limits = {account: Decimal(limit) for account, limit in (budget or {}).items()}
    return NewBatch(name, "/folder", "/root", "version: 1\n", "0" * 64, limits)


async def fill(
    store: Store, orders: int | Iterable[NewJob] = 1, *, accounts: Sequence[AccountSettings] = (),
    budget: Mapping[str, str] | None = None, name: str = "night",
) -> Enqueued:  # fmt: skip
    """Saves the accounts (one with five slots by default) and enqueues the orders (or so many equal ones)."""
    wanted = [order(n) for n in range(1, orders + 1)] if isinstance(orders, int) else list(orders)
    await store.write(save_accounts, accounts or [settings()])
    return await store.write(enqueue, store.clock.now(), batch(name, budget), wanted)


# The steps of a job's life, as lane and lifecycle take them


async def intents(
    store: Store, most: int = 100, account: str = ACCOUNT, *, keyed: bool = True, price: str | None = "10"
) -> list[Intent]:
    """What is queued, ready to be claimed. `price` is the exact price of all of them (None: unpriced)."""
    works = await store.read(peek, store.clock.now(), account, most, None)
    return [intent(work, keyed=keyed, price=price) for work in works]


def intent(work: Work, *, keyed: bool = True, price: str | None = "10") -> Intent:
    key = idempotency_key(work.batch, work.key, work.standing.generation) if keyed else None
    cost = None if price is None else Decimal(price)
    return Intent(
        work.id, work.batch_id, work.standing.generation, "/api/v1/generate", work.spec, key, "fingerprint", work.shape,
        cost, cost,
    )  # fmt: skip


def wants(store: Store, account: str = ACCOUNT, *, keyed: bool = True, **more: Any) -> Wants:
    assert store.worker is not None
    return Wants(store.worker, account, keyed, **more)


async def take(store: Store, account: str = ACCOUNT, *, keyed: bool = True, **more: Any) -> Round:
    """One claim of a lane that wants this."""
    return await store.write(claim, store.clock.now(), wants(store, account, keyed=keyed, **more))


async def take_submissions(
    store: Store, most: int = 100, account: str = ACCOUNT, *, keyed: bool = True, price: str | None = "10"
) -> list[Claim]:
    ready = await intents(store, most, account, keyed=keyed, price=price)
    return (await take(store, account, keyed=keyed, intents=ready)).submissions


async def work_of(store: Store, job_id: int) -> Work:
    return (await store.read(load, [job_id]))[job_id]


async def state_of(store: Store, job_id: int) -> State:
    return (await work_of(store, job_id)).standing.state


async def submission(store: Store, claimed: Claim, *, keyed: bool = True, lookable: bool = True) -> Submission:
    work = await work_of(store, claimed.job_id)
    attempt = work.attempt
    assert attempt is not None
    return Submission(
        work.id, claimed.lease, work.standing, attempt.id, attempt.bill, attempt.outcome, attempt.brink_at,
        attempt.answered_at, keyed, lookable, timedelta(hours=1), seconds(5), claimed.request, store.clock.now(),
    )  # fmt: skip


async def mark_brink(store: Store, claimed: Claim) -> None:
    attempt = (await work_of(store, claimed.job_id)).attempt
    assert attempt is not None
    await store.mark_brink(Brink(claimed.job_id, attempt.id, claimed.lease, store.clock.now()))


async def answer(store: Store, claimed: Claim, outcome: Outcome, *, keyed: bool = True, lookable: bool = True) -> None:
    """The submission passed its brink and this came of it."""
    await mark_brink(store, claimed)
    await store.record(*after_submission(await submission(store, claimed, keyed=keyed, lookable=lookable), outcome))


async def accept(
    store: Store, claimed: Claim, task_id: str | None = None, charged: str | None = None, *, keyed: bool = True
) -> None:
    said = None if charged is None else Decimal(charged)
    await answer(store, claimed, Accepted(task_id or f"task-{claimed.job_id}", said), keyed=keyed)


async def set_running(store: Store, most: int = 100, account: str = ACCOUNT, *, keyed: bool = True) -> list[int]:
    """Submits what may go, accepted by the provider; returns the jobs."""
    claims = await take_submissions(store, most, account, keyed=keyed)
    for claimed in claims:
        await accept(store, claimed, keyed=keyed)
    return [claimed.job_id for claimed in claims]


async def polled(store: Store, claimed: Claim, report: Report | Refusal) -> Change:
    """What this answer means for the polled job; nothing is recorded yet."""
    work = await work_of(store, claimed.job_id)
    assert work.attempt is not None
    question = Poll(
        work.id, claimed.lease, work.standing, work.attempt.bill, work.attempt.priced, seconds(5), timedelta(hours=6),
        claimed.request, store.clock.now(),
    )  # fmt: skip
    return after_poll(question, report)


def done(task_id: str, *urls: str, used: str | None = None) -> Report:
    files = tuple(ResultFile(url, n) for n, url in enumerate(urls or ("https://cdn.example/a.mp4?sig=s1",)))
    return Report(task_id, Phase.DONE, "completed", files=files, used=None if used is None else Decimal(used))


def refusal(action: Action, kind: ErrorKind = ErrorKind.UNAVAILABLE, wait: float | None = None) -> Refusal:
    return Refusal(action, kind, action.value, f"told to {action.value}", wait=wait)


async def set_downloading(store: Store, job_id: int, *urls: str, used: str | None = None) -> None:
    """Polls a running job, whose task has ended well."""
    store.clock.move(60)  # type: ignore[attr-defined]
    asked = (await take(store, polls=100)).polls
    [mine] = [c for c in asked if c.job_id == job_id]
    await store.record(await polled(store, mine, done(f"task-{job_id}", *urls, used=used)))
    for claimed in asked:
        if claimed is not mine:
            work = await work_of(store, claimed.job_id)
            await store.record(step(Event.POLLED, work, State.RUNNING, claimed.lease, store.clock.now()))


def published(index: int = 0) -> OutputRow:
    return OutputRow(index, None, False, f"/renders/{index}.mp4", 1000 + index, "5" * 64, "video/mp4")


def step(
    event: Event, work: Work, to: State, lease: int | None, at: datetime, *, outputs: tuple[OutputRow, ...] = (),
    **standing: Any,
) -> Change:  # fmt: skip
    """A change of this job as it stands in `work`."""
    after = replace(work.standing, state=to, **standing)
    return Change(event, work.id, work.standing.state, lease, at, after, outputs=outputs)


FAILURE = Failure(ErrorKind.TASK_FAILED, "code", "why")


# Looking at what is in the database


async def rows(store: Store, table: Any, *conditions: Any) -> list[Any]:
    def ask(connection: Connection) -> list[Any]:
        return list(connection.execute(select(table).where(*conditions).order_by(*table.primary_key.columns)))

    return await store.read(ask)


async def job_row(store: Store, job_id: int) -> Any:
    [row] = await rows(store, jobs, jobs.c.id == job_id)
    return row


async def told(store: Store, job_id: int) -> list[str]:
    """The events of a job, in order."""
    return [row.event for row in await rows(store, events, events.c.job_id == job_id)]


# What a transaction may do that only needs to be one


def count_jobs(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(jobs)).scalar_one())


def add_error(connection: Connection) -> None:
    connection.execute(jobs.update().values(errors=jobs.c.errors + 1))


# Two at once


@asynccontextmanager
async def two_stores(db: str, clock: Clock) -> AsyncIterator[tuple[Store, Store]]:
    """An owner and a second process: on PostgreSQL another worker, on SQLite somebody who decides while it works."""
    postgres = "://" in db
    async with open_store(db, clock, own=True) as one, open_store(db, clock, own=postgres) as other:
        yield one, other


async def at_the_server(db: str, statement: str) -> None:
    """Has the database's owner do something, whatever sessions may do by default there."""
    connection = await asyncpg.connect(plain(db))
    try:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(statement)
    finally:
        await connection.close()


async def fall_silent(db: str, seconds: float = 61, *, but: int | None = None) -> None:
    """All workers on PostgreSQL (`but` one) were last heard so long ago, by the server's clock. SQLite asks nobody."""
    if "://" not in db:
        return
    connection = await asyncpg.connect(plain(db))
    try:
        ticks = round(seconds * 1_000_000)
        await connection.execute("UPDATE workers SET seen_at = seen_at - $1 WHERE id <> $2", ticks, but or 0)
    finally:
        await connection.close()


class Gate:
    """Stands open once it was opened. Transactions wait before it in their own place: a thread, or on the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._here, self._there = asyncio.Event(), threading.Event()

    def open(self) -> None:
        self._there.set()
        self._loop.call_soon_threadsafe(self._here.set)

    async def passed(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._here.wait()

    def wait(self, connection: Connection) -> None:
        """Stops a transaction here until the gate is open."""
        if connection.dialect.name == "postgresql":
            await_only(self.passed())
        else:
            assert self._there.wait(PATIENCE), "nobody opened the gate"


class Held:
    """A transaction that has done its work and not committed yet."""

    def __init__(self, store: Store, function: Callable[..., Any], *args: Any) -> None:
        self._applied, self._go = Gate(), Gate()
        self.task = asyncio.create_task(store.write(self._run, function, *args))

    def _run(self, connection: Connection, function: Callable[..., Any], *args: Any) -> Any:
        result = function(connection, *args)
        self._applied.open()
        self._go.wait(connection)
        return result

    async def applied(self) -> None:
        """Returns when everything but the commit has happened."""
        waiting = asyncio.create_task(self._applied.passed())
        await asyncio.wait([waiting, self.task], return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()
        await waiting

    def let_go(self) -> None:
        self._go.open()

    async def commit(self) -> Any:
        self.let_go()
        return await self.task


@asynccontextmanager
async def held(store: Store, function: Callable[..., Any], *args: Any) -> AsyncIterator[Held]:
    """Within the block the transaction is open, holding its locks; it commits in the block or at its end."""
    transaction = Held(store, function, *args)
    try:
        await transaction.applied()
        yield transaction
    finally:
        await transaction.commit()


async def blocked(db: str, waiting: asyncio.Future[Any]) -> None:
    """Returns when `waiting` stands before a lock, or is through. On SQLite nobody can tell: there it has begun."""
    for _ in range(5):
        await asyncio.sleep(0)
    if "://" not in db:
        return
    watcher = await asyncpg.connect(plain(db))
    try:
        async with asyncio.timeout(PATIENCE):
            while not waiting.done() and not await watcher.fetchval(WAITING):  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0)
    finally:
        await watcher.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # what is waited for happens elsewhere
            await asyncio.sleep(0.01)


async def outcome(work: Awaitable[Any]) -> Any:
    """What it returned, or the exception it raised."""
    [found] = await asyncio.gather(work, return_exceptions=True)
    return found


def address(store: Store) -> str:
    """`--db` of an open store."""
    return str(store.url.database) if store.sqlite else store.url.render_as_string(hide_password=False)


def plain(db: str) -> str:
    """The database's address for asyncpg itself."""
    return make_url(db).set(drivername="postgresql").render_as_string(hide_password=False)


# Other processes


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


class Other:
    """A script in a process of its own that talks in lines: what it prints is heard, and it goes on when told to."""

    def __init__(self, script: str, *args: str | Path, env: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-c", script, *map(str, args)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=TESTS
        )

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hear(self) -> str:
        """The next line that it prints; empty once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL: it can tidy up nothing."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        return self.process.wait(PATIENCE)


def run_python(script: str, *args: str | Path, env: Mapping[str, str] | None = None) -> Ended:
    """Runs a script in a process of its own, to its end."""
    command = [sys.executable, "-c", script, *map(str, args)]
    found = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False, cwd=TESTS)
    return Ended(found.returncode, found.stdout, found.stderr)


def ask_file(queue: Path, statement: str) -> list[Any]:
    """Asks an SQLite file beside the store, through SQLite itself."""
    connection = sqlite3.connect(queue, timeout=1)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()
