"""When the clock of this machine was set back: what the queue holds for later would wait for as long as that.

Every time that lies ahead is moved by what the clock was moved. Only times that something waits for: evidence (when an
order was sent, when an event happened) stays as it was seen then, and an open question from the future is never sent
again (`verdicts.submission.beyond_key_window`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Column, Connection, Table, select, type_coerce, update

from runner.store.changes import attempts, events, jobs, requests
from runner.store.columns import TICK
from runner.store.hosted import hosted
from runner.store.rows import INTEGER
from runner.store.tables import accounts

log = structlog.get_logger("runner")
NOTICED = timedelta(seconds=60)  # less than that nobody needs to mind
AHEAD = (
    (jobs, "due_at"), (jobs, "settle_at"), (jobs, "accepted_at"), (accounts, "paused_until"),
    (accounts, "blocked_until"), (accounts, "list_at"), (requests, "ended_at"), (attempts, "answered_at"),
    (hosted, "asked_at"),
)  # fmt: skip


def newest(connection: Connection) -> datetime | None:
    """When the last thing happened, by the clock of that time."""
    found: datetime | None = connection.execute(select(events.c.at).order_by(events.c.id.desc()).limit(1)).scalar()
    return found


def since_last_time(connection: Connection, now: datetime) -> timedelta:
    """At the start of an owner: brings the queue back if its last event is still to come. Returns by how much."""
    last = newest(connection)
    by = last - now if last is not None else timedelta(0)
    if by > NOTICED:
        bring_back(connection, now, by)
        return by
    return timedelta(0)


def tell(by: timedelta) -> None:
    """A person should know: what is told of times before and after does not fit together."""
    if by:
        log.warning("the clock of this machine was set back", by=str(by).partition(".")[0])


def bring_back(connection: Connection, now: datetime, by: timedelta) -> None:
    """The clock has just been set back by so much, to `now`."""
    for table, name in AHEAD:
        _bring_back(connection, table, table.c[name], now, by)


def _bring_back(connection: Connection, table: Table, column: Column[Any], now: datetime, by: timedelta) -> None:
    sooner = type_coerce(column, INTEGER) - by // TICK
    connection.execute(update(table).where(column > now).values({column.name: sooner}))
