"""The brink: the moment before the first byte of a paid request, on disk before it leaves.

No `brink_at` proves that nothing was sent. It is set once per attempt and never cleared, and only under the lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import Connection, Executable, func, select, update

from runner.jobs import State
from runner.store.changes import attempts, jobs
from runner.store.columns import ticks
from runner.store.rows import INTEGER, rowset, run


@dataclass(frozen=True, slots=True)
class Brink:
    job_id: int
    attempt_id: int
    lease: int
    at: datetime


def mark_brinks(connection: Connection, brinks: Sequence[Brink]) -> list[bool]:
    """Marks the attempts of jobs that still are submitting under their lease; tells which were marked."""
    rows = [{"job": b.job_id, "attempt": b.attempt_id, "lease": b.lease, "at": ticks(b.at)} for b in brinks]
    marked = {row.id for row in run(connection, _statement(connection.dialect.name), rows)}
    return [b.attempt_id in marked for b in brinks]


@cache
def _statement(dialect: str) -> Executable:
    """The job's row is locked before its attempt is touched. Without that PostgreSQL would judge the lease by an older
    snapshot: a rescue under way could put the job back while its bytes leave."""
    v = rowset(dialect, {"job": INTEGER, "attempt": INTEGER, "lease": INTEGER, "at": INTEGER})
    held = (
        select(v.c.attempt, v.c["at"])
        .select_from(v.join(jobs, jobs.c.id == v.c.job))
        .where(jobs.c.lease == v.c.lease, jobs.c.state == State.SUBMITTING.value, jobs.c.attempt_id == v.c.attempt)
        .with_for_update(of=jobs)
        .cte("held")
    )
    return (
        update(attempts)
        .values(brink_at=func.coalesce(attempts.c.brink_at, held.c["at"], type_=INTEGER))
        .where(attempts.c.id == held.c.attempt)
        .returning(attempts.c.id)
    )
