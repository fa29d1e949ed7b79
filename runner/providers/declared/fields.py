"""The fields of a described model: what a manifest's words become. No two of them may get into each other's way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from runner.manifest.findings import Findings
from runner.manifest.grammar import FIELD_NAMES
from runner.manifest.places import Path, Spot
from runner.problems import quoted, suggestion
from runner.providers.declared.shape import FieldShape, ModelShape, Submit
from runner.providers.description import Fault, Field
from runner.providers.values import Entry, read

COMMON = tuple(name for name in FIELD_NAMES if name not in ("provider", "model", "mode"))


@dataclass(frozen=True)
class Fields:
    """The fields of one model: `common` by the names of a manifest, `params` by the provider's own, and the native
    names that its modes send."""

    common: Mapping[str, Field]
    params: Mapping[str, Field]
    sent: tuple[str, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.common, *self.params, *self.sent)))

    def native(self, name: str) -> str | None:
        """The native name of what a description calls by its common or native name; None where there is none."""
        if name in self.common:
            return self.common[name].native
        return name if name in self.params or name in self.sent else None

    def value(self, name: str, written: Any, label: str) -> Any | Fault:
        """A value of a field, in the provider's spelling; what only a mode sends has no rules."""
        field = self.common.get(name) or self.params.get(name)
        return written if field is None else _value(field, name, written, label)


def read_fields(model: ModelShape, submit: Submit, path: Path, label: str, found: Findings) -> Fields:
    """Every field with its default checked by the field's own rules."""
    for name in model.fields:
        if name not in COMMON:
            hint = f"{suggestion(name, COMMON, 'fields')}; a name of the provider's own goes under params"
            found.add("B32", f"a manifest has no field {quoted(name)}", hint, Spot((*path, "fields", name), True))
    common = {n: _field(n, f, (*path, "fields", n), label, found) for n, f in model.fields.items()}
    params = {n: _field(n, f, (*path, "params", n), label, found) for n, f in model.params.items()}
    sent = tuple(dict.fromkeys(name for mode in model.modes for name in mode.sends))
    _check_twins(common, (*path, "fields"), found)
    _check_params(model, common, (*path, "params"), found)
    _check_neighbours(model, common, submit, path, found)
    return Fields(common, params, sent)


def _field(name: str, shape: FieldShape, path: Path, label: str, found: Findings) -> Field:
    field = Field(
        native=shape.native or name,
        kind=shape.kind,
        choices=shape.choices,
        low=shape.low,
        high=shape.high,
        required=shape.required,
        write=shape.write,
        translate=shape.translate,
        note=shape.note or "",
        assumed=shape.assumed,
    )
    if shape.default is None:
        return field
    default = _value(field, name, shape.default, label)
    if isinstance(default, Fault):
        found.add(default.code, f"default: {default.message}", default.hint, (*path, "default"))
        return field
    return replace(field, default=default)


def _value(field: Field, name: str, written: Any, label: str) -> Any | Fault:
    outcome = read(Entry.of(field, name), written, name, label)
    return outcome if isinstance(outcome, Fault) else outcome[0]


def _check_twins(common: Mapping[str, Field], path: Path, found: Findings) -> None:
    """Two common names may share one native field (size and resolution of an image): then they must agree about it."""
    first: dict[str, str] = {}
    for name, field in common.items():
        other = first.setdefault(field.native, name)
        if common[other] != field:
            message = f"{other} and {name} are one field of the provider, {quoted(field.native)}, described differently"
            found.add("B10", message, "describe both alike: &name and *name repeat a part", Spot((*path, name), True))


def _check_params(model: ModelShape, common: Mapping[str, Field], path: Path, found: Findings) -> None:
    taken = {field.native: name for name, field in common.items()}
    for name, shape in model.params.items():
        if shape.native is not None:
            hint = "leave native out: the key is the name"
            found.add("B32", "params go by the provider's own names", hint, Spot((*path, name, "native"), True))
        if name in taken:
            message = f"{quoted(name)} is the field {taken[name]} already"
            found.add("B10", message, "leave it out of params", Spot((*path, name), True))


def _check_neighbours(
    model: ModelShape, common: Mapping[str, Field], submit: Submit, path: Path, found: Findings
) -> None:
    """What stands beside the fields (the model, constants) must not be overwritten by one of them, nor a field by a
    reference."""
    if submit.nest is not None and submit.nest in (*submit.constants, submit.model_field):
        found.add("B10", f"{quoted(submit.nest)} is nest and stands beside it", "keep one", (*path, "submit"))
    beside = {*submit.constants, submit.model_field} if submit.nest is None else set()
    for native, spot in _natives(model, common, path):
        if native in beside:
            found.add("B10", f"{quoted(native)} is the model or a constant already", "keep one of the two", spot)
    fields = {field.native for field in common.values()}
    for native, spot in _slots(model, path):
        if native in fields:
            found.add("B10", f"{quoted(native)} is a field already", "keep one of the two", spot)


def _natives(model: ModelShape, common: Mapping[str, Field], path: Path) -> Iterable[tuple[str, Spot]]:
    yield from ((field.native, Spot((*path, "fields", name), on_key=True)) for name, field in common.items())
    yield from ((name, Spot((*path, "params", name), on_key=True)) for name in model.params)
    for place, mode in enumerate(model.modes):
        yield from ((name, Spot((*path, "modes", place, "sends", name), on_key=True)) for name in mode.sends)
    yield from _slots(model, path)


def _slots(model: ModelShape, path: Path) -> Iterable[tuple[str, Spot]]:
    for place, mode in enumerate(model.modes):
        for role, slot in mode.references.items():
            yield slot.native, Spot((*path, "modes", place, "references", role, "native"))
