"""The JSON Schema for editors: it lets pass what the reader reads, and marks what the reader refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yamlcore
from fuzz.seeds import RICH
from test_manifest import DESIGN, MINIMAL
from yaml import load

from runner.manifest import schema

ROOT = Path(__file__).resolve().parent.parent
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
}


def wrong(value: Any, rule: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What the schema finds wrong: as much of JSON Schema as ours uses; a keyword we do not know is an error."""
    for keyword, given in rule.items():
        yield from KEYWORDS[keyword](value, given, path, rule)


def is_a(value: Any, name: str) -> bool:
    if name == "null":
        return value is None
    return isinstance(value, TYPES[name]) and (isinstance(value, bool) == (name == "boolean"))


def check_type(value: Any, given: Any, path: str, _rule: Any) -> Iterator[str]:
    names = [given] if isinstance(given, str) else given
    if not any(is_a(value, name) for name in names):
        yield f"{path}: not {given}"


def check_properties(value: Any, given: Any, path: str, rule: Any) -> Iterator[str]:
    for name, item in value.items() if isinstance(value, dict) else ():
        if name in given:
            yield from wrong(item, given[name], f"{path}/{name}")


def check_others(value: Any, given: Any, path: str, rule: Any) -> Iterator[str]:
    for name, item in value.items() if isinstance(value, dict) else ():
        if name in rule.get("properties", {}):
            continue
        if given is False:
            yield f"{path}: {name} is not known"
        else:
            yield from wrong(item, given, f"{path}/{name}")


def check_any(value: Any, given: Any, path: str, _rule: Any) -> Iterator[str]:
    if all(list(wrong(value, choice, path)) for choice in given):
        yield f"{path}: none of the choices"


def check_items(value: Any, given: Any, path: str, _rule: Any) -> Iterator[str]:
    for place, item in enumerate(value if isinstance(value, list) else ()):
        yield from wrong(item, given, f"{path}/{place}")


def check_names(value: Any, given: Any, path: str, _rule: Any) -> Iterator[str]:
    for name in value if isinstance(value, dict) else ():
        yield from wrong(name, given, f"{path}/{name}")


def simple(test: Any) -> Any:
    def check(value: Any, given: Any, path: str, _rule: Any) -> Iterator[str]:
        if not test(value, given):
            yield f"{path}: {value!r} against {given!r}"

    return check


def nothing(*_arguments: Any) -> Iterator[str]:
    yield from ()


KEYWORDS: dict[str, Any] = {
    "$schema": nothing, "title": nothing, "description": nothing, "examples": nothing,
    "type": check_type, "properties": check_properties, "additionalProperties": check_others, "anyOf": check_any,
    "items": check_items, "propertyNames": check_names,
    "const": simple(lambda value, given: value == given),
    "required": simple(lambda value, given: not isinstance(value, dict) or set(given) <= set(value)),
    "pattern": simple(lambda value, given: not isinstance(value, str) or re.search(given, value) is not None),
    "maxLength": simple(lambda value, given: not isinstance(value, str) or len(value) <= given),
    "minItems": simple(lambda value, given: not isinstance(value, list) or len(value) >= given),
    "minProperties": simple(lambda value, given: not isinstance(value, dict) or len(value) >= given),
    "minimum": simple(lambda value, given: not isinstance(value, int | float) or value >= given),
    "exclusiveMinimum": simple(lambda value, given: not isinstance(value, int | float) or value > given),
}  # fmt: skip


def problems(text: str) -> list[str]:
    return list(wrong(load(text, Loader=yamlcore.CCoreLoader), schema()))  # noqa: S506


def test_the_schema_is_json() -> None:
    assert json.loads(json.dumps(schema())) == schema()


@pytest.mark.parametrize("text", [MINIMAL, DESIGN, RICH, (ROOT / "jobs.example.yaml").read_text()])
def test_good_manifests_pass(text: str) -> None:
    assert problems(text) == []


SHAPE = [
    "B04-no-jobs", "B12-list", "B12-text", "B20-true", "B20-nothing", "B22-number", "B22-batch", "B31-key-field",
    "B32-unknown-field", "B32-unknown-sections", "B40-wrong-values", "B44-takes", "B51-newer-version", "B69-empty-rows",
    "B69-empty-axis", "B73-names", "B82-limits",
]  # fmt: skip


@pytest.mark.parametrize("case", SHAPE)
def test_an_editor_marks_what_is_wrong_in_shape(case: str) -> None:
    assert problems((Path(__file__).parent / "bad" / case / "manifest.yaml").read_text())
