"""Answers that arrive whole and mean trouble: odd words, no outputs, other people's tasks, tasks that never end."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path

from torture import evidence
from torture.evidence import Job, rows
from torture.manifests import PROVIDERS
from torture.random_kills import peace
from torture.scenarios.answers import TIMES, Strike, play
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import (
    SETTLED,
    clips,
    errors,
    peace_but,
    states,
    submissions,
    tries,
)
from torture.tally import Tally
from torture.trial import Trial

KEYED = ("seedance2ai", "seedhorse")
LISTED = ("happyhorse",)  # where tasks are asked for together
A_MINUTE = 55.0  # scaled seconds, nearly
HASTE = 1000.0  # of scenarios in which hours go by
FOR_EVER = 100_000
KEY_WINDOW, CONFLICT_WINDOW, HOUR = 3600.0, 7200.0, 3600.0  # scaled seconds
LIMIT = 6  # the exit code of a run that has come to its budget
KILLED = 137


ODD_WORDS = """SELECT job_id, count(*) FROM events WHERE json_extract(data, '$.unrecognised_status') = 'moonlit'
GROUP BY job_id"""


def unknown_words(folder: Path, seed: str) -> Tally:
    """A status that no document names: the task goes on, and the word is told once for each task."""
    with staged(folder, seed, PROVIDERS, jobs=clips(TIMES + 1)) as (here, told):
        for provider in PROVIDERS:
            here.sandbox.fault("unknown_status", provider, when="submit", times=TIMES, seconds=90, status="moonlit")
        ended = here.run()
        expect(told, "F47", ended.code == 0, ended.said())
        counts = [count for _, count in rows(here.queue, ODD_WORDS)]
        expect(told, "F47", set(counts) == {1}, f"told so often of each task: {counts}")
        expect(told, "F47", len(counts) == TIMES * len(PROVIDERS), f"told of {len(counts)} tasks")
        for provider in PROVIDERS:
            here.sandbox.fault("respelled_status", provider, when="poll", times=TIMES)
        here.orders.grow(clips(2))
        peace_after_a_run(here, told, "F47")
    return told


def peace_after_a_run(here: Trial, told: Tally, number: str) -> None:
    ended = here.run()
    expect(told, number, ended.code in SETTLED, ended.said())
    peace(here, told)


def nothing_made(folder: Path, seed: str) -> Tally:
    """Complete, charged, and no file: asked again over a minute, then a person must look."""
    with staged(folder, seed, PROVIDERS, jobs=clips(TIMES + 1)) as (here, told):
        for provider in PROVIDERS:
            here.sandbox.fault("no_output", provider, when="submit", times=TIMES)
        ended = here.run()
        expect(told, "F52", ended.code == 4, ended.said())
        expect(told, "F52", errors(here) == {"bad_response": TIMES * len(PROVIDERS)}, f"held: {errors(here)}")
        charged = [job for job in here.jobs() if job.state == "held" and job.net > 0]
        expect(told, "F52", len(charged) == TIMES * len(PROVIDERS), "what is held does not tell its bill")
        for job_id, late in _asked_after_the_end(here).items():
            right = len(late) >= 3 and late[-1] - late[0] >= A_MINUTE
            expect(told, "F52", right, f"job {job_id} was given up after {late}")
        peace(here, told)
    return told


def _asked_after_the_end(here: Trial) -> dict[int, list[float]]:
    """When the tasks of held jobs were asked for by their ids, once they were over: seconds since then."""
    over = {task.id: task.over for task in evidence.tasks(here.sandbox.ledger(), {})}
    held = {job.task_id: job.id for job in here.jobs() if job.state == "held" and job.account not in LISTED}
    late: dict[int, list[float]] = {job_id: [] for job_id in held.values()}
    for each in here.sandbox.requests():
        name = each["task_id"]
        if each["point"] == "poll" and name in held and each["at"] >= over[name]:
            late[held[name]].append(round(each["at"] - over[name]))
    return late


def unheard_of(folder: Path, seed: str) -> Tally:
    """404 for ever: believed after three times over a minute, held, and never ordered again; a person may adopt it."""
    alone = tuple(name for name in PROVIDERS if name != "happyhorse")  # whose list knows its tasks all the same
    jobs = 3
    with staged(folder, seed, alone, jobs=clips(jobs, alone)) as (here, told):
        for provider in alone:
            here.sandbox.fault("poll_404", provider, times=FOR_EVER)
        ended = here.run()
        expect(told, "F64", ended.code == 4, ended.said())
        expect(told, "F64", errors(here) == {"not_found": jobs * len(alone)}, f"held: {errors(here)}")
        expect(told, "F64", here.sandbox.tasks() == jobs * len(alone), f"{here.sandbox.tasks()} tasks")
        here.sandbox.restart(faults="")
        for job in here.jobs():
            adopted = here.commands.run("resolve", str(job.id), "--adopt", job.task_id or "", "--db", here.queue)
            expect(told, "F64", adopted.code == 0, adopted.said())
        peace(here, told)
        expect(told, "F64", set(states(here)) == {"succeeded"}, f"in the end: {states(here)}")
    return told


def one_id_twice(folder: Path, seed: str) -> Tally:
    """An order is answered with the id of an earlier one: it is held, and the earlier job keeps its task."""
    with staged(folder, seed, PROVIDERS, jobs={}) as (here, told):
        for _ in range(TIMES):
            for strikes in (False, True):
                here.orders.grow(clips(1))
                for provider in PROVIDERS if strikes else ():
                    here.sandbox.fault("wrong_task", provider, when="submit")
                ended = here.run()
                expect(told, "F51", ended.code in SETTLED, ended.said())
        wanted = {"held": TIMES * len(PROVIDERS), "succeeded": TIMES * len(PROVIDERS)}
        expect(told, "F51", states(here) == wanted, f"{states(here)}")
        expect(told, "F51", errors(here) == {"unknown_submission": wanted["held"]}, f"{errors(here)}")
        peace_but(here, told, "open_keys")
    return told


def over_a_cap(folder: Path, seed: str) -> Tally:
    """Charged more than the price, under a cap: it is booked as seen, and what is over the cap stops new orders."""
    names, allowed = ("happyhorse",), 4  # the one that documents its prices
    with staged(folder, seed, names, jobs=clips(8, names)) as (here, told):
        prices = {job.account: job.estimated or 0 for job in _planned(here)}
        here.flags = tuple(
            word for name, price in prices.items() for word in ("--max-credits", f"{name}={price * allowed}")
        )
        for provider in names:
            here.sandbox.fault("overcharged", provider, when="submit", times=FOR_EVER, factor="1.5")
        ended = here.run()
        expect(told, "F58", ended.code == LIMIT, ended.said())
        for provider in names:
            ordered = len(submissions(here, provider))
            expect(told, "F58", 0 < ordered <= allowed, f"{ordered} orders at {provider} under a cap of {allowed}")
        here.flags = ()
        peace_but(here, told, "open_bills")
    return told


def _planned(here: Trial) -> list[Job]:
    """The jobs before anything is paid: a cap of nothing lets none of them go."""
    flags, here.flags = here.flags, ("--max-credits", "0")
    here.commands.start(*here.arguments).wait()
    here.flags = flags
    return here.jobs()


def never_ends(folder: Path, seed: str) -> Tally:
    """Past its timeout a task stays running: it is reported, asked hourly, and never ordered again; then it ends."""
    stuck, slow = tuple(name for name in PROVIDERS if name != "seedance2ai"), "seedance2ai"
    with staged(folder, seed, PROVIDERS, jobs=clips(2), speed=HASTE) as (here, told):
        text = here.orders.manifest.read_text()
        for name in stuck:
            entry = here.orders.limits[name].entry()
            text = text.replace(f"{name}: {entry}", f"{name}: {entry[:-1]}, timeout: 30m}}")
            here.sandbox.fault("stuck", name)
        here.sandbox.fault("review", slow, seconds=4 * HOUR)
        here.orders.manifest.write_text(text)
        ended = here.run()
        expect(told, "F60", ended.code == 4, ended.said())
        running = [job for job in here.jobs() if job.state == "running"]
        expect(told, "F60", sorted(job.account for job in running) == sorted(stuck), f"{states(here)}")
        for job in running:
            polls = _late_polls(here, job)
            expect(told, "F60", 1 <= len(polls) <= 5, f"{job.account} was asked {len(polls)} times in four hours")
            here.sandbox.post("finish", provider=job.account, task_id=job.task_id)
        peace(here, told)
        expect(told, "F60", set(states(here)) == {"succeeded"}, f"in the end: {states(here)}")
        expect(told, "F60", here.sandbox.tasks() == 2 * len(PROVIDERS), "something was ordered again")
    return told


def _late_polls(here: Trial, job: Job) -> list[float]:
    """When the task was asked for after half an hour."""
    requests = [each for each in here.sandbox.requests() if each["task_id"] == job.task_id]
    began = min(each["at"] for each in requests)
    return [each["at"] for each in requests if each["point"] == "poll" and each["at"] > began + HOUR / 2]


def keys_mean_nothing(folder: Path, seed: str) -> Tally:
    """A provider that ignores keys charges a resent order twice: no client can help it, but the judge must say so."""
    with staged(folder, seed, KEYED, jobs=clips(4, KEYED), options=("--ignore-keys",)) as (here, told):
        for provider in KEYED:
            here.sandbox.fault("lost_answer", provider, when="submit", times=2)
        ended = here.run()
        expect(told, "F66", ended.code == 0, ended.said())
        found = peace_but(here, told, "doubles", "lost")
        expect(told, "F66", found.count("doubles") >= 4, f"the judge has not seen the doubles: {found}")
        told.fired["F66"] += found.count("doubles") // 2
    return told


def key_forgotten(folder: Path, seed: str) -> Tally:
    """Back after the key's window: what became of the order is a question that only a person can answer."""
    with staged(folder, seed, KEYED, jobs=clips(2, KEYED), speed=HASTE) as (here, told):
        crashed = here.run(RUNNER_FAILPOINT="request-sent:2")
        expect(told, "F67", crashed.code == KILLED, crashed.said())
        time.sleep((KEY_WINDOW + 300) / here.speed)
        questions = sum(each.brink is not None for each in tries(here) if each.outcome is None)
        last = here.sandbox.last_request()
        ended = here.run()
        expect(told, "F67", ended.code == 4, ended.said())
        expect(told, "F67", questions >= 1 and states(here)["held"] == questions, f"{questions}, {states(here)}")
        resent = sum(len(submissions(here, name, last)) for name in KEYED)
        expect(told, "F67", resent == here.orders.jobs - questions, f"{resent} orders after the crash")
        told.fired["F67"] += questions
        peace_but(here, told, "open_keys")
    return told


def other_body(folder: Path, seed: str) -> Tally:
    """409, the key is known with another body: to a first order it is a person's matter at once; to a resent one, when
    no answer has come in two hours. Nothing is ever sent under another key."""
    name, jobs = "seedance2ai", 10
    with staged(folder, seed, (name,), jobs=clips(jobs, (name,)), speed=HASTE) as (here, told):
        conflict = {"status": 409, "code": "idempotency_conflict"}
        here.sandbox.fault("error_before_charge", name, when="submit", times=jobs, **conflict)
        ended = here.run()
        expect(told, "F68", ended.code == 4 and states(here) == {"held": jobs}, ended.said())
        expect(told, "F68", len(submissions(here, name)) == jobs, "a first order was sent again")
        here.orders.grow(clips(jobs, (name,)))
        crashed = here.run(RUNNER_FAILPOINT="request-sent:2")
        expect(told, "F68", crashed.code == KILLED, crashed.said())
        expect(told, "F68", _respell_what_was_sent(here) > 0, "nothing was sent")
        ended = here.run()
        expect(told, "F68", ended.code == 4, ended.said())
        expect(told, "F68", set(errors(here)) == {"unknown_submission"}, f"{errors(here)}")
        told.fired["F68"] += sum(each["status"] == 409 for each in submissions(here, name))
        found = peace_but(here, told, "open_keys", "leaks")
        others = [each for each in found.findings if each.kind == "leaks" and "key_reused" not in each.text]
        expect(told, "F68", not others, f"{others}")
    return told


def _respell_what_was_sent(here: Trial) -> int:
    """Somebody has meddled with the queue: the bytes of open questions are not those that were sent. How many."""
    with closing(sqlite3.connect(here.queue)) as connection, connection:
        asked = "outcome IS NULL AND brink_at IS NOT NULL"
        return connection.execute(f"UPDATE attempts SET body = body || ' ' WHERE {asked}").rowcount


def still_accepting(folder: Path, seed: str) -> Tally:
    """409, it is still being accepted, for most of an hour: the same key until the id comes, and one task each."""
    with staged(folder, seed, KEYED, jobs=clips(3, KEYED), speed=200.0) as (
        here,
        told,
    ):  # ten minutes are three seconds
        for provider in KEYED:
            here.sandbox.fault("late_accept", provider, when="submit", times=2, seconds=3000)
        ended = here.run()
        expect(told, "F69", ended.code == 0, ended.said())
        expect(told, "F69", here.sandbox.tasks() == 6, f"{here.sandbox.tasks()} tasks for 6 jobs")
        told.fired["F69"] += sum(each["status"] == 409 for name in KEYED for each in submissions(here, name))
        peace(here, told)
    return told


def _all(number: str, strikes: tuple[Strike, ...], jobs: int, speed: float = 100.0) -> Scenario:
    """Strikes that need no more than the judge."""
    name = f"{number.lower()}-{strikes[0].fault}".replace("_", "-")
    return Scenario(name, (number,), partial(play, strikes, jobs, speed))


ODD = tuple(Strike("F49", "odd_progress", "poll", {"value": value}, 2) for value in ("137", "-1", "null", "text"))
REFUNDED = tuple(name for name in PROVIDERS if name != "seedhorse")  # which tells nobody what it gives back
REFUNDS = (
    Strike("F57", "late_refund", "submit", {"refund": 0.5, "seconds": 40}, 4, names=REFUNDED),
    Strike("F57", "task_failed", "submit", {"refund": 0.5}, 4, names=REFUNDED),
)
WAITS = (("5", 5.0), ("date:20", 15.0), ("x", 5.0), ("1000000000", HOUR))  # what is said, and how long that is at least


def told_to_wait(folder: Path, seed: str) -> Tally:
    """429 with Retry-After in seconds, as a date, as nonsense and for ever: it is heeded, and for an hour at most."""
    names = tuple(
        name for name in PROVIDERS if name != "seedhorse"
    )  # which has no such answer: that is an open question
    with staged(folder, seed, names, jobs=clips(1, names), speed=HASTE) as (here, told):
        for provider in names:
            for text, _ in WAITS:
                here.sandbox.fault("rate_limited", provider, when="submit", retry_after=text)
        ended = here.run()
        expect(told, "F27", ended.code == 0, ended.said())
        for provider in names:
            at = [each["at"] for each in submissions(here, provider)]
            gaps = [after - before for before, after in pairwise(at)]
            right = len(gaps) == len(WAITS) and all(gap >= least for gap, (_, least) in zip(gaps, WAITS, strict=False))
            expect(told, "F27", right and gaps[-1] <= 2 * HOUR, f"{provider} was asked again after {gaps}")
        peace(here, told)
    return told


SCENARIOS = (
    Scenario("f27-told-to-wait", ("F27",), told_to_wait),
    Scenario("f47-unknown-words", ("F47",), unknown_words),
    _all("F49", ODD, 9),
    Scenario("f51-one-id-twice", ("F51",), one_id_twice),
    Scenario("f52-nothing-made", ("F52",), nothing_made),
    _all("F57", REFUNDS, 9),
    Scenario("f58-over-a-cap", ("F58",), over_a_cap),
    Scenario("f60-never-ends", ("F60",), never_ends),
    _all("F61", (Strike("F61", "review", "submit", {"seconds": 2 * HOUR}, 1),), 2, HASTE),
    Scenario("f64-unheard-of", ("F64",), unheard_of),
    Scenario("f66-keys-mean-nothing", ("F66",), keys_mean_nothing),
    Scenario("f67-key-forgotten", ("F67",), key_forgotten),
    Scenario("f68-other-body", ("F68",), other_body),
    Scenario("f69-still-accepting", ("F69",), still_accepting),
)
