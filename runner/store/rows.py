"""Many rows in one statement: a crowd of *data* goes in as one JSON parameter, so one guarded statement moves them all.

One `execute` per row manages hundreds of transitions a second; one statement per crowd manages tens of thousands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    CursorResult,
    Executable,
    Float,
    FromClause,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.types import TypeEngine

INTEGER: TypeEngine[int] = BigInteger()
TEXT: TypeEngine[str] = Text()
REAL: TypeEngine[float] = Float()
Columns = Mapping[str, TypeEngine[Any]]
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def rowset(dialect: str, columns: Columns) -> FromClause:
    """A FROM clause over the JSON array bound as `rows`: one row per object, one column per name."""
    if dialect == "postgresql":
        typed = [column(name, kind) for name, kind in columns.items()]
        return (
            func.jsonb_to_recordset(cast(bindparam("rows", type_=TEXT), JSONB))
            .table_valued(*typed, name="v")
            .render_derived(with_types=True)
        )
    each = func.json_each(bindparam("rows", type_=TEXT)).table_valued("value")
    fields = [func.json_extract(each.c.value, f"$.{name}", type_=kind).label(name) for name, kind in columns.items()]
    return select(*fields).select_from(each).subquery("v")


def parameter(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows as the one parameter of a statement built on `rowset`."""
    storable_rows = [{name: storable(value) for name, value in row.items()} for row in rows]
    return {"rows": json.dumps(storable_rows, ensure_ascii=False)}


def storable(value: Any) -> Any:
    """A text that both engines can hold: PostgreSQL takes no NUL, and UTF-8 knows no half characters."""
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) else value


def run(connection: Connection, statement: Executable, rows: Iterable[Mapping[str, Any]]) -> CursorResult[Any]:
    return connection.execute(statement, parameter(rows))


def add(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Inserts many rows that all name the same columns."""
    if rows:
        connection.execute(insert(table), rows)
