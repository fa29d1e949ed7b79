"""A runner without a process: its queue is SQLite in memory, its clock stands until it is moved, and it may die at any
commit. Store, lane, lifecycle and adapters are the program's own; only files, sockets and threads are left out.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import URL

from runner.cli import assembly
from runner.client.asking import Signals
from runner.clock import Clock
from runner.downloads import Published, Wanted
from runner.engine import Engine, Lane
from runner.exchange import Ask, Reply
from runner.lifecycle import fetching, looking
from runner.lifecycle.desk import Desk
from runner.limits import Window
from runner.providers import registry
from runner.store import Store, engines, ownership, schema
from runner.store import store as stores
from runner.store.enqueue import AccountSettings, NewBatch, NewJob
from runner.store.tables import Table
from torture.pretend import Pretend

T = TypeVar("T")
URL_IN_MEMORY = URL.create("sqlite+aiosqlite", database=":memory:")
BEGINNING = datetime(2026, 11, 21, 22, tzinfo=UTC).timestamp()
POLL_INTERVAL, TIMEOUT = timedelta(seconds=5), timedelta(hours=6)
ROUNDS = 60  # claims that one moment can call for; more are a circle
MARK = "fingerprint-of-the-key"


class Death(Exception):
    """The process is gone: nothing that it still wanted to do happens."""


@dataclass(frozen=True)
class StandingClock(Clock):
    """Time that passes only when somebody says so, or sleeps."""

    hand: list[float] = field(default_factory=lambda: [BEGINNING])

    def timestamp(self) -> float:
        return self.hand[0]

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.hand[0], UTC)

    async def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)

    def pass_by(self, seconds: float) -> None:
        self.hand[0] += max(0.0, seconds)


class Leaping(selectors.SelectSelector):
    """Waits for no socket: nothing comes from there. What is waited for is only time, and that leaps ahead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits for somebody, and nobody goes on"
        self.now += max(0.0, timeout)
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop on which a second lasts no longer than it takes to say so."""

    def __init__(self) -> None:
        self._leaping = Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


@dataclass
class Fate:
    """When a runner dies: at its `last` commit from now on (None: not at all), which is `written` or not."""

    last: int | None = None
    written: bool = False
    dead: bool = False

    def go_on(self) -> None:
        """Raises Death for the dead."""
        if self.dead:
            raise Death

    def is_fatal(self) -> bool:
        if self.last is None:
            return False
        self.last -= 1
        self.dead = self.last <= 0
        return self.dead


class Memory:
    """The one queue of this process: `emptied` for every story anew, and outlived by no runner."""

    def __init__(self) -> None:
        self.engine = engines.sync_writer(URL_IN_MEMORY)
        with self.engine.begin() as connection:
            schema._create_once(connection, URL_IN_MEMORY, StandingClock())
        self.raw = self.engine.raw_connection().driver_connection
        assert self.raw is not None

    def emptied(self) -> Memory:
        for table in reversed(Table.metadata.sorted_tables):
            if table.name != "meta":
                self.raw.execute(f"DELETE FROM {table.name}")
        return self

    def decide(self, function: Callable[..., T], *args: Any) -> T:
        """One transaction of another process, that of a person's command."""
        with self.engine.begin() as connection:
            return function(connection, *args)


class Writing:
    """The pen's transactions, on the loop itself."""

    def __init__(self, memory: Memory, fate: Fate) -> None:
        self._engine, self._fate = memory.engine, fate

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        self._fate.go_on()
        fatal = self._fate.is_fatal()
        with self._engine.begin() as connection:
            result = function(connection, *args)
            if fatal and not self._fate.written:
                raise Death
        self._fate.go_on()
        return result

    async def close(self) -> None:
        """The memory outlives its runners."""


class Reading:
    """The store's readers; what they read is what was committed, because nothing else runs meanwhile."""

    def __init__(self, memory: Memory, fate: Fate) -> None:
        self._engine, self._fate = memory.engine, fate

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[_Snapshot]:
        self._fate.go_on()
        with self._engine.connect() as connection:
            yield _Snapshot(connection)


class _Snapshot:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def run_sync(self, function: Callable[..., T], *args: Any) -> T:
        return function(self._connection, *args)


class PretendLine:
    """An account's line whose other end is in this process: no key, no socket, and the brink where it belongs."""

    skew = 0.0

    def __init__(self, provider: Pretend, fate: Fate) -> None:
        self._provider, self._fate = provider, fate
        self.signals = Signals()

    async def ask(self, method: str, path: str, **more: Any) -> Reply:
        self._fate.go_on()
        return self._provider.ask(method, path, **more)

    def submission(self, brink: Callable[[], Any]) -> Ask:
        async def submit(method: str, path: str, **more: Any) -> Reply:
            self._fate.go_on()
            assert method == "POST"
            self._provider.let_out()
            await brink()
            return self._provider.receive(path, more["content"], more.get("headers") or {})

        return submit


@dataclass(frozen=True)
class Terms:
    """How an account may be used. `budget` is of the batch, in credits."""

    provider: str
    concurrency: int
    budget: Decimal | None
    exclusive: bool
    windows: tuple[Window, ...]


class MemoryRunner:
    """One life of the runner, from its start to its end or death."""

    def __init__(self, memory: Memory, provider: Pretend, clock: StandingClock, terms: Terms) -> None:
        self.fate = Fate()
        self._memory, self._provider, self._clock, self._terms = memory, provider, clock, terms
        self._stack = AsyncExitStack()
        self._lane: Lane | None = None

    async def start(self, orders: Sequence[NewJob]) -> None:
        """What `runner run M` does before its lanes go."""
        writing, reading = Writing(self._memory, self.fate), Reading(self._memory, self.fate)
        opening = stores._opened(URL_IN_MEMORY, self._clock, writing, reading, ownership.new_worker_id())  # type: ignore[arg-type]
        self._store = await self._stack.enter_async_context(opening)
        terms = self._terms
        budget = {} if terms.budget is None else {terms.provider: terms.budget}
        settings = AccountSettings(
            terms.provider, terms.provider, MARK, terms.concurrency, terms.windows, POLL_INTERVAL, TIMEOUT,
            terms.exclusive,
        )  # fmt: skip
        batch = NewBatch("farm", "/nowhere", "/nowhere", "", "", budget)
        added = await self._store.write(assembly._add, self._clock.now(), [settings], batch, orders)
        self._lane = Lane(self._desk(self._store), [added.batch_id])
        await looking.hold_foreign(self._lane.desk)

    def _desk(self, store: Store) -> Desk:
        line = PretendLine(self._provider, self.fate)
        return Desk(
            self._terms.provider, registry()[self._terms.provider], line, None, store, self._clock, MARK,  # type: ignore[arg-type]
            POLL_INTERVAL, TIMEOUT, exclusive=self._terms.exclusive, random=lambda: 0.0,
        )  # fmt: skip

    async def work(self) -> datetime | None:
        """All that can be done at this moment; returns when there will be more to do, by what the queue knows."""
        lane = self._lane
        assert lane is not None
        for _ in range(ROUNDS):
            taken = await lane._claim()
            await lane._start(taken)
            await self._all_done(lane)
            if lane.trouble:
                raise lane.trouble[0]
            if not taken:
                return taken.wake_at
        raise AssertionError(f"one moment called for more than {ROUNDS} claims")

    async def _all_done(self, lane: Lane) -> None:
        while tasks := lane._paying | lane._asking | lane._loading | lane.desk.pending:
            await asyncio.wait(tasks)

    @property
    def beyond_budget(self) -> bool:
        assert self._lane is not None
        return self._lane.beyond_budget

    async def run_to_its_end(self) -> Any:
        """A whole run, by the engine itself: for a queue in which nothing moves any more."""
        assert self._lane is not None
        return await Engine(self._store, [self._lane], self._lane.batch_ids).run()

    async def stop(self) -> None:
        """Ends this life; of the dead nothing is written any more."""
        if self._lane is not None:
            await self._all_done(self._lane)
        if not self.fate.dead and self._lane is not None:
            await self._store.write(ownership.rescue, self._clock.now(), [self._store.worker])
        await self._stack.aclose()


async def published_at_once(_fetcher: Any, _clock: Clock, want: Wanted) -> Published:
    """In place of a download: what is fetched, and how, is no part of these stories."""
    return Published(want.root / want.path, 1, "0" * 64, "video/mp4", "mp4")


@asynccontextmanager
async def without_files() -> AsyncIterator[None]:
    honest = fetching.fetch_output
    fetching.fetch_output = published_at_once  # type: ignore[assignment]
    try:
        yield
    finally:
        fetching.fetch_output = honest
