"""What a person decides: retry, cancel, resolve, from every state. What cannot be is refused with its reason, and
nothing is changed by it (design.md sections 4 and 10)."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torture.commands import Ended

from cli.kit import content, in_one_process, parsed, rows
from cli.museum import Museum

NOT_HELD = (
    "waiting", "queued", "submitting", "unknown", "running", "downloading", "succeeded", "partial", "failed",
    "cancelled",
)  # fmt: skip
RESOLVE = (("--adopt", "vid_0"), ("--resubmit",), ("--abandon",))
PROMPT = {"face": "a face in the rain", "film": "slow dolly, neon"}


@dataclass
class Decided:
    """A command about jobs of the museum, on a copy of its queue; `before` and `after` are all that the queue held."""

    museum: Museum
    queue: Path
    ended: Ended
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def job(self, name: str, columns: str) -> tuple[Any, ...]:
        [found] = rows(self.queue, f"SELECT {columns} FROM jobs WHERE id = ?", self.museum.ids[name])
        return found

    def line(self, job: str, source: str, target: str) -> str:
        """What is told of a decision that was written."""
        number = self.museum.ids[job.rpartition("/")[2]]
        return f"job {number} ({job}): {source} → {target}\n"


def decide(museum: Museum, command: str, *words: str, waiting: str | None = None, **more: str) -> Decided:
    """`words` may be names of jobs. `waiting` is a queued one that waits instead."""
    queue = museum.waiting(waiting) if waiting else museum.copy()
    before = content(queue)
    named = [str(museum.ids.get(word, word)) for word in words]
    ended = museum.place.commands.run(command, *named, "--db", str(queue), **more)
    return Decided(museum, queue, ended, before, content(queue))


def task_of(museum: Museum, job: str) -> str:
    """The id of a job's task, as somebody finds it in the provider's web console."""
    [task] = [each for each in museum.place.tasks("happyhorse") if each["prompt"] == PROMPT[job]]
    return str(task["id"])


DECISIONS: Mapping[str, tuple[str, ...]] = {
    "retry": ("retry", "crowd", "hand", "crowd"),  # a job named twice is one job
    "retry some": ("retry", "crowd", "film"),
    "retry too early": ("retry", "storm"),
    "retry strangers": ("retry", "crowd", "999", "beef"),
    "cancel": ("cancel", "epic"),
    "evidence": ("resolve", "face"),
    "two at once": ("resolve", "face", "--resubmit", "--abandon"),
    "resubmit": ("resolve", "face", "--resubmit"),
    "resubmit a keyed one": ("resolve", "hand", "--resubmit"),
    "abandon": ("resolve", "face", "--abandon"),
    "no key": ("resolve", "face", "--adopt", "img_0"),
}


@pytest.fixture(scope="module")
def decided(museum: Museum) -> dict[str, Decided]:
    """Each on a copy of its own, side by side: none of them asks a provider."""
    more = {"no key": {"HAPPYHORSE_API_KEY": ""}}
    return museum.place.each({name: lambda name=name, words=words: decide(museum, *words, **more.get(name, {}))
                              for name, words in DECISIONS.items()})  # fmt: skip


# -- from every state -------------------------------------------------------------------------------------------------


def refusals(museum: Museum, command: str, allowed: set[str]) -> tuple[Decided, dict[str, str]]:
    """What one command says to a job in each state that it is not for, together, and the lines about each."""
    jobs = {**museum.by_state, "waiting": museum.ids["pair"]}  # (of the two that succeeded)
    refused = {state: str(job) for state, job in jobs.items() if state not in allowed}
    made = decide(museum, command, *refused.values(), waiting="pair")
    lines = made.ended.err.splitlines()
    about = {state: " ".join(line for line in lines if line.startswith(f"job {job} ("))
             for state, job in refused.items()}  # fmt: skip
    return made, about


def test_retry_refuses_all_but_failed_jobs_and_says_why(museum: Museum) -> None:
    made, about = refusals(museum, "retry", {"failed"})
    assert not made.changed
    assert (made.ended.code, made.ended.out) == (2, "")
    assert "10 of 10 jobs cannot be retried; nothing was changed" in made.ended.err
    reasons = {
        "waiting": "it is waiting", "queued": "it is queued", "submitting": "it is submitting",
        "unknown": "it is unknown", "running": "it is running", "downloading": "it is downloading",
        "succeeded": "it is done", "partial": "it is done", "cancelled": "it was cancelled",
        "held": "it may have been paid for already",
    }  # fmt: skip
    assert {state: reason in about[state] for state, reason in reasons.items()} == dict.fromkeys(reasons, True)
    assert f"runner resolve {museum.by_state['held']} --adopt" in made.ended.err


def test_cancel_refuses_whatever_was_sent_and_says_why(museum: Museum) -> None:
    made, about = refusals(museum, "cancel", {"queued", "waiting"})
    assert not made.changed
    assert (made.ended.code, made.ended.out) == (2, "")
    assert "9 of 9 jobs cannot be cancelled; nothing was changed" in made.ended.err
    sent = "it was sent, and no provider documents a way to take a task back"
    reasons = {
        "submitting": sent, "unknown": sent, "running": sent, "downloading": "complete and paid for",
        "succeeded": "it has ended already (succeeded)", "partial": "it has ended already (partial)",
        "failed": "it has ended already (failed)", "cancelled": "it has ended already (cancelled)",
        "held": "it may have been paid for",
    }  # fmt: skip
    assert {state: reason in about[state] for state, reason in reasons.items()} == dict.fromkeys(reasons, True)
    assert f"runner resolve {museum.by_state['held']} --abandon" in made.ended.err


@pytest.fixture(scope="module")
def unresolved(museum: Museum) -> dict[tuple[str, str], Ended]:
    """What `resolve` says to a job in each state but held, for each decision. The queue is the same afterwards."""
    queue = museum.waiting("pair")
    jobs = {**museum.by_state, "waiting": museum.ids["pair"]}
    before = content(queue)
    asked = [(state, how) for state in NOT_HELD for how in RESOLVE]
    words = [("resolve", str(jobs[state]), *how, "--db", str(queue)) for state, how in asked]
    told = in_one_process(museum.place.commands, words)
    assert content(queue) == before, "something was changed"
    return {(state, how[0]): ended for (state, how), ended in zip(asked, told, strict=True)}


@pytest.mark.parametrize("how", [how for how, *_ in RESOLVE])
@pytest.mark.parametrize("state", NOT_HELD)
def test_resolve_is_for_held_jobs(state: str, how: str, unresolved: Mapping[tuple[str, str], Ended]) -> None:
    ended = unresolved[state, how]
    assert (ended.code, ended.out) == (2, ""), ended.said()
    assert f"it is {state}, not held: there is nothing to decide" in ended.err


# -- retry and cancel -------------------------------------------------------------------------------------------------


def test_retry_queues_a_failed_job_anew_and_fetches_lost_files_again(decided: Mapping[str, Decided]) -> None:
    made = decided["retry"]
    assert made.ended.code == 0, made.ended.said()
    crowd, hand = made.line("alley/crowd", "failed", "queued"), made.line("portraits/hand", "held", "downloading")
    assert made.ended.out == crowd + hand
    assert made.job("crowd", "state, generation, attempts, task_id, error_kind") == ("queued", 2, 1, None, None)
    assert made.job("hand", "state, generation, error_kind") == ("downloading", 1, None)
    assert made.job("hand", "task_id") != (None,), "a lost file costs a download, not a render"


def test_retry_of_several_is_all_or_nothing(decided: Mapping[str, Decided]) -> None:
    made = decided["retry some"]
    assert made.ended.code == 2
    assert "1 of 2 jobs cannot be retried; nothing was changed" in made.ended.err
    assert not made.changed


def test_retry_waits_for_a_refund_that_may_be_on_its_way(decided: Mapping[str, Decided]) -> None:
    made = decided["retry too early"]
    assert made.ended.code == 5, made.ended.said()
    assert "its task is still charged, and a refund may be on its way" in made.ended.err
    assert not made.changed


def test_every_name_that_fails_is_told_and_nothing_is_done(decided: Mapping[str, Decided]) -> None:
    made = decided["retry strangers"]
    assert made.ended.code == 2
    assert '"999"' in made.ended.err
    assert '"beef"' in made.ended.err
    assert not made.changed


def test_cancel_takes_back_what_was_not_sent(museum: Museum, decided: Mapping[str, Decided]) -> None:
    for before, made in {
        "queued": decided["cancel"],
        "waiting": decide(museum, "cancel", "epic", waiting="epic"),
    }.items():
        assert made.ended.code == 0, made.ended.said()
        assert made.ended.out == made.line("alley/epic", before, "cancelled")
        assert made.job("epic", "state, attempts, charged") == ("cancelled", 0, 0)


# -- resolve ----------------------------------------------------------------------------------------------------------


def test_resolve_without_a_decision_shows_the_evidence(decided: Mapping[str, Decided]) -> None:
    made = decided["evidence"]
    assert made.ended.code == 2
    for word in ("a face in the rain", "5 credits", "none came", "--adopt ID", "--resubmit", "--abandon"):
        assert word in made.ended.out
    assert "nothing was decided" in made.ended.err
    assert not made.changed


def test_resolve_takes_one_decision_at_a_time(decided: Mapping[str, Decided]) -> None:
    made = decided["two at once"]
    assert made.ended.code == 2
    assert "only one decision at a time" in made.ended.err
    assert not made.changed


def test_resubmitted_is_a_new_order_and_the_price_of_a_double_is_said(decided: Mapping[str, Decided]) -> None:
    made = decided["resubmit"]
    assert made.ended.code == 0, made.ended.said()
    assert made.ended.out == made.line("portraits/face", "held", "queued")
    assert "5 credits are paid a second time" in made.ended.err
    assert made.job("face", "state, generation, attempts") == ("queued", 2, 1)
    reserved = rows(made.queue, "SELECT reserved FROM attempts WHERE job_id = ?", made.museum.ids["face"])
    assert reserved == [(5_000_000,)], "what the first order may have cost stays reserved"


def test_resubmitted_under_another_key_where_keys_are_honoured(decided: Mapping[str, Decided]) -> None:
    made = decided["resubmit a keyed one"]
    assert made.job("hand", "state, task_id") == ("queued", None)
    before = rows(made.queue, "SELECT idempotency_key FROM attempts WHERE job_id = ?", made.museum.ids["hand"])
    shown = made.museum.place.commands.json("show", str(made.museum.ids["hand"]), "--db", str(made.queue))
    assert len(shown["idempotency_key"]) == 40
    assert before != [(shown["idempotency_key"],)]


def test_abandoned_is_cancelled_and_its_cost_stays_unsettled(decided: Mapping[str, Decided]) -> None:
    made = decided["abandon"]
    assert made.ended.code == 0, made.ended.said()
    assert made.ended.out == made.line("portraits/face", "held", "cancelled")
    assert "it may have cost 5 credits; they stay in runner credits as unsettled" in made.ended.err
    assert made.job("face", "state, error_kind") == ("cancelled", "unknown_submission")
    accounts = made.museum.place.commands.json("credits", "--db", str(made.queue))["accounts"]
    [account] = [one for one in accounts if one["account"] == "happyhorse"]
    assert account["unsettled"] == "30", "5 of it are the face's, 25 a refund that is awaited"


def test_an_adopted_task_is_verified_then_followed(museum: Museum) -> None:
    place, task = museum.place, task_of(museum, "face")
    ordered, asked = place.sandbox.tasks(), place.sandbox.last_request()
    made = decide(museum, "resolve", "face", "--adopt", task)
    assert made.ended.code == 0, made.ended.said()
    assert made.ended.out == made.line("portraits/face", "held", "running")
    assert "checked: the provider shows task" in made.ended.err
    [request] = place.sandbox.requests(asked)
    assert request["method"] == "GET", "one status call"
    assert made.job("face", "state, task_id, error_kind") == ("running", task, None)
    place.run("--db", made.queue, **place.only("happyhorse"))
    assert made.job("face", "state") == ("succeeded",)
    [(path,)] = rows(made.queue, "SELECT path FROM outputs WHERE job_id = ?", museum.ids["face"])
    assert task.encode() in (place.folder / path).read_bytes(), "the file is another task's"
    assert place.sandbox.tasks() == ordered, "adopting is no order"


def test_the_own_task_of_a_job_can_be_adopted_again(museum: Museum) -> None:
    [(task,)] = rows(museum.queue, "SELECT task_id FROM jobs WHERE id = ?", museum.ids["hand"])
    made = decide(museum, "resolve", "hand", "--adopt", task)
    assert made.ended.code == 0, made.ended.said()
    assert made.job("hand", "state, task_id") == ("running", task)


def test_a_task_that_was_the_answer_to_an_earlier_order_is_refused(museum: Museum) -> None:
    """The job that had it was ordered anew: whoever followed the task once more would be billed for it twice."""
    queue, task = museum.copy(), task_of(museum, "film")
    with closing(sqlite3.connect(queue)) as connection, connection:
        connection.execute("UPDATE jobs SET state = 'queued', task_id = NULL WHERE name = 'film'")
    before = content(queue)
    ended = museum.place.commands.run("resolve", str(museum.ids["face"]), "--adopt", task, "--db", str(queue))
    assert ended.code == 2, ended.said()
    assert "was the answer to another order" in ended.err
    assert content(queue) == before


def test_B88_another_jobs_task_is_refused_and_its_owner_named(museum: Museum) -> None:
    asked = museum.place.sandbox.last_request()
    made = decide(museum, "resolve", "face", "--adopt", task_of(museum, "film"))
    assert made.ended.code == 2, made.ended.said()
    assert f"belongs to job {museum.ids['film']} (alley/film)" in made.ended.err
    assert not made.changed
    assert museum.place.sandbox.last_request(asked) == asked, "the provider need not be asked"


UNVERIFIED = {
    "a task that nobody knows": (None, 2, "the provider knows no task img_0 of this account"),
    "silence": ("lost_answer", 5, "task img_0 could not be verified: the connection failed"),
    "a refused key": ("unauthorized", 5, "task img_0 could not be verified: the key is refused"),
}


@pytest.mark.parametrize("why", UNVERIFIED)
def test_what_is_not_verified_stays_held(why: str, museum: Museum) -> None:
    fault, code, words = UNVERIFIED[why]
    if fault is not None:
        museum.place.sandbox.fault(fault, "happyhorse", when="poll")
    made = decide(museum, "resolve", "face", "--adopt", "img_0")
    assert made.ended.code == code, made.ended.said()
    assert words in made.ended.err
    assert not made.changed


def test_without_the_accounts_key_nothing_is_verified(decided: Mapping[str, Decided]) -> None:
    made = decided["no key"]
    assert made.ended.code == 2, made.ended.said()
    assert "HAPPYHORSE_API_KEY" in made.ended.err
    assert not made.changed


# -- naming a job -----------------------------------------------------------------------------------------------------


def test_a_job_is_named_by_id_key_or_a_unique_beginning(museum: Museum) -> None:
    keys = dict(rows(museum.queue, "SELECT key, id FROM jobs"))
    key = next(key for key in keys if key[0].isalpha())
    unique = next(key[:n] for n in range(1, 65) if sum(other.startswith(key[:n]) for other in keys) == 1)
    shared = next(key[:1] for key in keys if key[0].isalpha() and sum(k.startswith(key[0]) for k in keys) > 1)
    sharing = [job for other, job in keys.items() if other.startswith(shared)]
    names = [str(keys[key]), key.upper(), unique, shared, "alley/film", "dead" * 16]
    by_id, by_key, by_beginning, ambiguous, *unknown = in_one_process(
        museum.place.commands, [("show", name, "--json") for name in names]
    )
    assert parsed(by_id)["key"] == key
    for found in (by_key, by_beginning):
        assert found.code == 0, found.said()
        assert found.out == by_id.out
    assert ambiguous.code == 2
    assert f'"{shared}" may be any of {len(sharing)} jobs' in ambiguous.err
    assert [f" {job} (" in ambiguous.err for job in sharing] == [True] * len(sharing), "which ones?"
    for ended in unknown:
        assert ended.code == 2
        assert "there is no job" in ended.err
