"""What a plan can foresee going wrong later, in the night: told before anything is paid, and no reason to refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any

from runner.errors import Place, Problem
from runner.expand import Order
from runner.problems import quoted
from runner.references import expiry, without_signature

# No document says how large a render is or how long it takes. These are on the safe side of those seen so far.
IMAGE_BYTES = 10_000_000
VIDEO_BYTES = 3_000_000  # a second
VIDEO_SECONDS = 10  # of a video whose length nobody said
IMAGE_WAIT = 30.0  # seconds until a task has ended
VIDEO_WAIT = 180.0
STILL = frozenset({"png", "jpg", "jpeg", "webp"})
FEWEST = 3  # tasks whose durations say more than ours
KEPT = 1_000  # signed URLs, those that end first


@dataclass(slots=True)
class Foresight:
    """Takes every job that is still to be paid; tells then what may not last, or not fit."""

    bytes: int = 0
    _jobs: Counter[str] = field(default_factory=Counter)
    _waits: Counter[str] = field(default_factory=Counter)
    _signed: dict[str, tuple[datetime, Place]] = field(default_factory=dict)

    def add(self, order: Order) -> None:
        self.bytes += expected_bytes(order)
        self._jobs[order.account] += 1
        self._waits[order.account] += round(IMAGE_WAIT if _is_still(order) else VIDEO_WAIT)
        for pinned in order.references:
            url = pinned.reference.url
            if pinned.sha256 is None and url not in self._signed and (ends := expiry(url)) is not None:
                self._signed[url] = (ends, order.place)
        if len(self._signed) > 2 * KEPT:
            self._signed = dict(sorted(self._signed.items(), key=lambda item: item[1][0])[:KEPT])

    def accounts(self) -> list[str]:
        return [*self._jobs]

    def end(self, now: datetime, concurrency: Mapping[str, int], durations: Mapping[str, list[float]]) -> datetime:
        """When the last job may have been ordered and ended: by how long the last tasks of an account took (seconds),
        where it has had any, and as many at a time as it takes."""
        spans = [0.0]
        for account, jobs in self._jobs.items():
            known = durations.get(account, [])
            wait = jobs * fmean(known) if len(known) >= FEWEST else self._waits[account]
            spans.append(wait / concurrency[account])
        return now + timedelta(seconds=min(max(spans), timedelta(days=3650).total_seconds()))

    def warnings(self, now: datetime, end: datetime, free: int | None) -> Iterator[Problem]:
        """Signed URLs that end before the run does (B65), and outputs for which `free` bytes may not do (B79)."""
        for url, (ends, place) in sorted(self._signed.items(), key=lambda item: item[1][0]):
            if ends < end:
                yield _ending(url, ends, place, now, end)
        if free is not None and self.bytes > free:
            message = f"the outputs may need {_size(self.bytes)}, and {_size(free)} are free on that disk"
            yield Problem("B79", message, "make room, or run the manifest in a folder on a larger disk")


def expected_bytes(order: Order) -> int:
    """How large the outputs of a job may be, all together."""
    count = _number(order.fields.get("count"), 1)
    if _is_still(order):
        return count * IMAGE_BYTES
    return count * VIDEO_BYTES * _number(order.fields.get("duration"), VIDEO_SECONDS)


def _is_still(order: Order) -> bool:
    return order.output.rpartition(".")[2] in STILL


def _number(value: Any, otherwise: int) -> int:
    try:
        return max(1, int(value))
    except (TypeError, ValueError, OverflowError):
        return otherwise


def _ending(url: str, ends: datetime, place: Place, now: datetime, end: datetime) -> Problem:
    when = f"ended at {_when(ends)}" if ends <= now else f"ends at {_when(ends)}, and the run at about {_when(end)}"
    message = f"the signed URL {quoted(without_signature(url), 120)} {when}"
    return Problem("B65", message, "sign it anew, for longer than the run may take", place)


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _size(number: int) -> str:
    return f"{number / 1_000_000_000:,.1f} GB" if number >= 100_000_000 else f"{number / 1_000_000:,.1f} MB"
