"""A pretend provider that is nothing but data: its tasks, its keys, its balance, and what goes wrong next.

It speaks the dialects of seedance2ai (which honours keys) and happyhorse (which does not, and lists its videos but not
its images), as far as a story needs them. Its own books are the truth about money.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from runner.client.asking import SUBMIT_SECONDS
from runner.errors import NoAnswer, NotSent
from runner.exchange import Reply

WINDOW = 3600.0  # seconds for which a key is remembered, from the answer on
PRICES = {"/api/v1/generate": Decimal(38), "/api/v1/generate-image": Decimal(5), "/api/v1/video/seedance": Decimal(40)}
FULL = Decimal(10_000)


class Mishap(StrEnum):
    """What may happen to an order."""

    UNSENT = "the connection is refused"
    LOST_REQUEST = "the request gets lost"
    LOST_ANSWER = "it is taken, and the answer gets lost"
    LATE = "it is taken ten seconds after our timeout"
    LATER = "it is taken five minutes after our timeout"
    LATEST = "it is taken half an hour after our timeout"
    BROKEN = "a 500, and nothing is taken"
    BROKEN_PAID = "a 500, and it is taken"
    RATE = "a 429"
    REFUSED = "a 400"


LATE = {Mishap.LATE: 10.0, Mishap.LATER: 300.0, Mishap.LATEST: 1800.0}


class End(StrEnum):
    """How a task may end."""

    COMPLETED = "it is completed"
    REFUNDED = "it fails, and is refunded at once"
    LATE_REFUND = "it fails, and its refund is to come"
    KEPT = "it fails, and stays charged"
    NO_CREDITS = "it fails for want of credits, and costs nothing"


@dataclass
class Task:
    """`used` is what remains charged; `told` all that was ever said of that after its end."""

    id: str
    name: str
    key: str | None
    path: str
    price: Decimal
    at: float
    end: End | None = None
    used: Decimal = Decimal(0)
    refund_due: bool = False
    told: list[Decimal] = field(default_factory=list)


@dataclass
class Kept:
    """What is remembered of a key: its request, and its answer once there is one."""

    path: str
    content: bytes
    answer: Reply | None = None
    until: float = float("inf")


@dataclass
class Pretend:
    """`now` and `wait` read and move the clock. `mishap` is what the next order meets; `posted` counts those that
    arrived; `crimes` are what no runner may ever ask for."""

    keyed: bool
    now: Callable[[], float]
    wait: Callable[[float], None]
    balance: Decimal = FULL
    away_until: float = 0.0
    posted: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    mishap: Mishap | None = None
    crimes: list[str] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)
    _keys: dict[str, Kept] = field(default_factory=dict)
    _first: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    _late: list[tuple[float, str, bytes, str | None]] = field(default_factory=list)

    # -- orders

    def let_out(self) -> None:
        """Whether a connection stands at all. Raises NotSent."""
        if self.now() < self.away_until:
            raise NotSent("nobody is there")
        if self.mishap is Mishap.UNSENT:
            self.mishap = None
            raise NotSent("refused")

    def receive(self, path: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        """An order arrives, or not. Raises NoAnswer where its sender learns nothing."""
        self._arrive_late()
        self.posted += 1
        self.asked_at.append(self.now())
        key = headers.get("Idempotency-Key")
        self._compare(key, path, content)
        mishap, self.mishap = self.mishap, None
        match mishap:
            case None | Mishap.UNSENT:
                return self._order(path, content, key)
            case Mishap.RATE:
                return _complaint(429, "rate_limited" if self.keyed else "rate_limit_exceeded")
            case Mishap.REFUSED:
                return self._refuse(key, path, content)
            case Mishap.BROKEN:
                return _complaint(500, "internal_error")
            case Mishap.BROKEN_PAID:
                self._order(path, content, key)
                return _complaint(500, "internal_error")
            case Mishap.LOST_ANSWER:
                self._order(path, content, key)
            case Mishap.LATE | Mishap.LATER | Mishap.LATEST:
                self._take_late(path, content, key, SUBMIT_SECONDS + LATE[mishap])
                self.wait(SUBMIT_SECONDS)
        raise NoAnswer("no answer")

    def _compare(self, key: str | None, path: str, content: bytes) -> None:
        if self.keyed != (key is not None):
            self.crimes.append("a key where none is honoured, or none where one is")
        if key is not None and self._first.setdefault(key, (path, content)) != (path, content):
            self.crimes.append(f"one key, two orders: {key}")

    def _take_late(self, path: str, content: bytes, key: str | None, seconds: float) -> None:
        if key is not None and self._known(key) is not None:
            return
        if key is not None:
            self._keys[key] = Kept(path, content)  # "still running"
        self._late.append((self.now() + seconds, path, content, key))

    def _arrive_late(self) -> None:
        due = sorted(late for late in self._late if late[0] <= self.now())
        self._late = [late for late in self._late if late not in due]
        for at, path, content, key in due:
            if key is not None:
                del self._keys[key]
            self._order(path, content, key, at)

    def _known(self, key: str) -> Kept | None:
        kept = self._keys.get(key)
        if kept is not None and kept.until < self.now():
            del self._keys[key]
            return None
        return kept

    def _order(self, path: str, content: bytes, key: str | None, at: float | None = None) -> Reply:
        kept = self._known(key) if key is not None else None
        if kept is not None:
            same = (kept.path, kept.content) == (path, content)
            return kept.answer if same and kept.answer else _complaint(409, "idempotency_conflict")
        answer = self._take(path, content, key, self.now() if at is None else at)
        return self._keep(key, path, content, answer)

    def _refuse(self, key: str | None, path: str, content: bytes) -> Reply:
        answer = _complaint(400, "invalid_request" if self.keyed else "validation_error")
        return answer if key is None or self._known(key) else self._keep(key, path, content, answer)

    def _keep(self, key: str | None, path: str, content: bytes, answer: Reply) -> Reply:
        if key is not None:
            self._keys[key] = Kept(path, content, answer, self.now() + WINDOW)
        return answer

    def _take(self, path: str, content: bytes, key: str | None, at: float) -> Reply:
        price = PRICES[path]
        if self.balance < price:
            return _complaint(402 if self.keyed else 403, "insufficient_credits")
        self.balance -= price
        name = json.loads(content)["prompt"].removeprefix("a picture of a ")
        task = Task(f"t{len(self.tasks) + 1}", name, key, path, price, at, used=price)
        self.tasks[task.id] = task
        return _reply({"id": task.id, "status": "queued"} if self.keyed else {"data": {"id": task.id}, "error": None})

    # -- questions

    def ask(self, method: str, path: str, **more: Any) -> Reply:
        """Raises NoAnswer while nobody is there."""
        assert method == "GET"
        self._arrive_late()
        if self.now() < self.away_until:
            raise NoAnswer("nobody is there")
        self.asked_at.append(self.now())
        match path.removeprefix("/api/v1/").split("/"):
            case ["credits"]:
                return _reply({"data": {"credits": self.balance}, "error": None})
            case ["videos"]:
                return _reply({"data": {"videos": self._listed(), "has_more": False}, "error": None})
            case ["videos" | "tasks", task_id] if task_id in self.tasks:
                told = self._told(self.tasks[task_id])
                return _reply(told if self.keyed else {"data": told, "error": None})
            case _:
                return _complaint(404, "not_found")

    def _listed(self) -> list[dict[str, Any]]:
        """Newest first; no word about money, so that whoever wants to know asks."""
        return [
            {"id": task.id, "prompt": f"a picture of a {task.name}", "status": _status(task),
             "created_at": datetime.fromtimestamp(task.at, UTC).isoformat()}
            for task in reversed(self.tasks.values()) if task.path != "/api/v1/generate-image"
        ]  # fmt: skip

    def _told(self, task: Task) -> dict[str, Any]:
        told: dict[str, Any] = {"id": task.id, "status": _status(task)}
        if task.end is None:
            return told
        task.told.append(task.used)
        told["credits_used"] = task.used
        if task.end is End.COMPLETED:
            url = {("image_url" if task.path.endswith("image") else "video_url"): f"https://cdn.example/{task.id}"}
            return told | ({"output": url} if self.keyed else url)
        code = "insufficient_credits" if task.end is End.NO_CREDITS else "oven_broken"
        return told | {"error": {"code": code, "message": "it did not work"}}

    # -- what happens there by itself

    def happen(self) -> None:
        """What was on its way has arrived, if it is time."""
        self._arrive_late()

    def end(self, task: Task, how: End) -> None:
        task.end = how
        if how in (End.REFUNDED, End.NO_CREDITS):
            self.refund(task)
        task.refund_due = how is End.LATE_REFUND

    def refund(self, task: Task) -> None:
        self.balance += task.used
        task.used, task.refund_due = Decimal(0), False

    def going(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.end is None]


def _status(task: Task) -> str:
    return "processing" if task.end is None else "completed" if task.end is End.COMPLETED else "failed"


def _reply(data: Any) -> Reply:
    return Reply(200, {}, data)


def _complaint(status: int, code: str) -> Reply:
    return Reply(status, {}, {"error": {"code": code, "message": code.replace("_", " ")}})
