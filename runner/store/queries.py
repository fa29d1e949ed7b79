"""What people and scripts read: counts, sums, listings. Nothing here writes, and nothing is loaded whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, func, select, text

from runner.jobs import State
from runner.ledger import ZERO
from runner.limits import Window
from runner.store.changes import attempts, events, jobs, outputs
from runner.store.tables import IS_MOVING, QUEUED, accounts, batches, totals
from runner.store.work import Work, as_work, everything

PAGE = 500
ASKED_IN_VAIN = 8  # questions in a row about an old task, none of them answered
DISK = "disk"  # the code of a download that this machine stands in the way of
KEY_START = re.compile("[0-9a-f]+")
BIGGEST_ID = 2**63


@dataclass(frozen=True, slots=True)
class Count:
    """Jobs of one batch and account in one state; `estimated` is the sum of their estimates."""

    batch: str
    account: str
    state: State
    jobs: int
    estimated: Decimal


@dataclass(frozen=True, slots=True)
class Sum:
    """What the ledger says of one batch and account. `reserved` is not settled yet."""

    batch: str
    account: str
    reserved: Decimal
    charged: Decimal
    refunded: Decimal


@dataclass(frozen=True, slots=True)
class AccountRow:
    name: str
    provider: str
    concurrency: int
    windows: tuple[Window, ...]
    poll_interval: timedelta
    exclusive: bool
    blocked_until: datetime | None
    paused_until: datetime | None
    paused_kind: str | None
    paused_note: str | None
    probes: int
    stopped: str | None
    stopped_models: frozenset[str]
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class EventLine:
    at: datetime
    event: str
    source: str | None
    target: str
    data: str


def counts(connection: Connection, batch: str | None = None) -> list[Count]:
    statement = (
        select(jobs.c.batch_id, jobs.c.account, jobs.c.state, func.count(), func.sum(jobs.c.estimated))
        .group_by(jobs.c.batch_id, jobs.c.account, jobs.c.state)
        .order_by(jobs.c.batch_id, jobs.c.account, jobs.c.state)
    )
    names = batch_names(connection)
    if batch is not None:
        statement = statement.where(jobs.c.batch_id.in_([i for i, name in names.items() if name == batch]))
    return [
        Count(names[b], account, State(state), int(n), estimated or ZERO)
        for b, account, state, n, estimated in connection.execute(statement)
    ]


def batch_names(connection: Connection) -> dict[int, str]:
    return {row.id: row.name for row in connection.execute(select(batches.c.id, batches.c.name).order_by(batches.c.id))}


def batch_id(connection: Connection, name: str) -> int | None:
    return connection.execute(select(batches.c.id).where(batches.c.name == name)).scalar()


def sums(connection: Connection) -> list[Sum]:
    statement = (
        select(batches.c.name, totals.c.account, totals.c.estimated, totals.c.charged, totals.c.refunded)
        .join(batches, batches.c.id == totals.c.batch_id)
        .order_by(totals.c.batch_id, totals.c.account)
    )
    return [Sum(*row) for row in connection.execute(statement)]


def unsettled(connection: Connection) -> dict[str, Decimal]:
    """Per account, the charges of ended tasks whose refund or final cost is not known yet."""
    charged, refunded = func.sum(jobs.c.charged), func.sum(jobs.c.refunded)
    statement = select(jobs.c.account, charged, refunded).where(text("unsettled = 1")).group_by(jobs.c.account)
    return {account: (paid or ZERO) - (back or ZERO) for account, paid, back in connection.execute(statement)}


def account_rows(connection: Connection) -> list[AccountRow]:
    rows = connection.execute(select(accounts).order_by(accounts.c.name))
    return [
        AccountRow(r.name, r.provider, r.concurrency, tuple(Window(*pair) for pair in json.loads(r.windows)),
                   timedelta(milliseconds=r.poll_interval_ms), bool(r.exclusive), r.blocked_until, r.paused_until,
                   r.paused_kind, r.paused_note, r.probes,
                   r.stopped, frozenset(json.loads(r.stopped_models)), timedelta(milliseconds=r.timeout_ms))
        for r in rows
    ]  # fmt: skip


def stream(
    connection: Connection, *, batch: str | None = None, states: Sequence[State] = (), account: str | None = None
) -> Iterator[Work]:
    """Jobs in the order in which they were enqueued, page by page: a million cost no more memory than a page."""
    last = 0
    while page := page_after(connection, last, batch, states, account):
        yield from page
        last = page[-1].id


def page_after(
    connection: Connection, last: int, batch: str | None, states: Sequence[State], account: str | None
) -> list[Work]:
    """One page of `stream`, for readers that hand out rows as they come."""
    statement = everything().where(jobs.c.id > last).order_by(jobs.c.id).limit(PAGE)
    if batch is not None:
        statement = statement.where(batches.c.name == batch)
    if states:
        statement = statement.where(jobs.c.state.in_(states))
    if account is not None:
        statement = statement.where(jobs.c.account == account)
    return [as_work(row) for row in connection.execute(statement)]


def find_job(connection: Connection, name: str) -> list[Work]:
    """The jobs that `name` may mean: an id, a key, or the beginning of a key."""
    if not KEY_START.fullmatch(name):
        return []
    if name.isdecimal() and int(name) < BIGGEST_ID:
        by_id = [as_work(row) for row in connection.execute(everything().where(jobs.c.id == int(name)))]
        if by_id:
            return by_id
    upper = name + "g"  # keys are hexadecimal: nothing sorts after "f"
    begins = (jobs.c.key >= name) & (jobs.c.key < upper)
    return [as_work(row) for row in connection.execute(everything().where(begins).order_by(jobs.c.id).limit(10))]


@dataclass(frozen=True, slots=True)
class Known:
    """How the queue holds a job; `unpaid`: it was never submitted, and would be if its manifest asked for it now."""

    state: State
    unpaid: bool


def known_states(connection: Connection, batch: str, keys: Sequence[str]) -> dict[str, Known]:
    """Those of the keys that the batch holds."""
    statement = (
        select(jobs.c.key, jobs.c.state, jobs.c.attempts)
        .join(batches, batches.c.id == jobs.c.batch_id)
        .where(batches.c.name == batch, jobs.c.key.in_(keys))
    )
    never = {State.WAITING, State.QUEUED, State.CANCELLED}
    return {
        row.key: Known(State(row.state), row.state in never and (row.attempts == 0 or row.state != State.CANCELLED))
        for row in connection.execute(statement)
    }


def history(connection: Connection, job_id: int) -> list[EventLine]:
    rows = connection.execute(select(events).where(events.c.job_id == job_id).order_by(events.c.id))
    return [EventLine(r.at, r.event, r.source, r.target, r.data) for r in rows]


def tries(connection: Connection, job_id: int) -> list[Any]:
    """Every attempt of a job, oldest first, as rows."""
    return list(connection.execute(select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.id)))


def outputs_of_many(connection: Connection, job_ids: Sequence[int]) -> dict[int, list[Any]]:
    """The published outputs (no thumbnails) of these jobs, as rows, in their order."""
    found: dict[int, list[Any]] = {}
    statement = (
        select(outputs)
        .where(outputs.c.job_id.in_(job_ids), outputs.c.path.is_not(None), outputs.c.thumbnail == 0)
        .order_by(outputs.c.job_id, outputs.c.number)
    )
    for row in connection.execute(statement):
        found.setdefault(row.job_id, []).append(row)
    return found


def last_durations(connection: Connection, account: str, most: int = 200) -> list[float]:
    """How long the last tasks of an account took at the provider, in seconds."""
    statement = (
        select(jobs.c.accepted_at, jobs.c.finished_at)
        .where(text("finished_at IS NOT NULL"), jobs.c.account == account, jobs.c.accepted_at.is_not(None))
        .order_by(jobs.c.finished_at.desc())
        .limit(most)
    )
    return [(done - began).total_seconds() for began, done in connection.execute(statement)]


@dataclass(frozen=True, slots=True)
class Standings:
    """The jobs of one account that a run is about (see `engine.ending.Tally`)."""

    account: str
    states: dict[State, int]
    overdue: int
    concurrency: int
    stopped_model: int
    cancelled_by_provider: int
    stuck: int
    occupied: int
    unasked: int


def standings(
    connection: Connection, now: datetime, batch_ids: Sequence[int] | None, disk_patience: timedelta
) -> list[Standings]:
    """Where the jobs of these batches (None: of the whole queue) stand, per account. A file that this machine has no
    place for is waited for as long as `disk_patience`, counted from the end of its task."""
    statement = select(jobs.c.account, jobs.c.state, func.count()).group_by(jobs.c.account, jobs.c.state)
    if batch_ids is not None:
        statement = statement.where(jobs.c.batch_id.in_(batch_ids))
    states: dict[str, dict[State, int]] = {}
    for account, state, number in connection.execute(statement):
        states.setdefault(account, {})[State(state)] = int(number)
    rows = {row.name: row for row in account_rows(connection)}
    return [
        Standings(account, found, _overdue(connection, now, rows.get(account), batch_ids),
                  rows[account].concurrency if account in rows else 1,
                  _queued_for(connection, rows.get(account), batch_ids),
                  _cancelled_by_provider(connection, account, found, batch_ids),
                  _stuck(connection, now - disk_patience, account, found, batch_ids),
                  _overdue(connection, now, rows.get(account), None),
                  _overdue(connection, now, rows.get(account), None, _not_asked_again(now)))
        for account, found in sorted(states.items())
    ]  # fmt: skip


def _count(connection: Connection, batch_ids: Sequence[int] | None, *conditions: Any) -> int:
    statement = select(func.count()).select_from(jobs).where(*conditions)
    if batch_ids is not None:
        statement = statement.where(jobs.c.batch_id.in_(batch_ids))
    return int(connection.execute(statement).scalar_one())


def _overdue(
    connection: Connection, now: datetime, row: AccountRow | None, batch_ids: Sequence[int] | None, *further: Any
) -> int:
    if row is None:
        return 0
    mine = [IS_MOVING, jobs.c.account == row.name, jobs.c.state == State.RUNNING]
    return _count(connection, batch_ids, *mine, jobs.c.accepted_at < now - row.timeout, *further)


def _not_asked_again(now: datetime) -> Any:
    """A question about the task is due, under way, or was not answered just now: after a sleep of the machine, or an
    outage, it may have ended long ago."""
    return (jobs.c.due_at <= now) | jobs.c.lease.is_not(None) | jobs.c.errors.between(1, ASKED_IN_VAIN)


def _stuck(
    connection: Connection, since: datetime, account: str, states: dict[State, int], batch_ids: Sequence[int] | None
) -> int:
    if not states.get(State.DOWNLOADING):
        return 0
    return _count(connection, batch_ids, IS_MOVING, jobs.c.account == account, jobs.c.state == State.DOWNLOADING,
                  jobs.c.error_code == DISK, jobs.c.finished_at < since)  # fmt: skip


def _queued_for(connection: Connection, row: AccountRow | None, batch_ids: Sequence[int] | None) -> int:
    if row is None or not row.stopped_models:
        return 0
    return _count(connection, batch_ids, QUEUED, jobs.c.account == row.name, jobs.c.model.in_(row.stopped_models))


def _cancelled_by_provider(
    connection: Connection, account: str, states: dict[State, int], batch_ids: Sequence[int] | None
) -> int:
    if not states.get(State.CANCELLED):
        return 0
    return _count(connection, batch_ids, jobs.c.account == account, jobs.c.state == State.CANCELLED,
                  jobs.c.error_kind == "cancelled")  # fmt: skip
