"""The schema of a queue: made whole for a new one, migrated (after a backup) for an older one, refused if newer.

New queues are made from the tables directly and stamped; Alembic is imported only when a queue is older than this
program. A test proves that both ways lead to the same schema, on both engines.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, column, func, insert, inspect, select, table, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.clock import Clock
from runner.errors import LocalError, NoQueue, NotOurs, Unusable
from runner.failpoints import reached
from runner.problems import listed, quoted
from runner.store import commits, engines
from runner.store.facts import new_facts
from runner.store.tables import Table
from runner.store.transactions import Transactions, migration

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0001"
LOOKED_THROUGH = 32 << 20  # bytes of a queue: less than a second. Damage in a larger one is met when it is read
ALIEN = (
    "if this was the queue, keep the file and put a backup in its place; if it is something else, name another place "
    "with --db. Nothing was changed"
)
HEADER = 8  # bytes of a stranger's file that are shown
MIGRATIONS = Path(__file__).parent / "migrations"
ADVISORY = 0x72756E6E6572  # "runner": the lock under which PostgreSQL's tables are made and changed

# Alembic's own table, as Alembic makes it.
VERSIONS = table("alembic_version", column("version_num"))
VERSIONS_DDL = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
    " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)


async def ensure(writing: Transactions, reading: AsyncEngine, url: URL, clock: Clock, *, own: bool) -> None:
    """Makes sure that the queue has today's schema; only an owner makes or migrates it.

    Raises NoQueue if there is none, and LocalError for what is not ours, newer, or damaged: it is looked at before
    anything of ours could write, and left as it is.
    """
    try:
        found = await _found(reading, url)
        if own and engines.is_sqlite(url):
            await _whole(reading, url)
        if not own:
            _must_be_todays(found, url)
        elif found is None:
            await reading.dispose()  # whoever looked at an empty file has yet to learn how it is kept
            await writing.run(_create_once, url, clock)
        elif found != HEAD:
            await _migrate(writing, url, found)
    except DBAPIError as error:
        raise _damaged(url, error) from None


async def must_be_ours(engine: AsyncEngine, url: URL) -> None:
    """Raises LocalError for what is no queue of a version known here, or cannot be read."""
    try:
        found = await _found(engine, url)
        if found not in (None, HEAD):
            _known(_scripts(), found)
    except DBAPIError as error:
        raise _damaged(url, error) from None


async def check(engine: AsyncEngine, url: URL) -> None:
    """For readers: raises LocalError unless the queue has exactly today's schema."""
    try:
        _must_be_todays(await _found(engine, url), url)
    except DBAPIError as error:
        raise _damaged(url, error) from None


async def _found(engine: AsyncEngine, url: URL) -> str | None:
    async with engines.connected(engine.connect()) as connection:
        return await connection.run_sync(_version_kept, url)


def _version_kept(connection: Connection, url: URL) -> str | None:
    """As `_version`; but an empty file of which was noted that it was a queue is no new one, for readers neither."""
    found = _version(connection, url)
    if engines.is_sqlite(url):
        look = commits.check if found is None else commits.keep
        look(connection, engines.database_path(url))
    return found


async def _whole(engine: AsyncEngine, url: URL) -> None:
    """Raises LocalError for a queue that is damaged or has lost what was committed: nothing is paid for on its word."""
    async with engines.connected(engine.connect()) as connection:
        await connection.run_sync(commits.check, engines.database_path(url))
        if engines.database_path(url).stat().st_size <= LOOKED_THROUGH:
            await connection.run_sync(_look_through, url)


def _look_through(connection: Connection, url: URL) -> None:
    said = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one())
    if said != "ok":
        raise LocalError(f"{_name(url)} is damaged: {said}", engines.DAMAGED)


def _must_be_todays(found: str | None, url: URL) -> None:
    if found is None:
        raise no_queue(url)
    if found != HEAD:
        _known(_scripts(), found)
        raise LocalError(
            f"the queue has schema {found}, this program reads {HEAD}", "run `runner run` once to migrate it"
        )


def _version(connection: Connection, url: URL) -> str | None:
    """The schema's version, None for an empty database. Raises LocalError for a database that is not ours."""
    tables = set(inspect(connection).get_table_names())
    if {VERSIONS.name, "jobs", "meta"} <= tables:
        version = connection.execute(select(VERSIONS.c.version_num)).scalars().all()
        if len(version) == 1:
            return str(version[0])
    if tables:
        raise _not_ours(url, tables)
    return None


def _create_once(connection: Connection, url: URL, clock: Clock) -> None:
    """Makes the tables, unless somebody else has in the meantime."""
    _one_at_a_time(connection)
    if _version(connection, url) is None:
        Table.metadata.create_all(connection)
        connection.execute(text(VERSIONS_DDL))
        connection.execute(insert(VERSIONS).values(version_num=HEAD))
        new_facts(connection, clock.now(), clock.anchor)


def _one_at_a_time(connection: Connection) -> None:
    """On PostgreSQL several workers may start at once; on SQLite the owner is alone."""
    engines.take_time(connection)
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(ADVISORY)))


async def _migrate(writing: Transactions, url: URL, found: str) -> None:
    config = _scripts()
    _known(config, found)
    if engines.is_sqlite(url):
        await asyncio.to_thread(_backup, engines.database_path(url), found)
    async with migration(url, writing) as steps:
        await steps.run(_upgrade, config)


def _scripts() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _known(config: Config, found: str) -> None:
    """Raises LocalError for a schema that this program has never heard of: it is from a newer one."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        ScriptDirectory.from_config(config).get_revision(found)
    except CommandError:
        raise Unusable(f"the queue has schema {found}, which is newer than this program ({HEAD})",
                       "install the newer runner; this queue was left as it is") from None  # fmt: skip


def _upgrade(connection: Connection, config: Config) -> None:
    """All steps in one transaction: a crash leaves the old schema, whole."""
    from alembic import command

    _one_at_a_time(connection)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        assert not broken, "a migration must not cut links between rows"
    reached("before-migration-commit")


def _backup(queue: Path, found: str) -> None:
    """A copy beside the queue, by SQLite's backup interface: the file itself is never opened by hand."""
    copy = queue.with_name(f"{queue.name}.backup-{found}")
    try:
        engines.create_private(copy)
        with closing(sqlite3.connect(queue)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except (sqlite3.Error, OSError) as error:
        raise LocalError(f"cannot back up the queue to {copy}: {error}", "nothing was changed") from None


def no_queue(url: URL) -> NoQueue:
    return NoQueue(f"there is no queue at {_name(url)}", "run a manifest first, or name the queue: --db")


def _not_ours(url: URL, tables: Iterable[str]) -> NotOurs:
    message = f"{_name(url)} is not a queue of runner; it holds other tables: {listed(sorted(tables), 5)}"
    return NotOurs(message, "name another place with --db; this one was left as it is")


def _damaged(url: URL, error: DBAPIError) -> LocalError:
    message = f"{_name(url)} cannot be used: {error.orig}{_header(url, error)}"
    if not engines.is_sqlite(url):
        return LocalError(message, "check the URL given with --db or RUNNER_DB; nothing was changed")
    if engines.is_damaged(error):
        return Unusable(message, engines.DAMAGED)
    if _code(error) == sqlite3.SQLITE_NOTADB:
        return NotOurs(message, ALIEN)
    return LocalError(message, engines.SHUT if engines.is_shut(error.orig) else "nothing was changed")


def _code(error: DBAPIError) -> int:
    """SQLite's own code for what went wrong, 0 where it gave none."""
    return getattr(error.orig, "sqlite_errorcode", 0)


def _header(url: URL, error: DBAPIError) -> str:
    """What a file begins with that SQLite does not take for a database: then no lock hangs on its handle, and it may be
    looked at by hand. Too little of it to give a secret away."""
    if _code(error) != sqlite3.SQLITE_NOTADB:
        return ""
    with suppress(OSError), engines.database_path(url).open("rb") as file:
        return f"; it begins with {quoted(file.read(HEADER).decode(errors='backslashreplace'))}"
    return ""


def _name(url: URL) -> str:
    return str(engines.database_path(url)) if engines.is_sqlite(url) else f"the database {url.database!r}"
