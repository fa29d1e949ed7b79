"""Jobs as the engine and the lifecycle see them: what is asked, where it stands, and its current attempt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, update

from runner.errors import ErrorKind
from runner.jobs import Failure, OutputRow, Standing, State
from runner.ledger import Bill
from runner.store.changes import attempts, jobs, outputs
from runner.store.tables import IS_MOVING, IS_UNDER_REVIEW, QUEUED, LearnedPrice, batches

learned_prices = LearnedPrice.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Try:
    """The current attempt of a job: what was (or is about to be) sent, and what is booked for it."""

    id: int
    generation: int
    idempotency_key: str | None
    fingerprint: str
    path: str
    body: str
    priced: Decimal | None
    bill: Bill
    intent_at: datetime
    brink_at: datetime | None
    answered_at: datetime | None
    outcome: str | None
    code: str | None
    message: str | None
    callback: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One job, whole. `attempt` is None before the first submission."""

    id: int
    batch_id: int
    batch: str
    folder: str
    root: str
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
    estimated: Decimal | None
    charged: Decimal
    refunded: Decimal
    created_at: datetime
    updated_at: datetime
    standing: Standing
    lease: int | None
    attempt: Try | None


def load(connection: Connection, ids: Sequence[int]) -> dict[int, Work]:
    """The jobs of these ids, with their current attempts."""
    if not ids:
        return {}
    return {row.id: as_work(row) for row in connection.execute(everything().where(jobs.c.id.in_(ids)))}


def peek(
    connection: Connection, now: datetime, account: str, most: int, batch_ids: Sequence[int] | None,
    without_models: Collection[str] = (), without_batches: Collection[int] = (),
) -> list[Work]:  # fmt: skip
    """The next queued jobs of an account, in the order in which they will be submitted; nothing is claimed."""
    chosen = everything().where(QUEUED, jobs.c.account == account, jobs.c.due_at <= now, jobs.c.lease.is_(None))
    if without_models:
        chosen = chosen.where(jobs.c.model.not_in(without_models))
    if without_batches:
        chosen = chosen.where(jobs.c.batch_id.not_in(without_batches))
    if batch_ids is not None:
        chosen = chosen.where(jobs.c.batch_id.in_(batch_ids))
    ordered = chosen.order_by(jobs.c.priority.desc(), jobs.c.id).limit(most)
    return [as_work(row) for row in connection.execute(ordered)]


def to_review(
    connection: Connection, now: datetime, account: str, most: int, batch_ids: Sequence[int] | None
) -> tuple[list[Work], bool]:
    """Queued jobs whose references the provider has yet to review: those that are due, and whether there are any."""
    waiting = everything().where(IS_UNDER_REVIEW, jobs.c.account == account)
    if batch_ids is not None:
        waiting = waiting.where(jobs.c.batch_id.in_(batch_ids))
    due = waiting.where(jobs.c.due_at <= now, jobs.c.lease.is_(None)).order_by(jobs.c.due_at, jobs.c.id)
    found = [as_work(row) for row in connection.execute(due.limit(most))]
    return found, bool(found) or connection.execute(waiting.limit(1)).first() is not None


def reviewed(connection: Connection, ids: Sequence[int]) -> None:
    """All references of these jobs have passed."""
    connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(reviews=0))


def outputs_of(connection: Connection, job_id: int) -> list[OutputRow]:
    rows = connection.execute(select(outputs).where(outputs.c.job_id == job_id).order_by(outputs.c.number))
    return [OutputRow(r.number, r.url, bool(r.thumbnail), r.path, r.size, r.sha256, r.media_type) for r in rows]


def owned_task_ids(connection: Connection, account: str, ids: Sequence[str]) -> set[str]:
    """Which of these task ids belong to jobs of this account already."""
    statement = select(jobs.c.task_id).where(jobs.c.account == account, jobs.c.task_id.in_(ids))
    return {str(found) for found in connection.execute(statement).scalars()}


def spoken_for(connection: Connection, account: str, ids: Sequence[str]) -> set[str]:
    """Those, and the tasks of earlier orders of jobs that were ordered anew: none of them answers an open question."""
    earlier = select(attempts.c.task_id).where(attempts.c.account == account, attempts.c.task_id.in_(ids))
    return owned_task_ids(connection, account, ids) | set(connection.execute(earlier).scalars())


def answered_before(connection: Connection, work: Work, task_id: str) -> bool:
    """Whether another order, of this job or of any other one, was answered with this task: whoever followed it once
    more could be billed for it twice, and what became of his own order would stay unknown."""
    others = [attempts.c.account == work.account, attempts.c.id != (work.attempt.id if work.attempt else 0)]
    answered = select(attempts.c.id).where(*others, attempts.c.task_id == task_id)
    return connection.execute(answered.limit(1)).first() is not None


def unknowns(connection: Connection, account: str) -> list[Work]:
    """Every open question of an account: an answer that got lost."""
    asked = everything().where(IS_MOVING, jobs.c.account == account, jobs.c.state == State.UNKNOWN)
    return [as_work(row) for row in connection.execute(asked)]


def foreign_tasks(connection: Connection, account: str, fingerprint: str) -> int:
    """How many running tasks of the account were paid with another key."""
    statement = (
        select(func.count())
        .select_from(jobs.join(attempts, attempts.c.id == jobs.c.attempt_id))
        .where(
            IS_MOVING, jobs.c.account == account, jobs.c.state == State.RUNNING, attempts.c.fingerprint != fingerprint
        )
    )
    return int(connection.execute(statement).scalar_one())


def learned(connection: Connection, provider: str, shapes: Sequence[str]) -> dict[str, Decimal]:
    """What requests of these shapes were last charged."""
    statement = select(learned_prices.c.shape, learned_prices.c.credits).where(
        learned_prices.c.provider == provider, learned_prices.c.shape.in_(shapes))  # fmt: skip
    return {row.shape: row.credits for row in connection.execute(statement)}


def everything() -> Select[Any]:
    attempt = [c.label(f"try_{c.name}") for c in attempts.c if c.name not in ("job_id", "account")]
    joined = jobs.join(batches, jobs.c.batch_id == batches.c.id).outerjoin(attempts, attempts.c.id == jobs.c.attempt_id)
    return select(*jobs.c, batches.c.name.label("batch"), batches.c.folder, batches.c.root, *attempt).select_from(
        joined
    )


def as_work(row: Row[Any]) -> Work:
    return Work(
        id=row.id, batch_id=row.batch_id, batch=row.batch, folder=row.folder, root=row.root, key=row.key,
        name=row.name, take=row.take,
        account=row.account, provider=row.provider, model=row.model, shape=row.shape, spec=row.spec,
        variables=row.variables, output=row.output, place=row.place, estimated=row.estimated, charged=row.charged,
        refunded=row.refunded, created_at=row.created_at, updated_at=row.updated_at, standing=_standing(row),
        lease=row.lease, attempt=_try(row),
    )  # fmt: skip


def _standing(row: Row[Any]) -> Standing:
    failure = None
    if row.error_kind is not None:
        failure = Failure(ErrorKind(row.error_kind), row.error_code or "", row.error_message or "")
    return Standing(
        state=State(row.state), due_at=row.due_at, errors=row.errors, attempts=row.attempts, generation=row.generation,
        looks=row.looks, task_id=row.task_id, status=row.status, progress=row.progress, failure=failure,
        accepted_at=row.accepted_at, finished_at=row.finished_at, unsettled=bool(row.unsettled),
        settle_at=row.settle_at, settle_asks=row.settle_asks,
    )  # fmt: skip


def _try(row: Row[Any]) -> Try | None:
    if row.try_id is None:
        return None
    return Try(
        id=row.try_id, generation=row.try_generation, idempotency_key=row.try_idempotency_key,
        fingerprint=row.try_fingerprint, path=row.try_path, body=row.try_body, priced=row.try_priced,
        bill=Bill(row.try_reserved, row.try_charged, row.try_refunded), intent_at=row.try_intent_at,
        brink_at=row.try_brink_at, answered_at=row.try_answered_at, outcome=row.try_outcome, code=row.try_code,
        message=row.try_message, callback=row.try_callback, hint=row.try_hint,
    )  # fmt: skip
