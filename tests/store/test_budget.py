"""Budgets: kept by reservation, in the transaction of the intent, whoever asks and whatever is not priced."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest
from manifests import HAPPYHORSE, manifest_of, orders_of

from runner import plan
from runner.errors import ErrorKind
from runner.exchange import Accepted, Action
from runner.expand import survey
from runner.jobs import Event, State
from runner.providers import registry
from runner.store import Store, open_store, prices
from runner.store.changes import jobs
from runner.store.claims import claim
from runner.store.enqueue import set_budget
from runner.store.queries import sums
from runner.store.work import learned
from runner.verdicts.submission import Unanswered, Unsent
from store.kit import (
    ACCOUNT,
    HandClock,
    accept,
    answer,
    fill,
    intents,
    job_row,
    order,
    refusal,
    rows,
    set_downloading,
    settings,
    step,
    take,
    take_submissions,
    two_stores,
    wants,
    work_of,
)

MANY = [settings(concurrency=50)]


async def spent(store: Store) -> tuple[Decimal, Decimal, Decimal]:
    """Reserved, charged and refunded of the one batch and account."""
    [found] = await store.read(sums)
    return found.reserved, found.charged, found.refunded


async def submitted(store: Store) -> int:
    return len(await take_submissions(store))


async def test_the_intent_reserves_its_price(store: Store) -> None:
    await fill(store, 9, accounts=MANY, budget={ACCOUNT: "35"})
    taken = await take(store, intents=await intents(store))
    assert (len(taken.submissions), taken.beyond_budget) == (3, True)
    assert await spent(store) == (30, 0, 0)
    assert await submitted(store) == 0


async def test_exactly_the_budget_may_be_spent(store: Store) -> None:
    await fill(store, 9, accounts=MANY, budget={ACCOUNT: "30.000000"})
    assert await submitted(store) == 3


@pytest.mark.parametrize(("limit", "submissions"), [("0", 0), ("9.999999", 0), ("29.999999", 2)])
async def test_a_millionth_too_little_is_too_little(store: Store, limit: str, submissions: int) -> None:
    await fill(store, 9, accounts=MANY, budget={ACCOUNT: limit})
    assert await submitted(store) == submissions


async def test_without_a_budget_everything_goes(store: Store) -> None:
    await fill(store, 9, accounts=MANY, budget={"another": "1"})
    taken = await take(store, intents=await intents(store))
    assert (len(taken.submissions), taken.beyond_budget) == (9, False)


@pytest.mark.parametrize(
    ("outcome", "free"),
    [
        (Unsent("connection refused"), 1),
        (refusal(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS), 1),
        (refusal(Action.FAIL, ErrorKind.INVALID_REQUEST), 1),
        (Unanswered("silence"), 0),
        (Accepted("task", None), 0),
        (Accepted("task", Decimal(10)), 0),
        (Accepted("task", Decimal(4)), 0),
        (Accepted("task", Decimal(0)), 1),
    ],
    ids=["not sent", "no credits", "refused", "no answer", "accepted", "charged", "charged less", "charged nothing"],
)
async def test_a_reservation_ends_with_what_became_of_it(store: Store, outcome: object, free: int) -> None:
    """Refused or never sent: it is free again. Charged: the charge stands instead. An open question keeps it."""
    await fill(store, 2, accounts=MANY, budget={ACCOUNT: "10"})
    [claimed] = await take_submissions(store)
    await answer(store, claimed, outcome)  # type: ignore[arg-type]
    store.clock.move(0)  # type: ignore[attr-defined]
    ready = [i for i in await intents(store) if i.job_id != claimed.job_id]
    assert len((await take(store, intents=ready)).submissions) == free


async def test_a_refund_gives_room_again(store: Store) -> None:
    await fill(store, 3, accounts=MANY, budget={ACCOUNT: "20"})
    first, second = await take_submissions(store)
    await accept(store, first, charged="10")
    await accept(store, second, charged="10")
    assert await submitted(store) == 0
    await set_downloading(store, first.job_id, used="0")
    assert await spent(store) == (0, 20, 10)
    assert await submitted(store) == 1


async def test_the_budget_counts_what_earlier_runs_spent(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 9, accounts=MANY, budget={ACCOUNT: "30"})
        for claimed in await take_submissions(store, 2):
            await accept(store, claimed, charged="10")
    async with open_store(db, clock, own=True) as store:
        await fill(store, 9, accounts=MANY, budget={ACCOUNT: "30"})
        assert await submitted(store) == 1


async def test_the_person_may_change_it(store: Store) -> None:
    added = await fill(store, 9, accounts=MANY, budget={ACCOUNT: "10"})
    assert await submitted(store) == 1
    await store.write(set_budget, added.batch_id, {ACCOUNT: Decimal("40")})
    assert await submitted(store) == 3
    await store.write(set_budget, added.batch_id, {})
    assert await submitted(store) == 5


async def test_each_batch_has_its_own_purse(store: Store) -> None:
    await fill(store, 3, accounts=MANY, budget={ACCOUNT: "10"}, name="poor")
    await fill(store, 3, accounts=MANY, budget={ACCOUNT: "20"}, name="rich")
    taken = await take(store, intents=await intents(store))
    assert (len(taken.submissions), taken.beyond_budget) == (3, True)
    assert {s.batch: s.reserved for s in await store.read(sums)} == {"poor": 10, "rich": 20}


async def test_each_account_has_its_own_purse(store: Store) -> None:
    both = [settings("one", concurrency=9), settings("two", concurrency=9)]
    orders = [order(n, "one" if n % 2 else "two") for n in range(8)]
    await fill(store, orders, accounts=both, budget={"one": "10", "two": "30"})
    assert len(await take_submissions(store, account="one")) == 1
    assert len(await take_submissions(store, account="two")) == 3


# Without a price


async def test_the_first_of_an_unpriced_shape_goes_alone(store: Store) -> None:
    orders = [order(n, price=None, shape=shape) for n, shape in enumerate(["5s", "5s", "10s", "10s"])]
    await fill(store, orders, accounts=MANY, budget={ACCOUNT: "100"})
    taken = await take(store, intents=await intents(store, price=None))
    assert (len(taken.submissions), taken.beyond_budget) == (2, True)
    shapes = {row.shape for row in await rows(store, jobs, jobs.c.state == State.SUBMITTING)}
    assert shapes == {"5s", "10s"}
    assert len(await take_submissions(store, price=None)) == 0


@pytest.mark.parametrize("state", ["submitting", "unknown", "held", "running"])
async def test_the_next_of_its_shape_waits_while_it_is_out(store: Store, state: str) -> None:
    """Also behind a person's decision: an order without a price whose answer got lost may have cost anything."""
    await fill(store, [order(n, price=None) for n in range(2)], accounts=MANY, budget={ACCOUNT: "100"})
    [claimed] = await take_submissions(store, price=None)
    if state == "unknown":
        await answer(store, claimed, Unanswered("silence"))
    if state == "held":
        await answer(store, claimed, Unanswered("silence"), keyed=False, lookable=False)
    if state == "running":
        await accept(store, claimed)
    assert (await job_row(store, claimed.job_id)).state == state
    assert await take_submissions(store, price=None) == []


async def test_the_next_of_its_shape_waits_while_its_bill_is_not_known(store: Store) -> None:
    """The render is there, and nobody says what it has cost: it may have been all of the budget, or more."""
    await fill(store, [order(n, price=None) for n in range(2)], accounts=MANY, budget={ACCOUNT: "100"})
    [claimed] = await take_submissions(store, price=None)
    await accept(store, claimed)
    await set_downloading(store, claimed.job_id)
    assert await take_submissions(store, price=None) == []
    [download] = (await take(store, downloads=1)).downloads
    work = await work_of(store, claimed.job_id)
    await store.record(step(Event.COMPLETED, work, State.SUCCEEDED, download.lease, store.clock.now()))
    taken = await take(store, intents=await intents(store, price=None))
    assert (taken.submissions, taken.beyond_budget) == ([], True)


async def test_its_charge_prices_the_rest(store: Store, clock: HandClock) -> None:
    await fill(store, [order(n, price=None) for n in range(5)], accounts=MANY, budget={ACCOUNT: "40"})
    [claimed] = await take_submissions(store, price=None)
    await accept(store, claimed)
    await set_downloading(store, claimed.job_id, used="12.5")
    await store.write(prices.learn, clock.now(), "seedance2ai", "5s", Decimal("12.5"))
    assert await store.read(learned, "seedance2ai", ["5s", "10s"]) == {"5s": Decimal("12.5")}
    assert len(await take_submissions(store, price="12.5")) == 2
    assert await spent(store) == (25, Decimal("12.5"), 0)


async def test_unpriced_jobs_stop_at_a_spent_budget(store: Store) -> None:
    orders = [order(1), order(2, price=None, shape="10s")]
    await fill(store, orders, accounts=MANY, budget={ACCOUNT: "10"})
    priced, unpriced = await intents(store)
    [claimed] = (await take(store, intents=[priced])).submissions
    await accept(store, claimed, charged="10")
    [unpriced] = await intents(store, price=None)
    taken = await take(store, intents=[unpriced])
    assert (taken.submissions, taken.beyond_budget) == ([], True)


async def test_without_a_budget_unpriced_jobs_go_together(store: Store) -> None:
    await fill(store, [order(n, price=None) for n in range(4)], accounts=MANY)
    assert len(await take_submissions(store, price=None)) == 4


async def test_a_finished_render_of_unknown_cost_keeps_its_reservation(store: Store) -> None:
    """What it cost is asked again; until then the most that it may have cost is not spent a second time."""
    await fill(store, 2, accounts=MANY, budget={ACCOUNT: "10"})
    [first, _] = await intents(store)
    interval = type(first)(**{name: getattr(first, name) for name in first.__slots__} | {"priced": None})
    [claimed] = (await take(store, intents=[interval])).submissions
    await accept(store, claimed)
    await set_downloading(store, claimed.job_id)
    assert await spent(store) == (10, 0, 0)
    assert await submitted(store) == 0


# Two at once


async def test_workers_that_claim_at_once_do_not_overspend(db: str, clock: HandClock) -> None:
    async with two_stores(db, clock) as (one, other):
        await fill(one, 40, accounts=MANY, budget={ACCOUNT: "70"})
        ready = await intents(one)
        lanes = [one, other] if other.worker is not None else [one, one]
        claims = [lanes[n % 2].write(claim, clock.now(), wants(lanes[n % 2], intents=[i])) for n, i in enumerate(ready)]
        taken = await asyncio.gather(*claims)
        assert sum(len(found.submissions) for found in taken) == 7
        assert (await spent(one))[0] == 70


async def test_a_plan_counts_with_what_was_charged_where_it_is_more_than_documented(
    store: Store, clock: HandClock, tmp_path: Path
) -> None:
    asked = {"a": {**HAPPYHORSE, "prompt": "a fox", "duration": 5}}
    manifest, [order] = manifest_of(tmp_path, asked), orders_of(tmp_path, asked)
    assert order.estimated is not None
    documented = order.estimated.high
    for charged, planned, learned_price in [
        (documented * 2, documented * 2, True),
        (documented, documented, False),
        (documented / 2, documented, False),
    ]:
        await store.write(prices.learn, clock.now(), "happyhorse", order.shape, charged)
        made = await plan.make(manifest, survey(manifest, registry()), store, tmp_path, clock.now())
        bill = made.bills["happyhorse"]
        assert (bill.least, bill.estimated, bill.learned) == (documented, planned, int(learned_price))
