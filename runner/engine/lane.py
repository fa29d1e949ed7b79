"""One account's lane: claims what its limits allow, starts a short task for each claim, and sleeps until something
falls due or something happened. Nothing is held here that a `kill -9` could lose."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from runner.errors import ErrorKind, Fenced
from runner.exchange import Refusal
from runner.expand.keys import parse_spec
from runner.jobs import State
from runner.lifecycle import evidence, fetching, following, hosting, looking, submitting
from runner.lifecycle.desk import Desk
from runner.limits import earliest, poll_every
from runner.store.claims import UNLIMITED, Round, Wants, claim, submission_room
from runner.store.intents import LOST_ANSWERS, LOST_WITHIN, Intent
from runner.store.work import Work, load, peek, reviewed, to_review

log = structlog.get_logger("runner")
REQUESTS = 64  # polls and submissions of one lane at a time
DOWNLOADS = 8
REVIEW_PATIENCE = timedelta(minutes=30)
LONGEST_SLEEP = 5.0  # wall seconds: other processes may change the queue without our noticing
SHARED_SLEEP = 1.0  # … and where other workers share the account, they may free what we wait for


@dataclass(slots=True)
class Lane:
    """`rounds` counts its claims. `batch_ids`: whose jobs may be submitted (None: all). `until`: no paid request
    after that moment."""

    desk: Desk
    batch_ids: Sequence[int] | None = None
    until: datetime | None = None
    beyond_budget: bool = False
    stopping: bool = False
    rounds: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _paying: set[asyncio.Task[None]] = field(default_factory=set)
    _asking: set[asyncio.Task[None]] = field(default_factory=set)
    _loading: set[asyncio.Task[None]] = field(default_factory=set)
    _hosting: set[int] = field(default_factory=set)
    _broke: set[int] = field(default_factory=set)
    _in_flight: int = 0
    _closed_until: datetime | None = None
    _patient_until: datetime | None = None
    trouble: list[BaseException] = field(default_factory=list)

    async def run(self) -> None:
        """Works until it is told to stop; raises what its tasks could not deal with."""
        await looking.hold_foreign(self.desk)
        while not self._told_to_stop():
            self.news.clear()
            taken = await self._claim()
            if self._told_to_stop():
                return  # what was claimed is given back: nothing of it has been sent
            await self._start(taken)
            if self.trouble:
                raise self.trouble[0]
            if not taken:
                await self._sleep(earliest(self.desk.now(), taken.wake_at, self.desk.breaker.probe_at))

    def _told_to_stop(self) -> bool:
        return self.stopping

    @property
    def busy(self) -> bool:
        """Whether a request of this lane is under way."""
        return bool(self._paying or self._loading)

    def stop(self) -> None:
        """No new claims, and nothing new to pay for: `run` returns at its next step."""
        self.stopping = True
        self.news.set()

    async def finish(self, patience: float) -> None:
        """After `run` has ended: paid requests on the wire are awaited for `patience` wall seconds, the rest is cut."""
        if self._paying:
            await asyncio.wait(self._paying, timeout=patience)
        rest = self._paying | self._asking | self._loading
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)

    async def written(self) -> None:
        """After `finish`: awaits the end of what must not be cut short. It is near, once the store is in a hurry."""
        if self.desk.pending:
            await asyncio.wait(self.desk.pending)

    async def _claim(self) -> Round:
        desk = self.desk
        intents = await self._intents()
        now, breaker = desk.now(), desk.breaker
        wants = Wants(
            desk.worker, desk.account, desk.provider.keyed, intents,
            drains=desk.balance_tells, resends=self._hands(), looks=not desk.provider.keyed,
            polls=self._hands() - len(intents), poll_pages=self._pages(), settles=4,
            downloads=DOWNLOADS - len(self._loading), most=breaker.most(now, UNLIMITED),
        )  # fmt: skip
        taken = await desk.store.write(claim, now, wants)
        if taken.asks:
            breaker.asked(now)
        self._in_flight = taken.in_flight
        desk.paused = taken.paused
        self.rounds += 1
        self._note_budget(intents, taken)
        self._note_closed(taken.closed_until)
        return taken

    def _note_budget(self, intents: Sequence[Intent], taken: Round) -> None:
        """Batches whose next job has to wait for money are left out until something has ended, so that they do not
        stand before those that can pay."""
        sent = {claim.job_id for claim in taken.submissions}
        broke = {intent.batch_id for intent in intents if taken.beyond_budget and intent.job_id not in sent}
        if broke - self._broke:
            self._broke |= broke
            self.news.set()
        self.beyond_budget = bool(self._broke) and not sent

    def _note_closed(self, until: datetime | None) -> None:
        """A person should know why nothing is ordered any more; each answer that was lost has been told by itself."""
        if until is not None and until != self._closed_until:
            why = f"{LOST_ANSWERS} answers were lost within {LOST_WITHIN.total_seconds() / 60:.0f} min"
            log.warning("orders are paused", account=self.desk.account, why=why, hint="it goes on by itself")
            self._closed_until = until

    def _out_of_reach(self) -> bool:
        """While the provider does not answer, a task that we have there is asked after, and nothing is paid for: only
        without any an order is the probe."""
        return self.desk.breaker.open and (self._in_flight > 0 or not self.desk.breaker.allows(self.desk.now()))

    def _hands(self) -> int:
        return max(0, REQUESTS - len(self._paying) - len(self._asking))

    def _pages(self) -> int:
        one_by_one = self.desk.provider.history is None or self.desk.breaker.open or self._listing()
        return 0 if one_by_one else 2

    def _listing(self) -> bool:
        return any(task.get_name() == "list" for task in self._asking)

    async def _intents(self) -> list[Intent]:
        """Ready intents for as many submissions as could go now; composed before they are claimed."""
        desk = self.desk
        if (self.until is not None and desk.now() >= self.until) or self._out_of_reach():
            return []
        if not await looking.trusted(desk):
            return []
        room = await desk.store.read(submission_room, desk.account, desk.now())
        most = min(room.free if desk.provider.keyed else min(1, room.free), self._hands())
        if most <= 0 or room.paused:
            return []
        if not await self._all_reviewed():
            return []
        waiting = await desk.store.read(
            peek, desk.now(), desk.account, most, self.batch_ids, room.stopped_models, self._broke
        )
        if not waiting or not await self._credits_are_back(room.paused_kind):
            return []
        if not await evidence.note_baseline(desk):
            return []
        return [intent for work in waiting if (intent := await self._ready(work)) is not None]

    async def _all_reviewed(self) -> bool:
        """Whether orders may go: references that the provider wants to review are judged first, for all jobs of the
        run, so that nothing is paid for on the way to a refusal. A review that takes its time holds up only its own
        jobs after half an hour."""
        desk = self.desk
        if desk.provider.registering is None:
            return True
        due, waiting = await desk.store.read(to_review, desk.now(), desk.account, REQUESTS, self.batch_ids)
        passed = [work.id for work in due if await self._ready(work) is not None]
        if passed:
            await desk.store.write(reviewed, passed)
            self.news.set()
        self._patient_until = self._patient_until or desk.now() + REVIEW_PATIENCE
        return not waiting or desk.now() > self._patient_until

    async def _ready(self, work: Work) -> Intent | None:
        """The intent of a job, or None while its files are being hosted (in a task of its own: that may take a
        while)."""
        if work.id in self._hosting:
            return None
        try:
            intent = await submitting.prepare(self.desk, work)
        except Fenced:
            return None  # somebody else was faster
        if isinstance(intent, hosting.Unhosted):
            self._hosting.add(work.id)
            self._spawn(self._asking, self._host(work), "host")
            return None
        return intent

    async def _host(self, work: Work) -> None:
        try:
            await hosting.host(self.desk, work, parse_spec(work.spec)[1])
        finally:
            self._hosting.discard(work.id)

    async def _credits_are_back(self, kind: str | None) -> bool:
        """After a pause for want of credits the balance is asked where there is one, before an order is tried again."""
        desk = self.desk
        if kind != "insufficient_credits" or desk.provider.balance is None:
            return True
        ask_balance = desk.provider.balance
        allowed, request, _ = await desk.permitted()
        if not allowed:
            return False
        answer = await desk.ask_provider(ask_balance)
        await desk.answered(request)
        if isinstance(answer, Refusal) or answer > 0:
            return True
        await desk.pause(ErrorKind(kind), "the balance is still 0")
        return False

    async def _start(self, taken: Round) -> None:
        """One short task per claim. Each holds what it needs, loaded in one query per round."""
        claims = [*taken.submissions, *taken.resends, *taken.polls, *taken.settles, *taken.downloads]
        listed, looked = taken.listing, taken.looks
        works = await self.desk.store.read(load, [c.job_id for c in (*claims, *listed, *looked)])
        if self._told_to_stop():
            return  # nothing is paid for after the first signal
        self._set_pace(works)
        for c in (*taken.submissions, *taken.resends):
            self._spawn(self._paying, submitting.submit(self.desk, works[c.job_id], c))
        for c in taken.polls:
            self._spawn(self._asking, following.poll(self.desk, works[c.job_id], c))
        for c in taken.settles:
            self._spawn(self._asking, following.settle(self.desk, works[c.job_id], c))
        for c in taken.downloads:
            self._spawn(self._loading, fetching.fetch(self.desk, works[c.job_id], c))
        if listed:
            pairs = [(works[c.job_id], c) for c in listed]
            self._spawn(self._asking, following.poll_list(self.desk, pairs, taken.pages), "list")
        if looked:
            self._spawn(self._asking, looking.look(self.desk, [(works[c.job_id], c) for c in looked]), "look")

    def _set_pace(self, works: dict[int, Work]) -> None:
        """Polls share the window with submissions: with many tasks each is asked less often."""
        windows = self.desk.provider.windows
        running = sum(1 for work in works.values() if work.standing.state is State.RUNNING)
        if windows and self.desk.provider.history is None and running:
            self.desk.every = timedelta(seconds=poll_every(0.0, running, windows, 8))

    def _spawn(self, crowd: set[asyncio.Task[None]], work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        task = asyncio.create_task(self._guard(work), name=name)
        crowd.add(task)
        task.add_done_callback(crowd.discard)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """A job that has moved on is somebody else's; anything else that no verdict foresaw stops the run."""
        try:
            await work
        except Fenced as fenced:
            log.warning("fenced", account=self.desk.account, why=str(fenced))
        except Exception as error:
            self.trouble.append(error)
        finally:
            self._broke.clear()
            self.news.set()

    async def _sleep(self, wake_at: datetime | None) -> None:
        """Until something happened here, or falls due, or it is time to look what others have changed."""
        clock = self.desk.clock
        longest = LONGEST_SLEEP if self.desk.store.sqlite else SHARED_SLEEP
        wait = clock.real((wake_at - clock.now()).total_seconds()) if wake_at is not None else longest
        try:
            async with asyncio.timeout(min(max(wait, 0.01), longest)):
                await self.news.wait()
        except TimeoutError:
            return
