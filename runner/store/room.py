"""A disk that is full: the queue's owner waits for room, since most disks are freed by somebody before the morning.

Only SQLite says so by itself. What was to be written is rolled back whole, and tried again whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from runner.clock import Clock
from runner.errors import DiskFull
from runner.limits import backoff

T = TypeVar("T")
LONGEST_PAUSE = 15.0  # seconds
log = structlog.get_logger("runner")


class Room:
    """How long a process bears a full disk: `patience` by its clock, and not once it wants to end (`hurried`)."""

    def __init__(self, clock: Clock, hurried: asyncio.Event) -> None:
        self.patience = timedelta(0)
        self._clock, self._hurried = clock, hurried
        self._since: datetime | None = None

    async def through(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` returns, made again until there is room for it. Raises DiskFull when that takes too long."""
        tries = 0
        while True:
            try:
                found = await attempt()
            except DiskFull as error:
                tries += 1
                self._bear(error)
                await self._pause(tries)
            else:
                self._note_room()
                return found

    def _bear(self, error: DiskFull) -> None:
        if self._hurried.is_set() or not self.patience:
            raise error
        now = self._clock.now()
        if self._since is None:
            self._since = now
            waiting = f"up to {self.patience.total_seconds() / 60:.0f} min"
            log.warning("the queue's disk is full", why=error.message, waiting=waiting, hint=error.hint)
        elif now - self._since > self.patience:
            raise error

    async def _pause(self, tries: int) -> None:
        with suppress(TimeoutError):
            wait = self._clock.real(backoff(tries, first=1.0, cap=LONGEST_PAUSE))
            await asyncio.wait_for(self._hurried.wait(), wait)

    def _note_room(self) -> None:
        if self._since is not None:
            log.warning("there is room again on the queue's disk")
        self._since = None
