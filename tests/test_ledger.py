"""Money: exact, never invented, never booked twice."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runner.ledger import (
    ZERO,
    Bill,
    Entry,
    EntryKind,
    Price,
    accept,
    as_text,
    from_micros,
    release,
    reserve,
    settle,
    to_micros,
)

amounts = st.decimals(min_value=0, max_value=10**12, places=6)
told = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False)  # any number of places
maybe = st.none() | told
figures = st.fixed_dictionaries({"priced": maybe, "used": maybe, "charged": maybe, "refunded": maybe})


@st.composite
def bills(draw: st.DrawFn) -> Bill:
    """What may stand booked: never more given back than was taken."""
    charged = draw(amounts)
    return Bill(draw(amounts), charged, draw(st.decimals(min_value=0, max_value=charged, places=6)))


def net(bill: Bill) -> Decimal:
    return bill.charged - bill.refunded


# Amounts


@given(st.integers(-(10**18), 10**18))
def test_millionths_come_back_as_they_were(micros: int) -> None:
    assert to_micros(from_micros(micros)) == micros


@given(st.lists(amounts, max_size=50))
def test_sums_of_millionths_are_sums_of_credits(parts: list[Decimal]) -> None:
    assert from_micros(sum(map(to_micros, parts))) == sum(parts, ZERO)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12))
def test_text_is_the_amount_without_exponent_or_idle_zeros(credits: Decimal) -> None:
    text = as_text(credits)
    assert text is not None
    assert Decimal(text) == credits.normalize()
    assert "e" not in text.lower()
    assert not ("." in text and text.endswith("0"))
    assert text != "-0"


@pytest.mark.parametrize(
    ("credits", "text"),
    [(None, None), ("0", "0"), ("0.000000", "0"), ("-0", "0"), ("1E+3", "1000"), ("7.50", "7.5"), ("100", "100")],
)
def test_amounts_as_scripts_read_them(credits: str | None, text: str | None) -> None:
    assert as_text(None if credits is None else Decimal(credits)) == text


def test_a_price_is_exact_where_its_ends_meet() -> None:
    assert Price.exactly("7.5").exact
    assert Price.exactly(3) == Price(Decimal(3), Decimal(3))
    assert not Price(Decimal(1), Decimal(2)).exact


# What is booked


@given(told)
def test_what_is_reserved_is_released_whole(price: Decimal) -> None:
    bill = Bill().after(reserve(price))
    assert bill.reserved == price.quantize(Decimal("0.000001"))
    assert bill.after(release(bill)) == Bill()


def test_nothing_is_reserved_without_a_price() -> None:
    assert reserve(None) == ()
    assert reserve(ZERO) == ()
    assert release(Bill()) == ()


@given(bills(), told)
def test_a_charge_told_by_the_submission_replaces_the_reservation(bill: Bill, charged: Decimal) -> None:
    after = bill.after(accept(bill, charged))
    assert after.reserved == 0
    assert after.charged - bill.charged == charged.quantize(Decimal("0.000001"))
    assert accept(bill, None) == ()


@given(
    st.lists(st.builds(Entry, st.sampled_from(EntryKind), amounts, st.just("test")), max_size=20), st.integers(0, 20)
)
def test_entries_add_up_however_they_are_grouped(entries: list[Entry], cut: int) -> None:
    assert Bill().after(tuple(entries)) == Bill().after(tuple(entries[:cut])).after(tuple(entries[cut:]))


# Settling


@given(bills(), figures)
def test_settling_twice_is_settling_once(bill: Bill, said: dict[str, Decimal | None]) -> None:
    after = bill.after(settle(bill, **said))
    assert settle(after, **said) == ()


@given(bills(), figures)
def test_it_ends_the_reservation_and_gives_back_no_more_than_was_taken(
    bill: Bill, said: dict[str, Decimal | None]
) -> None:
    after = bill.after(settle(bill, **said))
    assert after.reserved == 0
    assert after.charged >= bill.charged
    assert after.refunded >= bill.refunded
    assert 0 <= after.refunded <= after.charged


@given(bills(), maybe, maybe)
def test_a_refund_that_is_only_promised_is_never_booked(
    bill: Bill, priced: Decimal | None, charged: Decimal | None
) -> None:
    """Neither a lower price nor a lower charge is a refund: only a figure that says so."""
    rows = settle(bill, priced=priced, used=None, charged=charged, refunded=None)
    assert [row for row in rows if row.kind is EntryKind.REFUNDED] == []


@given(st.builds(Bill, reserved=amounts, charged=amounts), figures)
def test_what_remains_charged_is_what_the_provider_says_remains(bill: Bill, said: dict[str, Decimal | None]) -> None:
    assume(said["used"] is not None)
    after = bill.after(settle(bill, **said))
    assert said["used"] is not None
    assert net(after) == said["used"].quantize(Decimal("0.000001"))


@given(amounts, figures)
def test_what_was_charged_is_known_by_the_best_witness(reserved: Decimal, said: dict[str, Decimal | None]) -> None:
    """The answer's own figure, else the documented price, else what is said to remain."""
    assume(said["charged"] is None and said["refunded"] is None and said["used"] is None)
    rows = settle(Bill(reserved), **said)
    charged = [row for row in rows if row.kind is EntryKind.CHARGED]
    priced = (said["priced"] or ZERO).quantize(Decimal("0.000001"))
    assert [(row.amount, row.source) for row in charged] == ([(priced, "price")] if priced else [])


@given(bills())
def test_silence_changes_nothing_but_the_reservation(bill: Bill) -> None:
    assert settle(bill, priced=None, used=None, charged=None, refunded=None) == release(bill)


@pytest.mark.parametrize(
    ("bill", "said", "expected"),
    [
        # A failure, refunded whole: charged by the price, all of it back.
        (Bill(Decimal(45)), {"priced": Decimal(45), "used": ZERO}, Bill(ZERO, Decimal(45), Decimal(45))),
        # A render that cost less than its price.
        (Bill(Decimal(45)), {"priced": Decimal(45), "used": Decimal(30)}, Bill(ZERO, Decimal(45), Decimal(15))),
        # … and one that cost more: recorded as seen.
        (Bill(Decimal(45)), {"priced": Decimal(45), "used": Decimal(60)}, Bill(ZERO, Decimal(60), ZERO)),
        # The submission told the charge; the answer confirms it.
        (Bill(charged=Decimal(40)), {"priced": Decimal(45), "used": Decimal(40)}, Bill(ZERO, Decimal(40), ZERO)),
        # The provider tells charges and refunds apart.
        (
            Bill(Decimal(45)),
            {"charged": Decimal(50), "refunded": Decimal(20)},
            Bill(ZERO, Decimal(50), Decimal(20)),
        ),
        # A failure without a figure: charged by its price; the refund is asked for later.
        (Bill(Decimal(45)), {"priced": Decimal(45)}, Bill(ZERO, Decimal(45), ZERO)),
        # … and when it comes.
        (Bill(charged=Decimal(45)), {"priced": Decimal(45), "used": ZERO}, Bill(ZERO, Decimal(45), Decimal(45))),
        # A refund of something nobody said was charged.
        (Bill(), {"refunded": Decimal(7)}, Bill(ZERO, Decimal(7), Decimal(7))),
        # The answer's charge is lower than what was booked: no refund was told, so none is booked.
        (Bill(charged=Decimal(45)), {"charged": Decimal(10)}, Bill(ZERO, Decimal(45), ZERO)),
    ],
)
def test_settling_by_example(bill: Bill, said: dict[str, Decimal], expected: Bill) -> None:
    whole: dict[str, Decimal | None] = {"priced": None, "used": None, "charged": None, "refunded": None}
    assert bill.after(settle(bill, **whole | said)) == expected
