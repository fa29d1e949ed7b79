"""What must hold between any two steps of a story (reliability.md section 1.2): the queue against the provider's own
books. Each rule names what it finds; nothing found is innocence.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from runner.jobs import IN_FLIGHT, TRANSITIONS, Event, State
from runner.ledger import from_micros
from torture.pretend import End, Pretend, Task

BY_A_PERSON = frozenset({Event.RETRIED, Event.RESUBMITTED})
ANSWERED = BY_A_PERSON | {Event.ACCEPTED, Event.FOUND, Event.ADOPTED}
MINUTE = 60.0


@dataclass
class Memo:
    """What was seen so far. `names` is what any manifest has asked for: each name's jobs; `ids` the id of each key;
    `stands` where the log left each job; `decided` how often a person let a job of this name be ordered again; `asked`
    are the jobs with an open question, `adopted` those that follow a task which a person gave to them."""

    names: dict[str, int] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    stands: dict[int, str] = field(default_factory=dict)
    decided: Counter[str] = field(default_factory=Counter)
    asked: set[int] = field(default_factory=set)
    adopted: set[int] = field(default_factory=set)
    last_event: int = 0


@dataclass(frozen=True)
class Sight:
    """The queue as it stands, and the provider."""

    jobs: list[sqlite3.Row]
    attempts: list[sqlite3.Row]
    events: list[sqlite3.Row]
    sums: Mapping[str, int]
    booked: Mapping[str, int]
    provider: Pretend
    memo: Memo
    concurrency: int
    budget: Decimal | None
    per_minute: int | None

    def named(self, name: str) -> list[sqlite3.Row]:
        return [job for job in self.jobs if job["name"] == name]

    def tries_of(self, name: str) -> list[sqlite3.Row]:
        ids = {job["id"] for job in self.named(name)}
        return [each for each in self.attempts if each["job_id"] in ids]

    def owner(self, task: Task) -> sqlite3.Row | None:
        return next((job for job in self.jobs if job["task_id"] == task.id), None)


JOBS = "SELECT * FROM jobs ORDER BY id"
ATTEMPTS = """SELECT id, job_id, generation, idempotency_key, reserved, charged, refunded, task_id
              FROM attempts ORDER BY id"""
EVENTS = "SELECT id, job_id, event, source, target FROM events WHERE id > ? ORDER BY id"
TOTALS = """SELECT coalesce(sum(estimated), 0) AS estimated, coalesce(sum(charged), 0) AS charged,
            coalesce(sum(refunded), 0) AS refunded FROM totals"""
LEDGER = "SELECT kind, sum(amount) AS amount FROM ledger GROUP BY kind"


def look_at(
    queue: Any, provider: Pretend, memo: Memo, concurrency: int, budget: Decimal | None, per_minute: int | None
) -> Sight:
    cursor = queue.cursor()
    cursor.row_factory = sqlite3.Row
    rows = [cursor.execute(statement).fetchall() for statement in (JOBS, ATTEMPTS)]
    events = cursor.execute(EVENTS, (memo.last_event,)).fetchall()
    sums = dict(cursor.execute(TOTALS).fetchone())
    booked = {row["kind"]: row["amount"] for row in cursor.execute(LEDGER)}
    return Sight(*rows, events, sums, booked, provider, memo, concurrency, budget, per_minute)


def found_in(sight: Sight) -> list[str]:
    """Every broken promise, in words."""
    return [f"{name}: {text}" for name, rule in RULES.items() for text in rule(sight)]


def edges(sight: Sight) -> Iterator[str]:
    """I9: the log only tells of allowed steps, each from where the last one led."""
    memo = sight.memo
    named = {job["id"]: job["name"] for job in sight.jobs}
    for step in sight.events:
        before = memo.stands.get(step["job_id"], State.QUEUED.value)
        ways = TRANSITIONS[Event(step["event"])]
        if step["source"] != before or ways.get(State(before)) != step["target"]:
            yield f"job {step['job_id']}, {step['event']}: {step['source']} → {step['target']}, and it was {before}"
        memo.stands[step["job_id"]] = step["target"]
        memo.last_event = step["id"]
        (memo.adopted.add if step["event"] == Event.ADOPTED else memo.adopted.discard)(step["job_id"])
        if step["event"] in BY_A_PERSON:
            memo.decided[named[step["job_id"]]] += 1
    for job in sight.jobs:
        if memo.stands.get(job["id"], State.QUEUED.value) != job["state"]:
            yield f"job {job['id']} is {job['state']}, its log says {memo.stands.get(job['id'])}"


def no_job_lost(sight: Sight) -> Iterator[str]:
    """I1, I19: the jobs are those that were ever asked for, in whatever order, and each keeps its id."""
    there = Counter(job["name"] for job in sight.jobs)
    if there != Counter(sight.memo.names):
        yield f"asked for were {sight.memo.names}, there are {dict(there)}"
    for job in sight.jobs:
        if sight.memo.ids.setdefault(job["key"], job["id"]) != job["id"]:
            yield f"the job of one key was {sight.memo.ids[job['key']]}, and is {job['id']}"


def paid_once(sight: Sight) -> Iterator[str]:
    """I2: no job was bought twice, unless a person said so; no key bought two tasks."""
    bought = Counter(task.name for task in sight.provider.tasks.values() if task.end is not End.NO_CREDITS)
    for name, count in bought.items():
        allowed = len(sight.named(name)) + sight.memo.decided[name]
        if count > allowed:
            yield f"{name}: {count} tasks bought, {allowed} asked for"
    keys = Counter(task.key for task in sight.provider.tasks.values() if task.key is not None)
    yield from (f"{count} tasks under one key" for count in keys.values() if count > 1)


def owned_once(sight: Sight) -> Iterator[str]:
    """I5: a task has one owner at most, and is a picture of what its owner asked for."""
    claimed = {(each["job_id"], each["task_id"]) for each in sight.attempts if each["task_id"]}
    claimed |= {(job["id"], job["task_id"]) for job in sight.jobs if job["task_id"]}
    owners = Counter(task_id for _, task_id in claimed)
    yield from (f"{count} jobs have task {task_id}" for task_id, count in owners.items() if count > 1)
    names = {job["id"]: job["name"] for job in sight.jobs}
    for job_id, task_id in claimed:
        task = sight.provider.tasks.get(task_id)
        if task is None or task.name != names[job_id]:
            yield f"job {job_id} ({names[job_id]}) has task {task_id}, which is {task.name if task else 'nobody’s'}"


def slots(sight: Sight) -> Iterator[str]:
    """I11: never more in flight than allowed, open questions counted; and the provider sees no more than that. (A held
    job keeps no slot; its task may go on all the same, and a person may have it followed again.)"""
    adopted = sight.memo.adopted
    moving = sum(State(job["state"]) in IN_FLIGHT and job["id"] not in adopted for job in sight.jobs)
    if moving > sight.concurrency:
        yield f"{moving} in flight, {sight.concurrency} allowed"
    going = [owner for task in sight.provider.going() if (owner := sight.owner(task)) is not None]
    ours = sum(owner["id"] not in adopted for owner in going)
    if ours > sight.concurrency:
        yield f"the provider works on {ours} for jobs, {sight.concurrency} allowed"


def keys(sight: Sight) -> Iterator[str]:
    """I12: a key belongs to one order, with one path and the same bytes."""
    owner: dict[str, tuple[int, int]] = {}
    for each in sight.attempts:
        key, order = each["idempotency_key"], (each["job_id"], each["generation"])
        if key is not None and owner.setdefault(key, order) != order:
            yield f"one key for {owner[key]} and {order}"
    yield from sight.provider.crimes


def open_questions(sight: Sight) -> Iterator[str]:
    """I12: a job is not ordered anew while nobody knows what became of its last order."""
    asked = sight.memo.asked
    for step in sight.events:
        event, job = Event(step["event"]), step["job_id"]
        if event is Event.ANSWER_LOST:
            asked.add(job)
        elif event in ANSWERED:
            asked.discard(job)
        elif event is Event.CLAIMED and job in asked:
            yield f"job {job} is ordered anew while nobody knows what became of its last order"


def books(sight: Sight) -> Iterator[str]:
    """The ledger's rows, the sums of accounts and those of jobs are one."""
    sums = {name: amount for name, amount in sight.sums.items() if amount}
    if sums != {name: amount for name, amount in sight.booked.items() if amount}:
        yield f"the ledger says {sight.booked}, its sums {sight.sums}"
    for name in ("charged", "refunded"):
        of_jobs, of_tries = (sum(row[name] for row in rows) for rows in (sight.jobs, sight.attempts))
        if not of_jobs == of_tries == sight.sums[name]:
            yield f"{name}: {of_jobs} by jobs, {of_tries} by attempts, {sight.sums[name]} in all"


def bills(sight: Sight) -> Iterator[str]:
    """I4: what a job whose bill is closed has cost is what the provider last said of its task; nobody is billed more
    than was said, and no job may owe more than what is reserved for it."""
    tasks = sight.provider.tasks
    attempts = {each["id"]: each for each in sight.attempts}
    for job in sight.jobs:
        task = tasks.get(job["task_id"] or "")
        if task is None or job["attempt_id"] is None or job["state"] in IN_FLIGHT or job["state"] == State.HELD:
            continue
        attempt = attempts[job["attempt_id"]]
        ours = from_micros(attempt["charged"] - attempt["refunded"])
        closed = job["settle_at"] is None
        if task.told and ours not in (task.told[-1:] if closed else task.told):
            yield f"job {job['id']} ({job['state']}) is billed {ours}, its task {task.id} said {task.told}"
    for name in sight.memo.names:
        mine = [task for task in tasks.values() if task.name == name]
        tries = sight.tries_of(name)
        low = from_micros(sum(each["charged"] - each["refunded"] for each in tries))
        high = low + from_micros(sum(each["reserved"] for each in tries))
        said = sum((max(task.told, default=task.price) for task in mine), Decimal(0))
        true = sum((task.used for task in mine), Decimal(0))
        if low > said:
            yield f"{name}: {low} booked, {said} was ever said"
        if not sight.provider.keyed and true > high:
            yield f"{name}: {true} is owed, {high} at most is known of"


def budget(sight: Sight) -> Iterator[str]:
    """I20: what is spent and what may be stays within the budget, where prices are known before."""
    if sight.budget is None or sight.provider.keyed:
        return
    spent = sight.sums["charged"] - sight.sums["refunded"] + sight.sums["estimated"]
    true = sum((task.used for task in sight.provider.tasks.values()), Decimal(0))
    if from_micros(spent) > sight.budget:
        yield f"{from_micros(spent)} of {sight.budget} credits"
    if true > sight.budget:
        yield f"{true} of {sight.budget} credits, by the provider's books"


def rate(sight: Sight) -> Iterator[str]:
    """I10: never more requests in a minute than allowed, across restarts."""
    if sight.per_minute is None:
        return
    asked = sight.provider.asked_at
    for first, last in zip(asked, asked[sight.per_minute :], strict=False):
        if last - first < MINUTE:
            yield f"more than {sight.per_minute} requests in {last - first:.0f} s"
            return


RULES: Mapping[str, Callable[[Sight], Iterator[str]]] = {
    "I9": edges, "I1 I19": no_job_lost, "I2": paid_once, "I5": owned_once, "I11": slots, "I12": keys,
    "I12 (open)": open_questions, "books": books,
    "I4": bills, "I20": budget, "I10": rate,
}  # fmt: skip
