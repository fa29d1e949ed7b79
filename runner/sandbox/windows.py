"""How many requests within 60 seconds: sliding windows, one to limit by and one to remember the worst."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

WINDOW = 60.0  # scaled seconds


@dataclass(frozen=True, slots=True)
class Room:
    """What the rate headers say: `reset` is a Unix time in whole seconds, at which the next place is free for sure."""

    admitted: bool
    limit: int
    remaining: int
    reset: int

    def wait(self, now: float) -> int:
        return max(1, math.ceil(self.reset - now))


class Window:
    """The moments of the last 60 s, oldest first."""

    __slots__ = ("_moments", "most")

    def __init__(self) -> None:
        self._moments: deque[float] = deque()
        self.most = 0

    def count(self, now: float) -> int:
        while self._moments and self._moments[0] <= now - WINDOW:
            self._moments.popleft()
        return len(self._moments)

    def add(self, now: float) -> int:
        self._moments.append(now)
        count = self.count(now)
        self.most = max(self.most, count)
        return count

    def admit(self, now: float, limit: int) -> Room:
        """Takes a place where one is free; refused requests take none."""
        admitted = self.count(now) < limit
        if admitted:
            self._moments.append(now)
        oldest = self._moments[0] if self._moments else now
        return Room(admitted, limit, max(0, limit - len(self._moments)), math.ceil(oldest + WINDOW))
