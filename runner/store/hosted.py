"""Local files that a provider hosts for an account: once per content."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from runner.store.tables import Hosted

hosted = Hosted.__table__  # type: ignore[attr-defined]


def url_of(connection: Connection, account: str, sha256: str) -> str | None:
    statement = select(hosted.c.url).where(hosted.c.account == account, hosted.c.sha256 == sha256)
    return connection.execute(statement).scalar()


def among(connection: Connection, account: str, hashes: Sequence[str]) -> set[str]:
    """Those of these contents (sha256, hex) that the account holds already."""
    statement = select(hosted.c.sha256).where(hosted.c.account == account, hosted.c.sha256.in_(hashes))
    return set(connection.execute(statement).scalars())


def remember(connection: Connection, now: datetime, account: str, sha256: str, url: str) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"account": account, "sha256": sha256, "url": url, "hosted_at": now}
    fresh = dialect.insert(hosted).values(row)
    connection.execute(
        fresh.on_conflict_do_update(index_elements=["account", "sha256"], set_={"url": url, "hosted_at": now})
    )
