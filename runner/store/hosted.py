"""References that a provider holds for an account: local files it hosts, and assets it has reviewed. Once per content.

Neither is ever charged. Still each is asked for once: whoever `begin`s holds the content until it is known what became
of it, or until the asking is so old that whoever did it must have died.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from runner.store.columns import EPOCH
from runner.store.rows import storable
from runner.store.tables import Hosted

hosted = Hosted.__table__  # type: ignore[attr-defined]
STALE = timedelta(minutes=1)  # twice a request's deadline: nobody is asking any more
REFUSED_FOR = timedelta(hours=1)  # then it may be asked for anew


class Begun(StrEnum):
    """Whether this caller may ask for a content now, and whether somebody has asked before without being heard."""

    FIRST = "first"
    AGAIN = "again"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a content: see the table."""

    url: str | None
    asset_id: str | None
    refused: str | None
    asked_at: datetime


def held(connection: Connection, now: datetime, account: str, content: str) -> Held | None:
    """None where nothing is known, or only a refusal that is too old to hold."""
    row = connection.execute(select(hosted).where(_is(account, content))).first()
    if row is None or (row.refused is not None and row.asked_at <= now - REFUSED_FOR):
        return None
    return Held(row.url, row.asset_id, row.refused, row.asked_at)


def among(connection: Connection, account: str, contents: Sequence[str]) -> set[str]:
    """Those of these contents (sha256, hex) that the account holds already."""
    statement = select(hosted.c.content).where(
        hosted.c.account == account, hosted.c.content.in_(contents), hosted.c.url.is_not(None))  # fmt: skip
    return set(connection.execute(statement).scalars())


def begin(connection: Connection, now: datetime, account: str, content: str) -> Begun:
    """Takes a content that nobody holds or asks for."""
    row = {"account": account, "content": content, "asked_at": now}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    fresh = dialect.insert(hosted).values(row).on_conflict_do_nothing().returning(hosted.c.content)
    if connection.execute(fresh).first() is not None:
        return Begun.FIRST
    open_question = hosted.c.url.is_(None) & hosted.c.asset_id.is_(None) & hosted.c.refused.is_(None)
    stale = open_question & (hosted.c.asked_at <= now - STALE)
    forgiven = hosted.c.refused.is_not(None) & (hosted.c.asked_at <= now - REFUSED_FOR)
    again = update(hosted).where(_is(account, content), stale | forgiven)
    values = {"asked_at": now, "asset_id": None, "refused": None}
    taken = connection.execute(again.values(values).returning(hosted.c.content)).first()
    return Begun.AGAIN if taken is not None else Begun.ELSEWHERE


def remember(connection: Connection, account: str, content: str, url: str) -> None:
    """It is there: orders may name it."""
    _set(connection, account, content, url=storable(url))


def under_review(connection: Connection, account: str, content: str, asset_id: str) -> None:
    _set(connection, account, content, asset_id=asset_id)


def refuse(connection: Connection, now: datetime, account: str, content: str, why: str) -> None:
    _set(connection, account, content, refused=why, asked_at=now)


def unheard(connection: Connection, account: str, content: str) -> None:
    """The answer got lost: whoever asks next looks first whether the provider has it."""
    unknown = hosted.c.url.is_(None), hosted.c.asset_id.is_(None)
    connection.execute(update(hosted).where(_is(account, content), *unknown).values(asked_at=EPOCH))


def lost(connection: Connection, account: str, content: str) -> None:
    """The provider does not know its asset any more: it is looked for, and registered anew."""
    _set(connection, account, content, asset_id=None, asked_at=EPOCH)


def doubt(connection: Connection, account: str, contents: Sequence[str]) -> None:
    """Whatever is held under these contents may be of no use any more: it is looked for, or handed over, once more."""
    mine = and_(hosted.c.account == account, hosted.c.content.in_(contents))
    values = {"url": None, "asset_id": None, "refused": None, "asked_at": EPOCH}
    connection.execute(update(hosted).where(mine).values(values))


def forget(connection: Connection, account: str, content: str) -> None:
    """It was not taken, and the provider said so. (An asset whose review goes on stays known.)"""
    unknown = hosted.c.url.is_(None), hosted.c.asset_id.is_(None)
    connection.execute(delete(hosted).where(_is(account, content), *unknown))


def _is(account: str, content: str) -> ColumnElement[bool]:
    return and_(hosted.c.account == account, hosted.c.content == content)


def _set(connection: Connection, account: str, content: str, **values: object) -> None:
    connection.execute(update(hosted).where(_is(account, content)).values(values))
