"""A provider that calls back: what it tells is kept, and said where nothing else will come of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.exchange import Phase, Report
from runner.lifecycle import deciding
from runner.store import Store
from runner.store.callbacks import Call, hear
from runner.verdicts.submission import Unanswered
from store.kit import ACCOUNT, answer, fill, intents, take, work_of

WORD = "f" * 64


@pytest.mark.parametrize("then", ["looked into", "held", "ordered anew"])
async def test_a_lost_order_that_has_a_task_is_told_where_nobody_asks_for_it(store: Store, then: str) -> None:
    await fill(store, 1)
    [ready] = await intents(store, 1, keyed=False)
    [claimed] = (await take(store, keyed=False, intents=[replace(ready, callback=WORD)])).submissions
    await answer(store, claimed, Unanswered("none came"), keyed=False, lookable=then == "looked into")
    if then == "ordered anew":
        change = deciding.resubmit(await work_of(store, claimed.job_id), [], store.clock.now())
        assert not isinstance(change, deciding.Declined)
        await store.record(change)
        [again] = await intents(store, 1, keyed=False)
        await take(store, keyed=False, intents=[again])
    call = await store.write(hear, store.clock.now(), WORD, "task-9")
    assert call == Call(ACCOUNT, claimed.job_id, stray=then != "looked into")
    assert await store.write(hear, store.clock.now(), "0" * 64, "task-9") is None


@pytest.mark.parametrize(("told", "stray"), [("task-8", False), ("task-9", True)])
async def test_a_call_that_names_another_task_than_a_person_gave_to_a_lost_order_is_told(
    store: Store, told: str, stray: bool
) -> None:
    """The job follows what a person took for its task; what was paid for is another one, and nobody would follow it."""
    await fill(store, 1)
    [ready] = await intents(store, 1, keyed=False)
    [claimed] = (await take(store, keyed=False, intents=[replace(ready, callback=WORD)])).submissions
    await answer(store, claimed, Unanswered("none came"), keyed=False, lookable=False)
    seen = Report("task-8", Phase.GOING, "processing")
    change = deciding.adopt(await work_of(store, claimed.job_id), "task-8", seen, [], store.clock.now())
    assert not isinstance(change, deciding.Declined)
    await store.record(change)
    call = await store.write(hear, store.clock.now(), WORD, told)
    assert call == Call(ACCOUNT, claimed.job_id, stray)
