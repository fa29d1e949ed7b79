"""The torture test catches runners that are wrong: each mutant breaks one promise, and the judge names the crime."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from torture.judge import Verdict, judge
from torture.manifests import PAIR, Limits
from torture.trial import Trial, trial

LIMITS = {"happyhorse": Limits(4, 60), "seedance2ai": Limits(6, 20)}


@dataclass(frozen=True)
class Mutant:
    """`patch` is Python that breaks the program as it is imported; `wish` the fail point its first run dies at.
    `speed`: slow enough that what is to be seen is not over before the next run has started."""

    crime: str
    patch: str
    wish: str
    orders: Mapping[str, int] = field(
        default_factory=lambda: {"hh-video": 4, "hh-moderated": 1, "sd-video": 10, "sd-moderated": 1}
    )
    speed: float = 60.0


MUTANTS = {
    "what was sent counts as not sent after a crash": Mutant("doubles", """
        from dataclasses import replace
        from runner.store import ownership
        honest = ownership.interrupted
        def forgetful(work, now):
            return honest(replace(work, attempt=replace(work.attempt, brink_at=None)), now)
        ownership.interrupted = forgetful
    """, "request-sent:2", {"hh-video": 4}),
    "an open question is given up": Mutant("lost", """
        from dataclasses import replace
        from runner.jobs import TRANSITIONS, Change, Event, State
        from runner.lifecycle import looking
        TRANSITIONS[Event.NOT_FOUND][State.UNKNOWN] = State.CANCELLED
        looking.identify = lambda *more: {}
        def careless(look):
            gone = replace(look.standing, state=State.CANCELLED)
            return Change(Event.NOT_FOUND, look.job_id, State.UNKNOWN, look.lease, look.now, gone)
        looking.after_look = careless
    """, "answer-read:1"),
    "what a refund gave back is not booked": Mutant("ledger_difference", """
        from runner import ledger
        from runner.verdicts import polling
        honest = polling.settle
        polling.settle = lambda *more, **named: tuple(
            entry for entry in honest(*more, **named) if entry.kind is not ledger.EntryKind.REFUNDED)
    """, "answer-read:9"),
    "a file is published before all of it is there": Mutant("complete", """
        from runner import media
        from runner.downloads import fetch, parts
        media.flaw = lambda *more: None
        honest = parts.Part.write
        def greedy(part, pieces):
            honest(part, [piece[: len(piece) // 2] for piece in pieces])
            part.known = None
        parts.Part.write = greedy
    """, "after-link:1"),
    "starts begin with an empty window": Mutant("limits", """
        from runner.store import claims
        claims.request_ends = lambda *more: []
    """, "answer-read:40", speed=12.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Verdict]]]:
    folder = tmp_path_factory.mktemp("mutants")
    with ThreadPoolExecutor(3) as hands:
        yield {
            name: hands.submit(_tried, folder / str(number), mutant)
            for number, (name, mutant) in enumerate(MUTANTS.items())
        }


def _tried(folder: Path, mutant: Mutant) -> Verdict:
    lines = mutant.patch.splitlines()
    (folder / "patch").mkdir(parents=True)
    (folder / "patch" / "sitecustomize.py").write_text("\n".join(line[8:] for line in lines))
    with trial(folder, PAIR, seed="mutant", speed=mutant.speed, render=30, limits=LIMITS) as here:
        here.orders.grow(mutant.orders)
        _broken(here, folder, RUNNER_FAILPOINT=mutant.wish)
        _broken(here, folder)
        return judge(here.evidence(None))


def _broken(here: Trial, folder: Path, **more: str) -> None:
    here.run(PYTHONPATH=os.pathsep.join([str(folder / "patch"), *sys.path]), **more)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_it_is_caught(name: str, verdicts: dict[str, Future[Verdict]]) -> None:
    verdict = verdicts[name].result()
    assert verdict.count(MUTANTS[name].crime) > 0, str(verdict)
