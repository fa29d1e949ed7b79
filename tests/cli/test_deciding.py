"""What a person decides: retry, cancel, resolve, from every state. What cannot be is refused with its reason, and
nothing is changed by it (design.md sections 4 and 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from torture.commands import Ended

from cli.kit import content, rows, states
from cli.museum import Museum

STATES = (
    "waiting", "queued", "submitting", "unknown", "running", "downloading", "succeeded", "partial", "failed",
    "cancelled", "held",
)  # fmt: skip
RESOLVE = {"--adopt": ("--adopt", "vid_0"), "--resubmit": ("--resubmit",), "--abandon": ("--abandon",)}
PROMPT = {"face": "a face in the rain", "film": "slow dolly, neon"}


@dataclass
class Desk:
    """A copy of the museum's queue, and the commands that decide about its jobs."""

    museum: Museum
    queue: Path

    def decide(self, command: str, *words: object) -> Ended:
        return self.museum.place.commands.run(command, *map(str, words), "--db", str(self.queue))

    def id(self, job: str) -> int:
        return self.museum.ids[job]

    def state(self, job: str) -> str:
        return states(self.queue)[self.id(job)]

    def one(self, job: str, columns: str) -> tuple[object, ...]:
        [found] = rows(self.queue, f"SELECT {columns} FROM jobs WHERE id = ?", self.id(job))
        return found


@pytest.fixture
def desk(museum: Museum) -> Desk:
    return Desk(museum, museum.copy())


def task_of(museum: Museum, job: str) -> str:
    """The id of a job's task, as somebody finds it in the provider's web console."""
    [task] = [each for each in museum.place.tasks("happyhorse") if each["prompt"] == PROMPT[job]]
    return str(task["id"])


# -- from every state -------------------------------------------------------------------------------------------------


def refusals(museum: Museum, command: str, allowed: set[str]) -> tuple[Ended, dict[str, str]]:
    """What one command says to a job in each state that it is not for, together, and the lines about each."""
    queue = museum.waiting("pair")  # (of the two that succeeded)
    jobs = {**museum.by_state, "waiting": museum.ids["pair"]}
    before = content(queue)
    refused = {state: str(job) for state, job in jobs.items() if state not in allowed}
    ended = museum.place.commands.run(command, *refused.values(), "--db", str(queue))
    assert content(queue) == before, "something was changed"
    about = {state: [line for line in ended.err.splitlines() if line.startswith(f"job {job} (")]
             for state, job in refused.items()}  # fmt: skip
    return ended, {state: " ".join(lines) for state, lines in about.items()}


def test_retry_refuses_all_but_failed_jobs_and_says_why(museum: Museum) -> None:
    ended, about = refusals(museum, "retry", {"failed"})
    assert ended.code == 2
    assert ended.out == ""
    assert "10 of 10 jobs cannot be retried; nothing was changed" in ended.err
    reasons = {
        "waiting": "it is waiting", "queued": "it is queued", "submitting": "it is submitting",
        "unknown": "it is unknown", "running": "it is running", "downloading": "it is downloading",
        "succeeded": "it is done", "partial": "it is done", "cancelled": "it was cancelled",
        "held": "it may have been paid for already",
    }  # fmt: skip
    assert {state: reason in about[state] for state, reason in reasons.items()} == dict.fromkeys(reasons, True)
    assert f"runner resolve {museum.by_state['held']} --adopt" in ended.err


def test_cancel_refuses_whatever_was_sent_and_says_why(museum: Museum) -> None:
    ended, about = refusals(museum, "cancel", {"queued", "waiting"})
    assert ended.code == 2
    assert ended.out == ""
    assert "9 of 9 jobs cannot be cancelled; nothing was changed" in ended.err
    sent = "it was sent, and no provider documents a way to take a task back"
    reasons = {
        "submitting": sent, "unknown": sent, "running": sent, "downloading": "complete and paid for",
        "succeeded": "it has ended already (succeeded)", "partial": "it has ended already (partial)",
        "failed": "it has ended already (failed)", "cancelled": "it has ended already (cancelled)",
        "held": "it may have been paid for",
    }  # fmt: skip
    assert {state: reason in about[state] for state, reason in reasons.items()} == dict.fromkeys(reasons, True)
    assert f"runner resolve {museum.by_state['held']} --abandon" in ended.err


@pytest.fixture(scope="module")
def unresolved(museum: Museum) -> Callable[[str, str], Ended]:
    """What `resolve` says to a job in each state but held, for each decision and for none."""
    queue = museum.waiting("pair")
    jobs = {**museum.by_state, "waiting": museum.ids["pair"]}
    asked = [(state, how) for state in STATES if state != "held" for how in RESOLVE]
    before = content(queue)
    commands = [("resolve", str(jobs[state]), *RESOLVE[how], "--db", queue) for state, how in asked]
    told = dict(zip(asked, museum.place.together(*commands), strict=True))
    assert content(queue) == before, "something was changed"
    return lambda state, how: told[state, how]


@pytest.mark.parametrize("how", RESOLVE)
@pytest.mark.parametrize("state", [state for state in STATES if state != "held"])
def test_resolve_is_for_held_jobs(state: str, how: str, unresolved: Callable[[str, str], Ended]) -> None:
    ended = unresolved(state, how)
    assert ended.code == 2, ended.said()
    assert ended.out == ""
    assert f"it is {state}, not held: there is nothing to decide" in ended.err


# -- retry ------------------------------------------------------------------------------------------------------------


def test_retry_queues_a_failed_job_anew_and_fetches_lost_files_again(desk: Desk) -> None:
    crowd, hand = desk.id("crowd"), desk.id("hand")
    [(key,)] = rows(desk.queue, "SELECT key FROM jobs WHERE id = ?", crowd)
    ended = desk.decide("retry", key, hand, crowd)  # a job named twice is one job
    assert ended.code == 0, ended.said()
    assert ended.out == f"job {crowd} (alley/crowd): failed → queued\njob {hand} (portraits/hand): held → downloading\n"
    assert desk.one("crowd", "state, generation, attempts, task_id, error_kind") == ("queued", 2, 1, None, None)
    assert desk.one("hand", "state, generation, error_kind") == ("downloading", 1, None)
    assert desk.one("hand", "task_id")[0] is not None, "a lost file costs a download, not a render"


def test_retry_of_several_is_all_or_nothing(desk: Desk) -> None:
    before = content(desk.queue)
    ended = desk.decide("retry", desk.id("crowd"), desk.id("film"))
    assert ended.code == 2
    assert "1 of 2 jobs cannot be retried; nothing was changed" in ended.err
    assert content(desk.queue) == before


def test_retry_waits_for_a_refund_that_may_be_on_its_way(desk: Desk) -> None:
    before = content(desk.queue)
    ended = desk.decide("retry", desk.id("storm"))
    assert ended.code == 5, ended.said()
    assert "its task is still charged, and a refund may be on its way" in ended.err
    assert content(desk.queue) == before


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_takes_back_what_was_not_sent(museum: Museum) -> None:
    for queue in (museum.copy(), museum.waiting("epic")):
        desk = Desk(museum, queue)
        before = desk.state("epic")
        ended = desk.decide("cancel", desk.id("epic"))
        assert ended.code == 0, ended.said()
        assert ended.out == f"job {desk.id('epic')} (alley/epic): {before} → cancelled\n"
        assert desk.one("epic", "state, attempts, charged") == ("cancelled", 0, 0)


# -- resolve ----------------------------------------------------------------------------------------------------------


def test_resolve_without_a_decision_shows_the_evidence(desk: Desk) -> None:
    before = content(desk.queue)
    ended = desk.decide("resolve", desk.id("face"))
    assert ended.code == 2
    for word in ("a face in the rain", "5 credits", "none came", "--adopt ID", "--resubmit", "--abandon"):
        assert word in ended.out
    assert "nothing was decided" in ended.err
    assert content(desk.queue) == before


def test_resolve_takes_one_decision_at_a_time(desk: Desk) -> None:
    before = content(desk.queue)
    ended = desk.decide("resolve", desk.id("face"), "--resubmit", "--abandon")
    assert ended.code == 2
    assert "only one decision at a time" in ended.err
    assert content(desk.queue) == before


def test_an_adopted_task_is_verified_then_followed(desk: Desk) -> None:
    ordered, task = desk.museum.place.sandbox.tasks(), task_of(desk.museum, "face")
    asked = desk.museum.place.sandbox.last_request()
    ended = desk.decide("resolve", desk.id("face"), "--adopt", task)
    assert ended.code == 0, ended.said()
    assert ended.out == f"job {desk.id('face')} (portraits/face): held → running\n"
    assert "checked: the provider shows task" in ended.err
    [request] = desk.museum.place.sandbox.requests(asked)
    assert request["method"] == "GET", "one status call"
    assert desk.one("face", "state, task_id, error_kind") == ("running", task, None)
    place = desk.museum.place
    place.run("--db", desk.queue, **place.only("happyhorse"))
    assert desk.state("face") == "succeeded"
    [(path,)] = rows(desk.queue, "SELECT path FROM outputs WHERE job_id = ?", desk.id("face"))
    assert task.encode() in (place.folder / path).read_bytes(), "the file is another task's"
    assert place.sandbox.tasks() == ordered, "adopting is no order"


def test_a_wrong_task_is_refused(desk: Desk) -> None:
    before = content(desk.queue)
    ended = desk.decide("resolve", desk.id("face"), "--adopt", "img_nobody_knows")
    assert ended.code == 2, ended.said()
    assert "the provider knows no task img_nobody_knows of this account" in ended.err
    assert content(desk.queue) == before


def test_another_jobs_task_is_refused_and_its_owner_named(desk: Desk) -> None:
    """B88."""
    before, asked = content(desk.queue), desk.museum.place.sandbox.last_request()
    ended = desk.decide("resolve", desk.id("face"), "--adopt", task_of(desk.museum, "film"))
    assert ended.code == 2, ended.said()
    assert f"belongs to job {desk.id('film')} (alley/film)" in ended.err
    assert content(desk.queue) == before
    assert desk.museum.place.sandbox.last_request(asked) == asked, "the provider need not be asked"


UNVERIFIED = {
    "silence": (5, "could not be verified: the connection failed", {}),
    "a refused key": (5, "could not be verified: the key is refused", {}),
    "another account's key": (2, "the provider knows no task", {"HAPPYHORSE_API_KEY": "sk-sd_sandbox_somebody-elses"}),
    "no key": (2, "HAPPYHORSE_API_KEY", {"HAPPYHORSE_API_KEY": ""}),
}
FAULTS = {"silence": "lost_answer", "a refused key": "unauthorized"}


@pytest.mark.parametrize("why", UNVERIFIED)
def test_what_cannot_be_verified_stays_held(why: str, desk: Desk) -> None:
    code, words, more = UNVERIFIED[why]
    place, task = desk.museum.place, task_of(desk.museum, "face")
    before = content(desk.queue)
    if why in FAULTS:
        place.sandbox.fault(FAULTS[why], "happyhorse", when="poll")
    ended = place.commands.run("resolve", str(desk.id("face")), "--adopt", task, "--db", str(desk.queue), **more)
    assert ended.code == code, ended.said()
    assert words in ended.err
    assert content(desk.queue) == before


def test_the_own_task_of_a_job_can_be_adopted_again(desk: Desk) -> None:
    task = desk.one("hand", "task_id")[0]
    ended = desk.decide("resolve", desk.id("hand"), "--adopt", task)
    assert ended.code == 0, ended.said()
    assert desk.one("hand", "state, task_id") == ("running", task)


def test_resubmitted_is_a_new_order_and_the_price_of_a_double_is_said(desk: Desk) -> None:
    ended = desk.decide("resolve", desk.id("face"), "--resubmit")
    assert ended.code == 0, ended.said()
    assert ended.out == f"job {desk.id('face')} (portraits/face): held → queued\n"
    assert "5 credits are paid a second time" in ended.err
    assert desk.one("face", "state, generation, attempts") == ("queued", 2, 1)
    [(reserved,)] = rows(desk.queue, "SELECT reserved FROM attempts WHERE job_id = ?", desk.id("face"))
    assert reserved == 5_000_000, "what the first order may have cost stays reserved"


def test_resubmitted_under_another_key_where_keys_are_honoured(desk: Desk) -> None:
    before = next(job for job in _jobs(desk) if job["job"] == "hand")
    assert desk.decide("resolve", desk.id("hand"), "--resubmit").code == 0
    after = next(job for job in _jobs(desk) if job["job"] == "hand")
    assert (after["state"], after["task_id"]) == ("queued", None)
    assert after["idempotency_key"] != before["idempotency_key"]


def _jobs(desk: Desk) -> list[dict[str, object]]:
    found: list[dict[str, object]] = desk.museum.place.commands.json("jobs", "--db", str(desk.queue))
    return found


def test_abandoned_is_cancelled_and_its_cost_stays_unsettled(desk: Desk) -> None:
    ended = desk.decide("resolve", desk.id("face"), "--abandon")
    assert ended.code == 0, ended.said()
    assert ended.out == f"job {desk.id('face')} (portraits/face): held → cancelled\n"
    assert "it may have cost 5 credits; they stay in runner credits as unsettled" in ended.err
    assert desk.one("face", "state, error_kind") == ("cancelled", "unknown_submission")
    accounts = desk.museum.place.commands.json("credits", "--db", str(desk.queue))["accounts"]
    assert next(one for one in accounts if one["account"] == "happyhorse")["unsettled"] == "30"


# -- naming a job -----------------------------------------------------------------------------------------------------


def test_a_job_is_named_by_id_key_or_a_unique_beginning(museum: Museum) -> None:
    keys = dict(rows(museum.queue, "SELECT key, id FROM jobs"))
    key = next(key for key in keys if key[0].isalpha())
    unique = next(key[:n] for n in range(1, 65) if sum(other.startswith(key[:n]) for other in keys) == 1)
    shared = next(key[:1] for key in keys if key[0].isalpha() and sum(k.startswith(key[0]) for k in keys) > 1)
    sharing = [job for other, job in keys.items() if other.startswith(shared)]
    names = [str(keys[key]), key, key.upper(), unique, shared, "999", "alley/film", "dead" * 16]
    by_id, by_key, in_capitals, by_beginning, ambiguous, *unknown = museum.place.together(
        *(("show", name, "--json") for name in names)
    )
    for found in (by_id, by_key, in_capitals, by_beginning):
        assert found.code == 0, found.said()
        assert found.out == by_id.out
    assert ambiguous.code == 2
    assert f'"{shared}" may be any of {len(sharing)} jobs' in ambiguous.err
    assert [f" {job} (" in ambiguous.err for job in sharing] == [True] * len(sharing), "which ones?"
    for ended in unknown:
        assert ended.code == 2
        assert "there is no job" in ended.err


def test_every_name_that_fails_is_told_and_nothing_is_done(desk: Desk) -> None:
    before = content(desk.queue)
    ended = desk.decide("retry", desk.id("crowd"), "999", "beef")
    assert ended.code == 2
    assert '"999"' in ended.err
    assert '"beef"' in ended.err
    assert content(desk.queue) == before
