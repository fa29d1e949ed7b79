"""What a manifest asks for, against what the queue holds: batches, accounts, new jobs, jobs that are gone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from runner.jobs import UNPAID, Event, State
from runner.limits import Window
from runner.store.changes import events, jobs, totals
from runner.store.claims import accounts, batches

CHUNK = 2000


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as the manifest orders it. `spec` and `variables` are canonical JSON; `output` is a path below the batch's root."""

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
    connection.execute(text("CREATE TEMPORARY TABLE wanted (key TEXT PRIMARY KEY)"))
    new = total = 0
    for chunk in _chunks(orders):
        total += len(chunk)
        new += _add_jobs(connection, now, batch_id, chunk)
        connection.execute(text("INSERT INTO wanted (key) VALUES (:key)"), [{"key": job.key} for job in chunk])
    _open_totals(connection, batch_id)
    _ask_again(connection, now, batch_id)
    gone = _cancel_gone(connection, now, batch_id)
    connection.execute(text("DROP TABLE wanted"))
    return Enqueued(batch_id, new, total - new, gone)


def _chunks(orders: Iterable[NewJob]) -> Iterator[list[NewJob]]:
    stream = iter(orders)
    while chunk := list(islice(stream, CHUNK)):
        yield chunk


def _save_batch(connection: Connection, now: datetime, batch: NewBatch) -> int:
    row = {
        "folder": batch.folder, "root": batch.root, "manifest": batch.manifest, "manifest_sha256": batch.manifest_sha256,
        "budget": json.dumps({name: str(credits) for name, credits in batch.budget.items()}), "updated_at": now,
    }  # fmt: skip
    known = connection.execute(select(batches.c.id).where(batches.c.name == batch.name)).scalar()
    if known is not None:
        connection.execute(update(batches).where(batches.c.id == known).values(row))
        return int(known)
    statement = insert(batches).values(name=batch.name, created_at=now, **row).returning(batches.c.id)
    return int(connection.execute(statement).scalar_one())


def _add_jobs(connection: Connection, now: datetime, batch_id: int, chunk: Sequence[NewJob]) -> int:
    """Inserts the jobs whose key the batch does not hold yet; returns how many those were.

    A known job that is not paid yet takes over limits of the new manifest that are not part of what is asked:
    priority and place. Its path stays.
    """
    known = _known_keys(connection, batch_id, [job.key for job in chunk])
    fresh = [job for job in chunk if job.key not in known]
    if fresh:
        connection.execute(insert(jobs), [_job_row(job, now, batch_id) for job in fresh])
    changed = [{"k": job.key, "p": job.priority} for job in chunk if known.get(job.key, job.priority) != job.priority]
    if changed:
        statement = update(jobs).where(jobs.c.batch_id == batch_id, jobs.c.key == bindparam("k"))
        connection.execute(statement.values(priority=bindparam("p")), changed)
    return len(fresh)


def _known_keys(connection: Connection, batch_id: int, keys: Sequence[str]) -> dict[str, int]:
    statement = select(jobs.c.key, jobs.c.priority).where(jobs.c.batch_id == batch_id, jobs.c.key.in_(keys))
    return {row.key: row.priority for row in connection.execute(statement)}


def _job_row(job: NewJob, now: datetime, batch_id: int) -> dict[str, Any]:
    return {
        "batch_id": batch_id, "key": job.key, "name": job.name, "take": job.take, "account": job.account,
        "provider": job.provider, "model": job.model, "shape": job.shape, "spec": job.spec, "variables": job.variables,
        "output": job.output, "place": job.place, "priority": job.priority, "estimated": job.estimated,
        "state": State.QUEUED.value, "due_at": now, "created_at": now, "updated_at": now,
    }  # fmt: skip


def _open_totals(connection: Connection, batch_id: int) -> None:
    """A row of sums for every account of the batch, so that booking only ever adds to one."""
    names = connection.execute(select(jobs.c.account).distinct().where(jobs.c.batch_id == batch_id)).scalars().all()
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    if names:
        statement = dialect.insert(totals).on_conflict_do_nothing()
        connection.execute(statement, [{"batch_id": batch_id, "account": name} for name in names])


def _ask_again(connection: Connection, now: datetime, batch_id: int) -> None:
    """A job that an edit had cancelled and that is asked for again was never paid: it is queued anew."""
    condition = [jobs.c.batch_id == batch_id, jobs.c.state == State.CANCELLED, jobs.c.attempts == 0,
                 text("key IN (SELECT key FROM wanted)")]  # fmt: skip
    _move_all(connection, now, Event.ASKED_AGAIN, State.QUEUED, condition)


def _cancel_gone(connection: Connection, now: datetime, batch_id: int) -> int:
    condition = [jobs.c.batch_id == batch_id, jobs.c.state.in_(UNPAID), jobs.c.lease.is_(None),
                 text("key NOT IN (SELECT key FROM wanted)")]  # fmt: skip
    return _move_all(connection, now, Event.CANCELLED, State.CANCELLED, condition)


def _move_all(connection: Connection, now: datetime, event: Event, to: State, conditions: Sequence[Any]) -> int:
    told = insert(events).from_select(
        ["at", "job_id", "event", "source", "target", "data"],
        select(bindparam("now", now, type_=events.c.at.type), jobs.c.id, bindparam("event", event.value), jobs.c.state,
               bindparam("target", to.value), bindparam("data", '{"by": "manifest"}')).where(*conditions),
    )  # fmt: skip
    connection.execute(told)
    erased = {"error_kind": None, "error_code": None, "error_message": None}
    moved = update(jobs).where(*conditions).values(state=to.value, due_at=now, updated_at=now, errors=0, **erased)
    return connection.execute(moved).rowcount


def save_accounts(connection: Connection, settings: Sequence[AccountSettings]) -> None:
    """Writes the limits of this run. Pauses stay; a stop is lifted, because a person has started a run with a key."""
    for account in settings:
        row = {
            "provider": account.provider, "fingerprint": account.fingerprint, "concurrency": account.concurrency,
            "windows": json.dumps([[w.limit, w.seconds] for w in account.windows]),
            "poll_interval_ms": round(account.poll_interval.total_seconds() * 1000),
            "timeout_ms": round(account.timeout.total_seconds() * 1000), "exclusive": int(account.exclusive),
            "stopped": None, "stopped_models": "[]",
        }  # fmt: skip
        known = connection.execute(update(accounts).where(accounts.c.name == account.name).values(row)).rowcount
        if not known:
            connection.execute(insert(accounts).values(name=account.name, **row))


def set_budget(connection: Connection, batch_id: int, budget: Mapping[str, Decimal]) -> None:
    """The limit of a batch's net spend per account, as the person at the command line set it for this run."""
    text_budget = json.dumps({name: str(credits) for name, credits in budget.items()})
    connection.execute(update(batches).where(batches.c.id == batch_id).values(budget=text_budget))
