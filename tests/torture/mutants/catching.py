"""A mutant is tried in its setting and judged by the ordinary judge; and so is the honest program in its place, since a
judge that accuses everybody proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torture.judge import Finding, judge
from torture.mutants.listed import MUTANTS, Mutant, Setting
from torture.mutants.plays import Stage
from torture.power import playable
from torture.trial import trial


@dataclass(frozen=True)
class Caught:
    """What became of a trial. `by` is the rule that saw the crime (of the honest program: any rule), "" where none did.

    `seconds` of the wall; `story` tells everything that was found.
    """

    number: str
    caught: bool
    by: str
    seconds: float
    story: str


def untried(number: str) -> str:
    """Why this mutant cannot be tried on this machine; "" where it can be."""
    return "needs Linux and a C compiler" if MUTANTS[number].setting.power and not playable() else ""


def catch(number: str, folder: Path, seed: str) -> Caught:
    """Tries a mutant. Not `caught`: the torture would let it pass."""
    mutant = MUTANTS[number]
    began = time.monotonic()
    with _stage(mutant.setting, folder, seed, mutant) as stage:
        mutant.setting.play(stage)
        found = (*stage.found, *judge(stage.here.evidence(None)).findings)
    return _told(mutant, tuple(each for each in found if each.kind in mutant.crimes), found, began)


def control(number: str, folder: Path, seed: str) -> Caught:
    """Tries the honest program in a mutant's place, to the end of all its jobs. `caught`: the judge is wrong, or it is
    not honest."""
    mutant = MUTANTS[number]
    began = time.monotonic()
    with _stage(mutant.setting, folder, seed) as stage:
        mutant.setting.play(stage)
        found = (*stage.found, *judge(stage.here.evidence(stage.here.run_out())).findings)
    return _told(mutant, found, found, began)


def _told(mutant: Mutant, crimes: tuple[Finding, ...], found: tuple[Finding, ...], began: float) -> Caught:
    by = crimes[0].kind if crimes else ""
    story = "\n".join([f"{mutant.number}: {mutant.name}", *map(str, found)])
    return Caught(mutant.number, bool(crimes), by, time.monotonic() - began, story)


@contextmanager
def _stage(setting: Setting, folder: Path, seed: str, mutant: Mutant | None = None) -> Iterator[Stage]:
    place = folder / "queue"  # a folder of its own: its power can be cut
    place.mkdir(parents=True)
    opened = trial(
        folder, (setting.provider,), seed=seed, speed=setting.speed, render=setting.render,
        queue=str(place / "queue.db"), limits=setting.allowed(),
    )  # fmt: skip
    with opened as here:
        here.orders.grow(setting.orders)
        for fault in setting.faults:
            here.sandbox.fault(provider=setting.provider, **fault)
        yield Stage(here, [*["a_hiccup"] * setting.with_hiccup, *([mutant.patch] if mutant else [])])
