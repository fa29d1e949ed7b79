"""What a manifest asks for, against what the queue holds: batches, accounts, new jobs, jobs that are gone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from runner.jobs import UNPAID, Event, State
from runner.limits import Window
from runner.store.changes import events, jobs
from runner.store.engines import take_time
from runner.store.rows import add
from runner.store.tables import accounts, batches, totals

CHUNK = 2000
UNSENT = UNPAID | {State.FAILED, State.CANCELLED}  # what is sent for these, if anything ever is, is not frozen yet


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as the manifest orders it. `spec` and `variables` are canonical JSON; `output` is a path below the
    batch's root. `reviews`: the provider is to review some of its references first."""

    key: str
    name: str
    take: int
    account: str
    provider: str
    model: str
    shape: str
    spec: str
    variables: str
    output: str
    place: str
    priority: int
    estimated: Decimal | None
    reviews: bool = False


@dataclass(frozen=True, slots=True)
class NewBatch:
    name: str
    folder: str
    root: str
    manifest: str
    manifest_sha256: str
    budget: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What this run knows of an account. `windows` empty: no request limit is documented or asked for."""

    name: str
    provider: str
    fingerprint: str
    concurrency: int
    windows: tuple[Window, ...]
    poll_interval: timedelta
    timeout: timedelta
    exclusive: bool


@dataclass(frozen=True, slots=True)
class Enqueued:
    batch_id: int
    new: int
    kept: int
    gone: int


def enqueue(connection: Connection, now: datetime, batch: NewBatch, orders: Iterable[NewJob]) -> Enqueued:
    """Adds what is new, leaves what is known, cancels what is gone and unpaid: one transaction, all or nothing.

    `orders` is consumed as a stream, chunk by chunk; memory does not grow with it. It must begin anew each time it is
    iterated: a transaction that fails is tried again, and an exhausted stream would look like an empty manifest. An
    exception it raises undoes all.
    """
    batch_id = _save_batch(connection, now, batch)
    last = connection.execute(select(func.max(jobs.c.id)).where(jobs.c.batch_id == batch_id)).scalar() or 0
    take_time(connection)
    kind = "BIGINT" if connection.dialect.name == "postgresql" else "INTEGER"
    connection.execute(text(f"CREATE TEMPORARY TABLE wanted (id {kind} PRIMARY KEY)"))
    new = kept = 0
    for chunk in _chunks(orders):
        known = _known_jobs(connection, batch_id, chunk)
        new += _add_jobs(connection, now, batch_id, [job for job in chunk if job.key not in known])
        kept += _keep_jobs(connection, chunk, known)
    _open_totals(connection, batch_id)
    _ask_again(connection, now, batch_id)
    gone = _cancel_gone(connection, now, batch_id, last)
    connection.execute(text("DROP TABLE wanted"))
    return Enqueued(batch_id, new, kept, gone)


def _chunks(orders: Iterable[NewJob]) -> Iterator[list[NewJob]]:
    stream = iter(orders)
    while chunk := list(islice(stream, CHUNK)):
        yield chunk


def _save_batch(connection: Connection, now: datetime, batch: NewBatch) -> int:
    """The batch's row as the manifest has it now, locked: who enqueues the same batch meanwhile waits."""
    row = {
        "folder": batch.folder, "root": batch.root,
        "manifest": batch.manifest, "manifest_sha256": batch.manifest_sha256,
        "budget": json.dumps({name: str(credits) for name, credits in batch.budget.items()}), "updated_at": now,
    }  # fmt: skip
    statement = _dialect(connection).insert(batches).values(name=batch.name, created_at=now, **row)
    saved = statement.on_conflict_do_update(index_elements=["name"], set_=row).returning(batches.c.id)
    return int(connection.execute(saved).scalar_one())


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite


def _known_jobs(connection: Connection, batch_id: int, chunk: Sequence[NewJob]) -> dict[str, Row[Any]]:
    """Those that the batch holds already, by key."""
    keys = [job.key for job in chunk]
    wanted: Select[Any] = select(jobs.c.key, jobs.c.id, jobs.c.priority, jobs.c.spec, jobs.c.state)
    found = connection.execute(wanted.where(jobs.c.batch_id == batch_id, jobs.c.key.in_(keys)))
    return {row.key: row for row in found}


def _add_jobs(connection: Connection, now: datetime, batch_id: int, fresh: Sequence[NewJob]) -> int:
    add(connection, jobs, [_job_row(job, now, batch_id) for job in fresh])
    return len(fresh)


def _keep_jobs(connection: Connection, chunk: Sequence[NewJob], known: Mapping[str, Row[Any]]) -> int:
    """Notes which jobs stay. They take over what is no part of what is asked: a new priority and, where nothing was
    sent yet, where the same content of their references is found now. Their path stays."""
    stay = [(known[job.key], job) for job in chunk if job.key in known]
    if stay:
        connection.execute(text("INSERT INTO wanted (id) VALUES (:id)"), [{"id": row.id} for row, _ in stay])
    _set(connection, jobs.c.priority, [(row.id, job.priority) for row, job in stay if row.priority != job.priority])
    _set(connection, jobs.c.spec, [
        (row.id, job.spec) for row, job in stay if row.spec != job.spec and State(row.state) in UNSENT
    ])  # fmt: skip
    return len(stay)


def _set(connection: Connection, column: Any, values: Sequence[tuple[int, Any]]) -> None:
    if values:
        statement = update(jobs).where(jobs.c.id == bindparam("j")).values({column: bindparam("v")})
        connection.execute(statement, [{"j": job, "v": value} for job, value in values])


def _job_row(job: NewJob, now: datetime, batch_id: int) -> dict[str, Any]:
    return {
        "batch_id": batch_id, "key": job.key, "name": job.name, "take": job.take, "account": job.account,
        "provider": job.provider, "model": job.model, "shape": job.shape, "spec": job.spec, "variables": job.variables,
        "output": job.output, "place": job.place, "priority": job.priority, "estimated": job.estimated,
        "reviews": int(job.reviews), "state": State.QUEUED.value, "due_at": now, "created_at": now, "updated_at": now,
    }  # fmt: skip


def _open_totals(connection: Connection, batch_id: int) -> None:
    """A row of sums for every account of the batch, so that booking only ever adds to one."""
    names = connection.execute(select(jobs.c.account).distinct().where(jobs.c.batch_id == batch_id)).scalars().all()
    if names:
        statement = _dialect(connection).insert(totals).on_conflict_do_nothing()
        connection.execute(statement, [{"batch_id": batch_id, "account": name} for name in names])


def _ask_again(connection: Connection, now: datetime, batch_id: int) -> None:
    """A job that an edit had cancelled and that is asked for again was never paid: it is queued anew."""
    wanted = [jobs.c.batch_id == batch_id, jobs.c.attempts == 0, text("jobs.id IN (SELECT id FROM wanted)")]
    _move_all(connection, now, Event.ASKED_AGAIN, State.CANCELLED, State.QUEUED, wanted)


def _cancel_gone(connection: Connection, now: datetime, batch_id: int, last: int) -> int:
    """Cancels the unpaid jobs up to `last` (those after it are new) that the manifest does not name any more."""
    gone = [jobs.c.batch_id == batch_id, jobs.c.id <= last, text("jobs.id NOT IN (SELECT id FROM wanted)")]
    return sum(_move_all(connection, now, Event.CANCELLED, source, State.CANCELLED, gone) for source in sorted(UNPAID))


def _move_all(
    connection: Connection, now: datetime, event: Event, source: State, to: State, conditions: Sequence[Any]
) -> int:
    """Moves the free jobs in `source` for which the conditions hold, some at a time; each that moved gets its event."""
    free = [jobs.c.state == source, jobs.c.lease.is_(None)]
    values = {"state": to.value, "due_at": now, "updated_at": now, "errors": 0,
              "error_kind": None, "error_code": None, "error_message": None}  # fmt: skip
    told = {"at": now, "event": event.value, "source": source.value, "target": to.value, "data": '{"by": "manifest"}'}
    last = total = 0
    while some := _ids_after(connection, last, *free, *conditions):
        statement = update(jobs).where(jobs.c.id.in_(some), *free).values(values).returning(jobs.c.id)
        moved = connection.execute(statement).scalars().all()
        add(connection, events, [{"job_id": job, **told} for job in moved])
        total += len(moved)
        last = some[-1]
    return total


def _ids_after(connection: Connection, last: int, *conditions: Any) -> Sequence[int]:
    statement = select(jobs.c.id).where(jobs.c.id > last, *conditions).order_by(jobs.c.id).limit(CHUNK)
    return connection.execute(statement).scalars().all()


def save_accounts(connection: Connection, settings: Sequence[AccountSettings]) -> None:
    """Writes the limits of this run. Stops and pauses are lifted, because a person has started a
    run: credits may be there again, and a refused order costs nothing. What the provider blocked stays blocked."""
    for account in settings:
        row = {
            "provider": account.provider, "fingerprint": account.fingerprint, "concurrency": account.concurrency,
            "windows": json.dumps([[w.limit, w.seconds] for w in account.windows]),
            "poll_interval_ms": round(account.poll_interval.total_seconds() * 1000),
            "timeout_ms": round(account.timeout.total_seconds() * 1000), "exclusive": int(account.exclusive),
            "stopped": None, "stopped_models": "[]", "paused_until": None, "paused_kind": None, "paused_note": None,
            "probes": 0,
        }  # fmt: skip
        statement = _dialect(connection).insert(accounts).values(name=account.name, **row)
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row))


def tighten_budgets(
    connection: Connection, names: Iterable[str], caps: Mapping[str, Decimal], each: Decimal | None
) -> None:
    """Lowers the budgets of all batches to the caps of this run, per account: the tighter one holds."""
    for row in connection.execute(select(batches.c.id, batches.c.budget)).all():
        budget = {name: Decimal(credits) for name, credits in json.loads(row.budget).items()}
        for name in names:
            given = [cap for cap in (budget.get(name), caps.get(name), each) if cap is not None]
            if given:
                budget[name] = min(given)
        set_budget(connection, row.id, budget)


def set_budget(connection: Connection, batch_id: int, budget: Mapping[str, Decimal]) -> None:
    """The limit of a batch's net spend per account, as the person at the command line set it for this run."""
    text_budget = json.dumps({name: str(credits) for name, credits in budget.items()})
    connection.execute(update(batches).where(batches.c.id == batch_id).values(budget=text_budget))
