"""A copy of a queue, by SQLite's backup interface: of one moment, also while a runner writes.

The file itself is never opened by hand: that drops SQLite's locks on it, and beside a live WAL it has lost a committed
row.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runner.errors import InputError, LocalError
from runner.files import Folder, flush
from runner.store import engines
from runner.store.facts import COPIED_AT

BESIDE = ("", "-wal", "-shm", "-journal", ".lock", ".owner", ".ballast", ".commits")  # names that mean something
OF_ANOTHER = ("-wal", "-shm", "-journal", ".commits")  # what a copy must not find beside it: it would be read with it
DAMAGED = "see: runner doctor"


@dataclass(frozen=True, slots=True)
class Copy:
    """A finished backup. `size` in bytes."""

    path: Path
    size: int
    jobs: int


def back_up(db: str, target: Path, now: datetime) -> Copy:
    """Copies the queue at `db` to `target`, which must not exist, and checks the copy. It stands there whole or not at
    all, readable by its owner only, and knows that it is a copy.

    Raises InputError for a queue on PostgreSQL and for a target that cannot be one, LocalError where it cannot be
    written or the queue is damaged.
    """
    url = engines.parse(db)
    if not engines.is_sqlite(url):
        raise InputError(
            "a queue on PostgreSQL is backed up by PostgreSQL", "pg_dump -Fc -f FILE URL, or a base backup"
        )
    queue, path = engines.database_path(url), target.expanduser().absolute()
    _check_target(queue, path)
    try:
        folder = Folder.below(path.parent, ())
        try:
            return _published(folder, queue, path, now)
        finally:
            folder.close()
    except UnicodeDecodeError:  # SQLite's message repeats a damaged name
        raise LocalError("cannot back up the queue: its schema is damaged", DAMAGED) from None
    except sqlite3.Error as error:
        raise LocalError(f"cannot back up the queue: {error}", DAMAGED) from None
    except OSError as error:
        raise LocalError(f"cannot write the backup {path}: {error.strerror}") from None


def _check_target(queue: Path, path: Path) -> None:
    if path.resolve() in {Path(f"{queue}{end}").resolve() for end in BESIDE}:
        raise InputError(f"{path} is the queue itself, or a file that belongs to it", "name another place")
    if os.path.lexists(path):
        raise InputError(f"{path} exists already", "a backup never overwrites anything: name another file")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}", "make it, or name another place")
    if left := next((name for name in (f"{path}{end}" for end in OF_ANOTHER) if os.path.lexists(name)), None):
        message = f"{left} was left there by another queue, and SQLite would read it as a part of this one"
        raise InputError(message, "name another file, or move away what was left")


def _published(folder: Folder, queue: Path, path: Path, now: datetime) -> Copy:
    """By way of a part, so that a kill leaves no half backup under the name of a whole one."""
    part = f".{path.name}.{os.getpid()}.part"
    os.close(folder.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR))
    try:
        jobs = _copied(queue, folder.path / part, now)
        size = _flushed(folder, part)
        try:
            folder.publish(part, path.name)
        except FileExistsError:
            raise InputError(f"{path} has come to exist meanwhile", "it was left as it is: name another file") from None
        return Copy(path, size, jobs)
    finally:
        folder.remove(part)
        folder.sync()


def _copied(queue: Path, part: Path, now: datetime) -> int:
    """Copies all pages in one go, which no writer disturbs and which disturbs none; returns how many jobs the copy
    holds."""
    with (
        closing(sqlite3.connect(queue, timeout=engines.BUSY_SECONDS)) as source,
        closing(sqlite3.connect(part)) as copy,
    ):
        source.execute("PRAGMA query_only = ON")
        source.backup(copy)
        said = [str(row[0]) for row in copy.execute("PRAGMA integrity_check(1)")]
        if said != ["ok"]:
            raise LocalError(f"the queue is damaged, and so is its copy, which was removed: {said[0]}", DAMAGED)
        with copy:  # a copy of a copy is as old as the first one
            copy.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", (COPIED_AT, now.isoformat()))
        [(jobs,)] = copy.execute("SELECT count(*) FROM jobs").fetchall()
        return int(jobs)


def _flushed(folder: Folder, part: str) -> int:
    """The copy is nobody's queue yet, so its file may be opened by hand."""
    descriptor = folder.open(part, os.O_RDWR)
    try:
        flush(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
