"""The schema of a queue: made whole for a new one, migrated (after a backup) for an older one, refused if newer.

New queues are made from the tables directly and stamped; Alembic is imported only when a queue is older than this
program. A test proves that both ways lead to the same schema, on both engines.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.clock import Clock
from runner.errors import LocalError, NoQueue
from runner.failpoints import reached
from runner.store import engines
from runner.store.facts import new_facts
from runner.store.tables import Table
from runner.store.transactions import Transactions

HEAD = "0001"
VERSION_TABLE = "alembic_version"
MIGRATIONS = Path(__file__).parent / "migrations"


async def ensure(writing: Transactions, url: URL, clock: Clock, *, create: bool) -> None:
    """Makes sure that the queue has today's schema. Raises LocalError for what is not ours, newer, or damaged."""
    try:
        found = await writing.run(_found_or_made, url, clock, create)
        if found != HEAD:
            await _migrate(writing, url, found)
    except DBAPIError as error:
        raise _damaged(url, error) from None


async def check(engine: AsyncEngine, url: URL) -> None:
    """For readers: raises LocalError unless the queue has exactly today's schema."""
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(_version, url)
    except DBAPIError as error:
        raise _damaged(url, error) from None
    if found is None:
        raise no_queue(url)
    if found != HEAD:
        raise LocalError(
            f"the queue has schema {found}, this program reads {HEAD}", "run `runner run` once to migrate it"
        )


def _version(connection: Connection, url: URL) -> str | None:
    """The schema's version, None for an empty database. Raises LocalError for a database that is not ours."""
    tables = set(inspect(connection).get_table_names())
    if VERSION_TABLE in tables and "jobs" in tables:
        return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one())
    if tables:
        raise _not_ours(url)
    return None


def _found_or_made(connection: Connection, url: URL, clock: Clock, create: bool) -> str:
    found = _version(connection, url)
    if found is None and create:
        _create(connection, clock)
        return HEAD
    if found is None:
        raise no_queue(url)
    return found


def _create(connection: Connection, clock: Clock) -> None:
    Table.metadata.create_all(connection)
    connection.execute(text(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES (:head)"), {"head": HEAD})
    new_facts(connection, clock.now(), clock.anchor)


async def _migrate(writing: Transactions, url: URL, found: str, scripts: Path = MIGRATIONS) -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(scripts))
    try:
        ScriptDirectory.from_config(config).get_revision(found)
    except CommandError:
        raise LocalError(f"the queue has schema {found}, which is newer than this program ({HEAD})",
                         "install the newer runner; this queue was left as it is") from None  # fmt: skip
    if engines.is_sqlite(url):
        await asyncio.to_thread(_backup, engines.database_path(url), found)
    await writing.run(_upgrade, config)


def _upgrade(connection: Connection, config: object) -> None:
    """All steps in one transaction: a crash leaves the old schema, whole."""
    from alembic import command
    from alembic.config import Config

    assert isinstance(config, Config)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    reached("before-migration-commit")


def _backup(queue: Path, found: str) -> None:
    """A copy beside the queue, by SQLite's backup interface: the file itself is never opened by hand."""
    copy = queue.with_name(f"{queue.name}.backup-{found}")
    source, target = sqlite3.connect(queue), sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()


def no_queue(url: URL) -> NoQueue:
    return NoQueue(f"there is no queue at {_name(url)}", "run a manifest first, or name the queue: --db")


def _not_ours(url: URL) -> LocalError:
    return LocalError(
        f"{_name(url)} is not a queue of runner", "name another place with --db; this one was left as it is"
    )


def _damaged(url: URL, error: DBAPIError) -> LocalError:
    return LocalError(
        f"{_name(url)} cannot be used: {error.orig}", "was it damaged, or is it something else? nothing was changed"
    )


def _name(url: URL) -> str:
    return str(engines.database_path(url)) if engines.is_sqlite(url) else f"the database {url.database!r}"
