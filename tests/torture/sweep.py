"""Kills at every commit and side effect: a run dies the n-th time it reaches a named fail point, the next goes on.

Three ways. `each` gives every (name, n) a queue of its own: the n-th crash, then one whole recovery, n = 1, 2, 3, …
until a run survives. `chain` crashes one queue again and again at the same point, at another n each time: recoveries
crash. `pairs` are all ordered pairs of points: a crash at the first, then the recovery crashes at the second.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from runner.failpoints import NAMES
from torture.evidence import Evidence
from torture.judge import Finding, Verdict, judge
from torture.manifests import few
from torture.random_kills import Torn, look, peace
from torture.tally import Tally
from torture.trial import OVER, Trial, trial

KILLED = 137
UNREACHED = frozenset({"before-migration-commit"})  # only a queue of an older program gets there; its own tests do
CHAIN = (1, 2, 1, 3, 5, 8, 13, 21, 34)


@dataclass(frozen=True)
class Case:
    """One queue. `wishes` are the fail points its runs die at, in turn: name and n. `power` is lost with each of them
    (see `power`: not every machine can play that)."""

    seed: str
    wishes: tuple[tuple[str, int], ...]
    providers: tuple[str, ...]
    speed: float = 60.0
    render: float = 30.0
    power: bool = False

    @property
    def name(self) -> str:
        return " ".join(f"{name}:{n}" for name, n in self.wishes)


@dataclass(frozen=True)
class Result:
    """`died` counts the runs that the fail point killed; `findings` were made before the judge looked."""

    case: Case
    died: int
    findings: tuple[Finding, ...]
    evidence: Evidence
    verdict: Verdict

    @property
    def clean(self) -> bool:
        return not self.findings and self.verdict.clean

    def story(self) -> str:
        return "\n".join([self.case.name, *map(str, self.findings), str(self.verdict)])


def points() -> list[str]:
    """The fail points that an ordinary run can reach."""
    return sorted(NAMES - UNREACHED)


def sweep(folder: Path, case: Case) -> Result:
    """Dies at each of the wishes that it reaches, then runs to the end and is judged."""
    place = folder / "queue"
    place.mkdir(parents=True)
    opened = trial(
        folder, case.providers, seed=case.seed, speed=case.speed, render=case.render, queue=str(place / "queue.db")
    )
    with opened as here:
        here.orders.grow(few(case.providers))
        torn, findings, died = Torn(here.renders), list[Finding](), 0
        for name, n in case.wishes:
            with here.power.loss() if case.power else nullcontext({}) as environment:
                ended = here.run(**environment, RUNNER_FAILPOINT=f"{name}:{n}")
            findings += [Finding("torn", f"{path} after {name}:{n}") for path in torn.new()]
            if ended.code != KILLED:
                break
            died += 1
        last = here.run_out()  # nothing goes wrong in a sweep but the kills
        found = here.evidence(last)
    return Result(case, died, tuple(findings), found, judge(found))


def each(seed: str, name: str, providers: Sequence[str]) -> Iterator[Case]:
    """n = 1, 2, 3, … without end: the caller stops when a run has survived."""
    for n in itertools.count(1):
        yield Case(f"{seed}-{name}-{n}", ((name, n),), tuple(providers))


def chain(seed: str, name: str, providers: Sequence[str], ns: Sequence[int] = CHAIN, speed: float = 60.0) -> Case:
    return Case(f"{seed}-{name}", tuple((name, n) for n in ns), tuple(providers), speed)


def tally(result: Result) -> Tally:
    told = Tally(seeds=[result.case.seed])
    told.kills["SIGKILL"] = told.fired["F104"] = result.died
    for finding in result.findings:
        told.find(finding)
    told.judged(result.evidence, result.verdict)
    return told


def pairs(seed: str, share: int, shares: int) -> list[tuple[str, str]]:
    """The ordered pairs of fail points, shuffled, of which this is one share."""
    every = list(itertools.product(points(), repeat=2))
    random.Random(f"pairs:{seed}").shuffle(every)
    return every[share::shares]


def crashes_in_recovery(
    folder: Path, seed: str, every: Sequence[tuple[str, str]], providers: Sequence[str], *, speed: float, faults: str
) -> Tally:
    """One queue that dies at each of these pairs, at an n drawn from the seed; it gets more to do when all is over."""
    told, drawn = Tally(seeds=[seed]), random.Random(f"n:{seed}")
    with trial(folder, providers, seed=seed, speed=speed, render=30.0, faults=faults) as here:
        here.orders.grow(few(providers))
        torn = Torn(here.renders)
        for pair in every:
            died = [_dies(here, f"{name}:{drawn.choice((1, 1, 2, 3, 5))}", torn, told) for name in pair]
            told.done["crashes, and again in the recovery"] += all(died)
        peace(here, told)
    return told


def _dies(here: Trial, wish: str, torn: Torn, told: Tally) -> bool:
    """Whether a run died there. One that came to its end had too little to do."""
    ended = here.run(RUNNER_FAILPOINT=wish)
    look(torn, told)
    if ended.code == KILLED:
        told.kills["SIGKILL"] += 1
        told.fired["F104"] += 1
    elif ended.code in OVER:
        here.orders.grow(few(here.keys))
    return ended.code == KILLED
