"""Whatever happens to the jobs of a queue, every sum that is kept equals the sum of the ledger's rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import Fenced
from runner.exchange import Accepted, Action, Phase, Refusal, Report, ResultFile
from runner.jobs import TERMINAL, Event, State
from runner.store import Store, ownership
from runner.store.changes import attempts, events, jobs, ledger
from runner.store.intents import Claim
from runner.store.queries import sums
from runner.store.tables import totals
from runner.verdicts.polling import Poll, after_poll, after_settling
from runner.verdicts.submission import Outcome, Unanswered, Unsent, after_submission
from store import kit
from store.conftest import empty
from store.kit import order, refusal, rows, seconds, step, take, work_of

PAID = {None, "no_answer", "ambiguous", "conflict", "crash", "accepted"}

amounts = st.decimals(min_value=0, max_value=99, places=6)
maybe = st.none() | amounts
outcomes = st.one_of(
    st.builds(Accepted, st.just("task"), maybe),
    st.just(Unsent("refused")),
    st.just(Unanswered("silence")),
    st.sampled_from(sorted(Action)).map(refusal),
)
reports = st.builds(
    Report,
    task_id=st.just("task"),
    phase=st.sampled_from(Phase),
    status=st.just("said"),
    files=st.sampled_from([(), (ResultFile("https://a", 0),)]),
    used=maybe,
    charged=maybe,
    refunded=maybe,
    error=st.none() | st.sampled_from(sorted(Action)).map(refusal),
)
steps = st.lists(st.tuples(st.integers(0, 1000), outcomes, reports), min_size=12, max_size=24)


@dataclass
class History:
    """What a lane and a person do to a queue, one drawn step after the other."""

    store: Store
    on_the_wire: list[Claim] = field(default_factory=list)
    recorded: list[Any] = field(default_factory=list)
    tasks: int = 0

    async def go(self, choice: int, said: Outcome, report: Report) -> None:
        """One of the things that can happen now."""
        self.store.clock.move(3601)  # type: ignore[attr-defined]
        states = {row.state for row in await rows(self.store, jobs)}
        possible: list[Callable[[], Awaitable[None]]] = [self.submit] * 3 * (State.QUEUED in states)
        possible += [lambda: self.answer(said)] * 6 * bool(self.on_the_wire)
        possible += [lambda: self.poll(report)] * 6 * (State.RUNNING in states)
        possible += [lambda: self.settle(report)] * 3 * bool(states & TERMINAL)
        possible += [self.resend] * 3 * (State.UNKNOWN in states)
        possible += [self.decide] * 2 * bool(states & {State.FAILED, State.HELD})
        possible += [self.rescue, self.twice]
        await possible[choice % len(possible)]()

    async def record(self, changes: Sequence[Any]) -> None:
        self.recorded = list(changes)
        await self.store.record(*changes)

    async def submit(self) -> None:
        """Priced, unpriced, and with an interval for a price, one after the other."""
        price = [Decimal(10), None, Decimal(10)][self.tasks % 3]
        priced = [Decimal(10), None, None][self.tasks % 3]
        ready = [replace(i, priced=priced, estimate=price) for i in await kit.intents(self.store, 2)]
        self.on_the_wire += (await take(self.store, intents=ready)).submissions
        self.tasks += 1

    async def resend(self) -> None:
        self.on_the_wire += (await take(self.store, resends=2)).resends

    async def answer(self, said: Outcome) -> None:
        if self.on_the_wire:
            claimed = self.on_the_wire.pop(0)
            if not isinstance(said, Unsent):
                await kit.mark_brink(self.store, claimed)
            sub = await kit.submission(self.store, claimed)
            await self.record(after_submission(sub, self.unique(said)))

    def unique(self, said: Any) -> Any:
        self.tasks += 1
        return replace(said, task_id=f"task-{self.tasks}") if isinstance(said, Accepted) else said

    async def poll(self, said: Report | Refusal) -> None:
        for claimed in (await take(self.store, polls=1)).polls:
            await self.record([await self.told(claimed, said, after_poll)])

    async def settle(self, said: Report | Refusal) -> None:
        for claimed in (await take(self.store, settles=1)).settles:
            await self.record([await self.told(claimed, said, after_settling)])

    async def told(self, claimed: Claim, said: Report | Refusal, verdict: Callable[..., Any]) -> Any:
        work = await work_of(self.store, claimed.job_id)
        assert work.attempt is not None
        question = Poll(
            work.id, claimed.lease, work.standing, work.attempt.bill, work.attempt.priced, seconds(5), seconds(9000),
            None, self.store.clock.now(),
        )  # fmt: skip
        return verdict(question, said)

    async def decide(self) -> None:
        """A person tries again what has failed, and adopts, sends again or gives up what is held."""
        for row in await rows(self.store, jobs, jobs.c.state.in_([State.FAILED, State.HELD])):
            work = await work_of(self.store, row.id)
            at = self.store.clock.now()
            self.tasks += 1
            name = f"task-{self.tasks}"
            ways = [
                step(Event.ADOPTED, work, State.RUNNING, None, at, task_id=name, accepted_at=at)
                if work.standing.state is State.HELD
                else step(Event.RETRIED, work, State.QUEUED, None, at, task_id=None, unsettled=False, settle_at=None),
                step(Event.ABANDONED, work, State.CANCELLED, None, at)
                if work.standing.state is State.HELD
                else step(Event.SETTLED, work, State.FAILED, None, at),
            ]
            await self.record([ways[self.tasks % 2]])

    async def rescue(self) -> None:
        await self.store.write(ownership.rescue, self.store.clock.now(), [self.store.worker])
        self.on_the_wire.clear()

    async def twice(self) -> None:
        """Something that was recorded already is recorded once more: nothing comes of it."""
        if self.recorded and self.recorded[0].lease is not None:
            try:
                await self.store.record(*self.recorded)
            except Fenced:
                return
            raise AssertionError("it happened twice")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
async def test_every_sum_is_the_sum_of_its_rows(store: Store, history: list[tuple[int, Outcome, Report]]) -> None:
    await store.write(empty)
    await kit.fill(store, [order(n) for n in range(3)], accounts=[kit.settings(concurrency=3)])
    await kit.fill(store, [order(n) for n in range(2)], accounts=[kit.settings(concurrency=3)], name="other")
    happening = History(store)
    for n, (choice, said, report) in enumerate(history, start=1):
        await happening.go(choice, said, report)
        if n % 4 == 0 or n == len(history):
            await check(store)


async def check(store: Store) -> None:
    booked = await rows(store, ledger)
    for table, key, columns in (
        (attempts, "attempt_id", {"estimated": "reserved", "charged": "charged", "refunded": "refunded"}),
        (jobs, "job_id", {"charged": "charged", "refunded": "refunded"}),
    ):
        by_row = added_up(booked, lambda row, key=key: getattr(row, key))
        for row in await rows(store, table):
            for kind, column in columns.items():
                assert getattr(row, column) == by_row[row.id, kind]
    by_purse = added_up(booked, lambda row: (row.batch_id, row.account))
    for row in await rows(store, totals):
        for kind in ("estimated", "charged", "refunded"):
            assert getattr(row, kind) == by_purse[(row.batch_id, row.account), kind]
            assert getattr(row, kind) >= 0
        assert row.charged >= row.refunded
    told = await store.read(sums)
    assert sum(s.charged for s in told) == sum((r.amount for r in booked if r.kind == "charged"), Decimal(0))
    await check_attempts(store)


def added_up(booked: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, Decimal]:
    found: dict[Any, Decimal] = defaultdict(Decimal)
    for row in booked:
        found[key(row), row.kind] += row.amount
    return found


async def check_attempts(store: Store) -> None:
    """A job's `attempts` counts the orders that were, or may have been, taken."""
    made, happened = await rows(store, attempts), await rows(store, events)
    for job in await rows(store, jobs):
        paid = sum(1 for row in made if row.job_id == job.id and row.outcome in PAID)
        free = sum(1 for row in happened if row.job_id == job.id and row.event == Event.TASK_REFUSED)
        assert job.attempts == paid - free
        assert job.state in {State.QUEUED, *TERMINAL} or job.attempt_id is not None
