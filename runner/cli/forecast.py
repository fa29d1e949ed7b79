"""How long the rest may take: from how long tasks took so far, as a range, or nothing while nothing is known. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

FEWEST = 3  # durations needed before anything is said


def remaining(queued: int, in_flight: int, concurrency: int, durations: Sequence[float]) -> tuple[float, float] | None:
    """Seconds until an account is done, least and most likely, from the quartiles of past durations (seconds)."""
    if not queued and not in_flight:
        return 0.0, 0.0
    if len(durations) < FEWEST:
        return None
    quick, _, slow = quantiles(durations, n=4)
    rounds = (queued + in_flight / 2) / max(1, concurrency)
    return quick * max(rounds, 0.25), slow * max(rounds + 0.5, 1.0)


def latest(ranges: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """When the last account is done; unknown as long as one of them is."""
    known = [r for r in ranges if r is not None]
    if len(known) < len(ranges) or not known:
        return None
    return max(low for low, _ in known), max(high for _, high in known)


def in_words(span: tuple[float, float] | None) -> str:
    if span is None:
        return "not known yet"
    low, high = (_clock(seconds) for seconds in span)
    return low if low == high else f"{low} to {high}"


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute"
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
