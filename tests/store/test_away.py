"""The database is away for a while: its workers wait for it and go on, and whoever wants to end is not kept waiting."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from postgres import cluster, fresh_database
from proxy import Way, way_to
from sqlalchemy import Connection, make_url, text
from structlog.testing import CapturingLogger

from runner.errors import LocalError, Unreachable
from runner.jobs import State
from runner.store import Store, again, engines, open_store, ownership, read_store
from runner.store.changes import jobs
from runner.store.ownership import SILENCE, workers
from runner.store.store import rescue
from store.conftest import end_sessions
from store.kit import (
    HandClock,
    add_error,
    at_the_server,
    count_jobs,
    fall_silent,
    fill,
    mark_brink,
    outcome,
    rows,
    set_running,
    state_of,
    take_submissions,
    told,
    two_stores,
    until,
)


class LeapingClock(HandClock):
    """Whoever sleeps by it is there at once."""

    __slots__ = ("slept",)

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "slept", [])

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)  # type: ignore[attr-defined]
        self.move(seconds)
        await asyncio.sleep(0)


@pytest_asyncio.fixture(loop_scope="session")
async def way(postgres_queue_db: str) -> AsyncIterator[Way]:
    async with way_to(postgres_queue_db) as found:
        yield found


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    logger = CapturingLogger()
    monkeypatch.setattr(again, "log", logger)
    return logger


def words(said: CapturingLogger) -> list[tuple[str, str]]:
    return [(call.method_name, call.args[0]) for call in said.calls]


TOLD = [("warning", "the database does not answer"), ("warning", "the database answers again")]


# A connection


async def test_a_connection_that_breaks_is_replaced_and_nobody_hears_of_it(
    postgres_queue_db: str, clock: HandClock, said: CapturingLogger
) -> None:
    tries = []

    def ends_its_session_once(connection: Connection) -> str:
        tries.append(1)
        add_error(connection)
        if len(tries) == 1:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return "done"

    async with open_store(postgres_queue_db, clock, own=True) as store:
        await fill(store)
        assert await store.write(ends_its_session_once) == "done"
        assert [row.errors for row in await rows(store, jobs)] == [1]
    assert said.calls == []


async def test_an_administrator_may_end_all_sessions(
    postgres_queue_db: str, clock: HandClock, said: CapturingLogger
) -> None:
    async with open_store(postgres_queue_db, clock, own=True) as store:
        await fill(store)
        [claimed] = await take_submissions(store)
        for _ in range(3):
            await asyncio.gather(*(store.read(count_jobs) for _ in range(6)))
            await end_sessions(postgres_queue_db)
            assert await asyncio.gather(*(store.read(count_jobs) for _ in range(6))) == [1] * 6
            await store.write(add_error)
        await mark_brink(store, claimed)
        assert [row.errors for row in await rows(store, jobs)] == [3]


async def test_a_server_that_is_gone_without_a_word_is_noticed(way: Way, clock: HandClock) -> None:
    """The kernel asks for a sign of life on an idle connection, and gives up on one that does not take what is sent."""
    async with open_store(way.url, clock, own=True) as store, store._reading.connect() as connection:
        raw = await connection.get_raw_connection()
        line = raw.driver_connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name in engines.LIFELINE.keys() - {"SO_KEEPALIVE"}:
            if hasattr(socket, name):
                assert line.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == engines.LIFELINE[name]


# An outage


async def test_an_outage_is_waited_for_and_told_once(way: Way, clock: HandClock, said: CapturingLogger) -> None:
    async with open_store(way.url, clock, own=True) as store:
        await fill(store)
        for _ in range(2):
            said.calls.clear()
            way.close()
            waiting = [asyncio.ensure_future(store.read(count_jobs)) for _ in range(6)]
            waiting += [asyncio.ensure_future(store.write(count_jobs)) for _ in range(6)]
            await until(lambda: said.calls)
            assert not any(task.done() for task in waiting)
            way.open()
            assert await asyncio.gather(*waiting) == [1] * 12
            assert words(said) == TOLD


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
async def test_a_server_that_restarts_is_waited_for(clock: HandClock, number: signal.Signals) -> None:
    with cluster() as server:
        async with fresh_database(server.dsn) as db, two_stores(db, clock) as (one, other):
            await fill(one, 40)
            first = await set_running(one, 20)
            working = asyncio.gather(set_running(one, 5), set_running(other, 5))
            await asyncio.to_thread(server.stop, number)
            reading = asyncio.ensure_future(other.read(count_jobs))
            await asyncio.to_thread(server.start)
            done = await working
            assert await reading == 40
            states = [row.state for row in await rows(one, jobs)]
            assert states.count("running") == len(first) + sum(map(len, done))
            assert states.count("submitting") == 0
            for row in await rows(one, jobs, jobs.c.state == "running"):
                assert await told(one, row.id) == ["claimed", "accepted"]


async def test_patience_is_at_its_end_after_a_quarter_of_an_hour(way: Way, said: CapturingLogger) -> None:
    clock = LeapingClock()
    async with open_store(way.url, clock, own=True) as store:
        await fill(store)
        way.close()
        began = clock.now()
        with pytest.raises(Unreachable, match="away for 9"):
            await store.write(count_jobs)
        waited = (clock.now() - began).total_seconds()
        assert again.PATIENCE < waited < again.PATIENCE + 2 * again.LONGEST_PAUSE
        slept: list[float] = clock.slept  # type: ignore[attr-defined]
        assert slept[0] < 1, "a short outage costs little"
        assert 50 < len(slept) < 100
        for work in (store.write(count_jobs), store.read(count_jobs)):
            assert isinstance(await outcome(work), Unreachable)
        assert clock.now() == began + timedelta(seconds=waited), "nobody waits any more"
        way.open()
        assert await store.write(count_jobs) == 1, "but it may come back all the same"
    assert words(said) == TOLD


async def test_a_faster_clock_divides_the_pauses_and_not_the_patience(way: Way) -> None:
    clock = LeapingClock()
    object.__setattr__(clock, "speed", 10.0)
    async with open_store(way.url, clock, own=True) as store:
        way.close()
        began = clock.now()
        assert isinstance(await outcome(store.write(count_jobs)), Unreachable)
        assert (clock.now() - began).total_seconds() > again.PATIENCE * 10


async def test_a_standby_is_not_taken_for_the_database(
    postgres_queue_db: str, clock: HandClock, said: CapturingLogger
) -> None:
    """After a failover the address may lead to a server that takes no writes yet."""
    name = make_url(postgres_queue_db).database
    async with open_store(postgres_queue_db, clock, own=True) as store:
        await fill(store)
        await at_the_server(postgres_queue_db, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await end_sessions(postgres_queue_db)
        waiting = [asyncio.ensure_future(work) for work in (store.read(count_jobs), store.write(add_error))]
        await until(lambda: said.calls)
        assert not any(task.done() for task in waiting)
        await at_the_server(postgres_queue_db, f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        assert await asyncio.gather(*waiting) == [1, None]
        async with read_store(postgres_queue_db, clock) as reader:
            assert await reader.read(count_jobs) == 1
    assert words(said) == TOLD


@pytest.mark.parametrize("way_in", ["decide", "read"])
async def test_a_person_at_the_command_line_hears_of_it_at_once(way: Way, clock: HandClock, way_in: str) -> None:
    async with open_store(way.url, clock, own=True):
        pass
    async with open_store(way.url, clock) if way_in == "decide" else read_store(way.url, clock) as store:
        await store.read(count_jobs)
        way.close()
        with pytest.raises(LocalError):
            await (store.write(add_error) if way_in == "decide" else store.read(count_jobs))


# Whoever wants to end


async def test_in_a_hurry_nobody_waits_for_it(way: Way, clock: HandClock, said: CapturingLogger) -> None:
    async with open_store(way.url, clock, own=True) as store:
        way.close()
        waiting = [asyncio.ensure_future(outcome(work)) for work in (store.read(count_jobs), store.write(count_jobs))]
        await until(lambda: said.calls)
        store.hurry()
        assert all(isinstance(found, Unreachable) for found in await asyncio.gather(*waiting))
        for work in (store.write(count_jobs), store.read(count_jobs)):
            assert isinstance(await outcome(work), Unreachable)
    assert words(said) == TOLD[:1]


async def test_in_a_hurry_nobody_waits_for_an_answer(way: Way, clock: HandClock) -> None:
    """Nothing comes back, and nobody says why: not even closing the connections may wait for that."""
    async with open_store(way.url, clock, own=True) as store:
        await asyncio.gather(*(store.read(count_jobs) for _ in range(4)))
        way.stall()
        waiting = [asyncio.ensure_future(outcome(work)) for work in (store.read(count_jobs), store.write(count_jobs))]
        await asyncio.wait(waiting, timeout=0.1)
        assert not any(task.done() for task in waiting)
        store.hurry()
        assert all(isinstance(found, Unreachable) for found in await asyncio.gather(*waiting))


async def test_in_a_hurry_a_database_that_is_there_is_still_written(way: Way, clock: HandClock) -> None:
    async with open_store(way.url, clock, own=True) as store:
        await fill(store)
        store.hurry()
        await store.write(add_error)
        assert [row.errors for row in await rows(store, jobs)] == [1]


# Who lives


async def test_a_heartbeat_outlives_an_outage(
    postgres_queue_db: str, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose sign of life failed once tries again: else it would be taken for dead while it works."""
    beats = asyncio.Event()
    look = ownership.rescue_dead

    def unlucky(*args: Any, **more: Any) -> int:
        failed.append(1)
        if len(failed) < 3:
            raise LocalError("the queue cannot be written: the server is away")
        beats.set()
        return look(*args, **more)

    failed: list[int] = []
    async with open_store(postgres_queue_db, clock, own=True) as other:
        monkeypatch.setattr(ownership, "HEARTBEAT_SECONDS", 0.01)
        monkeypatch.setattr(ownership, "rescue_dead", look)
        async with open_store(postgres_queue_db, clock, own=True) as store:
            monkeypatch.setattr(ownership, "rescue_dead", unlucky)
            await fall_silent(postgres_queue_db, but=other.worker)
            async with asyncio.timeout(30):
                await beats.wait()
            monkeypatch.setattr(ownership, "rescue_dead", look)
            await store.write(count_jobs)
            assert await rescue(other) == 0
            assert {row.id for row in await rows(other, workers)} == {store.worker, other.worker}


async def test_after_an_outage_others_get_the_time_to_come_back(
    way: Way, clock: HandClock, monkeypatch: pytest.MonkeyPatch, said: CapturingLogger
) -> None:
    """The database was away for all of them: who is back first must not take the others for dead."""
    db = way.server.render_as_string(hide_password=False)
    async with open_store(db, clock, own=True) as late:
        await fill(late)
        [claimed] = await take_submissions(late)
        monkeypatch.setattr(ownership, "HEARTBEAT_SECONDS", 0.01)
        async with open_store(way.url, clock, own=True) as first:
            way.close()
            await until(lambda: said.calls)
            await fall_silent(db)
            way.open()
            for _ in range(3):
                await a_sign_of(first, late)
            assert await state_of(late, claimed.job_id) is State.SUBMITTING
            clock.move(SILENCE.total_seconds())
            async with asyncio.timeout(30):
                while await state_of(late, claimed.job_id) is not State.QUEUED:
                    await a_sign_of(first, late)


async def a_sign_of(worker: Store, watcher: Store) -> None:
    """Returns when the worker has given one more."""
    before = await rows(watcher, workers, workers.c.id == worker.worker)
    async with asyncio.timeout(30):
        while await rows(watcher, workers, workers.c.id == worker.worker) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
