"""The life of a job: its states, the events that move it, and the one table of what may follow what.

Theory of operation. A job is one intended paid render. Money is at stake from the moment its first byte may have left
until a definitive answer is on disk, so the states are cut along the only question that matters: *may we have paid?*

    waiting, queued      nothing was sent: safe to submit, safe to cancel
    submitting           an intent to pay is on disk; a request may be on the wire. A crash here is resolved by data:
                         no brink ⇒ provably not sent ⇒ `queued`; a brink ⇒ `unknown`
    unknown              it may have been accepted and billed. It is looked into: resent under the same key where the
                         provider honours keys, searched for in its history where it does not; never sent anew by itself
    running              the provider's task id is on disk: it is followed until it ends, however long
    downloading          the task is complete, so the render was paid for: from here a job never becomes `failed`
    succeeded, partial   all of, or some of, the outputs are on disk, verified
    failed, cancelled    it ended without a render
    held                 only a person can decide, and sees the evidence

Every change is an `Event`. `TRANSITIONS` says from which state to which state each event leads; it is the only place
that knows. The store moves a job only from the state (and under the lease) that the change believes in, and tells which
jobs moved. An event that leads to its own state records news without moving the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from runner.errors import ErrorKind
from runner.ledger import Entry


class State(StrEnum):
    WAITING = "waiting"
    QUEUED = "queued"
    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    RUNNING = "running"
    DOWNLOADING = "downloading"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HELD = "held"


TERMINAL = frozenset({State.SUCCEEDED, State.PARTIAL, State.FAILED, State.CANCELLED})
SETTLED = TERMINAL | {State.HELD}  # nothing moves these by itself
IN_FLIGHT = frozenset({State.SUBMITTING, State.UNKNOWN, State.RUNNING})  # these occupy a slot at the provider
UNPAID = frozenset({State.WAITING, State.QUEUED})


class Event(StrEnum):
    # the way of a job
    RELEASED = "released"
    CLAIMED = "claimed"
    ACCEPTED = "accepted"
    FINISHED = "finished"
    COMPLETED = "completed"
    COMPLETED_IN_PART = "completed_in_part"
    # refusals and failures
    REJECTED = "rejected"
    PUT_BACK = "put_back"
    REFUSED = "refused"
    TASK_FAILED = "task_failed"
    TASK_CANCELLED = "task_cancelled"
    TASK_REFUSED = "task_refused"
    # an answer that got lost
    ANSWER_LOST = "answer_lost"
    RESENT = "resent"
    FOUND = "found"
    NOT_FOUND = "not_found"
    GIVEN_LEAVE = "given_leave"
    # following and fetching
    TASK_LOST = "task_lost"
    URL_EXPIRED = "url_expired"
    DOWNLOAD_FAILED = "download_failed"
    # a person's decisions
    CANCELLED = "cancelled"
    ADOPTED = "adopted"
    FETCHED_AGAIN = "fetched_again"
    RESUBMITTED = "resubmitted"
    ABANDONED = "abandoned"
    RETRIED = "retried"
    ASKED_AGAIN = "asked_again"
    # news that moves nothing
    POSTPONED = "postponed"
    POLLED = "polled"
    LOOKED = "looked"
    SETTLED = "settled"


TRANSITIONS: Mapping[Event, Mapping[State, State]] = {
    Event.RELEASED: {State.WAITING: State.QUEUED},
    Event.CLAIMED: {State.QUEUED: State.SUBMITTING},
    Event.ACCEPTED: {State.SUBMITTING: State.RUNNING},
    Event.FINISHED: {State.RUNNING: State.DOWNLOADING},
    Event.COMPLETED: {State.DOWNLOADING: State.SUCCEEDED},
    Event.COMPLETED_IN_PART: {State.DOWNLOADING: State.PARTIAL},
    Event.REJECTED: {State.QUEUED: State.FAILED},
    Event.PUT_BACK: {State.SUBMITTING: State.QUEUED},
    Event.REFUSED: {State.SUBMITTING: State.FAILED},
    Event.TASK_FAILED: {State.RUNNING: State.FAILED},
    Event.TASK_CANCELLED: {State.RUNNING: State.CANCELLED},
    Event.TASK_REFUSED: {State.RUNNING: State.QUEUED},
    Event.ANSWER_LOST: {State.SUBMITTING: State.UNKNOWN},
    Event.RESENT: {State.UNKNOWN: State.SUBMITTING},
    Event.FOUND: {State.UNKNOWN: State.RUNNING},
    Event.NOT_FOUND: {State.UNKNOWN: State.HELD},
    Event.GIVEN_LEAVE: {State.UNKNOWN: State.QUEUED},
    Event.TASK_LOST: {State.RUNNING: State.HELD},
    Event.URL_EXPIRED: {State.DOWNLOADING: State.RUNNING},
    Event.DOWNLOAD_FAILED: {State.DOWNLOADING: State.HELD},
    Event.CANCELLED: {State.WAITING: State.CANCELLED, State.QUEUED: State.CANCELLED},
    Event.ADOPTED: {State.HELD: State.RUNNING},
    Event.FETCHED_AGAIN: {State.HELD: State.DOWNLOADING},
    Event.RESUBMITTED: {State.HELD: State.QUEUED},
    Event.ABANDONED: {State.HELD: State.CANCELLED},
    Event.RETRIED: {State.FAILED: State.QUEUED},
    Event.ASKED_AGAIN: {State.CANCELLED: State.QUEUED},
    Event.POSTPONED: {s: s for s in (State.QUEUED, State.DOWNLOADING, State.UNKNOWN)},
    Event.POLLED: {State.RUNNING: State.RUNNING},
    Event.LOOKED: {State.UNKNOWN: State.UNKNOWN},
    Event.SETTLED: {s: s for s in TERMINAL},
}

QUIET = frozenset({Event.POLLED, Event.POSTPONED})  # too many to keep as history; only their effect is written


def target(event: Event, source: State) -> State:
    """Where `event` leads from `source`. Raises ValueError where the table knows no such way: that is a bug."""
    try:
        return TRANSITIONS[event][source]
    except KeyError:
        raise ValueError(f"no transition: {event} from {source}") from None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job is where it is, for people and for scripts. Never holds a secret or a signed URL."""

    kind: ErrorKind
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The part of a job that changes. `due_at`: not before then; `errors` counts errors in a row, for back-off only.

    `attempts` counts paid submissions; `generation` numbers the idempotency keys. `unsettled`: the final cost is not
    known yet, asked again at `settle_at`. `accepted_at` to `finished_at` is how long the provider took. `status` is
    the provider's own word. `looks` counts looks for a lost answer.
    """

    state: State
    due_at: datetime
    errors: int = 0
    attempts: int = 0
    generation: int = 1
    looks: int = 0
    task_id: str | None = None
    status: str | None = None
    progress: float | None = None
    failure: Failure | None = None
    accepted_at: datetime | None = None
    finished_at: datetime | None = None
    unsettled: bool = False
    settle_at: datetime | None = None
    settle_asks: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt: the closing lines of its row. `evidence` is what a person will want to see."""

    attempt_id: int
    outcome: str
    answered_at: datetime
    code: str | None = None
    message: str | None = None
    task_id: str | None = None


THUMBNAILS = 1_000_000  # what is added to an output's number to number its thumbnail


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One file of a job, numbered as its provider numbers it: one that came late, or not at all, moves no other.

    While `url` stands it is wanted; once published it has `path`, `size`, `sha256` and no URL.
    """

    index: int
    url: str | None
    thumbnail: bool = False
    path: str | None = None
    size: int | None = None
    sha256: str | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One event of one job, as data: written together with everything it causes, or not at all.

    It holds only if the job still is in `source` and under `lease` (None: nobody may be holding it). `standing` is the
    job's changing part afterwards; the lease is given back. `request` is the logged request whose answer this is.
    """

    event: Event
    job_id: int
    source: State
    lease: int | None
    at: datetime
    standing: Standing
    answer: Answer | None = None
    entries: tuple[Entry, ...] = ()
    outputs: tuple[OutputRow, ...] = ()
    request: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.standing.state is not target(self.event, self.source):
            raise ValueError(f"{self.event} does not lead from {self.source} to {self.standing.state}")


def diagram() -> str:
    """The table as a Mermaid state diagram; the README holds this text, and a test says so."""
    moves = [
        f"    {source} --> {to}: {event}"
        for event, ways in TRANSITIONS.items()
        for source, to in ways.items()
        if source is not to
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> queued: enqueued", "    [*] --> waiting: enqueued", *moves])
