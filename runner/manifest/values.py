"""Single values of a manifest, each read as what it must be or noted as what it is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from runner.manifest.findings import Findings
from runner.manifest.grammar import Key
from runner.manifest.places import Path, Spot
from runner.manifest.scalars import Bare, Kind, read_scalar
from runner.manifest.templates import Template, TemplateError, read_template
from runner.problems import quoted, suggestion

NAME = re.compile(r"[^\W_][\w.\-]*")
LONGEST_NAME = 100  # characters

# Words people try, with what there is instead (design.md section 9: a manifest can be someone else's).
KEY_WORDS = {
    "api_key", "apikey", "key", "token", "secret", "password", "authorization", "auth", "bearer", "access_key",
    "access_token", "secret_key", "credentials", "api_token",
}  # fmt: skip
INSTEAD = {
    "base_url": "addresses come from the environment: <PROVIDER>_BASE_URL",
    "url": "addresses come from the environment: <PROVIDER>_BASE_URL",
    "headers": "a manifest sets no headers",
    "key_env": "keys are always read from <PROVIDER>_API_KEY",
    "api_key_env": "keys are always read from <PROVIDER>_API_KEY",
    "command": "a manifest runs no commands",
    "callback_url": "use the option --callback-url",
    "prompts_from": "rows: FILE reads prompts from a table",
    "prompts": "rows: holds what changes from job to job",
    "repeat": "takes: 2 renders everything twice",
    "id": "a job's name is its key under jobs",
    "name": "a job's name is its key under jobs",
    "assets": "write asset://… as a reference where the provider has assets",
    "models": "see: runner providers",
    "output": "outputs: stands at the top level",
}


def shown(value: Any) -> str:
    """A value as a message names it."""
    if isinstance(value, Bare):
        return "nothing" if value.kind is Kind.NULL and not value.text else quoted(value.text)
    if isinstance(value, str):
        return quoted(value)
    return "a list" if isinstance(value, list) else "a mapping"


def check_keys(value: Mapping[str, Any], keys: Iterable[Key], path: Path, what: str, found: Findings) -> None:
    """Notes every key that does not belong here (B32); one that names a secret is refused as such (B31)."""
    known = [key.name for key in keys]
    for name in value:
        if name in known:
            continue
        spot = Spot((*path, name), on_key=True)
        if name.lower().replace("-", "_") in KEY_WORDS:
            hint = "keys come from the environment: <PROVIDER>_API_KEY"
            found.add("B31", f"a manifest holds no keys: {quoted(name)} is refused", hint, spot)
            continue
        hint = INSTEAD.get(name) or suggestion(name, known, "allowed here")
        found.add("B32", f"{what} has no {quoted(name)}", hint, spot)


def read_mapping(value: Any, path: Path, found: Findings, example: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    found.add("B40", f"{path[-1]} must be a mapping, not {shown(value)}", f"write {example}", path)
    return {}


def read_text(value: Any, path: Path, found: Findings) -> str | Template | None:
    """Text with its variables; None, and a note, for anything else."""
    if not isinstance(value, str):
        _refuse_as_text(value, path, found)
        return None
    try:
        return read_template(value)
    except TemplateError as error:
        found.add("B27", error.message, error.hint, Spot(path, words=error.words))
        return None


def read_word(value: Any, path: Path, found: Findings) -> str | None:
    """Text in which nothing stands for something else."""
    if isinstance(value, str):
        return value
    _refuse_as_text(value, path, found)
    return None


def _refuse_as_text(value: Any, path: Path, found: Findings) -> None:
    name = path[-1] if isinstance(path[-1], str) else "this entry"
    if not isinstance(value, Bare):
        found.add("B40", f"{name} must be text, not {shown(value)}", "write one text", path)
        return
    if not value.text:
        found.add("B20", f"{name} has no value, it must be text", "write it, or leave the key out", path)
        return
    number = value.kind not in (Kind.BOOLEAN, Kind.NULL)
    meaning = "a number" if number else "nothing" if value.kind is Kind.NULL else "true or false"
    message = f"{shown(value)} is read as {meaning}, {name} must be text"
    found.add("B22" if number else "B20", message, f'quote it: "{value.text}"', path)


def read_name(value: Any, path: Path, found: Findings) -> str | None:
    """A batch's or a job's name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit."""
    name = read_word(value, path, found)
    if name is not None:
        check_name(name, Spot(path), found)
    return name


def check_name(name: str, spot: Spot, found: Findings) -> None:
    if NAME.fullmatch(name) and len(name) <= LONGEST_NAME:
        return
    better = re.sub(r"[^\w.\-]+", "-", name).strip("-._")[:LONGEST_NAME] or "neon-alley"
    hint = f"use letters, digits, '.', '_' and '-', at most {LONGEST_NAME}: {quoted(better)}"
    found.add("B73", f"{quoted(name)} cannot be a name", hint, spot)


def read_number(value: Any, path: Path, found: Findings) -> int | Decimal | None:
    bare = read_scalar(value) if isinstance(value, str) else value
    if isinstance(bare, Bare) and bare.kind in (Kind.INTEGER, Kind.NUMBER):
        return bare.value
    refuse_number(bare, path, found)
    return None


def refuse_number(value: Any, path: Path, found: Findings, wanted: str = "a number", example: int = 5) -> None:
    if isinstance(value, Bare) and value.kind is Kind.EXPONENT:
        found.add("B23", f"{shown(value)} is a number to YAML 1.2 and text to 1.1", f"write {_plain(value.text)}", path)
    elif isinstance(value, Bare) and value.kind is Kind.INFINITE:
        found.add("B24", f"{shown(value)} is not a finite number", "write a number", path)
    else:
        found.add("B40", f"{path[-1]} must be {wanted}, not {shown(value)}", f"for example {example}", path)


def _plain(text: str) -> str:
    try:
        number = Decimal(text)
    except ArithmeticError:  # 1e30000000000000000000
        return "it without an exponent"
    return f"{number:f}" if abs(number.adjusted()) < 20 else "it without an exponent"


def read_whole(
    value: Any, path: Path, found: Findings, *, least: int, most: int = 1_000_000_000, code: str = "B40"
) -> int | None:
    if not isinstance(value, Bare) or value.kind is not Kind.INTEGER or not isinstance(value.value, int):
        refuse_number(value, path, found, "a whole number", max(least, 1))
        return None
    if least <= value.value <= most:
        return value.value
    found.add(code, f"{path[-1]} {shown(value)} is outside {least:,}–{most:,}", f"write {least} or more", path)
    return None


def read_boolean(value: Any, path: Path, found: Findings) -> bool | None:
    if isinstance(value, Bare) and isinstance(value.value, bool):
        return value.value
    found.add("B40", f"{path[-1]} must be true or false, not {shown(value)}", "write true or false", path)
    return None
