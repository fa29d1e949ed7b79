"""The one writer. What is written within one turn of the event loop shares one commit, and no answer leaves before it.

Handlers are plain functions: between two awaits nobody else writes, so a transaction needs no lock. `settled` is what
every answer waits for. The file is held by one process (`locking_mode=EXCLUSIVE`) and survives SIGKILL; under
`synchronous=FULL` a power cut too.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

APPLICATION_ID = 0x72736278  # "rsbx": this file is a sandbox's
SCHEMA_VERSION = 3
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE accounts (
    provider TEXT NOT NULL, account TEXT NOT NULL,
    balance INTEGER NOT NULL CHECK (balance >= 0), paid_access INTEGER NOT NULL DEFAULT 1,
    revoked INTEGER NOT NULL DEFAULT 0, in_flight INTEGER NOT NULL DEFAULT 0 CHECK (in_flight >= 0),
    max_in_flight INTEGER NOT NULL DEFAULT 0, max_requests INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (provider, account)) STRICT, WITHOUT ROWID;
CREATE TABLE further_keys (
    provider TEXT NOT NULL, name TEXT NOT NULL, account TEXT NOT NULL,
    PRIMARY KEY (provider, name)) STRICT, WITHOUT ROWID;
CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, provider TEXT NOT NULL, account TEXT NOT NULL,
    endpoint TEXT NOT NULL, model TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('video', 'image')),
    prompt TEXT NOT NULL, body BLOB NOT NULL, idempotency_key TEXT, details TEXT NOT NULL,
    extension TEXT NOT NULL, outputs INTEGER NOT NULL CHECK (outputs >= 0),
    missing INTEGER NOT NULL CHECK (missing BETWEEN 0 AND outputs),
    price INTEGER NOT NULL CHECK (price >= 0), refund INTEGER NOT NULL CHECK (refund BETWEEN 0 AND price),
    outcome TEXT NOT NULL CHECK (outcome IN ('completed', 'failed', 'moderated', 'cancelled')),
    created_at REAL NOT NULL, visible_at REAL NOT NULL, finishes_at REAL NOT NULL, refund_at REAL NOT NULL,
    review_for REAL NOT NULL, odd_status TEXT, odd_until REAL NOT NULL DEFAULT 0, due_at REAL,
    ended INTEGER NOT NULL DEFAULT 0, charged INTEGER NOT NULL DEFAULT 1) STRICT;
CREATE INDEX tasks_due ON tasks (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_of ON tasks (provider, account, kind, created_at);
CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, provider TEXT NOT NULL, account TEXT NOT NULL,
    task_id TEXT NOT NULL REFERENCES tasks (id), kind TEXT NOT NULL CHECK (kind IN ('charged', 'refunded')),
    credits INTEGER NOT NULL CHECK (credits >= 0), reason TEXT NOT NULL, UNIQUE (task_id, kind)) STRICT;
CREATE TRIGGER ledger_keeps BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER ledger_stays BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TABLE kept_answers (
    provider TEXT NOT NULL, account TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, at REAL NOT NULL,
    status INTEGER NOT NULL, payload TEXT NOT NULL, PRIMARY KEY (provider, account, key)) STRICT, WITHOUT ROWID;
CREATE TABLE uploads (
    name TEXT PRIMARY KEY, provider TEXT NOT NULL, account TEXT NOT NULL, media_type TEXT NOT NULL,
    content BLOB NOT NULL, at REAL NOT NULL) STRICT;
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, monotonic REAL NOT NULL, provider TEXT NOT NULL, point TEXT NOT NULL,
    method TEXT NOT NULL, path TEXT NOT NULL, account TEXT, idempotency_key TEXT, body_sha256 TEXT, bytes INTEGER,
    status INTEGER, fault TEXT, fault_labels TEXT, task_id TEXT) STRICT;
CREATE INDEX requests_at ON requests (at);
CREATE TABLE remarks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, provider TEXT NOT NULL,
    name TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
CREATE TABLE assets (
    id INTEGER PRIMARY KEY AUTOINCREMENT, volc_id TEXT NOT NULL UNIQUE, provider TEXT NOT NULL,
    account TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('IMAGE', 'AUDIO', 'VIDEO')), url TEXT NOT NULL,
    name TEXT, created_at REAL NOT NULL, decided_at REAL NOT NULL, refusal TEXT) STRICT;
CREATE INDEX assets_of ON assets (provider, account, id);
CREATE TABLE callbacks (
    task_id TEXT PRIMARY KEY REFERENCES tasks (id), provider TEXT NOT NULL, account TEXT NOT NULL, url TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, next_at REAL, outcome TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX callbacks_open ON callbacks (next_at) WHERE next_at IS NOT NULL;
"""


class StateUnusable(Exception):
    """The state file cannot be opened or written; its text is for a person."""


def _make_private(path: str) -> None:
    """Readable by its owner alone, by the mode it is made with: there are prompts in it."""
    if path != ":memory:":
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


class Pen:
    """`path` of the state, or ":memory:". Raises StateUnusable where it is another's, newer, or held by someone."""

    def __init__(self, path: str, *, fast_disk: bool = False) -> None:
        self._open: asyncio.Future[None] | None = None
        self.failed = asyncio.Event()
        try:
            _make_private(path)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.2)
            self._prepare("OFF" if path == ":memory:" else "NORMAL" if fast_disk else "FULL")
        except (sqlite3.Error, OSError) as error:
            raise StateUnusable(f"the state {path} cannot be used: {error}") from None

    def _prepare(self, synchronous: str) -> None:
        self._db.row_factory = sqlite3.Row
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        version, owner = (
            self._db.execute(f"PRAGMA {each}").fetchone()[0] for each in ("user_version", "application_id")
        )
        if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._db.executescript(
                f"BEGIN EXCLUSIVE; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION};"
                f"{SCHEMA} COMMIT;"
            )
        elif owner == APPLICATION_ID and version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError("it is the state of another version of this sandbox")
        elif owner != APPLICATION_ID:
            raise sqlite3.DatabaseError("it is not the state of this sandbox")
        else:
            self._db.executescript("BEGIN EXCLUSIVE; COMMIT;")

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Sees what this turn has written already."""
        return self._db.execute(sql, values).fetchall()

    def write(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Raises StateUnusable where there is no room or no disk: from then on nothing is written or answered."""
        with self._writing():
            self._db.execute(sql, values)

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._writing():
            self._db.executemany(sql, rows)

    @contextmanager
    def unit(self) -> Iterator[None]:
        """All of it or nothing: what an exception leaves behind is taken back, and only that."""
        self.write("SAVEPOINT unit")
        try:
            yield
        except BaseException:
            if not self.failed.is_set():
                self.write("ROLLBACK TO unit")
                self.write("RELEASE unit")
            raise
        self.write("RELEASE unit")

    async def settled(self) -> None:
        """Returns when everything written so far is on disk. Raises StateUnusable where it could not be."""
        self._refuse_after_failure()
        if self._open is not None:
            await asyncio.shield(self._open)

    def close(self) -> None:
        if self._open is not None:
            self._commit()
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._refuse_after_failure()
        try:
            if self._open is None:
                loop = asyncio.get_running_loop()
                self._db.execute("BEGIN IMMEDIATE")
                self._open = loop.create_future()
                loop.call_soon(self._commit)
            yield
        except sqlite3.OperationalError as error:
            raise self._fail(error) from None

    def _commit(self) -> None:
        waiting, self._open = self._open, None
        if waiting is None:
            return
        try:
            self._refuse_after_failure()
            self._db.execute("COMMIT")
        except (sqlite3.Error, StateUnusable) as error:
            waiting.set_exception(self._fail(error))
            waiting.exception()  # whoever waits hears of it; there may be nobody
        else:
            waiting.set_result(None)

    def _fail(self, error: Exception) -> StateUnusable:
        self.failed.set()
        with suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")
        return StateUnusable(f"the state could not be written: {error}")

    def _refuse_after_failure(self) -> None:
        if self.failed.is_set():
            raise StateUnusable("the state could not be written")
