"""A run: one lane per account, until nothing can move by itself any more, or somebody says stop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from runner.engine.ending import Exit, Hindrances, Tally, moving, verdict
from runner.engine.lane import Lane
from runner.errors import LocalError
from runner.store import Store, set_back
from runner.store.ownership import rescue as give_back
from runner.store.queries import AccountRow, Standings, account_rows, standings

PATIENCE = 8.0  # wall seconds that paid requests on the wire are awaited: a signal ends the run within ten
DISK_PATIENCE = timedelta(hours=1)  # a disk that is full may be freed meanwhile: the render is paid for
CHECK_EVERY = 0.5  # wall seconds between two looks whether the run is over, at least
CHECK_SELDOM = 3.0  # seconds between two counts where one takes long: a run must not end much later than its work


@dataclass(slots=True)
class Engine:
    """`lacking`: accounts of the queue whose jobs this run leaves alone, and why: it does not have their key, or does
    not know their provider.

    `stop` ends the run from outside. `tallies` is refreshed while it works, for whoever shows progress.
    """

    store: Store
    lanes: Sequence[Lane]
    batch_ids: Sequence[int] | None
    lacking: Mapping[str, str] = field(default_factory=dict)
    until: datetime | None = None
    wait: bool = True
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tallies: list[Tally] = field(default_factory=list)
    accounts: list[AccountRow] = field(default_factory=list)
    _seen: datetime | None = None

    async def run(self) -> Exit:
        """Works until the end; returns the exit code that the jobs deserve. A stop from outside leaves all as it is."""
        self.store.wait_for_room(self._disk_patience)
        works = [asyncio.create_task(lane.run(), name=f"lane {lane.desk.account}") for lane in self.lanes]
        watching = asyncio.create_task(self._watch(works), name="watch")
        stopping = asyncio.create_task(self.stop.wait(), name="stop")
        try:
            await asyncio.wait([watching, stopping], return_when=asyncio.FIRST_COMPLETED)
            if watching.done():  # a stop is not kept waiting by a look at a database that is away
                watching.result()
        finally:
            watching.cancel()
            stopping.cancel()
            await self._halt(works)
            self._tell_unstored()
        return verdict(self.tallies, self._hindrances())

    @property
    def _disk_patience(self) -> timedelta:
        return DISK_PATIENCE if self.wait else timedelta(0)

    def _tell_unstored(self) -> None:
        """A paid task whose id is nowhere but in an error: that error is the one to show, whatever else went wrong."""
        for lane in self.lanes:
            for unstored in lane.desk.unstored:
                raise unstored

    async def _watch(self, works: list[asyncio.Task[None]]) -> None:
        """Returns when nothing moves any more."""
        pause = 0.0
        while True:
            if works:
                await asyncio.wait(works, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in works:
                if task.done():
                    task.result()  # a lane ends by itself only with an error
            began = asyncio.get_running_loop().time()
            await self._mind_the_clock()
            if not await self._moves() and await self._still_nothing(works):
                return
            pause = min(CHECK_SELDOM, max(CHECK_EVERY, 20 * (asyncio.get_running_loop().time() - began)))

    async def _moves(self) -> bool:
        """Whether anything can move. Who is at work is asked before the count and after it: work that ends meanwhile is
        not in it."""
        busy = self._busy()
        await self._count()
        return busy or moving(self.tallies, self._hindrances()) > 0 or self._busy()

    def _busy(self) -> bool:
        return any(lane.busy for lane in self.lanes)

    async def _mind_the_clock(self) -> None:
        """Once it has been set back, the lanes would wait until it shows again what it has shown before."""
        now, before = self.store.clock.now(), self._seen
        self._seen = now
        if before is not None and before - now > set_back.NOTICED:
            await self.store.write(set_back.bring_back, now, before - now)
            set_back.tell(before - now)
            for lane in self.lanes:
                lane.desk.asked_alone.clear()
                lane.news.set()

    async def _still_nothing(self, works: Sequence[asyncio.Task[None]]) -> bool:
        """Nothing moves, by the last count: but a lane may not have looked since. Each claims once more, whole, then
        all is counted again, so that a run does not end in the gap between two steps."""
        enough = [lane.rounds + 2 for lane in self.lanes]  # the first of them may have begun before the count
        while any(lane.rounds < rounds for lane, rounds in zip(self.lanes, enough, strict=True)):
            if any(task.done() for task in works):
                return False
            for lane in self.lanes:
                lane.news.set()
            await asyncio.sleep(0.02)
        return not await self._moves()

    async def _count(self) -> None:
        now = self.store.clock.now()
        found = await self.store.read(standings, now, self.batch_ids, self._disk_patience)
        self.accounts = await self.store.read(account_rows)
        self.tallies = [_tally(row) for row in found]

    def _hindrances(self) -> Hindrances:
        now = self.store.clock.now()
        served = {lane.desk.account for lane in self.lanes}
        return Hindrances(
            lacking=self.lacking.keys() | ({tally.account for tally in self.tallies} - served),
            stopped={row.name for row in self.accounts if row.stopped},
            paused={row.name for row in self.accounts if row.probes},
            beyond_budget={lane.desk.account for lane in self.lanes if lane.beyond_budget},
            time_is_up=self.until is not None and now >= self.until,
            wait=self.wait,
        )

    async def _halt(self, works: list[asyncio.Task[None]]) -> None:
        """Stops all lanes before any of them is waited for, then gives back what they held: the next run need not wait
        for our silence."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        for lane in self.lanes:
            lane.stop()
        await _ended(works)
        await asyncio.gather(*(lane.finish(until - loop.time()) for lane in self.lanes))
        self.store.hurry()
        await asyncio.gather(*(lane.written() for lane in self.lanes))
        try:
            await self.store.write(give_back, self.store.clock.now(), [self.store.worker])
            await self._count()
        except LocalError:
            return  # the queue cannot be written: the next run rescues what we held


async def _ended(works: list[asyncio.Task[None]]) -> None:
    """Lanes end at their next step; one that stands in a long question is cut short."""
    if works:
        await asyncio.wait(works, timeout=1.0)
        for task in works:
            task.cancel()
        await asyncio.wait(works)


def _tally(row: Standings) -> Tally:
    return Tally(row.account, row.states, row.overdue, row.concurrency, row.stopped_model, row.cancelled_by_provider,
                 row.stuck, row.occupied, row.unasked)  # fmt: skip


def until_next(hour: int, minute: int, now: datetime) -> datetime:
    """The next time a local clock shows this hour and minute, as a moment in UTC."""
    local = now.astimezone()
    at = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if at <= local:
        naive = at.replace(tzinfo=None) + timedelta(days=1)
        at = naive.astimezone()
    return at.astimezone(now.tzinfo)
