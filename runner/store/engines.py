"""Connections: how each engine is opened so that a commit means what it says.

SQLite: WAL, synchronous=FULL (NORMAL may lose the last commits on power loss: a lost intent is a double charge), an
explicit BEGIN IMMEDIATE (the driver's default transactions silently lose updates), one writer connection, and readers
that cannot write. The database file is never opened by hand: closing such a handle drops our locks and, beside a live
WAL, has lost a committed row. PostgreSQL needs none of this.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from runner.errors import InputError, LocalError

BUSY_SECONDS = 60.0
READERS = 4
WRITER_PRAGMAS = (
    "journal_mode=WAL", "synchronous=FULL", "fullfsync=1", "foreign_keys=ON", "secure_delete=ON", "temp_store=MEMORY",
    "cache_size=-16000",
)  # fmt: skip


def parse(db: str) -> URL:
    """`--db PATH_OR_URL` as a database URL. Raises InputError for what is neither a path nor PostgreSQL.

    The message never repeats the URL: it may hold a password.
    """
    if "://" not in db:
        return URL.create("sqlite+aiosqlite", database=str(Path(db).expanduser().absolute()))
    try:
        url = make_url(db)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise InputError("--db is neither a path nor a database URL", "use a file path or postgresql://…") from None
    match url.get_backend_name():
        case "postgresql":
            return url.set(drivername="postgresql+asyncpg")
        case "sqlite" if url.database:
            return URL.create("sqlite+aiosqlite", database=str(Path(url.database).absolute()))
        case name:
            raise InputError(f"--db: {name!r} is no engine of ours", "use a file path or postgresql://…")


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def database_path(url: URL) -> Path:
    """The queue file of an SQLite URL."""
    return Path(url.database or "")


def writer(url: URL) -> AsyncEngine:
    """The writing engine of a process on PostgreSQL."""
    return create_async_engine(url, pool_size=2, max_overflow=0, hide_parameters=True)


def sync_writer(url: URL, *, owner: bool = True, migrating: bool = False) -> Engine:
    """The one writing engine of a process on SQLite, for a thread of its own.

    `owner` says that this process holds the queue's lock: only the owner checkpoints the WAL, because two connections
    that write and checkpoint at once can lose committed data in the SQLite versions that Debian ships. `migrating`:
    links between rows are not enforced, because SQLite changes a table by making it anew.
    """
    engine = create_engine(
        url.set(drivername="sqlite"),
        poolclass=StaticPool,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        hide_parameters=True,
    )
    more = ["wal_autocheckpoint=0"] * (not owner) + ["foreign_keys=OFF"] * migrating
    _on_connect(engine, [*WRITER_PRAGMAS, *more])
    event.listen(engine, "begin", _begin_immediate)
    return engine


def reader(url: URL) -> AsyncEngine:
    """An engine that only reads, each time from one snapshot.

    On SQLite it is opened read-write with `query_only`: a `mode=ro` handle would leave the `-wal` and `-shm` files of a
    closed queue behind.
    """
    if not is_sqlite(url):
        engine = create_async_engine(url, pool_size=READERS, max_overflow=0, hide_parameters=True)
        return engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=READERS,
        max_overflow=0,
        connect_args={"timeout": BUSY_SECONDS},
        hide_parameters=True,
    )
    _on_connect(engine.sync_engine, ["query_only=ON", "cache_size=-8000", "wal_autocheckpoint=0"])
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


@asynccontextmanager
async def connected(opening: AbstractAsyncContextManager[AsyncConnection]) -> AsyncIterator[AsyncConnection]:
    """A connection, or LocalError if its server cannot be reached."""
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(opening)
        except OSError as error:
            raise LocalError(f"the database cannot be reached: {error}", "is its server running?") from None
        yield connection


def _on_connect(engine: Engine, pragmas: list[str]) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def create_private(path: Path) -> None:
    """Makes the queue file readable by its owner only, before SQLite first opens it (its WAL inherits the mode)."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
