"""What the evidence proves by counting: jobs against what was asked for, slots, keys, and what a run says of it all.

Rules of the judge, like those that stand beside it in `judge`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import accumulate

from torture.evidence import Evidence, Task, Try

OPEN = frozenset({"no_answer", "ambiguous", "conflict"})  # outcomes that tell nothing of what became of an order
AWAY = "what was spent is in the queue, which cannot be read now"
STATES = re.compile(r"^([a-z0-9-]+): (\d+ [a-z]+(?:, \d+ [a-z]+)*)$", re.MULTILINE)
SPENT = re.compile(r"^  \S+, ([a-z0-9-]+): ([\d.]+) charged, ([\d.]+) refunded", re.MULTILINE)


def missing(evidence: Evidence) -> Iterator[str]:
    """The jobs are not those that were asked for (I1)."""
    there = Counter((job.account, job.line) for job in evidence.jobs)
    for account, line in sorted({*there, *evidence.wanted}):
        asked, found = evidence.wanted.get((account, line), 0), there[account, line]
        if asked != found:
            yield f"{account}: {asked} jobs were asked for, {found} are there: {line!r}"


def slots(evidence: Evidence) -> Iterator[str]:
    """More tasks of jobs that were never held were at work at once than are allowed (I11), by the provider's clock.

    Who was held has given his slot away, and his task may go on beside the others.
    """
    held = {step.job_id for step in evidence.steps if step.target == "held"}
    ours = {(job.account, job.task_id) for job in evidence.jobs if job.task_id and job.id not in held}
    for account, allowed in evidence.limits.items():
        most = at_once([task for task in evidence.tasks if task.account == account and (account, task.id) in ours])
        if most > allowed.concurrency:
            yield f"{account}: {most} tasks of jobs at once, {allowed.concurrency} allowed"


def at_once(tasks: Sequence[Task]) -> int:
    """The most of them that were at work at one moment; where one ends as another begins, they are one at a time."""
    moments = sorted([(task.began, 1) for task in tasks] + [(task.over, -1) for task in tasks])
    return max(accumulate(change for _, change in moments), default=0)


def strange_keys(evidence: Evidence) -> Iterator[str]:
    """An order went out under a key that the queue does not know; or a job got another key while nobody knew what had
    become of its last order (I12)."""
    known = {(each.account, each.idempotency_key) for each in evidence.tries if each.idempotency_key}
    for account, key in sorted(evidence.sent - known):
        yield f"{account}: something was ordered under {key}, which no job has"
    last: dict[int, Try] = {}
    for each in evidence.tries:
        before = last.get(each.job_id)
        if before and before.idempotency_key not in (None, each.idempotency_key) and _is_open(before):
            yield f"job {each.job_id} got another key though the order under {before.idempotency_key} is open"
        last[each.job_id] = each


def _is_open(each: Try) -> bool:
    return each.outcome in OPEN or (each.outcome is None and each.brink is not None)


def summary(evidence: Evidence) -> Iterator[str]:
    """What the last run printed is not what the queue and the provider say (I16)."""
    if evidence.last is None:
        return
    printed = {account: _counted(states) for account, states in STATES.findall(evidence.last.err)}
    spent = {account: Decimal(charged) - Decimal(back) for account, charged, back in SPENT.findall(evidence.last.err)}
    for account in sorted(evidence.limits):
        states = Counter(job.state for job in evidence.jobs if job.account == account)
        if states and printed.get(account) != states:
            yield f"{account}: the run printed {printed.get(account)}, there are {dict(states)}"
        if AWAY in evidence.last.err:
            continue  # a database that is away then: it says so, and makes nothing up
        if states and spent.get(account, Decimal(0)) != evidence.net.get(account, Decimal(0)):
            yield f"{account}: the run printed a net of {spent.get(account)}, it is {evidence.net.get(account)}"


def _counted(states: str) -> Counter[str]:
    pairs = (each.split(" ") for each in states.split(", "))
    return Counter({state: int(count) for count, state in pairs})
