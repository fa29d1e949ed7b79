"""How times and credits stand in the database: whole microseconds since 1970 (UTC) and whole millionths, which both
engines compare and add exactly. Python sees aware datetimes and `Decimal`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import REAL, BigInteger, Float, Integer
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from runner.ledger import from_micros, to_micros

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)

# SQLite gives rowids only to INTEGER columns, and STRICT tables know no other; PostgreSQL needs 64 bits.
BigId = BigInteger().with_variant(Integer, "sqlite")
Real = Float().with_variant(REAL, "sqlite")


def ticks(moment: datetime | None) -> int | None:
    """A moment as microseconds since 1970. Raises ValueError for a naive one: it has no place in time."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("naive datetime")
    return (moment - EPOCH) // TICK


def moment(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + value * TICK


class UtcTime(TypeDecorator[datetime]):
    impl = BigId
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return ticks(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return moment(value)


class Credits(TypeDecorator[Decimal]):
    impl = BigId
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else from_micros(value)
