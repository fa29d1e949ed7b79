"""The pen: one writer per process. Whatever is handed to it comes back after the commit that holds it.

Whoever arrives while a commit is under way shares the next one. Data of one kind that arrived together is applied by
one function call, so a crowd costs little more than one. If a shared transaction fails, each of its items is tried
again alone, so that the one at fault hears of it and the others do not.

Its transactions run in a place of their own (`transactions`): cancelling whoever waits cancels nothing there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from runner.errors import DiskFull, InternalError, LocalError, Taken, Unreachable
from runner.store import engines
from runner.store.accounts import lock_accounts
from runner.store.again import reason
from runner.store.transactions import Transactions

T = TypeVar("T")
P = TypeVar("P")
UNIQUE = frozenset({"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "23505"})
CROWD = 512  # the most items that share one commit: bounds how long one of them waits


@dataclass(slots=True, eq=False)
class _Item:
    apply: Callable[..., Any]
    payload: Any
    crowd: bool
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Pen:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._items: list[_Item] = []
        self._something = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._write(), name="pen")

    async def write(self, function: Callable[..., T], *args: Any) -> T:
        """Runs `function(connection, *args)` in the next transaction; returns its result after the commit."""
        return cast(T, await self._hand_over(_Item(function, args, crowd=False)))

    async def write_together(self, function: Callable[[Connection, Sequence[P]], Sequence[T]], payload: P) -> T:
        """Like `write`, but all payloads for the same function that arrive together are applied by one call."""
        return cast(T, await self._hand_over(_Item(function, payload, crowd=True)))

    async def close(self) -> None:
        """Writes what was handed over, then stops."""
        self._closing = True
        self._something.set()
        await asyncio.shield(self._task)

    async def _hand_over(self, item: _Item) -> Any:
        if self._closing:
            raise LocalError("the queue is closed")
        self._items.append(item)
        self._something.set()
        return await item.done

    async def _write(self) -> None:
        while not (self._closing and not self._items):
            await self._something.wait()
            self._something.clear()
            while self._items:
                crowd, self._items = self._items[:CROWD], self._items[CROWD:]
                await self._commit(crowd)

    async def _commit(self, items: list[_Item]) -> None:
        try:
            results = await self._transactions.run(_apply, items)
        except (OperationalError, Unreachable) as trouble:  # locked, full, gone: nobody's fault, no better one by one
            results = [trouble] * len(items)
        except Exception as trouble:
            if len(items) > 1:
                return await self._alone(items)
            results = [trouble]
        for item, result in zip(items, results, strict=True):
            _answer(item, result)
        return None

    async def _alone(self, items: list[_Item]) -> None:
        for item in items:
            await self._commit([item])


def _apply(connection: Connection, items: Sequence[_Item]) -> list[Any]:
    """Crowds first (they free slots and rooms), then the single functions in their order."""
    if len(items) > 1 and not all(item.crowd for item in items):
        lock_accounts(connection)
    results: dict[int, Any] = {}
    crowds: dict[Callable[..., Any], list[int]] = {}
    for n, item in enumerate(items):
        if item.crowd:
            crowds.setdefault(item.apply, []).append(n)
    for apply, members in crowds.items():
        results.update(zip(members, apply(connection, [items[n].payload for n in members]), strict=True))
    for n, item in enumerate(items):
        if not item.crowd:
            results[n] = item.apply(connection, *item.payload)
    return [results[n] for n in range(len(items))]


def _answer(item: _Item, result: Any) -> None:
    if item.done.done():
        return  # whoever waited was cancelled; the commit stands
    if isinstance(result, Exception):
        item.done.set_exception(_translated(result))
    else:
        item.done.set_result(result)


def _translated(error: Exception) -> Exception:
    """A database error in our words: without its parameters, which hold prompts and URLs."""
    if isinstance(error, IntegrityError):
        return Taken(str(error.orig)) if _unique(error) else InternalError(f"a row that cannot be: {error.orig}")
    if isinstance(error, DBAPIError):
        why = f"the queue cannot be written: {reason(error)}"
        if _full(error):
            return DiskFull(why, "make room on its disk")
        return LocalError(why, engines.DAMAGED if engines.is_damaged(error) else "")
    return error


def _full(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlite_errorname", None) == "SQLITE_FULL"


def _unique(error: IntegrityError) -> bool:
    """Whether what must be unique is there already, and not one of the schema's other rules broken: a bug of ours."""
    names = (getattr(error.orig, "sqlite_errorname", None), getattr(error.orig, "sqlstate", None))
    return not UNIQUE.isdisjoint(names)
