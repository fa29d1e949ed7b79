"""The race matrix: two who want the same job, account or task, in both orders.

The first one's transaction is held open at the moment before its commit; the second one starts meanwhile and waits (on
PostgreSQL the test sees it wait). Nothing here depends on how fast anybody is. On PostgreSQL the two are workers; on
SQLite they are the owner and a person who decides while it works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection

from runner.errors import Fenced, Taken
from runner.exchange import Accepted
from runner.jobs import Change, Event, State
from runner.store import Store, accounts, ownership
from runner.store.brink import Brink, mark_brinks
from runner.store.changes import apply, attempts, jobs, ledger
from runner.store.claims import claim
from runner.verdicts.submission import Unanswered, after_submission
from store.kit import (
    ACCOUNT,
    T0,
    HandClock,
    accept,
    answer,
    blocked,
    done,
    fill,
    held,
    intents,
    mark_brink,
    outcome,
    polled,
    rows,
    seconds,
    set_running,
    settings,
    state_of,
    step,
    submission,
    take,
    take_submissions,
    told,
    two_stores,
    wants,
    work_of,
)


@dataclass
class Race:
    """Two stores on one queue. `both` runs two transactions, the second begun while the first is still open."""

    db: str
    one: Store
    other: Store
    clock: HandClock

    async def both(self, first: Callable[[Connection], Any], on: Store, second: Awaitable[Any]) -> tuple[Any, Any]:
        async with held(on, first) as transaction:
            late = asyncio.ensure_future(outcome(second))
            await blocked(self.db, late)
            early = await transaction.commit()
        return early, await late


@pytest_asyncio.fixture(loop_scope="session")
async def race(db: str, clock: HandClock) -> AsyncIterator[Race]:
    async with two_stores(db, clock) as (one, other):
        yield Race(db, one, other, clock)


def changing(*changes: Change) -> Callable[[Connection], int]:
    """A transaction that applies these; returns how many held."""

    def write(connection: Connection) -> int:
        return sum(len(apply(connection, [change])) for change in changes)

    return write


def rescuing(worker: int | None, now: datetime) -> Callable[[Connection], int]:
    def write(connection: Connection) -> int:
        return ownership.rescue(connection, now, [worker or 0])

    return write


def claiming(store: Store, **wanted: Any) -> Callable[[Connection], Any]:
    def write(connection: Connection) -> Any:
        return claim(connection, store.clock.now(), wants(store, **wanted))

    return write


# finish × rescue: a worker that seemed dead records its answer while somebody takes its lease away


async def running_poll(race: Race) -> Change:
    await fill(race.one, 1)
    await set_running(race.one)
    race.clock.move(60)
    [claimed] = (await take(race.one, polls=1)).polls
    return await polled(race.one, claimed, done(f"task-{claimed.job_id}", used="8"))


async def test_finish_before_rescue(race: Race) -> None:
    finish = await running_poll(race)
    rescue = race.other.write(rescuing(race.one.worker, race.clock.now()))
    assert await race.both(changing(finish), race.one, rescue) == (1, 0)
    assert await state_of(race.one, finish.job_id) is State.DOWNLOADING


async def test_rescue_before_finish(race: Race) -> None:
    finish = await running_poll(race)
    rescue = rescuing(race.one.worker, race.clock.now())
    rescued, finished = await race.both(rescue, race.other, race.one.record(finish))
    assert (rescued, type(finished)) == (1, Fenced)
    assert await state_of(race.one, finish.job_id) is State.RUNNING
    assert [row.kind for row in await rows(race.one, ledger)] == ["estimated"], "not charged by the fenced one"


# accept × rescue: the same for an answer that says that we have paid


async def wired_answer(race: Race) -> tuple[Change, ...]:
    await fill(race.one, 1)
    [claimed] = await take_submissions(race.one)
    await mark_brink(race.one, claimed)
    return after_submission(await submission(race.one, claimed), Accepted("task-1", Decimal(9)))


async def test_accept_before_rescue(race: Race) -> None:
    [accepted] = await wired_answer(race)
    rescue = race.other.write(rescuing(race.one.worker, race.clock.now()))
    assert await race.both(changing(accepted), race.one, rescue) == (1, 0)
    assert await state_of(race.one, accepted.job_id) is State.RUNNING


async def test_rescue_before_accept(race: Race) -> None:
    """The task is not lost: the job is an open question, which the same key or the history will answer."""
    [accepted] = await wired_answer(race)
    rescue = rescuing(race.one.worker, race.clock.now())
    rescued, late = await race.both(rescue, race.other, race.one.record(accepted))
    assert (rescued, type(late)) == (1, Fenced)
    work = await work_of(race.one, accepted.job_id)
    assert work.standing.state is State.UNKNOWN
    assert work.attempt is not None
    assert (work.attempt.outcome, work.attempt.bill.reserved, work.attempt.bill.charged) == ("crash", 10, 0)


# brink × rescue: the last moment at which nothing has left yet


async def test_brink_before_rescue(race: Race) -> None:
    """The bytes are about to leave, so it must not be taken for unsent: it would be submitted a second time."""
    await fill(race.one, 1)
    [claimed] = await take_submissions(race.one)
    attempt = (await work_of(race.one, claimed.job_id)).attempt
    assert attempt is not None
    brink = Brink(claimed.job_id, attempt.id, claimed.lease, T0)
    rescue = race.other.write(rescuing(race.one.worker, race.clock.now()))
    marked, rescued = await race.both(lambda connection: mark_brinks(connection, [brink]), race.one, rescue)
    assert (marked, rescued) == ([True], 1)
    assert await state_of(race.one, claimed.job_id) is State.UNKNOWN


async def test_rescue_before_brink(race: Race) -> None:
    await fill(race.one, 1)
    [claimed] = await take_submissions(race.one)
    rescue = rescuing(race.one.worker, race.clock.now())
    rescued, late = await race.both(rescue, race.other, mark_brink(race.one, claimed))
    assert (rescued, type(late)) == (1, Fenced), "nothing may leave"
    work = await work_of(race.one, claimed.job_id)
    assert work.standing.state is State.QUEUED
    assert work.attempt is not None
    assert work.attempt.brink_at is None


# finish × cancel: the person believes that the job still is queued


async def cancel_of(store: Store, job: int) -> Change:
    work = await work_of(store, job)
    believed = replace(work, standing=replace(work.standing, state=State.QUEUED))
    return step(Event.CANCELLED, believed, State.CANCELLED, None, T0)


async def test_finish_before_cancel(race: Race) -> None:
    finish = await running_poll(race)
    cancel = race.other.record(await cancel_of(race.other, finish.job_id))
    finished, late = await race.both(changing(finish), race.one, cancel)
    assert (finished, type(late)) == (1, Fenced)
    assert await state_of(race.one, finish.job_id) is State.DOWNLOADING


async def test_cancel_before_finish(race: Race) -> None:
    """It was not queued any more, so it is not cancelled, and what was paid for is followed."""
    finish = await running_poll(race)
    cancel = changing(await cancel_of(race.other, finish.job_id))
    async with held(race.other, cancel) as transaction:
        finishing = asyncio.ensure_future(outcome(race.one.record(finish)))
        assert await transaction.commit() == 0
    assert await finishing is None
    assert await state_of(race.one, finish.job_id) is State.DOWNLOADING


# claim × claim: the last slot, the last request of the window, the last credits


@pytest.mark.parametrize(
    ("limits", "budget"),
    [({"concurrency": 1}, None), ({"windows": [(1, 60)]}, None), ({}, {ACCOUNT: "10"})],
    ids=["slot", "request", "credits"],
)
async def test_two_who_claim_the_last_one(race: Race, limits: dict[str, Any], budget: dict[str, str] | None) -> None:
    """Whoever comes second sees what the first one took, although that was not committed when it came."""
    await fill(race.one, 2, accounts=[settings(**limits)], budget=budget)
    first, second = await intents(race.one)
    rival = race.other if race.other.worker is not None else race.one
    async with held(race.one, claiming(race.one, intents=[first])) as transaction:
        late = asyncio.ensure_future(rival.write(claiming(rival, intents=[second])))
        await blocked(race.db, late)
        early = await transaction.commit()
    assert (len(early.submissions), len((await late).submissions)) == (1, 0)


# cancel × claim: the person cancels while the lane takes the job


async def queued_job(race: Race) -> tuple[int, Change]:
    await fill(race.one, 1)
    [row] = await rows(race.one, jobs)
    work = await work_of(race.other, row.id)
    return row.id, step(Event.CANCELLED, work, State.CANCELLED, None, T0)


async def test_cancel_before_claim(race: Race) -> None:
    job, cancel = await queued_job(race)
    ready = await intents(race.one)
    cancelled, taken = await race.both(changing(cancel), race.other, race.one.write(claiming(race.one, intents=ready)))
    assert (cancelled, taken.submissions) == (1, [])
    assert await told(race.one, job) == ["cancelled"]
    assert await rows(race.one, attempts) == [], "no intent to pay for what was cancelled"
    assert await rows(race.one, ledger) == []


async def test_claim_before_cancel(race: Race) -> None:
    job, cancel = await queued_job(race)
    ready = await intents(race.one)
    taken, late = await race.both(claiming(race.one, intents=ready), race.one, race.other.record(cancel))
    assert (len(taken.submissions), type(late)) == (1, Fenced)
    assert await state_of(race.one, job) is State.SUBMITTING
    assert await told(race.one, job) == ["claimed"]


# poll × poll: a task is asked by one at a time


async def test_two_who_poll_the_same_task(race: Race) -> None:
    await fill(race.one, 1)
    await set_running(race.one)
    race.clock.move(60)
    second = race.other if race.other.worker is not None else race.one
    async with held(race.one, claiming(race.one, polls=1)) as transaction:
        late = asyncio.ensure_future(second.write(claiming(second, polls=1)))
        await blocked(race.db, late)
        early = await transaction.commit()
    assert (len(early.polls), len((await late).polls)) == (1, 0)


@pytest.mark.parametrize("first", ["old", "new"])
async def test_the_answers_of_an_old_and_a_new_poll(race: Race, first: str) -> None:
    """The first poll's lease was taken away and the task asked anew: only the second answer counts."""
    old = await running_poll(race)
    await race.one.write(rescuing(race.one.worker, race.clock.now()))
    [claimed] = (await take(race.one, polls=1)).polls
    new = await polled(race.one, claimed, done(f"task-{claimed.job_id}", used="7"))
    early, late = (old, new) if first == "old" else (new, old)
    async with held(race.other, changing(early)) as transaction:
        waiting = asyncio.ensure_future(outcome(race.one.record(late)))
        held_first = await transaction.commit()
    assert (held_first, await waiting is None) == ((0, True) if first == "old" else (1, False))
    charged = [row.amount for row in await rows(race.one, ledger, ledger.c.kind == "refunded")]
    assert charged == [3]
    assert (await told(race.one, claimed.job_id)).count("finished") == 1


# submit × pause: the account runs out of credits while the next order is claimed


def pausing(now: datetime) -> Callable[[Connection], None]:
    def write(connection: Connection) -> None:
        accounts.pause(connection, now, ACCOUNT, "insufficient_credits", "empty", None)

    return write


async def test_pause_before_submit(race: Race) -> None:
    await fill(race.one, 2)
    ready = await intents(race.one)
    claiming_now = race.one.write(claiming(race.one, intents=ready))
    _, taken = await race.both(pausing(race.clock.now()), race.other, claiming_now)
    assert (taken.submissions, taken.paused, taken.wake_at) == ([], True, T0 + seconds(30))
    assert await rows(race.one, attempts) == []


async def test_submit_before_pause(race: Race) -> None:
    await fill(race.one, 2)
    ready = await intents(race.one)
    pausing_now = race.other.write(pausing(race.clock.now()))
    taken, _ = await race.both(claiming(race.one, intents=ready[:1]), race.one, pausing_now)
    assert len(taken.submissions) == 1
    assert (await take(race.one, intents=ready[1:])).submissions == []
    await accept(race.one, taken.submissions[0])


# adopt × found: a person adopts a task while a look finds it


async def held_and_lost(race: Race) -> tuple[Change, Change]:
    """One job held, one open question; the person and the look both believe that `task-9` is theirs."""
    await fill(race.one, 2)
    for lookable in (False, True):
        [claimed] = await take_submissions(race.one, 1, keyed=False)
        await answer(race.one, claimed, Unanswered("silence"), keyed=False, lookable=lookable)
    waiting, lost = [await work_of(race.one, row.id) for row in await rows(race.one, jobs)]
    assert (waiting.standing.state, lost.standing.state) == (State.HELD, State.UNKNOWN)
    [look] = (await take(race.one, keyed=False, looks=True)).looks
    adopted = step(Event.ADOPTED, waiting, State.RUNNING, None, T0, task_id="task-9", accepted_at=T0)
    found = step(Event.FOUND, lost, State.RUNNING, look.lease, T0, task_id="task-9", accepted_at=T0)
    return adopted, found


@pytest.mark.parametrize("first", ["adopt", "found"])
async def test_one_task_for_two_jobs(race: Race, first: str) -> None:
    adopted, found = await held_and_lost(race)
    if first == "adopt":
        early, late = await race.both(changing(adopted), race.other, race.one.record(found))
    else:
        early, late = await race.both(changing(found), race.one, race.other.record(adopted))
    assert (early, type(late)) == (1, Taken)
    owners = [row.id for row in await rows(race.one, jobs) if row.task_id == "task-9"]
    assert owners == [adopted.job_id if first == "adopt" else found.job_id]
    expected = (State.RUNNING, State.UNKNOWN) if first == "adopt" else (State.HELD, State.RUNNING)
    assert (await state_of(race.one, adopted.job_id), await state_of(race.one, found.job_id)) == expected


@pytest.mark.parametrize("first", ["adopt", "found"])
async def test_one_job_adopted_and_found(race: Race, first: str) -> None:
    """The person saw it held after the last look; another look, begun before, finds its task after all."""
    await fill(race.one, 1)
    [claimed] = await take_submissions(race.one, 1, keyed=False)
    await answer(race.one, claimed, Unanswered("silence"), keyed=False)
    [look] = (await take(race.one, keyed=False, looks=True)).looks
    lost = await work_of(race.one, claimed.job_id)
    found = step(Event.FOUND, lost, State.RUNNING, look.lease, T0, task_id="task-9", accepted_at=T0)
    seen = replace(lost, standing=replace(lost.standing, state=State.HELD))
    adopted = step(Event.ADOPTED, seen, State.RUNNING, None, T0, task_id="task-9", accepted_at=T0)
    if first == "found":
        early, late = await race.both(changing(found), race.one, race.other.record(adopted))
        assert (early, type(late)) == (1, Fenced)
    else:
        hold = step(Event.NOT_FOUND, lost, State.HELD, look.lease, T0)
        early, late = await race.both(changing(hold, adopted), race.other, race.one.record(found))
        assert (early, type(late)) == (2, Fenced)
    assert await state_of(race.one, claimed.job_id) is State.RUNNING


# retry × retry, and a person against a run that was begun anew


async def test_two_people_who_retry_the_same_job(race: Race) -> None:
    await fill(race.one, 1)
    [job] = await set_running(race.one)
    await race.one.record(step(Event.TASK_FAILED, await work_of(race.one, job), State.FAILED, None, T0))
    failed = await work_of(race.other, job)
    again = step(Event.RETRIED, failed, State.QUEUED, None, T0)
    early, late = await race.both(changing(again), race.one, race.other.record(again))
    assert (early, type(late)) == (1, Fenced)
    assert (await told(race.one, job)).count("retried") == 1
