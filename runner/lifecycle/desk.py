"""What every step of a job's life needs at hand: one account, its provider, its line, the queue and the clock."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import structlog

from runner.client.asking import Line
from runner.client.fetching import Fetcher
from runner.clock import Clock
from runner.downloads.outcomes import CAP, Refused
from runner.errors import ErrorKind, NoAnswer, NotSent, Unstored
from runner.exchange import Action, Ask, Refusal
from runner.jobs import QUIET, Change, Event, State
from runner.limits import PROBE_EVERY, Breaker
from runner.providers.description import Model, Provider
from runner.store import Store
from runner.store import accounts as account_rows
from runner.store.changes import end_requests
from runner.store.intents import Claim
from runner.store.windows import claim_request
from runner.store.work import Work
from runner.verdicts.polling import Poll

T = TypeVar("T")
WORRYING = frozenset({State.UNKNOWN, State.HELD})
QUOTING = frozenset(
    {
        Event.REJECTED, Event.PUT_BACK, Event.REFUSED, Event.TASK_FAILED, Event.TASK_CANCELLED, Event.TASK_REFUSED,
        Event.TASK_LOST, Event.ANSWER_LOST, Event.NOT_FOUND, Event.LOOKED,
    }
)  # fmt: skip
OUR_CODES = frozenset({"no_answer", "not_sent", "other_key", "key_window", "reference", "reference_changed", "review"})
log = structlog.get_logger("runner")


@dataclass(slots=True)
class Desk:
    """One account at work. `fingerprint` is of today's key; `trusted` turns False when tasks in flight were paid with
    another key, until one of them answers to this one. `paused`: the account has been refusing paid requests. `every`
    (the pace of polling) is at least `poll_interval`; `asked_alone` tells when a task was last asked by itself, not
    by a list. `exclusive`: nobody else spends from the account. `leave`: the person at the command line lets orders go
    again whose answer got lost and that nothing speaks for. `callback_url`: where the provider shall call when a task
    ends, if it offers to. `largest_file`: more bytes than these are no output. `refused`: by job, those of its outputs
    that cannot be had while others are still to come. `unstored`: paid tasks whose ids could not be stored. `breaker`:
    whether the provider answers at all. `dear`: what requests of these shapes are charged, where that is more than the
    documents say."""

    account: str
    provider: Provider
    line: Line
    fetcher: Fetcher
    store: Store
    clock: Clock
    fingerprint: str
    poll_interval: timedelta
    timeout: timedelta
    trusted: bool = True
    paused: bool = False
    exclusive: bool = False
    leave: bool = False
    callback_url: str | None = None
    largest_file: int = CAP
    every: timedelta = timedelta(0)
    told_limit: int | None = None
    breaker: Breaker = field(default_factory=Breaker)
    told_pause: bool = False
    told_stop: bool = False
    asked_alone: dict[int, datetime] = field(default_factory=dict)
    pending: set[asyncio.Task[None]] = field(default_factory=set)
    refused: dict[int, dict[int, Refused]] = field(default_factory=dict)
    unstored: list[Unstored] = field(default_factory=list)
    dear: dict[str, Decimal] = field(default_factory=dict)
    random: Callable[[], float] = random.random

    @property
    def balance_tells(self) -> bool:
        """Whether the balance is evidence for what became of an order whose answer got lost."""
        return self.exclusive and self.provider.balance is not None and not self.provider.keyed

    def lists(self, model: str) -> bool:
        """Whether the provider's history shows tasks of this model."""
        described = self.provider.model(model)
        return self.provider.history is not None and described is not None and described.listed

    def now(self) -> datetime:
        return self.clock.now()

    @property
    def worker(self) -> int:
        assert self.store.worker is not None, "only an owner of the queue works on it"
        return self.store.worker

    async def ask_provider(self, question: Callable[[Ask], Awaitable[T | Refusal]]) -> T | Refusal:
        """One unpaid request. Silence is a refusal that says "later"; the provider's own limits are obeyed at once."""
        try:
            answer = await question(self.line.ask)
        except (NoAnswer, NotSent) as error:
            self.hear(str(error))
            if isinstance(error, NotSent) and self.breaker.hopeless(error.stops_after):
                await self.stop(str(error))
            return Refusal(Action.LATER, ErrorKind.NETWORK, "no_answer", str(error))
        self.hear(silence(answer) if isinstance(answer, Refusal) else None)
        await self.obey(answer if isinstance(answer, Refusal) else None)
        return answer

    def hear(self, silence: str | None) -> None:
        """What came of a request: None for an answer, else why there is none to speak of. A person is told once."""
        if not self.breaker.heard(self.now(), answered=silence is None):
            return
        if silence is None:
            log.warning("the provider answers again", account=self.account)
        else:
            every = f"{PROBE_EVERY.total_seconds():.0f} s"
            log.warning("the provider does not answer", account=self.account, why=silence, asked_every=every)

    async def obey(self, refusal: Refusal | None) -> None:
        """What an answer says about the whole account moves it for everyone."""
        now = self.now()
        signals = self.line.signals
        if signals.limit:
            await self._obey_limit(signals.limit)
        if refusal is not None and refusal.kind is ErrorKind.RATE_LIMITED and refusal.action is not Action.SLOT:
            await self.store.write(account_rows.block, now, self.account, refusal.wait or signals.reset_in or 5.0)
        elif signals.remaining == 0 and signals.reset_in:
            await self.store.write(account_rows.block, now, self.account, signals.reset_in)
        if refusal is not None and refusal.action is Action.STOP:
            await self.stop(refusal.message, in_our_words(refusal))

    async def stop(self, why: str, told: str | None = None) -> None:
        """Nothing goes on here until a person has seen to it, who is told at once: other accounts may go on for
        hours. `told` is for the log, where `why` is not in our words."""
        await self.store.write(account_rows.stop, self.account, why)
        if not self.told_stop:
            hint = "its tasks are kept; mend that (most often its key), then: runner run"
            log.warning("the account is stopped", account=self.account, why=told or why, hint=hint)
        self.told_stop = True

    async def pause(
        self, kind: ErrorKind, why: str, wait: float | None = None, *, for_slot: bool = False, told: str | None = None
    ) -> None:
        """No paid request for a while; see `accounts.pause`. A person is told once, unless it is only a slot that is
        waited for; `told` as in `stop`."""
        await self.store.write(account_rows.pause, self.now(), self.account, kind.value, why, wait, for_slot)
        if not self.told_pause and not for_slot:
            mend = "top up its credits; " if kind is ErrorKind.INSUFFICIENT_CREDITS else ""
            log.warning("orders are paused", account=self.account, why=told or why, hint=f"{mend}it goes on by itself")
            self.told_pause = True

    async def orders_again(self) -> None:
        """An order was taken: a pause is over."""
        if self.paused:
            await self.store.write(account_rows.orders_again, self.account)
        if self.told_pause:
            log.warning("orders are taken again", account=self.account)
            self.told_pause = False

    async def _obey_limit(self, limit: int) -> None:
        """The provider's own word about its per-minute limit replaces the documented one."""
        documented = next((w.limit for w in self.provider.windows if w.seconds == 60), None)
        believed = self.told_limit or documented
        if believed is not None and believed != limit:
            await self.store.write(account_rows.obey_limit, self.account, believed, limit)
            self.told_limit = limit

    async def permitted(self, keep: int = 0) -> tuple[bool, int | None, datetime | None]:
        """The right to make one more unpaid request, if it can be had now: see `windows.claim_request`."""
        now = self.now()
        if not self.breaker.allows(now):
            return False, None, self.breaker.probe_at
        self.breaker.asked(now)
        return await self.store.write(claim_request, now, self.worker, self.account, keep)

    async def permit(self) -> int | None:
        """Waits for that right, for as long as it takes; returns the request's row in the log."""
        while True:
            allowed, row, at = await self.permitted()
            if allowed:
                return row
            wait = (at - self.now()).total_seconds() if at is not None else 1.0
            await self.clock.sleep(max(wait, 0.05))

    async def answered(self, request: int | None) -> None:
        if request is not None:
            await self.store.write(end_requests, {request: self.now()})

    def question(self, work: Work, claim: Claim) -> Poll:
        """A poll of this job, as the verdicts want to see it."""
        attempt = work.attempt
        assert attempt is not None, "a followed job has an attempt"
        return Poll(
            work.id, claim.lease, work.standing, attempt.bill, attempt.priced, max(self.poll_interval, self.every),
            self.timeout, claim.request, self.now(), self.random(), self.provider.refunds_failures,
            ordered(work, self.provider.model(work.model)),
        )  # fmt: skip

    async def surely(self, work: Coroutine[Any, Any, None]) -> None:
        """Does this to its end even if whoever asked is cancelled meanwhile; `pending` holds it until then."""
        task = asyncio.create_task(work)
        self.pending.add(task)
        task.add_done_callback(self._done)
        await asyncio.shield(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Whoever asked may be gone: a task that was paid for and not stored must be told all the same."""
        self.pending.discard(task)
        trouble = None if task.cancelled() else task.exception()
        if isinstance(trouble, Unstored):
            self.unstored.append(trouble)

    async def record(self, *changes: Change, patient: bool = True) -> None:
        """Records the changes of one step; the log hears of them after the commit."""
        await self.store.record(*changes, patient=patient)
        for change in changes:
            tell(self.account, change)


def silence(refusal: Refusal) -> str | None:
    """Why this is no answer to speak of: the provider says that it is not in service, for nobody."""
    out = refusal.kind is ErrorKind.UNAVAILABLE and refusal.action in (Action.LATER, Action.AMBIGUOUS)
    return in_our_words(refusal) if out else None


def in_our_words(refusal: Refusal) -> str:
    """Its kind and code: in its words a provider may repeat a prompt (reliability.md T30)."""
    return f"{refusal.kind.value} {refusal.code}".strip()


def tell(account: str, change: Change) -> None:
    """One change as a log line: what needs attention is a warning, what happens all the time is for debugging."""
    to = change.standing.state
    say = log.warning if to in WORRYING else log.debug if change.event in QUIET else log.info
    facts = _told(change)
    facts |= {"account": account, "job": str(change.job_id), "source": change.source.value, "target": to.value}
    say(change.event.value, **facts)


def _told(change: Change) -> dict[str, str]:
    """Its facts, but not in the provider's words, who may repeat a prompt in them (reliability.md T30): those are in
    the queue, for `runner show`."""
    facts = {name: str(value) for name, value in change.data.items()}
    failure = change.standing.failure
    if change.event not in QUOTING or failure is None:
        return facts
    ours = failure.code in OUR_CODES and facts.get("why") == failure.message
    return facts if ours else {**facts, "why": failure.kind.value, "code": failure.code}


def ordered(work: Work, model: Model | None) -> int:
    """How many outputs the request asks for, in whatever way it came to say so (`count`, or the provider's own name in
    `params`); where it does not, as many as the document says."""
    field = model.fields.get("count") if model is not None else None
    if model is None or field is None or work.attempt is None:
        return 1
    body = json.loads(work.attempt.body)
    told = str((body.get(model.nest, {}) if model.nest else body).get(field.native, field.default))
    return int(told) if told.isdecimal() else 1
