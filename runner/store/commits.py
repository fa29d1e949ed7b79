"""How many commits an SQLite queue has seen: counted in the queue itself, and noted beside it.

Everything that was committed lately stands in the `-wal` file alone. If somebody deletes it after a crash, or it is cut
short, SQLite goes on with what was before, and says nothing: intents to pay would be forgotten, and paid again. So the
owner counts its commits in the queue (`user_version`, which SQLite leaves to us) and after each one notes the number in
`<queue>.commits`. A queue that counts fewer than the note says has lost some, and is not worked on.

The note is not flushed: a kill does not lose it, and after a loss of power it can only be too low, never too high.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from runner.errors import LocalError
from runner.store.facts import meta

SPAN = 1 << 31  # `user_version` has 32 bits with a sign: after so many it begins anew
LONGEST = 200  # bytes of a note


class Noted(NamedTuple):
    """`queue` tells this queue from others that lay in the same place: the moment of its making."""

    commits: int
    queue: str


def note_of(queue: Path) -> Path:
    return queue.with_name(queue.name + ".commits")


def check(connection: Connection, queue: Path) -> None:
    """Raises LocalError where the queue has lost commits of its last owner."""
    missed = _missed(connection, queue)
    if missed is None:
        return
    noted, counted = missed
    message = f"{queue} has lost its last commits: {noted} were made, and it knows of {counted}"
    raise LocalError(
        f"{message}. Its -wal file was deleted, cut or damaged, or this is an older copy of it",
        f"put {queue.name}-wal back. {_kept(queue, noted)}Without it, what was ordered last may be ordered and "
        f"paid again: look for it at the providers. To go on all the same, delete {note_of(queue).name} beside it",
    )


def keep(connection: Connection, queue: Path) -> None:
    """To be asked by whoever opens the queue, before letting go of it: what there is of a `-wal` that has lost commits
    is kept."""
    if missed := _missed(connection, queue):
        _kept(queue, missed[0])


def _missed(connection: Connection, queue: Path) -> tuple[int, int] | None:
    """How many commits were noted and how many the queue knows of, where those are fewer."""
    noted = _read(note_of(queue))
    if noted is None:
        return None
    counted, made = _counted(connection), _made_at(connection)
    if lost(counted, noted.commits):  # it may be that this connection began to read before that commit
        connection.rollback()
        counted, made = _counted(connection), _made_at(connection)
    if made not in (None, noted.queue) or not lost(counted, noted.commits):
        return None
    return noted.commits, counted


def _kept(queue: Path, commits: int) -> str:
    """SQLite deletes what is left of the `-wal` as the last one lets go of the queue; under a second name it stays,
    with the task ids behind the damage, which SQLite does not read any more. Nothing is opened for that."""
    wal, kept = Path(f"{queue}-wal"), Path(f"{queue}-wal.lost-{commits}")
    with suppress(OSError):
        if not kept.exists() and wal.stat().st_size:
            os.link(wal, kept)
    return f"What was left of it is kept as {kept.name}. " if kept.exists() else ""


def lost(counted: int, noted: int) -> int:
    """How many of the commits noted the queue does not know of any more."""
    behind = (noted - counted) % SPAN
    return behind if behind < SPAN // 2 else 0


def forget(queue: Path) -> None:
    """There is no queue (any more) of which the note could tell."""
    note_of(queue).unlink(missing_ok=True)


class Counter:
    """Counts the commits of one owner."""

    def __init__(self, queue: Path) -> None:
        self._queue = queue
        self._made_at: str | None = None
        self._commits: int | None = None
        self._descriptor: int | None = None

    def begin(self, connection: Connection) -> int:
        """To be given to `count` at the end of the transaction."""
        return int(_driver(connection).total_changes)

    def count(self, connection: Connection, before: int) -> int | None:
        """Counts the transaction that is about to be committed; None for one that has written nothing."""
        if self.begin(connection) == before:
            return None
        if self._made_at is None:
            self._commits, self._made_at = _counted(connection), _made_at(connection)
        commits = ((self._commits or 0) + 1) % SPAN
        connection.exec_driver_sql(f"PRAGMA user_version = {commits}")
        return commits

    def note(self, commits: int) -> None:
        """It was committed. A note that cannot be written is only missed if the queue is damaged, too."""
        self._commits = commits
        with suppress(OSError):
            if self._descriptor is None:
                self._descriptor = os.open(note_of(self._queue), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, f"{commits:>10} {self._made_at}\n".encode())

    def close(self) -> None:
        """After the last connection: what was committed has gone from the WAL into the queue, if nobody reads it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            if not Path(f"{self._queue}-wal").exists():
                forget(self._queue)


def _read(path: Path) -> Noted | None:
    try:
        with path.open("rb") as file:
            commits, made_at = file.read(LONGEST).decode().split()
        return Noted(int(commits), made_at)
    except (OSError, ValueError):
        return None


def _counted(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _made_at(connection: Connection) -> str | None:
    """None in a file that is no queue yet."""
    try:
        return connection.execute(select(meta.c.value).where(meta.c.name == "created_at")).scalar()
    except DBAPIError:
        return None


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection
