"""Where a fault comes from: the axis, the cell of a table, the job's own words, or `defaults`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runner.expand.keys import Pinned
from runner.expand.matrix import Combination, Matrix
from runner.expand.tables import Row
from runner.manifest import JobEntry, Manifest
from runner.manifest.findings import Findings
from runner.manifest.grammar import BUILT_IN, ROLES
from runner.manifest.places import Path, Spot
from runner.manifest.templates import LONGEST_TEXT, Template, templates_in
from runner.problems import quoted, suggestion
from runner.providers.description import Fault
from runner.providers.values import check_url

ONLY_IN_NAMES = ("ext", "slug", "key")
NOT_YET_KNOWN = {"provider": ("provider", "model"), "model": ("model",)}  # while a field is being read


class Blame:
    """Notes the problems of one job's cells at the places that cause them."""

    def __init__(self, manifest: Manifest, job: JobEntry, matrix: Matrix, found: Findings) -> None:
        self._manifest, self._job, self._matrix, self._found = manifest, job, matrix, found
        self._path: Path = ("jobs", job.name)

    def fault(self, fault: Fault, row: Row, combination: Combination, pinned: Sequence[Pinned] = ()) -> None:
        """Notes a fault of a request at what set the field it names."""
        name, _, rest = fault.field.partition(".")
        name = rest if name == "references" and rest else name
        if name in combination:
            path = (*self._path, *self._matrix.source(name, combination[name]))
            self._found.add(fault.code, fault.message, fault.hint, path)
            return
        path, value = self._written(name, rest, fault.code, pinned)
        for template in templates_in(value):
            if self._blamed_variable(fault, template, row, combination):
                return
        self._found.add(fault.code, fault.message, fault.hint, Spot(path, on_key=path == self._path))

    def missing(self, name: str, row: Row) -> None:
        """Notes a variable that has no value in a cell: its row, or its combination, lacks it."""
        hint = 'write "" where the text is meant to be empty'
        row.note(self._found, "B27", f"{_braced(name)} has no value here", hint)

    def too_long(self, row: Row) -> None:
        message = f"a text of job {quoted(self._job.name)} has more than {LONGEST_TEXT:,} characters here"
        row.note(self._found, "B39", message, "shorten what is put in")

    def _blamed_variable(self, fault: Fault, template: Template, row: Row, combination: Combination) -> bool:
        for name in template.names:
            if name in row.values:
                row.note(self._found, fault.code, fault.message, fault.hint, name)
                return True
            if name == template.alone and name in combination:
                path = (*self._path, *self._matrix.source(name, combination[name]))
                self._found.add(fault.code, fault.message, fault.hint, path)
                return True
        return False

    def _written(self, name: str, rest: str, code: str, pinned: Sequence[Pinned]) -> tuple[Path, object]:
        """Where a field was written, and what; the job itself where nothing was."""
        if name in self._job.fields:
            return (*self._path, name), self._job.fields[name]
        if name in self._job.references:
            return self._reference(name, code, pinned)
        if name == "params" and rest in self._job.params:
            return (*self._path, "params", rest), self._job.params[rest]
        if name == "references" and self._job.references:
            return (*self._path, "references"), None
        if name in self._manifest.defaults:
            return ("defaults", name), self._manifest.defaults[name]
        return self._path, None

    def _reference(self, role: str, code: str, pinned: Sequence[Pinned]) -> tuple[Path, object]:
        """The one entry of a role that is at fault, where that can be told."""
        path: Path = (*self._path, "references", role)
        entries = self._job.references[role]
        given = [p.reference for p in pinned if p.reference.role == role and p.reference.path is None]
        wrong = [at for at, r in enumerate(given) if (found := check_url(r.url, "", ("https",))) and found.code == code]
        if len(given) == len(entries) > 1 and wrong:
            return (*path, wrong[0]), entries[wrong[0]].source
        return path, [entry.source for entry in entries]


def check_variables(
    manifest: Manifest, job: JobEntry, columns: tuple[str, ...] | None, found: Findings
) -> bool:
    """Whether every variable of a job's templates can have a value (B27), as far as that can be told beforehand.

    `columns` are those of its rows, None where each row may have its own and the file is yet to be read.
    """
    before = len(found.problems())
    brought = {*job.matrix, *(name for entry in job.include for name in entry)}
    _check_names(job, columns, brought, found)
    known = (*(columns or ()), *sorted(brought), "batch", "job", "take", "provider", "model")
    for path, value, field in _places(manifest, job):
        for template in templates_in(value):
            _check_template(template, path, field, known, columns, found)
    return len(found.problems()) == before


def _check_names(job: JobEntry, columns: Iterable[str] | None, brought: set[str], found: Findings) -> None:
    for column in columns or ():
        if column in brought:
            message = f"{quoted(column)} is a column and an axis"
            found.add("B10", message, "rename one of the two", ("jobs", job.name, "rows"))
