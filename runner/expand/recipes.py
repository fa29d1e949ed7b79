"""One entry of `jobs`, made ready: what is the same in all its cells is worked out once, the rest for each.

A field is set by the first of: a combination's variable of its name (an axis, or `include`), the job, `defaults`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.expand.accounts import Accounts
from runner.expand.blame import Blame
from runner.expand.inputs import Inputs, Placed, stand_in
from runner.expand.keys import Asked, Hash, Pinned, contents_text, key_of, params_text, references_text, spec_text
from runner.expand.matrix import Combination, Matrix
from runner.expand.order import Order
from runner.expand.outputs import Namer, slug
from runner.expand.tables import Row
from runner.manifest import JobEntry, Manifest
from runner.manifest.findings import Findings
from runner.manifest.grammar import FIELD_NAMES, ROLES
from runner.manifest.templates import NoValue, Template, TooLong, templates_in
from runner.providers.compose import Composed, canonical, compose
from runner.providers.description import Fault, Provider

WHO = ("provider", "model")


class Faulty(Exception):
    """A cell that cannot be asked for, and why."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__()
        self.faults = faults


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a request as written, and whether it holds variables."""

    value: Any
    varies: bool

    @classmethod
    def of(cls, value: Any) -> _Part:
        return cls(value, next(templates_in(value), None) is not None)

    def filled(self, scope: Mapping[str, str]) -> Any:
        return _filled(self.value, scope) if self.varies else self.value


@dataclass(frozen=True, slots=True)
class _References:
    """The references of a cell, those of them that are files, their faults, and the two texts they come to: what they
    contain, how they are given."""

    pinned: tuple[Pinned, ...]
    local: tuple[Placed, ...]
    contents: str
    text: str
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, placed: Sequence[Placed], faults: Sequence[Fault]) -> _References:
        pinned = tuple(each for _, each in placed)
        local = tuple((place, each) for place, each in placed if each.sha256 is not None)
        return cls(pinned, local, contents_text(pinned), references_text(pinned), tuple(faults))


@dataclass(frozen=True, slots=True)
class _Cell:
    """What all takes of one cell have in common. `asked` has hashed all of the key but the take."""

    account: str
    provider: str
    composed: Composed
    references: _References
    params: Mapping[str, Any]
    spec: str
    asked: Hash
    words: Mapping[str, str]


class Recipe:
    """A job entry that gives its orders, cell by cell. What is wrong with a cell is noted, and the cell gives none."""

    def __init__(
        self, manifest: Manifest, job: JobEntry, accounts: Accounts, inputs: Inputs, namer: Namer, found: Findings
    ) -> None:
        self.job = job
        self.matrix = Matrix(job.matrix, job.include, job.exclude)
        self._manifest, self._accounts, self._inputs, self._namer = manifest, accounts, inputs, namer
        self._blame = Blame(manifest, job, self.matrix, found)
        self._base = {"batch": manifest.batch, "job": job.name}
        self._prepare()

    def _prepare(self) -> None:
        job, defaults = self.job, self._manifest.defaults
        self._who = {name: job.fields.get(name, defaults.get(name)) for name in WHO}
        self._fields = _Part.of({name: value for name, value in job.fields.items() if name not in WHO})
        self._defaults = _Part.of({n: value for n, value in defaults.items() if n not in (*WHO, *job.fields)})
        self._params = _Part.of(job.params)
        self._params_text = "" if self._params.varies else params_text(job.params)
        self._written = [
            (f"{role}.{place}", entry.source, entry.review)
            for role, entries in job.references.items()
            for place, entry in enumerate(entries)
        ]
        brought = {*job.matrix, *(name for entry in job.include for name in entry)}
        self._fields_brought = [name for name in FIELD_NAMES if name in brought and name not in WHO]
        self._roles_brought = [role for role in ROLES if role in brought]
        self._references_vary = bool(self._roles_brought) or _Part.of(self._written).varies
        self._references: dict[str, _References] = {}
        request = [self._who, self._fields.value, self._defaults.value, self._params.value, self._written]
        self._differs_by_take = any("take" in template.names for template in templates_in(request))

    def orders(self, row: Row, combination: Combination) -> Iterator[Order]:
        """The takes of one cell."""
        try:
            yield from self._takes(row, combination)
        except NoValue as missing:
            self._blame.missing(missing.name, row, combination)
        except TooLong:
            self._blame.too_long(row)
        except Faulty as faulty:
            for fault in faulty.faults:
                self._blame.fault(fault, row, combination)

    def _takes(self, row: Row, combination: Combination) -> Iterator[Order]:
        variables = {**row.values, **combination}
        cell: _Cell | None = None
        for take in range(1, self.job.takes + 1):
            if cell is None or self._differs_by_take:
                cell = self._cell({**self._base, "take": str(take), **variables}, combination)
            yield self._order(cell, take, variables, row)

    def _cell(self, scope: dict[str, str], combination: Combination) -> _Cell:
        account, provider = self._account(scope, combination)
        model = self._model(scope, combination, provider)
        scope = {"provider": account, "model": model, **scope}
        references = self._pinned(scope, combination, provider)
        params = self._params.filled(scope)
        composed = compose(
            provider,
            model,
            self._fields_of(scope, combination),
            [pinned.reference for pinned in references.pinned],
            params,
            self._defaults_of(scope, combination),
        )
        refused = [*references.faults, *self._inputs.give(references.local, account, provider, composed)]
        if composed.faults or refused:
            raise Faulty(*refused, *composed.faults)
        fields = canonical(composed.fields)
        told = self._params_text or params_text(params)
        asked = Asked(provider.name, composed.model, fields, told, references.contents)
        return _Cell(
            account=account,
            provider=provider.name,
            composed=composed,
            references=references,
            params=params,
            spec=spec_text(fields, references.text, told),
            asked=asked.hashed(),
            words={**scope, "slug": slug(str(composed.fields.get("prompt", ""))), "ext": _extension(composed)},
        )

    def _account(self, scope: Mapping[str, str], combination: Combination) -> tuple[str, Provider]:
        name = self._chosen("provider", scope, combination)
        provider = self._accounts.provider(name)
        if isinstance(provider, Fault):
            raise Faulty(provider)
        return name, provider

    def _model(self, scope: Mapping[str, str], combination: Combination, provider: Provider) -> str:
        model = self._chosen("model", scope, combination)
        if model:
            return model
        names = ", ".join(m.name for m in provider.models if not m.unavailable)
        raise Faulty(Fault("B35", "model", "no model is named", f"{provider.name} has {names}"))

    def _chosen(self, name: str, scope: Mapping[str, str], combination: Combination) -> str:
        """The provider or the model, as written; empty where none is."""
        if name in combination:
            return combination[name]
        value = self._who[name]
        filled = value.fill(scope) if isinstance(value, Template) else value
        return "" if filled is None else str(filled)

    def _fields_of(self, scope: Mapping[str, str], combination: Combination) -> Mapping[str, Any]:
        fields: Mapping[str, Any] = self._fields.filled(scope)
        if not self._fields_brought:
            return fields
        return {**fields, **{name: combination[name] for name in self._fields_brought if name in combination}}

    def _defaults_of(self, scope: Mapping[str, str], combination: Combination) -> Mapping[str, Any]:
        """Those that hold variables only where the combination does not set the field itself."""
        defaults: Mapping[str, Any] = self._defaults.value
        if not self._defaults.varies:
            return defaults
        return {name: _filled(value, scope) for name, value in defaults.items() if name not in combination}

    def _pinned(self, scope: Mapping[str, str], combination: Combination, provider: Provider) -> _References:
        """The references; those without variables are looked at once for each provider."""
        if self._references_vary:
            return self._pin(scope, combination, provider)
        if provider.name not in self._references:
            self._references[provider.name] = self._pin(scope, combination, provider)
        return self._references[provider.name]

    def _pin(self, scope: Mapping[str, str], combination: Combination, provider: Provider) -> _References:
        brought = [(role, combination[role], False) for role in self._roles_brought if role in combination]
        written = [(role, _filled(source, scope), review) for role, source, review in self._written]
        placed, faults = [], []
        for place, source, review in (*written, *brought):
            outcome = self._inputs.pin(place, source, review, provider)
            if isinstance(outcome, Fault):
                faults.append(outcome)
                outcome = stand_in(place.partition(".")[0])
            placed.append((place, outcome))
        return _References.of(placed, faults)

    def _order(self, cell: _Cell, take: int, variables: Mapping[str, str], row: Row) -> Order:
        key = key_of(cell.asked, take)
        composed = cell.composed
        return Order(
            key=key,
            batch=self._manifest.batch,
            job=self.job.name,
            take=take,
            account=cell.account,
            provider=cell.provider,
            model=composed.model,
            fields=composed.fields,
            references=cell.references.pinned,
            params=cell.params,
            variables=variables,
            priority=self.job.priority,
            output=self._namer.path({**cell.words, "take": str(take), "key": key}),
            estimated=composed.price,
            shape=composed.shape,
            dropped=composed.dropped,
            spec=cell.spec,
            where=row.where,
            source=self._manifest.source,
        )


def _filled(value: Any, scope: Mapping[str, str]) -> Any:
    """The value with every template in it filled in."""
    if isinstance(value, Template):
        return value.fill(scope)
    if isinstance(value, Mapping):
        return {key: _filled(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, scope) for item in value]
    return value


def _extension(composed: Composed) -> str:
    return re.sub(r"[^a-z0-9]", "", composed.extension.lower())[:8] or "bin"
