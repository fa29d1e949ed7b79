"""An order was accepted, and paid for: its task id is kept until it is stored, and told where it cannot be.

From the answer to the commit the id is nowhere but in this process. The disk may be full, the database away, and others
may have taken us for dead meanwhile, so that the order is an open question of theirs.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from dataclasses import replace

from runner.errors import ErrorKind, Fenced, LocalError, Taken, Unstored
from runner.exchange import Accepted, Action, Refusal
from runner.jobs import State
from runner.lifecycle.desk import Desk, log
from runner.limits import backoff
from runner.store.work import Work, load
from runner.verdicts.submission import ANSWERABLE, Submission, after_submission, answered_late

TELL_AFTER = 3.0  # wall seconds in which an id is stored, or a person is told that it is not yet …
SAVE_SECONDS = 900.0  # … and in which it is tried again, if the process lives that long


async def record_accepted(desk: Desk, sub: Submission, accepted: Accepted) -> None:
    """Stores the id of a paid task, however long that takes. Raises Unstored, which tells it, when the process ends
    before."""
    telling = asyncio.create_task(_tell_if_it_takes_long(desk, sub, accepted))
    try:
        await _keep(desk, sub, accepted)
    except Unstored:
        raise
    except Exception:  # a bug of ours must not be the end of what was paid for
        log.error("paid, and not stored", **_facts(desk, sub, accepted))
        raise
    finally:
        telling.cancel()


async def _tell_if_it_takes_long(desk: Desk, sub: Submission, accepted: Accepted) -> None:
    """What only this process knows must outlive even its sudden death: on the screen, or in the log."""
    await asyncio.sleep(TELL_AFTER)
    log.warning("paid, not stored yet", **_facts(desk, sub, accepted))


async def _keep(desk: Desk, sub: Submission, accepted: Accepted) -> None:
    began, tries = desk.now(), 0
    while True:
        try:
            return await _record(desk, sub, accepted)
        except LocalError as error:
            tries += 1
            waited = desk.clock.real((desk.now() - began).total_seconds())
            if tries > 1 and (desk.store.hurried.is_set() or waited > SAVE_SECONDS):
                raise _unstored(desk, sub, accepted, error) from None
        if tries == 1:
            await asyncio.to_thread(desk.store.drop_ballast)
        else:
            await _pause(desk, tries - 1)


async def _record(desk: Desk, sub: Submission, accepted: Accepted) -> None:
    try:
        await desk.record(*after_submission(sub, accepted), patient=False)
    except Taken:
        await _record_twin(desk, sub, accepted)
    except Fenced:
        await _answer_late(desk, sub, accepted)


async def _record_twin(desk: Desk, sub: Submission, accepted: Accepted) -> None:
    """The provider answered with a task id that belongs to another job already: a person must look."""
    refusal = Refusal(Action.AMBIGUOUS, ErrorKind.UNKNOWN_SUBMISSION, "twin_task",
                      f"the provider answered with task {accepted.task_id}, which belongs to another job")  # fmt: skip
    await desk.record(*after_submission(replace(sub, keyed=False, lookable=False), refusal))


async def _answer_late(desk: Desk, sub: Submission, accepted: Accepted) -> None:
    """Others have taken us for dead, and the order for an open question. Its answer is here: it settles the question as
    soon as nobody is looking into it, unless the task has been found that way already."""
    for tries in itertools.count(1):
        work = (await desk.store.read(load, [sub.job_id]))[sub.job_id]
        if work.standing.task_id == accepted.task_id:
            break
        if not _still_asked(work, sub):
            _tell_gone_on(desk, sub, accepted)
            break
        if work.lease is None and await _settled(desk, work, sub, accepted):
            break
        if desk.store.hurried.is_set():
            raise LocalError("another worker is looking into the order")
        await _pause(desk, tries)


async def _settled(desk: Desk, work: Work, sub: Submission, accepted: Accepted) -> bool:
    """Whether nothing is left to be done; if not, the job has moved at this very moment, and is looked at again."""
    assert work.attempt is not None
    now = replace(sub, standing=work.standing, bill=work.attempt.bill, now=desk.now())
    try:
        await desk.record(answered_late(now, accepted))
    except Fenced:
        return False
    except Taken:  # somebody has given the task to another job
        _tell_gone_on(desk, sub, accepted)
    return True


def _tell_gone_on(desk: Desk, sub: Submission, accepted: Accepted) -> None:
    log.error("paid, and its job has gone on without it", **_facts(desk, sub, accepted))


def _still_asked(work: Work, sub: Submission) -> bool:
    """Whether it still is the question what became of this very attempt."""
    same = work.attempt is not None and work.attempt.id == sub.attempt_id
    return same and work.standing.state in (State.SUBMITTING, *ANSWERABLE)


async def _pause(desk: Desk, tries: int) -> None:
    """Doubling from a second to 15, and over at once when the process wants to end."""
    with suppress(TimeoutError):
        wait = desk.clock.real(backoff(tries, first=1.0, cap=15.0))
        await asyncio.wait_for(desk.store.hurried.wait(), wait)


def _facts(desk: Desk, sub: Submission, accepted: Accepted) -> dict[str, str]:
    hint = f"if it never is stored: {_adopt(sub, accepted)}"
    return {"account": desk.account, "job": str(sub.job_id), "task_id": accepted.task_id, "hint": hint}


def _unstored(desk: Desk, sub: Submission, accepted: Accepted, error: LocalError) -> Unstored:
    log.error("paid, and not stored", **_facts(desk, sub, accepted))
    said = f"job {sub.job_id} was accepted by {desk.account} as task {accepted.task_id}, which cannot be stored"
    return Unstored(f"{said}: {error.message}", f"when that is mended: {_adopt(sub, accepted)}")


def _adopt(sub: Submission, accepted: Accepted) -> str:
    return f"runner resolve {sub.job_id} --adopt {accepted.task_id}"
