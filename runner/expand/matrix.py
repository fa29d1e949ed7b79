"""The combinations of a job's axes, as a stream.

The rules are those of a GitHub Actions matrix:

1. The axes multiply; the last one changes fastest.
2. `exclude` takes out every combination that has all the values an entry names (an entry may name some of the axes).
3. `include` comes after that, entry by entry. An entry is added to every combination left over from 1 and 2 whose own
   axis values it does not change: it brings further variables, and may replace those an earlier entry brought. An entry
   that fits none of them is a combination of its own. Such a one is not added to by later entries.

Without axes, each `include` entry is a combination of its own; without those too, there is one empty combination.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

Combination = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Matrix:
    """`axes` in their order, with their values; `include` and `exclude` as written."""

    axes: Mapping[str, Sequence[str]]
    include: Sequence[Combination] = ()
    exclude: Sequence[Combination] = ()

    @property
    def at_most(self) -> int:
        """An upper bound of how many combinations there are, without going through them."""
        return (prod(len(values) for values in self.axes.values()) if self.axes else 1) + len(self.include)

    @property
    def steps(self) -> int:
        """An upper bound of how often an entry of `include` or `exclude` is compared with a combination."""
        entries = len(self.include) + len(self.exclude)
        return self.at_most * entries

    def combinations(self) -> Iterator[dict[str, str]]:
        """Every combination, axes first; nothing is kept, so it may be gone through again and again."""
        for original in self._originals():
            yield original | self._added_to(original)
        yield from (dict(entry) for entry in self.include if not self._fits_any(entry))

    def source(self, name: str, value: str) -> tuple[str | int, ...]:
        """Where in the job a variable of a combination comes from: its axis's value, or the `include` entry."""
        values = self.axes.get(name, ())
        if value in values:
            return ("matrix", name, values.index(value))
        return next((("include", at, name) for at, entry in enumerate(self.include) if entry.get(name) == value), ())

    def _originals(self) -> Iterator[dict[str, str]]:
        if not self.axes and self.include:
            return
        for values in product(*self.axes.values()):
            original = dict(zip(self.axes, values, strict=True))
            if not any(_within(entry, original) for entry in self.exclude):
                yield original

    def _added_to(self, original: Combination) -> dict[str, str]:
        added: dict[str, str] = {}
        for entry in self.include:
            if self._fits(entry, original):
                added |= entry
        return added

    def _fits(self, entry: Combination, original: Combination) -> bool:
        return all(original[axis] == value for axis, value in entry.items() if axis in self.axes)

    def _fits_any(self, entry: Combination) -> bool:
        """Whether some original combination can take the entry; only those with its values are looked through."""
        if any(entry[axis] not in values for axis, values in self.axes.items() if axis in entry):
            return False
        narrowed = {axis: [entry[axis]] if axis in entry else values for axis, values in self.axes.items()}
        return next(Matrix(narrowed, (), self.exclude)._originals(), None) is not None if self.axes else False


def _within(entry: Combination, combination: Combination) -> bool:
    return all(combination.get(axis) == value for axis, value in entry.items())
