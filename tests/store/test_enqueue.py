"""Enqueuing: what is new is added, what is known stays, what is gone and unpaid is cancelled; all of it or nothing."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest

from runner.errors import InternalError, Taken
from runner.jobs import Event, State
from runner.store import Store, accounts, open_store
from runner.store.changes import events, jobs
from runner.store.enqueue import CHUNK, NewJob, enqueue, save_accounts
from runner.store.tables import accounts as account_table
from runner.store.tables import batches, totals
from runner.verdicts.submission import Unsent
from store.kit import (
    ACCOUNT,
    HandClock,
    answer,
    batch,
    fill,
    order,
    rows,
    seconds,
    set_running,
    settings,
    step,
    take,
    take_submissions,
    told,
    two_stores,
    work_of,
)


async def states(store: Store) -> dict[str, str]:
    return {row.key[:4]: row.state for row in await rows(store, jobs)}


def some(*numbers: int) -> list[NewJob]:
    return [order(n) for n in numbers]


async def test_new_jobs_are_queued_as_the_manifest_orders_them(store: Store, clock: HandClock) -> None:
    wanted = replace(order(1, priority=7), take=3, model="m", provider="p", estimated=Decimal("0.000001"))
    added = await fill(store, [wanted])
    assert (added.new, added.kept, added.gone) == (1, 0, 0)
    [row] = await rows(store, jobs)
    for name in wanted.__slots__:
        assert getattr(row, name) == getattr(wanted, name)
    assert (row.state, row.due_at, row.generation, row.attempts) == ("queued", clock.now(), 1, 0)
    [kept] = await rows(store, batches)
    assert (kept.name, kept.folder, kept.root, json.loads(kept.budget)) == ("night", "/folder", "/root", {})


async def test_the_same_manifest_again_adds_nothing(store: Store, clock: HandClock) -> None:
    await fill(store, some(1, 2, 3))
    await set_running(store, 1)
    before = await rows(store, jobs)
    clock.move(100)
    again = await fill(store, some(3, 1, 2))
    assert (again.new, again.kept, again.gone) == (0, 3, 0)
    assert await rows(store, jobs) == before


async def test_a_kept_job_takes_over_how_it_is_asked_now_while_nothing_was_sent(store: Store) -> None:
    """Its key is the same, so what is asked is the same: only where its files lie may have changed."""
    await fill(store, some(1, 2, 3))
    [sent] = await set_running(store, 1)
    renewed = [replace(each, spec='{"file": "moved"}') for each in some(1, 2, 4)]
    assert (await fill(store, renewed)).kept == 2
    specs = {row.key[:4]: row.spec for row in await rows(store, jobs)}
    [running] = [row.key[:4] for row in await rows(store, jobs) if row.id == sent]
    assert {key for key, spec in specs.items() if spec == '{"file": "moved"}'} == {"0001", "0002", "0004"} - {running}


async def test_what_is_gone_and_unpaid_is_cancelled(store: Store) -> None:
    await fill(store, some(1, 2, 3, 4))
    await set_running(store, 1)
    edited = await fill(store, some(2, 5))
    assert (edited.new, edited.kept, edited.gone) == (1, 1, 2)
    assert await states(store) == {
        "0001": "running",
        "0002": "queued",
        "0003": "cancelled",
        "0004": "cancelled",
        "0005": "queued",
    }
    [first, second] = await rows(store, events, events.c.event == "cancelled")
    assert (first.source, first.target, json.loads(first.data)) == ("queued", "cancelled", {"by": "manifest"})
    assert {first.job_id, second.job_id} == {row.id for row in await rows(store, jobs) if row.state == "cancelled"}


async def test_a_waiting_job_that_is_gone_is_cancelled_too(store: Store) -> None:
    await fill(store, some(1, 2))
    await store.write(_set_waiting)
    assert (await fill(store, some(2))).gone == 1
    assert await states(store) == {"0001": "cancelled", "0002": "waiting"}
    assert [row.source for row in await rows(store, events)] == ["waiting"]


def _set_waiting(connection):  # type: ignore[no-untyped-def]
    connection.execute(jobs.update().values(state="waiting"))


async def test_a_job_that_is_asked_for_again_is_queued_again(store: Store, clock: HandClock) -> None:
    await fill(store, some(1, 2))
    await fill(store, some(2))
    clock.move(60)
    again = await fill(store, some(1, 2))
    assert (again.new, again.kept, again.gone) == (0, 2, 0)
    assert await states(store) == {"0001": "queued", "0002": "queued"}
    [work] = [await work_of(store, row.id) for row in await rows(store, jobs) if row.key.startswith("0001")]
    assert (work.standing.due_at, await told(store, work.id)) == (clock.now(), ["cancelled", "asked_again"])
    assert len(await take_submissions(store)) == 2


async def test_a_cancelled_job_that_may_have_been_paid_is_not_asked_for_again(store: Store) -> None:
    await fill(store, some(1))
    [job] = await set_running(store)
    work = await work_of(store, job)
    await store.record(step(Event.TASK_CANCELLED, work, State.CANCELLED, None, store.clock.now()))
    again = await fill(store, some(1))
    assert (again.kept, await states(store)) == (1, {"0001": "cancelled"})


async def test_a_job_that_was_put_back_was_not_paid(store: Store, clock: HandClock) -> None:
    await fill(store, some(1))
    [claimed] = await take_submissions(store)
    await answer(store, claimed, Unsent("no route"))
    assert (await fill(store, [])).gone == 1
    await fill(store, some(1))
    work = await work_of(store, claimed.job_id)
    assert (work.standing.state, work.standing.failure, work.standing.errors) == (State.QUEUED, None, 0)


async def test_a_submission_on_the_wire_is_not_cancelled(store: Store) -> None:
    await fill(store, some(1))
    await take_submissions(store)
    assert (await fill(store, [])).gone == 0
    assert await states(store) == {"0001": "submitting"}


async def test_another_batch_is_another_order(store: Store) -> None:
    await fill(store, some(1, 2), name="one")
    added = await fill(store, some(1), name="two")
    assert (added.new, added.gone) == (1, 0)
    assert len(await rows(store, jobs)) == 3


async def test_a_new_priority_is_taken_over_and_the_path_stays(store: Store) -> None:
    await fill(store, some(1, 2))
    moved = replace(order(2, priority=9), output="elsewhere.mp4", place="night.yaml:99:1")
    await fill(store, [order(1), moved])
    first, second = await rows(store, jobs)
    assert (first.priority, second.priority) == (0, 9)
    assert second.output == "renders/shot-2.mp4"


async def test_the_batch_takes_over_the_edited_manifest(store: Store, clock: HandClock) -> None:
    first = await fill(store, some(1), budget={ACCOUNT: "5"})
    clock.move(9)
    edited = replace(batch(budget={ACCOUNT: "7.5"}), manifest="version: 1\n# edited\n", folder="/moved")
    second = await store.write(enqueue, clock.now(), edited, some(1))
    assert second.batch_id == first.batch_id
    [row] = await rows(store, batches)
    assert (row.manifest, row.folder, json.loads(row.budget)) == (edited.manifest, "/moved", {ACCOUNT: "7.5"})
    assert row.updated_at - row.created_at == seconds(9)


async def test_sums_are_open_for_every_account_of_the_batch(store: Store) -> None:
    await fill(store, [order(1, "one"), order(2, "two"), order(3, "one")])
    assert sorted(row.account for row in await rows(store, totals)) == ["one", "two"]
    await fill(store, [order(1, "one"), order(4, "three")])
    assert sorted(row.account for row in await rows(store, totals)) == ["one", "three", "two"]


async def test_one_error_in_the_stream_undoes_all(store: Store) -> None:
    await fill(store, some(1, 2))
    before = [await rows(store, table) for table in (jobs, batches, events, totals)]

    def stream() -> Iterator[NewJob]:
        yield from (order(n) for n in range(2, CHUNK + 50))
        raise ValueError("row 2,050 is wrong")

    with pytest.raises(ValueError, match="row 2,050"):
        await store.write(enqueue, store.clock.now(), batch(budget={ACCOUNT: "1"}), stream())
    assert [await rows(store, table) for table in (jobs, batches, events, totals)] == before
    again = await fill(store, some(1, 2, 3))
    assert (again.new, again.kept) == (1, 2)


@pytest.mark.parametrize("apart", [1, CHUNK + 10], ids=["in one chunk", "in two chunks"])
async def test_two_equal_jobs_in_one_stream_are_an_error(store: Store, apart: int) -> None:
    orders = [*some(*range(1, apart + 1)), order(1)]
    if apart > 1:
        # Known by then, the second one is kept like any other; `wanted` knows it already.
        added = await store.write(enqueue, store.clock.now(), batch(), orders)
        assert (added.new, added.kept) == (apart, 1)
        return
    with pytest.raises(Taken):
        await store.write(enqueue, store.clock.now(), batch(), orders)
    assert await rows(store, jobs) == []


async def test_many_come_and_go(store: Store) -> None:
    many = 2 * CHUNK + 7
    assert (await fill(store, many)).new == many
    assert (await fill(store, some(1))).gone == many - 1
    assert len(await rows(store, events, events.c.event == "cancelled")) == many - 1
    again = await fill(store, many)
    assert (again.new, again.kept, again.gone) == (0, many, 0)
    assert {row.state for row in await rows(store, jobs)} == {"queued"}


async def test_a_long_stream_costs_no_more_memory_than_a_short_one(store: Store) -> None:
    def stream(many: int) -> Iterator[NewJob]:
        return (order(n) for n in range(many))

    peaks = []
    for name, many in (("warm", 10), ("short", 2 * CHUNK), ("long", 20_000)):
        tracemalloc.start()
        await store.write(enqueue, store.clock.now(), batch(name), stream(many))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1] + 500_000


async def test_two_who_enqueue_the_same_batch_at_once_make_it_once(db: str, clock: HandClock) -> None:
    async with two_stores(db, clock) as (one, other):
        await one.write(save_accounts, [settings()])
        writing = [s.write(enqueue, clock.now(), batch(), some(*range(1, 50))) for s in (one, other)]
        first, second = await asyncio.gather(*writing)
        assert sorted([first.new, second.new]) == [0, 49]
        assert first.batch_id == second.batch_id
        assert len(await rows(one, jobs)) == 49


# Accounts


async def test_an_account_takes_over_the_limits_of_this_run(store: Store) -> None:
    await fill(store, 0, accounts=[settings(concurrency=3, windows=[(60, 60)])])
    await fill(store, 0, accounts=[settings(concurrency=8, windows=[(5, 1), (60, 60)])])
    [row] = await rows(store, account_table)
    assert (row.concurrency, json.loads(row.windows)) == (8, [[5, 1], [60, 60]])
    assert (row.poll_interval_ms, row.timeout_ms, row.exclusive) == (5000, 6 * 3600 * 1000, 0)


async def test_a_new_run_lifts_stops_and_pauses_but_no_block(store: Store, clock: HandClock) -> None:
    await fill(store, 2)
    await store.write(accounts.pause, clock.now(), ACCOUNT, "unavailable", "busy", 60.0)
    await store.write(accounts.block, clock.now(), ACCOUNT, 90.0)
    await store.write(accounts.stop, ACCOUNT, "the key is refused")
    await store.write(accounts.stop_model, ACCOUNT, "sd2")
    await fill(store, 2)
    [row] = await rows(store, account_table)
    assert (row.stopped, row.stopped_models) == (None, "[]")
    assert (row.paused_until, row.probes, row.blocked_until) == (None, 0, clock.now() + seconds(90))
    assert not await take(store, polls=1)


async def test_two_runs_that_start_at_once_save_an_account_once(db: str, clock: HandClock) -> None:
    async with two_stores(db, clock) as (one, other):
        wanted = [settings(), settings("other")]
        await asyncio.gather(*(store.write(save_accounts, wanted) for store in (one, other, one)))
        assert len(await rows(one, account_table)) == 2


async def test_a_limit_below_one_is_no_limit_of_an_account(store: Store) -> None:
    with pytest.raises(InternalError, match="concurrency_positive"):
        await store.write(save_accounts, [settings(concurrency=0)])


async def test_everything_is_there_after_opening_it_again(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, some(1, 2, 3))
    async with open_store(db, clock, own=True) as store:
        assert (await fill(store, some(1, 2, 3))).kept == 3
