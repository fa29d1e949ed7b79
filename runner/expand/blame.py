"""Where a fault comes from: the axis, the cell of a table, the job's own words, or `defaults`."""

from __future__ import annotations

from collections.abc import Sequence

from runner.expand.matrix import Combination, Matrix
from runner.expand.tables import Row
from runner.manifest import JobEntry, Manifest
from runner.manifest.findings import Findings
from runner.manifest.places import Path, Spot
from runner.manifest.templates import LONGEST_TEXT, Template, templates_in
from runner.problems import quoted
from runner.providers.description import Fault


class Blame:
    """Notes the problems of one job's cells at the places that cause them."""

    def __init__(self, manifest: Manifest, job: JobEntry, matrix: Matrix, found: Findings) -> None:
        self._manifest, self._job, self._matrix, self._found = manifest, job, matrix, found
        self._path: Path = ("jobs", job.name)

    def fault(self, fault: Fault, row: Row, combination: Combination) -> None:
        """Notes a fault of a request at what set the field it names ("duration", "references.images.0", "params.x")."""
        first, *rest = fault.field.split(".")
        name = rest.pop(0) if first == "references" and rest else first
        if name in combination:
            self._note_axis(fault, name, combination[name])
            return
        path, value = self._written(name, rest)
        for template in templates_in(value):
            if self._note_variable(fault, template, row, combination):
                return
        self._found.add(fault.code, fault.message, fault.hint, Spot(path, on_key=path == self._path))

    def missing(self, name: str, row: Row, combination: Combination) -> None:
        """Notes a variable that has no value in a cell: its row, or its combination, lacks it."""
        cell = ", ".join(f"{axis} {value}" for axis, value in combination.items())
        message = f"job {quoted(self._job.name)} needs a value for {quoted(name)} here" + (f" ({cell})" if cell else "")
        row.note(self._found, "B27", message, 'write "" where the text is meant to be empty')

    def too_long(self, row: Row) -> None:
        message = f"a text of job {quoted(self._job.name)} has more than {LONGEST_TEXT:,} characters here"
        row.note(self._found, "B39", message, "shorten what is put in")

    def _note_axis(self, fault: Fault, name: str, value: str) -> None:
        path = (*self._path, *self._matrix.source(name, value))
        self._found.add(fault.code, fault.message, fault.hint, path)

    def _note_variable(self, fault: Fault, template: Template, row: Row, combination: Combination) -> bool:
        """Notes the fault at the row's cell that is put in, or at the axis where its value is all there is."""
        for name in template.names:
            if name in row.values:
                row.note(self._found, fault.code, fault.message, fault.hint, name)
                return True
            if name == template.alone and name in combination:
                self._note_axis(fault, name, combination[name])
                return True
        return False

    def _written(self, name: str, rest: Sequence[str]) -> tuple[Path, object]:
        """Where a field was written, and what; the job itself where nothing was."""
        job = self._job
        if name in job.fields:
            return (*self._path, name), job.fields[name]
        if name in job.references:
            return self._reference(name, rest)
        if name == "params" and rest and rest[0] in job.params:
            return (*self._path, "params", rest[0]), job.params[rest[0]]
        if name == "references" and job.references:
            return (*self._path, "references"), None
        if name in self._manifest.defaults:
            return ("defaults", name), self._manifest.defaults[name]
        return self._path, None

    def _reference(self, role: str, rest: Sequence[str]) -> tuple[Path, object]:
        """One entry of a role where the fault tells which and they are a list, else all of it."""
        path: Path = (*self._path, "references", role)
        entries = self._job.references[role]
        if rest and self._manifest.source.holds((*path, int(rest[0]))):
            return (*path, int(rest[0])), entries[int(rest[0])].source
        return path, [entry.source for entry in entries]
