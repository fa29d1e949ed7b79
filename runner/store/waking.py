"""When a lane should look again: the next moment at which something of its account falls due by itself."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import cache

from sqlalchemy import Column, Connection, Executable, TextClause, bindparam, func, select

from runner.jobs import TERMINAL, State
from runner.limits import earliest, next_room
from runner.store.accounts import LockedAccount
from runner.store.changes import jobs
from runner.store.intents import lost_answers_until
from runner.store.tables import IS_MOVING, IS_POSTPONED, IS_UNSETTLED
from runner.store.windows import request_ends


def wake_at(connection: Connection, now: datetime, account: LockedAccount, *, keyed: bool) -> datetime | None:
    """The next moment at which something of this account falls due by itself.

    What is due already and was not claimed waits for something else: for hands, which their owner knows, for room in
    the window, or for the next walk over the list. Downloads go whatever the account may do.
    """
    download = _next_due(connection, now, account, State.DOWNLOADING)
    if account.stopped is not None:
        return download  # for the rest a person is needed
    if account.blocked(now):
        return earliest(now, download, account.blocked_until)
    full = next_room(account.windows, request_ends(connection, now, account), now)
    asked = [_next_due(connection, now, account, State.UNKNOWN, State.RUNNING), _next_bill(connection, now, account)]
    asking = [max(at, full) if at is not None and full is not None else at for at in asked]
    lost = None if keyed else lost_answers_until(connection, account.name, now)
    postponed = _postponed_until(connection, now, account)
    return earliest(now, download, *asking, postponed, full, lost, account.paused_until, account.list_at)


def _next_due(connection: Connection, now: datetime, account: LockedAccount, *states: State) -> datetime | None:
    return _least(connection, now, account, _least_statement(IS_MOVING, jobs.c.due_at, states))


def _next_bill(connection: Connection, now: datetime, account: LockedAccount) -> datetime | None:
    return _least(connection, now, account, _least_statement(IS_UNSETTLED, jobs.c.settle_at, TERMINAL))


def _postponed_until(connection: Connection, now: datetime, account: LockedAccount) -> datetime | None:
    return _least(connection, now, account, _least_statement(IS_POSTPONED, jobs.c.due_at, (State.QUEUED,)))


def _least(connection: Connection, now: datetime, account: LockedAccount, statement: Executable) -> datetime | None:
    bound = {"of_account": account.name, "at": now}
    found: datetime | None = connection.execute(statement, bound).scalar_one()
    return found


@cache
def _least_statement(kind: TextClause, time: Column[datetime], states: Collection[State]) -> Executable:
    """Of the kind that `kind` tells, the next `time` of a free job in these states."""
    of_kind = select(func.min(time)).where(kind, jobs.c.account == bindparam("of_account"), time > bindparam("at"))
    return of_kind.where(jobs.c.state.in_(states), jobs.c.lease.is_(None))
