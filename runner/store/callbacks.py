"""What a provider tells when it calls back: a hint, kept with the order it is about, and nothing more."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, text, update

from runner.jobs import State
from runner.store.changes import attempts, jobs

AWAITED = text("attempts.callback IS NOT NULL")


def awaited(connection: Connection, callback: str) -> bool:
    """Whether an order of this queue waits for this call: its secret word's sha256 (hex)."""
    waiting = select(attempts.c.id).where(AWAITED, attempts.c.callback == callback)
    return connection.execute(waiting).first() is not None


def hear(connection: Connection, now: datetime, callback: str, task_id: str | None) -> str | None:
    """Keeps the hint and has its job asked at once; returns the job's account. None: nobody waits for this call.

    No state is changed by this: an authenticated question must confirm it (reliability.md T20).
    """
    statement = select(attempts.c.id, attempts.c.job_id, attempts.c.account).where(AWAITED)
    found = connection.execute(statement.where(attempts.c.callback == callback)).first()
    if found is None:
        return None
    if task_id is not None:
        connection.execute(update(attempts).where(attempts.c.id == found.id).values(hint=task_id))
    asked = jobs.c.state.in_([State.UNKNOWN, State.RUNNING])
    mine = [jobs.c.id == found.job_id, jobs.c.attempt_id == found.id, jobs.c.lease.is_(None), asked]
    connection.execute(update(jobs).where(*mine, jobs.c.due_at > now).values(due_at=now))
    return str(found.account)
