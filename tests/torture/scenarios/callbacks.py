"""F71: calls back that are lost, late, doubled or forged, each to find the task of an order whose answer got lost."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torture.random_kills import peace
from torture.scenarios.listeners import LOCAL, refusing
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import SETTLED, clips, fired
from torture.tally import Tally

PROVIDER, CLIPS, LOST = ("seegen",), 8, 4
CALLS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("callback_lost", {}),
    ("callback_late", {}),
    ("callback_twice", {}),
    ("callback_forged", {"how": "task"}),
    ("callback_forged", {"how": "result"}),
)


def called_back(fault: str, given: Mapping[str, str], folder: Path, seed: str) -> Tally:
    """A call is a hint, and nothing else: what it says is asked for, with the account's own key."""
    with refusing() as free:
        flags = ("--callback-url", f"http://{LOCAL}:{free.port}/hooks")
    with staged(folder, seed, PROVIDER, jobs=clips(CLIPS, PROVIDER), flags=flags, render=60.0) as (here, told):
        here.sandbox.fault(fault, "seegen", times=CLIPS, **given)
        here.sandbox.fault("lost_answer", "seegen", when="submit", times=LOST)
        ended = here.run()
        expect(told, "F71", ended.code in SETTLED, ended.said())
        expect(told, "F71", here.sandbox.tasks() == CLIPS, f"{here.sandbox.tasks()} tasks for {CLIPS} jobs")
        expect(told, "F71", fired(here).get(fault, 0) >= CLIPS // 2, f"{fired(here)}")
        peace(here, told)
    return told


SCENARIOS = tuple(
    Scenario("-".join(("f71", *fault.split("_"), *given.values())), ("F71",), partial(called_back, fault, given))
    for fault, given in CALLS
)
