"""The connection dies at a COMMIT: nobody knows whether it was carried out, and everything comes out as if it had been,
once.

A proxy between the driver and the server drops the connection with the COMMIT unsent (`before`), carried out and its
answer unheard (`after`), or still on its way (`late`): then it arrives when the next try has begun already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from proxy import Cut, Way, way_to
from sqlalchemy import Connection

from runner.errors import Fenced
from runner.exchange import Accepted
from runner.jobs import Change, State
from runner.store import Store, open_store
from runner.store.changes import attempts, jobs, ledger, requests
from runner.store.claims import Round, claim
from runner.store.enqueue import enqueue
from runner.store.intents import Claim
from runner.store.ownership import workers
from runner.store.store import rescue
from runner.store.tables import totals
from runner.store.windows import claim_request
from runner.verdicts.submission import after_submission
from store.kit import (
    ACCOUNT,
    T0,
    HandClock,
    batch,
    blocked,
    done,
    fall_silent,
    fill,
    intents,
    mark_brink,
    order,
    outcome,
    polled,
    rows,
    set_running,
    settings,
    state_of,
    submission,
    take,
    take_submissions,
    told,
    wants,
    work_of,
)

CUTS = pytest.mark.parametrize("how", ["before", "after", "late"])


@pytest_asyncio.fixture(loop_scope="session")
async def way(postgres_queue_db: str) -> AsyncIterator[Way]:
    async with way_to(postgres_queue_db) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def store(way: Way, clock: HandClock) -> AsyncIterator[Store]:
    async with open_store(way.url, clock, own=True) as opened:
        yield opened


async def cut_off(way: Way, how: Cut, work: Coroutine[Any, Any, Any]) -> Any:
    """What it returns, the connection being dropped at its COMMIT."""
    way.cut(how)
    task = asyncio.ensure_future(work)
    await way.happened.wait()
    if how == "late":
        await blocked(way.server.render_as_string(hide_password=False), task)
        assert not task.done(), "it must not judge what has not ended"
        way.let_go()
    found = await task
    assert way.cuts == [how]
    return found


async def booked(store: Store) -> list[tuple[str, Decimal]]:
    return [(row.kind, row.amount) for row in await rows(store, ledger)]


# What is recorded


async def answered(store: Store) -> tuple[Change, ...]:
    """The record of an order that was just accepted."""
    await fill(store)
    [claimed] = await take_submissions(store)
    await mark_brink(store, claimed)
    return after_submission(await submission(store, claimed), Accepted("task-1", Decimal(9)))


@CUTS
async def test_an_answer_is_recorded_once_and_known_as_ours(store: Store, way: Way, how: Cut) -> None:
    [accepted] = await answered(store)
    await cut_off(way, how, store.record(accepted))
    work = await work_of(store, accepted.job_id)
    assert (work.standing.state, work.standing.task_id) == (State.RUNNING, "task-1")
    assert await told(store, accepted.job_id) == ["claimed", "accepted"]
    assert await booked(store) == [("estimated", 10), ("estimated", -10), ("charged", 9)]
    assert [(row.estimated, row.charged) for row in await rows(store, totals)] == [(0, 9)]


@CUTS
async def test_a_final_cost_is_booked_once(store: Store, way: Way, how: Cut) -> None:
    await fill(store)
    [job] = await set_running(store)
    store.clock.move(60)  # type: ignore[attr-defined]
    [claimed] = (await take(store, polls=1)).polls
    finished = await polled(store, claimed, done("task-1", used="7"))
    await cut_off(way, how, store.record(finished))
    assert (await booked(store))[-1] == ("refunded", 3)
    assert [kind for kind, _ in await booked(store)].count("refunded") == 1
    assert await state_of(store, job) is State.DOWNLOADING


@CUTS
async def test_of_a_shared_commit_each_learns_its_own(store: Store, way: Way, how: Cut) -> None:
    """One that holds, one that is fenced, and a claim, all in one transaction."""
    [accepted] = await answered(store)
    [first, second] = (await fill(store, [order(2), order(3)], name="more"), await intents(store))[1]
    stale = after_submission(await submission(store, Claim(accepted.job_id, 5)), Accepted("task-2"))
    together = asyncio.gather(
        store.record(accepted),
        outcome(store.record(*stale)),
        store.write(claim, T0, wants(store, intents=[first, second])),
    )
    _, fenced, taken = await cut_off(way, how, _all(together))
    assert isinstance(fenced, Fenced)
    assert [c.job_id for c in taken.submissions] == [first.job_id, second.job_id]
    assert await state_of(store, accepted.job_id) is State.RUNNING
    assert len(await rows(store, attempts)) == 3


async def _all(together: asyncio.Future[Any]) -> Any:
    return await together


# What is claimed


@CUTS
async def test_a_claim_is_not_lost(store: Store, way: Way, how: Cut) -> None:
    """Its leases are known and hold: nothing is left behind that nobody works on."""
    await fill(store, 2, accounts=[settings(windows=[(9, 60)])])
    ready = await intents(store)
    taken: Round = await cut_off(way, how, store.write(claim, T0, wants(store, intents=ready)))
    assert len(taken.submissions) == 2
    assert len(await rows(store, attempts)) == 2
    assert len(await rows(store, requests)) == 2
    assert await booked(store) == [("estimated", 10)] * 2
    for claimed in taken.submissions:
        await mark_brink(store, claimed)
        await store.record(*after_submission(await submission(store, claimed), Accepted(f"task-{claimed.job_id}")))
    assert {row.state for row in await rows(store, jobs)} == {"running"}


@CUTS
async def test_a_request_is_logged_once(store: Store, way: Way, how: Cut) -> None:
    await fill(store, accounts=[settings(windows=[(9, 60)])])
    allowed, row, _ = await cut_off(way, how, store.write(claim_request, T0, store.worker, ACCOUNT))
    assert allowed
    assert [found.id for found in await rows(store, requests)] == [row]


@CUTS
async def test_a_brink_is_certain_when_the_first_byte_leaves(store: Store, way: Way, how: Cut) -> None:
    await fill(store)
    [claimed] = await take_submissions(store)
    await cut_off(way, how, mark_brink(store, claimed))
    assert [row.brink_at for row in await rows(store, attempts)] == [T0]


# What is ordered


@CUTS
async def test_a_manifest_is_enqueued_once(store: Store, way: Way, how: Cut) -> None:
    await fill(store, [order(1)])
    orders = [order(n) for n in (2, 3, 4)]
    added = await cut_off(way, how, store.write(enqueue, T0, batch(), orders))
    assert (added.new, added.kept, added.gone) == (3, 0, 1)
    assert [row.state for row in await rows(store, jobs)] == ["cancelled", "queued", "queued", "queued"]
    assert await told(store, (await rows(store, jobs))[0].id) == ["cancelled"]


# Lost again and again


@pytest.mark.parametrize("first", ["before", "after"])
@pytest.mark.parametrize("second", ["before", "after"])
async def test_the_try_after_a_lost_commit_is_lost_too(store: Store, way: Way, first: Cut, second: Cut) -> None:
    await fill(store)
    losses: list[Cut] = [first, second]
    count = await rows(store, jobs)

    def add_one(connection: Connection) -> int:
        if len(way.cuts) < len(losses):
            way.cut(losses[len(way.cuts)])
        connection.execute(jobs.update().values(errors=jobs.c.errors + 1))
        return 7

    way.cut(first)
    again = asyncio.ensure_future(store.write(add_one))
    await way.happened.wait()
    if first == "after":
        way.cut(second)  # of the transaction that finds out about the first one
    assert await again == 7
    assert way.cuts == losses
    assert [row.errors for row in await rows(store, jobs)] == [row.errors + 1 for row in count]


# Meanwhile others have taken us for dead


async def rescued_meanwhile(way: Way, how: Cut, work: Coroutine[Any, Any, Any], other: Store) -> Any:
    """Its COMMIT is cut off, and before it can be tried again another worker has taken over what ours held."""
    way.cut(how, shut=True)
    task = asyncio.ensure_future(outcome(work))
    await way.happened.wait()
    await fall_silent(way.server.render_as_string(hide_password=False), but=other.worker)
    await rescue(other)
    way.open()
    return await task


@pytest_asyncio.fixture(loop_scope="session")
async def other(store: Store, postgres_queue_db: str, clock: HandClock) -> AsyncIterator[Store]:
    async with open_store(postgres_queue_db, clock, own=True) as opened:
        yield opened


@pytest.mark.parametrize(("how", "state"), [("before", State.UNKNOWN), ("after", State.RUNNING)])
async def test_a_record_is_not_made_twice(store: Store, way: Way, other: Store, how: Cut, state: State) -> None:
    [accepted] = await answered(store)
    assert isinstance(await rescued_meanwhile(way, how, store.record(accepted), other), Fenced)
    assert await state_of(store, accepted.job_id) is state
    assert [kind for kind, _ in await booked(store)].count("charged") == (how == "after")


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_brink_is_no_leave_to_send_any_more(store: Store, way: Way, other: Store, how: Cut) -> None:
    await fill(store)
    [claimed] = await take_submissions(store)
    assert isinstance(await rescued_meanwhile(way, how, mark_brink(store, claimed), other), Fenced)
    assert await state_of(store, claimed.job_id) is (State.QUEUED if how == "before" else State.UNKNOWN)


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_claim_is_made_anew(store: Store, way: Way, other: Store, how: Cut) -> None:
    await fill(store)
    ready = await intents(store)
    taken = await rescued_meanwhile(way, how, store.write(claim, T0, wants(store, intents=ready)), other)
    [claimed] = taken.submissions
    await mark_brink(store, claimed)
    work = await work_of(store, claimed.job_id)
    assert work.attempt is not None
    assert (work.standing.attempts, work.attempt.bill.reserved) == (1, 10)
    assert sum(amount for _, amount in await booked(store)) == 10
    assert {row.id for row in await rows(other, workers)} == {store.worker, other.worker}
