"""A provider as plain data for `runner providers`: models, fields, limits, prices, promise and assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from typing import Any

from runner.providers.description import Demands, Field, Hosting, Mode, Model, Provider, Slot

Described = dict[str, Any]
DEMANDED = tuple(each.name for each in fields(Demands))


def describe(provider: Provider) -> Described:
    """Everything the tables of a provider say, JSON-able: amounts and fractions as text, sizes in bytes, times in
    seconds."""
    return {
        "name": provider.name,
        "base_url": provider.base_url,
        "described_in": provider.source or None,
        "documentation": provider.documentation or None,
        "models": [_model(provider, model) for model in provider.models],
        "limits": [str(window) for window in provider.windows],
        "idempotency_header": provider.idempotency_header,
        "key_window_seconds": provider.key_window if provider.keyed else None,
        "history": provider.history is not None,
        "balance": provider.balance is not None,
        "hosting": _hosting(provider.hosting) if provider.hosting else None,
        "registering": list(provider.registering.roles) if provider.registering else None,
        "url_schemes": list(provider.url_schemes),
        "refunds_failures": provider.refunds_failures,
        "guarantee": provider.guarantee,
        "assumptions": list(provider.assumptions),
    }


def _model(provider: Provider, model: Model) -> Described:
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "renders": model.renders,
        "path": model.path,
        "fields": {name: _field(field) for name, field in model.fields.items()},
        "params": {name: _field(field) for name, field in model.params.items()},
        "unknown_params": "passed on" if model.open_params else "refused",
        "modes": [_mode(mode) for mode in model.modes],
        "price": model.price_note or "no price is documented",
        "listed_in_history": model.listed,
        "takes_assets": provider.registering is not None and model.takes_assets,
        "unavailable": model.unavailable or None,
        "note": model.note,
    }


def _field(field: Field) -> Described:
    return {
        "native": field.native,
        "kind": field.kind,
        "choices": [_plain(choice) for choice in field.choices],
        "spellings": dict(field.translate),
        "low": _plain(field.low),
        "high": _plain(field.high),
        "default": _plain(field.default),
        "required": field.required,
        "assumed": field.assumed,
        "note": field.note,
    }


def _mode(mode: Mode) -> Described:
    return {
        "name": mode.name or None,
        "references": {role: _slot(slot) for role, slot in mode.slots.items()},
        "least": mode.least,
        "most": mode.most,
        "sends": _jsonable(mode.sends),
    }


def _slot(slot: Slot) -> Described:
    demands = slot.demands
    said = {} if demands is None else {name: _told(getattr(demands, name)) for name in DEMANDED}
    return {"native": slot.native, "least": slot.least, "most": slot.most, "many": slot.many,
            "demands": {name: value for name, value in said.items() if value}}  # fmt: skip


def _hosting(hosting: Hosting) -> Described:
    return {"roles": list(hosting.roles), "media_types": list(hosting.media_types), "max_bytes": hosting.max_bytes}


def _jsonable(said: Mapping[str, Any]) -> Described:
    return {name: _plain(value) for name, value in said.items()}


def _told(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else _plain(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value
