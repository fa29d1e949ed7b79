"""A process that was stopped, and goes on: in the midst of a transaction, of an order, or for so long that it was taken
for dead."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection
from sqlalchemy.util import await_only

from runner.errors import NotSent
from runner.jobs import State
from runner.store import engines, open_store
from runner.store.changes import attempts, jobs
from runner.store.enqueue import NewJob
from runner.store.ownership import workers
from runner.store.store import BRINK_SECONDS, rescue
from store.kit import (
    HandClock,
    Other,
    add_error,
    count_jobs,
    fall_silent,
    fill,
    held,
    mark_brink,
    order,
    outcome,
    rows,
    state_of,
    take_submissions,
    two_stores,
    until,
)


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
