"""The schema's steps: from nothing they lead to what the tables say; an older queue is migrated whole or not at all."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres import fresh_database
from sqlalchemy import Connection

from runner.errors import LocalError
from runner.store import engines, open_store, read_store, schema
from runner.store.changes import jobs
from runner.store.tables import Table
from runner.store.transactions import transactions
from store.kit import HandClock, fill, outcome, plain, rows, run_python, set_running, take_submissions

NEXT = '''
"""A step of tomorrow: one table made anew, to whose rows others are linked, and a column added to another."""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None


def upgrade() -> None:
    anew = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("batches", recreate=anew, table_kwargs={"sqlite_strict": True}) as batches:
        batches.add_column(sa.Column("mood", sa.Text(), nullable=False, server_default="calm"))
    op.add_column("jobs", sa.Column("colour", sa.Text(), nullable=True))
    op.execute("UPDATE jobs SET colour = 'blue'")
'''
BROKEN = NEXT + '    op.execute("UPDATE nothing SET colour = 1")\n'


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path, engine: str) -> str:
    """An address where nothing is yet; unlike `db`, it may be left with another schema."""
    return str(tmp_path / "queue.db") if engine == "sqlite" else str(request.getfixturevalue("postgres_database"))


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tomorrow(tmp_path: Path) -> Path:
    """The steps of a later program: today's and one more."""
    scripts = tmp_path / "migrations 100%"
    shutil.copytree(schema.MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "0002_next.py").write_text(NEXT)
    return scripts


@pytest.fixture
def program_of_tomorrow(tomorrow: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(schema, "HEAD", "0002")
    monkeypatch.setattr(schema, "MIGRATIONS", tomorrow)
    return tomorrow


# What is there, as the database tells it


async def described(db: str) -> Any:
    """Every table, column, index and rule of a database."""
    if "://" not in db:
        with closing(sqlite3.connect(db)) as connection:
            found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
            return {name: re.sub(r"\s*([(),])\s*", r"\1", re.sub(r"\s+", " ", sql)) for name, sql in found}
    connection = await asyncpg.connect(plain(db))
    try:
        return [[tuple(row) for row in await connection.fetch(question)] for question in CATALOGUE]
    finally:
        await connection.close()


CATALOGUE = (
    "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default"
    " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 3",
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 ORDER BY 1, 2",
)


async def asked(db: str, question: str) -> list[Any]:
    """The answer of the database itself, without a store."""
    if "://" not in db:
        with closing(sqlite3.connect(db)) as connection:
            return [row[0] for row in connection.execute(question)]
    connection = await asyncpg.connect(plain(db))
    try:
        return [row[0] for row in await connection.fetch(question)]
    finally:
        await connection.close()


@asynccontextmanager
async def upgraded(db: str) -> AsyncIterator[Any]:
    """All steps from an empty database on, as Alembic takes them."""
    url = engines.parse(db)
    writing = transactions(url, owner=True)
    try:
        await writing.run(schema._upgrade, schema._scripts())
        yield writing
    finally:
        await writing.close()


# From nothing


async def test_the_steps_from_nothing_lead_to_the_schema_of_a_new_queue(
    database: str, engine: str, tmp_path: Path, postgres_url: str
) -> None:
    async with open_store(database, HandClock(), own=True):
        pass
    made = await described(database)
    if engine == "sqlite":
        other = str(tmp_path / "stepped.db")
        async with upgraded(other):
            pass
        stepped = await described(other)
    else:
        async with fresh_database(postgres_url) as other, upgraded(other):
            stepped = await described(other)
    assert stepped == made
    assert len(str(made)) > 5000, "something was described"


async def test_the_steps_know_every_table_and_column(database: str) -> None:
    """Alembic's own comparison: whoever changes the tables must write a step."""

    def differences(connection: Connection) -> list[Any]:
        known = MigrationContext.configure(connection, opts={"include_object": comparable})
        return list(compare_metadata(known, Table.metadata))

    async with upgraded(database) as writing:
        assert await writing.run(differences) == []


def comparable(_thing: Any, name: str | None, kind: str, *_: Any) -> bool:
    """Alembic cannot read the direction of an index's columns; the other test compares it."""
    return (kind, name) != ("index", "jobs_queue")


def test_the_newest_step_is_todays_schema() -> None:
    assert ScriptDirectory.from_config(schema._scripts()).get_current_head() == schema.HEAD


# From an older queue


async def older(database: str) -> dict[str, Any]:
    """A queue of today, with something in it; returns its jobs as they stood."""
    async with open_store(database, HandClock(), own=True) as store:
        await fill(store, 3)
        await set_running(store, 1)
        return {row.key: (row.state, row.task_id, row.charged) for row in await rows(store, jobs)}


async def test_an_older_queue_is_migrated_when_a_run_opens_it(database: str, request: pytest.FixtureRequest) -> None:
    before = await older(database)
    request.getfixturevalue("program_of_tomorrow")
    async with open_store(database, HandClock(), own=True) as store:
        assert {row.key: (row.state, row.task_id, row.charged) for row in await rows(store, jobs)} == before
        assert len(await take_submissions(store)) == 2
    assert await asked(database, "SELECT version_num FROM alembic_version") == ["0002"]
    assert await asked(database, "SELECT colour FROM jobs") == ["blue"] * 3
    assert await asked(database, "SELECT mood FROM batches") == ["calm"]
    async with open_store(database, HandClock(), own=True) as store:
        assert len(await rows(store, jobs)) == 3


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_copy_is_kept_of_what_was_migrated(database: str, request: pytest.FixtureRequest) -> None:
    before = await older(database)
    old = await described(database)
    request.getfixturevalue("program_of_tomorrow")
    umask = os.umask(0)
    try:
        async with open_store(database, HandClock(), own=True):
            pass
    finally:
        os.umask(umask)
    copy = Path(f"{database}.backup-0001")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert await described(str(copy)) == old
    assert sorted(await asked(str(copy), "SELECT key FROM jobs")) == sorted(before)
    assert await asked(database, "PRAGMA foreign_key_check") == []
    strict = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND strict = 0 AND name NOT LIKE 'sqlite_%'"
    assert await asked(database, strict) == ["alembic_version"]


@pytest.mark.parametrize("way", ["decide", "read"])
async def test_only_a_run_migrates(database: str, request: pytest.FixtureRequest, way: str) -> None:
    """An older runner may be working on it: whoever only reads or decides says what to do."""
    await older(database)
    before = await described(database)
    request.getfixturevalue("program_of_tomorrow")
    opened = read_store(database, HandClock()) if way == "read" else open_store(database, HandClock())
    with pytest.raises(LocalError, match="has schema 0001, this program reads 0002"):
        async with opened:
            pass
    assert await described(database) == before


KILLED = """
import asyncio, sys
from pathlib import Path
from runner.store import open_store, schema
from store.kit import HandClock

schema.HEAD, schema.MIGRATIONS = "0002", Path(sys.argv[2])

async def main(db):
    async with open_store(db, HandClock(), own=True):
        print("migrated")

asyncio.run(main(sys.argv[1]))
"""


async def test_a_kill_in_the_middle_leaves_the_old_schema_whole(database: str, tomorrow: Path) -> None:
    before = await older(database)
    old = await described(database)
    armed = os.environ | {"RUNNER_FAILPOINT": "before-migration-commit"}
    ended = await asyncio.to_thread(run_python, KILLED, database, tomorrow, env=armed)
    assert (ended.code, ended.out) == (-9, "")
    assert await described(database) == old
    async with open_store(database, HandClock(), own=True) as store:
        assert {row.key: (row.state, row.task_id, row.charged) for row in await rows(store, jobs)} == before
    ended = await asyncio.to_thread(run_python, KILLED, database, tomorrow)
    assert (ended.code, ended.out, ended.err) == (0, "migrated\n", "")
    assert await asked(database, "SELECT version_num FROM alembic_version") == ["0002"]


async def test_a_step_that_fails_leaves_the_old_schema_whole(database: str, request: pytest.FixtureRequest) -> None:
    await older(database)
    old = await described(database)
    scripts = request.getfixturevalue("program_of_tomorrow")
    (scripts / "versions" / "0002_next.py").write_text(BROKEN)
    with pytest.raises(LocalError, match="nothing"):
        async with open_store(database, HandClock(), own=True):
            pass
    assert await described(database) == old


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_two_that_migrate_at_once_migrate_once(database: str, request: pytest.FixtureRequest) -> None:
    await older(database)
    request.getfixturevalue("program_of_tomorrow")

    async def run() -> int:
        async with open_store(database, HandClock(), own=True) as store:
            return len(await rows(store, jobs))

    assert await asyncio.gather(*(outcome(run()) for _ in range(3))) == [3, 3, 3]
    assert await asked(database, "SELECT version_num FROM alembic_version") == ["0002"]


# From a newer queue


@pytest_asyncio.fixture(loop_scope="session")
async def newer(database: str, tomorrow: Path) -> str:
    """A queue that the program of tomorrow has migrated."""
    await older(database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "HEAD", "0002")
        patch.setattr(schema, "MIGRATIONS", tomorrow)
        async with open_store(database, HandClock(), own=True):
            pass
    return database


@pytest.mark.parametrize("way", ["own", "decide", "read"])
async def test_a_newer_queue_is_refused_and_left_as_it_is(newer: str, way: str) -> None:
    before = Path(newer).read_bytes() if "://" not in newer else await described(newer)
    opened = read_store(newer, HandClock()) if way == "read" else open_store(newer, HandClock(), own=way == "own")
    with pytest.raises(LocalError, match="schema 0002, which is newer than this program"):
        async with opened:
            pass
    assert (Path(newer).read_bytes() if "://" not in newer else await described(newer)) == before
