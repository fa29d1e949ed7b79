"""Request windows: they slide, they are shared by all requests of an account, and they survive the process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.errors import Fenced
from runner.exchange import Action
from runner.jobs import Event, State
from runner.store import Store, accounts, open_store
from runner.store.changes import end_requests, requests
from runner.store.windows import claim_request
from runner.verdicts.submission import after_submission
from store.kit import (
    ACCOUNT,
    T0,
    HandClock,
    done,
    fall_silent,
    fill,
    intents,
    polled,
    refusal,
    rows,
    seconds,
    set_running,
    settings,
    step,
    submission,
    take,
    take_submissions,
    work_of,
)


def three_a_minute(concurrency: int = 9) -> list:
    return [settings(concurrency=concurrency, windows=[(3, 60)])]


async def test_submissions_and_polls_share_the_window(store: Store, clock: HandClock) -> None:
    await fill(store, 9, accounts=three_a_minute())
    assert len(await set_running(store, 2)) == 2
    clock.move(10)
    taken = await take(store, intents=await intents(store), polls=9)
    assert (len(taken.submissions), len(taken.polls)) == (1, 0), "submissions go first"


async def test_a_request_counts_until_sixty_seconds_after_its_answer(store: Store, clock: HandClock) -> None:
    await fill(store, 9, accounts=three_a_minute())
    slow, *_ = await take_submissions(store, 1)
    clock.move(50)
    await set_running(store, 2)
    for claimed in [slow]:
        clock.move(40)
        await store.record(*after_submission(await submission(store, claimed), refusal(Action.LATER)))
    assert await take_submissions(store) == [], "answered just now"
    clock.move(20)
    assert len(await take_submissions(store)) == 2, "the two of 70 seconds ago are out"
    clock.move(40)
    assert len(await take_submissions(store)) == 1, "the slow one counts from its answer, not from its start"


async def test_a_request_without_an_answer_counts_for_ever(store: Store, clock: HandClock) -> None:
    await fill(store, 9, accounts=three_a_minute())
    await take_submissions(store, 3)
    clock.move(86_400)
    assert await take_submissions(store) == []


async def test_the_window_outlives_the_process(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 9, accounts=three_a_minute())
        await set_running(store, 3)
    for _ in range(5):
        clock.move(11)
        async with open_store(db, clock, own=True) as store:
            assert not await take(store, intents=await intents(store), polls=9)
    clock.move(5)
    async with open_store(db, clock, own=True) as store:
        assert len(await take_submissions(store)) == 3


async def test_an_unanswered_request_of_a_dead_process_counts_from_the_takeover(db: str, clock: HandClock) -> None:
    """It may have left at the very end of that process; how long ago that was, nobody knows."""
    async with open_store(db, clock, own=True) as store:
        await fill(store, 9, accounts=three_a_minute())
        assert len(await take_submissions(store, 3)) == 3
    clock.move(100)
    await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        assert [row.ended_at for row in await rows(store, requests)] == [clock.now()] * 3
        clock.move(59)
        assert await take_submissions(store) == []
        clock.move(1)
        assert len(await take_submissions(store)) == 3


async def test_every_window_of_an_account_must_have_room(store: Store, clock: HandClock) -> None:
    await fill(store, 99, accounts=[settings(concurrency=99, windows=[(2, 1), (3, 60)])])
    assert len(await set_running(store)) == 2
    taken = await take(store, intents=await intents(store))
    assert (taken.submissions, taken.wake_at) == ([], T0 + seconds(1))
    clock.move(1)
    assert len(await set_running(store)) == 1
    clock.move(1)
    taken = await take(store, intents=await intents(store))
    assert (taken.submissions, taken.wake_at) == ([], T0 + seconds(60))


async def test_the_answer_ends_its_request_even_if_the_job_has_moved_on(store: Store, clock: HandClock) -> None:
    await fill(store, 1, accounts=three_a_minute())
    await set_running(store)
    clock.move(60)
    [claimed] = (await take(store, polls=1)).polls
    change = await polled(store, claimed, done(f"task-{claimed.job_id}"))
    with pytest.raises(Fenced):
        await store.record(replace(change, lease=claimed.lease + 2))
    assert [row.ended_at for row in await rows(store, requests, requests.c.id == claimed.request)] == [clock.now()]


async def test_requests_that_no_window_counts_are_forgotten(store: Store, clock: HandClock) -> None:
    await fill(store, 50, accounts=three_a_minute(99))
    for _ in range(4):
        await set_running(store)
        clock.move(60)
    await take(store)
    assert len(await rows(store, requests)) == 0


async def test_an_account_without_windows_logs_nothing(store: Store) -> None:
    await fill(store, 5)
    await set_running(store)
    assert await rows(store, requests) == []


async def ask_for_one(store: Store, keep: int = 0) -> tuple:
    return await store.write(claim_request, store.clock.now(), store.worker, ACCOUNT, keep)


async def test_a_request_that_belongs_to_no_job_shares_the_window(store: Store, clock: HandClock) -> None:
    await fill(store, 9, accounts=three_a_minute())
    await set_running(store, 1)
    allowed, row, at = await ask_for_one(store)
    assert (allowed, row is None, at) == (True, False, None)
    await store.write(end_requests, {row: clock.now()})
    allowed, row, at = await ask_for_one(store, keep=1)
    assert (allowed, row) == (False, None), "the last one is kept for somebody else"
    assert (await ask_for_one(store))[0]
    assert (await ask_for_one(store))[2] == T0 + seconds(60)
    clock.move(60)
    assert (await ask_for_one(store))[0]


async def test_a_request_that_belongs_to_no_job_waits_for_the_account(store: Store, clock: HandClock) -> None:
    await fill(store, 1)
    assert await ask_for_one(store) == (True, None, None)
    await store.write(accounts.block, clock.now(), ACCOUNT, 30.0)
    assert await ask_for_one(store) == (False, None, T0 + seconds(30))
    clock.move(40)
    await store.write(accounts.stop, ACCOUNT, "the key is refused")
    assert await ask_for_one(store) == (False, None, None), "no time can be told: a person is needed"


async def test_the_providers_own_limit_replaces_ours(store: Store) -> None:
    await fill(store, 9, accounts=[settings(concurrency=9, windows=[(3, 60), (100, 3600)])])
    await store.write(accounts.obey_limit, ACCOUNT, 3, 5)
    assert len(await take_submissions(store)) == 5
    await store.write(accounts.obey_limit, ACCOUNT, 3, 5)
    assert await take_submissions(store) == []


async def test_a_listed_walk_takes_a_request_for_each_page(store: Store, clock: HandClock) -> None:
    await fill(store, 120, accounts=[settings(concurrency=200, windows=[(121, 60)])])
    assert len(await set_running(store, 120)) == 120
    clock.move(50)
    taken = await take(store, poll_pages=3)
    assert (len(taken.listing), len(taken.pages)) == (50, 1), "only one page has room"
    clock.move(10)
    taken = await take(store, poll_pages=3)
    assert (len(taken.listing), len(set(taken.pages))) == (70, 2)


async def test_a_postponed_poll_does_not_lose_its_turn(store: Store, clock: HandClock) -> None:
    await fill(store, 1, accounts=three_a_minute())
    [job] = await set_running(store)
    work = await work_of(store, job)
    later = clock.now() + seconds(3600)
    await store.record(step(Event.POLLED, work, State.RUNNING, None, clock.now(), due_at=later))
    clock.move(3599)
    assert (await take(store, polls=1)).wake_at == later
    clock.move(1)
    assert len((await take(store, polls=1)).polls) == 1
