"""Intents to pay: what an order will say, whether its batch can afford it, and its freezing on disk.

An intent is written in the transaction that takes the job's slot, its room and its lease: before that commit nothing
can leave, after it nothing can be forgotten.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache

from sqlalchemy import Connection, Executable, and_, bindparam, func, insert, or_, select, text, type_coerce, update

from runner.jobs import Event, State
from runner.ledger import ZERO, reserve, to_micros
from runner.store.accounts import LockedAccount
from runner.store.changes import attempts, book, events, jobs
from runner.store.columns import ticks
from runner.store.rows import INTEGER, add, parameter, rowset, run
from runner.store.tables import IS_MOVING, QUEUED, batches, totals
from runner.store.windows import log_requests

LOST_ANSWERS = 3  # so many answers lost …
LOST_WITHIN = timedelta(minutes=10)  # … within this time close an unkeyed account for as long


@dataclass(frozen=True, slots=True)
class Intent:
    """What a job's submission will say, composed and frozen before it is claimed.

    `priced` is the exact documented price, `estimate` the upper end of what is known (None: unpriced). `callback` is
    the sha256 (hex) of the secret word in the address that the provider is asked to call.
    """

    job_id: int
    batch_id: int
    generation: int
    path: str
    body: str
    idempotency_key: str | None
    fingerprint: str
    shape: str
    priced: Decimal | None
    estimate: Decimal | None
    callback: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A leased job and, where the account has request windows, the logged request it may make."""

    job_id: int
    lease: int
    request: int | None = None


def lost_answers_until(connection: Connection, account: str, now: datetime) -> datetime | None:
    """Until when the account stays closed because living processes lost too many answers; None when it is open.

    Each group of answers that were lost within ten minutes closes it for ten minutes from its last one.
    """
    recent = (
        select(attempts.c.answered_at)
        .where(text("outcome = 'no_answer'"), attempts.c.account == account)
        .where(attempts.c.answered_at > now - 2 * LOST_WITHIN)
        .order_by(attempts.c.answered_at.desc())
    )
    lost: list[datetime] = list(connection.execute(recent).scalars())
    groups = zip(lost, lost[LOST_ANSWERS - 1 :], strict=False)
    closing = (last + LOST_WITHIN for last, first in groups if last - first <= LOST_WITHIN)
    return max((until for until in closing if until > now), default=None)


def affordable(connection: Connection, account: str, intents: Sequence[Intent]) -> tuple[list[Intent], bool]:
    """The intents that fit their batch's budget, in order, as long as the next one fits; whether one has to wait.

    Without a price the first of its shape goes alone: its charge prices the rest. Where its answer got lost it may have
    cost anything, so the rest waits for the person who is asked about it; and where no answer tells what it cost, for
    one that does.
    """
    spend = {batch: _spend(connection, account, batch) for batch in {i.batch_id for i in intents}}
    limited = [batch for batch, wallet in spend.items() if wallet.limit is not None]
    asked = any(intent.estimate is None for intent in intents)
    unpriced_out = _unpriced_shapes_out(connection, account, limited) if limited and asked else set()
    chosen: list[Intent] = []
    beyond = False
    for intent in intents:
        wallet = spend[intent.batch_id]
        if wallet.limit is not None and intent.estimate is None:
            if intent.shape in unpriced_out or wallet.spent >= wallet.limit:
                beyond = True
                continue
            unpriced_out.add(intent.shape)
        elif wallet.limit is not None and wallet.spent + (intent.estimate or ZERO) > wallet.limit:
            beyond = True
            continue
        wallet.spent += intent.estimate or ZERO
        chosen.append(intent)
    return chosen, beyond


@dataclass(slots=True)
class _Wallet:
    spent: Decimal
    limit: Decimal | None


def _spend(connection: Connection, account: str, batch_id: int) -> _Wallet:
    row = connection.execute(select(totals).where(totals.c.batch_id == batch_id, totals.c.account == account)).one()
    budget = json.loads(connection.execute(select(batches.c.budget).where(batches.c.id == batch_id)).scalar_one())
    limit = budget.get(account)
    return _Wallet(row.charged - row.refunded + row.estimated, None if limit is None else Decimal(limit))


def _unpriced_shapes_out(connection: Connection, account: str, batch_ids: Sequence[int]) -> set[str]:
    """The shapes of what is under way, and in these batches of what is held, or is made and its bill not known yet:
    nobody knows what it costs."""
    states = [State.SUBMITTING, State.UNKNOWN, State.RUNNING]
    shapes = select(jobs.c.shape).distinct().where(jobs.c.account == account)
    moving = shapes.where(IS_MOVING, jobs.c.state.in_(states))
    made = and_(jobs.c.unsettled == 1, jobs.c.state.in_([State.DOWNLOADING, State.SUCCEEDED, State.PARTIAL]))
    waiting = shapes.where(jobs.c.batch_id.in_(batch_ids), or_(jobs.c.state == State.HELD, made))
    return {*connection.execute(moving).scalars(), *connection.execute(waiting).scalars()}


def intend(
    connection: Connection, now: datetime, worker: int, account: LockedAccount, intents: Sequence[Intent]
) -> list[Claim]:
    """queued → submitting, with the intent to pay: the frozen bytes, the key, the reservation, all in this
    transaction."""
    leases = _take_queued(connection, now, worker, intents)
    taken = [intent for intent in intents if intent.job_id in leases]
    if not taken:
        return []
    attempt_of = _new_attempts(connection, now, account.name, taken)
    book(connection, [
        (entry, now, i.batch_id, account.name, i.job_id, attempt_of[i.job_id])
        for i in taken for entry in reserve(i.estimate)
    ])  # fmt: skip
    add(connection, events, [
        {"at": now, "job_id": i.job_id, "event": Event.CLAIMED.value, "source": State.QUEUED.value,
         "target": State.SUBMITTING.value, "data": json.dumps({"generation": i.generation})}
        for i in taken
    ])  # fmt: skip
    rows = log_requests(connection, now, worker, account, len(taken))
    return [Claim(i.job_id, leases[i.job_id], row) for i, row in zip(taken, rows, strict=True)]


def _take_queued(connection: Connection, now: datetime, worker: int, intents: Sequence[Intent]) -> dict[int, int]:
    """Leases those of the jobs that still are queued and free; returns the lease of each. A price that nobody knew when
    the job was planned, and that was learned since, is noted, and so is one that turned out to be higher."""
    rows = [
        {"id": i.job_id, "generation": i.generation, "lease": new_lease(),
         "estimate": None if i.estimate is None else to_micros(i.estimate)}
        for i in intents
    ]  # fmt: skip
    fixed = {"worker": worker, "now": ticks(now)}
    statement = _take_statement(connection.dialect.name)
    result = connection.execute(statement, {**parameter(rows), **fixed})
    return {row.id: row.lease for row in result}


@cache
def _take_statement(dialect: str) -> Executable:
    v = rowset(dialect, {"id": INTEGER, "generation": INTEGER, "lease": INTEGER, "estimate": INTEGER})
    now = bindparam("now", type_=INTEGER)
    return (
        update(jobs)
        .values(state=State.SUBMITTING.value, lease=v.c.lease, owner=bindparam("worker", type_=INTEGER),
                attempts=jobs.c.attempts + 1, updated_at=now,
                estimated=func.coalesce(v.c.estimate, jobs.c.estimated, type_=INTEGER))
        .where(jobs.c.id == v.c.id, QUEUED, jobs.c.lease.is_(None), jobs.c.generation == v.c.generation,
               type_coerce(jobs.c.due_at, INTEGER) <= now)
        .returning(jobs.c.id, jobs.c.lease)
    )  # fmt: skip


def _new_attempts(connection: Connection, now: datetime, account: str, intents: Sequence[Intent]) -> dict[int, int]:
    """One row per intent, and the job's pointer to it; returns the attempt of each job."""
    statement = insert(attempts).returning(attempts.c.job_id, attempts.c.id)
    found = connection.execute(statement, [
        {"job_id": i.job_id, "account": account, "generation": i.generation, "idempotency_key": i.idempotency_key,
         "fingerprint": i.fingerprint, "path": i.path, "body": i.body, "priced": i.priced, "intent_at": now,
         "callback": i.callback}
        for i in intents
    ])  # fmt: skip
    attempt_of = {row.job_id: row.id for row in found}
    run(connection, _point_statement(connection.dialect.name), [{"id": j, "attempt": a} for j, a in attempt_of.items()])
    return attempt_of


@cache
def _point_statement(dialect: str) -> Executable:
    v = rowset(dialect, {"id": INTEGER, "attempt": INTEGER})
    return update(jobs).values(attempt_id=v.c.attempt).where(jobs.c.id == v.c.id)


def new_lease() -> int:
    return secrets.randbits(62) | 1
