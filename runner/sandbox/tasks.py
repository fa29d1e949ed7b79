"""A task of a pretend provider: what was ordered, what fate it was dealt, and what it looks like at a moment. Pure."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, get_args

Kind = Literal["video", "image"]
Outcome = Literal["completed", "failed", "moderated", "cancelled"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)  # the good one first
IMAGE_SHARE = 0.25  # an image renders in a quarter of a video's time
QUEUED_SHARE = 0.15  # of the render time, before it begins
SPREAD = 0.35  # sigma of the lognormal render time
SLOW_FACTOR = 10.0
REVIEW_SECONDS = 60.0
NEVER = 10 * 365 * 86400.0  # seconds: a task that is stuck ends in ten years


class Stage(StrEnum):
    """Where a task stands. Each dialect has words of its own for these, and fewer of them.

    REVIEW comes between processing and the end. A cancelled task has FAILED for those who know no other word.
    """

    QUEUED = "queued"
    PROCESSING = "processing"
    REVIEW = "review"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (Stage.COMPLETED, Stage.FAILED)


@dataclass(frozen=True, slots=True)
class Order:
    """A checked submission. `price` in millionths of a credit; `details` are the dialect's own."""

    endpoint: str
    model: str
    kind: Kind
    prompt: str
    price: int
    extension: str
    outputs: int = 1
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fate:
    """What will become of a task. Times in scaled seconds; `refund` is the share of the price that comes back, None for
    what its provider usually gives back; `missing`: how many of several outputs do not come.
    """

    outcome: Outcome = "completed"
    refused: bool = False
    refund: Decimal | None = None
    refund_after: float = 0.0
    hidden_for: float = 0.0
    odd_status: str | None = None
    odd_for: float = 0.0
    slowness: float = 1.0
    stuck: bool = False
    no_output: bool = False
    missing: int = 0
    review_for: float = 0.0
    price_factor: Decimal = Decimal(1)


def marked(fate: Fate, prompt: str) -> Fate:
    """The prompt may ask for a fate: `sandbox:moderated`, `sandbox:failed`, `sandbox:cancelled`, `sandbox:refused`,
    `sandbox:partial`, `sandbox:review`, `sandbox:slow`.
    """
    for outcome in OUTCOMES[1:]:
        if f"sandbox:{outcome}" in prompt:
            fate = replace(fate, outcome=outcome)
    if "sandbox:refused" in prompt:
        fate = replace(fate, refused=True)
    if "sandbox:partial" in prompt:
        fate = replace(fate, missing=max(1, fate.missing))
    if "sandbox:review" in prompt:
        fate = replace(fate, review_for=max(REVIEW_SECONDS, fate.review_for))
    if "sandbox:slow" in prompt:
        fate = replace(fate, slowness=fate.slowness * SLOW_FACTOR)
    return fate


def render_seconds(seed: str, task_id: str, kind: Kind, median: float, fate: Fate) -> float:
    """Lognormal around `median` (an image: a quarter of it), a pure function of seed and task id; then the review."""
    if fate.stuck:
        return NEVER
    drawn = math.exp(SPREAD * random.Random(f"{seed}:{task_id}").gauss(0.0, 1.0))
    return median * (IMAGE_SHARE if kind == "image" else 1.0) * fate.slowness * drawn + fate.review_for


def task_name(seed: str, provider: str, count: int) -> str:
    """The `count`-th task's own part of its id: 20 hexadecimal digits."""
    return hashlib.sha256(f"{seed}:{provider}:{count}".encode()).hexdigest()[:20]


def spelled(prefix: str | None, name: str) -> str:
    """The id of a task of that name: behind the prefix, or where there is none as a number of 18 digits.

    Such a number is beyond what a float holds exactly.
    """
    return f"{prefix}{name}" if prefix is not None else str(10**17 + int(name, 16) % (9 * 10**17))


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the books. Credits in millionths, times in scaled seconds since 1970.

    `outputs` were ordered, `missing` of them do not come; `refund` comes back if the task does not complete.
    """

    seq: int
    id: str
    provider: str
    account: str
    endpoint: str
    model: str
    kind: Kind
    prompt: str
    body: bytes
    idempotency_key: str | None
    details: Mapping[str, Any]
    extension: str
    outputs: int
    missing: int
    price: int
    refund: int
    outcome: Outcome
    created_at: float
    visible_at: float
    finishes_at: float
    refund_at: float
    review_for: float
    odd_status: str | None
    odd_until: float

    def stage(self, moment: float) -> Stage:
        if moment >= self.finishes_at:
            return Stage.COMPLETED if self.outcome == "completed" else Stage.FAILED
        if moment >= self.reviewed_from:
            return Stage.REVIEW
        return Stage.QUEUED if moment < self.begins_at else Stage.PROCESSING

    @property
    def reviewed_from(self) -> float:
        return self.finishes_at - self.review_for

    @property
    def begins_at(self) -> float:
        """When it leaves the queue (or, where it is probed first, when the probe is over)."""
        return self.created_at + QUEUED_SHARE * (self.reviewed_from - self.created_at)

    @property
    def came(self) -> tuple[int, ...]:
        """The numbers of the outputs that can be had once it is completed: which ones are missing is drawn."""
        lost = random.Random(self.id).sample(range(self.outputs), self.missing)
        return tuple(index for index in range(self.outputs) if index not in lost)

    @property
    def gives_back(self) -> int:
        """What is refunded, now or later, as it will end."""
        return 0 if self.outcome == "completed" else self.refund

    def oddity(self, moment: float) -> str | None:
        """The undocumented word it shows at `moment`, if any."""
        return self.odd_status if self.odd_status and moment < self.odd_until else None

    def used(self, moment: float) -> int:
        """What remains charged at `moment`, after the refund of a failure."""
        return self.price - (self.gives_back if moment >= self.refund_at else 0)
