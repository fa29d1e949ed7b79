"""SQLite's traps, each of which has lost somebody's data: every one stays sprung here."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select, text

from runner.errors import DiskFull, InputError, InternalError, LocalError, NoQueue, OwnedError
from runner.jobs import Event, State
from runner.store import Store, engines, open_store, place, read_store
from runner.store.changes import jobs, outputs
from runner.store.facts import meta
from store.kit import (
    HandClock,
    Other,
    ask_file,
    fill,
    intents,
    mark_brink,
    outcome,
    published,
    rows,
    run_python,
    set_downloading,
    set_running,
    settings,
    step,
    take,
    take_submissions,
    work_of,
)


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """Where a queue may be made, in a folder of its own."""
    return tmp_path / "queue.db"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def databases(folder: Path) -> set[str]:
    """The files that SQLite would write to; ours beside them hold no row."""
    return {name for name in files(folder) if not name.endswith((".lock", ".owner", ".ballast"))}


async def make(queue: Path, many: int = 3) -> None:
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, many)


# Transactions that mean what they say

COUNTS = """
import asyncio, sys
from sqlalchemy import select, update
from runner.store import open_store
from runner.store.facts import meta
from store.kit import HandClock

def increment(connection):
    value = connection.execute(select(meta.c.value).where(meta.c.name == "counter")).scalar_one()
    connection.execute(update(meta).where(meta.c.name == "counter").values(value=str(int(value) + 1)))

async def main(db):
    async with open_store(db, HandClock()) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(160):
            await store.write(increment)
        print("done", flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_three_processes_lose_no_update(queue: Path) -> None:
    """The driver's own transactions read first and lock later: 480 increments have ended at 53."""
    async with open_store(str(queue), HandClock(), own=True) as store:
        await store.write(lambda c: c.execute(meta.insert().values(name="counter", value="0")) and None)
        with ExitStack() as stack:
            others = [stack.enter_context(Other(COUNTS, queue)) for _ in range(3)]
            assert [other.hear() for other in others] == ["ready"] * 3
            for other in others:
                other.tell()
            assert [await asyncio.to_thread(other.hear) for other in others] == ["done"] * 3
        [row] = await rows(store, meta, meta.c.name == "counter")
        assert row.value == "480"


def pragmas(connection: Connection) -> dict[str, Any]:
    names = ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "query_only", "wal_autocheckpoint")
    return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}


async def test_a_commit_is_on_disk_when_it_returns(queue: Path) -> None:
    """WAL and synchronous=FULL on whoever writes; NORMAL may lose the last commits, and with them an intent to pay."""
    async with open_store(str(queue), HandClock(), own=True) as owner, open_store(str(queue), HandClock()) as decider:
        for store, checkpoints in ((owner, 1000), (decider, 0)):
            found = await store.write(pragmas)
            assert found == {
                "journal_mode": "wal",
                "synchronous": 2,
                "foreign_keys": 1,
                "secure_delete": 1,
                "query_only": 0,
                "wal_autocheckpoint": checkpoints,
            }


async def test_readers_cannot_write_and_do_not_checkpoint(queue: Path) -> None:
    async with open_store(str(queue), HandClock(), own=True) as owner, read_store(str(queue), HandClock()) as reader:
        for store in (owner, reader):
            found = await store.read(pragmas)
            assert (found["query_only"], found["wal_autocheckpoint"], found["journal_mode"]) == (1, 0, "wal")


async def test_rows_hold_what_their_columns_say(queue: Path) -> None:
    """STRICT: an ordinary SQLite table takes 'not an int' into an INTEGER column without complaint."""
    await make(queue)
    async with open_store(str(queue), HandClock(), own=True) as store:
        with pytest.raises(InternalError, match="cannot store TEXT"):
            await store.write(lambda c: c.execute(text("UPDATE jobs SET attempts = 'many'")) and None)
        tables = await store.read(lambda c: c.exec_driver_sql("PRAGMA table_list").mappings().all())
        ours = [row for row in tables if row["schema"] == "main" and not row["name"].startswith("sqlite_")]
        assert [row["name"] for row in ours if not row["strict"]] == ["alembic_version"]


# Who checkpoints


async def test_only_the_owner_checkpoints(queue: Path) -> None:
    """Two connections that write and checkpoint at once can lose committed data (SQLite before 3.51.3)."""
    async with open_store(str(queue), HandClock(), own=True) as owner:
        await owner.write(checkpoint)
        before = (queue.stat().st_size, queue.stat().st_mtime_ns)
        async with open_store(str(queue), HandClock()) as decider:
            for n in range(60):
                await decider.write(note, f"big {n}", "x" * 100_000)
        assert (queue.stat().st_size, queue.stat().st_mtime_ns) == before
        assert Path(f"{queue}-wal").stat().st_size > 5_000_000
        await owner.write(note, "small", "x")
        assert queue.stat().st_size > 5_000_000


def checkpoint(connection: Connection) -> None:
    """Everything into the main file; outside a transaction, as SQLite wants it."""
    connection.exec_driver_sql("COMMIT")
    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def note(connection: Connection, name: str, value: str) -> None:
    connection.execute(meta.insert().values(name=name, value=value))


async def test_a_reader_leaves_nothing_behind(queue: Path) -> None:
    """`mode=ro` on a closed queue would leave its -wal and -shm there."""
    await make(queue)
    before = files(queue.parent)
    assert not any(name.endswith(("-wal", "-shm")) for name in before)
    async with read_store(str(queue), HandClock()) as reader:
        assert len(await rows(reader, jobs)) == 3
    assert files(queue.parent) == before


async def test_a_closed_queue_is_one_file(queue: Path) -> None:
    await make(queue)
    async with open_store(str(queue), HandClock()) as decider:
        await decider.write(note, "decided", "yes")
    assert databases(queue.parent) == {"queue.db"}


# The file is never opened by hand

WATCHED = """
import asyncio, os, sys
from pathlib import Path
from runner.cli.checkup.queue import look
from runner.errors import OwnedError
from runner.store import open_store, read_store
from runner.store.backup import back_up
from runner.store.salvage import salvage
from store.kit import HandClock, fill, set_downloading, set_running

seen = []
watching = False
database = {sys.argv[1] + end for end in ("", "-wal", "-shm", "-journal")}

def hook(event, args):
    if watching and event == "open" and str(args[0]) in database:
        seen.append(str(args[0]))

async def main(db):
    global watching
    sys.addaudithook(hook)
    async with open_store(db, HandClock(), own=True) as store:
        watching = True
        await fill(store, 3)
        for job in await set_running(store):
            await set_downloading(store, job)
        async with open_store(db, HandClock()) as decider, read_store(db, HandClock()) as reader:
            await decider.write(lambda connection: None)
            await reader.read(lambda connection: None)
        await asyncio.to_thread(back_up, db, Path(db + ".copy"), HandClock().now())
        assert (await look(db, HandClock()))[0].sound
        salvage(Path(db))
        try:
            async with open_store(db, HandClock(), own=True):
                pass
        except OwnedError:
            print("owned")
    print(len(seen))
    open(db, "rb").close()
    print(len(seen))

asyncio.run(main(sys.argv[1]))
"""


def test_nobody_opens_the_file_by_hand(queue: Path) -> None:
    """`open(db).close()` beside a live WAL drops SQLite's locks, and has lost a committed row. (The last open of the
    script is by hand, to show that the watch would have seen one.)"""
    ended = run_python(WATCHED, queue)
    assert ended.err == ""
    assert ended.out.split() == ["owned", "0", "1"]


# One owner


async def test_a_second_owner_is_refused_and_told_who_owns_it(queue: Path) -> None:
    script = """
import asyncio, sys
from runner.errors import OwnedError
from runner.store import open_store
from store.kit import HandClock

async def main(db):
    try:
        async with open_store(db, HandClock(), own=True):
            print("owner")
    except OwnedError as error:
        print(error.exit_code, error.message)

asyncio.run(main(sys.argv[1]))
"""
    async with open_store(str(queue), HandClock(), own=True):
        ended = await asyncio.to_thread(run_python, script, queue)
        assert ended.out.startswith("8 ")
        assert f"process {os.getpid()} " in ended.out
        with pytest.raises(OwnedError):
            async with open_store(str(queue), HandClock(), own=True):
                pass
    assert (await asyncio.to_thread(run_python, script, queue)).out == "owner\n"


OWNS = """
import asyncio, sys
from runner.errors import OwnedError
from runner.store import open_store
from store.kit import HandClock

async def main(db):
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        async with open_store(db, HandClock(), own=True):
            print("owner", flush=True)
            sys.stdin.readline()
    except OwnedError:
        print("refused", flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_of_many_that_start_at_once_exactly_one_runs(queue: Path) -> None:
    with ExitStack() as stack:
        others = [stack.enter_context(Other(OWNS, queue)) for _ in range(5)]
        assert {other.hear() for other in others} == {"ready"}
        for other in others:
            other.tell()
        assert sorted(other.hear() for other in others) == ["owner", *["refused"] * 4]


async def test_the_lock_dies_with_its_process(queue: Path) -> None:
    with Other(OWNS, queue) as other:
        other.hear()
        other.tell()
        assert other.hear() == "owner"
        other.kill()
    async with open_store(str(queue), HandClock(), own=True) as store:
        assert await rows(store, jobs) == []


async def test_the_lock_is_given_back_when_opening_fails(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(_: Path) -> None:
        raise LocalError("there is no room left")

    monkeypatch.setattr("runner.store.place.keep_ballast", no_room)
    for _ in range(2):
        with pytest.raises(LocalError, match="no room left"):
            async with open_store(str(queue), HandClock(), own=True):
                pass
    assert files(queue.parent) == {"queue.db", "queue.db.lock"}


# Private files


@contextmanager
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


async def test_T7_every_file_is_its_owners_only(tmp_path: Path) -> None:
    """By the mode they are made with, whatever the umask: nothing is readable even for a moment."""
    queue = tmp_path / "deep" / "er" / "queue.db"
    with open_umask():
        async with open_store(str(queue), HandClock(), own=True) as store:
            await fill(store, 1)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in queue.parent.iterdir()}
    assert set(modes) >= {"queue.db", "queue.db-wal", "queue.db-shm", "queue.db.lock", "queue.db.owner"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(queue.parent.stat().st_mode) == 0o700


async def test_T6_a_published_files_signed_url_is_gone_from_the_disk(queue: Path) -> None:
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 40, accounts=[settings(concurrency=40)])
        for job in await set_running(store):
            await set_downloading(store, job, f"https://cdn.example/{job}?signature=CANARY-{job}-{'x' * 500}")
        for claimed in (await take(store, downloads=40)).downloads:
            work = await work_of(store, claimed.job_id)
            at, fetched = store.clock.now(), (published(),)
            await store.record(step(Event.COMPLETED, work, State.SUCCEEDED, claimed.lease, at, outputs=fetched))
        assert {row.url for row in await rows(store, outputs)} == {None}
    assert b"CANARY" not in queue.read_bytes()
    assert databases(queue.parent) == {"queue.db"}


# Strangers


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def prose(path: Path) -> None:
    path.write_text("version: 1\nbatch: night\n" * 100)


def foreign(path: Path, mode: str = "delete", *tables: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        for table in tables or ("photos",):
            connection.execute(f"CREATE TABLE {table} (version_num TEXT)")
            connection.execute(f"INSERT INTO {table} VALUES ('abc')")
        connection.commit()


def foreign_in_wal_mode(path: Path) -> None:
    foreign(path, "wal")


def foreign_with_migrations(path: Path) -> None:
    foreign(path, "delete", "jobs", "alembic_version")


def newer(path: Path) -> None:
    foreign(path, "wal", "jobs", "meta", "alembic_version")


def unversioned(path: Path) -> None:
    foreign(path, "wal", "jobs", "meta", "alembic_version")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.commit()


WAYS = {"own": partial(open_store, own=True), "decide": open_store, "read": read_store}
STRANGERS = [garbage, prose, foreign, foreign_in_wal_mode, foreign_with_migrations, newer, unversioned]


@pytest.mark.parametrize("make_it", STRANGERS, ids=lambda made: made.__name__)
@pytest.mark.parametrize("way", ["own", "decide", "read"])
async def test_B89_B90_what_is_not_ours_is_refused_and_left_as_it_is(
    queue: Path, make_it: Callable[[Path], None], way: str
) -> None:
    make_it(queue)
    before = queue.read_bytes()
    with pytest.raises(LocalError) as refused:
        async with WAYS[way](str(queue), HandClock()):
            pass
    assert refused.value.exit_code == 7
    assert queue.name in refused.value.message or "schema abc" in refused.value.message
    assert queue.read_bytes() == before
    assert files(queue.parent) == {"queue.db"}, "nothing of ours is left beside it, not even a lock"


async def test_B90_a_damaged_queue_is_refused(queue: Path) -> None:
    await make(queue)
    body = bytearray(queue.read_bytes())
    body[100:3000] = os.urandom(2900)
    queue.write_bytes(bytes(body))
    with pytest.raises(LocalError, match="cannot be used"):
        async with open_store(str(queue), HandClock(), own=True):
            pass
    assert queue.read_bytes() == bytes(body)


@pytest.mark.parametrize("way", ["decide", "read"])
async def test_where_there_is_no_queue_none_is_made(tmp_path: Path, way: str) -> None:
    absent, empty = tmp_path / "absent.db", tmp_path / "empty.db"
    empty.touch()
    for path in (absent, empty):
        with pytest.raises(NoQueue):
            async with WAYS[way](str(path), HandClock()):
                pass
    assert files(tmp_path) == {"empty.db"}
    assert empty.stat().st_size == 0


async def test_an_empty_file_is_as_good_as_none(queue: Path) -> None:
    queue.touch()
    await make(queue)
    async with read_store(str(queue), HandClock()) as store:
        assert len(await rows(store, jobs)) == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["folder", "pipe"])
async def test_what_is_no_file_is_no_queue(queue: Path, what: str, way: str) -> None:
    queue.mkdir() if what == "folder" else os.mkfifo(queue)
    with pytest.raises(LocalError, match="not a regular file"):
        async with WAYS[way](str(queue), HandClock()):
            pass


async def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="cannot"):
        async with open_store(str(tmp_path / "file" / "queue.db"), HandClock(), own=True):
            pass


async def test_a_queue_has_one_owner_by_whatever_name(queue: Path, tmp_path: Path) -> None:
    """SQLite follows a link to the file. If our lock lay beside the link, a second runner would take the first one for
    dead, and its submissions for its own."""
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(queue)
    async with open_store(str(link), HandClock(), own=True):
        assert stat.S_IMODE(queue.stat().st_mode) == 0o600
        for name in (queue, link):
            with pytest.raises(OwnedError):
                async with open_store(str(name), HandClock(), own=True):
                    pass
    assert files(link.parent) == {"link.db"}


async def test_a_network_file_system_is_refused(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "file_system", lambda _: "nfs4")
    with pytest.raises(LocalError, match="nfs4"):
        async with open_store(str(queue), HandClock(), own=True):
            pass
    assert files(queue.parent) == set()


def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount() -> None:
    assert place.file_system(Path("/proc/self")) == "proc"
    assert place.file_system(Path("/no/such/folder/yet")) == place.file_system(Path("/"))


MOUNTED = (
    b"29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
    b"31 29 0:40 / /\xff\r\x0b\xfe rw - tmpfs tmpfs rw\n"
    b"32 29 0:41 / /no/donn\xc3\xa9es\\040de\\134nuit rw - nfs4 host:/x rw\n"
)


def test_mounts_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names them may be anybody: a USB stick, another user."""
    monkeypatch.setattr(place, "MOUNTS", tmp_path / "mountinfo")
    place.MOUNTS.write_bytes(MOUNTED)
    assert place.file_system(Path("/no/données de\\nuit/queue")) == "nfs4"
    assert place.file_system(Path("/no/more")) == "ext4"
    assert place.file_system(Path(os.fsdecode(b"/\xff\r\x0b\xfe/x"))) == "tmpfs"


@pytest.mark.parametrize(
    "url",
    ["mysql://u:SECRET@h/db", "sqlite://", "postgres ql://SECRET", "oracle://SECRET@h", "postgresql://u:SECRET@h:x/db"],
)
def test_what_is_neither_a_path_nor_a_known_engine_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(InputError) as refused:
        engines.parse(url)
    assert "SECRET" not in f"{refused.value.message} {refused.value.hint}"


def test_a_path_is_taken_as_it_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for db in ("here.db", f"sqlite:///{tmp_path}/here.db"):
        assert engines.database_path(engines.parse(db)) == tmp_path / "here.db"
    assert engines.database_path(engines.parse("~/q.db")) == tmp_path / "home" / "q.db"
    odd = "100% of/what? #1 is/q&a=1.db"
    assert engines.database_path(engines.parse(odd)) == tmp_path / odd


async def test_a_queue_may_have_an_odd_name(tmp_path: Path) -> None:
    queue = tmp_path / "a %41 ? # & ünï 'quoted'" / "q;u e.db"
    await make(queue)
    assert queue.stat().st_size > 0
    async with read_store(str(queue), HandClock()) as store:
        assert len(await rows(store, jobs)) == 3


# Crashes

WRITES = """
import asyncio, sys
from runner.store import open_store
from runner.store.facts import meta
from store.kit import HandClock

async def main(db):
    async with open_store(db, HandClock(), own=True) as store:
        for n in range(10_000):
            await store.write(lambda c: c.execute(meta.insert().values(name=f"n{n}", value="x")) and None)
            print(n, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_committed_before_a_sigkill_is_there(queue: Path) -> None:
    with Other(WRITES, queue) as other:
        for _ in range(120):
            last = int(other.hear())
        other.kill()
        assert other.process.stdout is not None
        last = max([last, *(int(line) for line in other.process.stdout.read().split())])
    assert Path(f"{queue}-wal").stat().st_size > 0, "nothing was checkpointed yet"
    async with read_store(str(queue), HandClock()) as reader:
        assert await committed(reader) >= set(range(last + 1))
    async with open_store(str(queue), HandClock(), own=True) as store:
        assert await committed(store) >= set(range(last + 1))
    assert not Path(f"{queue}-wal").exists()


async def committed(store: Store) -> set[int]:
    return {int(row.name[1:]) for row in await rows(store, meta) if row.name[1:].isdecimal()}


# This machine in the way


async def test_a_locked_queue_is_waited_for_once_and_not_by_each(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.3)
    await make(queue)
    async with open_store(str(queue), HandClock(), own=True) as store:
        with closing(sqlite3.connect(queue, isolation_level=None)) as tool:
            tool.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            first = asyncio.create_task(outcome(store.write(lambda _: None)))
            found = await asyncio.gather(first, *(outcome(store.write(lambda _: None)) for _ in range(20)))
            assert {type(error) for error in found} == {LocalError}
            assert "locked" in found[0].message
            assert time.monotonic() - began < 20 * 0.3
            tool.execute("COMMIT")
        await store.write(note, "afterwards", "fine")


async def test_a_full_disk_is_told_and_nothing_is_half_written(queue: Path) -> None:
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 2)
        [claimed] = await take_submissions(store, 1)
        pages = await store.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())
        await store.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar())
        found = await asyncio.gather(*(outcome(store.write(note, f"big {n}", "x" * 500_000)) for n in range(3)))
        assert {type(error) for error in found} == {DiskFull}
        assert "full" in found[0].message
        await mark_brink(store, claimed)
        await store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000").scalar())
        await store.write(note, "big", "x" * 500_000)
        assert len(await rows(store, meta, meta.c.name.like("big%"))) == 1


# Speed that does not depend on what has ended


async def test_no_statement_of_a_claim_reads_all_jobs(queue: Path) -> None:
    """Every question of a lane is answered by an index over the few rows that matter."""
    async with open_store(str(queue), HandClock(), own=True) as store:
        await fill(store, 12, accounts=[settings(concurrency=4, windows=[(60, 60)])], budget={"lane": "1000"})
        await set_running(store)
        store.clock.move(60)  # type: ignore[attr-defined]
        with listened() as statements:
            ready = await intents(store)
            everything = {"resends": 2, "polls": 2, "poll_pages": 1, "settles": 2, "downloads": 2}
            await take(store, intents=ready, **everything)
            await take(store, keyed=False, looks=True, intents=ready, **everything)
        asked = {text for text in statements if "jobs" in text and not text.startswith(("INSERT", "PRAGMA"))}
        assert len(asked) > 8
        plans = {question: await store.read(plan_of, question) for question in asked}
    scans = [question for question, plan in plans.items() if any(line.startswith("SCAN jobs") for line in plan)]
    assert scans == []
    [peek] = [question for question in asked if "ORDER BY jobs.priority DESC" in question]
    assert not any("TEMP B-TREE" in line for line in plans[peek]), "a million queued jobs would be sorted each time"


@contextmanager
def listened() -> Iterator[set[str]]:
    """The statements that are sent meanwhile."""
    seen: set[str] = set()

    def note_it(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.add(statement)

    event.listen(Engine, "before_cursor_execute", note_it)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note_it)


def plan_of(connection: Connection, statement: str) -> list[str]:
    unbound = connection.connection.cursor()
    unbound.execute(f"EXPLAIN QUERY PLAN {statement}", (None,) * statement.count("?"))
    return [row[3] for row in unbound.fetchall()]


async def test_a_person_may_decide_while_a_runner_works(queue: Path) -> None:
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(open_store(str(queue), HandClock(), own=True))
        await fill(owner, 3)
        decider = await stack.enter_async_context(open_store(str(queue), HandClock()))
        [first, *_] = [row.id for row in await decider.read(lambda c: list(c.execute(select(jobs.c.id))))]
        work = await work_of(decider, first)
        await decider.record(step(Event.CANCELLED, work, State.CANCELLED, None, decider.clock.now()))
        assert len(await intents(owner)) == 2
    assert ask_file(queue, "SELECT count(*) FROM jobs WHERE state = 'cancelled'") == [(1,)]
