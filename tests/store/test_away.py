"""The database is away for a while: its workers wait for it and go on, and whoever wants to end is not kept waiting."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from postgres import cluster, fresh_database
from proxy import Way, way_to
from sqlalchemy import Connection, func, make_url, select, text
from sqlalchemy.util import await_only
from structlog.testing import CapturingLogger

from runner.errors import LocalError, NotSent, Unreachable
from runner.jobs import State
from runner.store import Store, again, engines, open_store, ownership, read_store
from runner.store.changes import attempts, jobs
from runner.store.enqueue import NewJob
from runner.store.ownership import SILENCE, workers
from runner.store.store import BRINK_SECONDS, rescue
from store.conftest import end_sessions
from store.kit import (
    HandClock,
    Other,
    at_the_server,
    fall_silent,
    fill,
    held,
    mark_brink,
    order,
    outcome,
    rows,
    set_running,
    state_of,
    take_submissions,
    told,
    two_stores,
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


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what is waited for happens elsewhere
            await asyncio.sleep(0.01)


def count_jobs(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(jobs)).scalar_one())


def add_error(connection: Connection) -> None:
    connection.execute(jobs.update().values(errors=jobs.c.errors + 1))


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


# A process that was stopped, and goes on


@pytest.mark.parametrize("between", ["statements", "the parts of a statement"])
async def test_one_that_is_stopped_in_a_transaction_does_not_hold_up_the_others(
    postgres_queue_db: str, clock: HandClock, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """The server ends a session that says nothing in the midst of a transaction; its work is done when it goes on."""
    limit(monkeypatch, "0.3s")
    async with two_stores(postgres_queue_db, clock) as (one, other):
        await fill(other)
        async with held(one, add_error if between == "statements" else add_error_and_begin_another) as stopped:
            await other.write(add_error)
            await stopped.commit()
        assert [row.errors for row in await rows(other, jobs)] == [2]


def add_error_and_begin_another(connection: Connection) -> None:
    """For the server a statement that was announced and not sent is no pause: only the time of it all is limited."""
    add_error(connection)
    await_only(connection.connection.driver_connection.prepare("SELECT 1"))  # type: ignore[union-attr]


def limit(monkeypatch: pytest.MonkeyPatch, time: str) -> None:
    monkeypatch.setattr(engines, "LIMITS", engines.LIMITS | dict.fromkeys(engines.UNLIMITED, time))


async def test_orders_that_come_slowly_may_take_their_time(
    postgres_queue_db: str, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, "0.3s")
    passes = []

    class Slow:
        def __iter__(self) -> Iterator[NewJob]:
            passes.append(1)
            yield order(1)
            time.sleep(0.6)
            yield order(2)

    async with open_store(postgres_queue_db, clock, own=True) as store:
        assert (await fill(store, Slow())).new == 2
    assert len(passes) == 1


@pytest.mark.parametrize(("seconds", "leave"), [(BRINK_SECONDS, True), (BRINK_SECONDS + 1, False)])
@pytest.mark.parametrize("speed", [1.0, 20.0])
async def test_a_brink_that_took_long_is_no_leave_to_send(db: str, seconds: float, leave: bool, speed: float) -> None:
    """The process was stopped, or the database away: the lease may be gone by now, and the connection be half dead."""
    clock = HandClock(speed=speed)
    async with open_store(db, clock, own=True) as store:
        await fill(store)
        [claimed] = await take_submissions(store)
        async with held(store, count_jobs) as before:
            marking = asyncio.ensure_future(outcome(mark_brink(store, claimed)))
            await until(lambda: len(store.pen._items) == 1)
            clock.move(seconds * speed)
            await before.commit()
        assert isinstance(await marking, NotSent) is not leave
        assert await state_of(store, claimed.job_id) is State.SUBMITTING


STOPPED = """
import asyncio, sys
from runner.errors import Fenced
from runner.exchange import Accepted
from runner.store import open_store
from runner.verdicts.submission import after_submission
from store.kit import HandClock, fill, mark_brink, outcome, submission, take_submissions

async def hear():
    await asyncio.to_thread(sys.stdin.readline)

def say(*words):
    print(*words, flush=True)

async def main(db):
    async with open_store(db, HandClock(), own=True) as store:
        await fill(store, 3)
        unsent, sent, _ = claims = await take_submissions(store, 3)
        await mark_brink(store, sent)
        answer = after_submission(await submission(store, sent), Accepted("task-1"))
        say(store.worker, unsent.job_id, sent.job_id)
        await hear()
        found = [await outcome(mark_brink(store, unsent)), await outcome(store.record(*answer))]
        say(*(type(one).__name__ for one in found))
        await hear()
        say(len(await take_submissions(store)))
        await hear()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
async def test_a_process_that_was_stopped_for_too_long_finds_its_leases_gone(db: str, clock: HandClock) -> None:
    with Other(STOPPED, db) as stopped:
        worker, unsent, sent = (int(word) for word in (await asyncio.to_thread(stopped.hear)).split())
        stopped.process.send_signal(signal.SIGSTOP)
        stopped.tell()
        async with open_store(db, clock, own=True) as other:
            assert await state_of(other, unsent) is State.SUBMITTING, "not before its time"
            await fall_silent(db, but=other.worker)
            assert await rescue(other) == 3
            stopped.process.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(stopped.hear) == "Fenced Fenced"
            assert await state_of(other, unsent) is State.QUEUED
            assert await state_of(other, sent) is State.UNKNOWN
            assert [row.brink_at is None for row in await rows(other, attempts)] == [True, False, True]
            stopped.tell()
            assert await asyncio.to_thread(stopped.hear) == "2", "it goes on like any other"
            assert {row.id for row in await rows(other, workers)} == {worker, other.worker}
