"""P4: how long the night is: against the sandbox with its clock turned up, documented limits, tasks of 90 s (median).

`lower bound`: what the tasks took, shared out evenly among the slots; no runner can be quicker. `foresight`: a runner
that gives a freed slot away at the very moment the task ends, in the same order. The two part where few tasks are left
for many slots, so the goals (which are for a thousand tasks) are judged against the lower bound at the full size only,
and against foresight at any: each by what the simulation found between the two (performance.md section 1).

`unused window`: requests that would have been allowed, while there was still work to submit, and were not made, as a
share of the limit at each moment. It is taken where the window is what limits: short tasks, many slots.

Measured once: a night is long.
"""

from __future__ import annotations

import asyncio
import heapq
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from runner.clock import Clock
from tests.bench.children import get, sandbox
from tests.bench.queues import engine, environment, manifest, run_to_the_end
from tests.bench.results import Line, Spread, at_most
from tests.bench.sizes import Size

MEDIAN = 90.0  # seconds that a task takes
WINDOW, LIMIT = 60.0, 60  # happyhorse: so many requests within so many seconds
GOALS = 1000  # tasks that the goals speak of


@dataclass(frozen=True, slots=True)
class Case:
    """`goal` against the lower bound, `foreseen` against foresight."""

    provider: str
    slots: int
    goal: float
    foreseen: float


CASES = (Case("happyhorse", 10, 1.04, 1.03), Case("happyhorse", 25, 1.08, 1.04), Case("seedance2ai", 10, 1.07, 1.06))


@dataclass(frozen=True, slots=True)
class Night:
    """`spans`: when each task began and ended. `asked`: when a request came. Seconds of the sandbox's clock."""

    took: float
    spans: tuple[tuple[float, float], ...]
    asked: tuple[float, ...]

    @property
    def polls(self) -> int:
        return len(self.asked) - len(self.spans)


def measure(size: Size, _rounds: int) -> Sequence[Line]:
    lines = [line for case in CASES for line in _case(case, size)]
    crowded = asyncio.run(_night("happyhorse", 25, size.window_jobs, size.night_speed / 2, MEDIAN / 9))
    share = 100 * unused(crowded.asked, max(began for began, _ in crowded.spans))
    what = f"unused window, {size.window_jobs} short tasks at happyhorse, %"
    return [*lines, Line("P4", what, Spread((share,), "%"), at_most(3))]


def _case(case: Case, size: Size) -> Sequence[Line]:
    night = asyncio.run(_night(case.provider, case.slots, size.night_tasks, size.night_speed, MEDIAN))
    lengths = [ended - began for began, ended in night.spans]
    bound = max(sum(lengths) / case.slots, *lengths)
    raw = {
        "makespan": Spread((night.took,), "s"), "lower bound": Spread((bound,), "s"),
        "polls a task": Spread((night.polls / len(lengths),)),
        "idle slots": Spread((100 * idle(night, case.slots),), "%"),
    }  # fmt: skip
    what = f"{case.provider}, {len(lengths)} tasks in {case.slots} slots: makespan against"
    judged = len(lengths) >= GOALS
    return [
        Line("P4", f"{what} lower bound", Spread((night.took / bound,), "×"), at_most(case.goal, judged=judged), raw),
        Line("P4", "… against foresight", Spread((night.took / foresight(lengths, case.slots),), "×"),
             at_most(case.foreseen)),
    ]  # fmt: skip


async def _night(provider: str, slots: int, tasks: int, speed: float, median: float) -> Night:
    with sandbox(speed=speed, render=median) as ready, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clock = Clock(speed, ready["anchor"])
        order = manifest(folder, tasks, provider=provider, concurrency=slots, poll_interval=None)
        async with engine(folder, order, environment(ready["base_urls"], ready["keys"]), clock) as made:
            took = await run_to_the_end(made, tasks)
        return await asyncio.to_thread(_seen, ready["control"], provider, took)


def _seen(control: str, provider: str, took: float) -> Night:
    ledger = get(f"{control}/ledger?provider={provider}")["providers"][provider]["accounts"]
    spans = sorted((task["created_at"], task["finishes_at"]) for each in ledger.values() for task in each["tasks"])
    return Night(took, tuple(spans), tuple(_arrivals(control, provider)))


def _arrivals(control: str, provider: str) -> list[float]:
    """When each request came that counts in the account's window."""
    found: list[float] = []
    after = 0
    while page := _page(control, provider, after):
        found += [row["at"] for row in page if row["account"] is not None]
        after = page[-1]["seq"]
    return found


def _page(control: str, provider: str, after: int) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = get(f"{control}/requests?provider={provider}&after={after}&limit=1000")["requests"]
    return answer


def foresight(lengths: Sequence[float], slots: int) -> float:
    """How long the tasks take in their order if a freed slot is given away at once."""
    ends = [0.0] * slots
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def idle(night: Night, slots: int) -> float:
    """Which share of the slots' time was empty while there was work left to submit."""
    first, last = night.spans[0][0], night.spans[-1][0]
    busy = sum(min(ended, last) - began for began, ended in night.spans)
    return 1 - busy / (slots * (last - first)) if last > first else 0.0


def unused(asked: Sequence[float], until: float) -> float:
    """Which share of the window was free, on average from the first request until a moment."""
    marks = sorted({at for came in asked for at in (came, came + WINDOW) if at < until} | {until})
    free = sum((LIMIT - _counting(asked, at)) * (then - at) for at, then in pairwise(marks))
    return free / (LIMIT * (until - marks[0])) if until > marks[0] else 0.0


def _counting(asked: Sequence[float], at: float) -> int:
    return sum(1 for came in asked if came <= at < came + WINDOW)
