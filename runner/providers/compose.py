"""From a job's common fields to the exact bytes that are sent, with price and faults: by the tables of `description`
alone.

The same function serves plan (is it right, what will it cost) and submission (what is sent), so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring
from types import MappingProxyType
from typing import Any

from runner.ledger import Price
from runner.problems import nearest, quoted
from runner.providers import registry
from runner.providers.description import Body, Fault, Field, Model, Provider, Reference, Slot
from runner.providers.modes import arrange, mode_named
from runner.providers.values import Entry, as_written, exact, listed, read

NOTHING: Mapping[str, Any] = MappingProxyType({})
MODE = "mode"


@dataclass(frozen=True, slots=True)
class Composed:
    """A request as it would be sent.

    `content` is `body` as canonical JSON: compact, keys sorted, UTF-8, numbers exact. `fields` are the common fields
    after defaults, in the provider's spelling; `dropped` the defaults this model does not know or allow. `slots` are
    those of the mode, by role. `shape` begins with the model and tells apart requests of different price or duration.
    With any `faults`, `content` is empty and `price` None: nothing may be sent.
    """

    model: str
    path: str
    body: Body
    content: bytes
    price: Price | None
    shape: str
    fields: Mapping[str, Any]
    dropped: tuple[str, ...]
    faults: tuple[Fault, ...]
    extension: str
    slots: Mapping[str, Slot]


def compose(
    provider: Provider,
    model: str,
    fields: Mapping[str, Any],
    references: Sequence[Reference] = (),
    params: Mapping[str, Any] = NOTHING,
    defaults: Mapping[str, Any] = NOTHING,
) -> Composed:
    """Translate one job. Never raises for what a person wrote: that is in `faults`.

    `fields` are the job's own common fields (all but provider, model, references and params), `defaults` the
    manifest's: one that the model does not know or allow, alone or in this combination, is dropped. `params` go by
    native names and are merged last; unknown ones are faults where the document lists its fields.
    """
    found = provider.model(model)
    if found is None:
        return _refused(model, unknown_model(provider, model))
    if found.unavailable:
        hint = f"models that render: {', '.join(m.name for m in provider.models if not m.unavailable)}"
        why = f"{provider.name} cannot render {model}: {found.unavailable}"
        return _refused(model, Fault("B35", "model", why, hint))
    table = _table(provider, found)
    barred: frozenset[str] = frozenset()
    while True:
        draft = _Draft(table, barred)
        draft.take(fields)
        draft.assume(defaults)
        draft.arrange(references)
        draft.override(params)
        draft.complete()
        culprits = draft.culprits()
        if not culprits:
            return draft.finished(model)
        barred |= culprits


def stamped(composed: Composed, marks: Mapping[str, str]) -> bytes:
    """The bytes of one order: the request with the marks that tell it from all others, by native name, where `params`
    did not set them already."""
    return canonical({**marks, **composed.body}).encode()


def unknown_model(provider: Provider, model: str) -> Fault:
    """B35, or B36 when another provider has a model of that name."""
    homes = [name for name, other in registry().items() if (its := other.model(model)) and not its.unavailable]
    if homes:
        have = "have" if homes[1:] else "has"
        where = f"{provider.name} has no model {quoted(model)}; {' and '.join(homes)} {have}"
        return Fault("B36", "model", where, f"write provider: {homes[0]}, or choose another model")
    names = [name for m in provider.models for name in (m.name, *m.aliases)]
    return Fault("B35", "model", f"{provider.name} has no model {quoted(model)}", _meant(model, names, "its models"))


def canonical(value: Any) -> str:
    """JSON with one spelling for one value: keys sorted, no spaces, numbers as exact as they are."""
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join([f"{encode_basestring(key)}:{canonical(value[key])}" for key in sorted(value)]) + "}"
    return "[" + ",".join([canonical(item) for item in value]) + "]"


@dataclass(frozen=True, slots=True)
class _Table:
    """One model's tables, ready for use: worked out once, used for every job."""

    model: Model
    label: str
    schemes: tuple[str, ...]
    reviews: bool
    common: Mapping[str, Entry]
    native: Mapping[str, Entry]
    defaults: dict[str, Any]
    written: Mapping[str, Field]
    required: tuple[Entry, ...]


@lru_cache(maxsize=256)
def _table(provider: Provider, model: Model) -> _Table:
    kept_as: dict[str, str] = {}
    for name, field in model.fields.items():
        kept_as.setdefault(field.native, name)
    common = {name: Entry.of(field, kept_as[field.native]) for name, field in model.fields.items()}
    extra = {name: Entry.of(field, "") for name, field in model.params.items()}
    native = extra | {entry.field.native: entry for entry in common.values()}
    return _Table(
        model=model,
        label=f"{provider.name} {model.name}",
        schemes=provider.url_schemes if model.takes_assets else ("https",),
        reviews=provider.registering is not None and model.takes_assets,
        common=common,
        native=native,
        defaults={name: e.field.default for name, e in native.items() if e.field.default is not None},
        written={name: e.field for name, e in native.items() if e.field.write != "plain"},
        required=tuple(e for e in native.values() if e.field.required),
    )


class _Draft:
    """A request in the making. `origin` remembers where each native value was written, so that faults point there."""

    def __init__(self, table: _Table, barred: frozenset[str]) -> None:
        self.table = table
        self.barred = barred
        self.values: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}
        self.origin: dict[str, str] = {}
        self.assumed: set[str] = set()
        self.dropped: list[str] = []
        self.faults: list[Fault] = []
        self.slots: Mapping[str, Slot] = NOTHING
        self.mode: str | None = None
        self.mode_written = False

    def take(self, fields: Mapping[str, Any]) -> None:
        """The job's own fields: whatever is wrong with one is a fault."""
        for name, written in fields.items():
            if name == MODE:
                self._take_mode(written)
                continue
            entry = self.table.common.get(name)
            if entry is None:
                self.faults.append(self._unknown(name))
                continue
            outcome = read(entry, written, name, self.table.label)
            if isinstance(outcome, Fault):
                self.faults.append(outcome)
                self.origin.setdefault(entry.field.native, name)
            elif self.values.get(entry.field.native, outcome[0]) != outcome[0]:
                self.faults.append(self._twice(entry, name))
            else:
                self._keep(entry, name, *outcome)

    def assume(self, defaults: Mapping[str, Any]) -> None:
        """The manifest's defaults, where the job says nothing: whatever is wrong with one drops it."""
        for name, written in defaults.items():
            if name == MODE:
                self._assume_mode(written)
                continue
            entry = self.table.common.get(name)
            if entry is not None and entry.field.native in self.origin:
                continue
            outcome = None if entry is None or name in self.barred else read(entry, written, name, self.table.label)
            if entry is None or outcome is None or isinstance(outcome, Fault):
                self.dropped.append(name)
            else:
                self._keep(entry, name, *outcome)
                self.assumed.add(name)

    def arrange(self, references: Sequence[Reference]) -> None:
        """References and mode become native fields; a default mode that does not suit them is dropped."""
        table = self.table
        placed, slots, faults = arrange(table.model, references, self.mode, table.schemes, table.label)
        if faults and MODE in self.assumed:
            self._drop_mode()
            placed, slots, faults = arrange(table.model, references, None, table.schemes, table.label)
        self.slots = slots
        self.faults += faults
        if not table.reviews:
            self.faults += [self._not_reviewed(reference) for reference in references if reference.review]
        self.values |= placed
        self.origin |= dict.fromkeys(placed, "references")

    def override(self, params: Mapping[str, Any]) -> None:
        """The provider's own names, merged last."""
        for name, written in params.items():
            where = f"params.{name}"
            entry = self.table.native.get(name)
            if entry is None:
                outcome = self._passed_on(name, written, where)
            else:
                outcome = read(entry, written, where, self.table.label)
            if isinstance(outcome, Fault):
                self.faults.append(outcome)
            else:
                self.values[name] = outcome[0]
            self.origin[name] = where

    def complete(self) -> None:
        """What only the whole can tell: missing fields, then forbidden combinations."""
        for entry in self.table.required:
            if entry.field.native not in self.origin:
                self.faults.append(self._missing(entry))
        if not self.faults:
            self.faults += [self._located(fault) for fault in self.table.model.check(self.table.defaults | self.values)]

    def culprits(self) -> set[str]:
        """The defaults whose dropping would mend a fault."""
        return self.assumed.intersection([fault.field for fault in self.faults]) if self.faults else set()

    def finished(self, model: str) -> Composed:
        described = self.table.model
        whole = self.table.defaults | self.values
        body = self._body(model)
        content = b"" if self.faults else self._encoded(body)
        return Composed(
            model=described.name,
            path=described.path,
            body=body,
            content=content,
            price=None if self.faults else described.price(whole),
            shape=self._shape(whole),
            fields=self.kept,
            dropped=tuple(self.dropped),
            faults=tuple(self.faults),
            extension=self._extension(whole),
            slots=self.slots,
        )

    def _shape(self, whole: Mapping[str, Any]) -> str:
        model = self.table.model
        return " ".join([model.name, *[f"{name}={_told(whole[name])}" for name in model.shape if name in whole]])

    def _keep(self, entry: Entry, name: str, value: Any, kept: Any) -> None:
        self.values[entry.field.native] = value
        self.kept[entry.common] = kept
        self.origin[entry.field.native] = name

    def _take_mode(self, written: Any) -> None:
        self.mode_written = True
        self.mode = mode_named(self.table.model, written)
        if self.mode is None:
            self.faults.append(self._no_mode(written))
        else:
            self.kept[MODE] = self.mode

    def _assume_mode(self, written: Any) -> None:
        if self.mode_written:
            return
        self.mode = None if MODE in self.barred else mode_named(self.table.model, written)
        if self.mode is None:
            self.dropped.append(MODE)
        else:
            self.kept[MODE] = self.mode
            self.assumed.add(MODE)

    def _drop_mode(self) -> None:
        self.mode = None
        del self.kept[MODE]
        self.assumed.discard(MODE)
        self.dropped.append(MODE)

    def _body(self, model: str) -> Body:
        table = self.table
        inner = dict(self.values)
        for native in table.written.keys() & inner.keys():
            inner[native] = as_written(table.written[native], inner[native])
        outer = dict(table.model.constants)
        if table.model.model_field:
            outer[table.model.model_field] = model
        return outer | ({table.model.nest: inner} if table.model.nest else inner)

    def _encoded(self, body: Body) -> bytes:
        try:
            return canonical(body).encode()
        except UnicodeEncodeError:
            message = "a text holds half a character (a lone surrogate)"
            self.faults.append(Fault("B26", "prompt", message, "mend the text"))
            return b""

    def _extension(self, whole: Mapping[str, Any]) -> str:
        entry = self.table.common.get("format")
        chosen = whole.get(entry.field.native) if entry is not None else None
        return self.table.model.extension if chosen is None else str(chosen).replace("jpeg", "jpg")

    def _unknown(self, name: str) -> Fault:
        names = [*self.table.common, *([MODE] if any(m.name for m in self.table.model.modes) else [])]
        hint = _meant(name, names, "its fields")
        if name in self.table.native:
            hint = f"write it under params: {{{name}: …}}"
        return Fault("B32", name, f"{self.table.label} has no {quoted(name)}", hint)

    def _twice(self, entry: Entry, name: str) -> Fault:
        other = self.origin[entry.field.native]
        return Fault(entry.code, name, f"{name} and {other} are one field of {self.table.label}", "write one of them")

    def _not_reviewed(self, reference: Reference) -> Fault:
        message = f"{self.table.label} reviews no references"
        return Fault("B32", f"references.{reference.role}", message, "leave review out")

    def _no_mode(self, written: Any) -> Fault:
        names = [m.name for m in self.table.model.modes if m.name]
        if not names:
            return Fault("B32", MODE, f"{self.table.label} has no modes", "leave it out")
        return Fault("B42", MODE, f"{self.table.label} has no mode {quoted(written)}", f"its modes: {', '.join(names)}")

    def _passed_on(self, name: str, written: Any, where: str) -> tuple[Any, Any] | Fault:
        model = self.table.model
        if name == model.model_field or name in model.constants:
            return Fault("B32", where, f"{where} is set by the model", "choose it with model:")
        if not model.open_params:
            hint = _meant(name, self.table.native, "its own names")
            return Fault("B32", where, f"{self.table.label} documents no {quoted(name)}", hint)
        try:
            return exact(written), None
        except ValueError as problem:
            return Fault("B24", where, f"{where} {problem}")

    def _missing(self, entry: Entry) -> Fault:
        name = entry.common or f"params.{entry.field.native}"
        if name == "prompt":
            return Fault("B37", name, f"{self.table.label} needs a prompt")
        why = " (the default is not allowed here)" if name in self.dropped else ""
        message = f"{self.table.label} needs {name}: {listed(entry.field)}{why}"
        return Fault(entry.code, name, message, "write it in the job")

    def _located(self, fault: Fault) -> Fault:
        """A fault of the finished request, told by the name under which the person wrote its cause."""
        entry = self.table.native.get(fault.field)
        name = self.origin.get(fault.field) or (entry.common if entry else "") or fault.field
        return Fault(fault.code, name, fault.message, fault.hint)


def _meant(word: str, names: Iterable[str], what: str) -> str:
    near = nearest(word, names)
    return f"did you mean {near}?" if near else f"{what}: {', '.join(names)}"


def _told(value: Any) -> str:
    return canonical(value).strip('"') if not isinstance(value, list) else str(len(value))


def _refused(model: str, fault: Fault) -> Composed:
    return Composed(model, "", {}, b"", None, "", {}, (), (fault,), "", {})
