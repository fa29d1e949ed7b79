"""Claims: a slot belongs to a job's state, limits hold whoever asks, and the clock says when to ask again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from datetime import datetime, timedelta

import pytest

from runner.errors import ErrorKind, Fenced
from runner.exchange import Action, Refusal
from runner.jobs import IN_FLIGHT, Event, State
from runner.store import Store, accounts, open_store
from runner.store.changes import attempts, jobs
from runner.store.claims import claim, submission_room
from runner.store.intents import Intent
from runner.store.work import peek
from runner.verdicts.polling import SETTLE_AFTER
from runner.verdicts.submission import Unanswered, Unsent
from store.kit import (
    ACCOUNT,
    T0,
    HandClock,
    Other,
    accept,
    answer,
    done,
    fall_silent,
    fill,
    intents,
    job_row,
    mark_brink,
    order,
    polled,
    refusal,
    rows,
    seconds,
    set_downloading,
    set_running,
    settings,
    state_of,
    step,
    take,
    take_submissions,
    told,
    wants,
    work_of,
)

LOST = Unanswered("no answer within 120 s")
UNREACHABLE = Unsent("connection refused")


# A claim takes a slot, a lease and an intent together


async def test_a_claim_freezes_the_intent_and_leases_the_job(store: Store) -> None:
    await fill(store, 1)
    [ready] = await intents(store)
    [claimed] = (await take(store, intents=[ready])).submissions
    work = await work_of(store, claimed.job_id)
    assert work.standing.state is State.SUBMITTING
    assert (work.lease, work.standing.attempts) == (claimed.lease, 1)
    assert work.attempt is not None
    assert (work.attempt.body, work.attempt.path) == (ready.body, ready.path)
    assert (work.attempt.idempotency_key, work.attempt.fingerprint) == (ready.idempotency_key, ready.fingerprint)
    assert (work.attempt.intent_at, work.attempt.brink_at, work.attempt.outcome) == (T0, None, None)
    assert work.attempt.bill.reserved == 10
    assert (await job_row(store, work.id)).owner == store.worker
    assert await told(store, work.id) == ["claimed"]


async def test_submissions_go_by_priority_and_then_in_order(store: Store) -> None:
    await fill(store, [order(1), order(2, priority=1), order(3), order(4, priority=1)])
    works = await store.read(peek, store.clock.now(), ACCOUNT, 3, None)
    assert [work.key[:4] for work in works] == ["0002", "0004", "0001"]


async def test_a_peek_leaves_out_other_batches_models_accounts_and_what_is_not_due(
    store: Store, clock: HandClock
) -> None:
    first = await fill(store, [order(1)], name="one")
    second = await fill(store, [order(1), order(2, "other")], name="two", accounts=[settings(), settings("other")])
    now = clock.now()
    assert [w.batch for w in await store.read(peek, now, ACCOUNT, 9, [second.batch_id])] == ["two"]
    assert [w.batch for w in await store.read(peek, now, ACCOUNT, 9, [first.batch_id, second.batch_id])] == [
        "one",
        "two",
    ]
    assert await store.read(peek, now, ACCOUNT, 9, None, {"sd2"}) == []
    assert await store.read(peek, now, ACCOUNT, 9, []) == []
    assert await store.read(peek, now - seconds(1), ACCOUNT, 9, None) == []


async def test_an_intent_of_another_generation_or_of_a_job_that_left_the_queue_takes_nothing(store: Store) -> None:
    await fill(store, 2)
    stale, gone = await intents(store)
    work = await work_of(store, gone.job_id)
    await store.record(step(Event.CANCELLED, work, State.CANCELLED, None, store.clock.now()))
    [claimed] = (await take(store, intents=[stale])).submissions
    await answer(store, claimed, refusal(Action.FAIL, ErrorKind.INVALID_REQUEST))
    failed = await work_of(store, stale.job_id)
    await store.record(step(Event.RETRIED, failed, State.QUEUED, None, store.clock.now()))
    assert failed.standing.generation == stale.generation + 1
    assert (await take(store, intents=[stale, gone])).submissions == []
    assert len(await rows(store, attempts)) == 1


# A slot belongs to the job's state


async def to_submitting(store: Store) -> None:
    await take_submissions(store, 1)


async def to_unknown(store: Store) -> None:
    [claimed] = await take_submissions(store, 1)
    await answer(store, claimed, LOST)


async def to_running(store: Store) -> None:
    await set_running(store, 1)


async def to_downloading(store: Store) -> None:
    [job] = await set_running(store, 1)
    await set_downloading(store, job)


async def to_succeeded(store: Store) -> None:
    await to_downloading(store)
    [claimed] = (await take(store, downloads=1)).downloads
    work = await work_of(store, claimed.job_id)
    await store.record(step(Event.COMPLETED, work, State.SUCCEEDED, claimed.lease, store.clock.now()))


async def to_failed(store: Store) -> None:
    [claimed] = await take_submissions(store, 1)
    await answer(store, claimed, refusal(Action.FAIL, ErrorKind.INVALID_REQUEST))


async def to_held(store: Store) -> None:
    [claimed] = await take_submissions(store, 1)
    await answer(store, claimed, LOST, keyed=False, lookable=False)


async def to_postponed(store: Store) -> None:
    [claimed] = await take_submissions(store, 1)
    await answer(store, claimed, UNREACHABLE)


WAYS: dict[State, Callable[[Store], Awaitable[None]]] = {
    State.SUBMITTING: to_submitting,
    State.UNKNOWN: to_unknown,
    State.RUNNING: to_running,
    State.DOWNLOADING: to_downloading,
    State.SUCCEEDED: to_succeeded,
    State.FAILED: to_failed,
    State.HELD: to_held,
    State.QUEUED: to_postponed,
}


@pytest.mark.parametrize("state", WAYS, ids=str)
async def test_a_job_keeps_its_slot_exactly_while_it_is_in_flight(store: Store, state: State) -> None:
    await fill(store, 2, accounts=[settings(concurrency=1)])
    await WAYS[state](store)
    found = [State(row.state) for row in await rows(store, jobs)]
    assert found == [state, State.QUEUED]
    room = await store.read(submission_room, ACCOUNT, store.clock.now())
    taken = await take_submissions(store)
    assert (room.free, len(taken)) == ((0, 0) if state in IN_FLIGHT else (1, 1))


async def test_a_lowered_limit_stops_submissions_and_nothing_else(store: Store) -> None:
    await fill(store, 6, accounts=[settings(concurrency=4)])
    assert len(await set_running(store)) == 4
    await fill(store, 6, accounts=[settings(concurrency=2)])
    store.clock.move(60)
    taken = await take(store, intents=await intents(store), polls=9)
    assert (len(taken.submissions), len(taken.polls)) == (0, 4)


async def test_forty_claimers_at_once_never_exceed_a_limit_of_five(db: str, clock: HandClock) -> None:
    """Several workers where the engine knows several: one statement that counts and claims reached 40 there."""
    async with AsyncExitStack() as stack:
        workers = 10 if "://" in db else 1
        stores = [await stack.enter_async_context(open_store(db, clock, own=True)) for _ in range(workers)]
        await fill(stores[0], 40)
        ready = await intents(stores[0])

        async def lane(store: Store, mine: list[Intent]) -> int:
            taken = [await store.write(claim, clock.now(), wants(store, intents=[one])) for one in mine]
            return sum(len(found.submissions) for found in taken)

        lanes = [lane(store, ready[n::workers]) for n, store in enumerate(stores)]
        assert sum(await asyncio.gather(*lanes)) == 5
        found = [row for row in await rows(stores[0], jobs) if row.state == State.SUBMITTING]
        assert len(found) == len({row.lease for row in found}) == 5


CLAIMER = """
import asyncio, sys
from runner.store import open_store
from runner.store.claims import claim
from store.kit import HandClock, intents, wants

async def main(db, part):
    clock = HandClock()
    async with open_store(db, clock, own=True) as store:
        mine = (await intents(store))[part::4]
        print("ready", flush=True)
        sys.stdin.readline()
        taken = [await store.write(claim, clock.now(), wants(store, intents=[i])) for i in mine]
        print(sum(len(t.submissions) for t in taken), flush=True)
        sys.stdin.readline()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_forty_claimers_in_four_processes_never_exceed_a_limit_of_five(
    postgres_database: str, clock: HandClock
) -> None:
    async with open_store(postgres_database, clock, own=True) as store:
        await fill(store, 40)
        with ExitStack() as stack:
            workers = [stack.enter_context(Other(CLAIMER, postgres_database, str(part))) for part in range(4)]
            assert [worker.hear() for worker in workers] == ["ready"] * 4
            for worker in workers:
                worker.tell("go")
            assert sum(int(worker.hear()) for worker in workers) == 5
        assert len([r for r in await rows(store, jobs) if r.state == State.SUBMITTING]) == 5


# Accounts without keys: one submission on the wire, and never beside a look


async def test_without_keys_one_submission_is_on_the_wire_at_a_time(store: Store) -> None:
    await fill(store, 3)
    [first] = await take_submissions(store, keyed=False)
    assert await take_submissions(store, keyed=False) == []
    await accept(store, first, keyed=False)
    [second] = await take_submissions(store, keyed=False)
    assert second.job_id != first.job_id


async def test_with_keys_as_many_as_there_are_slots_go_at_once(store: Store) -> None:
    await fill(store, 9)
    assert len(await take_submissions(store)) == 5


async def test_no_look_while_a_submission_is_on_the_wire(store: Store) -> None:
    await fill(store, 2)
    [lost] = await take_submissions(store, keyed=False)
    await answer(store, lost, LOST, keyed=False)
    [wired] = await take_submissions(store, keyed=False)
    assert (await take(store, keyed=False, looks=True)).looks == []
    await accept(store, wired, keyed=False)
    assert [c.job_id for c in (await take(store, keyed=False, looks=True)).looks] == [lost.job_id]


async def test_no_submission_while_a_look_is_made(store: Store) -> None:
    await fill(store, 2)
    [lost] = await take_submissions(store, keyed=False)
    await answer(store, lost, LOST, keyed=False)
    both = await take(store, keyed=False, looks=True, intents=await intents(store, keyed=False))
    assert ([c.job_id for c in both.looks], both.submissions) == ([lost.job_id], [])
    assert await take_submissions(store, keyed=False) == []
    work, [look] = await work_of(store, lost.job_id), both.looks
    later = store.clock.now() + seconds(60)
    await store.record(step(Event.LOOKED, work, State.UNKNOWN, look.lease, store.clock.now(), due_at=later, looks=1))
    assert len(await take_submissions(store, keyed=False)) == 1


async def test_one_look_answers_for_all_open_questions(store: Store) -> None:
    await fill(store, 4, accounts=[settings(windows=[(10, 60)])])
    for _ in range(2):
        [lost] = await take_submissions(store, keyed=False)
        await answer(store, lost, LOST, keyed=False)
    looks = (await take(store, keyed=False, looks=True)).looks
    assert len({look.job_id for look in looks}) == 2
    assert len({look.request for look in looks}) == 1
    assert looks[0].request is not None


async def test_accounts_with_keys_resend_and_never_look(store: Store) -> None:
    await fill(store, 1)
    [claimed] = await take_submissions(store)
    await answer(store, claimed, LOST)
    assert not await take(store, resends=5, looks=True)
    store.clock.move(60)
    taken = await take(store, resends=5, looks=True)
    assert ([c.job_id for c in taken.resends], taken.looks) == ([claimed.job_id], [])
    work = await work_of(store, claimed.job_id)
    assert (work.standing.state, work.standing.attempts) == (State.SUBMITTING, 1)
    assert await told(store, claimed.job_id) == ["claimed", "answer_lost", "resent"]


# Polls, lists, final costs, downloads


async def test_the_task_polled_longest_ago_is_asked_first(store: Store, clock: HandClock) -> None:
    await fill(store, 3)
    first, second, third = await set_running(store)
    for job, at in ((first, 30), (third, 20), (second, 10)):
        await poll_again(store, job, T0 + seconds(at))
    clock.move(60)
    asked = [(await take(store, polls=1)).polls[0].job_id for _ in range(3)]
    assert asked == [second, third, first]


async def poll_again(store: Store, job: int, at: datetime) -> None:
    """Makes the poll of a running job due at that moment."""
    work = await work_of(store, job)
    await store.record(step(Event.POLLED, work, State.RUNNING, None, store.clock.now(), due_at=at))


async def test_a_list_answers_for_many_and_nobody_is_asked_twice(store: Store, clock: HandClock) -> None:
    await fill(store, 60, accounts=[settings(concurrency=100, windows=[(100, 60)])])
    assert len(await set_running(store)) == 60
    clock.move(120)
    taken = await take(store, polls=64, poll_pages=1)
    assert (len(taken.listing), len(taken.pages)) == (50, 1)
    assert None not in taken.pages
    assert taken.polls == [], "what one page cannot answer for waits for the next list"
    assert taken.wake_at == clock.now() + seconds(5)
    assert not await take(store, polls=64, poll_pages=1), "the list is asked once per poll interval"
    clock.move(5)
    again = await take(store, polls=64, poll_pages=1)
    assert len(again.listing) == 10
    assert {c.job_id for c in again.listing}.isdisjoint(c.job_id for c in taken.listing)


async def test_a_single_task_is_asked_alone_even_where_there_is_a_list(store: Store, clock: HandClock) -> None:
    await fill(store, 1)
    await set_running(store)
    clock.move(60)
    taken = await take(store, polls=9, poll_pages=1)
    assert (taken.listing, len(taken.polls)) == ([], 1)


async def test_with_a_small_window_lists_leave_room_for_what_they_leave_open(store: Store, clock: HandClock) -> None:
    await fill(store, 3, accounts=[settings(concurrency=9, windows=[(6, 60)])])
    await set_running(store)
    clock.move(120)
    listed = (await take(store, polls=9, poll_pages=1)).listing
    assert len(listed) == 3
    for each in listed:
        work = await work_of(store, each.job_id)
        await store.record(step(Event.POLLED, work, State.RUNNING, each.lease, clock.now()))
    clock.move(29)
    assert not await take(store, polls=9, poll_pages=1)
    clock.move(1)
    assert len((await take(store, polls=9, poll_pages=1)).listing) == 3


async def test_a_window_too_small_for_lists_asks_for_one_task_at_a_time(store: Store, clock: HandClock) -> None:
    await fill(store, 3, accounts=[settings(concurrency=9, windows=[(2, 60)])])
    await set_running(store)
    clock.move(120)
    taken = await take(store, polls=9, poll_pages=1)
    assert (taken.listing, len(taken.polls)) == ([], 2)


async def test_the_final_cost_is_asked_of_ended_tasks_only(store: Store, clock: HandClock) -> None:
    """A completed task whose files are still being fetched has nothing to settle yet; only ended jobs may be asked."""
    await fill(store, 1)
    [claimed] = await take_submissions(store, price=None)
    await accept(store, claimed)
    await set_downloading(store, claimed.job_id)
    work = await work_of(store, claimed.job_id)
    assert (work.standing.unsettled, work.standing.settle_at) == (True, clock.now() + SETTLE_AFTER[0])
    clock.move(120)
    taken = await take(store, settles=4)
    assert taken.settles == []
    [download] = (await take(store, downloads=1)).downloads
    work = await work_of(store, claimed.job_id)
    await store.record(step(Event.COMPLETED, work, State.SUCCEEDED, download.lease, clock.now()))
    assert [c.job_id for c in (await take(store, settles=4)).settles] == [claimed.job_id]


async def test_downloads_need_no_room_and_no_open_account(store: Store, clock: HandClock) -> None:
    await fill(store, 2, accounts=[settings(windows=[(4, 60)])])
    await set_running(store)
    clock.move(10)
    for claimed in (await take(store, polls=2)).polls:
        await store.record(await polled(store, claimed, done(f"task-{claimed.job_id}")))
    await store.write(accounts.block, clock.now(), ACCOUNT, 3600.0)
    await store.write(accounts.stop, ACCOUNT, "the key is refused")
    assert len((await take(store, downloads=8, polls=8)).downloads) == 2


# Pauses stop what is paid for, blocks stop everything


async def test_a_pause_stops_paid_requests_only(store: Store, clock: HandClock) -> None:
    await fill(store, 4)
    await set_running(store, 1)
    [lost] = await take_submissions(store, 1)
    await answer(store, lost, LOST)
    clock.move(60)
    await store.write(accounts.pause, clock.now(), ACCOUNT, "insufficient_credits", "empty", None)
    taken = await take(store, intents=await intents(store), resends=9, polls=9)
    assert (taken.submissions, taken.resends, len(taken.polls)) == ([], [], 1)
    assert taken.paused
    clock.move(30)
    assert len((await take(store, resends=9)).resends) == 1


async def test_after_a_pause_one_order_goes_alone(store: Store, clock: HandClock) -> None:
    """It may be refused like those before it: then it was the only one."""
    await fill(store, 4)
    await store.write(accounts.pause, clock.now(), ACCOUNT, "insufficient_credits", "empty", None)
    clock.move(30)
    [probe] = await take_submissions(store)
    assert await take_submissions(store) == []
    await accept(store, probe)
    await store.write(accounts.orders_again, ACCOUNT)
    assert len(await take_submissions(store)) == 3


async def test_a_pause_does_not_stop_looks(store: Store, clock: HandClock) -> None:
    await fill(store, 2)
    [lost] = await take_submissions(store, keyed=False)
    await answer(store, lost, LOST, keyed=False)
    await store.write(accounts.pause, clock.now(), ACCOUNT, "insufficient_credits", "empty", None)
    assert len((await take(store, keyed=False, looks=True)).looks) == 1


@pytest.mark.parametrize("how", ["block", "stop"])
async def test_a_block_or_a_stop_lets_no_request_through(store: Store, clock: HandClock, how: str) -> None:
    await fill(store, 4)
    await set_running(store, 1)
    [lost] = await take_submissions(store, 1)
    await answer(store, lost, LOST)
    clock.move(60)
    if how == "block":
        await store.write(accounts.block, clock.now(), ACCOUNT, 20.0)
    else:
        await store.write(accounts.stop, ACCOUNT, "the key is refused")
    everything = {"resends": 9, "polls": 9, "poll_pages": 2, "settles": 9, "looks": True}
    taken = await take(store, intents=await intents(store), **everything)
    assert not taken
    assert taken.stopped == (how == "stop")
    clock.move(20)
    assert bool(await take(store, intents=await intents(store), **everything)) == (how == "block")


# Lost answers close an account without keys


async def lose(store: Store, *, keyed: bool = False) -> None:
    [lost] = await take_submissions(store, 1, keyed=keyed)
    await answer(store, lost, LOST, keyed=keyed)


async def may_submit(store: Store, *, keyed: bool = False) -> bool:
    ready = await intents(store, 1, keyed=keyed)
    taken = await take(store, intents=ready, keyed=keyed)
    for claimed in taken.submissions:
        await answer(store, claimed, refusal(Action.FAIL, ErrorKind.INVALID_REQUEST), keyed=keyed)
    return bool(taken.submissions)


async def test_three_lost_answers_within_ten_minutes_close_the_account_for_ten(store: Store, clock: HandClock) -> None:
    await fill(store, 9, accounts=[settings(concurrency=9)])
    for _ in range(3):
        await lose(store)
        clock.move(120)
    closed = clock.now() - seconds(120) + timedelta(minutes=10)
    assert not await may_submit(store)
    taken = await take(store, keyed=False, intents=await intents(store, keyed=False))
    assert taken.wake_at == closed
    clock.move((closed - clock.now()).total_seconds() - 1)
    assert not await may_submit(store), "ten minutes from the third, not from the first"
    clock.move(1)
    assert await may_submit(store)


async def test_lost_answers_further_apart_do_not_close_it(store: Store, clock: HandClock) -> None:
    await fill(store, 9, accounts=[settings(concurrency=9)])
    for _ in range(4):
        await lose(store)
        clock.move(301)
    assert await may_submit(store)


async def test_lost_answers_do_not_close_an_account_with_keys(store: Store) -> None:
    await fill(store, 9, accounts=[settings(concurrency=9)])
    for _ in range(3):
        await lose(store, keyed=True)
    assert await may_submit(store, keyed=True)


async def test_answers_that_a_crash_of_ours_lost_do_not_count(db: str, clock: HandClock) -> None:
    for _ in range(3):
        async with open_store(db, clock, own=True) as store:
            await fill(store, 9, accounts=[settings(concurrency=9)])
            [claimed] = await take_submissions(store, 1, keyed=False)
            await mark_brink(store, claimed)
        clock.move(61)
        await fall_silent(db)
    async with open_store(db, clock, own=True) as store:
        assert [row.outcome for row in await rows(store, attempts)] == ["crash"] * 3
        assert await may_submit(store)


# When to ask again


async def test_nothing_to_wait_for(store: Store) -> None:
    await fill(store, 0)
    assert (await take(store, polls=9)).wake_at is None


async def test_wake_at_the_next_poll_postponed_job_or_final_cost(store: Store, clock: HandClock) -> None:
    await fill(store, 3)
    [first] = await set_running(store, 1)
    assert (await take(store, polls=9)).wake_at == T0 + seconds(5)
    [put_back] = await take_submissions(store, 1)
    await answer(store, put_back, UNREACHABLE)
    clock.move(1)
    assert (await take(store, polls=9)).wake_at == T0 + seconds(5)
    await set_downloading(store, first)
    work = await work_of(store, first)
    [download] = (await take(store, downloads=1)).downloads
    soon = clock.now() + seconds(3)
    ended = step(Event.COMPLETED, work, State.SUCCEEDED, download.lease, clock.now(), unsettled=True, settle_at=soon)
    await store.record(ended)
    assert (await take(store, intents=await intents(store))).wake_at == soon


async def test_wake_never_says_now_for_what_cannot_go(store: Store, clock: HandClock) -> None:
    """What is due and was not taken waits for a hand, for the wire, or for somebody else: not for the clock."""
    await fill(store, 3)
    await set_running(store, 2)
    [lost] = await take_submissions(store, 1, keyed=False)
    await answer(store, lost, LOST, keyed=False)
    clock.move(60)
    taken = await take(store, keyed=False)
    assert not taken
    assert taken.wake_at is None


async def test_wake_when_the_window_has_room_again(store: Store, clock: HandClock) -> None:
    await fill(store, 3, accounts=[settings(windows=[(2, 60)])])
    await set_running(store)
    answered = clock.now()
    clock.move(10)
    taken = await take(store, polls=9)
    assert (taken.polls, taken.wake_at) == ([], answered + seconds(60))


async def test_wake_when_the_pause_or_the_block_ends(store: Store, clock: HandClock) -> None:
    await fill(store, 1)
    await store.write(accounts.pause, clock.now(), ACCOUNT, "unavailable", "busy", 40.0)
    assert (await take(store, intents=await intents(store))).wake_at == T0 + seconds(40)
    await store.write(accounts.block, clock.now(), ACCOUNT, 50.0)
    assert (await take(store, intents=await intents(store))).wake_at == T0 + seconds(50)
    clock.move(60)
    assert (await take(store)).wake_at is None, "what is over needs no waking: that would be a hot circle"


@pytest.mark.parametrize("how", ["block", "stop"])
async def test_a_download_wakes_even_a_closed_account(store: Store, clock: HandClock, how: str) -> None:
    await fill(store, 1)
    [job] = await set_running(store)
    await set_downloading(store, job)
    [claimed] = (await take(store, downloads=1)).downloads
    at, later = clock.now(), clock.now() + seconds(7)
    work = await work_of(store, job)
    await store.record(step(Event.POSTPONED, work, State.DOWNLOADING, claimed.lease, at, due_at=later))
    if how == "block":
        await store.write(accounts.block, at, ACCOUNT, 60.0)
    else:
        await store.write(accounts.stop, ACCOUNT, "the key is refused")
    assert (await take(store, downloads=1)).wake_at == later


async def test_in_flight_is_told_with_what_was_just_taken(store: Store) -> None:
    await fill(store, 7)
    taken = await take(store, intents=await intents(store))
    assert (taken.in_flight, len(taken.submissions)) == (5, 5)


async def test_a_lease_is_gone_once_its_work_is_recorded(store: Store, clock: HandClock) -> None:
    await fill(store, 1)
    await set_running(store)
    clock.move(60)
    [claimed] = (await take(store, polls=1)).polls
    assert (await take(store, polls=1)).polls == [], "leased"
    change = await polled(store, claimed, Refusal(Action.LATER, ErrorKind.UNAVAILABLE, "503", "busy", wait=10.0))
    await store.record(change)
    with pytest.raises(Fenced):
        await store.record(change)
    clock.move(10)
    assert len((await take(store, polls=1)).polls) == 1
    assert await state_of(store, claimed.job_id) is State.RUNNING
