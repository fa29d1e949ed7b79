"""The PostgreSQL that tests lean on: real, a database for each test, and gone afterwards however the process ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import postgres
import pytest
from postgres import fresh_database, private_cluster
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

STARTS_A_SERVER = """
import postgres
with postgres.private_cluster() as dsn:
    print(dsn, flush=True)
    input()
"""


async def test_the_database_is_a_postgresql_reached_as_runner_reaches_it(postgres_database: str) -> None:
    engine = create_async_engine(postgres_database)
    try:
        async with engine.connect() as connection:
            version = (await connection.execute(text("SELECT version()"))).scalar_one()
    finally:
        await engine.dispose()
    assert version.startswith("PostgreSQL ")


async def test_two_databases_are_separate(postgres_url: str, postgres_database: str) -> None:
    async with connected(postgres_database) as mine, fresh_database(postgres_url) as other:
        await mine.execute("CREATE TABLE only_here (n int)")
        async with connected(other) as theirs:
            assert await tables(mine) == ["only_here"]
            assert await tables(theirs) == []


async def test_a_database_goes_even_while_somebody_is_in_it(postgres_url: str) -> None:
    async with fresh_database(postgres_url) as url:
        lingering = await asyncpg.connect(plain(url))
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(plain(url))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await lingering.fetchval("SELECT 1")
    lingering.terminate()


def test_a_sync_test_may_ask_for_a_database(postgres_database: str) -> None:
    async def ask() -> int:
        async with connected(postgres_database) as connection:
            return await connection.fetchval("SELECT 6 * 7")

    assert asyncio.run(ask()) == 42


@pytest.mark.parametrize(("fsync", "setting"), [(False, "off"), (True, "on")])
async def test_a_private_server_is_as_durable_as_asked(fsync: bool, setting: str) -> None:
    with private_cluster(fsync=fsync) as dsn:
        async with connected(dsn) as connection:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                assert await connection.fetchval(f"SHOW {name}") == setting
    assert not folder_of(dsn).exists()


async def test_a_private_server_starts_where_others_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, programs in a folder closed to others are copied first; for an ordinary user nothing is in the way."""
    monkeypatch.setattr(postgres, "_reachable", lambda _install: False)
    with private_cluster() as dsn:
        async with connected(dsn) as connection:
            programs = Path(await connection.fetchval("SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
    assert programs.is_relative_to(folder_of(dsn)) == (os.geteuid() == 0)


async def test_a_private_server_ends_with_its_process_even_by_sigkill() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_SERVER],
        cwd=Path(postgres.__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        dsn = process.stdout.readline().strip()
        async with connected(dsn) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        process.send_signal(signal.SIGKILL)
    async with asyncio.timeout(30):
        while folder_of(dsn).exists():  # noqa: ASYNC110 (another process removes it, and tells nobody)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(plain(url))
    try:
        yield connection
    finally:
        await connection.close()


async def tables(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [row["tablename"] for row in rows]


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def folder_of(dsn: str) -> Path:
    folder = make_url(dsn).query["host"]
    assert isinstance(folder, str)
    return Path(folder)
