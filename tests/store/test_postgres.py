"""What only PostgreSQL can do: several workers at once, locks that wait for each other, and a server that is away."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, make_url, text

from runner.errors import LocalError, NoQueue
from runner.exchange import Accepted
from runner.store import open_store, read_store
from runner.store.changes import jobs
from runner.store.claims import claim
from runner.store.facts import meta
from runner.store.ownership import workers
from runner.store.tables import totals
from runner.verdicts.submission import after_submission
from store.conftest import end_sessions
from store.kit import (
    ACCOUNT,
    Gate,
    HandClock,
    at_the_server,
    blocked,
    fill,
    intents,
    mark_brink,
    plain,
    rows,
    settings,
    state_of,
    submission,
    take_submissions,
    two_stores,
    wants,
)

# Locks


async def test_a_crowd_and_a_claim_do_not_wait_for_a_claim_elsewhere_crosswise(
    postgres_queue_db: str, clock: HandClock
) -> None:
    """A claim locks its account and then the sums; a crowd locks sums. In one transaction with a claim the crowd must
    not come first, or two busy workers would wait for each other a second at a time."""
    async with open_store(postgres_queue_db, clock, own=True) as store:
        await fill(store, 3, accounts=[settings(concurrency=9)])
        [claimed] = await take_submissions(store, 1)
        await mark_brink(store, claimed)
        accepted = after_submission(await submission(store, claimed), Accepted("task-1", Decimal(9)))
        ready = await intents(store)
        elsewhere = await asyncpg.connect(plain(postgres_queue_db))
        try:
            claiming = elsewhere.transaction()
            await claiming.start()
            await elsewhere.execute("SELECT 1 FROM accounts WHERE name = $1 FOR UPDATE", ACCOUNT)
            both = asyncio.gather(store.record(*accepted), store.write(claim, clock.now(), wants(store, intents=ready)))
            await blocked(postgres_queue_db, both)
            await elsewhere.execute("SET LOCAL lock_timeout = '300ms'")
            await elsewhere.execute("UPDATE totals SET estimated = estimated + 0")
            await elsewhere.execute("UPDATE jobs SET errors = errors")
            await claiming.commit()
        finally:
            await elsewhere.close()
        _, taken = await both
        assert len(taken.submissions) == 2


async def test_two_that_wait_for_each_other_are_both_done_in_the_end(postgres_queue_db: str, clock: HandClock) -> None:
    """PostgreSQL ends one of them after a second; that one is made again, and nobody hears of it."""
    async with two_stores(postgres_queue_db, clock) as (one, other):
        await fill(one, 2)
        first, second = [row.id for row in await rows(one, jobs)]
        mine, theirs = Gate(), Gate()

        def crosswise(connection: Connection, near: int, far: int, here: Gate, there: Gate) -> str:
            connection.execute(jobs.update().where(jobs.c.id == near).values(errors=jobs.c.errors + 1))
            here.open()
            there.wait(connection)
            connection.execute(jobs.update().where(jobs.c.id == far).values(errors=jobs.c.errors + 1))
            return "done"

        told = await asyncio.gather(
            one.write(crosswise, first, second, mine, theirs), other.write(crosswise, second, first, theirs, mine)
        )
        assert told == ["done", "done"]
        assert [row.errors for row in await rows(one, jobs)] == [2, 2]


async def test_a_deadlock_that_comes_again_and_again_is_told(postgres_queue_db: str, clock: HandClock) -> None:
    async with open_store(postgres_queue_db, clock, own=True) as store:
        tries = []

        def hopeless(connection: Connection) -> None:
            tries.append(1)
            connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$"))

        with pytest.raises(LocalError, match="deadlock"):
            await store.write(hopeless)
        assert 2 < len(tries) < 20


# Starting together


async def test_many_that_start_on_an_empty_database_make_it_once(postgres_database: str) -> None:
    async with AsyncExitStack() as stack:
        opening = [stack.enter_async_context(open_store(postgres_database, HandClock(), own=True)) for _ in range(6)]
        stores = await asyncio.gather(*opening)
        assert len({store.worker for store in stores}) == 6
        assert len(await rows(stores[0], workers)) == 6
        assert len(await rows(stores[0], meta, meta.c.name == "salt")) == 1


async def test_workers_share_the_work_and_none_of_it_twice(postgres_queue_db: str, clock: HandClock) -> None:
    async with AsyncExitStack() as stack:
        opened = [open_store(postgres_queue_db, clock, own=True) for _ in range(4)]
        stores = [await stack.enter_async_context(one) for one in opened]
        await fill(stores[0], 40, accounts=[settings(concurrency=40)])

        async def work(store: Any) -> list[int]:
            mine: list[int] = []
            while ready := await intents(store, 3):
                taken = await store.write(claim, clock.now(), wants(store, intents=ready))
                for claimed in taken.submissions:
                    await mark_brink(store, claimed)
                    accepted = Accepted(f"task-{claimed.job_id}", None)
                    await store.record(*after_submission(await submission(store, claimed), accepted))
                    mine.append(claimed.job_id)
            return mine

        shares = await asyncio.gather(*(work(store) for store in stores))
        taken = [job for share in shares for job in share]
        assert sorted(taken) == sorted(row.id for row in await rows(stores[0], jobs))
        assert {row.state for row in await rows(stores[0], jobs)} == {"running"}
        assert [row.estimated for row in await rows(stores[0], totals)] == [400]


# What a commit means


async def test_a_commit_is_on_the_servers_disk_even_where_its_settings_say_otherwise(
    postgres_queue_db: str, clock: HandClock
) -> None:
    def durable(connection: Connection) -> str:
        return str(connection.execute(text("SHOW synchronous_commit")).scalar_one())

    alter = f'ALTER DATABASE "{make_url(postgres_queue_db).database}"'
    async with open_store(postgres_queue_db, clock, own=True) as store:
        for setting, kept in (("off", "on"), ("remote_apply", "remote_apply")):
            await at_the_server(postgres_queue_db, f"{alter} SET synchronous_commit = {setting}")
            await end_sessions(postgres_queue_db)
            assert await store.write(durable) == kept
    await at_the_server(postgres_queue_db, f"{alter} RESET synchronous_commit")


# The server is away


@pytest.mark.parametrize("way", ["own", "decide", "read"])
async def test_a_server_that_cannot_be_reached_is_one_clear_error(tmp_path: Path, way: str) -> None:
    db = f"postgresql://nobody:SECRET@/nothing?host={tmp_path}"
    opened = read_store(db, HandClock()) if way == "read" else open_store(db, HandClock(), own=way == "own")
    with pytest.raises(LocalError) as refused:
        async with opened:
            pass
    assert "SECRET" not in f"{refused.value.message} {refused.value.hint}"


async def test_a_database_that_is_not_there_is_one_clear_error(postgres_database: str) -> None:
    absent = make_url(postgres_database).set(database="no_such_database").render_as_string(hide_password=False)
    with pytest.raises(LocalError, match="no_such_database"):
        async with open_store(absent, HandClock(), own=True):
            pass


async def test_an_empty_database_is_no_queue_for_readers(postgres_database: str) -> None:
    for opened in (read_store(postgres_database, HandClock()), open_store(postgres_database, HandClock())):
        with pytest.raises(NoQueue):
            async with opened:
                pass


async def test_a_strangers_database_is_left_alone(postgres_database: str) -> None:
    connection = await asyncpg.connect(plain(postgres_database))
    try:
        await connection.execute("CREATE TABLE jobs (id int); CREATE TABLE alembic_version (version_num text)")
        for own in (True, False):
            with pytest.raises(LocalError, match="not a queue of runner"):
                async with open_store(postgres_database, HandClock(), own=own):
                    pass
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert {row["tablename"] for row in tables} == {"jobs", "alembic_version"}
    finally:
        await connection.close()


async def test_two_owners_see_each_others_work(postgres_queue_db: str, clock: HandClock) -> None:
    async with two_stores(postgres_queue_db, clock) as (one, other):
        await fill(one, 1)
        [claimed] = await take_submissions(other)
        assert await state_of(one, claimed.job_id) == "submitting"
