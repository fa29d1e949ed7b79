"""`${…}`: which names have a value in a job, told before its rows are read."""

from __future__ import annotations

from collections.abc import Iterator

from runner.manifest import JobEntry, Manifest
from runner.manifest.findings import Findings
from runner.manifest.places import Path, Spot
from runner.manifest.templates import Template, templates_in
from runner.problems import quoted, suggestion

ALWAYS = ("batch", "job", "take")
WHO = ("provider", "model")
ONLY_IN_NAMES = ("ext", "slug", "key")


def check_variables(manifest: Manifest, job: JobEntry, columns: tuple[str, ...] | None, found: Findings) -> bool:
    """Whether every variable of a job's templates can have a value (B27), as far as that can be told beforehand.

    `columns` are those of its rows; None where only reading its table can tell, so that a name it may have is let pass.
    """
    before = found.count
    brought = dict.fromkeys((*job.matrix, *(name for entry in job.include for name in entry)))
    for column in columns or ():
        if column in brought:
            message = f"{quoted(column)} is a column and an axis of job {quoted(job.name)}"
            found.add("B10", message, "rename one of the two", ("jobs", job.name, "rows"))
    names = _Names(job.name, columns, tuple(brought), found)
    for path, value, built_in in _places(manifest, job):
        for template in templates_in(value):
            names.check(template, path, built_in)
    return found.count == before


def _places(manifest: Manifest, job: JobEntry) -> Iterator[tuple[Path, object, tuple[str, ...]]]:
    """Everything that may hold templates: where it stands, what it is, and the built-in variables it may use."""
    path: Path = ("jobs", job.name)
    for name, value in manifest.defaults.items():
        if name not in job.fields and name not in job.matrix:
            yield ("defaults", name), value, _known_to(name)
    for name, value in job.fields.items():
        yield (*path, name), value, _known_to(name)
    for role, entries in job.references.items():
        for place, entry in enumerate(entries):
            where = (*path, "references", role, place) if len(entries) > 1 else (*path, "references", role)
            yield where, entry.source, (*ALWAYS, *WHO)
    yield (*path, "params"), job.params, (*ALWAYS, *WHO)
    yield ("outputs", "dir"), manifest.outputs.dir, (*ALWAYS, *WHO, *ONLY_IN_NAMES)
    yield ("outputs", "name"), manifest.outputs.name, (*ALWAYS, *WHO, *ONLY_IN_NAMES)


def _known_to(field: str) -> tuple[str, ...]:
    """A provider is chosen first, then a model, then the rest."""
    if field == "provider":
        return ALWAYS
    return (*ALWAYS, "provider") if field == "model" else (*ALWAYS, *WHO)


class _Names:
    """The names one job knows."""

    def __init__(self, job: str, columns: tuple[str, ...] | None, brought: tuple[str, ...], found: Findings) -> None:
        self._job, self._found = job, found
        self._columns = columns
        self._own = (*(columns or ()), *brought)

    def check(self, template: Template, path: Path, built_in: tuple[str, ...]) -> None:
        for name in dict.fromkeys(template.names):
            if name in self._own and name in (*ALWAYS, *ONLY_IN_NAMES):
                hint = "rename the column"
                self._note(f"${{{name}}} is both a column and a built-in variable", hint, name, path)
            elif name not in self._own and name not in built_in:
                self._unknown(name, path, built_in)
        for word in dict.fromkeys(template.words):
            if word in self._own or word in built_in:
                hint = f"write ${{{word}}} for the variable, $${word} for the words"
                message = f"${word} has no braces"
                self._found.add("B27", message, hint, Spot(path, words=f"${word}"))

    def _unknown(self, name: str, path: Path, built_in: tuple[str, ...]) -> None:
        if name in ONLY_IN_NAMES:
            self._note(f"${{{name}}} is known only in outputs", "it follows from the finished request", name, path)
        elif name in WHO:
            self._note(f"${{{name}}} is not known yet here", "write it, or use a column or an axis", name, path)
        elif self._columns is not None:
            hint = suggestion(name, (*self._own, *built_in), "known here")
            self._note(f"${{{name}}} is unknown to job {quoted(self._job)}", hint, name, path)

    def _note(self, message: str, hint: str, name: str, path: Path) -> None:
        self._found.add("B27", message, hint, Spot(path, words="${" + name + "}"))
