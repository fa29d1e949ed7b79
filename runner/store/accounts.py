"""An account's row: locked first by whoever claims, and moved for every worker at once by what the provider answers.

Every claim locks it first (SQLite: BEGIN IMMEDIATE is that lock). Counting and claiming in one statement without it
lets a limit of 5 reach 40 on PostgreSQL, because the count belongs to the statement's older snapshot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select, update

from runner.errors import ErrorKind
from runner.limits import Window, probe_pause, slot_pause
from runner.store.tables import accounts

SHORTEST_PAUSE = 5.0  # seconds; "Retry-After: 0" must not make a hot circle of orders …
SHORTEST_BLOCK = 1.0  # … nor of questions


@dataclass(frozen=True, slots=True)
class LockedAccount:
    name: str
    concurrency: int
    windows: tuple[Window, ...]
    poll_interval: timedelta
    blocked_until: datetime | None
    paused_until: datetime | None
    paused_kind: str | None
    stopped: str | None
    stopped_models: frozenset[str]
    probes: int
    list_at: datetime | None

    def blocked(self, now: datetime) -> bool:
        return self.stopped is not None or (self.blocked_until is not None and self.blocked_until > now)

    def paused(self, now: datetime) -> bool:
        return self.paused_until is not None and self.paused_until > now

    @property
    def probing(self) -> bool:
        """Whether no order was taken since the last pause: the next one tells whether it is over, and goes alone."""
        return self.paused_until is not None


def lock_account(connection: Connection, name: str) -> LockedAccount:
    """The account's row, locked until the transaction ends."""
    return as_account(connection.execute(select(accounts).where(accounts.c.name == name).with_for_update()).one())


def lock_accounts(connection: Connection) -> None:
    """All accounts, in one order, before anything else of a mixed transaction: a crowd locks sums that a claim of
    another worker needs while it holds the account that this one claims from next. (SQLite has one lock for all.)"""
    if connection.dialect.name == "postgresql":
        connection.execute(select(accounts.c.name).order_by(accounts.c.name).with_for_update())


def as_account(row: Row[Any]) -> LockedAccount:
    return LockedAccount(
        row.name,
        row.concurrency,
        tuple(Window(*pair) for pair in json.loads(row.windows)),
        timedelta(milliseconds=row.poll_interval_ms),
        row.blocked_until,
        row.paused_until,
        row.paused_kind,
        row.stopped,
        frozenset(json.loads(row.stopped_models)),
        row.probes,
        row.list_at,
    )


def block(connection: Connection, now: datetime, account: str, seconds: float) -> None:
    """No request at all for so long: the provider said so (429, `X-RateLimit-Remaining: 0`)."""
    until = now + timedelta(seconds=max(SHORTEST_BLOCK, seconds))
    later = accounts.c.blocked_until.is_(None) | (accounts.c.blocked_until < until)
    connection.execute(update(accounts).where(accounts.c.name == account, later).values(blocked_until=until))


def pause(
    connection: Connection, now: datetime, account: str, kind: str, note: str, seconds: float | None, slot: bool = False
) -> None:
    """No paid request for a while: out of credits, or the provider is busy. Without a time from the provider the pause
    doubles with every fruitless probe (30 s to 15 min; 15 s to 5 min while waiting for a slot).

    Requests that were on the wire together are one probe: the later answers prolong the pause only by their own word.
    """
    held = lock_account(connection, account)
    paused = held.paused_until if held.paused(now) and held.probes else None
    probes = held.probes if paused else held.probes + 1
    own = slot_pause(probes) if slot else probe_pause(probes)
    until = now + timedelta(seconds=own if seconds is None else max(SHORTEST_PAUSE, seconds))
    if paused is not None:
        until = paused if seconds is None else max(paused, until)
    values = {"paused_until": until, "paused_kind": kind, "paused_note": note, "probes": probes}
    connection.execute(update(accounts).where(accounts.c.name == account).values(values))


OVER: dict[str, None] = {"paused_until": None, "paused_kind": None, "paused_note": None}


def orders_again(connection: Connection, account: str) -> None:
    """An order was taken, so the account is not paused any more. The doubling of its pauses is only over once a task
    has ended as tasks do: a provider may take orders and then let every task fail for want of credits."""
    waiting = accounts.c.paused_until.is_not(None)
    connection.execute(update(accounts).where(accounts.c.name == account, waiting).values(OVER))


def task_ended(connection: Connection, account: str) -> None:
    """A task has ended as tasks do: a slot is free, and pauses that are over begin anew the next time. A pause for
    want of credits or service goes on: the task was ordered before it. (Only touches an account that was paused.)"""
    over = accounts.c.paused_until.is_(None) | (accounts.c.paused_kind == ErrorKind.RATE_LIMITED.value)
    values = {**OVER, "probes": 0}
    connection.execute(update(accounts).where(accounts.c.name == account, accounts.c.probes > 0, over).values(values))


def stop(connection: Connection, account: str, why: str) -> None:
    """A person is needed before anything goes on this account; its jobs are kept as they are."""
    connection.execute(update(accounts).where(accounts.c.name == account).values(stopped=why))


def stop_model(connection: Connection, account: str, model: str) -> None:
    """This account may not use the model; its other models go on."""
    lock_account(connection, account)
    known = json.loads(
        connection.execute(select(accounts.c.stopped_models).where(accounts.c.name == account)).scalar_one()
    )
    names = json.dumps(sorted({*known, model}))
    connection.execute(update(accounts).where(accounts.c.name == account).values(stopped_models=names))


def obey_limit(connection: Connection, account: str, believed: int, limit: int) -> None:
    """`X-RateLimit-Limit` replaces what was believed of the per-minute window; a limit of the person's own stays."""
    held = lock_account(connection, account)
    windows = tuple(Window(limit, 60) if w == Window(believed, 60) else w for w in held.windows)
    if windows != held.windows:
        text = json.dumps([[w.limit, w.seconds] for w in windows])
        connection.execute(update(accounts).where(accounts.c.name == account).values(windows=text))
