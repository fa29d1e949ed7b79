"""A line of the report: one figure against its goal, with what it was made of. As a table, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The same thing measured in several rounds."""

    values: tuple[float, ...]
    unit: str = ""

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if len(self.values) == 1:
            return f"{_short(self.median)}{unit}"
        return f"{_short(self.median)}{unit} ({_short(min(self.values))}–{_short(max(self.values))})"

    def as_json(self) -> dict[str, Any]:
        return {"median": self.median, "least": min(self.values), "most": max(self.values), "unit": self.unit}


@dataclass(frozen=True, slots=True)
class Goal:
    """`at_least`: more is better. A goal that is only meant for the full size is not judged at others."""

    value: float
    at_least: bool
    judged: bool = True

    def met(self, value: float) -> bool | None:
        if not self.judged:
            return None
        return value >= self.value if self.at_least else value <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {_short(self.value)}"


def at_least(value: float) -> Goal:
    return Goal(value, at_least=True)


def at_most(value: float, *, judged: bool = True) -> Goal:
    return Goal(value, at_least=False, judged=judged)


@dataclass(frozen=True, slots=True)
class Line:
    """`figure` is its number in the list of goals (P1 … P10). `raw` is what the value was made of."""

    figure: str
    what: str
    value: Spread
    goal: Goal | None = None
    raw: Mapping[str, Spread] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.goal.met(self.value.median)

    def as_json(self) -> dict[str, Any]:
        goal = None if self.goal is None else {"at_least" if self.goal.at_least else "at_most": self.goal.value}
        raw = {name: spread.as_json() for name, spread in self.raw.items()}
        return {"figure": self.figure, "what": self.what, "value": self.value.as_json(), "goal": goal,
                "met": self.met, "raw": raw, "note": self.note}  # fmt: skip


def ratio(
    figure: str, what: str, one: Sequence[float], other: Sequence[float], goal: Goal | None,
    raw: Mapping[str, Spread], note: str = "",
) -> Line:  # fmt: skip
    """`one` against `other`, round by round: what disturbed a round disturbed both."""
    return Line(figure, what, Spread(tuple(a / b for a, b in zip(one, other, strict=True)), "×"), goal, raw, note)


def spreads(unit: str, measured: Mapping[str, Sequence[float]], *names: str) -> dict[str, Spread]:
    return {name: Spread(tuple(measured[name]), unit) for name in names or measured}


def table(lines: Sequence[Line]) -> str:
    """Figure, what, value, goal, met; and below each line the raw medians."""
    heads = ("", "figure", "value", "goal", "")
    rows = [(line.figure, line.what, str(line.value), str(line.goal or ""), _verdict(line)) for line in lines]
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    shown = [_row(heads, widths), _row(tuple("─" * width for width in widths), widths)]
    for line, row in zip(lines, rows, strict=True):
        shown.append(_row(row, widths))
        below = ", ".join(f"{name} {spread}" for name, spread in line.raw.items())
        shown += [f"{'':{widths[0]}}    {text}" for text in (below, line.note) if text]
    return "\n".join(shown)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _verdict(line: Line) -> str:
    return {True: "met", False: "NOT MET", None: "–"}[line.met]


def _short(value: float) -> str:
    if value and abs(value) < 0.1:
        return f"{value:.4f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"
