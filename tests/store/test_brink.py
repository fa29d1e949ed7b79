"""The brink: set once, under the lease only, and on disk before anything leaves."""

from __future__ import annotations

import asyncio

import pytest

from runner.errors import Fenced
from runner.jobs import Event, State
from runner.store import Store, open_store
from runner.store.brink import Brink
from runner.verdicts.submission import Unanswered
from store.kit import (
    T0,
    HandClock,
    answer,
    fill,
    mark_brink,
    seconds,
    step,
    take,
    take_submissions,
    work_of,
)


async def test_it_is_set_once_and_never_moves(store: Store, clock: HandClock) -> None:
    await fill(store)
    [claimed] = await take_submissions(store)
    await mark_brink(store, claimed)
    clock.move(5)
    await mark_brink(store, claimed)
    work = await work_of(store, claimed.job_id)
    assert work.attempt is not None
    assert work.attempt.brink_at == T0


async def test_a_resend_keeps_the_brink_of_the_first_try(store: Store, clock: HandClock) -> None:
    await fill(store)
    [claimed] = await take_submissions(store)
    await answer(store, claimed, Unanswered("silence"))
    clock.move(60)
    [resent] = (await take(store, resends=1)).resends
    await mark_brink(store, resent)
    work = await work_of(store, claimed.job_id)
    assert work.attempt is not None
    assert (work.attempt.brink_at, work.standing.state) == (T0, State.SUBMITTING)


@pytest.mark.parametrize("wrong", ["lease", "job", "attempt"])
async def test_without_the_lease_nothing_may_leave(store: Store, wrong: str) -> None:
    await fill(store, 2)
    claimed, other = await take_submissions(store)
    work, stranger = await work_of(store, claimed.job_id), await work_of(store, other.job_id)
    assert work.attempt is not None
    assert stranger.attempt is not None
    brink = Brink(
        other.job_id if wrong == "job" else claimed.job_id,
        stranger.attempt.id if wrong == "attempt" else work.attempt.id,
        claimed.lease + 2 if wrong == "lease" else claimed.lease,
        T0,
    )
    with pytest.raises(Fenced):
        await store.mark_brink(brink)
    for job in (claimed.job_id, other.job_id):
        attempt = (await work_of(store, job)).attempt
        assert attempt is not None
        assert attempt.brink_at is None


async def test_a_job_that_was_put_back_has_no_brink_any_more(store: Store) -> None:
    """Somebody rescued it: whoever wakes up now must not send."""
    await fill(store)
    [claimed] = await take_submissions(store)
    work = await work_of(store, claimed.job_id)
    await store.record(step(Event.PUT_BACK, work, State.QUEUED, claimed.lease, T0, attempts=0))
    with pytest.raises(Fenced):
        await mark_brink(store, claimed)


async def test_an_earlier_attempt_of_the_job_has_no_brink_any_more(store: Store, clock: HandClock) -> None:
    await fill(store)
    [first] = await take_submissions(store)
    old = await work_of(store, first.job_id)
    assert old.attempt is not None
    await store.record(step(Event.PUT_BACK, old, State.QUEUED, first.lease, T0, attempts=0))
    [second] = await take_submissions(store)
    with pytest.raises(Fenced):
        await store.mark_brink(Brink(first.job_id, old.attempt.id, second.lease, clock.now()))


async def test_in_a_crowd_only_the_fenced_one_is_refused(store: Store) -> None:
    await fill(store, 5)
    claims = await take_submissions(store)
    works = [await work_of(store, claimed.job_id) for claimed in claims]
    stale = claims[2]
    await store.record(step(Event.PUT_BACK, works[2], State.QUEUED, stale.lease, T0, attempts=0))
    brinks = [
        Brink(w.id, w.attempt.id, c.lease, T0 + seconds(1)) for w, c in zip(works, claims, strict=True) if w.attempt
    ]
    told = await asyncio.gather(*(store.mark_brink(brink) for brink in brinks), return_exceptions=True)
    assert [isinstance(found, Fenced) for found in told] == [False, False, True, False, False]
    after = [(await work_of(store, claimed.job_id)).attempt for claimed in claims]
    assert [a is not None and a.brink_at is not None for a in after] == [True, True, False, True, True]


async def test_it_outlives_the_process(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store)
        [claimed] = await take_submissions(store)
        await mark_brink(store, claimed)
    async with open_store(db, clock, own=True) as store:
        attempt = (await work_of(store, claimed.job_id)).attempt
        assert attempt is not None
        assert attempt.brink_at == T0
