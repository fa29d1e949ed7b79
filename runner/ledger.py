"""Money: exact decimals, stored as whole millionths of a credit, booked in the transaction of what causes it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum

MICRO = Decimal("0.000001")
DEAR = Decimal("1.2")  # times what was expected: so much more is no rounding (reliability.md section 1.3, F58)
ZERO = Decimal(0)


def to_micros(credits: Decimal) -> int:
    """Credits as whole millionths, the form in which the database adds them up exactly on both engines."""
    return int(credits.quantize(MICRO, ROUND_HALF_EVEN).scaleb(6))


def from_micros(micros: int) -> Decimal:
    return Decimal(micros).scaleb(-6)


def as_text(credits: Decimal | None) -> str | None:
    """A decimal string for machines: no exponent, no trailing zeros after the point; None stays None."""
    if credits is None:
        return None
    text = format(credits.normalize(), "f")
    return "0" if text in ("-0", "") else text


@dataclass(frozen=True, slots=True)
class Price:
    """What a request will cost, in credits: exact where `low` equals `high`, else an interval with the reason."""

    low: Decimal
    high: Decimal
    note: str = ""

    @classmethod
    def exactly(cls, credits: Decimal | int | str) -> Price:
        return cls(Decimal(credits), Decimal(credits))

    @property
    def exact(self) -> bool:
        return self.low == self.high


class EntryKind(StrEnum):
    """The three kinds of ledger rows. `estimated` rows of one attempt sum to what is still reserved for it."""

    ESTIMATED = "estimated"
    CHARGED = "charged"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger: an amount in credits (negative only to release a reservation) and where the figure is
    from."""

    kind: EntryKind
    amount: Decimal
    source: str


@dataclass(frozen=True, slots=True)
class Bill:
    """What is booked for one attempt so far, in credits."""

    reserved: Decimal = ZERO
    charged: Decimal = ZERO
    refunded: Decimal = ZERO

    def after(self, entries: tuple[Entry, ...]) -> Bill:
        total = {kind: sum((e.amount for e in entries if e.kind is kind), ZERO) for kind in EntryKind}
        return Bill(
            self.reserved + total[EntryKind.ESTIMATED],
            self.charged + total[EntryKind.CHARGED],
            self.refunded + total[EntryKind.REFUNDED],
        )


def exact(credits: Decimal) -> Decimal:
    """An amount as the ledger can hold it: whole millionths."""
    return credits.quantize(MICRO, ROUND_HALF_EVEN)


def is_dear(expected: Decimal | None, charged: Decimal) -> bool:
    """Whether a charge is more than a fifth above what a document or an earlier charge says."""
    return expected is not None and charged > expected * DEAR


def reserve(price: Decimal | None) -> tuple[Entry, ...]:
    """The intent to pay: the upper end of the estimate is reserved; nothing where no price is known."""
    return (Entry(EntryKind.ESTIMATED, exact(price), "plan"),) if price else ()


def release(bill: Bill) -> tuple[Entry, ...]:
    """A reservation that is over, because the order was refused or its cost is known."""
    return (Entry(EntryKind.ESTIMATED, -bill.reserved, "released"),) if bill.reserved else ()


def accept(bill: Bill, charged: Decimal | None) -> tuple[Entry, ...]:
    """The answer to a submission told what was deducted: book it and let the reservation go; else keep reserving."""
    if charged is None:
        return ()
    return (*release(bill), Entry(EntryKind.CHARGED, exact(charged), "submit"))


def settle(
    bill: Bill, *, priced: Decimal | None, used: Decimal | None, charged: Decimal | None, refunded: Decimal | None
) -> tuple[Entry, ...]:
    """The rows that a terminal answer causes (providers.md section 7, "Reading money").

    charged = what is booked already, else what the answer says was charged, else the exact documented price, else the
    `used` figure; refunded = charged − used, or as told. Never books a refund that is only promised, nor one of more
    than was charged. Idempotent: what is booked already is not booked again, and a charge seen to be higher is
    corrected as seen.
    """
    told = charged if charged is not None else bill.charged or priced or used or ZERO
    whole = exact(max(told, bill.charged, used or ZERO, refunded or ZERO))
    back = whole - exact(used) if used is not None else exact(refunded or ZERO)
    rows = [*release(bill)]
    if whole > bill.charged:
        rows.append(Entry(EntryKind.CHARGED, whole - bill.charged, _source(charged, priced, used)))
    if back > bill.refunded:
        rows.append(Entry(EntryKind.REFUNDED, back - bill.refunded, "status"))
    return tuple(rows)


def _source(charged: Decimal | None, priced: Decimal | None, used: Decimal | None) -> str:
    if charged is not None:
        return "status"
    return "price" if priced and (used is None or priced >= used) else "status"
