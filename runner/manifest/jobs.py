"""The `jobs` and `defaults` of a manifest: fields, references, params, rows and the matrix, as written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runner.manifest.findings import Findings
from runner.manifest.grammar import FIELD_NAMES, FIELDS, JOB, LISTS, NOT_AXES, REFERENCES, ROLES
from runner.manifest.model import InlineRows, JobEntry, ReferenceEntry, TableFile, Value
from runner.manifest.places import Path, Spot
from runner.manifest.scalars import Bare, Kind
from runner.manifest.values import (
    check_keys,
    check_name,
    read_boolean,
    read_mapping,
    read_text,
    read_whole,
    refuse_number,
    shown,
)
from runner.problems import quoted, suggestion

TABLES = (".csv", ".jsonl", ".txt")
MOST_TAKES = 1_000_000
PRIORITIES = 1_000_000


def read_defaults(value: Any, found: Findings) -> dict[str, Value]:
    entry = read_mapping(value, ("defaults",), found, "fields for all jobs: {duration: 5}")
    check_keys(entry, FIELDS, ("defaults",), "defaults", found)
    return _read_fields(entry, ("defaults",), found)


def read_jobs(value: Any, found: Findings) -> dict[str, JobEntry]:
    _refuse_needs(value, found)
    jobs = {}
    for name, entry in read_mapping(value, ("jobs",), found, "jobs by name: {alley: {…}}").items():
        check_name(name, Spot(("jobs", name), on_key=True), found)
        jobs[name] = _read_job(name, entry, found)
    return jobs


def _refuse_needs(value: Any, found: Findings) -> None:
    """One error, however many jobs need another: what follows from it would only confuse."""
    jobs = value if isinstance(value, dict) else {}
    needing = [name for name, job in jobs.items() if isinstance(job, dict) and "needs" in job]
    if needing:
        others = f" (and in {len(needing) - 1} more)" if len(needing) > 1 else ""
        hint = "render the first jobs, then name their files under references in a second manifest"
        spot = Spot(("jobs", needing[0], "needs"), on_key=True)
        found.add("B32", f"needs is not supported by this version of runner{others}", hint, spot)


def _read_job(name: str, value: Any, found: Findings) -> JobEntry:
    path: Path = ("jobs", name)
    entry = read_mapping(value, path, found, "provider, model and prompt")
    check_keys(entry, JOB, path, f"job {quoted(name)}", found)
    job = JobEntry(
        name=name,
        fields=_read_fields(entry, path, found),
        references=_given(entry, "references", path, found, _read_references, {}),
        params=_given(entry, "params", path, found, _read_params, {}),
        rows=_given(entry, "rows", path, found, _read_rows, None),
        matrix=_given(entry, "matrix", path, found, _read_matrix, {}),
        include=_given(entry, "include", path, found, _read_combinations, ()),
        exclude=_given(entry, "exclude", path, found, _read_combinations, ()),
        takes=_given(entry, "takes", path, found, _read_takes, 1),
        priority=_given(entry, "priority", path, found, _read_priority, 0),
    )
    _check_axes(job, path, found)
    _check_exclude(job, path, found)
    return job


def _given(
    entry: Mapping[str, Any], key: str, path: Path, found: Findings, read: Callable[..., Any], otherwise: Any
) -> Any:
    if key not in entry:
        return otherwise
    value = read(entry[key], (*path, key), found)
    return otherwise if value is None else value


def _read_fields(entry: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Value]:
    fields = {}
    for name in FIELD_NAMES:
        if name in entry and (value := _read_field(entry[name], (*path, name), found)) is not None:
            fields[name] = value
    return fields


def _read_field(value: Any, path: Path, found: Findings) -> Value | None:
    """A field as written. What it may hold depends on the model, and is checked with it."""
    if isinstance(value, Bare) and value.value is not None:
        return value.value
    if isinstance(value, Bare) and value.kind is not Kind.NULL:
        refuse_number(value, path, found)
        return None
    return read_text(value, path, found)


def _read_takes(value: Any, path: Path, found: Findings) -> int | None:
    return read_whole(value, path, found, least=1, most=MOST_TAKES, code="B44")


def _read_priority(value: Any, path: Path, found: Findings) -> int | None:
    return read_whole(value, path, found, least=-PRIORITIES, most=PRIORITIES)


def _read_references(value: Any, path: Path, found: Findings) -> dict[str, tuple[ReferenceEntry, ...]]:
    entry = read_mapping(value, path, found, '{images: ["hero.png"]}')
    check_keys(entry, REFERENCES, path, "references", found)
    return {role: _read_role(entry[role], (*path, role), role, found) for role in ROLES if role in entry}


def _read_role(value: Any, path: Path, role: str, found: Findings) -> tuple[ReferenceEntry, ...]:
    if not isinstance(value, list):
        entry = _read_reference(value, path, found)
        return (entry,) if entry else ()
    if role not in LISTS:
        found.add("B40", f"{role} is one reference, not a list", "write it without brackets", path)
        return ()
    entries = [_read_reference(item, (*path, place), found) for place, item in enumerate(value)]
    return tuple(entry for entry in entries if entry)


def _read_reference(value: Any, path: Path, found: Findings) -> ReferenceEntry | None:
    if not isinstance(value, dict):
        source = read_text(value, path, found)
        return None if source is None else ReferenceEntry(source)
    unknown = [key for key in value if key not in ("source", "review")]
    for key in unknown:
        hint = suggestion(key, ("source", "review"), "allowed here")
        found.add("B32", f"a reference has no {quoted(key)}", hint, Spot((*path, key), on_key=True))
    if "source" not in value:
        found.add("B32", "this reference has no source", "write {source: hero.png, review: true}", path)
        return None
    source = read_text(value["source"], (*path, "source"), found)
    review = read_boolean(value["review"], (*path, "review"), found) if "review" in value else False
    return None if source is None else ReferenceEntry(source, bool(review))


def _read_params(value: Any, path: Path, found: Findings) -> dict[str, Any]:
    entry = read_mapping(value, path, found, "the provider's own names: {output_format: jpeg}")
    return {name: _read_param(item, (*path, name), found) for name, item in entry.items()}


def _read_param(value: Any, path: Path, found: Findings) -> Any:
    """JSON-able, with texts that hold variables as templates; numbers are int or Decimal."""
    if isinstance(value, dict):
        return {key: _read_param(item, (*path, key), found) for key, item in value.items()}
    if isinstance(value, list):
        return [_read_param(item, (*path, place), found) for place, item in enumerate(value)]
    if isinstance(value, Bare) and value.kind is Kind.NULL:
        return None
    return _read_field(value, path, found)


def _read_rows(value: Any, path: Path, found: Findings) -> TableFile | InlineRows | None:
    if isinstance(value, str):
        return _read_table(value, path, found)
    if not isinstance(value, list):
        found.add("B40", f"rows must be a file or a list of mappings, not {shown(value)}", "rows: shots.csv", path)
        return None
    if not value:
        found.add("B69", "rows is empty: no job", "write a row, or leave rows out", path)
    return InlineRows(tuple(_read_row(row, (*path, place), found) for place, row in enumerate(value)))


def _read_table(name: str, path: Path, found: Findings) -> TableFile | None:
    if not name.lower().endswith(TABLES):
        found.add("B40", f"{quoted(name)} is no table", f"rows reads {', '.join(TABLES)}, or a list of mappings", path)
        return None
    return TableFile(name)


def _read_row(value: Any, path: Path, found: Findings) -> dict[str, str]:
    row = read_mapping(value, path, found, "a row: {shot: s1, scene: a neon alley}")
    texts = {column: _text_of(cell, (*path, column), found) for column, cell in row.items() if not _is_null(cell)}
    return {column: text for column, text in texts.items() if text is not None}


def _is_null(value: Any) -> bool:
    return isinstance(value, Bare) and value.kind is Kind.NULL


def _text_of(value: Any, path: Path, found: Findings) -> str | None:
    """A scalar's text as it stands in the file: rows and axes are text."""
    if isinstance(value, Bare) and value.kind is not Kind.NULL:
        return value.text
    if isinstance(value, str):
        return value
    what = f"{path[-1]}" if isinstance(path[-1], str) else "this value"
    if isinstance(value, Bare):
        found.add("B20", f"{what} is read as nothing, it must be text", 'quote it, or write "" for an empty text', path)
    else:
        found.add("B40", f"{what} must be one value, not {shown(value)}", "write a text or a number", path)
    return None


def _read_matrix(value: Any, path: Path, found: Findings) -> dict[str, tuple[str, ...]]:
    matrix = {}
    for axis, values in read_mapping(value, path, found, "axes: {style: [film noir, watercolor]}").items():
        spot = Spot((*path, axis), on_key=True)
        if axis in ("include", "exclude"):
            found.add("B32", f"{axis} stands beside matrix, not in it", f"move {axis} one level out", spot)
        elif axis in NOT_AXES:
            found.add("B32", f"an axis cannot be called {axis}", "choose another name", spot)
        else:
            matrix[axis] = _read_axis(values, (*path, axis), found)
    return matrix


def _read_axis(value: Any, path: Path, found: Findings) -> tuple[str, ...]:
    if not isinstance(value, list):
        found.add("B40", f"{path[-1]} must be a list, not {shown(value)}", "write its values in brackets: [a, b]", path)
        return ()
    if not value:
        found.add("B69", f"{path[-1]} is empty: no job", "write a value, or leave the axis out", path)
    texts: dict[str, int] = {}
    for place, item in enumerate(value):
        text = _literal(item, (*path, place), found)
        if text in texts:
            hint = "for two of each write takes: 2"
            found.add("B71", f"{quoted(text)} stands twice in {path[-1]}", hint, (*path, place))
        elif text is not None:
            texts[text] = place
    return tuple(texts)


def _literal(value: Any, path: Path, found: Findings) -> str | None:
    """A value of an axis: text in which nothing varies, since what is put in is never read again."""
    text = _text_of(value, path, found)
    if text is not None and "${" in text:
        found.add("B27", "an axis has plain values, no variables", "write ${…} in the field that uses the axis", path)
    return text


def _read_combinations(value: Any, path: Path, found: Findings) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list):
        found.add("B40", f"{path[-1]} must be a list of mappings, not {shown(value)}", "- {style: watercolor}", path)
        return ()
    return tuple(_read_combination(item, (*path, place), found) for place, item in enumerate(value))


def _read_combination(value: Any, path: Path, found: Findings) -> dict[str, str]:
    entry = read_mapping(value, path, found, "a combination: {style: watercolor}")
    if value == {}:
        found.add("B40", "this combination is empty", "write {axis: value}", path)
    for axis in set(entry) & NOT_AXES:
        spot = Spot((*path, axis), on_key=True)
        found.add("B32", f"an axis cannot be called {axis}", "choose another name", spot)
    texts = {axis: _literal(item, (*path, axis), found) for axis, item in entry.items()}
    return {axis: text for axis, text in texts.items() if text is not None}


def _check_axes(job: JobEntry, path: Path, found: Findings) -> None:
    """What sets a field must do so alone."""
    for axis in job.matrix:
        if axis in job.fields or axis in job.references:
            spot = Spot((*path, "matrix", axis), on_key=True)
            found.add("B10", f"{axis} is set by the job and by an axis", "keep one of the two", spot)
    if isinstance(job.rows, InlineRows):
        columns = {column for row in job.rows.rows for column in row}
        for axis in columns & {*job.matrix, *(name for entry in job.include for name in entry)}:
            found.add("B10", f"{quoted(axis)} is a column and an axis", "rename one of the two", (*path, "rows"))


def _check_exclude(job: JobEntry, path: Path, found: Findings) -> None:
    """An entry that cannot match leaves in what was to be left out, and that costs money: so it is an error."""
    known = {axis: frozenset(values) for axis, values in job.matrix.items()}
    for place, entry in enumerate(job.exclude):
        for axis, value in entry.items():
            where: Path = (*path, "exclude", place, axis)
            if axis not in known:
                hint = suggestion(axis, tuple(job.matrix), "its axes")
                found.add("B32", f"the matrix has no axis {quoted(axis)}", hint, Spot(where, on_key=True))
            elif value not in known[axis]:
                hint = suggestion(value, job.matrix[axis], "its values")
                found.add("B32", f"{axis} has no value {quoted(value)}", hint, where)
