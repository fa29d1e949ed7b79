"""What can still be read of a damaged SQLite queue: whose tasks were paid for, and under which keys.

By SQLite, row by row: where a range of rows cannot be read, each half of it is tried. Nothing is guessed from raw bytes
and nothing is mended; a row that cannot be read is counted as such. A file that was cut, and a schema that is wrong in
places, are read as far as they go.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.errors import LocalError
from runner.store import engines

MOST_FAILURES = 20_000  # questions without an answer, per table: then the rest of it is given up
ROWS_A_PAGE = 400  # more than fit into one
BARE = (
    "if it was a queue and its -wal file is somewhere, put that back beside it; else put a backup in its place. If it "
    "is something else, name the queue with --db"
)
TABLES = {
    "batches": ("name",),
    "jobs": ("batch_id", "name", "account", "state", "task_id"),
    "attempts": ("job_id", "account", "task_id", "idempotency_key"),
}


@dataclass(frozen=True, slots=True)
class Salvaged:
    """One order as far as it could be read; None for what could not."""

    account: str | None
    task_id: str | None
    idempotency_key: str | None
    job_id: int | None
    job: str | None
    state: str | None


@dataclass(slots=True)
class Salvage:
    """`unread`: by table, how many rows or ranges of rows could not be read; it is whole if there are none."""

    found: list[Salvaged] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return not any(self.unread.values())


def salvage(queue: Path) -> Salvage:
    """Raises LocalError where there is no table of a queue that SQLite could read."""
    with closing(_opened(queue)) as connection:
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        try:
            found = [name for name in TABLES if _exists(connection, name)]
        except sqlite3.Error as error:
            hint = engines.SHUT if engines.is_shut(error) else "put a backup in its place, and keep the file"
            raise LocalError(f"nothing of {queue} can be read: {error}", hint) from None
        if not found:
            raise LocalError(f"nothing of {queue} can be read: {_why(connection)}", BARE)
        return _sorted(_Tables(connection))


def _opened(queue: Path) -> sqlite3.Connection:
    """Any other handle would, as the last one to be closed, put what a `-wal` holds into the damaged file and delete
    it: nothing is to be changed before a person has seen what there is."""
    mode = "ro" if Path(f"{queue}-wal").exists() else "rw"  # such a handle leaves an empty one where there is none
    try:
        connection = sqlite3.connect(f"{queue.absolute().as_uri()}?mode={mode}", uri=True, timeout=10)
    except sqlite3.Error as error:
        raise LocalError(f"{queue} cannot be opened: {error}", engines.SHUT) from None
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA writable_schema = ON")  # nothing is written: it makes SQLite put up with damage
    return connection


def _exists(connection: sqlite3.Connection, table: str) -> bool:
    """Whether SQLite knows this table; raises sqlite3.Error where it can read none."""
    try:
        connection.execute(f"SELECT 1 FROM {table} LIMIT 0").fetchall()  # noqa: S608  # words of ours alone
    except UnicodeDecodeError:  # what it says repeats a damaged name
        return False
    except sqlite3.Error as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return False
    return True


def _why(connection: sqlite3.Connection) -> str:
    """Why there is no table that we know."""
    try:
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("SELECT name FROM sqlite_master").fetchall()
    except (sqlite3.Error, UnicodeDecodeError):
        return "the list of its tables is damaged"
    return "it has no table of a queue"


class _Tables:
    """The rows of each table, by rowid, as far as they can be read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.unread = dict.fromkeys(TABLES, 0)
        self.rows = {name: {row[0]: row[1:] for row in self._read(name)} for name in TABLES}

    def _read(self, table: str) -> Iterator[Sequence[Any]]:
        if not _exists(self._connection, table):
            self.unread[table] = 1
            return
        ranges = [(0, self._last(table))]
        failures, last_lost = 0, -2
        while ranges and failures < MOST_FAILURES:
            low, high = ranges.pop()
            rows = self._between(table, low, high)
            if rows is not None:
                yield from rows
            elif low == high:
                failures += 1
                self.unread[table] += low != last_lost + 1  # what lies side by side is one stretch
                last_lost = low
            else:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]
        self.unread[table] += len(ranges)

    def _between(self, table: str, low: int, high: int) -> list[Sequence[Any]] | None:
        columns = ", ".join(TABLES[table])
        query = f"SELECT rowid, {columns} FROM {table} WHERE rowid BETWEEN ? AND ?"  # noqa: S608  # words of ours alone
        try:
            return self._connection.execute(query, (low, high)).fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            return None

    def _last(self, table: str) -> int:
        """The greatest rowid there may be: if it cannot be read, more than the file has room for."""
        try:
            [(last,)] = self._connection.execute(f"SELECT max(rowid) FROM {table}").fetchall()  # noqa: S608
            return int(last or 0)
        except (sqlite3.Error, UnicodeDecodeError):
            [(pages,)] = self._connection.execute("PRAGMA page_count").fetchall()
            return int(pages) * ROWS_A_PAGE


def _sorted(tables: _Tables) -> Salvage:
    """Every order, and every job with a task whose order is lost, by account."""
    jobs, batches = tables.rows["jobs"], tables.rows["batches"]
    found: dict[tuple[Any, ...], Salvaged] = {}
    for job_id, account, task_id, key in tables.rows["attempts"].values():
        if task_id or key:
            found[account, task_id, key] = _order(account, task_id, key, job_id, jobs, batches)
    known = {(one.account, one.task_id) for one in found.values()}
    for job_id, (_, _, account, _, task_id) in jobs.items():
        if task_id and (account, task_id) not in known:
            found[account, task_id, None] = _order(account, task_id, None, job_id, jobs, batches)
    told = sorted(found.values(), key=lambda one: (str(one.account), one.job_id or 0, str(one.task_id)))
    return Salvage(told, {name: lost for name, lost in tables.unread.items() if lost})


def _order(
    account: str | None, task_id: str | None, key: str | None, job_id: int | None, jobs: Any, batches: Any
) -> Salvaged:
    batch_id, name, _, state, _ = jobs.get(job_id, (None,) * 5)
    batch = batches.get(batch_id, ("?",))[0]
    return Salvaged(account, task_id, key, job_id, f"{batch}/{name}" if name else None, state)
