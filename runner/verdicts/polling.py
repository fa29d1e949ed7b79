"""What a provider's word about a running task means for its job.

There is no "gave up polling": a task past its `timeout` stays `running`, is asked hourly, and is reported. A completed
render is never `failed`, whatever happens afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from runner.errors import ErrorKind
from runner.exchange import Action, Phase, Refusal, Report
from runner.jobs import THUMBNAILS, Change, Event, Failure, OutputRow, Standing, State
from runner.ledger import Bill, Entry, as_text, settle
from runner.limits import backoff
from runner.verdicts.submission import failure_of

NOT_FOUND_TIMES = 3
NOT_FOUND_EVERY = timedelta(seconds=30)  # three times are then spread over a minute
EMPTY_TIMES = 3
EMPTY_EVERY = timedelta(seconds=20)
OVERDUE_EVERY = timedelta(hours=1)
SETTLE_AFTER = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=60))
NOT_CHARGED = frozenset({Action.CREDITS, Action.SLOT, Action.STOP, Action.STOP_MODEL, Action.LATER})


@dataclass(frozen=True, slots=True)
class Poll:
    """One question about one task. `every` is the least time until the next one; `timeout` the age at which the task
    is overdue; `priced` the exact documented price, if there is one; `promised`: failed tasks are documented to be
    refunded; `asked`: how many outputs were ordered."""

    job_id: int
    lease: int
    standing: Standing
    bill: Bill
    priced: Decimal | None
    every: timedelta
    timeout: timedelta
    request: int | None
    now: datetime
    spread: float = 0.0
    promised: bool = False
    asked: int = 1


def after_poll(poll: Poll, answer: Report | Refusal) -> Change:
    match answer:
        case Report(phase=Phase.DONE) if not answer.outputs:
            return _empty(poll, answer)
        case Report(phase=Phase.DONE):
            return _finished(poll, answer)
        case Report(phase=Phase.FAILED | Phase.CANCELLED) if poll.standing.finished_at is not None:
            return _taken_back(poll, answer)
        case Report(phase=Phase.FAILED, error=Refusal(action=action)) if action in NOT_CHARGED and _free(poll, answer):
            return _task_refused(poll, answer)
        case Report(phase=Phase.FAILED | Phase.CANCELLED):
            return _ended(poll, answer)
        case Report():
            return _going(poll, answer)
        case Refusal(action=Action.NOT_FOUND):
            return _not_found(poll, answer)
        case _:
            return no_news(poll, failure_of(answer), wait=answer.wait)


def no_news(poll: Poll, failure: Failure, *, wait: float | None = None) -> Change:
    """The question was not answered: ask again, later and later, for as long as it takes. Where a complete task was
    asked for a fresh URL, `errors` are the tries to fetch its files, and this was none."""
    errors = poll.standing.errors + (poll.standing.finished_at is None)
    pause = timedelta(seconds=max(wait or 0.0, backoff(errors, spread=poll.spread)))
    standing = replace(poll.standing, due_at=poll.now + max(pause, poll.every), errors=errors, failure=failure)
    return _change(poll, Event.POLLED, standing)


def overdue(standing: Standing, timeout: timedelta, now: datetime) -> bool:
    return standing.accepted_at is not None and now - standing.accepted_at > timeout


def _going(poll: Poll, report: Report) -> Change:
    every = max(poll.every, OVERDUE_EVERY) if overdue(poll.standing, poll.timeout, poll.now) else poll.every
    standing = replace(
        poll.standing, due_at=poll.now + every, errors=0, failure=None, status=report.status, progress=report.progress
    )
    news: dict[str, str] = (
        {} if report.recognised or poll.standing.status == report.status else {"unrecognised_status": report.status}
    )
    return _change(poll, Event.POLLED, standing, (), (), **news)


def _finished(poll: Poll, report: Report) -> Change:
    """The render is there: its cost is known, or asked for again; from here the job can only succeed, or be held."""
    entries = _settle(poll, report)
    unsettled = _cost_unknown(poll, report)
    missing = _missing(poll, report)
    failure = Failure(ErrorKind.TASK_FAILED, "partial", "; ".join(missing)) if missing else None
    errors = poll.standing.errors if poll.standing.finished_at else 0  # of tries to fetch it, not of questions
    standing = replace(
        poll.standing, state=State.DOWNLOADING, due_at=poll.now, status=report.status, progress=None, failure=failure,
        finished_at=poll.standing.finished_at or poll.now, unsettled=unsettled, errors=errors,
        settle_at=poll.now + SETTLE_AFTER[0] if unsettled else None,
    )  # fmt: skip
    outputs = tuple(OutputRow(f.index + THUMBNAILS * f.thumbnail, f.url, f.thumbnail) for f in report.files)
    return _change(poll, Event.FINISHED, standing, entries, outputs)


def _missing(poll: Poll, report: Report) -> tuple[str, ...]:
    """Why outputs did not come, one by one; fewer of them than were ordered may be all that is said."""
    short = poll.asked - len(report.outputs) - len(report.missing)
    return (*report.missing, f"{short} of {poll.asked} outputs did not come") if short > 0 else report.missing


def _empty(poll: Poll, report: Report) -> Change:
    """Done, and no file in the answer: asked again a few times, then a person must look, since it was charged."""
    seen = poll.standing.failure is not None and poll.standing.failure.code == "empty"
    errors = poll.standing.errors + 1 if seen else 1
    why = "the provider says that the task is complete, but names no file"
    failure = Failure(ErrorKind.BAD_RESPONSE, "empty", "; ".join([why, *report.missing]))
    if errors <= EMPTY_TIMES:
        standing = replace(poll.standing, due_at=poll.now + EMPTY_EVERY, errors=errors, failure=failure)
        return _change(poll, Event.POLLED, standing)
    standing = replace(poll.standing, state=State.HELD, due_at=poll.now, failure=failure, status=report.status,
                       finished_at=poll.now)  # fmt: skip
    return _change(poll, Event.TASK_LOST, standing, _settle(poll, report), why=failure.message)


def _ended(poll: Poll, report: Report) -> Change:
    """Failed or cancelled by the provider. What it still charges is asked again: refunds can come late."""
    event = Event.TASK_CANCELLED if report.phase is Phase.CANCELLED else Event.TASK_FAILED
    to = State.CANCELLED if report.phase is Phase.CANCELLED else State.FAILED
    entries = _settle(poll, report)
    after = poll.bill.after(entries)
    unsettled = after.charged > after.refunded
    standing = replace(
        poll.standing, state=to, due_at=poll.now, status=report.status, progress=None, failure=_why(report),
        finished_at=poll.now, generation=poll.standing.generation + 1, unsettled=unsettled, settle_asks=0,
        settle_at=poll.now + SETTLE_AFTER[0] if unsettled else None,
    )  # fmt: skip
    return _change(poll, event, standing, entries, why=_why(report).message)


def _taken_back(poll: Poll, report: Report) -> Change:
    """The task was complete and paid for, was asked for a fresh URL, and is now said to have failed: a render that was
    completed is never `failed`, so a person must look."""
    why = f"the task was complete before; now the provider says: {_why(report).message}"
    failure = Failure(ErrorKind.DOWNLOAD_FAILED, "taken_back", why)
    standing = replace(poll.standing, state=State.HELD, due_at=poll.now, failure=failure, status=report.status)
    return _change(poll, Event.TASK_LOST, standing, _settle(poll, report), why=why)


def _task_refused(poll: Poll, report: Report) -> Change:
    """The refusal of an order that came as a failed task: nothing was charged, so the job is queued again."""
    pause = timedelta(seconds=backoff(1, spread=poll.spread))  # its account is paused; should it not be, no hot circle
    standing = replace(
        poll.standing, state=State.QUEUED, due_at=poll.now + pause, task_id=None, failure=_why(report),
        status=report.status, attempts=poll.standing.attempts - 1, generation=poll.standing.generation + 1,
        accepted_at=None, errors=0,
    )  # fmt: skip
    return _change(poll, Event.TASK_REFUSED, standing, _settle_free(poll, report), why=_why(report).message)


def _not_found(poll: Poll, refusal: Refusal) -> Change:
    """A 404 for a task whose id we hold is believed after three times over at least a minute."""
    seen = poll.standing.failure is not None and poll.standing.failure.kind is ErrorKind.NOT_FOUND
    errors = poll.standing.errors + 1 if seen else 1
    failure = Failure(ErrorKind.NOT_FOUND, refusal.code, refusal.message)
    if errors < NOT_FOUND_TIMES:
        standing = replace(poll.standing, due_at=poll.now + NOT_FOUND_EVERY, errors=errors, failure=failure)
        return _change(poll, Event.POLLED, standing)
    standing = replace(poll.standing, state=State.HELD, due_at=poll.now, errors=errors, failure=failure)
    return _change(poll, Event.TASK_LOST, standing, why=f"the provider does not know the task: {refusal.message}")


def after_settling(poll: Poll, answer: Report | Refusal) -> Change:
    """An ended task was asked for its final cost once more. It is settled when the figure says that nothing remains
    charged for a failure; after the third answer the last figure stands, unless a promised refund was never told.
    What is no answer, or calls the task unfinished, does not count: it is asked again after the same time."""
    if not _of_an_ended_task(answer):
        standing = replace(poll.standing, settle_at=poll.now + SETTLE_AFTER[min(poll.standing.settle_asks, 2)])
        return Change(Event.SETTLED, poll.job_id, poll.standing.state, poll.lease, poll.now, standing,
                      request=poll.request)  # fmt: skip
    asks = poll.standing.settle_asks + 1
    last = asks >= len(SETTLE_AFTER)
    entries = _settle(poll, answer) if isinstance(answer, Report) else ()
    after = poll.bill.after(entries)
    heard = isinstance(answer, Report)
    known = isinstance(answer, Report) and (answer.used is not None or answer.charged is not None)
    failed = poll.standing.state in (State.FAILED, State.CANCELLED)
    done = known and (last or not failed or after.charged <= after.refunded)
    if heard and last and failed and not poll.promised and not after.reserved:
        done = True  # no refund is documented, and no answer has told of one
    again = None if done or last else poll.now + SETTLE_AFTER[asks]
    standing = replace(poll.standing, unsettled=not done, settle_at=again, settle_asks=asks)
    back = after.refunded - poll.bill.refunded
    data = {"refunded": as_text(back)} if back else {}
    if last and failed and poll.promised and after.charged > after.refunded:
        data["not_refunded"] = as_text(after.charged - after.refunded)  # less came back than the document promises
    return Change(Event.SETTLED, poll.job_id, poll.standing.state, poll.lease, poll.now, standing, entries=entries,
                  request=poll.request, data=data)  # fmt: skip


def _of_an_ended_task(answer: Report | Refusal) -> bool:
    """Whether an answer can tell what an ended task cost, or that nothing will."""
    if isinstance(answer, Refusal):
        return answer.action is Action.NOT_FOUND
    return answer.phase in (Phase.DONE, Phase.FAILED, Phase.CANCELLED)


def _settle(poll: Poll, report: Report) -> tuple[Entry, ...]:
    """What the answer books. While nobody knows what a completed render cost, its reservation stands."""
    if report.phase is Phase.DONE and _cost_unknown(poll, report):
        return ()
    return settle(poll.bill, priced=poll.priced, used=report.used, charged=report.charged, refunded=report.refunded)


def _cost_unknown(poll: Poll, report: Report) -> bool:
    return poll.priced is None and report.used is None and report.charged is None and not poll.bill.charged


def _settle_free(poll: Poll, report: Report) -> tuple[Entry, ...]:
    """What a refusal books: no price is assumed for what was not made."""
    return settle(poll.bill, priced=None, used=report.used, charged=report.charged, refunded=report.refunded)


def _free(poll: Poll, report: Report) -> bool:
    """Whether the provider *says* that nothing remains charged. Silence is not "free": ordering again could cost
    twice. That nothing came back says nothing, either, where it is not told what was taken."""
    if report.used is None and report.charged is None and not report.refunded:
        return False
    if report.used is None and report.refunded is None:
        return False
    after = poll.bill.after(_settle_free(poll, report))
    return after.charged <= after.refunded


def _why(report: Report) -> Failure:
    if report.error is not None:
        return failure_of(report.error)
    kind = ErrorKind.CANCELLED if report.phase is Phase.CANCELLED else ErrorKind.TASK_FAILED
    return Failure(kind, report.status, f"the provider says: {report.status}")


def _change(
    poll: Poll, event: Event, standing: Standing, entries: tuple[Entry, ...] = (), outputs: tuple[OutputRow, ...] = (),
    **data: str,
) -> Change:  # fmt: skip
    return Change(event, poll.job_id, State.RUNNING, poll.lease, poll.now, standing, None, entries, outputs,
                  poll.request, data)  # fmt: skip
