"""What a provider with idempotency keys remembers: the answer it gave under a key, and which keys are still at work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from .pen import Pen


@dataclass(frozen=True, slots=True)
class Keyed:
    """One submission under a key. Its fingerprint is of method, path and body: the same request in every byte."""

    provider: str
    account: str
    key: str
    fingerprint: str


def keyed(provider: str, account: str, key: str, method: str, path: str, body: bytes) -> Keyed:
    digest = hashlib.sha256(f"{method} {path}\n".encode() + body).hexdigest()
    return Keyed(provider, account, key, digest)


class Conflict(Exception):
    """The key is known with another request (`reused`), or its request is still being processed."""

    def __init__(self, reused: bool) -> None:
        super().__init__("reused with a different body" if reused else "still running")
        self.reused = reused


@dataclass(slots=True)
class KeyMemory:
    """`retention` in scaled seconds. Only answers are kept on disk: what was being processed when the sandbox died was
    never processed.
    """

    pen: Pen
    retention: float
    ignores: bool = False
    _busy: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def recall(self, asked: Keyed, now: float) -> tuple[int, Any] | None:
        """Status and payload given before to the same request; None where the key is new. Raises Conflict."""
        if self.ignores:
            return None
        busy = self._busy.get((asked.provider, asked.account, asked.key))
        if busy is not None:
            raise Conflict(reused=busy != asked.fingerprint)
        sql = "SELECT * FROM kept_answers WHERE provider = ? AND account = ? AND key = ? AND at > ?"
        rows = self.pen.read(sql, (asked.provider, asked.account, asked.key, now - self.retention))
        if not rows:
            return None
        if rows[0]["fingerprint"] != asked.fingerprint:
            raise Conflict(reused=True)
        return rows[0]["status"], json.loads(rows[0]["payload"])

    def keep(self, asked: Keyed, status: int, payload: Any, now: float) -> None:
        if not self.ignores:
            values = (asked.provider, asked.account, asked.key, asked.fingerprint, now, status, json.dumps(payload))
            self.pen.write("INSERT OR REPLACE INTO kept_answers VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def hold(self, asked: Keyed) -> None:
        """The request has come in and will be processed later."""
        self._busy[asked.provider, asked.account, asked.key] = asked.fingerprint

    def release(self, asked: Keyed) -> None:
        self._busy.pop((asked.provider, asked.account, asked.key), None)
