"""A queue on each engine: every test that asks for `db` or `store` runs on both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from postgres import fresh_database

from runner.store import Store, open_store
from store.kit import HandClock, plain

KEPT = ("meta", "alembic_version")


@pytest.fixture(scope="session")
def helper() -> Iterator[asyncio.Runner]:
    """A loop beside that of the tests, for what is done between them."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="session")
def postgres_queue(postgres_url: str, helper: asyncio.Runner) -> Iterator[str]:
    """A queue on PostgreSQL whose schema is made once: making a database takes longer than most tests here."""
    database = fresh_database(postgres_url)
    url = helper.run(database.__aenter__())
    helper.run(make(url))
    yield url
    helper.run(database.__aexit__(None, None, None))


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path, helper: asyncio.Runner) -> Iterator[str]:
    """`--db` of a queue without jobs."""
    if request.param == "sqlite":
        yield str(tmp_path / "queue.db")
        return
    url: str = request.getfixturevalue("postgres_queue")
    yield url
    helper.run(empty(url))


@pytest.fixture
def postgres_queue_db(postgres_queue: str, helper: asyncio.Runner) -> Iterator[str]:
    """`db` for what only PostgreSQL knows: several workers."""
    yield postgres_queue
    helper.run(empty(postgres_queue))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def store(db: str, clock: HandClock) -> AsyncIterator[Store]:
    """An owned, empty queue."""
    async with open_store(db, clock, own=True) as opened:
        yield opened


async def make(url: str) -> None:
    async with open_store(url, HandClock(), own=True):
        pass


async def empty(url: str) -> None:
    """Ends whoever is still in the database, and deletes every row but the queue's own facts."""
    connection = await asyncpg.connect(plain(url))
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        names = [row["tablename"] for row in tables if row["tablename"] not in KEPT]
        deletions = "; ".join(f'DELETE FROM "{name}"' for name in names)
        await connection.execute(f"SET session_replication_role = replica; {deletions}")
    finally:
        await connection.close()
