"""Which task of a provider's history is the one whose answer got lost.

A task is only ours if nobody owns its id, its prompt is exactly ours, it was created after our brink, and none of the
facts that the history tells contradicts what we asked for. Equal requests are interchangeable; otherwise the match must
be unique, in both directions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runner.exchange import Listed

TOLERANCE = timedelta(seconds=5)  # clocks and rounded times; our brink is at most this much later than their arrival
COMPARED = ("duration", "aspect_ratio", "resolution", "image_url", "generation_type")


@dataclass(frozen=True, slots=True)
class Question:
    """One open question: the body that was sent, and when its first byte left, by the provider's clock. `nest` names
    the object of the body that holds its fields (empty: the body itself), `prompt` the one that holds the prompt."""

    job_id: int
    body: str
    since: datetime
    nest: str = ""
    prompt: str = "prompt"

    def asked(self) -> Mapping[str, Any]:
        """What was asked for, by native name."""
        body: dict[str, Any] = json.loads(self.body)
        inner = body.get(self.nest)
        return {**body, **inner} if isinstance(inner, dict) else body


def identify(
    questions: Sequence[Question],
    tasks: Sequence[Listed],
    same_model: Callable[[str, str], bool],
    tolerance: timedelta = TOLERANCE,
) -> dict[int, Listed]:
    """The task of each question that can be told with certainty. `tasks` are the unowned ones."""

    def fits(question: Question, task: Listed) -> bool:
        return _fits(question, task, same_model, tolerance)

    found: dict[int, Listed] = {}
    for group in _interchangeable(questions):
        others = [q for q in questions if q.body != group[0].body]
        mine = [t for t in tasks if any(fits(q, t) for q in group)]
        if any(fits(other, task) for other in others for task in mine):
            continue  # somebody else's question could own one of them: nothing here is certain
        paired = _pair(group, mine, fits)
        if len(paired) == len(mine):  # else one of them is somebody else's, and nobody can tell which
            found.update(paired)
    return found


def _interchangeable(questions: Sequence[Question]) -> list[list[Question]]:
    groups: dict[str, list[Question]] = {}
    for question in sorted(questions, key=lambda q: q.since):
        groups.setdefault(question.body, []).append(question)
    return list(groups.values())


def _pair(
    group: Sequence[Question], tasks: Sequence[Listed], fits: Callable[[Question, Listed], bool]
) -> dict[int, Listed]:
    """Equal requests and their tasks, oldest to oldest."""
    free = sorted(tasks, key=lambda t: t.created_at or datetime.max.replace(tzinfo=group[0].since.tzinfo))
    paired: dict[int, Listed] = {}
    for question in group:
        task = next((t for t in free if fits(question, t)), None)
        if task is not None:
            paired[question.job_id] = task
            free.remove(task)
    return paired


def _fits(question: Question, task: Listed, same_model: Callable[[str, str], bool], tolerance: timedelta) -> bool:
    body = question.asked()
    if task.created_at is None or task.prompt is None or task.prompt != body.get(question.prompt):
        return False
    if task.created_at < question.since - tolerance:
        return False
    if "model" in body and task.facts.get("model") and not same_model(str(body["model"]), str(task.facts["model"])):
        return False
    return all(_agree(name, body.get(name), task.facts.get(name)) for name in COMPARED)


def _agree(name: str, asked: Any, told: Any) -> bool:
    """Whether a fact contradicts what was asked; silence on either side does not. A duration may be told as "5s"."""
    if asked is None or told is None:
        return True
    if name == "duration":
        return str(asked).removesuffix("s") == str(told).removesuffix("s")
    return str(asked) == str(told)
