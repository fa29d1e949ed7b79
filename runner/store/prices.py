"""Prices that no document gives: learned from what requests of the same shape were last charged."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from runner.store.tables import LearnedPrice

learned_prices = LearnedPrice.__table__  # type: ignore[attr-defined]


def learn(connection: Connection, now: datetime, provider: str, shape: str, credits: Decimal) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"provider": provider, "shape": shape, "credits": credits, "seen_at": now}
    seen = dialect.insert(learned_prices).values(row)
    news = {"credits": seen.excluded.credits, "seen_at": seen.excluded.seen_at}
    connection.execute(seen.on_conflict_do_update(index_elements=["provider", "shape"], set_=news))
