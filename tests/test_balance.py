"""A lost answer on an account that nobody else spends from: its balance tells whether the order was charged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene import Scene, scene, states

from runner.engine import Exit
from runner.errors import ErrorKind
from runner.jobs import Event, Failure, Standing, State
from runner.ledger import Bill
from runner.store import accounts as account_rows
from runner.store.work import peek
from runner.verdicts.looking import Charge, Look, after_look, charge_of

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PICTURE = {"model": "nano-banana-2", "resolution": "1k"}  # 5 credits; not in the provider's history
LOST = "lost_answer"  # charged, and the answer never comes
UNHEARD = "lost_request"  # never processed


def looked(**more: object) -> Look:
    standing = Standing(State.UNKNOWN, NOW, attempts=1)
    plain = Look(1, 2, standing, Bill(Decimal(5)), NOW - timedelta(seconds=1), NOW, searched=False)
    return replace(plain, **more)  # type: ignore[arg-type]


def after(looks: int, code: str) -> Standing:
    failure = Failure(ErrorKind.UNKNOWN_SUBMISSION, code, "")
    return Standing(State.UNKNOWN, NOW, attempts=1, looks=looks, failure=failure)


# --- what a balance says


@given(st.decimals(0, 10**6, places=2), st.decimals(0, 10**4, places=2), st.decimals("0.01", 10**3, places=2))
def test_only_nothing_or_exactly_the_price_says_anything(start: Decimal, spent: Decimal, price: Decimal) -> None:
    assert charge_of(start, start - spent, spent, price) is Charge.NONE
    assert charge_of(start, start - spent - price, spent, price) is Charge.MADE
    for other in (price / 2, price * 2, price + 1, -price):
        assert charge_of(start, start - spent - other, spent, price) is Charge.UNCLEAR


# --- what follows from it


def test_without_anything_to_look_at_a_person_is_asked_at_once() -> None:
    assert after_look(looked()).event is Event.NOT_FOUND


@pytest.mark.parametrize("searched", [True, False])
def test_a_charge_that_cannot_be_looked_up_is_a_persons_at_once_and_else_is_searched_for(searched: bool) -> None:
    change = after_look(looked(searched=searched, charge=Charge.MADE))
    assert change.event is (Event.LOOKED if searched else Event.NOT_FOUND)
    assert change.standing.failure is not None
    assert change.standing.failure.code == "charged"


def test_that_nothing_was_charged_is_no_leave() -> None:
    late = NOW - timedelta(minutes=16)
    held = after_look(looked(charge=Charge.NONE, brink_at=late, standing=after(2, "not_charged")))
    assert held.standing.state is State.HELD
    assert held.entries == ()


def test_with_leave_it_goes_again_after_two_looks_that_say_so() -> None:
    first = after_look(looked(charge=Charge.NONE, leave=True))
    assert first.event is Event.LOOKED
    later = replace(looked(charge=Charge.NONE, leave=True), standing=first.standing, now=NOW + timedelta(seconds=61))
    again = after_look(later)
    assert (again.event, again.standing.state, again.standing.generation) == (Event.GIVEN_LEAVE, State.QUEUED, 2)
    assert [entry.amount for entry in again.entries] == [Decimal(-5)], "nothing is reserved for it any more"


@given(
    st.sampled_from([None, *Charge]), st.booleans(), st.booleans(), st.integers(0, 3),
    st.sampled_from(["no_answer", "not_found", "no_lookup", *(charge.value for charge in Charge)]),
    st.integers(0, 3600),
)  # fmt: skip
def test_leave_is_only_ever_used_where_nothing_speaks_for_a_charge(
    charge: Charge | None, searched: bool, silent: bool, looks: int, code: str, age: int
) -> None:
    look = looked(
        charge=charge, searched=searched, silent=silent, leave=True, standing=after(looks, code),
        brink_at=NOW - timedelta(seconds=age),
    )  # fmt: skip
    change = after_look(look)
    if change.event is Event.GIVEN_LEAVE:
        assert looks >= 1
        assert age >= 60, "two looks may be made within a second: a start makes one at once"
        assert (charge is Charge.NONE and code == "not_charged") or (charge is None and silent)
    without = after_look(replace(look, leave=False))
    assert without.event in (Event.LOOKED, Event.NOT_FOUND)


# --- whole runs, with the sandbox's ledger as the judge


async def exclusive(s: Scene, fault: str, *, leave: bool = False) -> Exit:
    """One picture is bought; then another one is asked for and meets the fault."""
    s.exclusive, s.leave = True, leave
    s.ask("happyhorse", "before", **PICTURE)
    assert await s.run() is Exit.DONE
    s.ask("happyhorse", "after", **PICTURE)
    await s.fault("happyhorse", fault, when="submit")
    return await s.run()


@pytest.mark.parametrize(("fault", "code", "charged"), [(LOST, "charged", 10), (UNHEARD, "not_charged", 5)])
async def test_the_balance_tells_a_person_whether_it_was_charged(
    tmp_path: Path, fault: str, code: str, charged: int
) -> None:
    async with scene(tmp_path, speed=600.0) as s:
        assert await exclusive(s, fault) is Exit.PERSON_NEEDED
        assert states(await s.jobs()) == ["succeeded", "held"]
        failure = (await s.jobs())[1].standing.failure
        assert failure is not None
        assert failure.code == code
        assert s.net("happyhorse") == charged


async def test_with_leave_what_was_not_charged_goes_again(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=600.0) as s:
        assert await exclusive(s, UNHEARD, leave=True) is Exit.DONE
        assert states(await s.jobs()) == ["succeeded", "succeeded"]
        assert s.net("happyhorse") == 10


async def test_with_leave_what_was_charged_does_not(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=600.0) as s:
        assert await exclusive(s, LOST, leave=True) is Exit.PERSON_NEEDED
        assert s.net("happyhorse") == 10
        assert len(s.tasks("happyhorse")) == 2


async def test_an_order_that_is_taken_late_is_not_doubled(tmp_path: Path) -> None:
    """F65: at the first look the balance says that nothing was charged; a moment later the provider takes it."""
    async with scene(tmp_path, speed=60.0) as s:
        s.exclusive, s.leave = True, True
        s.ask("happyhorse", "late", **PICTURE)
        await s.fault("happyhorse", "late_accept", when="submit", seconds=20)
        assert await s.run() is Exit.PERSON_NEEDED
        assert len(s.tasks("happyhorse")) == 1
        failure = (await s.jobs())[0].standing.failure
        assert failure is not None
        assert failure.code == "charged"


async def test_an_account_that_others_spend_from_gives_no_evidence(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=600.0) as s:
        s.leave = True
        s.ask("happyhorse", "whose money is it", **PICTURE)
        await s.fault("happyhorse", UNHEARD, when="submit")
        assert await s.run() is Exit.PERSON_NEEDED
        assert s.tasks("happyhorse") == []


async def test_a_lane_never_waits_for_leave_to_ask_for_the_balance(tmp_path: Path) -> None:
    """A key that is refused just then would have it wait for ever, and the run with it."""
    async with scene(tmp_path) as s:
        s.exclusive = True
        s.ask("happyhorse", "stopped in between", **PICTURE)
        async with s.engine() as engine, asyncio.timeout(20):
            read = engine.store.read

            async def stopped_then(function: Callable[..., Any], *args: Any) -> Any:
                found = await read(function, *args)
                if function is peek:
                    await engine.store.write(account_rows.stop, "happyhorse", "the key is refused")
                return found

            engine.store.read = stopped_then  # type: ignore[method-assign]
            assert await engine.run() is Exit.PAUSED
        assert s.tasks("happyhorse") == []
