"""Which task of a provider's history is the one whose answer got lost, and what to do when none is.

A task is only ours if nobody owns its id, its prompt is exactly ours, it was created after our brink, and none of the
facts that the history tells contradicts what we asked for. Equal requests are interchangeable; otherwise the match must
be unique, in both directions. A history that tells of times to come counts from another zone than we do: nothing in it
can be told to be younger than our brink.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from runner.errors import ErrorKind
from runner.exchange import Listed
from runner.jobs import Change, Event, Failure, Standing, State
from runner.ledger import Bill, release
from runner.verdicts.submission import LOOK_AFTER, next_look

TOLERANCE = timedelta(seconds=5)  # clocks and rounded times; our brink is at most this much later than their arrival
LOOKS_BEFORE_LEAVE = 2
AGE_BEFORE_LEAVE = LOOK_AFTER[1]  # a start makes a look at once: two of them may be a second apart
NOWHERE = "nowhere to be looked up"
COMPARED = ("duration", "aspect_ratio", "resolution", "image_url", "generation_type")


@dataclass(frozen=True, slots=True)
class Question:
    """One open question: the body that was sent, and when its first byte left, by the provider's clock. `nest` names
    the object of the body that holds its fields (empty: the body itself), `prompt` the one that holds the prompt.
    `assumed` is what the provider takes for what was not sent. `listed`: the history is known to show such tasks; where
    it is not, only one that names the very model can be ours."""

    job_id: int
    body: str
    since: datetime
    nest: str = ""
    prompt: str = "prompt"
    assumed: Mapping[str, Any] = field(default_factory=dict)
    listed: bool = True

    def asked(self) -> Mapping[str, Any]:
        """What was asked for, by native name."""
        body: dict[str, Any] = json.loads(self.body, parse_float=Decimal)
        inner = body.get(self.nest)
        return {**self.assumed, **body, **(inner if isinstance(inner, dict) else {})}


def tells_our_time(tasks: Sequence[Listed], now: datetime, tolerance: timedelta = TOLERANCE) -> bool:
    """Whether none of the tasks of a history, owned or not, was created after `now`, by the provider's clock."""
    return all(task.created_at is None or task.created_at <= now + tolerance for task in tasks)


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
    told = task.facts.get("model")
    if "model" in body and told and not same_model(str(body["model"]), str(told)):
        return False
    if not told and not question.listed:
        return False
    return all(_agree(name, body.get(name), task.facts.get(name)) for name in COMPARED)


def _agree(name: str, asked: Any, told: Any) -> bool:
    """Whether a fact contradicts what was asked; silence on either side does not. A duration may be told as "5s", or as
    5.0, and a word in capitals ("720P")."""
    if asked is None or told is None:
        return True
    if name == "duration":
        return _seconds(asked) == _seconds(told)
    if name == "image_url":
        return str(asked) == str(told)
    return str(asked).casefold() == str(told).casefold()


def _seconds(said: Any) -> Decimal | str:
    text = str(said).removesuffix("s")
    try:
        return Decimal(text)
    except ArithmeticError:
        return text


class Charge(StrEnum):
    """What the balance says of an order whose answer got lost."""

    NONE = "not_charged"
    MADE = "charged"
    UNCLEAR = "unclear"


def charge_of(baseline: Decimal, balance: Decimal, spent: Decimal, price: Decimal) -> Charge:
    """What is missing from the balance, beside what everything else has cost since the baseline: nothing, exactly the
    price, or what tells nothing. No search for sums that would fit (providers.md section 3)."""
    missing = baseline - balance - spent
    if missing == 0:
        return Charge.NONE
    return Charge.MADE if missing == price else Charge.UNCLEAR


@dataclass(frozen=True, slots=True)
class Look:
    """A look that did not find the task.

    `searched`: the provider's history was searched, and would show such a task. `charge` is what the balance says, None
    where it cannot be evidence. `awaited`: the provider may still call back. `leave`: the person at the command line
    lets orders go again that nothing speaks for; `silent`: the provider documents no balance that could speak.
    """

    job_id: int
    lease: int
    standing: Standing
    bill: Bill
    brink_at: datetime
    now: datetime
    searched: bool
    charge: Charge | None = None
    awaited: bool = False
    leave: bool = False
    silent: bool = False


def after_look(look: Look) -> Change:
    """Look again later, let a person decide, or go again by their leave. Absence is not proof: only time makes a look
    the last one, and nothing is ever ordered again without that leave (design.md section 5.6)."""
    looks = look.standing.looks + 1
    if _may_go_again(look, looks):
        return _given_leave(look, looks)
    blind = not look.searched and look.charge is None and not look.awaited and not (look.leave and look.silent)
    found_out = look.charge is Charge.MADE and not look.searched and not look.awaited
    again_at = None if blind or found_out else next_look(look.brink_at, look.now)
    failure = _told(look, looks)
    if again_at is None:
        held = replace(look.standing, state=State.HELD, due_at=look.now, looks=looks, failure=failure)
        return _change(look, Event.NOT_FOUND, held, why=failure.message)
    again = replace(look.standing, due_at=again_at, looks=looks, failure=failure)
    return _change(look, Event.LOOKED, again, looks=str(looks), why=failure.message)


def _may_go_again(look: Look, looks: int) -> bool:
    """After two looks that found nothing, the last of them a minute after it was sent or later, where the balance has
    said twice that nothing was charged, or there is none that could say anything."""
    if look.now - look.brink_at < AGE_BEFORE_LEAVE:
        return False
    known = look.standing.failure
    twice = look.charge is Charge.NONE and known is not None and known.code == Charge.NONE.value
    return look.leave and looks >= LOOKS_BEFORE_LEAVE and (twice or (look.charge is None and look.silent))


def _given_leave(look: Look, looks: int) -> Change:
    queued = replace(
        look.standing, state=State.QUEUED, due_at=look.now, looks=0, errors=0, failure=None,
        generation=look.standing.generation + 1,
    )  # fmt: skip
    freed = release(look.bill) if look.charge is Charge.NONE else ()  # else nobody knows what it has cost
    why = f"not found after {looks} looks; by the leave given at the command line"
    return replace(_change(look, Event.GIVEN_LEAVE, queued, why=why), entries=freed)


def _told(look: Look, looks: int) -> Failure:
    """Why nobody knows, in the words that a person will decide by."""
    said = {
        None: "",
        Charge.NONE: "; the balance says that nothing was charged for it",
        Charge.MADE: "; the balance says that it was charged: look its task up in the provider's web console and adopt "
        "it, or ask the provider's support",
        Charge.UNCLEAR: "; the balance does not tell: it differs by neither nothing nor the price",
    }[look.charge]
    times = "1 look" if looks == 1 else f"{looks} looks"
    where = f"not in the provider's history after {times}" if look.searched else NOWHERE
    code = look.charge.value if look.charge is not None else "not_found" if look.searched else "no_lookup"
    return Failure(ErrorKind.UNKNOWN_SUBMISSION, code, f"the answer got lost, and the task is {where}{said}")


def _change(look: Look, event: Event, standing: Standing, **data: str) -> Change:
    return Change(event, look.job_id, State.UNKNOWN, look.lease, look.now, standing, data=data)
