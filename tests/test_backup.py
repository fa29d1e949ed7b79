"""`runner backup`: a copy of one moment, taken beside a writer; and what a run from it would send."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection
from store.kit import HandClock, fill, intents, order, rows, set_running

from runner.cli.app import Common
from runner.cli.backup import backup
from runner.errors import InputError, LocalError, NoQueue
from runner.store import open_store
from runner.store.backup import back_up
from runner.store.changes import jobs
from runner.store.facts import meta

PAIRS = 400
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


def add_pair(connection: Connection, n: int) -> None:
    """Two rows that belong together: no moment of the queue has only one of them."""
    connection.execute(meta.insert(), [{"name": f"{side} {n}", "value": "x" * 2000} for side in ("left", "right")])


def found(copy: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(copy)) as connection:
        return connection.execute(query).fetchall()


async def test_a_backup_beside_a_writer_is_of_one_moment(queue: Path) -> None:
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 3)

        async def write() -> None:
            for n in range(PAIRS):
                await store.write(add_pair, n)

        writing, copies = asyncio.create_task(write()), []
        while not writing.done():
            copies.append(await asyncio.to_thread(back_up, str(queue), queue.with_name(f"copy-{len(copies)}.db"), NOON))
        await writing
        assert len(await rows(store, meta)) == 2 * PAIRS + 3
    assert len(copies) > 1
    for made in copies:
        assert found(made.path, "PRAGMA integrity_check") == [("ok",)]
        [(left, right)] = found(made.path, "SELECT count(iif(name LIKE 'left %', 1, NULL)), "
                                "count(iif(name LIKE 'right %', 1, NULL)) FROM meta")  # fmt: skip
        assert left == right
        assert made.jobs == 3


async def test_a_run_from_a_backup_repeats_the_keys(queue: Path, tmp_path: Path) -> None:
    """Whatever was ordered after the backup is ordered under the same keys: a provider that honours them is not paid
    twice."""
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 5)
        copy = await asyncio.to_thread(back_up, str(queue), tmp_path / "copy.db", NOON)
        ordered = {one.job_id: (one.idempotency_key, one.body) for one in await intents(store)}
        await set_running(store)
    async with open_store(str(copy.path), HandClock(), own=True) as restored:
        assert {one.job_id: (one.idempotency_key, one.body) for one in await intents(restored)} == ordered
    assert len(ordered) == 5


async def test_it_is_private_and_alone(queue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "safe"
    folder.mkdir()
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 2)
        before = os.umask(0)
        try:
            assert await backup(folder / "copy.db", json=True, common=Common(db=str(queue))) == 0
        finally:
            os.umask(before)
    [copy] = folder.iterdir()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert json.loads(capsys.readouterr().out) == {"path": str(copy), "bytes": copy.stat().st_size, "jobs": 2}


async def test_nothing_is_overwritten(queue: Path, tmp_path: Path) -> None:
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 1)
    (tmp_path / "taken.db").write_text("mine")
    (tmp_path / "link.db").symlink_to(tmp_path / "nowhere")
    (tmp_path / "other").symlink_to(tmp_path)
    names = {
        "taken.db": "exists already", "link.db": "exists already", "queue.db": "is the queue itself",
        "other/queue.db": "is the queue itself", "queue.db-wal": "belongs to it", "queue.db.lock": "belongs to it",
        "no/such/copy.db": "there is no folder",
    }  # fmt: skip
    for name, words in names.items():
        with pytest.raises(InputError, match=words) as refused:
            await backup(tmp_path / name, common=Common(db=str(queue)))
        assert refused.value.exit_code == 2
    assert (tmp_path / "taken.db").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"taken.db", "link.db", "other", "queue.db", "queue.db.lock"}


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal", ".commits"])
async def test_what_an_earlier_copy_left_is_not_read_with_a_new_one(end: str, queue: Path, tmp_path: Path) -> None:
    """A run on a copy was killed, and only the file itself was cleared away: SQLite would mix what is left into the
    next copy of that name, after it was checked."""
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 1)
    (tmp_path / f"copy.db{end}").write_bytes(b"left")
    with pytest.raises(InputError, match=f"copy.db{end} was left"):
        await backup(tmp_path / "copy.db", common=Common(db=str(queue)))
    assert not (tmp_path / "copy.db").exists()


async def test_of_nothing_and_of_a_damaged_queue_there_is_none(queue: Path, tmp_path: Path) -> None:
    with pytest.raises(NoQueue):
        await backup(tmp_path / "copy.db", common=Common(db=str(queue)))
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, [order(n) for n in range(1, 60)])
        assert len(await rows(store, jobs)) == 59
    with queue.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\xff" * 4096)
    with pytest.raises(LocalError, match=r"damaged|malformed") as refused:
        await backup(tmp_path / "copy.db", common=Common(db=str(queue)))
    assert refused.value.exit_code == 7
    assert "runner doctor" in refused.value.hint
    assert not list(tmp_path.glob("*copy*"))


async def test_postgresql_is_backed_up_by_its_own_tools(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="PostgreSQL") as refused:
        await backup(tmp_path / "copy.db", common=Common(db="postgresql://u:secret@localhost/queue"))
    assert "pg_dump" in refused.value.hint
    assert "secret" not in refused.value.message + refused.value.hint
