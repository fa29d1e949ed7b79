"""`runner providers [NAME]`: what each provider renders, takes, limits, charges and what is guaranteed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from runner.cli import output
from runner.cli.app import EVERYDAY, Common, Json
from runner.errors import InputError
from runner.problems import quoted, suggestion


def providers(
    name: Annotated[str | None, Parameter(help="Show this one in full.", metavar="NAME")] = None,
    /,
    *,
    example: Annotated[bool, Parameter(help="Print an example of a file for --providers, with its format.")] = False,
    json: Json = False,
    common: Common = EVERYDAY,
) -> int:
    """Show providers, models, fields, limits, prices, and what is guaranteed after a lost answer.

    Its key goes into the environment as NAME_API_KEY, for example SEEDANCE2AI_API_KEY.
    """
    if example:
        return _print_example()
    from runner.providers import registry
    from runner.providers.describe import describe

    known = registry()
    if name is not None and name not in known:
        raise InputError(f"there is no provider {quoted(name)}", suggestion(name, list(known), "providers"))
    described = [describe(provider) for each, provider in known.items() if name in (None, each)]
    if json:
        output.emit_json({"providers": described})
    elif name is None:
        _print_all(described)
    else:
        _print_one(described[0])
    return 0


def _print_example() -> int:
    from runner.providers.declared.reader import EXAMPLE

    output.emit(EXAMPLE.read_text(encoding="utf-8"))
    return 0


def _print_all(described: Iterable[Mapping[str, Any]]) -> None:
    from runner.settings import variable

    for provider in described:
        key = variable(provider["name"], "API_KEY")
        source = f"; described in {provider['described_in']}" if provider["described_in"] else ""
        output.line(f"{provider['name']}  ({provider['base_url']}; key: {key}{source})")
        rows = [(f"  {each['name']}", each["renders"], each["price"], _usable(each)) for each in provider["models"]]
        output.emit(output.table(("  model", "renders", "price", ""), rows))
        output.line(f"  limits: {_limits(provider)}")
        output.line(f"  after a lost answer: {provider['guarantee']}")
        output.line()
    output.line("runner providers NAME shows the fields of every model")


def _limits(provider: Mapping[str, Any]) -> str:
    return ", ".join(provider["limits"]) or "no request limit is documented"


def _usable(model: Mapping[str, Any]) -> str:
    return model["unavailable"] or model["note"] or ""


def _print_one(provider: Mapping[str, Any]) -> None:
    from runner.settings import variable

    facts = [
        ("provider", provider["name"]), ("key", variable(provider["name"], "API_KEY")),
        ("address", f"{provider['base_url']} (or {variable(provider['name'], 'BASE_URL')})"),
        ("described in", provider["described_in"] or ""), ("documentation", provider["documentation"] or ""),
        ("limits", _limits(provider)),
        ("after a lost answer", provider["guarantee"]), ("local files", _hosting(provider)),
        *(("assumed", assumption) for assumption in provider["assumptions"]),
    ]  # fmt: skip
    _pairs(facts)
    for model in provider["models"]:
        _print_model(model)


def _hosting(provider: Mapping[str, Any]) -> str:
    hosting = provider["hosting"]
    if hosting is None:
        return "not hosted: references must be URLs"
    return f"hosted, up to {hosting['max_bytes'] // 1_000_000} MB: {', '.join(hosting['media_types'])}"


def _pairs(facts: Iterable[tuple[str, str]]) -> None:
    rows = [((label, "dim"), text) for label, text in facts if text]
    output.emit(output.table(("", ""), rows, heading=False))


def _print_model(model: Mapping[str, Any]) -> None:
    output.line()
    also = f" (or {', '.join(model['aliases'])})" if model["aliases"] else ""
    output.line(f"{model['name']}{also}: {model['renders']}, {model['price']}")
    if note := _usable(model):
        output.line(f"  {note}")
    rows = [_field_row(name, field) for name, field in model["fields"].items()]
    rows += [_field_row(f"params.{name}", field) for name, field in model["params"].items()]
    output.emit(output.table(("  field", "takes", "default", ""), rows))
    for mode in model["modes"]:
        output.line(f"  mode {mode['name'] or '(only one)'}: {_mode(mode)}")


def _field_row(name: str, field: Mapping[str, Any]) -> tuple[output.Cell, ...]:
    default = "required" if field["required"] else field["default"]
    note = "; ".join(filter(None, [field["note"], "assumed: no document names it" if field["assumed"] else ""]))
    return f"  {name}", _takes(field), "" if default is None else str(default), note


def _takes(field: Mapping[str, Any]) -> str:
    values = [*map(str, field["choices"]), *(f"{spelled} ({sent})" for spelled, sent in field["spellings"].items())]
    if values:
        return ", ".join(values)
    low, high = field["low"], field["high"]
    unit = " characters" if field["kind"] == "text" else ""
    if low is not None and high is not None:
        return f"{field['kind']}, {low} to {high}{unit}"
    if low is not None or high is not None:
        return f"{field['kind']}, {'at least' if high is None else 'at most'} {low if high is None else high}{unit}"
    return str(field["kind"])


def _mode(mode: Mapping[str, Any]) -> str:
    roles = [f"{role} ({_number(slot)})" for role, slot in mode["references"].items()]
    return f"references: {', '.join(roles)}" if roles else "no references"


def _number(slot: Mapping[str, Any]) -> str:
    least, most = slot["least"], slot["most"]
    if most is None:
        return f"{least} or more"
    return str(most) if least == most else f"{least} to {most}"
