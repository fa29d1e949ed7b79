"""Time: UTC, aware, and passed in. `Clock` is the only reader of the wall clock and the only one who sleeps.

`--speed N` divides every wait (design.md section 10): this clock's time runs N times faster than the wall, counted from
an `anchor` that outlives the process, so that due times written by one process mean the same to the next.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import anyio


@dataclass(frozen=True, slots=True)
class Clock:
    """`anchor` is in seconds since 1970 (wall clock); with `speed` 1 it does not matter."""

    speed: float = 1.0
    anchor: float = field(default_factory=time.time)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def timestamp(self) -> float:
        wall = time.time()
        return wall if self.speed == 1.0 else self.anchor + (wall - self.anchor) * self.speed

    def real(self, seconds: float) -> float:
        """How long `seconds` of this clock last on the wall."""
        return seconds / self.speed

    def deadline(self, seconds: float) -> float:
        """A network deadline in wall seconds: divided by the speed like all waits, but never below 2 s."""
        return max(self.real(seconds), min(2.0, seconds))

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, self.real(seconds)))
