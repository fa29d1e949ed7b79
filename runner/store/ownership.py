"""Who may work on a queue, and what becomes of the work of those who died.

SQLite: one runner owns the queue file by a kernel lock, which dies with its process; every lease of another is dead.
PostgreSQL: workers heartbeat; a worker not seen for `SILENCE` is dead, and the fence in every lease keeps it from
writing should it merely have slept.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, delete, insert, select, text, union, update

from runner.errors import ErrorKind, LocalError, OwnedError
from runner.jobs import Answer, Change, Event, Failure, State
from runner.ledger import release
from runner.store.changes import apply, jobs, requests
from runner.store.tables import IS_MOVING, Worker
from runner.store.work import Work, load

workers = Worker.__table__  # type: ignore[attr-defined]
SILENCE = timedelta(seconds=60)  # of the wall, like the heartbeat
HEARTBEAT_SECONDS = 10.0


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
    connection.execute(insert(workers).values(
        id=worker, host=socket.gethostname(), pid=os.getpid(), started_at=now, seen_at=now))  # fmt: skip


def heartbeat(connection: Connection, now: datetime, worker: int) -> None:
    """A sign of life. A worker that slept so long that it was taken for dead is known again from now on."""
    if not connection.execute(update(workers).where(workers.c.id == worker).values(seen_at=now)).rowcount:
        register(connection, now, worker)


def dead_workers(connection: Connection, worker: int, seen_before: datetime, *, alone: bool) -> list[int]:
    """The workers whose leases are dead: all others when `alone` owns the queue, else those last `seen_before`, and
    those of whom only a lease or an unanswered request is left."""
    owners = select(jobs.c.owner.label("id")).where(text("jobs.lease IS NOT NULL"))
    askers = select(requests.c.worker.label("id")).where(requests.c.ended_at.is_(None))
    named = union(select(workers.c.id), owners, askers).subquery("named")
    others = select(named.c.id).where(named.c.id != worker)
    if not alone:
        others = others.where(named.c.id.not_in(select(workers.c.id).where(workers.c.seen_at >= seen_before)))
    return list(connection.execute(others).scalars())


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
    standing = replace(work.standing, state=State.UNKNOWN, due_at=now, failure=failure)
    return Change(Event.ANSWER_LOST, work.id, State.SUBMITTING, work.lease, now, standing,
                  Answer(attempt.id, "crash", now, "crash", why), data={"why": why})  # fmt: skip


def look_again(connection: Connection, now: datetime) -> None:
    """At every start: open questions and unsettled bills are asked at once, and overdue tasks too."""
    followed = jobs.c.state.in_([State.UNKNOWN, State.RUNNING])
    connection.execute(update(jobs).where(IS_MOVING, followed, jobs.c.due_at > now).values(due_at=now))
    connection.execute(update(jobs).where(text("unsettled = 1"), jobs.c.lease.is_(None)).values(settle_at=now))
