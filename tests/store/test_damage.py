"""F94: a queue that is damaged, or has lost what was committed, is not worked on; what can be read of it is listed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from runner.errors import LocalError
from runner.store import commits, facts, open_store, read_store
from runner.store.backup import back_up
from runner.store.changes import jobs
from runner.store.engines import parse
from runner.store.salvage import salvage
from runner.store.schema import LOOKED_THROUGH, _damaged
from runner.verdicts.submission import idempotency_key
from store.kit import HandClock, Other, fill, order, rows, set_running

PAGE = 4096  # bytes
DIES = """
import asyncio, os, signal, sys
from runner.store import open_store
from store.kit import HandClock, fill, set_running

async def main(db):
    async with open_store(db, HandClock(), own=True) as store:
        await fill(store, 5)
        await set_running(store)
        print("done", flush=True)
        sys.stdin.readline()

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A queue whose owner was killed with everything it had committed still in the WAL. For copying only."""
    queue = tmp_path_factory.mktemp("killed") / "queue.db"
    with Other(DIES, queue) as other:
        assert other.hear() == "done"
        other.kill()
    assert Path(f"{queue}-wal").stat().st_size > 50_000
    return queue


def copied(killed: Path, to: Path) -> Path:
    for end in ("", "-wal", ".commits"):
        Path(f"{to}{end}").write_bytes(Path(f"{killed}{end}").read_bytes())
    return to


async def refused(queue: Path, words: str) -> LocalError:
    with pytest.raises(LocalError, match=words) as caught:
        async with open_store(str(queue), HandClock(), own=True):
            pass
    assert caught.value.exit_code == 7
    assert "Traceback" not in caught.value.message
    return caught.value


def delete(wal: Path) -> None:
    wal.unlink()


def cut(wal: Path) -> None:
    """Without its last frames: as if the machine had never written them."""
    os.truncate(wal, wal.stat().st_size - 3 * (PAGE + 24))


def scratch(wal: Path) -> None:
    """A bit turned in its middle: SQLite believes what stands before, and no more."""
    raw = bytearray(wal.read_bytes())
    raw[len(raw) // 2] ^= 1
    wal.write_bytes(raw)


@pytest.mark.parametrize("harm", [delete, cut, scratch])
async def test_F94_a_wal_that_was_deleted_or_cut_is_missed(
    killed: Path, queue: Path, harm: Callable[[Path], None]
) -> None:
    """SQLite itself takes the queue as it is, with the last orders forgotten."""
    copied(killed, queue)
    harm(Path(f"{queue}-wal"))
    left = Path(f"{queue}-wal").read_bytes() if harm is not delete else None
    for _ in range(2):  # refusing it once must not make it acceptable
        said = await refused(queue, "has lost its last commits")
        assert "queue.db-wal" in said.hint
    kept = [path.read_bytes() for path in queue.parent.glob("queue.db-wal.lost-*")]
    assert kept == ([left] if left is not None else []), "what SQLite cannot read may still be read by a person"
    commits.forget(queue)  # the person's word, as the hint says
    async with open_store(str(queue), HandClock(), own=True) as store:
        assert (await rows(store, jobs) == []) is (harm is delete)


async def test_F94_readers_do_not_take_what_has_lost_everything_for_a_new_queue(killed: Path, queue: Path) -> None:
    """All that was committed stood in the WAL: what is left of the queue is an empty file."""
    delete(Path(f"{copied(killed, queue)}-wal"))
    with pytest.raises(LocalError, match="has lost its last commits"):
        async with read_store(str(queue), HandClock()):
            pass


async def test_F94_a_whole_wal_is_taken_up_again(killed: Path, queue: Path) -> None:
    copied(killed, queue)
    for _ in range(2):
        async with open_store(str(queue), HandClock(), own=True) as store:
            assert len(await rows(store, jobs)) == 5
        assert {path.name for path in queue.parent.iterdir()} - {"queue.db.lock"} == {"queue.db"}


async def test_another_queue_in_its_place_is_not_judged_by_the_note(killed: Path, queue: Path) -> None:
    """Neither a new one, after the old one was deleted in despair, nor one that was made elsewhere."""
    copied(killed, queue)
    queue.unlink()
    Path(f"{queue}-wal").unlink()
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 1)
    made_at = HandClock()
    made_at.move(1)
    commits.note_of(queue).write_text(f"{10**6:>10} {made_at.now().isoformat()}\n")
    async with open_store(str(queue), HandClock(), own=True) as store:
        assert len(await rows(store, jobs)) == 1


@given(st.integers(0, commits.SPAN - 1), st.integers(0, 1 << 29))
def test_the_count_may_begin_anew(counted: int, more: int) -> None:
    noted = (counted + more) % commits.SPAN
    assert commits.lost(counted, noted) == more
    assert commits.lost(noted, counted) == 0


# Pages


async def make(queue: Path, many: int) -> None:
    """A closed queue of so many running jobs, larger than a few pages."""
    from store.kit import settings

    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, [order(n) for n in range(1, many + 1)], accounts=[settings(concurrency=many)])
        await set_running(store, many)


def page_of(queue: Path, table: str) -> int:
    """A page of rows in the midst of this table's."""
    root = f"SELECT rootpage FROM sqlite_master WHERE name = '{table}'"
    with closing(sqlite3.connect(queue)) as connection:
        [(number,)] = connection.execute(root).fetchall()
    raw = queue.read_bytes()
    inner = raw[(number - 1) * PAGE : number * PAGE]
    assert inner[0] == 5, "an inner page, whose cells lead to pages of rows"
    middle = int.from_bytes(inner[3:5]) // 2
    cell = int.from_bytes(inner[12 + 2 * middle : 14 + 2 * middle])
    return int.from_bytes(inner[cell : cell + 4])


def overwrite(queue: Path, page: int) -> None:
    with queue.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xff" * PAGE)


async def test_F94_B90_a_corrupt_page_ends_every_start_and_the_rest_is_salvaged(queue: Path) -> None:
    await make(queue, 60)
    whole = salvage(queue)
    assert whole.whole
    assert {one.task_id for one in whole.found} == {f"task-{n}" for n in range(1, 61)}
    assert {one.idempotency_key for one in whole.found} == {
        idempotency_key("night", order(n).key, 1) for n in range(1, 61)
    }
    assert {(one.account, one.job, one.state) for one in whole.found} == {("lane", "night/clip", "running")}
    overwrite(queue, page_of(queue, "attempts"))
    before = queue.read_bytes()
    said = await refused(queue, "damaged|malformed")
    assert "runner doctor --salvage" in said.hint
    found = salvage(queue)
    assert found.unread["attempts"] > 0
    assert {one.task_id for one in found.found} == {f"task-{n}" for n in range(1, 61)}, "the jobs tell them, too"
    assert 30 < sum(one.idempotency_key is not None for one in found.found) < 60
    overwrite(queue, page_of(queue, "jobs"))
    fewer = salvage(queue)
    assert fewer.unread.keys() == {"jobs", "attempts"}
    assert 30 < len(fewer.found) < 60
    assert len(before) == queue.stat().st_size <= LOOKED_THROUGH


@pytest.mark.parametrize("stranger", [b"", b"x", None])
def test_of_what_is_no_queue_nothing_is_salvaged(stranger: bytes | None, queue: Path) -> None:
    """Not "no orders", as if there had been none."""
    if stranger is None:
        with closing(sqlite3.connect(queue)) as connection:
            connection.execute("CREATE TABLE notes (text)")
    else:
        queue.write_bytes(stranger)
    with pytest.raises(
        LocalError, match=r"nothing of .* can be read: (it has no table of a queue|file is not a database)"
    ):
        salvage(queue)


async def test_salvaging_changes_nothing(killed: Path, queue: Path) -> None:
    """What its owner wrote last stands in the WAL alone, and may be worth more than the damaged file."""
    copied(killed, queue)
    before = {end: Path(f"{queue}{end}").read_bytes() for end in ("", "-wal", ".commits")}
    assert {one.task_id for one in salvage(queue).found} == {f"task-{n}" for n in range(1, 6)}
    assert {end: Path(f"{queue}{end}").read_bytes() for end in before} == before


async def test_F94_damage_that_is_met_while_reading_is_told_with_what_to_do(queue: Path) -> None:
    """Readers do not look a queue through before they read."""
    await make(queue, 60)
    overwrite(queue, page_of(queue, "jobs"))
    with pytest.raises(LocalError, match="cannot be read") as caught:
        async with read_store(str(queue), HandClock()) as store:
            await rows(store, jobs)
    assert "--salvage" in caught.value.hint


def test_F94_where_not_even_the_tables_can_be_named_nothing_is_made_up(queue: Path) -> None:
    queue.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    with pytest.raises(LocalError, match=r"nothing of"):
        salvage(queue)


async def test_F94_what_is_no_queue_has_no_lost_rows(queue: Path) -> None:
    """An empty file (a queue whose -wal is lost, perhaps), and a database of somebody else's."""
    queue.touch()
    for _ in range(2):
        with pytest.raises(LocalError, match="it has no table of a queue"):
            salvage(queue)
        with closing(sqlite3.connect(queue)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS letters (text)")


async def test_F94_a_queue_that_was_cut_is_salvaged_as_far_as_it_goes(queue: Path) -> None:
    """SQLite itself reads nothing of a file that is shorter than its header says."""
    await make(queue, 60)
    os.truncate(queue, (max(page_of(queue, "jobs"), page_of(queue, "attempts")) - 1) * PAGE)
    await refused(queue, "malformed")
    found = salvage(queue)
    assert not found.whole
    assert sum(found.unread.values()) < 10, "a stretch counts once, however many rows it may have held"
    assert 20 < len(found.found) <= 60


def garble(queue: Path) -> None:
    """Bytes that are no text, in the name of a table: SQLite repeats them in what it says."""
    raw = queue.read_bytes()
    place = raw.index(b"tableworkersworkers")
    queue.write_bytes(raw[: place + 5] + b"\xff\xfe" + raw[place + 7 :])


async def test_F94_a_schema_that_is_not_even_text_is_damage_and_the_rest_is_salvaged(queue: Path) -> None:
    await make(queue, 60)
    garble(queue)
    said = await refused(queue, "malformed database schema")
    assert "runner doctor --salvage" in said.hint
    with pytest.raises(LocalError, match="malformed database schema"):
        async with read_store(str(queue), HandClock()):
            pass
    assert len(salvage(queue).found) == 60
    with pytest.raises(LocalError, match="schema is damaged"):
        back_up(str(queue), queue.with_name("copy.db"), HandClock().now())


async def test_F94_a_text_that_is_none_is_damage_and_is_not_repeated(queue: Path) -> None:
    """Its place is told; what stands there may be a prompt."""
    await make(queue, 1)
    with closing(sqlite3.connect(queue)) as connection, connection:
        connection.execute("UPDATE batches SET name = CAST(x'736563726574ff' AS TEXT)")
    with pytest.raises(LocalError, match="Could not decode") as caught:
        async with read_store(str(queue), HandClock()) as store:
            await store.read(lambda reading: reading.exec_driver_sql("SELECT name FROM batches").all())
    assert "secret" not in caught.value.message
    assert "--salvage" in caught.value.hint


async def test_F94_a_queue_without_its_salt_is_damaged(queue: Path) -> None:
    await make(queue, 1)
    with closing(sqlite3.connect(queue)) as connection, connection:
        connection.execute("DELETE FROM meta")
    with pytest.raises(LocalError, match="has lost its own salt") as caught:
        async with read_store(str(queue), HandClock()) as store:
            await store.read(facts.salt)
    assert "--salvage" in caught.value.hint


async def test_a_queue_that_may_not_be_written_is_not_called_damaged(queue: Path) -> None:
    """SQLite opens a queue for reading only where it may write."""
    await make(queue, 1)
    reading = sqlite3.connect(f"file:{queue}?mode=ro", uri=True)
    with closing(reading), pytest.raises(sqlite3.OperationalError) as caught:
        reading.execute("DELETE FROM jobs")
    said = _damaged(parse(str(queue)), DBAPIError("", {}, caught.value))
    assert "readonly" in said.message
    assert "permissions" in said.hint


async def test_F94_an_index_that_lacks_a_job_is_damage(queue: Path) -> None:
    """What is under way is looked up in an index: a job that is missing there would never be asked for again."""
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 3)
        await set_running(store)
    with closing(sqlite3.connect(queue)) as connection:
        find = "SELECT sql FROM sqlite_schema WHERE name = 'jobs_moving'"
        [(rightly,)] = connection.execute(find).fetchall()
        connection.execute("DROP INDEX jobs_moving")
        connection.execute("CREATE INDEX jobs_moving ON jobs (account, state, due_at) WHERE state = 'nowhere'")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'jobs_moving'", (rightly,))
        connection.commit()
    with pytest.raises(LocalError, match="is damaged: row 1 missing from index jobs_moving"):
        async with open_store(str(queue), HandClock(), own=True):
            pass
