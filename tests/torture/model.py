"""Stories by the hundred: hypothesis tells them and shrinks the one that breaks a promise; all steps are counted."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from torture.story import Story

LENGTH = 60  # steps of a long story
BEGINNING, WITHIN = "begin", "(in the middle of its work)"  # what is counted, and is no step


def tell_stories(
    stories: int,
    length: int,
    of: str | None = None,
    *,
    only: str | None = None,
    shrink: bool = True,
    ends: bool = True,
) -> None:
    """Raises AssertionError with the shortest story that breaks an invariant, if one does. `of`: the seed, or always
    the same stories. `only`: of this provider. Without `ends` they break off instead of coming to an end."""
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    chosen = settings(
        max_examples=stories, stateful_step_count=length, deadline=None, database=None, phases=phases,
        suppress_health_check=list(HealthCheck), derandomize=of is None, report_multiple_bugs=False,
    )  # fmt: skip
    told = type("Story", (Story,), {"ends": ends, "only": only})
    run_state_machine_as_test(told if of is None else seed(of)(told), settings=chosen)


def model(steps: int, of: str) -> dict[str, Any]:
    """Tells stories until so many steps were made without a broken invariant; returns what was counted.

    Raises AssertionError otherwise. `of` is the seed of everything that is drawn.
    """
    Story.steps.clear()
    Story.sights.clear()
    began, used, chapter = time.monotonic(), time.process_time(), 0
    while (left := steps - _made()) > 0:
        tell_stories(min(100, 1 + left // LENGTH), LENGTH, f"{of}-{chapter}")
        chapter += 1
    return {
        "seed": of, "steps": _made(), "stories": Story.steps[BEGINNING],
        "by_rule": dict(sorted(Story.steps.items())), "states_seen": dict(sorted(Story.sights.items())),
        "seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(time.process_time() - used, 1),
    }  # fmt: skip


def _made() -> int:
    """Steps after the beginning of their stories; a kill in mid-work is a kind of kill, and no further step."""
    return sum(count for what, count in Story.steps.items() if what not in (BEGINNING, WITHIN))
