"""Trying again: the one home for what may come between a process and its PostgreSQL server.

    two transactions waited for each other    the server has ended one of them: it is made again at once
    a connection broke                        it is replaced at once
    the server cannot be reached              it is waited for with a growing pause, up to `PATIENCE`; told once
    a connection broke at its COMMIT          nobody knows whether it was committed: `Signed` finds out

Every transaction of a worker begins with its sign of life (`ownership.sign`): the worker's own row, which nobody else
changes, is set to a value that it never had before. Transactions of one process come one after the other, so after a
reconnect that row tells whether the doubtful one was committed:

- It may be under way still, its COMMIT on the wire. Then it holds the row's lock, which the next sign waits for: only
  when the old transaction has ended, one way or the other, does the new one read what became of it.
- It was committed: what its function returned is handed on, and nothing is done a second time.
- It was not: it never will be, and is made anew.
- The row is gone: others have taken us for dead meanwhile. Whoever removes the row gives back every lease of ours in
  the same transaction, so what was done under one is fenced when it is made anew; the rest can be done twice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from runner.clock import Clock
from runner.errors import LocalError, Unreachable
from runner.limits import backoff
from runner.store import engines
from runner.store.ownership import sign
from runner.store.transactions import Transactions

T = TypeVar("T")
PATIENCE = 900.0  # wall seconds that the database may be away …
HURRIED = 1.0  # … and that each answer may take once the process wants to end
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 15.0  # seconds
CLASHES = 5  # times that one transaction may be ended for another one's sake
log = structlog.get_logger("runner")


class Patience:
    """How long a process bears it when its database is away. All of one open queue share it: writer and readers.

    `seconds` of the wall; 0 for those who would rather hear of it at once.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._since: datetime | None = None
        self._back: datetime | None = None
        self._told = self._hurried = False
        self._scopes: set[anyio.CancelScope] = set()

    async def through(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` returns, made again until it gets through. Raises Unreachable when patience is at its end."""
        if self._hurried and self._since is not None:
            raise _unreachable("it is away")
        scope = anyio.CancelScope(deadline=anyio.current_time() + HURRIED if self._hurried else math.inf)
        self._scopes.add(scope)
        try:
            with scope:
                return await self._again(attempt)
        finally:
            self._scopes.discard(scope)
        self._since = self._since or self._clock.now()
        raise _unreachable("it does not answer")

    def hurry(self) -> None:
        """The process wants to end: from now on nothing is waited for, and no answer for longer than a moment."""
        self._hurried = True
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, anyio.current_time() + HURRIED)

    def steady(self, time: timedelta) -> bool:
        """Whether the database has been within reach for so long (of the wall)."""
        return self._since is None and (self._back is None or self._lasted(self._back) >= time.total_seconds())

    async def _again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        tries = clashes = 0
        while True:
            try:
                found = await attempt()
            except Exception as error:
                if engines.is_clash(error) and clashes < CLASHES:
                    clashes += 1
                elif engines.is_away(error):
                    tries += 1
                    await self._bear(error, tries)
                else:
                    raise
            else:
                self._note_answer()
                return found

    async def _bear(self, error: Exception, tries: int) -> None:
        """Waits before the next try, but for the first one: it may have been nothing but an old connection."""
        self._since = self._since or self._clock.now()
        away = self._lasted(self._since)
        if self._hurried or away >= self._seconds:
            raise _unreachable(f"away for {away:.0f} s: {reason(error)}" if away >= 1 else reason(error)) from None
        if tries == 1:
            return
        if not self._told:
            self._told = True
            patience = f"up to {self._seconds / 60:.0f} min"
            log.warning("the database does not answer", why=reason(error), waiting=patience)
        spread = random.random()  # noqa: S311
        await self._clock.sleep(backoff(tries - 1, first=FIRST_PAUSE, cap=LONGEST_PAUSE, spread=spread))

    def _note_answer(self) -> None:
        if self._since is None:
            return
        if self._told:
            log.warning("the database answers again", after=f"{self._lasted(self._since):.0f} s")
        self._since, self._told, self._back = None, False, self._clock.now()

    def _lasted(self, since: datetime) -> float:
        return self._clock.real((self._clock.now() - since).total_seconds())


def _unreachable(why: str) -> Unreachable:
    return Unreachable(f"the database cannot be reached: {why}", "when it is back, run the same command again")


def reason(error: Exception) -> str:
    """What the database said, without values of ours: asyncpg repeats a parameter that it cannot take, sqlite3 a text
    that is damaged."""
    if isinstance(error, LocalError):
        return error.message
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    said = said.partition(" with text ")[0] if said.startswith(engines.NO_TEXT) else said
    return "it cannot take a value" if "query argument" in said else said


class Signed:
    """Transactions that get through, and each of them once. Without a `worker` nobody signs: then a COMMIT whose answer
    is lost may be made again, and is only for those whose functions hold once or not at all."""

    def __init__(self, plain: Transactions, worker: int | None, patience: Patience) -> None:
        self._plain, self._worker, self._patience = plain, worker, patience

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        tries = function if self._worker is None else _Tries(self._worker, function)
        return await self._patience.through(partial(self._plain.run, tries, *args))

    async def close(self) -> None:
        await self._plain.close()


class _Tries(Generic[T]):
    """One transaction over all its tries. `_sign` is set while the last one may have been committed."""

    def __init__(self, worker: int, function: Callable[..., T]) -> None:
        self._worker, self._function = worker, function
        self._sign: int | None = None
        self._found: T

    def __call__(self, connection: Connection, *args: Any) -> T:
        fresh = sign(connection, self._worker, self._sign)
        if fresh != self._sign:
            self._sign = None
            self._found = self._function(connection, *args)
            self._sign = fresh
        return self._found
