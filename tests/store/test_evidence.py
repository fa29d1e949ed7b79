"""The books around one lost answer: when the balance may speak of it at all, and what else may still move it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from runner.errors import ErrorKind
from runner.exchange import Action, Phase, Refusal, Report
from runner.jobs import Event, State
from runner.lifecycle import deciding
from runner.store import Store
from runner.store.evidence import Books, books, save_baseline
from runner.verdicts.submission import Unanswered
from store.kit import (
    ACCOUNT,
    accept,
    answer,
    done,
    fill,
    intents,
    polled,
    step,
    take,
    take_submissions,
    work_of,
)

FAILED = Report("", Phase.FAILED, "failed", error=Refusal(Action.FAIL, ErrorKind.TASK_FAILED, "x", "it failed"))


async def ended(store: Store, report: Report) -> int:
    """One job is ordered, accepted, and its task ends so, as far as its report tells."""
    [claimed] = await take_submissions(store, 1, keyed=False)
    await accept(store, claimed, keyed=False)
    store.clock.move(60)  # type: ignore[attr-defined]
    [asked] = (await take(store, keyed=False, polls=1)).polls
    await store.record(await polled(store, asked, replace(report, task_id=f"task-{claimed.job_id}")))
    return claimed.job_id


async def lost(store: Store) -> Books:
    """A baseline, an order whose answer gets lost, and the books around it."""
    store.clock.move(1)  # type: ignore[attr-defined]
    await store.write(save_baseline, ACCOUNT, store.clock.now(), Decimal(1000))
    [claimed] = await take_submissions(store, 1, keyed=False)
    await answer(store, claimed, Unanswered("none came"), keyed=False)
    attempt = (await work_of(store, claimed.job_id)).attempt
    assert attempt is not None
    return await store.read(books, store.clock.now(), ACCOUNT, attempt.id)


async def test_with_nothing_else_under_way_the_balance_may_speak(store: Store) -> None:
    await fill(store, 1)
    found = await lost(store)
    assert (found.busy, found.clouded, found.spent) == (False, False, Decimal(0))


async def test_a_refund_that_may_still_come_for_an_order_that_was_tried_anew_clouds_it(store: Store) -> None:
    """Its refund, of the same price, would make a charged order look as if it had cost nothing."""
    await fill(store, 1)
    job = await ended(store, FAILED)
    work = await work_of(store, job)
    assert work.attempt is not None
    assert work.attempt.bill.charged > work.attempt.bill.refunded
    asked_out = replace(work, standing=replace(work.standing, settle_at=None))  # nobody asks for it any more
    change = deciding.retry(asked_out, [], store.clock.now())
    assert not isinstance(change, deciding.Declined)
    await store.record(change)
    assert (await lost(store)).clouded


@pytest.mark.parametrize("bought_anew", [True, False])
async def test_a_task_that_was_lost_clouds_it(store: Store, bought_anew: bool) -> None:
    await fill(store, 2)
    unknown = Refusal(Action.NOT_FOUND, ErrorKind.NOT_FOUND, "404", "no such task")
    [claimed] = await take_submissions(store, 1, keyed=False)
    await accept(store, claimed, keyed=False)
    for _ in range(3):
        store.clock.move(60)  # type: ignore[attr-defined]
        [asked] = (await take(store, keyed=False, polls=1)).polls
        await store.record(await polled(store, asked, unknown))
    work = await work_of(store, claimed.job_id)
    assert work.standing.state is State.HELD
    if bought_anew:
        change = deciding.resubmit(work, [], store.clock.now())
        assert not isinstance(change, deciding.Declined)
        await store.record(change)
    assert (await lost(store)).clouded


async def test_a_task_that_never_ends_is_not_waited_for(store: Store) -> None:
    """Else an open question beside it would stay open for ever, and so would the run."""
    await fill(store, 2)
    await store.write(save_baseline, ACCOUNT, store.clock.now(), Decimal(1000))
    store.clock.move(1)  # type: ignore[attr-defined]
    [going] = await take_submissions(store, 1, keyed=False)
    await accept(store, going, keyed=False)
    [claimed] = await take_submissions(store, 1, keyed=False)
    await answer(store, claimed, Unanswered("none came"), keyed=False)
    attempt = (await work_of(store, claimed.job_id)).attempt
    assert attempt is not None
    found = await store.read(books, store.clock.now(), ACCOUNT, attempt.id)
    assert (found.busy, found.clouded) == (True, False)
    store.clock.move(6 * 3600 + 1)  # type: ignore[attr-defined]
    assert (await store.read(books, store.clock.now(), ACCOUNT, attempt.id)).clouded


async def test_the_bill_of_a_held_render_is_not_waited_for(store: Store) -> None:
    """Nobody asks for it before a person has decided: an open question beside it would stay open for ever."""
    await fill(store, 2)
    ready = await intents(store, 1, keyed=False, price=None)
    [claimed] = (await take(store, keyed=False, intents=ready)).submissions
    await accept(store, claimed, keyed=False)
    store.clock.move(60)  # type: ignore[attr-defined]
    [asked] = (await take(store, keyed=False, polls=1)).polls
    await store.record(await polled(store, asked, done(f"task-{asked.job_id}")))
    [fetched] = (await take(store, keyed=False, downloads=1)).downloads
    work = await work_of(store, fetched.job_id)
    assert work.standing.settle_at is not None
    await store.record(step(Event.DOWNLOAD_FAILED, work, State.HELD, fetched.lease, store.clock.now()))
    store.clock.move(25 * 3600)  # type: ignore[attr-defined]
    found = await lost(store)
    assert (found.baseline, found.busy, found.clouded) == (Decimal(1000), False, False)
