"""Connections: how each engine is opened so that a commit means what it says.

SQLite: WAL, synchronous=FULL (NORMAL may lose the last commits on power loss: a lost intent is a double charge), an
explicit BEGIN IMMEDIATE (the driver's default transactions silently lose updates), one writer connection, and readers
that cannot write. The database file is never opened by hand: closing such a handle drops our locks and, beside a live
WAL, has lost a committed row.

PostgreSQL needs none of this, but it is elsewhere: a connection whose other end is gone must be noticed on both sides.
Where its server is told to acknowledge commits that are not on its disk yet, our sessions ask it not to.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from runner.errors import InputError, Unreachable

BUSY_SECONDS = 60.0
READERS = 4
CONNECT_SECONDS = 10.0
# A server, or a way to it, that is silently gone is noticed after half a minute, however long its answers may take …
LIFELINE = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}
# … and so does the server notice a host that is gone, and a process that was stopped in the middle of a transaction: it
# must not hold its locks against all others for ever. (Not every version knows `transaction_timeout`.)
LIMITS = {
    "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4",
    "idle_in_transaction_session_timeout": "30s", "transaction_timeout": "60s",
}  # fmt: skip
DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
UNLIMITED = dict.fromkeys(("idle_in_transaction_session_timeout", "transaction_timeout"), "0")
CLASHES = frozenset({"40P01", "40001"})  # deadlock detected, serialization failure
AWAY = frozenset({
    "57P01", "57P02", "57P03", "57P05", "53300",  # going down, crashed, starting, idle too long, full
    "25P03", "25P04", "57014",  # a transaction that said nothing, or lasted, for too long; cancelled by a person
    "08000", "08001", "08003", "08004", "08006",  # the connection
})  # fmt: skip
DAMAGED = (
    "runner doctor tells more, and runner doctor --salvage lists the tasks and keys that can still be read. Nothing "
    "was changed: move the file away with its -wal, -shm and .commits, keep them, and put a backup in its place"
)
SHUT = (
    "mend the permissions of the file and of its folder: even reading a queue takes writing there. Or name another "
    "with --db. Nothing was changed"
)
NO_TEXT = "Could not decode"  # Python's words for a text that is none; it repeats what stands there
NOT_PRIMARY = "TargetServerAttributeNotMatched"  # asyncpg's word for a standby that nobody has promoted yet
WRITER_PRAGMAS = (
    "journal_mode=WAL", "synchronous=FULL", "fullfsync=1", "foreign_keys=ON", "secure_delete=ON", "temp_store=MEMORY",
    "cache_size=-16000",
)  # fmt: skip


def parse(db: str) -> URL:
    """`--db PATH_OR_URL` as a database URL. Raises InputError for what is neither a path nor PostgreSQL.

    The message never repeats the URL: it may hold a password.
    """
    if "://" not in db:
        return _in_file(os.path.expanduser(db))
    try:
        url = make_url(db)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise InputError("--db is neither a path nor a database URL", "use a file path or postgresql://…") from None
    match url.get_backend_name():
        case "postgresql":
            return url.set(drivername="postgresql+asyncpg")
        case "sqlite" if url.database:
            return _in_file(url.database)
        case name:
            raise InputError(f"--db: {name!r} is no engine of ours", "use a file path or postgresql://…")


def _in_file(path: str) -> URL:
    """By the file's own name, links resolved, as SQLite does it: the lock and all else that is ours must lie where its
    WAL lies, or two runners own one queue by two names."""
    return URL.create("sqlite+aiosqlite", database=os.path.realpath(path))


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def database_path(url: URL) -> Path:
    """The queue file of an SQLite URL."""
    return Path(url.database or "")


def writer(url: URL) -> AsyncEngine:
    """The writing engine of a process on PostgreSQL."""
    engine = _remote(url, 2, primary=True)
    event.listen(engine.sync_engine, "connect", _prepare_to_write)
    return engine


def _remote(url: URL, most: int, *, primary: bool) -> AsyncEngine:
    """An engine of up to `most` connections to PostgreSQL. `primary`: a standby will not do."""
    arguments: dict[str, Any] = {"timeout": CONNECT_SECONDS}
    if primary and "target_session_attrs" not in url.query:
        arguments["target_session_attrs"] = "read-write"
    engine = create_async_engine(url, pool_size=most, max_overflow=0, hide_parameters=True, connect_args=arguments)
    event.listen(engine.sync_engine, "connect", _hold_the_line)
    event.listen(engine.sync_engine, "close", _hang_up)
    return engine


def _prepare_to_write(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(DURABLE)
    cursor.execute(_set(LIMITS, of="session"))
    cursor.close()
    connection.commit()


def take_time(connection: Connection) -> None:
    """This transaction may last, and what it is made of come slowly."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_set(UNLIMITED, of="transaction"))


def _set(values: Mapping[str, str], *, of: str) -> str:
    """A statement that sets these, as far as the server knows them."""
    rows = ", ".join(f"('{name}', '{value}')" for name, value in values.items())
    known = f"pg_settings JOIN (VALUES {rows}) AS wanted(name, value) USING (name)"
    return f"SELECT set_config(name, value, {of == 'transaction'}) FROM {known}"  # noqa: S608  # words of ours alone


def _hold_the_line(connection: Any, _record: Any) -> None:
    line: socket.socket = connection.driver_connection._transport.get_extra_info("socket")
    if line.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for name, value in LIFELINE.items():
        if hasattr(socket, name):  # not every system has all of them
            level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
            line.setsockopt(level, getattr(socket, name), value)


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


def reader(url: URL, *, primary: bool = False) -> AsyncEngine:
    """An engine that only reads, each time from one snapshot. `primary`: of what was committed last.

    On SQLite it is opened read-write with `query_only`: a `mode=ro` handle would leave the `-wal` and `-shm` files of a
    closed queue behind.
    """
    if not is_sqlite(url):
        engine = _remote(url, READERS, primary=primary)
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


def _hang_up(connection: Any, _record: Any) -> None:
    """Without a farewell: whether the server takes notice is not waited for."""
    connection.driver_connection.terminate()


@asynccontextmanager
async def connected(opening: AbstractAsyncContextManager[AsyncConnection]) -> AsyncIterator[AsyncConnection]:
    """A connection, or Unreachable if its server cannot be reached."""
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(opening)
        except OSError as error:
            said = str(error) or "no answer in time"
            raise Unreachable(f"the database cannot be reached: {said}", "is its server running?") from None
        yield connection


def is_away(error: Exception) -> bool:
    """Whether the server or the way to it is gone, and what was asked of it is not to blame."""
    if isinstance(error, DBAPIError):
        standby = type(getattr(error.orig, "__cause__", None)).__name__ == NOT_PRIMARY
        return error.connection_invalidated or standby or sqlstate(error) in AWAY
    return isinstance(error, Unreachable)


def is_clash(error: Exception) -> bool:
    """Whether the server ended a transaction for another one's sake: made again, it goes through."""
    return isinstance(error, DBAPIError) and sqlstate(error) in CLASHES


def is_damaged(error: Exception) -> bool:
    """Whether an SQLite file is not as SQLite has written it."""
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    return str(error.orig).startswith(NO_TEXT) or (code is not None and code & 0xFF == sqlite3.SQLITE_CORRUPT)


def is_shut(error: BaseException | None) -> bool:
    """Whether SQLite was not let in: nothing is wrong with the file itself."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def sqlstate(error: DBAPIError) -> str | None:
    """PostgreSQL's own code for what went wrong."""
    return getattr(error.orig, "sqlstate", None)


def _on_connect(engine: Engine, pragmas: list[str]) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            for pragma in pragmas:
                cursor.execute(f"PRAGMA {pragma}")
        except UnicodeDecodeError:  # of a damaged schema SQLite repeats a name, and Python cannot even read the message
            raise _illegible() from None
        cursor.close()


def _illegible() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("malformed database schema")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def create_private(path: Path) -> None:
    """Makes the queue file readable by its owner only, before SQLite first opens it (its WAL inherits the mode)."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
