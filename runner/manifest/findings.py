"""What was found wrong so far: collected, each once, told together."""

from __future__ import annotations

from runner.errors import Place, Problem
from runner.manifest.places import Path, Source, Spot
from runner.problems import refused

KEPT = 1_000  # problems; nobody reads more, and a table may have a million


class Findings:
    """Problems of one manifest and its tables. The same words about the same spot count once, for however many jobs.

    The one that makes it KEPT is the last: adding it raises the InputError that refuses the manifest.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._found: dict[tuple[str, str, Spot | Place], tuple[str, str | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def count(self) -> int:
        return len(self._found)

    def add(self, code: str, message: str, hint: str, where: Spot | Path) -> None:
        """Something wrong at a spot of the manifest. Its place is looked up when it is told."""
        self._keep((code, message, where if isinstance(where, Spot) else Spot(where)), (hint, None))

    def add_at(self, code: str, message: str, hint: str, place: Place, line: str | None) -> None:
        """Something wrong at a place of any file. `line` is the line there, None where it is not to be shown."""
        self._keep((code, message, place), (hint, line))

    def problems(self) -> list[Problem]:
        return [self._problem(*what, *rest) for what, rest in self._found.items()]

    def check(self) -> None:
        """Raises InputError with everything found, if anything was."""
        if self._found:
            raise refused(self._source.file, self.problems(), cut=len(self._found) >= KEPT)

    def _keep(self, what: tuple[str, str, Spot | Place], rest: tuple[str, str | None]) -> None:
        self._found.setdefault(what, rest)
        if len(self._found) >= KEPT:
            self.check()

    def _problem(self, code: str, message: str, where: Spot | Place, hint: str, line: str | None) -> Problem:
        if isinstance(where, Place):
            return Problem(code, message, hint, where, line)
        return self._source.quote(Problem(code, message, hint, self._source.place(where)))
