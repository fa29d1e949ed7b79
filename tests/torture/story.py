"""Stories of one account: hypothesis tells them step by step, and after every step all invariants must hold.

A story is a list of sentences. What breaks an invariant is shrunk to the shortest story that still does, and that story
is the message of the failure.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from runner.cli import assembly
from runner.exchange import Reply
from runner.jobs import SETTLED, Change, State
from runner.lifecycle import deciding
from runner.limits import Window
from runner.providers import registry
from runner.store.changes import apply
from runner.store.enqueue import NewJob
from runner.store.work import Work, answered_before, load, outputs_of, owned_task_ids
from torture.invariants import Memo, Sight, found_in, look_at
from torture.memory import Loop, Memory, MemoryRunner, StandingClock, Terms, without_files
from torture.pretend import FULL, End, Mishap, Pretend, Task

NAMES = {"fox": 1, "elk": 2, "jar": 1, "owl": 1, "bee": 1, "cat": 1, "dog": 1}  # and how many of each are asked for
MEETS = st.sampled_from([*[None] * 4, *Mishap])
LASTING = {
    "a moment": 5.0, "a minute": 61.0, "a quarter of an hour": 901.0, "an hour": 3601.0, "seven hours": 25_200.0,
}  # fmt: skip
DECISIONS = {
    "adopts a task for": State.HELD, "retries": State.FAILED, "resubmits": State.HELD, "cancels": State.QUEUED,
    "gives up": State.HELD,
}  # fmt: skip
ENOUGH = 400  # rounds in which everything must have come to its end
JAR = {"happyhorse": "nano-banana-2", "seedance2ai": "seedance"}
MODEL = {"happyhorse": "doubao-seedance-2-0", "seedance2ai": "seedance"}


@cache
def memory() -> Memory:
    return Memory()


@cache
def orders(provider: str, names: tuple[str, ...]) -> tuple[NewJob, ...]:
    """What a manifest that names these asks for: read, checked, and expanded as any other."""
    lines = ["version: 1", "batch: farm", "jobs:" if names else "jobs: {}"]
    for name in names:
        model = (JAR if name == "jar" else MODEL)[provider]
        lines.append(f"  {name}: {{provider: {provider}, model: {model}, prompt: a picture of a {name}, "
                     f"takes: {NAMES[name]}}}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "farm.yaml"
        manifest.write_text("\n".join(lines))
        return tuple(assembly.NewJobs(assembly.read_order(manifest)))


class Story(RuleBasedStateMachine):
    """One account, one manifest, one provider. `steps` counts the sentences of all stories told in this process."""

    steps: ClassVar[Counter[str]] = Counter()
    sights: ClassVar[Counter[str]] = Counter()
    ends: ClassVar[bool] = True
    only: ClassVar[str | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.told: list[str] = []
        self.fine = False
        self.memo = Memo()
        self.clock = StandingClock()
        self.runner: MemoryRunner | None = None
        self.queue = memory().emptied()
        self.files = AsyncExitStack()
        self.do(self.files.enter_async_context(without_files()))

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def tell(self, sentence: str, what: str) -> None:
        self.told.append(sentence)
        self.fine = False
        Story.steps[what] += 1

    # -- the beginning

    @initialize(
        provider=st.sampled_from(["happyhorse", "seedance2ai"]),
        names=st.permutations(list(NAMES)),
        concurrency=st.sampled_from([2, 1, 3]),
        budget=st.sampled_from([None, None, Decimal(250)]),
        exclusive=st.booleans(),
        per_minute=st.sampled_from([None, 6]),
    )
    def begin(
        self, provider: str, names: list[str], concurrency: int, budget: Decimal | None, exclusive: bool,
        per_minute: int | None,
    ) -> None:  # fmt: skip
        provider = self.only or provider
        windows = (Window(per_minute, 60),) if per_minute else ()
        self.terms = Terms(provider, concurrency, budget, exclusive, windows)
        self.per_minute = per_minute
        self.provider = Pretend(registry()[provider].keyed, self.clock.timestamp, self.clock.pass_by)
        self.names: tuple[str, ...] = ()
        self.tell(f"{provider}, {concurrency} at a time, budget {budget}, exclusive {exclusive}, {per_minute}/minute",
                  "begin")  # fmt: skip
        self.ask_for(tuple(names[:5]))

    def ask_for(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.memo.names |= {name: NAMES[name] for name in names}
        self.end_runner()
        self.start_runner()

    def start_runner(self) -> MemoryRunner:
        if self.runner is None:
            self.runner = MemoryRunner(self.queue, self.provider, self.clock, self.terms)
            self.do(self.runner.start(orders(self.terms.provider, self.names)))
        return self.runner

    def end_runner(self) -> None:
        if self.runner is not None:
            runner, self.runner = self.runner, None
            self.do(runner.stop())

    # -- the runner

    @rule(after=st.sampled_from(list(LASTING)), meets=MEETS)
    def the_runner_works(self, after: str, meets: Mishap | None) -> None:
        self.tell(f"{after} passes; the runner works{_but(meets)}", f"the runner works{_but(meets)}")
        self.do(self.prepared(after, meets).work())
        self.provider.mishap = None

    @rule(after=st.sampled_from(list(LASTING)), meets=MEETS, commit=st.integers(1, 8), written=st.booleans())
    def the_runner_is_killed(self, after: str, meets: Mishap | None, commit: int, written: bool) -> None:
        when = f"{'after' if written else 'before'} its commit {commit}"
        self.tell(f"{after} passes; the runner works{_but(meets)}; it is killed {when}", "the runner is killed")
        runner = self.prepared(after, meets)
        runner.fate.last, runner.fate.written = commit, written
        try:
            self.do(runner.work())
        except Exception:  # Death, or a group of them
            if not runner.fate.dead:
                raise
            Story.steps["(in the middle of its work)"] += 1
        runner.fate.dead, self.provider.mishap = True, None
        self.end_runner()

    def prepared(self, after: str, meets: Mishap | None) -> MemoryRunner:
        """A runner at work, that long after; it is started if there is none."""
        self.clock.pass_by(LASTING[after])
        self.provider.mishap = meets
        return self.start_runner()

    @precondition(lambda self: len(self.told) % 3 == 0)  # not all the time
    @rule(names=st.permutations(list(NAMES)), many=st.integers(2, 7))
    def the_manifest_asks_for(self, names: list[str], many: int) -> None:
        self.tell(f"the manifest now asks for {', '.join(names[:many])}", "edit")
        self.ask_for(tuple(names[:many]))

    # -- the provider

    @precondition(lambda self: self.provider.going())
    @rule(which=st.integers(0, 2))
    def a_task_is_completed(self, which: int) -> None:
        self.end_task(which, End.COMPLETED)

    @precondition(lambda self: self.provider.going())
    @rule(which=st.integers(0, 2), how=st.sampled_from([end for end in End if end is not End.COMPLETED]))
    def a_task_fails(self, which: int, how: End) -> None:
        self.end_task(which, how)

    def end_task(self, which: int, how: End) -> None:
        task = _nth(self.provider.going(), which)
        self.tell(f"task {task.id} ({task.name}): {how}", f"a task: {how}")
        self.provider.end(task, how)

    @precondition(lambda self: self.refunds())
    @rule(which=st.integers(0, 2))
    def a_refund_comes(self, which: int) -> None:
        task = _nth(self.refunds(), which)
        self.tell(f"task {task.id} ({task.name}) is refunded", "a refund comes")
        self.provider.refund(task)

    def refunds(self) -> list[Task]:
        return [task for task in self.provider.tasks.values() if task.refund_due]

    @precondition(lambda self: self.provider.away_until <= self.clock.timestamp() and len(self.told) % 3 == 1)
    @rule(what=st.sampled_from(["credits", *list(LASTING)[:4]]))
    def the_account_is_in_trouble(self, what: str) -> None:
        if what != "credits":
            self.tell(f"the provider is out of reach for {what}", "the provider is out of reach")
            self.provider.away_until = self.clock.timestamp() + LASTING[what]
        elif self.provider.balance:
            self.tell("the credits run out", "the credits run out")
            self.provider.balance = Decimal(0)
        else:
            self.tell("the credits are topped up", "the credits are topped up")
            self.provider.balance = FULL

    # -- a person

    @precondition(lambda self: self.choices() and len(self.told) % 3 == 2)
    @rule(which=st.integers(0, 11))
    def a_person_decides(self, which: int) -> None:
        verb, job = _nth(self.choices(), which)
        work = self.queue.decide(load, [job])[job]
        answer = self.decision(verb, work)
        declined = isinstance(answer, deciding.Declined)
        self.tell(f"a person {verb} job {job} ({work.name})" + (": declined" if declined else ""),
                  f"a person {verb}" + (": declined" if declined else ""))  # fmt: skip
        if isinstance(answer, Change):
            assert self.queue.decide(apply, [answer]) == {0}, "nobody else was at work"

    def choices(self) -> list[tuple[str, int]]:
        """What a person may want to do about which job; what costs a job most comes last."""
        return [
            (verb, job["id"]) for verb, state in DECISIONS.items() for job in self.seen.jobs if job["state"] == state
        ]

    def decision(self, verb: str, work: Work) -> Change | deciding.Declined:
        now = self.clock.now()
        match verb:
            case "adopts a task for":
                return self.adoption(work)
            case "retries":
                return deciding.retry(work, [], now)
            case "resubmits":
                return deciding.resubmit(work, self.queue.decide(outputs_of, work.id), now)
            case "gives up":
                return deciding.abandon(work, now)
            case _:
                return deciding.cancel(work, now)

    def adoption(self, work: Work) -> Change | deciding.Declined:
        """Of the first task that is a picture of the right thing and that nobody has, where there is one."""
        mine = [task.id for task in self.provider.tasks.values() if task.name == work.name]
        mine = [task_id for task_id in mine if not self.queue.decide(answered_before, work, task_id)]
        owned = self.queue.decide(owned_task_ids, work.account, mine)
        chosen = next((task_id for task_id in mine if task_id not in owned), "t999")
        answer, outputs = self.do(self.asked_by_a_person(chosen)), self.queue.decide(outputs_of, work.id)
        return deciding.adopt(work, chosen, answer, outputs, self.clock.now())

    async def asked_by_a_person(self, task_id: str) -> Any:
        """At a moment that suits both the provider and its limit of requests."""
        provider = self.provider
        away, asked, provider.away_until = provider.away_until, list(provider.asked_at), 0.0

        async def ask(method: str, path: str, **more: Any) -> Reply:
            return provider.ask(method, path, **more)

        answer = await registry()[self.terms.provider].poll(ask, "", task_id)
        provider.away_until, provider.asked_at = away, asked
        return answer

    # -- what must hold

    def sight(self) -> Sight:
        return look_at(self.queue.raw, self.provider, self.memo, self.terms.concurrency, self.terms.budget,
                       self.per_minute)  # fmt: skip

    @invariant()
    def all_promises_hold(self) -> None:
        if self.told:
            self.provider.happen()
            self.seen = self.sight()
            self.judge(found_in(self.seen))
            self.fine = True

    def judge(self, found: Sequence[str]) -> None:
        if found:
            raise AssertionError(self.story(found))
        Story.sights.update(job["state"] for job in self.seen.jobs)

    def story(self, found: Sequence[str]) -> str:
        lines = [f"{n:3}. {sentence}" for n, sentence in enumerate(self.told, 1)]
        return "\n".join(["", *lines, *(f"   → {text}" for text in found)])

    # -- the end

    def teardown(self) -> None:
        try:
            if self.fine and self.ends:
                self.come_to_an_end()
                if len(self.told) % 4 == 0:  # it takes its time
                    self.nothing_is_done_again()
        finally:
            self.close()

    def come_to_an_end(self) -> None:
        """I3: with credits, a provider that works, and time, every job ends by itself, or is held."""
        provider = self.provider
        provider.balance, provider.away_until = FULL, 0.0
        for task in self.refunds():
            provider.refund(task)
        self.end_runner()
        runner = self.start_runner()
        for _ in range(ENOUGH):
            wake_at = self.do(runner.work())
            for task in provider.going():
                provider.end(task, End.COMPLETED)
            self.all_promises_hold()
            if not self.unended(runner):
                return
            now = self.clock.timestamp()
            self.clock.pass_by(5.0 if wake_at is None else max(0.001, wake_at.timestamp() - now))
        self.told.append("then there are credits, the provider works, and time passes")
        raise AssertionError(self.story([f"I3: still there: {self.unended(runner)}"]))

    def unended(self, runner: MemoryRunner) -> list[str]:
        left = [job for job in self.sight().jobs if State(job["state"]) not in SETTLED or job["settle_at"] is not None]
        if runner.beyond_budget:
            left = [job for job in left if job["state"] != State.QUEUED]
        return [f"job {job['id']} ({job['name']}) is {job['state']}" for job in left]

    def nothing_is_done_again(self) -> None:
        """I18: the same command once more does nothing."""
        self.end_runner()
        before, posted = self.dump(), self.provider.posted
        runner = self.start_runner()
        self.do(runner.run_to_its_end())
        if self.dump() != before or self.provider.posted != posted:
            raise AssertionError(self.story(["I18: it is over, and a further run has done something"]))

    def there(self, state: str) -> int:
        """How many jobs were in this state when last looked at."""
        return sum(job["state"] == state for job in self.seen.jobs)

    def dump(self) -> list[Any]:
        tables = ("jobs", "attempts", "events", "ledger", "outputs", "totals")
        return [self.queue.raw.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables]

    def close(self) -> None:
        if self.runner is not None:
            self.runner.fate.dead = True
            self.end_runner()
        self.do(self.files.aclose())
        self.loop.close()


def _but(meets: Mishap | None) -> str:
    return "" if meets is None else f"; its first order: {meets}"


def _nth(choices: Sequence[Any], n: int) -> Any:
    return choices[n % len(choices)]
