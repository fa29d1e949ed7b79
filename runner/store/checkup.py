"""What a check-up asks of a queue: whether it is whole, and what of it needs a person. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, text

from runner.jobs import SETTLED, State
from runner.store.changes import jobs, outputs
from runner.store.queries import account_rows
from runner.store.tables import IS_MOVING, accounts, batches
from runner.store.work import Work, as_work, everything

TOLD = 20  # flaws; the rest would say no more
PAGE = 500


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server. `durable`: a commit is on its disk when it is acknowledged, as our sessions ask for."""

    version: str
    synchronous_commit: str
    fsync: str


def flaws(connection: Connection) -> list[str]:
    """What is wrong with an SQLite queue, page by page, row by row and link by link; empty where nothing is."""
    found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({TOLD})")]
    links = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(TOLD)
    lost = [f"row {row[1]} of {row[0]} belongs to a row of {row[2]} that is gone" for row in links]
    return [line for line in found if line != "ok"] + lost


def server(connection: Connection) -> Server:
    names = ("server_version", "synchronous_commit", "fsync")
    return Server(*(str(connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in names))


def fingerprints(connection: Connection) -> dict[str, str | None]:
    """The salted fingerprint of the key that each account was last used with."""
    return {row.name: row.fingerprint for row in connection.execute(select(accounts.c.name, accounts.c.fingerprint))}


def unfinished(connection: Connection) -> set[str]:
    """The accounts with jobs that have not come to their end."""
    ended = [state.value for state in SETTLED]
    statement = select(jobs.c.account).where(jobs.c.state.not_in(ended)).distinct()
    return set(connection.execute(statement).scalars())


def output_folders(connection: Connection) -> list[str]:
    """Below which folders the batches' files are written."""
    return list(connection.execute(select(batches.c.root).distinct().order_by(batches.c.root)).scalars())


def in_state(connection: Connection, state: State, most: int) -> list[Work]:
    """The first jobs in this state."""
    statement = everything().where(jobs.c.state == state.value).order_by(jobs.c.id).limit(most)
    return [as_work(row) for row in connection.execute(statement)]


def overdue(connection: Connection, now: datetime, most: int) -> list[Work]:
    """Running jobs whose tasks are past the timeout of their account."""
    late: list[Work] = []
    for row in account_rows(connection):
        old = jobs.c.accepted_at < now - row.timeout
        mine = everything().where(IS_MOVING, jobs.c.account == row.name, jobs.c.state == State.RUNNING, old)
        late += [as_work(each) for each in connection.execute(mine.order_by(jobs.c.id).limit(most))]
    return late[:most]


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file as it was when it was published below `root`. `size` in bytes, `sha256` in hex."""

    id: int
    path: str
    root: str
    size: int
    sha256: str
    job_id: int
    job: str
    task_id: str | None


def published_after(connection: Connection, last: int) -> Sequence[PublishedFile]:
    """One page of published files, thumbnails too, in the order of their ids."""
    statement = (
        select(outputs.c.id, outputs.c.path, batches.c.root, outputs.c.size, outputs.c.sha256, outputs.c.job_id,
               batches.c.name.label("batch"), jobs.c.name, jobs.c.task_id)
        .join(jobs, jobs.c.id == outputs.c.job_id)
        .join(batches, batches.c.id == jobs.c.batch_id)
        .where(text("outputs.path IS NOT NULL"), outputs.c.id > last)
        .order_by(outputs.c.id)
        .limit(PAGE)
    )  # fmt: skip
    return [
        PublishedFile(r.id, r.path, r.root, r.size, r.sha256, r.job_id, f"{r.batch}/{r.name}", r.task_id)
        for r in connection.execute(statement)
    ]
