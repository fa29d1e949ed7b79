"""What answers do to a whole account, what a provider hosts for it, and what its prices turned out to be."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from runner.store import Store, accounts, hosted, prices, set_back
from runner.store.claims import submission_room
from runner.store.hosted import Begun
from runner.store.queries import account_rows
from runner.store.tables import accounts as account_table
from runner.store.work import learned, peek
from store.kit import ACCOUNT, T0, HandClock, fill, intents, rows, seconds, settings, take, two_stores


async def until(store: Store) -> float:
    """How many seconds the account still is paused."""
    [row] = await rows(store, account_table)
    return 0.0 if row.paused_until is None else (row.paused_until - store.clock.now()).total_seconds()


async def pause(store: Store, wait: float | None = None, *, slot: bool = False) -> None:
    await store.write(accounts.pause, store.clock.now(), ACCOUNT, "insufficient_credits", "empty", wait, slot)


@pytest.mark.parametrize(
    ("slot", "expected"),
    [(False, [30, 60, 120, 240, 480, 900, 900]), (True, [15, 30, 60, 120, 240, 300, 300])],
    ids=["credits", "slot"],
)
async def test_a_pause_doubles_with_every_fruitless_probe(
    store: Store, clock: HandClock, slot: bool, expected: list[float]
) -> None:
    await fill(store, 0)
    found = []
    for _ in expected:
        await pause(store, slot=slot)
        found.append(await until(store))
        clock.move(found[-1])
    assert found == expected


async def test_answers_to_requests_sent_together_are_one_probe(store: Store, clock: HandClock) -> None:
    await fill(store, 0)
    for _ in range(6):
        await pause(store)
        clock.move(1)
    assert await until(store) == 24
    clock.move(24)
    await pause(store)
    assert await until(store) == 60


async def test_the_providers_own_time_wins(store: Store, clock: HandClock) -> None:
    await fill(store, 0)
    await pause(store, 7.0)
    assert await until(store) == 7
    await pause(store, 5.0)
    assert await until(store) == 7
    await pause(store, 200.0)
    assert await until(store) == 200
    clock.move(200)
    await pause(store)
    assert await until(store) == 60


async def test_an_order_that_was_taken_ends_the_pause_and_a_task_that_ended_its_doubling(
    store: Store, clock: HandClock
) -> None:
    await fill(store, 1)
    await pause(store)
    clock.move(30)
    await store.write(accounts.orders_again, ACCOUNT)
    assert await until(store) == 0
    await pause(store)
    assert await until(store) == 60, "that the order was taken does not say that its task will not be refused"
    clock.move(60)
    await store.write(accounts.orders_again, ACCOUNT)
    await store.write(accounts.task_ended, ACCOUNT)
    assert not (await take(store)).paused
    await pause(store)
    assert await until(store) == 30


async def test_a_task_that_ends_frees_a_slot_but_brings_no_credits(store: Store) -> None:
    await fill(store, 0)
    await store.write(accounts.pause, store.clock.now(), ACCOUNT, "rate_limited", "full", None, True)
    assert await until(store) == 15
    await store.write(accounts.task_ended, ACCOUNT)
    assert await until(store) == 0
    await pause(store)
    await store.write(accounts.task_ended, ACCOUNT)
    assert await until(store) == 30


async def test_a_block_only_ever_grows(store: Store, clock: HandClock) -> None:
    await fill(store, 0)
    for wait, expected in ((60.0, 60), (5.0, 60), (90.0, 90)):
        await store.write(accounts.block, clock.now(), ACCOUNT, wait)
        [row] = await rows(store, account_table)
        assert row.blocked_until == T0 + seconds(expected)


async def test_a_stopped_model_leaves_the_others_alone(store: Store) -> None:
    await fill(store, 2)
    await store.write(accounts.stop_model, ACCOUNT, "sd2-fast")
    room = await store.read(submission_room, ACCOUNT, T0)
    assert room.stopped_models == {"sd2-fast"}
    assert len(await store.read(peek, T0, ACCOUNT, 9, None, room.stopped_models)) == 2
    await store.write(accounts.stop_model, ACCOUNT, "sd2")
    await store.write(accounts.stop_model, ACCOUNT, "sd2")
    room = await store.read(submission_room, ACCOUNT, T0)
    assert room.stopped_models == {"sd2", "sd2-fast"}
    assert await store.read(peek, T0, ACCOUNT, 9, None, room.stopped_models) == []


async def test_what_two_workers_learn_of_an_account_at_once_adds_up(db: str, clock: HandClock) -> None:
    async with two_stores(db, clock) as (one, other):
        await fill(one, 1)
        names = [f"model-{n}" for n in range(12)]
        writes = [(one, other)[n % 2].write(accounts.stop_model, ACCOUNT, name) for n, name in enumerate(names)]
        await asyncio.gather(*writes)
        assert (await one.read(account_rows))[0].stopped_models == set(names)


async def test_what_one_does_to_an_account_holds_for_the_other(db: str, clock: HandClock) -> None:
    async with two_stores(db, clock) as (one, other):
        await fill(one, 1)
        await other.write(accounts.block, clock.now(), ACCOUNT, 60.0)
        taken = await take(one, intents=await intents(one))
        assert (taken.submissions, taken.wake_at) == ([], T0 + seconds(60))


async def test_a_limit_that_the_person_chose_stays(store: Store) -> None:
    await fill(store, 0, accounts=[settings(windows=[(10, 60)])])
    await store.write(accounts.obey_limit, ACCOUNT, 60, 120)
    assert [str(w) for w in (await store.read(account_rows))[0].windows] == ["10/minute"]


HERO, VILLAIN = "5" * 64, "6" * 64


async def asked_for(store: Store, clock: HandClock, content: str, account: str = "one") -> Begun:
    return await store.write(hosted.begin, clock.now(), account, content)


async def what_is_held(store: Store, clock: HandClock, content: str, account: str = "one") -> hosted.Held | None:
    return await store.read(hosted.held, clock.now(), account, content)


async def test_a_reference_is_asked_for_once_per_content_and_account(store: Store, clock: HandClock) -> None:
    assert await what_is_held(store, clock, HERO) is None
    assert await asked_for(store, clock, HERO) is Begun.FIRST
    assert await asked_for(store, clock, HERO) is Begun.ELSEWHERE
    assert await asked_for(store, clock, HERO, "two") is Begun.FIRST
    await store.write(hosted.remember, "one", HERO, "https://cdn.example/a")
    held = await what_is_held(store, clock, HERO)
    assert held is not None
    assert held.url == "https://cdn.example/a"
    clock.move(3600)
    assert await asked_for(store, clock, HERO) is Begun.ELSEWHERE, "it is there for good"
    assert await asked_for(store, clock, HERO, "two") is Begun.AGAIN, "whoever asked for it has died"
    assert await asked_for(store, clock, VILLAIN) is Begun.FIRST


async def test_an_answer_that_was_lost_is_looked_for_and_one_that_was_no_is_not(store: Store, clock: HandClock) -> None:
    for after, expected in ((hosted.unheard, Begun.AGAIN), (hosted.forget, Begun.FIRST)):
        content = HERO if after is hosted.unheard else VILLAIN
        assert await asked_for(store, clock, content) is Begun.FIRST
        await store.write(after, "one", content)
        assert await asked_for(store, clock, content) is expected


async def test_an_asset_under_review_stays_known_whatever_is_said_of_a_question_about_it(
    store: Store, clock: HandClock
) -> None:
    await asked_for(store, clock, HERO)
    await store.write(hosted.under_review, "one", HERO, "123")
    for news in (hosted.unheard, hosted.forget):
        await store.write(news, "one", HERO)
        held = await what_is_held(store, clock, HERO)
        assert held == hosted.Held(None, "123", None, clock.now())
    clock.move(3600)
    assert await asked_for(store, clock, HERO) is Begun.ELSEWHERE
    await store.write(hosted.lost, "one", HERO)
    assert await asked_for(store, clock, HERO) is Begun.AGAIN


async def test_what_is_held_can_be_doubted(store: Store, clock: HandClock) -> None:
    for content, url in ((HERO, "https://cdn.example/a"), (VILLAIN, "https://cdn.example/b")):
        await asked_for(store, clock, content)
        await store.write(hosted.remember, "one", content, url)
    await store.write(hosted.doubt, "one", [HERO])
    assert await asked_for(store, clock, HERO) is Begun.AGAIN
    assert await asked_for(store, clock, VILLAIN) is Begun.ELSEWHERE


async def test_a_refused_reference_may_be_tried_again_after_an_hour(store: Store, clock: HandClock) -> None:
    await asked_for(store, clock, HERO)
    await store.write(hosted.refuse, clock.now(), "one", HERO, "a face")
    held = await what_is_held(store, clock, HERO)
    assert held is not None
    assert held.refused == "a face"
    assert await asked_for(store, clock, HERO) is Begun.ELSEWHERE
    clock.move(3600)
    assert await what_is_held(store, clock, HERO) is None
    assert await asked_for(store, clock, HERO) is Begun.AGAIN


async def test_nobody_waits_for_who_has_asked_by_a_clock_that_was_set_back(store: Store, clock: HandClock) -> None:
    """Who asked for it has died: that is known a minute later, and not only when the clock shows that time again."""
    await asked_for(store, clock, HERO)
    clock.move(-86_400)
    await store.write(set_back.bring_back, clock.now(), timedelta(days=1))
    clock.move(60)
    assert await asked_for(store, clock, HERO) is Begun.AGAIN


async def test_the_last_charge_of_a_shape_is_its_price(store: Store, clock: HandClock) -> None:
    assert await store.read(learned, "p", ["5s"]) == {}
    await store.write(prices.learn, clock.now(), "p", "5s", Decimal("12.5"))
    await store.write(prices.learn, clock.now(), "p", "10s", Decimal("25"))
    await store.write(prices.learn, clock.now(), "q", "5s", Decimal("1"))
    await store.write(prices.learn, clock.now(), "p", "5s", Decimal("13.000001"))
    assert await store.read(learned, "p", ["5s", "10s", "15s"]) == {"5s": Decimal("13.000001"), "10s": Decimal(25)}
