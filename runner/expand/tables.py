"""Rows: a .csv, .jsonl or .txt file, or a list in the manifest, as a stream of texts by column, with their places.

A table is read twice, once to check and once to enqueue; its sha256 is taken on the way both times. Nothing of it is
kept: a million rows cost the memory of one.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import InputError, Place
from runner.expand.lines import Broken, Lines
from runner.manifest import InlineRows, JobEntry, Manifest
from runner.manifest.findings import Findings
from runner.manifest.places import Spot
from runner.problems import CONTROL, nearest, quoted
from runner.references import locate

DELIMITERS = ",;\t"
MOST_COLUMNS = 1_000
RELATIVE = "the path is relative to the manifest's folder"

Extent = tuple[int, int]  # of a cell in its line: first character and one past the last, from 0


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its texts by column, and where it stands: a spot of the manifest, or a place in a file.

    `raw` is what stands in the file there; `find` tells where in a line a column's cell is.
    """

    values: Mapping[str, str]
    where: Spot | Place
    raw: str = ""
    find: Callable[[str, str], Extent | None] = lambda _line, _column: None

    def note(self, found: Findings, code: str, message: str, hint: str, column: str | None = None) -> None:
        """Notes a problem of this row, or of one of its cells."""
        if isinstance(self.where, Spot):
            spot = Spot((*self.where.path, column)) if column is not None else self.where
            found.add(code, message, hint, spot)
            return
        line = (self.raw.splitlines() or [""])[0]
        start, end = (self.find(line, column) if column is not None else None) or (0, len(line))
        place = Place(self.where.file, self.where.line, start + 1, max(start + 2, end + 1))
        found.add_at(code, message, hint, place, line)


class Rows:
    """The rows of one job, to be gone through once. `columns` are all there are; None where only reading can tell.

    `sha256` is the file's, once its last row was taken; None for rows that are in no file. A row that breaks its table
    ends it, with a note in `found`.
    """

    def __init__(
        self, columns: tuple[str, ...] | None, rows: Iterator[Row], found: Findings, file: _File | None = None
    ) -> None:
        self.columns = columns
        self.sha256: str | None = None
        self._rows, self._found, self._file = rows, found, file

    def close(self) -> None:
        """For rows that are not gone through."""
        if self._file is not None:
            self._file.lines.close()

    def __iter__(self) -> Iterator[Row]:
        if self._file is None:
            yield from self._rows
            return
        try:
            yield from self._rows
            self.sha256 = self._file.lines.sha256
        except Broken as broken:
            self._file.note(broken, self._found)
        finally:
            self._file.lines.close()


@dataclass(frozen=True, slots=True)
class _File:
    """A table's open file: its name as messages show it, and its lines."""

    name: str
    lines: Lines

    def row(self, values: Mapping[str, str], raw: str) -> Row:
        return Row(values, Place(self.name, self.lines.number, 1), raw)

    def note(self, broken: Broken, found: Findings) -> None:
        place = Place(self.name, broken.line, broken.column)
        found.add_at(broken.code, broken.message, broken.hint, place, broken.text)


def rows_of(manifest: Manifest, job: JobEntry, found: Findings) -> Rows | None:
    """The rows of a job, ready to be read; None, and a note, where its table cannot be."""
    if job.rows is None:
        return Rows((), iter([Row({}, Spot(("jobs", job.name), on_key=True))]), found)
    if isinstance(job.rows, InlineRows):
        columns = tuple(dict.fromkeys(column for row in job.rows.rows for column in row))
        return Rows(columns, _inline(job.name, job.rows), found)
    try:
        path = locate(job.rows.name, manifest.folder)
        lines = Lines(path)
    except InputError as error:
        found.add(error.problems[0].code, error.message, error.hint, ("jobs", job.name, "rows"))
        return None
    except Broken as broken:
        hint = broken.hint or _similar(manifest.folder / job.rows.name, os.path.basename(manifest.source.file))
        found.add(broken.code, f"{quoted(job.rows.name)} {broken.message}", hint, ("jobs", job.name, "rows"))
        return None
    return _table(path, _File(_shown(manifest, job.rows.name), lines), found)


def _inline(job: str, inline: InlineRows) -> Iterator[Row]:
    for number, values in enumerate(inline.rows):
        yield Row(values, Spot(("jobs", job, "rows", number)))


def _shown(manifest: Manifest, name: str) -> str:
    """The table's path as the person at the terminal would write it."""
    return os.path.join(os.path.dirname(manifest.source.file), name)


def _similar(path: Path, itself: str) -> str:
    """The manifest `itself` is no table, however alike their names are."""
    try:
        near = nearest(path.name, sorted(entry.name for entry in os.scandir(path.parent) if entry.name != itself))
    except OSError:
        return RELATIVE
    return f"did you mean {quoted(near)}?" if near else RELATIVE


def _table(path: Path, file: _File, found: Findings) -> Rows | None:
    kind = path.suffix.lower()
    if kind == ".txt":
        return Rows(("prompt",), _prompts(file), found, file)
    if kind == ".jsonl":
        return Rows(None, _objects(file, found), found, file)
    try:
        return _csv(file, found)
    except Broken as broken:
        file.note(broken, found)
        file.lines.close()
        return None


def _prompts(file: _File) -> Iterator[Row]:
    """One prompt a line, as `${prompt}`; blank lines are skipped."""
    for line in file.lines:
        if text := line.strip():
            yield file.row({"prompt": text}, line)


def _objects(file: _File, found: Findings) -> Iterator[Row]:
    """JSON, one object a line. Values are text as written; null is no value."""
    for line in file.lines:
        if line.strip():
            values: dict[str, str] = {}
            row = Row(values, Place(file.name, file.lines.number, 1), line, _named_cell)
            before = found.count
            for column, value in _pairs(line, row, found):
                _take(values, column, value, row, found)
            if found.count == before:
                yield row


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it stands, so that a key that comes twice is seen."""


def _pairs(line: str, row: Row, found: Findings) -> _Pairs:
    try:
        value = json.loads(line, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_Pairs)
    except (json.JSONDecodeError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
        row.note(found, "B68", f"this is not a row of JSON: {why}", "write one object a line")
        return _Pairs()
    if isinstance(value, _Pairs):
        return value
    row.note(found, "B68", "a row must be an object", 'write {"column": "text"}')
    return _Pairs()


def _take(values: dict[str, str], column: str, value: Any, row: Row, found: Findings) -> None:
    if column in values:
        row.note(found, "B10", f"{quoted(column)} stands here twice", "keep one of the two", column)
    elif isinstance(value, list):
        row.note(found, "B40", f"{quoted(column)} must be one value", "write a text or a number", column)
    elif value is not None:
        text = value if isinstance(value, str) else "true" if value else "false"
        if "\\u" in row.raw and (sign := CONTROL.search(text)):
            row.note(found, "B26", f"U+{ord(sign[0]):04X} is not allowed in text", "remove the escape", column)
        values[column] = text


def _named_cell(line: str, column: str) -> Extent | None:
    name = json.dumps(column, ensure_ascii=False)
    at = line.find(name)
    return (at, at + len(name)) if at >= 0 else None


def _csv(file: _File, found: Findings) -> Rows:
    """Comma, semicolon or tab, whichever the header has most of. Raises Broken for a header that cannot be used."""
    lines = iter(file.lines)
    header = next((line for line in lines if line.strip()), "")
    if not header:
        raise Broken(
            "B68", "the table is empty: its first line must name the columns", "for example: shot,scene,motion"
        )
    delimiter = max(DELIMITERS, key=lambda sign: len(_split(header, sign)))
    columns = tuple(name.strip() for name in _split(header, delimiter))
    _check_header(columns, header, delimiter, file.lines.number)
    return Rows(columns, _cells(file, lines, columns, delimiter, found), found, file)


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []


def _check_header(columns: tuple[str, ...], header: str, delimiter: str, number: int) -> None:
    text = header.rstrip("\r\n")
    if not columns:
        raise Broken("B68", "the header has a stray quote", "mend the quotes", number, 1, text)
    if len(columns) > MOST_COLUMNS:
        message = f"the header names {len(columns):,} columns; {MOST_COLUMNS:,} are the most"
        raise Broken("B68", message, "keep those that the manifest uses", number)
    for index, name in enumerate(columns):
        column = (_numbered_cell(text, index, delimiter) or (0, 0))[0] + 1
        if not name:
            raise Broken("B68", f"column {index + 1} has no name", "name it, or remove it", number, column, text)
        if name in columns[:index]:
            raise Broken("B68", f"two columns are called {quoted(name)}", "rename one of the two", number, column, text)


def _cells(
    file: _File, lines: Iterator[str], columns: tuple[str, ...], delimiter: str, found: Findings
) -> Iterator[Row]:
    """A row of a table may run over several lines; its place is its first one."""
    raw: list[str] = []
    first = file.lines.number + 1
    find = _finder(columns, delimiter)
    reader = csv.reader(_kept(lines, raw), delimiter=delimiter, strict=True)
    while True:
        raw.clear()
        first = file.lines.number + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            text = raw[0].rstrip("\r\n") if raw else ""
            raise Broken("B68", f"this row cannot be read: {error}", "mend its quotes", first, 1, text) from None
        if cells is None:
            return
        if cells:
            row = Row(dict(zip(columns, cells, strict=False)), Place(file.name, first, 1), "".join(raw), find)
            if len(cells) == len(columns):
                yield row
            else:
                _note_ragged(row, len(cells), len(columns), found)


def _kept(lines: Iterator[str], raw: list[str]) -> Iterator[str]:
    for line in lines:
        raw.append(line)
        yield line


def _note_ragged(row: Row, cells: int, columns: int, found: Findings) -> None:
    hint = "quote a cell that contains the delimiter" if cells > columns else "add the missing cells"
    row.note(found, "B68", f"this row has {cells} cells, the header has {columns}", hint)


def _finder(columns: tuple[str, ...], delimiter: str) -> Callable[[str, str], Extent | None]:
    def find(line: str, column: str) -> Extent | None:
        return _numbered_cell(line, columns.index(column), delimiter)

    return find


def _numbered_cell(line: str, index: int, delimiter: str) -> Extent | None:
    """Where the n-th cell (from 0) of a line of CSV begins and ends; None where it is not on that line."""
    start, in_quotes = 0, False
    for at, sign in enumerate([*line, delimiter]):
        if sign == '"':
            in_quotes = not in_quotes
        elif sign == delimiter and not in_quotes:
            if index == 0:
                return start, at
            index, start = index - 1, at + 1
    return None
