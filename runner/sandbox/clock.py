"""The sandbox's own time: `speed` times as fast as the wall, counted from an anchor that outlives the process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate


@dataclass(slots=True)
class Clock:
    """`anchor`: seconds since 1970, the moment at which this time and the wall's agree. All times in scaled seconds."""

    anchor: float
    speed: float = 1.0
    leapt: float = 0.0

    def now(self) -> float:
        wall = time.time()
        return self.leapt + (wall if self.speed == 1.0 else self.anchor + (wall - self.anchor) * self.speed)

    def leap(self, seconds: float) -> None:
        """This time is later at once; who sleeps does not notice. For tests; a restarted sandbox has forgotten it."""
        self.leapt += seconds

    def real(self, seconds: float) -> float:
        """How long `seconds` of this time last on the wall."""
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, self.real(seconds)))


def http_date(moment: float) -> str:
    return formatdate(moment, usegmt=True)


def iso(moment: float) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
