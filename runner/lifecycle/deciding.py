"""What a person decides, as changes: try again, cancel, adopt a task, submit again, give up.

Pure. Each decision is judged by where its job stands: a `Change` to be recorded, or `Declined` with the reason. Whether
money may have been spent rules all of it:

- a `failed` job was refused, or its task ended: another try is a new order under a new generation;
- a `held` job may have been paid for. What was reserved for it stays reserved after `resubmit` and `abandon`, because
  nobody knows yet; adopting its task settles it when the task ends;
- a task that was sent cannot be taken back: no provider documents a cancel.

Every decision holds only from the state and under the lease that were seen: whoever was faster wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from runner.errors import ErrorKind
from runner.exchange import Action, Refusal, Report
from runner.jobs import Change, Event, OutputRow, Standing, State
from runner.ledger import ZERO
from runner.store.work import Work

# A running task is asked for its cost when it ends; until then nobody asks.
NOT_ASKED: dict[str, Any] = {"unsettled": False, "settle_at": None, "settle_asks": 0}


@dataclass(frozen=True, slots=True)
class Declined:
    """The decision cannot be taken, and why. `later`: it may be possible another time, nothing speaks against it."""

    why: str
    hint: str = ""
    later: bool = False


def retry(work: Work, outputs: Sequence[OutputRow], now: datetime) -> Change | Declined:
    """failed → queued, as a new order; held because of its files → fetched again, from where a URL is still known."""
    match work.standing.state:
        case State.FAILED if work.standing.unsettled and work.standing.settle_at is not None:
            hint = "`runner run` asks for it; try again later"
            return Declined("its task is still charged, and a refund may be on its way", hint, later=True)
        case State.FAILED:
            return _change(work, Event.RETRIED, _anew(work.standing, now), now, **_unsettled(work))
        case State.HELD if lacks_only_files(work):
            return _fetch_again(work, outputs, now)
        case State.HELD:
            return Declined("it is held: it may have been paid for already", f"decide: {commands(work.id)}")
        case State.CANCELLED:
            return Declined("it was cancelled", "run its manifest again, or ask for another take")
        case State.SUCCEEDED | State.PARTIAL:
            return Declined(f"it is done ({work.standing.state})", "ask for another take to have another one")
        case state:
            return Declined(f"it is {state}: nothing has gone wrong for good")


def lacks_only_files(work: Work) -> bool:
    """Held although the render is complete and paid for: only its files could not be had."""
    failure = work.standing.failure
    held = work.standing.state is State.HELD and work.standing.task_id is not None
    return held and failure is not None and failure.kind is ErrorKind.DOWNLOAD_FAILED


def cancel(work: Work, now: datetime) -> Change | Declined:
    """waiting or queued → cancelled. Nothing was sent, so nothing is lost."""
    match work.standing.state:
        case State.WAITING | State.QUEUED:
            standing = replace(work.standing, state=State.CANCELLED, due_at=now, failure=None, errors=0)
            return _change(work, Event.CANCELLED, standing, now)
        case State.SUBMITTING | State.RUNNING | State.UNKNOWN as state:
            why = f"it is {state}: it was sent, and no provider documents a way to take a task back"
            return Declined(why, "it is followed until it ends")
        case State.DOWNLOADING:
            return Declined("it is downloading: the render is complete and paid for")
        case State.HELD:
            hint = f"give it up: runner resolve {work.id} --abandon"
            return Declined("it is held: it may have been paid for", hint)
        case state:
            return Declined(f"it has ended already ({state})")


def adopt(
    work: Work, task_id: str, answer: Report | Refusal, outputs: Sequence[OutputRow], now: datetime
) -> Change | Declined:
    """held → running with this task, if the provider's answer says that the account has such a task.

    What it is a picture of cannot be known from the answer: that is the person's word. The files that another task of
    the job has named are not wanted any more.
    """
    if work.standing.state is not State.HELD:
        return not_held(work)
    if isinstance(answer, Refusal):
        return _unverified(answer, task_id)
    own = task_id == work.standing.task_id
    standing = replace(
        work.standing, state=State.RUNNING, due_at=now, task_id=task_id, status=answer.status, progress=answer.progress,
        failure=None, errors=0, accepted_at=now, finished_at=work.standing.finished_at if own else None, **NOT_ASKED,
    )  # fmt: skip
    change = _change(
        work, Event.ADOPTED, standing, now, task_id=task_id, how="by a person's word", status=answer.status
    )
    return change if own else replace(change, outputs=_of_no_use(outputs))


def resubmit(work: Work, outputs: Sequence[OutputRow], now: datetime) -> Change | Declined:
    """held → queued, as a new order under a new generation: if the first one was accepted, it is paid twice."""
    if work.standing.state is not State.HELD:
        return not_held(work)
    if any(row.path for row in outputs):
        return Declined("some of its files are on disk already", "ask for another take to have another render")
    standing = replace(_anew(work.standing, now), generation=work.standing.generation + 1)
    left = {"left_task": work.standing.task_id} if work.standing.task_id else {}
    change = _change(work, Event.RESUBMITTED, standing, now, **left, **_unsettled(work))
    return replace(change, outputs=_of_no_use(outputs))


def _of_no_use(outputs: Sequence[OutputRow]) -> tuple[OutputRow, ...]:
    return tuple(replace(row, url=None) for row in outputs if row.url)


def abandon(work: Work, now: datetime) -> Change | Declined:
    """held → cancelled. Why it was held stays written on it."""
    if work.standing.state is not State.HELD:
        return not_held(work)
    standing = replace(work.standing, state=State.CANCELLED, due_at=now)
    return _change(work, Event.ABANDONED, standing, now)


def commands(job: int) -> str:
    """The three ways to decide about a held job."""
    return f"runner resolve {job} --adopt ID | --resubmit | --abandon"


def not_held(work: Work) -> Declined:
    hint = (
        "see: runner retry, runner cancel" if work.standing.state in (State.FAILED, State.QUEUED, State.WAITING) else ""
    )
    return Declined(f"it is {work.standing.state}, not held: there is nothing to decide", hint)


def at_most(work: Work) -> Decimal | None:
    """What one order of this job costs at most, as far as anybody knows; None where no price is known."""
    attempt = work.attempt
    if attempt is not None and (attempt.priced is not None or attempt.bill.reserved):
        return max(attempt.priced or ZERO, attempt.bill.reserved)  # what was charged before may be more than the price
    return work.estimated


def _fetch_again(work: Work, outputs: Sequence[OutputRow], now: datetime) -> Change:
    """Where a wanted file still has a URL it is fetched from there; otherwise the task is asked for a fresh one."""
    standing = replace(work.standing, state=State.DOWNLOADING, due_at=now, failure=None, errors=0)
    if any(row.url and not row.path for row in outputs):
        return _change(work, Event.FETCHED_AGAIN, standing, now)
    running = replace(standing, state=State.RUNNING, **NOT_ASKED)
    return _change(work, Event.ADOPTED, running, now, task_id=work.standing.task_id or "", how="for a fresh URL")


def _unverified(refusal: Refusal, task_id: str) -> Declined:
    match refusal.action:
        case Action.NOT_FOUND:
            why = f"the provider knows no task {task_id} of this account ({refusal.message})"
            return Declined(why, "look up the id in the provider's web console")
        case Action.STOP:
            return Declined(f"task {task_id} could not be verified: the key is refused ({refusal.message})", later=True)
        case _:
            hint = "the job stays held; try again in a moment"
            return Declined(f"task {task_id} could not be verified: {refusal.message}", hint, later=True)


def _anew(standing: Standing, now: datetime) -> Standing:
    """Queued as if for the first time; only what counts over all attempts stays."""
    return Standing(State.QUEUED, now, attempts=standing.attempts, generation=standing.generation)


def _unsettled(work: Work) -> dict[str, str]:
    """What the job's last task had still charged when nobody asked for its refund any more: for the history."""
    if not work.standing.unsettled or work.attempt is None:
        return {}
    return {"not_refunded": str(work.attempt.bill.charged - work.attempt.bill.refunded)}


def _change(work: Work, event: Event, standing: Standing, now: datetime, **data: str) -> Change:
    return Change(event, work.id, work.standing.state, work.lease, now, standing, data={"by": "a person", **data})
