"""The tables, once for both engines. The schema repeats the plain invariants; the edges between states live in jobs.py.

Times are whole microseconds since 1970 (UTC) and credits whole millionths: both engines then compare and add them
exactly. Python sees aware datetimes and `Decimal`.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from runner.jobs import State
from runner.ledger import EntryKind
from runner.store.columns import BigId, Credits, Real, UtcTime


def _one_of(column: str, values: type[State] | type[EntryKind]) -> CheckConstraint:
    names = ", ".join(f"'{v.value}'" for v in values)
    return CheckConstraint(f"{column} IN ({names})", name=f"{column}_known")


def _key() -> Any:
    return Field(default=None, sa_column=Column(BigId, primary_key=True, autoincrement=True))


def _number(*, nullable: bool = False, default: int | None = None) -> Any:
    start = None if default is None else str(default)
    return Field(default=default, sa_column=Column(BigId, nullable=nullable, server_default=start))


def _only(name: str, condition: str, *columns: str | TextClause) -> Index:
    """An index over the few rows that matter: a million ended jobs must not slow down the one that is due."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


def _time(*, nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(UtcTime, nullable=nullable))


def _credits(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(Credits, nullable=nullable, server_default=None if nullable else "0"))


def _link(target: str, *, nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(BigId, ForeignKey(target), nullable=nullable))


def _text(*, nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(Text, nullable=nullable))


class Table(SQLModel):
    """What every table shares: on SQLite the types are enforced (STRICT)."""


STRICT: dict[str, Any] = {"sqlite_strict": True}
POSTPONED = "state = 'queued' AND due_at > created_at"
UNDER_REVIEW = "reviews = 1 AND state = 'queued'"
MOVING = "state IN ('submitting', 'unknown', 'running', 'downloading')"

# SQLite uses a partial index only for a query that repeats the index's own condition to the letter.
IS_MOVING = text(f"jobs.{MOVING}")
IS_POSTPONED = text(POSTPONED)
IS_UNSETTLED = text("jobs.settle_at IS NOT NULL")
IS_UNDER_REVIEW = text(f"jobs.{UNDER_REVIEW}")
QUEUED = text("jobs.state = 'queued'")


class Meta(Table, table=True):
    """Facts about the queue itself: `salt` (hex, for key fingerprints) and `created_at`."""

    __tablename__ = "meta"
    __table_args__: ClassVar[Any] = (STRICT,)
    name: str = Field(sa_column=Column(Text, primary_key=True))
    value: str = _text(nullable=False)


class Batch(Table, table=True):
    """One named manifest and all its jobs. References are read below `folder`, outputs written below `root`. `budget`
    is JSON: account → credits as text."""

    __tablename__ = "batches"
    __table_args__: ClassVar[Any] = (UniqueConstraint("name"), STRICT)
    id: int = _key()
    name: str = _text(nullable=False)
    folder: str = _text(nullable=False)
    root: str = _text(nullable=False)
    manifest: str = _text(nullable=False)
    manifest_sha256: str = _text(nullable=False)
    budget: str = _text(nullable=False)
    created_at: datetime = _time(nullable=False)
    updated_at: datetime = _time(nullable=False)


class Account(Table, table=True):
    """One API key of one provider. Its row is locked first by every claim, so limits hold across workers.

    `windows` is JSON [[limit, seconds], …]. Until `blocked_until` no request goes at all, until `paused_until` no paid
    one; `probes` counts fruitless probes in a row. `stopped` is the reason a person is needed (nothing goes),
    `stopped_models` (JSON list) those this account may not use. `baseline` was the balance at `baseline_at`, when
    nothing of ours was open.
    """

    __tablename__ = "accounts"
    __table_args__: ClassVar[Any] = (CheckConstraint("concurrency > 0", name="concurrency_positive"), STRICT)
    name: str = Field(sa_column=Column(Text, primary_key=True))
    provider: str = _text(nullable=False)
    fingerprint: str | None = _text()
    concurrency: int = Field(sa_column=Column(BigId, nullable=False))
    windows: str = _text(nullable=False)
    poll_interval_ms: int = Field(sa_column=Column(BigId, nullable=False))
    timeout_ms: int = Field(sa_column=Column(BigId, nullable=False))
    exclusive: int = Field(sa_column=Column(BigId, nullable=False, server_default="0"))
    blocked_until: datetime | None = _time()
    paused_until: datetime | None = _time()
    paused_kind: str | None = _text()
    paused_note: str | None = _text()
    probes: int = _number(default=0)
    stopped: str | None = _text()
    stopped_models: str = Field(default="[]", sa_column=Column(Text, nullable=False, server_default="[]"))
    list_at: datetime | None = _time()
    baseline: Decimal | None = _credits(nullable=True)
    baseline_at: datetime | None = _time()


class Worker(Table, table=True):
    """A living process. Its leases are dead when it is: by the kernel lock on SQLite, by `seen_at` on PostgreSQL."""

    __tablename__ = "workers"
    __table_args__: ClassVar[Any] = (STRICT,)
    id: int = Field(sa_column=Column(BigId, primary_key=True, autoincrement=False))
    host: str = _text(nullable=False)
    pid: int = Field(sa_column=Column(BigId, nullable=False))
    started_at: datetime = _time(nullable=False)
    seen_at: datetime = _time(nullable=False)


class Request(Table, table=True):
    """The request log of accounts with request windows: one row per request, until no window counts it any more."""

    __tablename__ = "requests"
    __table_args__: ClassVar[Any] = (Index("requests_by_account", "account", "ended_at"), STRICT)
    id: int = _key()
    account: str = _text(nullable=False)
    worker: int = Field(sa_column=Column(BigId, nullable=False))
    started_at: datetime = _time(nullable=False)
    ended_at: datetime | None = _time()


class Job(Table, table=True):
    """One intended paid render. `spec` is the canonical JSON of what is asked; `lease` fences whoever works on it.
    `reviews` is 1 until the provider has judged the references that it wants to review first."""

    __tablename__ = "jobs"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("batch_id", "key"),
        UniqueConstraint("account", "task_id"),
        _one_of("state", State),
        CheckConstraint("(lease IS NULL) = (owner IS NULL)", name="lease_has_owner"),
        CheckConstraint("state NOT IN ('running', 'downloading') OR task_id IS NOT NULL", name="followed_has_task"),
        CheckConstraint("state <> 'submitting' OR lease IS NOT NULL", name="submitting_has_lease"),
        _only("jobs_queue", "state = 'queued'", "account", text("priority DESC"), "id"),  # the order of submission
        _only("jobs_postponed", POSTPONED, "account", "due_at"),
        _only("jobs_under_review", UNDER_REVIEW, "account", "due_at"),
        _only("jobs_moving", MOVING, "account", "state", "due_at"),
        _only("jobs_to_settle", "settle_at IS NOT NULL", "account", "settle_at"),
        _only("jobs_leased", "lease IS NOT NULL", "owner"),
        _only("jobs_unsettled", "unsettled = 1", "account"),
        _only("jobs_finished", "finished_at IS NOT NULL", "account", "finished_at"),
        Index("jobs_by_state", "batch_id", "account", "state", "estimated"),
        STRICT,
    )
    id: int = _key()
    batch_id: int = _link("batches.id")
    key: str = _text(nullable=False)
    name: str = _text(nullable=False)
    take: int = _number()
    account: str = _text(nullable=False)
    provider: str = _text(nullable=False)
    model: str = _text(nullable=False)
    shape: str = _text(nullable=False)
    spec: str = _text(nullable=False)
    variables: str = _text(nullable=False)
    output: str = _text(nullable=False)
    place: str = _text(nullable=False)
    priority: int = _number()
    reviews: int = _number(default=0)
    estimated: Decimal | None = _credits(nullable=True)
    charged: Decimal = _credits()
    refunded: Decimal = _credits()
    state: str = _text(nullable=False)
    due_at: datetime = _time(nullable=False)
    errors: int = _number(default=0)
    attempts: int = _number(default=0)
    generation: int = _number(default=1)
    looks: int = _number(default=0)
    attempt_id: int | None = _number(nullable=True)
    task_id: str | None = _text()
    status: str | None = _text()
    progress: float | None = Field(default=None, sa_column=Column(Real))
    error_kind: str | None = _text()
    error_code: str | None = _text()
    error_message: str | None = _text()
    accepted_at: datetime | None = _time()
    finished_at: datetime | None = _time()
    unsettled: int = _number(default=0)
    settle_at: datetime | None = _time()
    settle_asks: int = _number(default=0)
    lease: int | None = _number(nullable=True)
    owner: int | None = _number(nullable=True)
    created_at: datetime = _time(nullable=False)
    updated_at: datetime = _time(nullable=False)


class Attempt(Table, table=True):
    """One intent to pay, frozen: the very bytes, the key, the account's fingerprint. `brink_at` NULL: nothing was sent.

    `priced` is the exact documented price, `reserved`, `charged` and `refunded` what is booked for this attempt.
    `callback` is the sha256 (hex) of the secret word in the address that the provider was asked to call, `hint` the
    task id that it told there, to be confirmed by a question.
    """

    __tablename__ = "attempts"
    __table_args__: ClassVar[Any] = (
        Index("attempts_by_job", "job_id"),
        _only("attempts_unanswered", "outcome = 'no_answer'", "account", "answered_at"),
        _only("attempts_by_callback", "callback IS NOT NULL", "callback"),
        STRICT,
    )
    id: int = _key()
    job_id: int = _link("jobs.id")
    account: str = _text(nullable=False)
    generation: int = _number()
    idempotency_key: str | None = _text()
    fingerprint: str = _text(nullable=False)
    path: str = _text(nullable=False)
    body: str = _text(nullable=False)
    priced: Decimal | None = _credits(nullable=True)
    reserved: Decimal = _credits()
    charged: Decimal = _credits()
    refunded: Decimal = _credits()
    intent_at: datetime = _time(nullable=False)
    brink_at: datetime | None = _time()
    answered_at: datetime | None = _time()
    outcome: str | None = _text()
    code: str | None = _text()
    message: str | None = _text()
    task_id: str | None = _text()
    callback: str | None = _text()
    hint: str | None = _text()


class Output(Table, table=True):
    """One file of a job: wanted while it has a `url` (erased once published), published once it has a `path`."""

    __tablename__ = "outputs"
    __table_args__: ClassVar[Any] = (UniqueConstraint("job_id", "number"), STRICT)
    id: int = _key()
    job_id: int = _link("jobs.id")
    number: int = _number()
    thumbnail: int = _number(default=0)
    url: str | None = _text()
    path: str | None = _text()
    size: int | None = _number(nullable=True)
    sha256: str | None = _text()
    media_type: str | None = _text()
    published_at: datetime | None = _time()


class LedgerRow(Table, table=True):
    """One exact amount, in the transaction of the change that caused it."""

    __tablename__ = "ledger"
    __table_args__: ClassVar[Any] = (_one_of("kind", EntryKind), Index("ledger_by_job", "job_id"), STRICT)
    id: int = _key()
    at: datetime = _time(nullable=False)
    batch_id: int = _link("batches.id")
    account: str = _text(nullable=False)
    job_id: int = _link("jobs.id")
    attempt_id: int | None = _number(nullable=True)
    kind: str = _text(nullable=False)
    amount: Decimal = _credits()
    source: str = _text(nullable=False)


class Total(Table, table=True):
    """The ledger's sums per batch and account, moved in the same transaction: budgets are checked against them."""

    __tablename__ = "totals"
    __table_args__: ClassVar[Any] = (STRICT,)
    batch_id: int = Field(sa_column=Column(BigId, ForeignKey("batches.id"), primary_key=True, autoincrement=False))
    account: str = Field(sa_column=Column(Text, primary_key=True))
    estimated: Decimal = _credits()
    charged: Decimal = _credits()
    refunded: Decimal = _credits()


class EventRow(Table, table=True):
    """The audit trail: what happened to a job, when, and why (`data` is JSON)."""

    __tablename__ = "events"
    __table_args__: ClassVar[Any] = (Index("events_by_job", "job_id"), STRICT)
    id: int = _key()
    at: datetime = _time(nullable=False)
    job_id: int = _link("jobs.id")
    event: str = _text(nullable=False)
    source: str | None = _text()
    target: str = _text(nullable=False)
    data: str = _text(nullable=False)


class Hosted(Table, table=True):
    """A reference that a provider holds for an account: a local file it hosts, or an asset it has reviewed; once per
    content.

    `content` is the sha256 (hex) of the file, or of the asset's URL. Orders may name it once there is a `url`. Until
    then somebody has been asking for it since `asked_at`, an `asset_id` tells that its review goes on, and `refused`
    why it will not be had.
    """

    __tablename__ = "hosted_references"
    __table_args__: ClassVar[Any] = (STRICT,)
    account: str = Field(sa_column=Column(Text, primary_key=True))
    content: str = Field(sa_column=Column(Text, primary_key=True))
    url: str | None = _text()
    asset_id: str | None = _text()
    refused: str | None = _text()
    asked_at: datetime = _time(nullable=False)


class LearnedPrice(Table, table=True):
    """What a request of this shape was last charged, where no document gives a price."""

    __tablename__ = "learned_prices"
    __table_args__: ClassVar[Any] = (STRICT,)
    provider: str = Field(sa_column=Column(Text, primary_key=True))
    shape: str = Field(sa_column=Column(Text, primary_key=True))
    credits: Decimal = _credits()
    seen_at: datetime = _time(nullable=False)


accounts = Account.__table__  # type: ignore[attr-defined]
batches = Batch.__table__  # type: ignore[attr-defined]
totals = Total.__table__  # type: ignore[attr-defined]
