"""The facts of a queue itself: its salt, its age, and whether it is a copy."""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from runner.errors import LocalError
from runner.store import engines
from runner.store.tables import Meta

meta = Meta.__table__  # type: ignore[attr-defined]
COPIED_AT = "copied_at"


def new_facts(connection: Connection, now: datetime, anchor: float) -> None:
    """Written once, when the queue is made. `anchor` (wall seconds since 1970) is where a faster clock starts from:
    every later process must count from the same moment, or due times would lie."""
    connection.execute(insert(meta), [
        {"name": "salt", "value": secrets.token_hex(16)}, {"name": "created_at", "value": now.isoformat()},
        {"name": "anchor", "value": repr(anchor)}])  # fmt: skip


def salt(connection: Connection) -> bytes:
    """The queue's own salt for key fingerprints."""
    return bytes.fromhex(_fact(connection, "salt"))


def created_at(connection: Connection) -> datetime:
    return datetime.fromisoformat(_fact(connection, "created_at"))


def anchor(connection: Connection) -> float:
    return float(_fact(connection, "anchor"))


def copied_at(connection: Connection) -> datetime | None:
    """When this queue was copied from another one that may have gone on since; None for one that is no backup, or was
    taken into use."""
    value = connection.execute(select(meta.c.value).where(meta.c.name == COPIED_AT)).scalar()
    return None if value is None else datetime.fromisoformat(value)


def take_into_use(connection: Connection) -> None:
    """From now on this is the queue itself."""
    connection.execute(delete(meta).where(meta.c.name == COPIED_AT))


def _fact(connection: Connection, name: str) -> str:
    value = connection.execute(select(meta.c.value).where(meta.c.name == name)).scalar()
    if value is None:
        raise LocalError(f"the queue is damaged: it has lost its own {name}", engines.DAMAGED)
    return str(value)
