"""Applying changes: each moves its job, writes its event, its ledger rows, its outputs and its answer, or does nothing.

`apply` works on a whole crowd at once: one guarded statement moves every job that still is where its change believes it
to be, under the lease it was claimed with, and the returned ids say whose consequences may be written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Executable, case, func, null, update
from sqlalchemy.dialects import postgresql, sqlite

from runner.jobs import QUIET, Change, Event, OutputRow
from runner.ledger import Entry, EntryKind, to_micros
from runner.store.columns import ticks
from runner.store.rows import INTEGER, REAL, TEXT, Columns, add, rowset, run, storable
from runner.store.tables import Attempt, EventRow, Job, LedgerRow, Output, Request, totals

jobs = Job.__table__  # type: ignore[attr-defined]
attempts = Attempt.__table__  # type: ignore[attr-defined]
outputs = Output.__table__  # type: ignore[attr-defined]
ledger = LedgerRow.__table__  # type: ignore[attr-defined]
events = EventRow.__table__  # type: ignore[attr-defined]
requests = Request.__table__  # type: ignore[attr-defined]

GIVEN = frozenset({Event.FOUND, Event.ADOPTED})  # these name a task that no answer to the order has named

STANDING: Columns = {
    "state": TEXT, "due_at": INTEGER, "errors": INTEGER, "attempts": INTEGER, "generation": INTEGER, "looks": INTEGER,
    "task_id": TEXT, "status": TEXT, "progress": REAL, "error_kind": TEXT, "error_code": TEXT, "error_message": TEXT,
    "accepted_at": INTEGER, "finished_at": INTEGER, "unsettled": INTEGER, "settle_at": INTEGER, "settle_asks": INTEGER,
    "updated_at": INTEGER,
}  # fmt: skip


def apply(connection: Connection, changes: Sequence[Change]) -> set[int]:
    """Writes the changes in order and returns the positions of those that held.

    A job may appear more than once (two events in one step): its second change is applied after its first.
    """
    held: set[int] = set()
    for crowd in _rounds(changes):
        moved = _move(connection, [change for _, change in crowd])
        valid = [(n, change) for n, change in crowd if change.job_id in moved]
        _write_consequences(connection, [(change, *moved[change.job_id]) for _, change in valid])
        held.update(n for n, _ in valid)
    _end_requests(connection, changes)
    return held


def _rounds(changes: Sequence[Change]) -> Iterator[list[tuple[int, Change]]]:
    waiting = list(enumerate(changes))
    while waiting:
        seen: set[int] = set()
        now: list[tuple[int, Change]] = []
        later: list[tuple[int, Change]] = []
        for item in waiting:
            (later if item[1].job_id in seen else now).append(item)
            seen.add(item[1].job_id)
        yield now
        waiting = later


def _move(connection: Connection, changes: Sequence[Change]) -> dict[int, tuple[int, str, int | None]]:
    """Moves the jobs; returns batch, account and current attempt of each that moved."""
    rows = [_as_row(c) for c in sorted(changes, key=lambda c: c.job_id)]
    result = run(connection, _move_statement(connection.dialect.name), rows)
    return {row.id: (row.batch_id, row.account, row.attempt_id) for row in result}


def _as_row(change: Change) -> dict[str, Any]:
    s, failure = change.standing, change.standing.failure
    return {
        "id": change.job_id, "source": change.source.value, "was_leased": change.lease or 0,
        "state": s.state.value, "due_at": ticks(s.due_at), "errors": s.errors, "attempts": s.attempts,
        "generation": s.generation, "looks": s.looks, "task_id": s.task_id, "status": s.status, "progress": s.progress,
        "error_kind": failure and failure.kind.value, "error_code": failure and failure.code,
        "error_message": failure and failure.message, "accepted_at": ticks(s.accepted_at),
        "finished_at": ticks(s.finished_at), "unsettled": int(s.unsettled), "settle_at": ticks(s.settle_at),
        "settle_asks": s.settle_asks, "updated_at": ticks(change.at),
    }  # fmt: skip


@cache
def _move_statement(dialect: str) -> Executable:
    v = rowset(dialect, {"id": INTEGER, "source": TEXT, "was_leased": INTEGER, **STANDING})
    return (
        update(jobs)
        .values({**{name: v.c[name] for name in STANDING}, "lease": null(), "owner": null()})
        .where(jobs.c.id == v.c.id, jobs.c.state == v.c.source, func.coalesce(jobs.c.lease, 0) == v.c.was_leased)
        .returning(jobs.c.id, jobs.c.batch_id, jobs.c.account, jobs.c.attempt_id)
    )


def _write_consequences(connection: Connection, held: Iterable[tuple[Change, int, str, int | None]]) -> None:
    facts = list(held)
    changes = [change for change, *_ in facts]
    add(connection, events, [row for c in changes if (row := event_row(c)) is not None])
    _answer_attempts(connection, changes)
    _note_tasks(connection, facts)
    book(connection, [(entry, c.at, batch, account, c.job_id, attempt)
                      for c, batch, account, attempt in facts for entry in c.entries])  # fmt: skip
    keep_outputs(connection, [(c.job_id, c.at, row) for c in changes for row in c.outputs])


def event_row(change: Change) -> dict[str, Any] | None:
    if change.event in QUIET and not change.data:
        return None
    return {
        "at": change.at, "job_id": change.job_id, "event": change.event.value, "source": change.source.value,
        "target": change.standing.state.value, "data": storable(json.dumps(dict(change.data), ensure_ascii=False)),
    }  # fmt: skip


def _answer_attempts(connection: Connection, changes: Iterable[Change]) -> None:
    rows = [
        {"id": a.attempt_id, "answered_at": ticks(a.answered_at), "outcome": a.outcome, "code": a.code,
         "message": a.message, "task_id": a.task_id}
        for c in changes if (a := c.answer) is not None
    ]  # fmt: skip
    if rows:
        run(connection, _answer_statement(connection.dialect.name), rows)


@cache
def _answer_statement(dialect: str) -> Executable:
    columns: Columns = {"answered_at": INTEGER, "outcome": TEXT, "code": TEXT, "message": TEXT, "task_id": TEXT}
    v = rowset(dialect, {"id": INTEGER, **columns})
    return update(attempts).values({name: v.c[name] for name in columns}).where(attempts.c.id == v.c.id)


def _note_tasks(connection: Connection, held: Iterable[tuple[Change, int, str, int | None]]) -> None:
    """A task that was found, or that a person gave to a job, is its attempt's from now on: its cost is booked there."""
    rows = [
        {"id": attempt, "task_id": change.standing.task_id}
        for change, _, _, attempt in held if change.event in GIVEN and attempt is not None
    ]  # fmt: skip
    if rows:
        run(connection, _note_statement(connection.dialect.name), rows)


@cache
def _note_statement(dialect: str) -> Executable:
    v = rowset(dialect, {"id": INTEGER, "task_id": TEXT})
    return update(attempts).values(task_id=v.c.task_id).where(attempts.c.id == v.c.id)


Booking = tuple[Entry, datetime, int, str, int, int | None]


def book(connection: Connection, bookings: Sequence[Booking]) -> None:
    """Ledger rows and every sum that follows from them: of the attempt, of the job, of the batch's account."""
    if not bookings:
        return
    add(connection, ledger, [
        {"at": at, "batch_id": batch, "account": account, "job_id": job, "attempt_id": attempt,
         "kind": entry.kind.value, "amount": entry.amount, "source": entry.source}
        for entry, at, batch, account, job, attempt in bookings
    ])  # fmt: skip
    sums = _sums(bookings)
    for statement, rows in zip(_book_statements(connection.dialect.name), sums, strict=True):
        run(connection, statement, rows)


def _sums(bookings: Sequence[Booking]) -> tuple[list[dict[str, Any]], ...]:
    by_attempt: dict[int, dict[str, Any]] = {}
    by_job: dict[int, dict[str, Any]] = {}
    by_total: dict[tuple[int, str], dict[str, Any]] = {}
    for entry, _at, batch, account, job, attempt in bookings:
        if attempt is not None:
            _count(by_attempt.setdefault(attempt, {"id": attempt}), entry)
        _count(by_job.setdefault(job, {"id": job}), entry)
        _count(by_total.setdefault((batch, account), {"batch_id": batch, "account": account}), entry)
    ordered = [by_total[name] for name in sorted(by_total)]
    return [*by_attempt.values()], [*by_job.values()], ordered


def _count(row: dict[str, Any], entry: Entry) -> None:
    for kind in EntryKind:
        row[kind.value] = row.get(kind.value, 0) + (to_micros(entry.amount) if entry.kind is kind else 0)


@cache
def _book_statements(dialect: str) -> tuple[Executable, Executable, Executable]:
    amounts: Columns = {kind.value: INTEGER for kind in EntryKind}
    v = rowset(dialect, {"id": INTEGER, **amounts})
    of_attempt = update(attempts).where(attempts.c.id == v.c.id).values(
        reserved=attempts.c.reserved + v.c.estimated, charged=attempts.c.charged + v.c.charged,
        refunded=attempts.c.refunded + v.c.refunded)  # fmt: skip
    of_job = update(jobs).where(jobs.c.id == v.c.id).values(
        charged=jobs.c.charged + v.c.charged, refunded=jobs.c.refunded + v.c.refunded)  # fmt: skip
    t = rowset(dialect, {"batch_id": INTEGER, "account": TEXT, **amounts})
    of_total = update(totals).where(totals.c.batch_id == t.c.batch_id, totals.c.account == t.c.account).values(
        {name: totals.c[name] + t.c[name] for name in amounts})  # fmt: skip
    return of_attempt, of_job, of_total


def keep_outputs(connection: Connection, rows: Sequence[tuple[int, datetime, OutputRow]]) -> None:
    """Inserts or replaces the outputs of jobs; a published output erases its URL (it is signed: a secret of sorts)."""
    if not rows:
        return
    insert = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(outputs)
    fresh = insert.excluded
    wanted = {
        name: case((outputs.c.path.is_not(None), outputs.c[name]), else_=fresh[name])
        for name in ("url", "path", "size", "sha256", "media_type", "published_at")
    }
    statement = insert.on_conflict_do_update(index_elements=["job_id", "number"], set_=wanted)
    connection.execute(statement, [
        {"job_id": job, "number": o.index, "thumbnail": int(o.thumbnail), "url": storable(o.url), "path": o.path,
         "size": o.size, "sha256": o.sha256, "media_type": o.media_type, "published_at": at if o.path else None}
        for job, at, o in rows
    ])  # fmt: skip


def _end_requests(connection: Connection, changes: Iterable[Change]) -> None:
    ends = {c.request: c.at for c in changes if c.request is not None}
    end_requests(connection, ends)


def end_requests(connection: Connection, ends: dict[int, datetime]) -> None:
    """Notes when logged requests were answered: they leave their windows that long after."""
    if ends:
        rows = [{"id": n, "ended_at": ticks(at)} for n, at in ends.items()]
        run(connection, _end_statement(connection.dialect.name), rows)


@cache
def _end_statement(dialect: str) -> Executable:
    v = rowset(dialect, {"id": INTEGER, "ended_at": INTEGER})
    return update(requests).values(ended_at=v.c.ended_at).where(requests.c.id == v.c.id)
