"""What the books say around one lost answer on an account that nobody else spends from, so that its balance can tell
whether the order was charged (providers.md section 3).

A balance only tells when everything else that moves it is known: nothing else of ours is under way, no other question
is open, and no refund may still be on its way. Where one of these does not hold, it is no evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select, text, update

from runner.jobs import IN_FLIGHT, State
from runner.ledger import ZERO
from runner.store.changes import attempts, jobs
from runner.store.tables import IS_MOVING, accounts

LONG = timedelta(hours=24)  # after so long no task of an unanswered order is still to end, and no refund to come


@dataclass(frozen=True, slots=True)
class Books:
    """`baseline`: the balance (credits) at `baseline_at`, when nothing of ours was under way; `spent`: what all orders
    since then have cost, but for the one in question. `busy`: something else is under way, so ask again later;
    `clouded`: something else may still move the balance, and nobody knows when."""

    baseline: Decimal | None
    baseline_at: datetime | None
    spent: Decimal
    busy: bool
    clouded: bool


def books(connection: Connection, now: datetime, account: str, attempt_id: int) -> Books:
    held = connection.execute(select(accounts).where(accounts.c.name == account)).one()
    if held.baseline_at is None:
        return Books(None, None, ZERO, busy=False, clouded=True)
    cost = func.coalesce(func.sum(attempts.c.charged - attempts.c.refunded), 0)
    others = [attempts.c.account == account, attempts.c.id != attempt_id]
    spent = connection.execute(select(cost).where(*others, attempts.c.intent_at >= held.baseline_at)).scalar_one()
    late = now - timedelta(milliseconds=held.timeout_ms)
    return Books(
        held.baseline, held.baseline_at, spent, busy=_busy(connection, account, attempt_id),
        clouded=_clouded(connection, now, others, late),
    )  # fmt: skip


def wants_baseline(connection: Connection, account: str) -> bool:
    """Whether the balance should be noted now: nothing is under way, and something was ordered since the last time."""
    at = connection.execute(select(accounts.c.baseline_at).where(accounts.c.name == account)).scalar_one()
    return not _busy(connection, account, 0) and (at is None or _ordered_since(connection, account, at))


def save_baseline(connection: Connection, account: str, asked_at: datetime, balance: Decimal) -> None:
    """Notes a balance that was asked for at `asked_at`, unless something was ordered since or is still under way."""
    if not _ordered_since(connection, account, asked_at) and not _busy(connection, account, 0):
        values = {"baseline": balance, "baseline_at": asked_at}
        connection.execute(update(accounts).where(accounts.c.name == account).values(values))


def _ordered_since(connection: Connection, account: str, moment: datetime) -> bool:
    since = select(attempts.c.id).where(attempts.c.account == account, attempts.c.intent_at >= moment)
    return connection.execute(since.limit(1)).first() is not None


def _busy(connection: Connection, account: str, attempt_id: int) -> bool:
    """Whether a task is going on, or its final cost will still be asked for: not while its job is held."""
    others = [jobs.c.account == account, func.coalesce(jobs.c.attempt_id, 0) != attempt_id]
    going = select(jobs.c.id).where(IS_MOVING, jobs.c.state.in_(list(IN_FLIGHT)), *others)
    asked = select(jobs.c.id).where(text("jobs.settle_at IS NOT NULL"), jobs.c.state != State.HELD, *others)
    return any(connection.execute(each.limit(1)).first() is not None for each in (going, asked))


def _clouded(connection: Connection, now: datetime, others: list[Any], late: datetime) -> bool:
    """Whether another unanswered order may have been taken, a task that is not followed any more may still be refunded
    or charged, or one is so late that nobody waits for its end."""
    mine = jobs.c.attempt_id == attempts.c.id
    sent = and_(attempts.c.brink_at.is_not(None), attempts.c.task_id.is_(None))
    unheard = and_(
        sent,
        or_(attempts.c.outcome.is_(None), attempts.c.outcome.in_(UNHEARD)),
        ~and_(mine, jobs.c.task_id.is_not(None)),
    )
    left = or_(~mine, jobs.c.state.in_([State.FAILED, State.CANCELLED, State.HELD]))  # its job has gone on, or ended
    movable = and_(left, or_(attempts.c.charged > attempts.c.refunded, attempts.c.reserved > ZERO))
    unpriced = and_(mine, jobs.c.unsettled == 1)
    recent = and_(attempts.c.intent_at > now - LONG, or_(unheard, movable, unpriced))
    overdue = and_(mine, jobs.c.state == State.RUNNING, jobs.c.accepted_at < late)
    found = (
        select(attempts.c.id)
        .select_from(attempts.join(jobs, jobs.c.id == attempts.c.job_id))
        .where(*others, or_(recent, overdue))
    )
    return connection.execute(found.limit(1)).first() is not None


UNHEARD = ("no_answer", "crash", "ambiguous", "conflict")
