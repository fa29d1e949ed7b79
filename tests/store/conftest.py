"""A queue on each engine: every test that asks for `db` or `store` runs on both.

Opening a queue costs more than most tests here (every new engine compiles its statements anew), so the tests share one
loop and, where they do not open queues themselves, one open store for each engine; between tests it is emptied.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from postgres import fresh_database
from sqlalchemy import Connection

from runner.store import Store, open_store, ownership
from runner.store.tables import Table
from store.kit import HandClock, plain

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session", autouse=True)
def no_heartbeats() -> Iterator[None]:
    """Who is silent, and who finds them dead, is for the tests to say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "HEARTBEAT_SECONDS", 3600.0)
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_queue(postgres_url: str) -> AsyncIterator[str]:
    """A queue on PostgreSQL for the tests that open it themselves."""
    async with fresh_database(postgres_url) as url:
        async with open_store(url, HandClock(), own=True):
            pass
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """`--db` of a queue without jobs, which nobody has open."""
    if request.param == "sqlite":
        return str(tmp_path / "queue.db")
    return str(request.getfixturevalue("postgres_queue_db"))


@pytest_asyncio.fixture(loop_scope="session")
async def postgres_queue_db(postgres_queue: str) -> AsyncIterator[str]:
    """`db` for what only PostgreSQL knows: several workers."""
    yield postgres_queue
    await end_sessions(postgres_queue)
    async with open_store(postgres_queue, HandClock()) as store:
        await store.write(empty)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["sqlite", "postgresql"])
async def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_url: str
) -> AsyncIterator[Store]:
    """One open store for each engine."""
    if request.param == "sqlite":
        async with open_store(str(tmp_path_factory.mktemp("shared") / "queue.db"), HandClock(), own=True) as store:
            yield store
        return
    async with fresh_database(postgres_url) as url, open_store(url, HandClock(), own=True) as store:
        yield store


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest_asyncio.fixture(loop_scope="session")
async def store(opened: Store, clock: HandClock) -> AsyncIterator[Store]:
    """An owned, empty queue."""
    opened.clock = clock
    await opened.write(empty)
    if opened.sqlite:
        await opened.write(ownership.register, clock.now(), opened.worker)
    yield opened


def empty(connection: Connection) -> None:
    """Deletes every row but the queue's own facts."""
    for table in reversed(Table.metadata.sorted_tables):
        if table.name != "meta":
            connection.execute(table.delete())


async def end_sessions(url: str) -> None:
    """Ends whoever is still in a PostgreSQL database: a test may have left its stores without a word."""
    connection = await asyncpg.connect(plain(url))
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()
