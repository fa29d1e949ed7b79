"""Callbacks: a POST to the address an order named, when its task has ended, and again while it is not heard.

The book of them is kept in the state, so that a restarted sandbox still delivers. Only loopback addresses are called:
an order with another one is accepted, as the document has it, and its callback stays "elsewhere". Each delivery is a
request of the journal (point "callback", its path the whole address), and can meet the callback faults.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar

from .books import Books
from .clock import Clock
from .faults import Fault, Faults
from .journal import Journal
from .options import is_loopback
from .parameters import Invalid
from .pen import Pen, StateUnusable
from .tasks import Task

log = logging.getLogger(__name__)
RETRIES = (1.0, 5.0, 30.0)  # scaled seconds after each try that was not heard; then it is given up
PATIENCE = 10.0  # scaled seconds for the receiver's answer, but not below a real one
STEP = 0.02  # real seconds between two looks at what is due


def callback_url(name: str, value: Any, _: str) -> str:
    """A check of `parameters`: any http or https address."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        good = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise Invalid(f"{name} must be an http or https URL")
    return str(value)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The book. `waiting` is set while a callback is open.

    Outcomes: waiting, delivered, failed (given up), lost (by a fault), elsewhere (no loopback address, never called).
    """

    pen: Pen
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        if self.pen.read("SELECT 1 FROM callbacks WHERE next_at IS NOT NULL LIMIT 1"):
            self.waiting.set()

    def expect(self, task: Task, url: str) -> None:
        """The task's end is to be told to `url`."""
        here = is_loopback(urlsplit(url).hostname or "")
        sql = "INSERT INTO callbacks (task_id, provider, account, url, next_at, outcome) VALUES (?, ?, ?, ?, ?, ?)"
        next_at, outcome = (task.created_at, "waiting") if here else (None, "elsewhere")
        self.pen.write(sql, (task.id, task.provider, task.account, url, next_at, outcome))
        if here:
            self.waiting.set()

    def due(self, now: float) -> list[sqlite3.Row]:
        """Whose task has ended and whose next try is not in the future."""
        sql = """SELECT callbacks.* FROM callbacks JOIN tasks ON tasks.id = callbacks.task_id
                 WHERE next_at <= ? AND tasks.finishes_at <= ? ORDER BY next_at, tasks.seq LIMIT 1000"""
        found = self.pen.read(sql, (now, now))
        if not found and not self.pen.read("SELECT 1 FROM callbacks WHERE next_at IS NOT NULL LIMIT 1"):
            self.waiting.clear()
        return found

    def postpone(self, row: sqlite3.Row, until: float) -> None:
        self.pen.write("UPDATE callbacks SET next_at = ? WHERE task_id = ?", (until, row["task_id"]))

    def tried(self, row: sqlite3.Row, heard: bool, now: float) -> None:
        """A try was made: it was heard, or there is another one later, or it is given up."""
        again = None if heard or row["tries"] >= len(RETRIES) else now + RETRIES[row["tries"]]
        outcome = "delivered" if heard else "failed" if again is None else "waiting"
        self._end(row, outcome, again, 1)

    def lose(self, row: sqlite3.Row) -> None:
        self._end(row, "lost", None, 0)

    def _end(self, row: sqlite3.Row, outcome: str, again: float | None, tries: int) -> None:
        sql = "UPDATE callbacks SET outcome = ?, next_at = ?, tries = tries + ? WHERE task_id = ?"
        self.pen.write(sql, (outcome, again, tries, row["task_id"]))

    def all(self) -> list[dict[str, Any]]:
        sql = "SELECT task_id, provider, account, url, tries, outcome FROM callbacks ORDER BY task_id"
        return [dict(row) for row in self.pen.read(sql)]


@dataclass(slots=True)
class Messenger:
    """Delivers what is due. `tell` (of provider, task id, moment) makes the payload: what the status endpoint says."""

    callbacks: Callbacks
    books: Books
    journal: Journal
    faults: Faults
    clock: Clock
    tell: Callable[[str, str, float], Any]
    _going: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def keep_delivering(self) -> None:
        """Until cancelled, or until the state can no longer be written."""
        patience = ClientTimeout(total=max(1.0, self.clock.real(PATIENCE)))
        async with ClientSession(cookie_jar=DummyCookieJar(), timeout=patience) as http:
            try:
                while True:
                    await self.callbacks.waiting.wait()
                    self._send_out(http)
                    await asyncio.sleep(STEP)
            finally:
                for task in self._going.values():
                    task.cancel()
                await asyncio.gather(*self._going.values(), return_exceptions=True)

    def _send_out(self, http: ClientSession) -> None:
        now = self.clock.now()
        self.books.settle(now)
        for row in self.callbacks.due(now):
            task_id = row["task_id"]
            if task_id not in self._going:
                going = self._going[task_id] = asyncio.create_task(self._deliver(http, row))
                going.add_done_callback(partial(self._gone, task_id))

    def _gone(self, task_id: str, _: asyncio.Task[None]) -> None:
        del self._going[task_id]

    async def _deliver(self, http: ClientSession, row: sqlite3.Row) -> None:
        with suppress(StateUnusable):
            try:
                await self._try(http, row)
            except StateUnusable:
                raise
            except Exception as error:
                log.exception("the sandbox failed at the callback of %s", row["task_id"])
                self.journal.remark(self.clock.now(), "violation", row["provider"], "sandbox_bug", repr(error))
                self.callbacks.lose(row)

    async def _try(self, http: ClientSession, row: sqlite3.Row) -> None:
        """One try, as the fault has it."""
        entry = self.journal.arrive(self.clock.now(), row["provider"], "callback", "POST", row["url"], None)
        struck = self.faults.strike(row["provider"], "callback", entry.seq, now=entry.at)
        entry.meets(struck)
        entry.task_id, fault = row["task_id"], struck.wire
        if fault is not None and fault.name == "callback_lost":
            self.callbacks.lose(row)
        elif fault is not None and fault.name == "callback_late":
            self.callbacks.postpone(row, entry.at + fault.seconds())
        else:
            status = await self._post(http, row, fault)
            self.journal.done(entry, status=status)
            self.callbacks.tried(row, status is not None and 200 <= status < 300, self.clock.now())

    async def _post(self, http: ClientSession, row: sqlite3.Row, fault: Fault | None) -> int | None:
        """The status of the answer, None where there was none. Nothing leaves before its commit."""
        await self.callbacks.pen.settled()
        url, task_id = row["url"], row["task_id"]
        payload = self.tell(row["provider"], task_id, self.clock.now())
        if fault is not None and fault.name == "callback_forged":
            await self._once(http, url, forged(payload, task_id, fault.parameters["how"]))
        if fault is not None and fault.name == "callback_twice":
            await self._once(http, url, payload)
        return await self._once(http, url, payload)

    async def _once(self, http: ClientSession, url: str, payload: Any) -> int | None:
        body, headers = json.dumps(payload, ensure_ascii=False).encode(), {"Content-Type": "application/json"}
        try:
            async with http.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (ClientError, OSError, TimeoutError):
            return None


def forged(payload: Any, task_id: str, how: str) -> Any:
    """What an impostor would send: the same of a "task" that is nobody's, or another "result" of this one."""
    text = json.dumps(payload)
    if how == "task":
        return json.loads(text.replace(task_id, task_id[:-20] + "0" * 20))
    lie = {"COMPLETED": "FAILED", "FAILED": "COMPLETED", "completed": "failed", "failed": "completed"}
    files = [{"url": "https://impostor.example/0.mp4", "width": 1280, "height": 720}]
    status = lie.get(payload["status"], payload["status"])
    spoilt = {"output": files} if "output" in payload else {"result": files[0] if status == "completed" else None}
    return {**payload, "status": status, **spoilt, "error": None}
