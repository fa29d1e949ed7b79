"""A task of a pretend provider: what was ordered, what fate it was dealt, and what it looks like at a moment. Pure."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

Kind = Literal["video", "image"]
Outcome = Literal["completed", "failed", "moderated"]

IMAGE_SHARE = 0.25  # an image renders in a quarter of a video's time
QUEUED_SHARE = 0.15  # of the render time, before it begins
SPREAD = 0.35  # sigma of the lognormal render time
SLOW_FACTOR = 10.0
NEVER = 10 * 365 * 86400.0  # seconds: a task that is stuck ends in ten years


class Stage(StrEnum):
    """Where a task stands. Each dialect has words of its own for these."""

    QUEUED = "queued"
    PROCESSING = "processing"
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
    """What will become of a task. Times in scaled seconds; `refund` is the share of the price that comes back."""

    outcome: Outcome = "completed"
    refused: bool = False
    refund: Decimal = Decimal(1)
    refund_after: float = 0.0
    hidden_for: float = 0.0
    odd_status: str | None = None
    odd_for: float = 0.0
    slowness: float = 1.0
    stuck: bool = False
    no_output: bool = False
    price_factor: Decimal = Decimal(1)


def marked(fate: Fate, prompt: str) -> Fate:
    """The prompt may ask for a fate: `sandbox:moderated`, `sandbox:failed`, `sandbox:refused`, `sandbox:slow`."""
    if "sandbox:moderated" in prompt:
        fate = replace(fate, outcome="moderated")
    if "sandbox:failed" in prompt:
        fate = replace(fate, outcome="failed")
    if "sandbox:refused" in prompt:
        fate = replace(fate, refused=True)
    if "sandbox:slow" in prompt:
        fate = replace(fate, slowness=fate.slowness * SLOW_FACTOR)
    return fate


def render_seconds(seed: str, task_id: str, kind: Kind, median: float, fate: Fate) -> float:
    """Lognormal around `median` (an image: a quarter of it), a pure function of seed and task id."""
    if fate.stuck:
        return NEVER
    drawn = math.exp(SPREAD * random.Random(f"{seed}:{task_id}").gauss(0.0, 1.0))
    return median * (IMAGE_SHARE if kind == "image" else 1.0) * fate.slowness * drawn


def task_name(seed: str, provider: str, count: int) -> str:
    """The `count`-th task's own part of its id: 20 hexadecimal digits."""
    return hashlib.sha256(f"{seed}:{provider}:{count}".encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the books. Credits in millionths, times in scaled seconds since 1970."""

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
    price: int
    refund: int
    outcome: Outcome
    created_at: float
    visible_at: float
    finishes_at: float
    refund_at: float
    odd_status: str | None
    odd_until: float

    def stage(self, moment: float) -> Stage:
        if moment >= self.finishes_at:
            return Stage.COMPLETED if self.outcome == "completed" else Stage.FAILED
        return Stage.QUEUED if moment < self.begins_at else Stage.PROCESSING

    @property
    def begins_at(self) -> float:
        """When it leaves the queue (or, where it is probed first, when the probe is over)."""
        return self.created_at + QUEUED_SHARE * (self.finishes_at - self.created_at)

    def oddity(self, moment: float) -> str | None:
        """The undocumented word it shows at `moment`, if any."""
        return self.odd_status if self.odd_status and moment < self.odd_until else None

    def used(self, moment: float) -> int:
        """What remains charged at `moment`, after the refund of a failure."""
        return self.price - (self.refund if moment >= self.refund_at else 0)
