"""What a provider tells when it calls back: a hint, kept with the order it is about, and nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, or_, select, text, update

from runner.jobs import State
from runner.store.changes import attempts, jobs
from runner.store.evidence import UNHEARD
from runner.store.work import owned_task_ids

AWAITED = text("attempts.callback IS NOT NULL")


def awaited(connection: Connection, callback: str) -> bool:
    """Whether an order of this queue waits for this call: its secret word's sha256 (hex)."""
    waiting = select(attempts.c.id).where(AWAITED, attempts.c.callback == callback)
    return connection.execute(waiting).first() is not None


@dataclass(frozen=True, slots=True)
class Call:
    """The job that a call is about, and its account. `stray`: an order whose answer never came has a task after all,
    and nothing will ask for it: its job is held, given up, or has been ordered anew, or follows another task."""

    account: str
    job_id: int
    stray: bool


def hear(connection: Connection, now: datetime, callback: str, task_id: str | None) -> Call | None:
    """Keeps the hint and has its job asked at once. None: nobody waits for this call.

    No state is changed by this: an authenticated question must confirm it (reliability.md T20).
    """
    gone_on = or_(jobs.c.attempt_id != attempts.c.id, jobs.c.state.in_([State.HELD, State.CANCELLED]))
    misled = and_(attempts.c.outcome.in_(UNHEARD), attempts.c.task_id != task_id)
    unheard = or_(and_(attempts.c.task_id.is_(None), gone_on), misled)
    statement = select(attempts.c.id, attempts.c.job_id, attempts.c.account, unheard.label("unheard")).where(AWAITED)
    joined = statement.select_from(attempts.join(jobs, jobs.c.id == attempts.c.job_id))
    found = connection.execute(joined.where(attempts.c.callback == callback)).first()
    if found is None:
        return None
    if task_id is not None:
        connection.execute(update(attempts).where(attempts.c.id == found.id).values(hint=task_id))
    asked = jobs.c.state.in_([State.UNKNOWN, State.RUNNING])
    mine = [jobs.c.id == found.job_id, jobs.c.attempt_id == found.id, jobs.c.lease.is_(None), asked]
    connection.execute(update(jobs).where(*mine, jobs.c.due_at > now).values(due_at=now))
    known = task_id is None or owned_task_ids(connection, found.account, [task_id])
    return Call(found.account, found.job_id, stray=bool(found.unheard) and not known)
