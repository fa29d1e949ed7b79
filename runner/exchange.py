"""What is said between `runner` and a provider: questions through `Ask`, answers as values.

An adapter turns its dialect into these words and decides nothing; `lifecycle` decides and never sees a dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from runner.errors import ErrorKind


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, whole. `data` is the parsed JSON, or None with the reason in `unreadable`.

    `headers` have lower-case names; `date` is the provider's own clock (its `Date` header), None where it sent none.
    """

    status: int
    headers: Mapping[str, str]
    data: Any
    unreadable: str | None = None
    date: datetime | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that goes out as multipart form data: the form's field name, the file's own name, its bytes and type."""

    field: str
    filename: str
    content: bytes
    media_type: str


class Ask(Protocol):
    """One request to the account's provider: base address, key, limits, deadline and redaction are its business.

    `path` follows the base ("/api/v1/…"). `content` is sent as it is (the frozen body of a submission), `json` is
    encoded. Returns every HTTP answer, whatever its status; raises `errors.NotSent` or `errors.NoAnswer`.
    """

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        upload: Upload | None = None,
    ) -> Reply: ...


class Action(StrEnum):
    """What to do next after a refusal (providers.md section 2)."""

    FAIL = "fail"  # this job is refused for good; not charged
    LATER = "later"  # the account comes back later; not charged
    SLOT = "slot"  # wait until one of our tasks ends; not charged
    CREDITS = "credits"  # the account is empty: pause it, probe it; not charged
    STOP = "stop"  # the account needs the person: its key is refused; not charged
    STOP_MODEL = "stop_model"  # this model is closed to the account; not charged
    AMBIGUOUS = "ambiguous"  # it may have been accepted and billed
    CONFLICT = "conflict"  # the key is known: with another body, or its first request is still running
    NOT_FOUND = "not_found"  # the provider does not know the task


@dataclass(frozen=True, slots=True)
class Refusal:
    """The provider said no, or something that is not a yes. `wait` is in seconds, None where it named no time."""

    action: Action
    kind: ErrorKind
    code: str
    message: str
    status: int | None = None
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the order. `charged` is what the answer says was deducted, None where it says nothing."""

    task_id: str
    charged: Decimal | None = None


class Review(StrEnum):
    """How a provider's review of an input stands."""

    PENDING = "pending"
    PASSED = "passed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Asset:
    """An input that a provider has registered. `asset_id` asks for it again, `uri` names it in orders once it has
    `PASSED`; `why` it was refused."""

    asset_id: str
    uri: str
    review: Review
    why: str = ""


class Phase(StrEnum):
    GOING = "going"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file the provider offers. `index` counts the outputs from 0; a thumbnail is kept beside and not counted."""

    url: str
    index: int
    thumbnail: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a provider says of one task.

    `status` is its own word, as it came; `recognised` is False for a word no document names (it means "still going").
    `used` is what remains charged after refunds; `charged` and `refunded` only where the provider tells them apart.
    `missing` holds the reason of each output that did not come. `error` tells why a task failed.
    """

    task_id: str
    phase: Phase
    status: str
    recognised: bool = True
    progress: float | None = None
    files: tuple[ResultFile, ...] = ()
    missing: tuple[str, ...] = ()
    used: Decimal | None = None
    charged: Decimal | None = None
    refunded: Decimal | None = None
    error: Refusal | None = None

    @property
    def outputs(self) -> tuple[ResultFile, ...]:
        """The files that count: no thumbnails."""
        return tuple(file for file in self.files if not file.thumbnail)


@dataclass(frozen=True, slots=True)
class Listed:
    """One task of a provider's history. `facts` are its own fields, as they came, to tell tasks apart."""

    task_id: str
    prompt: str | None
    created_at: datetime | None
    report: Report
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a provider's history, newest first. `more` says whether an older page may follow."""

    items: tuple[Listed, ...]
    more: bool
