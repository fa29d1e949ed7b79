"""The first schema: batches and their jobs, attempts, outputs, ledger, events, accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite's STRICT tables know one kind of integer, which alone makes a rowid; PostgreSQL needs 64 bits.
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL = sa.Float().with_variant(sa.REAL(), "sqlite")

STATE_KNOWN = (
    "state IN ('waiting', 'queued', 'submitting', 'unknown', 'running', 'downloading', 'succeeded', 'partial',"
    " 'failed', 'cancelled', 'held')"
)


def upgrade() -> None:
    _accounts()
    _batches()
    _hosted_references()
    _learned_prices()
    _meta()
    _requests()
    _workers()
    _jobs()
    _totals()
    _attempts()
    _events()
    _ledger()
    _outputs()


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("concurrency", INTEGER, nullable=False),
        sa.Column("windows", sa.Text(), nullable=False),
        sa.Column("poll_interval_ms", INTEGER, nullable=False),
        sa.Column("timeout_ms", INTEGER, nullable=False),
        sa.Column("exclusive", INTEGER, server_default="0", nullable=False),
        sa.Column("blocked_until", INTEGER, nullable=True),
        sa.Column("paused_until", INTEGER, nullable=True),
        sa.Column("paused_kind", sa.Text(), nullable=True),
        sa.Column("paused_note", sa.Text(), nullable=True),
        sa.Column("probes", INTEGER, server_default="0", nullable=False),
        sa.Column("stopped", sa.Text(), nullable=True),
        sa.Column("stopped_models", sa.Text(), server_default="[]", nullable=False),
        sa.Column("list_at", INTEGER, nullable=True),
        sa.Column("baseline", INTEGER, nullable=True),
        sa.Column("baseline_at", INTEGER, nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sa.CheckConstraint("concurrency > 0", name="concurrency_positive"),
        sqlite_strict=True,
    )


def _batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", INTEGER, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("created_at", INTEGER, nullable=False),
        sa.Column("updated_at", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sqlite_strict=True,
    )


def _hosted_references() -> None:
    op.create_table(
        "hosted_references",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("asset_id", sa.Text(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=True),
        sa.Column("asked_at", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("account", "content"),
        sqlite_strict=True,
    )


def _learned_prices() -> None:
    op.create_table(
        "learned_prices",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("credits", INTEGER, server_default="0", nullable=False),
        sa.Column("seen_at", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("provider", "shape"),
        sqlite_strict=True,
    )


def _meta() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", INTEGER, autoincrement=True, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("worker", INTEGER, nullable=False),
        sa.Column("started_at", INTEGER, nullable=False),
        sa.Column("ended_at", INTEGER, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("requests_by_account", "requests", ["account", "ended_at"])


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", INTEGER, autoincrement=False, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", INTEGER, nullable=False),
        sa.Column("started_at", INTEGER, nullable=False),
        sa.Column("seen_at", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", INTEGER, autoincrement=True, nullable=False),
        sa.Column("batch_id", INTEGER, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("take", INTEGER, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("variables", sa.Text(), nullable=False),
        sa.Column("output", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("priority", INTEGER, nullable=False),
        sa.Column("reviews", INTEGER, server_default="0", nullable=False),
        sa.Column("estimated", INTEGER, nullable=True),
        sa.Column("charged", INTEGER, server_default="0", nullable=False),
        sa.Column("refunded", INTEGER, server_default="0", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("due_at", INTEGER, nullable=False),
        sa.Column("errors", INTEGER, server_default="0", nullable=False),
        sa.Column("attempts", INTEGER, server_default="0", nullable=False),
        sa.Column("generation", INTEGER, server_default="1", nullable=False),
        sa.Column("looks", INTEGER, server_default="0", nullable=False),
        sa.Column("attempt_id", INTEGER, nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("progress", REAL, nullable=True),
        sa.Column("error_kind", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("accepted_at", INTEGER, nullable=True),
        sa.Column("finished_at", INTEGER, nullable=True),
        sa.Column("unsettled", INTEGER, server_default="0", nullable=False),
        sa.Column("settle_at", INTEGER, nullable=True),
        sa.Column("settle_asks", INTEGER, server_default="0", nullable=False),
        sa.Column("lease", INTEGER, nullable=True),
        sa.Column("owner", INTEGER, nullable=True),
        sa.Column("created_at", INTEGER, nullable=False),
        sa.Column("updated_at", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("batch_id", "key"),
        sa.UniqueConstraint("account", "task_id"),
        sa.CheckConstraint(STATE_KNOWN, name="state_known"),
        sa.CheckConstraint("(lease IS NULL) = (owner IS NULL)", name="lease_has_owner"),
        sa.CheckConstraint("state NOT IN ('running', 'downloading') OR task_id IS NOT NULL", name="followed_has_task"),
        sa.CheckConstraint("state <> 'submitting' OR lease IS NOT NULL", name="submitting_has_lease"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"]),
        sqlite_strict=True,
    )
    op.create_index("jobs_by_state", "jobs", ["batch_id", "account", "state", "estimated"])
    _index("jobs_finished", "jobs", ["account", "finished_at"], "finished_at IS NOT NULL")
    _index("jobs_leased", "jobs", ["owner"], "lease IS NOT NULL")
    _index("jobs_under_review", "jobs", ["account", "due_at"], "reviews = 1 AND state = 'queued'")
    _index(
        "jobs_moving",
        "jobs",
        ["account", "state", "due_at"],
        "state IN ('submitting', 'unknown', 'running', 'downloading')",
    )
    _index("jobs_postponed", "jobs", ["account", "due_at"], "state = 'queued' AND due_at > created_at")
    _index("jobs_queue", "jobs", ["account", sa.text("priority DESC"), "id"], "state = 'queued'")
    _index("jobs_to_settle", "jobs", ["account", "settle_at"], "settle_at IS NOT NULL")
    _index("jobs_unsettled", "jobs", ["account"], "unsettled = 1")


def _totals() -> None:
    op.create_table(
        "totals",
        sa.Column("batch_id", INTEGER, autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("estimated", INTEGER, server_default="0", nullable=False),
        sa.Column("charged", INTEGER, server_default="0", nullable=False),
        sa.Column("refunded", INTEGER, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "account"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"]),
        sqlite_strict=True,
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", INTEGER, autoincrement=True, nullable=False),
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("generation", INTEGER, nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("priced", INTEGER, nullable=True),
        sa.Column("reserved", INTEGER, server_default="0", nullable=False),
        sa.Column("charged", INTEGER, server_default="0", nullable=False),
        sa.Column("refunded", INTEGER, server_default="0", nullable=False),
        sa.Column("intent_at", INTEGER, nullable=False),
        sa.Column("brink_at", INTEGER, nullable=True),
        sa.Column("answered_at", INTEGER, nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("callback", sa.Text(), nullable=True),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sqlite_strict=True,
    )
    op.create_index("attempts_by_job", "attempts", ["job_id"])
    _index("attempts_by_callback", "attempts", ["callback"], "callback IS NOT NULL")
    _index("attempts_unanswered", "attempts", ["account", "answered_at"], "outcome = 'no_answer'")


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", INTEGER, autoincrement=True, nullable=False),
        sa.Column("at", INTEGER, nullable=False),
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sqlite_strict=True,
    )
    op.create_index("events_by_job", "events", ["job_id"])


def _ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", INTEGER, autoincrement=True, nullable=False),
        sa.Column("at", INTEGER, nullable=False),
        sa.Column("batch_id", INTEGER, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("attempt_id", INTEGER, nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", INTEGER, server_default="0", nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("kind IN ('estimated', 'charged', 'refunded')", name="kind_known"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"]),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sqlite_strict=True,
    )
    op.create_index("ledger_by_job", "ledger", ["job_id"])


def _outputs() -> None:
    op.create_table(
        "outputs",
        sa.Column("id", INTEGER, autoincrement=True, nullable=False),
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("number", INTEGER, nullable=False),
        sa.Column("thumbnail", INTEGER, server_default="0", nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("size", INTEGER, nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("media_type", sa.Text(), nullable=True),
        sa.Column("published_at", INTEGER, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id", "number"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sqlite_strict=True,
    )


def _index(name: str, table: str, columns: list[str | sa.TextClause], condition: str) -> None:
    """An index over those rows only for which the condition holds."""
    op.create_index(name, table, columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))
