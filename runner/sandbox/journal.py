"""What was seen: every request, the densest minute of each account, leaked credentials, broken promises.

Requests are buffered and written at least every 50 ms, also while they wait for their answer: a SIGKILL of the sandbox
may cost their last moments, never a row of the ledger. Keys are kept as fingerprints; the keys themselves are only in
memory, to be recognised where they leak.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import unquote

from .books import Books
from .faults import Struck
from .pen import Pen
from .windows import WINDOW, Room, Window

FLUSH_EVERY = 0.05  # real seconds
KEY = re.compile(r"[!-~]{8,512}")
CREDENTIAL_HEADERS = (
    *("Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key"),
    *("Idempotency-Key", "X-Idempotency-Key"),
)
KEY_PARAMETERS = frozenset({"api_key", "apikey", "api-key", "key", "token", "access_token", "authorization"})


def fingerprint(key: str) -> str:
    """The name under which an account appears: the first 16 hexadecimal digits of its key's SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def bearer(headers: Mapping[str, str]) -> str | None:
    """The key of `Authorization: Bearer KEY`, where there is one that could be a key."""
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" and KEY.fullmatch(key) else None


@dataclass(slots=True)
class Entry:
    """One request on its way through. `status` stays None where no answer left. `fault_labels` as a JSON array."""

    seq: int
    at: float
    monotonic: float
    provider: str
    point: str
    method: str
    path: str
    account: str | None = None
    idempotency_key: str | None = None
    body_sha256: str | None = None
    bytes: int | None = None
    status: int | None = None
    fault: str | None = None
    fault_labels: str | None = None
    task_id: str | None = None

    def meets(self, struck: Struck) -> None:
        """What the request meets counts as fired."""
        self.fault, self.fault_labels = struck.name, json.dumps(struck.labels) if struck.labels else None


COLUMNS = tuple(each.name for each in fields(Entry))


class Journal:
    def __init__(self, pen: Pen, books: Books, now: float) -> None:
        self._pen, self._books = pen, books
        self._entries: dict[int, Entry] = {}  # what changed since the last flush
        self._seq: int = pen.read("SELECT coalesce(max(seq), 0) AS n FROM requests")[0]["n"]
        self._keys: set[str] = set()
        self._seen: dict[tuple[str, str], Window] = {}
        self._admitted: dict[tuple[str, str], Window] = {}
        self._crowded: set[tuple[str, str]] = set()
        self._recall(now)

    def _recall(self, now: float) -> None:
        """A restarted sandbox still knows the last minute."""
        sql = """SELECT at, provider, account, status, point FROM requests
                 WHERE at > ? AND account IS NOT NULL ORDER BY at"""
        for row in self._pen.read(sql, (now - WINDOW,)):
            if row["point"] != "download":
                self._window(self._seen, row["provider"], row["account"]).add(row["at"])
                if row["status"] != 429:
                    self._window(self._admitted, row["provider"], row["account"]).add(row["at"])

    @staticmethod
    def _window(windows: dict[tuple[str, str], Window], provider: str, account: str) -> Window:
        return windows.setdefault((provider, account), Window())

    # -- requests ---------------------------------------------------------------------------------------------------

    def arrive(self, now: float, provider: str, point: str, method: str, path: str, key: str | None) -> Entry:
        """A request has come in: it counts from this moment, whatever becomes of it."""
        self._seq += 1
        entry = self._entries[self._seq] = Entry(self._seq, now, time.monotonic(), provider, point, method, path)
        if key is not None:
            self._keys.add(key)
            entry.account = fingerprint(key)
            self._count(provider, entry.account, now)
        return entry

    def _count(self, provider: str, account: str, now: float) -> None:
        window = self._window(self._seen, provider, account)
        before = window.most
        window.add(now)
        if window.most > before:
            self._crowded.add((provider, account))

    def admit(self, provider: str, account: str, now: float, limit: int) -> Room:
        return self._window(self._admitted, provider, account).admit(now, limit)

    def done(self, entry: Entry, *, status: int | None, size: int | None = None) -> None:
        entry.status, entry.bytes = status, size
        self._entries[entry.seq] = entry

    def flush(self) -> None:
        entries, self._entries = self._entries, {}
        if entries:
            names, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
            rows = [tuple(getattr(entry, name) for name in COLUMNS) for entry in entries.values()]
            self._pen.write_many(f"INSERT OR REPLACE INTO requests ({names}) VALUES ({marks})", rows)  # noqa: S608
        for account in self._crowded:
            self._books.note_requests(*account, self._seen[account].most)
        self._crowded.clear()

    async def keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            self.flush()

    def requests(self, after: int = 0, limit: int = 1000, provider: str | None = None) -> list[sqlite3.Row]:
        self.flush()
        sql = "SELECT * FROM requests WHERE seq > ? AND (? IS NULL OR provider = ?) ORDER BY seq LIMIT ?"
        return self._pen.read(sql, (after, provider, provider, limit))

    def fired(self) -> dict[str, int]:
        """How often each fault has fired."""
        self.flush()
        rows = self._pen.read("SELECT fault, count(*) AS n FROM requests WHERE fault IS NOT NULL GROUP BY fault")
        totals: dict[str, int] = {}
        for row in rows:
            for name in row["fault"].split("+"):
                totals[name] = totals.get(name, 0) + row["n"]
        return totals

    def fired_at(self) -> dict[str, int]:
        """How often each fault has fired, by its label (`Fault.label`): what, where and how."""
        self.flush()
        sql = """SELECT label.value AS label, count(*) AS n FROM requests, json_each(requests.fault_labels) AS label
                 GROUP BY label.value ORDER BY label.value"""
        return {row["label"]: row["n"] for row in self._pen.read(sql)}

    def rate_limited(self) -> dict[tuple[str, str], int]:
        """How many requests of each account were answered with 429."""
        self.flush()
        sql = """SELECT provider, account, count(*) AS n FROM requests
                 WHERE status = 429 AND account IS NOT NULL GROUP BY provider, account"""
        return {(row["provider"], row["account"]): row["n"] for row in self._pen.read(sql)}

    def keys_with_several_requests(self) -> int:
        """How many idempotency keys were sent with more than one path or body, whatever became of the requests."""
        self.flush()
        sql = """SELECT count(*) AS n FROM (SELECT 1 FROM requests
                 WHERE idempotency_key IS NOT NULL AND body_sha256 IS NOT NULL
                 GROUP BY provider, account, idempotency_key HAVING count(DISTINCT path || ' ' || body_sha256) > 1)"""
        return int(self._pen.read(sql)[0]["n"])

    # -- leaks and broken promises ----------------------------------------------------------------------------------

    def remark(self, now: float, kind: str, provider: str, name: str, detail: str) -> None:
        """`kind` is "leak" or "violation". The detail never holds a key."""
        for key in self._keys:
            detail = detail.replace(key, "***")
        sql = "INSERT INTO remarks (at, kind, provider, name, detail) VALUES (?, ?, ?, ?, ?)"
        self._pen.write(sql, (now, kind, provider, name, detail))

    def remarks(self, kind: str) -> list[dict[str, Any]]:
        sql = "SELECT at, provider, name, detail FROM remarks WHERE kind = ? ORDER BY seq"
        return [dict(row) for row in self._pen.read(sql, (kind,))]

    def key_in_query(self, query: Iterable[tuple[str, str]]) -> str | None:
        """The name of the query parameter that carries a key, if one does."""
        for name, value in query:
            if name.lower() in KEY_PARAMETERS or value in self._keys:
                return name
        return None

    def leaked(self, headers: Mapping[str, str], target: str) -> list[str]:
        """Where a request to a place that must not see credentials carries some: header names, or "url"."""
        found = [name for name in CREDENTIAL_HEADERS if name in headers]
        spoken = {name: value for name, value in headers.items() if name not in found}
        found += [name for name, value in spoken.items() if any(key in value for key in self._keys)]
        return found + (["url"] if any(key in unquote(target) for key in self._keys) else [])
