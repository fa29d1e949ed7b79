"""Stories of one account, told step by step without a broken promise; and of runners that are wrong, each of which is
found out. (`torture.model.model` tells a hundred thousand steps.)"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from torture.model import model, tell_stories
from torture.pretend import End, Mishap
from torture.story import Story

from runner.jobs import State
from runner.ledger import EntryKind
from runner.lifecycle import looking, submitting
from runner.lifecycle.deciding import Declined
from runner.store import claims, ownership
from runner.store.changes import apply
from runner.store.work import answered_before, load
from runner.verdicts import polling, submission

Patch = Callable[[pytest.MonkeyPatch], None]


def test_no_step_of_any_story_breaks_a_promise() -> None:
    told = model(500, "short")
    assert told["steps"] >= 500
    assert {"unknown", "running", "succeeded"} <= set(told["states_seen"])


@pytest.mark.parametrize("per_minute", [1, 6, 12])
def test_every_task_ends_however_few_requests_are_allowed(per_minute: int) -> None:
    """The list tells no cost: what it leaves open must be asked alone, and lists must leave room for that."""
    story = Story()
    story.begin("happyhorse", ["elk", "owl", "fox", "jar", "bee", "cat", "dog"], 4, None, False, per_minute)
    story.the_runner_works("a moment", None)
    story.all_promises_hold()
    story.teardown()
    assert story.there("succeeded") == 6


def test_a_task_that_was_billed_is_not_given_to_another_order() -> None:
    """Its job failed, was ordered once more, and is held: who adopted the old task again would be billed twice."""
    story = Story()
    story.begin("happyhorse", ["fox", "owl", "cat", "dog", "bee", "jar", "elk"], 1, None, False, None)
    story.the_runner_works("a moment", None)
    story.end_task(0, End.KEPT)
    for after in ("a minute", "a minute", "a quarter of an hour", "an hour"):
        story.the_runner_works(after, None)
    fox = story.queue.decide(load, [1])[1]
    assert (fox.standing.state, fox.charged) == (State.FAILED, 38)
    story.queue.decide(apply, [story.decision("retries", fox)])
    story.provider.end(story.provider.going()[0], End.COMPLETED)
    for meets, after in ((Mishap.LOST_REQUEST, "a minute"), (None, "a moment"), (None, "an hour")):
        story.the_runner_works(after, meets)
    held = story.queue.decide(load, [1])[1]
    assert held.standing.state is State.HELD
    assert story.queue.decide(answered_before, held, "t1")
    assert isinstance(story.decision("adopts a task for", held), Declined)
    story.close()


# Runners that are wrong


def new_key(patch: pytest.MonkeyPatch) -> None:
    pay = submitting._pay

    async def under_another(desk: Any, work: Any, claim: Any) -> Any:
        tried = work.attempt
        if tried.outcome and tried.idempotency_key:
            work = replace(work, attempt=replace(tried, idempotency_key=tried.idempotency_key[::-1]))
        return await pay(desk, work, claim)

    patch.setattr(submitting, "_pay", under_another)


def sent_again(patch: pytest.MonkeyPatch) -> None:
    lost = submission._lost

    def after_a_500(sub: Any, outcome: str, failure: Any) -> Any:
        if outcome == "ambiguous" and not sub.keyed:
            return (submission._put_back_unsent(sub, failure.message),)
        return lost(sub, outcome, failure)

    patch.setattr(submission, "_lost", after_a_500)


def conflict(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(submission, "_conflict", lambda sub, said: (submission._put_back(replace(sub, keyed=False), said),))


def no_slot(patch: pytest.MonkeyPatch) -> None:
    def without_questions(connection: Any, account: str) -> int:
        return claims._count(connection, account, State.SUBMITTING, State.RUNNING)

    patch.setattr(claims, "count_in_flight", without_questions)


def no_refund(patch: pytest.MonkeyPatch) -> None:
    settle = polling.settle

    def but_refunds(*more: Any, **named: Any) -> Any:
        return tuple(entry for entry in settle(*more, **named) if entry.kind is not EntryKind.REFUNDED)

    patch.setattr(polling, "settle", but_refunds)


def forgotten(patch: pytest.MonkeyPatch) -> None:
    interrupted = ownership.interrupted

    def without_brink(work: Any, now: Any) -> Any:
        return interrupted(replace(work, attempt=replace(work.attempt, brink_at=None)), now)

    patch.setattr(ownership, "interrupted", without_brink)


@dataclass(frozen=True)
class Wrong:
    """`found` are the invariants that it may break first, `at` the provider where it shows."""

    patch: Patch
    found: str
    at: str


PAID_TWICE = "I2|I4|I12"  # two tasks, more owed than anybody knows of, or an order that must not be: what comes first
WRONG = {
    "a lost answer is asked for under a new key (M3)": Wrong(new_key, PAID_TWICE, "seedance2ai"),
    "an unkeyed order is sent again after a 500 (M6)": Wrong(sent_again, PAID_TWICE, "happyhorse"),
    "a 409 gets a new key (M7)": Wrong(conflict, PAID_TWICE, "seedance2ai"),
    "an open question keeps no slot (M12)": Wrong(no_slot, "I11", "seedance2ai"),
    "what a crash cut off counts as not sent": Wrong(forgotten, PAID_TWICE, "seedance2ai"),
    "a refund is not booked": Wrong(no_refund, "I4", "happyhorse"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_runner_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRONG[name].patch(monkeypatch)
    with pytest.raises(AssertionError) as failed:
        tell_stories(200, 20, only=WRONG[name].at, shrink=False, ends=False)
    assert re.search(f"→ ({WRONG[name].found})", str(failed.value))


def test_what_is_found_is_shrunk_to_a_readable_story(monkeypatch: pytest.MonkeyPatch) -> None:
    sent_again(monkeypatch)
    with pytest.raises(AssertionError) as failed:
        tell_stories(300, 4, only="happyhorse", ends=False)
    story = str(failed.value).strip().splitlines()
    assert len(story) <= 5, "\n".join(story)
    assert story[0].strip().startswith("1. happyhorse")
    assert any(Mishap.BROKEN_PAID in line or Mishap.BROKEN in line for line in story)
    assert re.search(f"→ ({PAID_TWICE}): ", story[-1])


def test_a_runner_that_takes_any_task_for_its_own_is_found_out_M14(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare story: one order gets lost, then the answer to another one."""

    def first_come(questions: Any, tasks: Any, *_more: Any) -> Any:
        asked = sorted(question.job_id for question in questions)
        return dict(zip(asked, tasks, strict=False))

    monkeypatch.setattr(looking, "identify", first_come)
    story = Story()
    story.begin("happyhorse", ["fox", "owl", "cat", "dog", "bee", "jar", "elk"], 2, None, False, None)
    story.the_runner_works("a moment", Mishap.LOST_REQUEST)
    story.end_task(0, End.COMPLETED)
    story.the_runner_works("a minute", Mishap.LOST_ANSWER)
    story.the_runner_works("a quarter of an hour", None)
    with pytest.raises(AssertionError, match="has task t2, which is cat"):
        story.all_promises_hold()
    story.close()
