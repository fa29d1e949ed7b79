"""Credits are whole millionths inside, `Decimal` in prices, decimal text outside. Never a float, but on the wire."""

from __future__ import annotations

from decimal import Decimal

MICRO = 1_000_000


def micros(amount: Decimal | int | str) -> int:
    """`amount` credits in millionths. Raises ValueError where it is no number or is finer than a millionth."""
    try:
        scaled = Decimal(amount) * MICRO
        whole = int(scaled)
    except (ArithmeticError, ValueError, TypeError):
        raise ValueError(f"{amount!r} is not an amount of credits") from None
    if scaled != whole:
        raise ValueError(f"{amount} credits are finer than a millionth")
    return whole


def text(amount: int) -> str:
    """Millionths as the shortest decimal text: 37500000 is "37.5"."""
    sign, (whole, part) = "-" if amount < 0 else "", divmod(abs(amount), MICRO)
    return f"{sign}{whole}" + (f".{part:06d}".rstrip("0") if part else "")


def number(amount: int) -> int | float:
    """Millionths as the JSON number a provider would send: 30, or 37.5."""
    return amount // MICRO if amount % MICRO == 0 else amount / MICRO
