"""What a submission's answer means for its job: pure decisions, the heart of "never pay twice".

The question behind each rule is whether an earlier try of the same generation is an *open question*: it reached the
brink and never got a definitive answer. While one is open, nothing the provider says to a resend proves anything about
the first try, so the key and the bytes stay (design.md section 5.5).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from runner.errors import ErrorKind
from runner.exchange import Accepted, Action, Refusal
from runner.jobs import Answer, Change, Event, Failure, Standing, State
from runner.ledger import Bill, Entry, accept, release
from runner.limits import backoff

NO_WAY = "this provider offers no way to look it up"
CHANGED = "the account's key, or what describes its provider, has changed since it was sent"
OPEN_OUTCOMES = frozenset({"no_answer", "crash", "ambiguous", "conflict"})
KEEP_KEY = frozenset({Action.LATER, Action.SLOT, Action.CONFLICT})
CONFLICT_WINDOW = timedelta(hours=2)  # a 409 proves that our first request arrived: it may be waited for longer
# Where an answer that comes late still settles the question, and how.
ANSWERABLE = {State.UNKNOWN: Event.FOUND, State.HELD: Event.ADOPTED}
LOOK_AFTER = (timedelta(0), timedelta(seconds=60), timedelta(minutes=15))


def idempotency_key(batch: str, key: str, generation: int) -> str:
    """The key of one order: from (batch, job key, generation) and nothing else, so that it survives a crash, a restored
    backup, even a queue file deleted in despair."""
    return hashlib.sha256(f"{batch}\n{key}\n{generation}".encode()).hexdigest()[:40]


def mark_of(key: str) -> str:
    """The short name under which a person finds an order in the provider's web console."""
    return f"runner-{key[:16]}"


@dataclass(frozen=True, slots=True)
class Submission:
    """One paid request and what is known around it.

    `asked_before` is the outcome of an earlier request of the
    same attempt (None: this is the first), and `answered_at` when that was. `keyed`: the provider honours idempotency
    keys; `lookable`: something may tell what became of it (a history, a balance, a call back).
    """

    job_id: int
    lease: int
    standing: Standing
    attempt_id: int
    bill: Bill
    asked_before: str | None
    brink_at: datetime | None
    answered_at: datetime | None
    keyed: bool
    lookable: bool
    key_window: timedelta
    poll_interval: timedelta
    request: int | None
    now: datetime
    spread: float = 0.0

    @property
    def open(self) -> bool:
        return self.asked_before in OPEN_OUTCOMES


@dataclass(frozen=True, slots=True)
class Unsent:
    """Nothing left this machine. `stops_after` as in `errors.NotSent`; `ours`: it was this machine that was in the
    way."""

    why: str
    stops_after: int | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The request left, and no answer came."""

    why: str


Outcome = Accepted | Refusal | Unsent | Unanswered


def after_submission(sub: Submission, outcome: Outcome) -> tuple[Change, ...]:
    """The changes that an outcome causes. Never an automatic second submission: only `queued` jobs are submitted anew,
    and a job goes back to `queued` only when this very generation is known not to be charged."""
    match outcome:
        case Accepted():
            return (_accepted(sub, outcome),)
        case Unsent():
            return (_still_open(sub, outcome.why),) if sub.open else (_put_back_unsent(sub, outcome.why),)
        case Unanswered():
            return _lost(sub, "no_answer", Failure(ErrorKind.UNKNOWN_SUBMISSION, "no_answer", outcome.why))
        case Refusal(action=Action.AMBIGUOUS | Action.NOT_FOUND):
            return _lost(sub, "ambiguous", Failure(ErrorKind.UNKNOWN_SUBMISSION, outcome.code, outcome.message))
        case Refusal(action=Action.CONFLICT):
            return _conflict(sub, outcome)
        case Refusal(action=Action.FAIL):
            return _refused_with_doubt(sub, outcome) if sub.open else (_refused(sub, outcome),)
        case Refusal():
            return (_still_open(sub, outcome.message),) if sub.open else (_put_back(sub, outcome),)


def beyond_key_window(sub: Submission) -> bool:
    """Whether the provider may have forgotten the key of an open question: then it is never sent again.

    A 409 proves that the key was alive when it was said, and no longer than the window after that. A question from the
    future (a clock was set back) has no known age.
    """
    if not sub.open or sub.brink_at is None:
        return False
    last = sub.brink_at + sub.key_window
    if sub.asked_before == "conflict" and sub.answered_at is not None:
        last = max(last, min(sub.brink_at + CONFLICT_WINDOW, sub.answered_at + sub.key_window))
    return sub.now < sub.brink_at or sub.now > last


def never_resent(sub: Submission, code: str, why: str) -> tuple[Change, ...]:
    """submitting → unknown → held, without a request: this open question must not be sent again (any more)."""
    failure = Failure(ErrorKind.UNKNOWN_SUBMISSION, code, why)
    unknown = _standing(sub, State.UNKNOWN, sub.now, failure=failure)
    return _change(sub, Event.ANSWER_LOST, unknown, None, why=why), _hold(sub, unknown, why)


def _accepted(sub: Submission, outcome: Accepted) -> Change:
    standing = replace(
        sub.standing, state=State.RUNNING, due_at=sub.now + sub.poll_interval, errors=0, task_id=outcome.task_id,
        failure=None, accepted_at=sub.now, finished_at=None, status=None, progress=None, looks=0,
    )  # fmt: skip
    answer = Answer(sub.attempt_id, "accepted", sub.now, task_id=outcome.task_id)
    return _change(sub, Event.ACCEPTED, standing, answer, accept(sub.bill, outcome.charged), task_id=outcome.task_id)


def answered_late(sub: Submission, outcome: Accepted) -> Change:
    """The answer to an order of which others believe that it was lost: `sub` as it stands now, one of ANSWERABLE, with
    nobody at work on it. The answer is the provider's own and to this very attempt, so it needs nobody's judgement."""
    now = _accepted(sub, outcome)
    how = {**now.data, "how": "the provider's late answer"}
    return replace(now, event=ANSWERABLE[sub.standing.state], source=sub.standing.state, lease=None, data=how)


def _put_back_unsent(sub: Submission, why: str) -> Change:
    errors = sub.standing.errors + 1
    standing = replace(
        _standing(sub, State.QUEUED, sub.now + _wait(errors, sub), failure=Failure(ErrorKind.NETWORK, "not_sent", why)),
        attempts=sub.standing.attempts - 1, errors=errors,
    )  # fmt: skip
    return _change(sub, Event.PUT_BACK, standing, _answer(sub, "not_sent", None, why), release(sub.bill), why=why)


def _put_back(sub: Submission, refusal: Refusal) -> Change:
    """Refused for now and not charged. Without keys, and for most refusals with keys, the next try is a new generation
    (a key may cache its error)."""
    keeps_key = sub.keyed and refusal.action in KEEP_KEY
    standing = replace(
        _standing(sub, State.QUEUED, sub.now, failure=failure_of(refusal)),
        attempts=sub.standing.attempts - 1, generation=sub.standing.generation + (0 if keeps_key else 1),
    )  # fmt: skip
    answer = _answer(sub, refusal.action.value, refusal.code, refusal.message)
    return _change(sub, Event.PUT_BACK, standing, answer, release(sub.bill), why=refusal.message, code=refusal.code)


def _refused(sub: Submission, refusal: Refusal) -> Change:
    standing = replace(
        _standing(sub, State.FAILED, sub.now, failure=failure_of(refusal)),
        attempts=sub.standing.attempts - 1, generation=sub.standing.generation + 1,
    )  # fmt: skip
    answer = _answer(sub, "refused", refusal.code, refusal.message)
    return _change(sub, Event.REFUSED, standing, answer, release(sub.bill), why=refusal.message, code=refusal.code)


def _lost(sub: Submission, outcome: str, failure: Failure) -> tuple[Change, ...]:
    """An open question: resend soon where the provider knows keys; look at once where it has a history; else held."""
    errors = sub.standing.errors + 1
    due = sub.now + (_wait(errors, sub) if sub.keyed else timedelta(0))
    unknown = replace(_standing(sub, State.UNKNOWN, due, failure=failure), errors=errors, looks=0)
    answer = _answer(sub, outcome, failure.code, failure.message)
    lost = _change(sub, Event.ANSWER_LOST, unknown, answer, why=failure.message, code=failure.code)
    if sub.keyed or sub.lookable:
        return (lost,)
    return lost, _hold(sub, unknown, NO_WAY)


def _conflict(sub: Submission, refusal: Refusal) -> tuple[Change, ...]:
    """A 409 to a resend proves that our first request arrived and is being processed. A 409 to the very first request
    of a key cannot be: somebody else used it, and a person must look."""
    failure = Failure(ErrorKind.UNKNOWN_SUBMISSION, refusal.code, refusal.message)
    if sub.open:
        return _lost(replace(sub, keyed=True), "conflict", failure)
    lost = _lost(replace(sub, keyed=True), "conflict", failure)[0]
    return lost, _hold(sub, lost.standing, "the provider already knew a key that was never sent before")


def _still_open(sub: Submission, why: str) -> Change:
    """A resend was refused for now, or never left: the question is as open as before, and so is its evidence."""
    errors = sub.standing.errors + 1
    standing = replace(_standing(sub, State.UNKNOWN, sub.now + _wait(errors, sub)), errors=errors)
    return _change(sub, Event.ANSWER_LOST, standing, None, why=why)


def _refused_with_doubt(sub: Submission, refusal: Refusal) -> tuple[Change, ...]:
    why = f"the first answer was lost, and the same request was then refused: {refusal.message}"
    failure = Failure(ErrorKind.UNKNOWN_SUBMISSION, refusal.code, why)
    unknown = _standing(sub, State.UNKNOWN, sub.now, failure=failure)
    return _change(sub, Event.ANSWER_LOST, unknown, None, why=why), _hold(sub, unknown, why)


def _hold(sub: Submission, unknown: Standing, why: str) -> Change:
    held = replace(unknown, state=State.HELD, due_at=sub.now)
    return Change(Event.NOT_FOUND, sub.job_id, State.UNKNOWN, None, sub.now, held, data={"why": why})


def _standing(sub: Submission, state: State, due_at: datetime, failure: Failure | None = None) -> Standing:
    return replace(sub.standing, state=state, due_at=due_at, failure=failure or sub.standing.failure)


def _answer(sub: Submission, outcome: str, code: str | None, message: str) -> Answer:
    return Answer(sub.attempt_id, outcome, sub.now, code, message)


def _change(
    sub: Submission,
    event: Event,
    standing: Standing,
    answer: Answer | None,
    entries: tuple[Entry, ...] = (),
    **data: str,
) -> Change:
    return Change(event, sub.job_id, State.SUBMITTING, sub.lease, sub.now, standing, answer, entries,
                  request=sub.request, data=data)  # fmt: skip


def _wait(errors: int, sub: Submission) -> timedelta:
    return timedelta(seconds=backoff(errors, spread=sub.spread))


def failure_of(refusal: Refusal) -> Failure:
    return Failure(refusal.kind, refusal.code, refusal.message)


def next_look(lost_at: datetime, now: datetime) -> datetime | None:
    """When to look again after a look that found nothing; None when it was the last one.

    Looks are made at once, after 60 s and after 15 min, and at every start besides. Only time makes a look the last
    one: absence is not proof, and a task was seen accepted after its answer had been given up.
    """
    return next((lost_at + pause for pause in LOOK_AFTER if lost_at + pause > now), None)
