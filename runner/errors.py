"""What can go wrong, sorted by what to do next.

    RunnerError                  ends the command with one clear line and an exit code (design.md section 10)
    ├── InputError          2    a manifest, a flag or a key is wrong; nothing was written or sent
    ├── InternalError       3    a bug of ours
    ├── LocalError          7    disk, permissions, database
    │   ├── NoQueue         7    there is no queue (yet) at this place
    │   ├── Unreachable     7    the database's server is away, and has been for too long
    │   └── Unstored        7    the id of a task that was paid for cannot be stored: it is told instead
    └── OwnedError          8    another runner owns this queue

    NotSent                      provably nothing left this machine: try again later, nothing was paid
    NoAnswer                     the request may have arrived: never blindly sent again
    Taken                        what must be unique is somebody else's already: a task id, most likely
    Fenced                       the lease is gone: somebody else looks after this job now, so do nothing

What a *provider* says is not an exception but a value: `exchange.Refusal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ErrorKind(StrEnum):
    """The `error.kind` of a job (design.md section 10): a closed list that scripts may lean on."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    INSUFFICIENT_CREDITS = "insufficient_credits"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    MODERATED = "moderated"
    NOT_FOUND = "not_found"
    TASK_FAILED = "task_failed"
    TIMEOUT = "timeout"
    NETWORK = "network"
    BAD_RESPONSE = "bad_response"
    DOWNLOAD_FAILED = "download_failed"
    UNKNOWN_SUBMISSION = "unknown_submission"
    BUDGET = "budget"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file: line and column count from 1; `end_column` is one past the last character."""

    file: str
    line: int
    column: int
    end_column: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what a person wrote: where, what, and how to mend it.

    `code` is the number of the catalogue of bad input ("B41"). `text` is the source line, if there is one to show.
    """

    code: str
    message: str
    hint: str = ""
    place: Place | None = None
    text: str | None = None


class RunnerError(Exception):
    """Ends the command: `message` says what is wrong, `hint` how to mend it. Neither ever holds a secret. `code`: its
    number in the catalogue of bad input, where it has one of its own."""

    exit_code = 3
    code = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(RunnerError):
    """What a person wrote is wrong. `problems` holds every one found, in the order of the file."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, hint)
        self.problems = problems


class InternalError(RunnerError):
    """A bug of ours."""


class LocalError(RunnerError):
    """This machine is in the way: disk, permissions, a damaged or newer database."""

    exit_code = 7


class DiskFull(LocalError):
    """There is no room for what was to be written; nothing of it was."""


class Unstored(LocalError):
    """A task was paid for, and its id could not be stored: the message tells it, and nothing else must hide it."""


class Unreachable(LocalError):
    """The database's server cannot be reached: at the start, or (any more) after all the waiting for it."""


class NotOurs(LocalError):
    """What stands where the queue should be is something else. It was left as it is."""

    code = "B89"


class Unusable(LocalError):
    """The queue is damaged, or of a newer program. It was left as it is."""

    code = "B90"


class NoQueue(LocalError):
    """There is no queue at this place: no file, or a database that nobody has made a queue of yet."""


class OwnedError(RunnerError):
    """Another runner owns this queue."""

    exit_code = 8


class NotSent(Exception):
    """Provably nothing was sent: the request failed before its first byte.

    `stops_after`: so many of them in a row mean that time will not mend it (the address is wrong, or who answers there
    cannot prove who it is), so a person is needed. None where waiting may help.
    """

    def __init__(self, why: str, stops_after: int | None = None) -> None:
        super().__init__(why)
        self.stops_after = stops_after


class NoAnswer(Exception):
    """The request may have arrived: a deadline, a reset, or an answer cut short."""


class Fenced(Exception):
    """The lease this work was claimed with is gone: whatever it learned is somebody else's to record."""


class Taken(Exception):
    """What was to be written must be unique and already belongs to another row: two jobs would own one task."""
