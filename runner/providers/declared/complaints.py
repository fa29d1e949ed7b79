"""What the models refuse, as problems with a place, a number of the catalogue and a hint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runner.manifest.findings import Findings
from runner.manifest.places import Path, Spot, Step
from runner.manifest.values import KEY_WORDS
from runner.problems import nearest, quoted, suggestion

ON_KEY = "[key]"  # how pydantic says that a key is meant, not its value
WANTED = {
    "string_type": "text", "bool_type": "true or false", "int_type": "a whole number", "tuple_type": "a list",
    "dict_type": "a mapping", "model_type": "a mapping",
}  # fmt: skip
BOUNDS = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
INSTEAD = {
    "headers": "the key goes as Authorization: Bearer, and nothing else is sent but the idempotency header",
    "method": "tasks are ordered by POST and asked for by GET",
    "concurrency": "that stands in a manifest: providers: {NAME: {concurrency: 3}}",
}


def complain(error: ValidationError, top: type[BaseModel], said: Any, found: Findings) -> None:
    """Notes everything that `top` found wrong with what a whole file said."""
    for detail in error.errors(include_url=False):
        _note(detail, _spot(detail["loc"], said), _model_at(top, detail["loc"][:-1]), found)


def _spot(at: Path, said: Any) -> Spot:
    """Where it stands; one value where several may be is no list in the file."""
    if at[-1:] == (ON_KEY,):
        return Spot(at[:-1], on_key=True)
    for step in at[:-1]:
        said = said[step]
    return Spot(at[:-1] if at and isinstance(at[-1], int) and not isinstance(said, list) else at)


def _note(detail: ErrorDetails, spot: Spot, model: type[BaseModel] | None, found: Findings) -> None:
    kind, given, name = detail["type"], detail["input"], _name(spot.path)
    about: Mapping[str, Any] = detail.get("ctx", {})
    if "hint" in about:
        found.add(kind, about["message"], about["hint"], spot)
    elif kind == "extra_forbidden":
        _unknown(spot, model, found)
    elif kind == "missing":
        found.add("B32", f"{name} is missing", _purpose(model, name), spot)
    elif kind == "literal_error":
        _not_among(name, given, about["expected"], spot, found)
    elif kind in WANTED:
        found.add(_code(kind, given), f"{name} must be {WANTED[kind]}, not {_shown(given)}", _mend(kind, given), spot)
    elif kind in BOUNDS:
        key, words = BOUNDS[kind]
        bound = f"{words} {about[key]:,}"
        found.add("B40", f"{name} must be {bound}, not {_shown(given)}", f"write {bound}", spot)
    elif kind in ("too_short", "string_too_short"):
        found.add("B40", f"{name} is empty", _purpose(model, name) or "write something, or leave it out", spot)
    else:
        found.add("B40", f"{name} cannot be {_shown(given)}: {detail['msg']}", _purpose(model, name), spot)


def _unknown(spot: Spot, model: type[BaseModel] | None, found: Findings) -> None:
    key = str(spot.path[-1])
    spot = Spot(spot.path, on_key=True)
    if key.lower().replace("-", "_") in KEY_WORDS:
        hint = "keys come from the environment: <PROVIDER>_API_KEY"
        found.add("B31", f"a description holds no keys: {quoted(key)} is refused", hint, spot)
        return
    known = tuple(model.model_fields) if model is not None else ()
    found.add("B32", f"there is no {quoted(key)} here", INSTEAD.get(key) or suggestion(key, known, "allowed"), spot)


def _not_among(name: str, given: Any, expected: str, spot: Spot, found: Findings) -> None:
    choices = re.findall(r"'([^']*)'", expected)
    near = nearest(given, choices) if isinstance(given, str) else None
    if name == "version":
        known = isinstance(given, int) and not isinstance(given, bool) and given > 1
        message = f"this file is version {_shown(given)}, this program reads version {expected}"
        found.add("B51" if known else "B40", message, "use a newer runner" if known else "write version: 1", spot)
        return
    hint = f"did you mean {near}? " if near else ""
    found.add("B40", f"{name} cannot be {_shown(given)}", f"{hint}it is {expected.replace(chr(39), '')}", spot)


def _name(path: Path) -> str:
    """What the message calls it: its key, or the list it stands in."""
    names = [step for step in path if isinstance(step, str)]
    return names[-1] if path and isinstance(path[-1], str) else f"an entry of {names[-1]}" if names else "this"


def _code(kind: str, given: Any) -> str:
    if kind != "string_type":
        return "B40"
    if given is None or isinstance(given, bool):
        return "B20"
    return "B22" if isinstance(given, int | Decimal) else "B40"


def _mend(kind: str, given: Any) -> str:
    if given is None:
        return "write it, or leave the key out"
    if kind == "string_type" and isinstance(given, bool | int | Decimal):
        return "quote it"
    return f"write {WANTED[kind]}"


def _shown(given: Any) -> str:
    if given is None:
        return "nothing"
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, str | int | Decimal):
        return quoted(given)
    return "a mapping" if isinstance(given, Mapping) else "a list"


def _purpose(model: type[BaseModel] | None, name: str) -> str:
    """The description of a key, as a hint."""
    field = model.model_fields.get(name) if model is not None else None
    return (field.description or "").rstrip(".") if field is not None else ""


def _model_at(top: type[BaseModel], steps: Sequence[Step]) -> type[BaseModel] | None:
    """The model that checks what stands there, None where it is none."""
    here: Any = top
    for step in steps:
        model = _model_in(here)
        if model is not None and model is here:
            field = model.model_fields.get(str(step))
            here = field.annotation if field is not None else None
        else:
            here = model
    return _model_in(here)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    return next(_models(annotation), None)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
