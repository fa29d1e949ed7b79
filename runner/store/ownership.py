"""Who may work on a queue, and what becomes of the work of those who died.

SQLite: one runner owns the queue file by a kernel lock, which dies with its process; every lease of another is dead.
PostgreSQL: every transaction of a worker is a sign of its life, and there is one every few seconds. Who gave none for
`SILENCE` is dead, by the clock of the server alone: those of the hosts may be hours apart. Should it merely have slept,
the fence in every lease keeps it from writing.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import (
    Connection,
    Executable,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    select,
    text,
    type_coerce,
    union,
    update,
)
from sqlalchemy.dialects import postgresql

from runner.errors import ErrorKind, LocalError, OwnedError
from runner.jobs import Answer, Change, Event, Failure, State
from runner.ledger import release
from runner.store.changes import apply, jobs, requests
from runner.store.columns import TICK
from runner.store.rows import INTEGER
from runner.store.tables import IS_MOVING, Worker
from runner.store.work import Work, load

workers = Worker.__table__  # type: ignore[attr-defined]
SILENCE = timedelta(seconds=60)  # by the database server's clock
HEARTBEAT_SECONDS = 10.0  # of the wall
SEEN = type_coerce(workers.c.seen_at, INTEGER)
SERVER_NOW = cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, INTEGER)


class QueueLock:
    """The kernel lock beside an SQLite queue. Raises OwnedError, naming the owner, when it is taken."""

    def __init__(self, queue: Path) -> None:
        self._lock = FileLock(queue.with_name(queue.name + ".lock"), mode=0o600)
        self._owner = queue.with_name(queue.name + ".owner")

    def acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            message = f"another runner owns this queue: {self._name()}"
            raise OwnedError(message, "wait for it, or end it first") from None
        except OSError as error:
            raise LocalError(f"cannot lock the queue: {error.strerror}") from None
        with os.fdopen(os.open(self._owner, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as note:
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, note)

    def release(self) -> None:
        """Gives the lock back, if it is ours."""
        if self._lock.is_locked:
            self._owner.unlink(missing_ok=True)
            self._lock.release()

    def _name(self) -> str:
        try:
            facts = json.loads(self._owner.read_text())
            return f"process {facts['pid']} on {facts['host']}"
        except (OSError, ValueError, KeyError):
            return "a process that is just starting"


def new_worker_id() -> int:
    return secrets.randbits(62) | 1


def register(connection: Connection, now: datetime, worker: int) -> None:
    """The owner of an SQLite queue."""
    connection.execute(insert(workers).values(**_process(worker), started_at=now, seen_at=now))


def _process(worker: int) -> dict[str, Any]:
    return {"id": worker, "host": socket.gethostname(), "pid": os.getpid()}


def sign(connection: Connection, worker: int, doubtful: int | None = None) -> int:
    """A sign of life on PostgreSQL, and first of all in its transaction. No two signs of a worker are alike.

    `doubtful` is the sign of an earlier transaction of which nobody knows whether it was committed: that one is waited
    for until it has ended, and its sign returned if it was. A worker that was taken for dead is known again.
    """
    return int(connection.execute(_sign(), {**_process(worker), "doubtful": doubtful or 0}).scalar_one())


@cache
def _sign() -> Executable:
    doubtful = bindparam("doubtful", type_=INTEGER)
    first = func.greatest(SERVER_NOW, doubtful + 1)
    process = {name: bindparam(name, type_=workers.c[name].type) for name in ("id", "host", "pid")}
    fresh = postgresql.insert(workers).values(**process, started_at=first, seen_at=first)
    next_one = func.greatest(type_coerce(fresh.excluded.seen_at, INTEGER), SEEN + 1)
    seen = case((doubtful == SEEN, doubtful), else_=next_one)
    return fresh.on_conflict_do_update(index_elements=["id"], set_={"seen_at": seen}).returning(SEEN)


def rescue_dead(connection: Connection, now: datetime, worker: int, *, alone: bool) -> int:
    """Takes over what dead workers left; returns how many jobs that were. `alone`: all others are dead.

    The dead are struck off the list first, and judged while their row is locked: one that is just coming back to life
    is waited for, and is alive. Whoever holds something and is not on the list is dead too.
    """
    dead = workers.c.id != worker
    if not alone:
        dead &= SEEN < SERVER_NOW - SILENCE // TICK
    connection.execute(delete(workers).where(dead))
    owners = select(jobs.c.owner.label("id")).where(text("jobs.lease IS NOT NULL"))
    askers = select(requests.c.worker.label("id")).where(requests.c.ended_at.is_(None))
    holders = union(owners, askers).subquery("holders")
    struck_off = holders.c.id.not_in(select(workers.c.id)) & (holders.c.id != worker)
    return rescue(connection, now, connection.execute(select(holders.c.id).where(struck_off)).scalars().all())


def rescue(connection: Connection, now: datetime, dead: Sequence[int]) -> int:
    """Gives back what dead workers held. Returns how many jobs that were.

    A submission is resolved by data: without a brink nothing was sent, so it is queued again and its reservation let
    go; with one it is an open question. Requests without a recorded end count from now on: they may have just arrived.
    """
    if not dead:
        return 0
    held = select(jobs.c.id).where(text("jobs.lease IS NOT NULL"), jobs.c.owner.in_(dead)).with_for_update()
    # Locked first and read afterwards: whoever still marked a brink while we waited for the lock has marked it by now.
    found = list(load(connection, connection.execute(held).scalars().all()).values())
    submitting = [w for w in found if w.standing.state is State.SUBMITTING]
    apply(connection, [interrupted(work, now) for work in submitting])
    others = [w.id for w in found if w.standing.state is not State.SUBMITTING]
    connection.execute(update(jobs).where(jobs.c.id.in_(others)).values(lease=None, owner=None))
    unended = requests.c.ended_at.is_(None)
    connection.execute(update(requests).where(unended, requests.c.worker.in_(dead)).values(ended_at=now))
    connection.execute(delete(workers).where(workers.c.id.in_(dead)))
    return len(found)


def interrupted(work: Work, now: datetime) -> Change:
    """What a submission is whose process died: put back, or an open question, by whether its brink is on disk.

    (A keyed resend that died before its own bytes left still has the brink of the first try: it stays a question.)
    """
    attempt = work.attempt
    assert attempt is not None, "a submitting job has an attempt"
    if attempt.brink_at is None:
        standing = replace(work.standing, state=State.QUEUED, due_at=now, attempts=work.standing.attempts - 1)
        answer = Answer(attempt.id, "not_sent", now)
        return Change(Event.PUT_BACK, work.id, State.SUBMITTING, work.lease, now, standing, answer,
                      release(attempt.bill), data={"why": "the process ended before anything was sent"})  # fmt: skip
    why = "the process ended before the answer came"
    failure = Failure(ErrorKind.UNKNOWN_SUBMISSION, "crash", why)
    standing = replace(work.standing, state=State.UNKNOWN, due_at=now, failure=failure, looks=0)
    return Change(Event.ANSWER_LOST, work.id, State.SUBMITTING, work.lease, now, standing,
                  Answer(attempt.id, "crash", now, "crash", why), data={"why": why})  # fmt: skip


def look_again(connection: Connection, now: datetime) -> None:
    """At every start: open questions and unsettled bills are asked at once, and overdue tasks too. A task that the
    provider did not know keeps its time: that is only believed after a minute, however often we start."""
    followed = jobs.c.state.in_([State.UNKNOWN, State.RUNNING])
    known = func.coalesce(jobs.c.error_kind, "") != ErrorKind.NOT_FOUND.value
    connection.execute(update(jobs).where(IS_MOVING, followed, known, jobs.c.due_at > now).values(due_at=now))
    connection.execute(update(jobs).where(text("unsettled = 1"), jobs.c.lease.is_(None)).values(settle_at=now))
