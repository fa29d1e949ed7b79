"""Limits, as pure arithmetic: sliding request windows, back-off, the pace of polling, and a breaker.

Sliding windows, not token buckets: a bucket admits nearly twice the limit in one window. A request stays in its window
until `seconds` after its *answer*, because the provider counts arrivals and a slow request arrives late.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

DEFAULT_CONCURRENCY = 4  # no document names a number
RETRY_AFTER_CAP = 3600.0
OUT_OF_REACH = 3  # questions or orders in a row that came to nothing: the provider cannot be reached, for any job
PROBE_EVERY = timedelta(seconds=30)
SHARES = 3  # lists, questions about single tasks, orders
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` requests in any `seconds`."""

    limit: int
    seconds: int

    def __str__(self) -> str:
        unit = next((name for name, seconds in UNITS.items() if seconds == self.seconds), None)
        return f"{self.limit}/{unit or f'{self.seconds}s'}"


def parse_window(text: str) -> Window | None:
    """`60/minute`, `5/s`, `100/10s` as a window; None when it is not one."""
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(?:(\d+)\s*s|(s|m|h|d|(?:sec|second|min|minute|hour|day)s?))\s*", text)
    if not match or int(match[1]) == 0 or match[2] == "0":
        return None
    if match[2]:
        return Window(int(match[1]), int(match[2]))
    first = {"s": "second", "m": "minute", "h": "hour", "d": "day"}[match[3][0]]
    return Window(int(match[1]), UNITS[first])


def room(windows: Sequence[Window], ends: Sequence[datetime | None], now: datetime) -> int | None:
    """How many requests may start now; None where nothing limits them.

    `ends` holds, for each request that may still count, when it was answered; None for one still on the wire.
    """
    if not windows:
        return None
    return max(0, min(w.limit - sum(_counts(end, w, now) for end in ends) for w in windows))


def next_room(windows: Sequence[Window], ends: Sequence[datetime | None], now: datetime) -> datetime | None:
    """When the next request may start, as far as answered requests tell; None if one may start now or none can tell."""
    waits: list[datetime] = []
    for window in windows:
        counted = [end for end in ends if _counts(end, window, now)]
        over = len(counted) - window.limit
        answered = sorted(end for end in counted if end is not None)
        if over >= 0 and over < len(answered):
            waits.append(answered[over] + timedelta(seconds=window.seconds))
    return max(waits, default=None)


def share(windows: Sequence[Window]) -> int | None:
    """A third of the smallest window: what one use of it may take from the others. None where nothing limits them."""
    return min((w.limit // SHARES for w in windows), default=None)


def list_every(poll_interval: float, pages: int, windows: Sequence[Window]) -> float:
    """Least seconds between two walks over so many pages of a list: they take no more than a third of any window, so
    that what the list leaves open can be asked alone and new orders find room, however small the window is."""
    return max([poll_interval, *(pages * w.seconds * SHARES / w.limit for w in windows)])


def _counts(end: datetime | None, window: Window, now: datetime) -> bool:
    return end is None or end > now - timedelta(seconds=window.seconds)


def earliest(now: datetime, *times: datetime | None) -> datetime | None:
    """The first of these moments that is still to come, if any."""
    return min((at for at in times if at is not None and at > now), default=None)


def backoff(errors: int, *, first: float = 5.0, cap: float = 60.0, spread: float = 0.0) -> float:
    """Seconds to wait after the n-th error in a row (n from 1): doubling up to `cap`, plus up to a quarter of `spread`.

    `spread` is a random number in [0, 1), passed in.
    """
    wait = min(cap, first * 2.0 ** min(max(0, errors - 1), 32))
    return wait * (1 + spread / 4)


def probe_pause(probes: int) -> float:
    """Seconds until an empty or unavailable account is tried again: 30 s, doubling to 15 min (design.md section 10)."""
    return backoff(probes, first=30.0, cap=900.0)


def slot_pause(probes: int) -> float:
    """Seconds to wait for a slot when none of ours may be running: 15 s doubling to 5 min (providers.md section 2)."""
    return backoff(probes, first=15.0, cap=300.0)


def poll_every(poll_interval: float, questions: int, windows: Sequence[Window], kept_for_submissions: int) -> float:
    """Least seconds between two polls of one task: `poll_interval`, or the tasks divided by what is left of the window.

    `questions` is the number of requests that ask for every task once (one per task, or one per page of a list).
    """
    pace = poll_interval
    for window in windows:
        left = max(1, window.limit - kept_for_submissions)
        pace = max(pace, questions * window.seconds / left)
    return pace


@dataclass(slots=True)
class Breaker:
    """Whether a provider answers at all. It opens after OUT_OF_REACH questions in a row that got no answer, or only the
    word that it is not in service: then one request goes every PROBE_EVERY, whatever waits, until one is answered."""

    fruitless: int = 0
    probe_at: datetime | None = None
    answered: bool = False

    @property
    def open(self) -> bool:
        return self.probe_at is not None

    def allows(self, now: datetime) -> bool:
        """Whether a request may go now. (A probe that lies further ahead than any is due: the clock was set back.)"""
        return self.probe_at is None or not now < self.probe_at <= now + PROBE_EVERY

    def most(self, now: datetime, otherwise: int) -> int:
        """How many requests may go now."""
        return int(self.allows(now)) if self.open else otherwise

    def asked(self, now: datetime) -> None:
        """A request goes out: while the breaker is open, the next one waits."""
        if self.open:
            self.probe_at = now + PROBE_EVERY

    def hopeless(self, stops_after: int | None) -> bool:
        """Whether time will not mend it, by `errors.NotSent`. A host that has answered before is only out of reach if
        its name is not known for a while: some systems say so of every name while there is no network."""
        if stops_after is None:
            return False
        return self.fruitless >= stops_after and (stops_after == 1 or not self.answered)

    def heard(self, now: datetime, *, answered: bool) -> bool:
        """What came of a request; returns whether this opened the breaker or closed it."""
        before = self.open
        self.answered = self.answered or answered
        self.fruitless = 0 if answered else self.fruitless + 1
        if answered:
            self.probe_at = None
        elif self.fruitless >= OUT_OF_REACH and not before:
            self.probe_at = now + PROBE_EVERY
        return self.open != before
