"""Prices as data: an amount, an amount by a number field (seconds, images), or a table by the values of fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

from runner.ledger import Price, as_text
from runner.manifest.findings import Findings
from runner.manifest.places import Path, Spot
from runner.problems import quoted, suggestion
from runner.providers.declared.fields import Fields
from runner.providers.declared.shape import PriceRow, PriceShape
from runner.providers.description import Fault, Values, no_price

LARGEST_FACTOR = 10**9  # seconds or images of one task: beyond it nobody knows a price
EXACT = Context(prec=100)  # 18 digits of credits times at most 40 of a field
NOT_SAID = "whether part of a credit is rounded up is not documented"
UNPRICED = "no price is documented: learned from what tasks are charged"
UNITS = {"duration": "a second", "count": "an image"}
SHOWN = 4  # rows of a table in its note

Pricing = Callable[[Values], Price | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a task costs where the request holds these values (native names): an amount, times a field's value."""

    when: Mapping[str, Any]
    credits: Decimal
    per: str | None = None

    def holds(self, values: Values) -> bool:
        return all(name in values and _same(values[name], value) for name, value in self.when.items())

    def cost(self, values: Values) -> Decimal | None:
        factor = 1 if self.per is None else values.get(self.per)
        if isinstance(factor, bool) or not isinstance(factor, int | Decimal) or not 0 <= factor <= LARGEST_FACTOR:
            return None
        return EXACT.multiply(self.credits, factor)


def read_price(shape: PriceShape | None, fields: Fields, path: Path, label: str, found: Findings) -> Pricing:
    """A function of the request's values; what it needs and no field holds is noted."""
    if shape is None:
        return no_price
    if shape.credits is not None:
        rules = [Rule({}, shape.credits, _factor(shape.per, fields, (*path, "per"), found))]
    else:
        rules = [_rule(row, fields, (*path, "table", n), label, found) for n, row in enumerate(shape.table)]
        _check_reach(rules, (*path, "table"), found)
    return _pricing(tuple(rules), shape.rounded_up)


def _pricing(rules: tuple[Rule, ...], rounded_up: bool | None) -> Pricing:
    def price(values: Values) -> Price | None:
        rule = next((rule for rule in rules if rule.holds(values)), None)
        cost = rule.cost(values) if rule is not None else None
        return None if cost is None or rule is None else _rounded(cost, rounded_up, multiplied=rule.per is not None)

    return price


def _rounded(cost: Decimal, rounded_up: bool | None, *, multiplied: bool) -> Price:
    whole = cost.to_integral_value(ROUND_CEILING)
    if rounded_up:
        return Price.exactly(whole)
    if rounded_up is None and multiplied and whole != cost:
        return Price(cost, whole, NOT_SAID)
    return Price.exactly(cost)


def _rule(row: PriceRow, fields: Fields, path: Path, label: str, found: Findings) -> Rule:
    when: dict[str, Any] = {}
    for name, written in row.when.items():
        native = fields.native(name)
        if native is None:
            hint = suggestion(name, fields.names, "its fields")
            found.add("B32", f"{label} has no field {quoted(name)}", hint, Spot((*path, "when", name), True))
            continue
        value = fields.value(name, written, label)
        if isinstance(value, Fault):
            found.add(value.code, value.message, value.hint, (*path, "when", name))
        else:
            when[native] = value
    return Rule(when, row.credits, _factor(row.per, fields, (*path, "per"), found))


def _factor(name: str | None, fields: Fields, path: Path, found: Findings) -> str | None:
    """The native name of the field that multiplies a price."""
    if name is None:
        return None
    field = fields.common.get(name) or fields.params.get(name)
    if field is not None and field.kind in ("integer", "number"):
        return field.native if name in fields.common else name
    numbers = [n for n, f in (*fields.common.items(), *fields.params.items()) if f.kind in ("integer", "number")]
    wrong = "is no field" if field is None else f"holds {field.kind}, no number"
    found.add("B32", f"{quoted(name)} {wrong}", suggestion(name, numbers, "fields with numbers"), path)
    return None


def _check_reach(rules: list[Rule], path: Path, found: Findings) -> None:
    """A row that an earlier one always forestalls says something that never counts."""
    for place, rule in enumerate(rules):
        earlier = next((n for n, other in enumerate(rules[:place]) if _covers(other.when, rule.when)), None)
        if earlier is not None:
            hint = "the first row that holds counts: put the narrower one before it, or leave it out"
            found.add("B10", f"this row never counts: row {earlier + 1} holds first", hint, (*path, place))


def _covers(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(name in other and _same(other[name], value) for name, value in one.items())


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def note_of(shape: PriceShape | None) -> str:
    """The price in words, for `runner providers`."""
    if shape is None:
        return UNPRICED
    if shape.credits is not None:
        text = _amount(shape.credits, shape.per)
    else:
        rows = [f"{_when(row)}: {_amount(row.credits, row.per)}" for row in shape.table[:SHOWN]]
        more = len(shape.table) - SHOWN
        text = "; ".join(rows) + (f"; and {more} more" if more > 0 else "")
    return text + (", rounded up" if shape.rounded_up else "")


def _amount(credits: Decimal, per: str | None) -> str:
    unit = "a task" if per is None else UNITS.get(per, f"times {per}")
    return f"{as_text(credits)} credits {unit}"


def _when(row: PriceRow) -> str:
    said = [f"{name} {str(value).lower() if isinstance(value, bool) else value}" for name, value in row.when.items()]
    return ", ".join(said)
