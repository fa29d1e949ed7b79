"""Rescue: what a dead process held is resolved by what is on disk, and by nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, update

from runner.errors import Fenced, OwnedError
from runner.exchange import Accepted
from runner.jobs import Event, State
from runner.store import Store, open_store, ownership, read_store
from runner.store.changes import attempts, jobs, requests
from runner.store.ownership import SILENCE, workers
from runner.store.store import rescue
from runner.verdicts.submission import Unanswered, after_submission
from store.kit import (
    T0,
    HandClock,
    Other,
    address,
    answer,
    blocked,
    done,
    fall_silent,
    fill,
    held,
    mark_brink,
    outcome,
    polled,
    rows,
    seconds,
    set_downloading,
    set_running,
    settings,
    state_of,
    step,
    submission,
    take,
    take_submissions,
    told,
    two_stores,
    work_of,
)

# Every test leaves a store without a word, as a process that dies does, and opens the queue anew once its silence has
# lasted long enough.


async def test_without_a_brink_nothing_was_sent(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 1)
        [claimed] = await take_submissions(store)
    clock.move(61)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        work = await work_of(store, claimed.job_id)
        assert (work.standing.state, work.standing.attempts, work.lease) == (State.QUEUED, 0, None)
        assert work.standing.generation == 1
        assert work.attempt is not None
        assert (work.attempt.outcome, work.attempt.bill.reserved) == ("not_sent", 0)
        assert await told(store, work.id) == ["claimed", "put_back"]
        assert len(await take_submissions(store)) == 1


async def test_with_a_brink_it_is_an_open_question(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 1)
        [claimed] = await take_submissions(store)
        await mark_brink(store, claimed)
        await store.write(_looked_for_before)
    clock.move(61)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        work = await work_of(store, claimed.job_id)
        assert (work.standing.state, work.standing.attempts, work.lease) == (State.UNKNOWN, 1, None)
        assert work.standing.looks == 0, "this order has not been looked for yet"
        assert work.attempt is not None
        assert (work.attempt.outcome, work.attempt.bill.reserved, work.attempt.brink_at) == ("crash", 10, T0)
        assert work.standing.due_at == clock.now()


def _looked_for_before(connection: Connection) -> None:
    """As a job stands whose earlier order was found in the provider's history, and whose task was then refused."""
    connection.execute(update(jobs).values(looks=2))


async def test_a_resend_that_died_before_its_own_first_byte_stays_a_question(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 1)
        [claimed] = await take_submissions(store)
        await answer(store, claimed, Unanswered("silence"))
        clock.move(60)
        assert len((await take(store, resends=1)).resends) == 1
    clock.move(61)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        work = await work_of(store, claimed.job_id)
        assert (work.standing.state, work.standing.generation) == (State.UNKNOWN, 1)
        assert work.attempt is not None
        assert work.attempt.bill.reserved == 10


async def test_polls_and_downloads_are_just_released(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 3)
        first, *_ = await set_running(store)
        await set_downloading(store, first)
        taken = await take(store, polls=9, downloads=9)
        assert (len(taken.polls), len(taken.downloads)) == (2, 1)
        before = [(row.state, row.due_at, row.errors) for row in await rows(store, jobs)]
        assert all(row.lease is not None for row in await rows(store, jobs))
    clock.move(61)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        assert [row.lease for row in await rows(store, jobs)] == [None] * 3
        assert [row.owner for row in await rows(store, jobs)] == [None] * 3
        assert [(row.state, row.due_at, row.errors) for row in await rows(store, jobs)] == before
        assert (await told(store, first))[-1] == "finished"


async def test_a_second_rescue_finds_nothing(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 2)
        await take_submissions(store)
    clock.move(61)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        before = await rows(store, jobs)
        assert await rescue(store) == 0
        assert await rows(store, jobs) == before
        assert [row.id for row in await rows(store, workers)] == [store.worker]


async def test_more_than_one_statement_can_name_at_once(db: str, clock: HandClock) -> None:
    many = 1200
    async with open_store(db, clock, own=True) as store:
        await fill(store, many, accounts=[settings(concurrency=many)])
        claims = await take_submissions(store, many)
        for claimed in claims[:10]:
            await mark_brink(store, claimed)
    clock.move(61)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        found = [row.state for row in await rows(store, jobs)]
        assert (found.count("unknown"), found.count("queued")) == (10, many - 10)
        assert {row.reserved for row in await rows(store, attempts, attempts.c.outcome == "not_sent")} == {0}


async def test_a_run_that_ends_well_gives_back_what_it_held(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 2, accounts=[settings(windows=[(9, 60)])])
        first, second = await take_submissions(store)
        await mark_brink(store, second)
        assert await store.write(ownership.rescue, clock.now(), [store.worker]) == 2
        assert await state_of(store, first.job_id) is State.QUEUED
        assert await state_of(store, second.job_id) is State.UNKNOWN
        assert [row.ended_at for row in await rows(store, requests)] == [T0, T0]


async def test_at_every_start_questions_running_tasks_and_final_costs_are_due(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 3)
        running, ended = await set_running(store, 2)
        [lost] = await take_submissions(store, 1)
        await answer(store, lost, Unanswered("silence"))
        later = clock.now() + seconds(3600)
        work = await work_of(store, running)
        await store.record(step(Event.POLLED, work, State.RUNNING, None, T0, due_at=later))
        work = await work_of(store, ended)
        standing = replace(work.standing, state=State.FAILED, unsettled=True, settle_at=None, settle_asks=3)
        await store.record(replace(step(Event.TASK_FAILED, work, State.FAILED, None, T0), standing=standing))
    clock.move(61)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        taken = await take(store, polls=9, resends=9, settles=9)
        asked = {c.job_id for c in (*taken.polls, *taken.resends, *taken.settles)}
        assert asked == {running, ended, lost.job_id}


# Several workers (PostgreSQL): who lives is told by the server's clock alone


@pytest.mark.parametrize("hours", [-5, 0, 5])
async def test_the_living_are_told_from_the_dead_whatever_their_clocks_say(postgres_queue_db: str, hours: int) -> None:
    """Two hosts whose clocks are hours apart, either way."""
    here, there = HandClock(), HandClock(T0 + timedelta(hours=hours))
    async with open_store(postgres_queue_db, here, own=True) as one:
        await fill(one, 1)
        [claimed] = await take_submissions(one)
        async with open_store(postgres_queue_db, there, own=True) as other:
            assert await state_of(other, claimed.job_id) is State.SUBMITTING
            there.move(3600)
            assert await rescue(other) == 0
            await fall_silent(postgres_queue_db, 50, but=other.worker)
            assert await rescue(other) == 0
            await fall_silent(postgres_queue_db, 11, but=other.worker)
            assert await rescue(other) == 1
            assert await state_of(other, claimed.job_id) is State.QUEUED


@pytest.mark.parametrize("hours", [-5, 5])
async def test_a_sign_of_life_counts_whatever_its_clock_says(postgres_queue_db: str, hours: int) -> None:
    here, there = HandClock(), HandClock(T0 + timedelta(hours=hours))
    async with open_store(postgres_queue_db, here, own=True) as one:
        await fill(one, 1)
        [claimed] = await take_submissions(one)
        async with open_store(postgres_queue_db, there, own=True) as other:
            await fall_silent(postgres_queue_db, 50, but=other.worker)
            await mark_brink(one, claimed)  # any transaction is a sign of life
            await fall_silent(postgres_queue_db, 50, but=other.worker)
            assert await rescue(other) == 0


async def test_a_fast_clock_does_not_make_the_living_look_dead(postgres_queue_db: str) -> None:
    """With --speed 100 an hour goes by between four heartbeats, and a minute of silence is still a minute."""
    clock = HandClock(speed=100.0)
    async with open_store(postgres_queue_db, clock, own=True) as one:
        await fill(one, 1)
        await take_submissions(one)
        clock.move(100_000)
        async with open_store(postgres_queue_db, clock, own=True) as other:
            assert await rescue(other) == 0
            await fall_silent(postgres_queue_db, SILENCE.total_seconds() + 1, but=other.worker)
            assert await rescue(other) == 1


async def test_whoever_is_just_coming_back_to_life_is_waited_for(postgres_queue_db: str, clock: HandClock) -> None:
    """It is in the middle of a transaction when it is judged: if that is committed, it lives."""
    async with two_stores(postgres_queue_db, clock) as (sleeper, other):
        await fill(sleeper, 1)
        [claimed] = await take_submissions(sleeper)
        await fall_silent(postgres_queue_db, but=other.worker)
        async with held(sleeper, _nothing) as waking:
            rescuing = asyncio.ensure_future(rescue(other))
            await blocked(postgres_queue_db, rescuing)
            await waking.commit()
        assert await rescuing == 0
        assert await state_of(other, claimed.job_id) is State.SUBMITTING


def _nothing(_connection: Connection) -> None:
    """A transaction that only is a sign of life."""


async def test_no_two_signs_of_life_are_alike(postgres_queue_db: str, clock: HandClock) -> None:
    """Not even where the server's clock stands still, or is set back: a lost commit is known again by its sign."""
    async with open_store(postgres_queue_db, clock, own=True) as store:
        await fall_silent(postgres_queue_db, -3600)
        seen = []
        for _ in range(5):
            await store.write(_nothing)
            seen += [row.seen_at for row in await rows(store, workers)]
        assert seen == sorted(set(seen))


async def test_whoever_was_taken_for_dead_writes_nothing_any_more(postgres_queue_db: str, clock: HandClock) -> None:
    async with open_store(postgres_queue_db, clock, own=True) as sleeper:
        await fill(sleeper, 2)
        await set_running(sleeper, 1)
        [claimed] = await take_submissions(sleeper, 1)
        clock.move(61)
        [poll] = (await take(sleeper, polls=1)).polls
        report = await polled(sleeper, poll, done(f"task-{poll.job_id}"))
        accepted = after_submission(await submission(sleeper, claimed), Accepted("task-9"))
        await fall_silent(postgres_queue_db)
        async with open_store(postgres_queue_db, clock, own=True) as other:
            assert await state_of(other, claimed.job_id) is State.QUEUED
            for work in (mark_brink(sleeper, claimed), sleeper.record(*accepted), sleeper.record(report)):
                assert isinstance(await outcome(work), Fenced)
            assert await state_of(other, poll.job_id) is State.RUNNING
            assert await state_of(other, claimed.job_id) is State.QUEUED


async def test_a_worker_that_came_back_can_be_rescued_again(postgres_queue_db: str, clock: HandClock) -> None:
    """It is on the list again with the first thing it does: should it die then, its leases must not be orphans."""
    async with open_store(postgres_queue_db, clock, own=True) as other:
        async with open_store(postgres_queue_db, clock, own=True) as sleeper:
            await fill(sleeper, 1)
            await fall_silent(postgres_queue_db, but=other.worker)
            await rescue(other)
            assert [row.id for row in await rows(other, workers)] == [other.worker]
            [claimed] = await take_submissions(sleeper)
            assert {row.id for row in await rows(other, workers)} == {other.worker, sleeper.worker}
        await fall_silent(postgres_queue_db, but=other.worker)
        assert await rescue(other) == 1
        assert await state_of(other, claimed.job_id) is State.QUEUED


# One owner (SQLite): the kernel's lock, and a kill that tidies up nothing

DIES = """
import asyncio, sys
from runner.store import open_store
from store.kit import HandClock, fill, mark_brink, set_running, settings, take, take_submissions

async def main(db):
    async with open_store(db, HandClock(), own=True) as store:
        await fill(store, 4, accounts=[settings(windows=[(60, 60)])])
        await set_running(store, 1)
        first, second = await take_submissions(store, 2)
        await mark_brink(store, second)
        print(first.job_id, second.job_id, flush=True)
        sys.stdin.readline()

asyncio.run(main(sys.argv[1]))
"""


async def test_a_real_process_is_killed_and_the_next_one_takes_over(db: str, clock: HandClock) -> None:
    with Other(DIES, db) as other:
        unsent, sent = (int(word) for word in other.hear().split())
        if "://" not in db:
            with pytest.raises(OwnedError, match=f"process {other.process.pid} "):
                async with open_store(db, clock, own=True):
                    pass
        other.kill()
    clock.move(61)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        assert await state_of(store, unsent) is State.QUEUED
        assert await state_of(store, sent) is State.UNKNOWN
        found = [row.ended_at for row in await rows(store, requests)]
        assert found == [T0, clock.now(), clock.now()]
        assert await told(store, sent) == ["claimed", "answer_lost"]


async def test_a_reading_store_has_no_lease_to_give_back(store: Store, clock: HandClock) -> None:
    await fill(store, 1)
    [claimed] = await take_submissions(store)
    async with read_store(address(store), clock) as reader:
        assert reader.worker is None
        assert await state_of(reader, claimed.job_id) is State.SUBMITTING
    assert await state_of(store, claimed.job_id) is State.SUBMITTING


async def test_quick_starts_do_not_hasten_the_belief_that_a_task_is_unknown(db: str, clock: HandClock) -> None:
    """A 404 is believed after three times over a minute: three starts within a second are not that."""
    async with open_store(db, clock, own=True) as store:
        await fill(store, 2)
        lost, plain = await set_running(store, 2)
        later = T0 + timedelta(seconds=30)
        for job, kind in ((lost, "not_found"), (plain, "network")):
            news = {"due_at": later, "error_kind": kind, "error_code": "x", "error_message": "x"}
            await store.write(_set, job, news)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        due = {row.id: row.due_at for row in await rows(store, jobs)}
        assert (due[lost], due[plain]) == (later, clock.now())


def _set(connection: Connection, job: int, news: dict[str, object]) -> None:
    connection.execute(update(jobs).where(jobs.c.id == job).values(news))
