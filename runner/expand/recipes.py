"""One entry of `jobs`, made ready: what is the same in all its cells is worked out once, the rest for each.

A field is set by the first of: a combination's variable of its name (an axis, or `include`), the job, `defaults`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.expand.accounts import Accounts
from runner.expand.blame import Blame
from runner.expand.inputs import Inputs
from runner.expand.keys import Asked, Pinned, contents_text, params_text, references_text, spec_text
from runner.expand.matrix import Combination, Matrix
from runner.expand.orders import Order
from runner.expand.outputs import Namer, slug
from runner.expand.tables import Row
from runner.manifest import JobEntry, Manifest
from runner.manifest.findings import Findings
from runner.manifest.grammar import FIELD_NAMES, ROLES
from runner.manifest.templates import Template, TooLong, templates_in
from runner.providers.compose import Composed, canonical, compose
from runner.providers.description import Fault, Provider

WHO = ("provider", "model")


@dataclass(frozen=True, slots=True)
class _References:
    """The references of a cell, and the two texts they come to."""

    pinned: tuple[Pinned, ...]
    contents: str
    text: str

    @classmethod
    def of(cls, pinned: tuple[Pinned, ...]) -> _References:
        return cls(pinned, contents_text(pinned), references_text(pinned))


@dataclass(frozen=True, slots=True)
class _Cell:
    """What all takes of one cell have in common. `asked` has hashed all of the key but the take."""

    account: str
    provider: Provider
    composed: Composed
    references: _References
    params: Mapping[str, Any]
    spec: str
    asked: Any
    words: Mapping[str, str]


class Recipe:
    """A job entry that gives its orders, cell by cell. What is wrong with a cell is noted, and the cell gives none."""

    def __init__(
        self, manifest: Manifest, job: JobEntry, accounts: Accounts, inputs: Inputs, namer: Namer, found: Findings
    ) -> None:
        self.job = job
        self.matrix = Matrix(job.matrix, job.include, job.exclude)
        self._manifest, self._accounts, self._inputs, self._namer, self._found = manifest, accounts, inputs, namer, found
        self._blame = Blame(manifest, job, self.matrix, found)
        self._own = {name: value for name, value in job.fields.items() if name not in WHO}
        self._set_by_axes = [name for name in FIELD_NAMES if name not in WHO and _may_set(job, name)]
        self._roles_by_axes = [role for role in ROLES if _may_set(job, role)]
        self._defaults = {name: value for name, value in manifest.defaults.items() if name not in WHO}
        self._plain = _Plain.of(self._own, self._defaults, job.params)
        self._references: dict[str, _References] = {}
        self._cells_differ_by_take = "take" in {n for t in self.templates() for n in t.names}
        self._base = {"batch": manifest.batch, "job": job.name}

    def templates(self) -> Iterator[Template]:
        """All templates that a request is made of."""
        sources = [entry.source for entries in self.job.references.values() for entry in entries]
        yield from templates_in([self.job.fields, self._manifest.defaults, sources, self.job.params])

    def orders(self, row: Row, combination: Combination) -> Iterator[Order]:
        """The takes of one cell."""
        variables = {**row.values, **combination}
        cell: _Cell | None = None
        for take in range(1, self.job.takes + 1):
            if take == 1 or self._cells_differ_by_take:
                cell = self._cell(variables, str(take), row, combination)
            if cell is None:
                return
            yield self._order(cell, take, variables, row)

    def _cell(self, variables: Mapping[str, str], take: str, row: Row, combination: Combination) -> _Cell | None:
        scope = {**self._base, "take": take, **variables}
        try:
            return self._asked(scope, combination, row)
        except KeyError as missing:
            self._blame.missing(str(missing.args[0]), row)
        except TooLong:
            self._blame.too_long(row)
        except _Faulty as faulty:
            for fault in faulty.faults:
                self._blame.fault(fault, row, combination, faulty.pinned)
        return None

    def _asked(self, scope: dict[str, str], combination: Combination, row: Row) -> _Cell:
        account, provider, model = self._who(scope, combination)
        scope = {"provider": account, "model": model, **scope}
        references = self._pinned(scope, combination, provider)
        params = self._plain.params if self._plain.params is not None else _filled(self.job.params, scope)
        composed = compose(
            provider,
            model,
            self._fields(scope, combination),
            [pinned.reference for pinned in references.pinned],
            params,
            self._plain.defaults if self._plain.defaults is not None else _filled(self._defaults, scope),
        )
        if composed.faults:
            raise _Faulty(composed.faults, references.pinned)
        fields = canonical(composed.fields)
        told = self._plain.params_text or params_text(params)
        asked = Asked(provider.name, composed.model, fields, told, references.contents)
        return _Cell(
            account=account,
            provider=provider,
            composed=composed,
            references=references,
            params=params,
            spec=spec_text(fields, references.text, told),
            asked=hashlib.sha256(asked.start.encode()),
            words={**scope, "slug": slug(str(composed.fields.get("prompt", ""))), "ext": _extension(composed)},
        )

    def _who(self, scope: Mapping[str, str], combination: Combination) -> tuple[str, Provider, str]:
        """The account, its provider and the model as written."""
        name = self._value("provider", scope, combination)
        if name is None:
            raise _Faulty((self._accounts.none_named(),))
        provider = self._accounts.provider(name)
        if isinstance(provider, Fault):
            raise _Faulty((provider,))
        model = self._value("model", scope, combination)
        if model is None:
            names = ", ".join(m.name for m in provider.models if not m.unavailable)
            raise _Faulty((Fault("B35", "model", "no model is named", f"{provider.name} has {names}"),))
        return name, provider, model

    def _value(self, name: str, scope: Mapping[str, str], combination: Combination) -> str | None:
        if name in combination:
            return combination[name]
        value = self.job.fields.get(name, self._manifest.defaults.get(name))
        filled = value.fill(scope) if isinstance(value, Template) else value
        return None if filled is None else str(filled)

    def _fields(self, scope: Mapping[str, str], combination: Combination) -> Mapping[str, Any]:
        if self._plain.fields is not None and not self._set_by_axes:
            return self._plain.fields
        fields = _filled(self._own, scope)
        return fields | {name: combination[name] for name in self._set_by_axes if name in combination}

    def _pinned(self, scope: Mapping[str, str], combination: Combination, provider: Provider) -> _References:
        """The references; those without variables are looked at once for each provider."""
        if not self._plain.references or self._roles_by_axes:
            return _References.of(self._pin_all(scope, combination, provider))
        if provider.name not in self._references:
            self._references[provider.name] = _References.of(self._pin_all(scope, combination, provider))
        return self._references[provider.name]

    def _pin_all(self, scope: Mapping[str, str], combination: Combination, provider: Provider) -> tuple[Pinned, ...]:
        written = [
            (role, entry.source.fill(scope) if isinstance(entry.source, Template) else entry.source, entry.review)
            for role, entries in self.job.references.items()
            for entry in entries
        ]
        written += [(role, combination[role], False) for role in self._roles_by_axes if role in combination]
        pinned = [self._inputs.pin(role, source, review, provider) for role, source, review in written]
        faults = tuple(fault for fault in pinned if isinstance(fault, Fault))
        if faults:
            raise _Faulty(faults)
        return tuple(p for p in pinned if isinstance(p, Pinned))

    def _order(self, cell: _Cell, take: int, variables: Mapping[str, str], row: Row) -> Order:
        asked = cell.asked.copy()
        asked.update(f"{take}]".encode())
        key = asked.hexdigest()
        return Order(
            key=key,
            batch=self._manifest.batch,
            job=self.job.name,
            take=take,
            account=cell.account,
            provider=cell.provider.name,
            model=cell.composed.model,
            fields=cell.composed.fields,
            references=cell.references.pinned,
            params=cell.params,
            variables=variables,
            priority=self.job.priority,
            output=self._namer.path({**cell.words, "take": str(take), "key": key}),
            estimated=cell.composed.price,
            shape=cell.composed.shape,
            dropped=cell.composed.dropped,
            spec=cell.spec,
            where=row.where,
            source=self._manifest.source,
        )


class _Faulty(Exception):
    """A cell that cannot be asked for, and why."""

    def __init__(self, faults: tuple[Fault, ...], pinned: tuple[Pinned, ...] = ()) -> None:
        super().__init__()
        self.faults, self.pinned = faults, pinned


@dataclass(frozen=True, slots=True)
class _Plain:
    """What holds no variables, and so is the same in every cell; None, or False, where something varies."""

    fields: Mapping[str, Any] | None
    defaults: Mapping[str, Any] | None
    params: Mapping[str, Any] | None
    params_text: str
    references: bool
