"""Files that clients register by address and that are reviewed before tasks may use them. Kept in the state.

Each registration is an asset of its own, also of an address that is known. How long a review takes is drawn from the
seed; its end is decided at once and only shown later. The name or the address may ask for an end, as prompts do:
`sandbox:refused` (moderation), `sandbox:failed` (the file cannot be used), `sandbox:slow`, `sandbox:stuck`.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from .pen import Pen
from .tasks import NEVER, SLOW_FACTOR

REVIEW = (2.0, 12.0)  # scaled seconds, least and most: "usually completed within seconds"
REFUSALS = {
    "sandbox:refused": "Rejected by content moderation: the file breaks the safety policy.",
    "sandbox:failed": "The file could not be downloaded or decoded.",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A row. Times in scaled seconds since 1970; `refusal` is why it fails, if it does."""

    id: int
    volc_id: str
    provider: str
    account: str
    kind: str
    url: str
    name: str | None
    created_at: float
    decided_at: float
    refusal: str | None

    def status(self, moment: float) -> str:
        if moment < self.decided_at:
            return "PROCESSING"
        return "FAILED" if self.refusal else "ACTIVE"


COLUMNS = tuple(each.name for each in fields(Asset))
SELECT = f"SELECT {', '.join(COLUMNS)} FROM assets"  # noqa: S608 (our own names)


@dataclass(frozen=True, slots=True)
class Assets:
    pen: Pen
    seed: str

    def add(self, provider: str, account: str, kind: str, url: str, name: str | None, now: float) -> Asset:
        """A new asset under review. `kind` is IMAGE, AUDIO or VIDEO."""
        count = self.pen.read("SELECT coalesce(max(id), 0) AS n FROM assets")[0]["n"] + 1
        digest = hashlib.sha256(f"{self.seed}:asset:{count}".encode()).hexdigest()[:12]
        volc_id = f"asset-{datetime.fromtimestamp(now, UTC):%Y%m%d}-{digest}"
        asked = f"{name or ''} {url}"
        refusal = next((reason for mark, reason in REFUSALS.items() if mark in asked), None)
        decided_at = now + self._review_seconds(volc_id, asked)
        asset = Asset(count, volc_id, provider, account, kind, url, name, now, decided_at, refusal)
        marks = ", ".join("?" * len(COLUMNS))
        values = tuple(getattr(asset, column) for column in COLUMNS)
        self.pen.write(f"INSERT INTO assets ({', '.join(COLUMNS)}) VALUES ({marks})", values)  # noqa: S608
        return asset

    def _review_seconds(self, volc_id: str, asked: str) -> float:
        if "sandbox:stuck" in asked:
            return NEVER
        drawn = random.Random(f"{self.seed}:{volc_id}").uniform(*REVIEW)
        return drawn * (SLOW_FACTOR if "sandbox:slow" in asked else 1.0)

    def find(self, provider: str, identity: str) -> Asset | None:
        """By its number or its `volc_id`."""
        number = int(identity) if identity.isdecimal() and len(identity) <= 15 else 0
        return _one(
            self.pen.read(f"{SELECT} WHERE provider = ? AND (id = ? OR volc_id = ?)", (provider, number, identity))
        )

    def page(
        self,
        provider: str,
        account: str,
        as_of: float,
        *,
        kind: str | None,
        status: str | None,
        before: int,
        limit: int,
    ) -> list[Asset]:
        """The account's assets that its list shows at `as_of`, newest first, with numbers below `before`."""
        state = "CASE WHEN decided_at > ? THEN 'PROCESSING' WHEN refusal IS NULL THEN 'ACTIVE' ELSE 'FAILED' END"
        sql = f"""{SELECT} WHERE provider = ? AND account = ? AND id < ? AND created_at <= ?
                  AND (? IS NULL OR kind = ?) AND (? IS NULL OR {state} = ?) ORDER BY id DESC LIMIT ?"""
        values = (provider, account, before, as_of, kind, kind, status, as_of, status, limit)
        return [_asset(row) for row in self.pen.read(sql, values)]

    def all(self) -> list[Asset]:
        return [_asset(row) for row in self.pen.read(f"{SELECT} ORDER BY id")]

    def uploads_by_url(self) -> dict[str, dict[str, int]]:
        """How many assets were made of each address, by provider."""
        counts: dict[str, dict[str, int]] = {}
        for row in self.pen.read("SELECT provider, url, count(*) AS n FROM assets GROUP BY provider, url"):
            counts.setdefault(row["provider"], {})[row["url"]] = row["n"]
        return counts


def _asset(row: sqlite3.Row) -> Asset:
    return Asset(**dict(row))


def _one(rows: list[sqlite3.Row]) -> Asset | None:
    return _asset(rows[0]) if rows else None
