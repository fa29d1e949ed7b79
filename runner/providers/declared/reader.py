"""A file in, providers out: read like a manifest, checked whole, every problem with its place."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.manifest.document import Words, read_document
from runner.manifest.files import decode, read_bytes
from runner.manifest.findings import Findings
from runner.manifest.places import Path as Way
from runner.manifest.places import Spot
from runner.manifest.scalars import Bare, Kind
from runner.manifest.secrets import check_secrets
from runner.manifest.values import refuse_number, shown
from runner.problems import quoted
from runner.providers.declared.building import Described, build
from runner.providers.declared.complaints import complain
from runner.providers.declared.shape import File, ProviderShape
from runner.providers.description import Provider

WORDS = Words("a file of providers", "describe fewer", "repeat a part by &name and *name", "write it into this file")
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
EXAMPLE = Path(__file__).with_name("example.provider.yaml")


def read_providers(path: Path, taken: Collection[str]) -> tuple[Provider, ...]:
    """The providers that a file describes. `taken` are the names of the shipped ones, which none may replace.

    Raises InputError with every problem and its place; nothing is written, nothing is sent.
    """
    file = str(path)
    document = read_document(decode(read_bytes(path, WORDS), file), file, WORDS)
    found = Findings(document.source)
    check_secrets(document.source, found)
    described = _described(document.value, file, found)
    for each in described:
        _check_name(each, taken, found)
    providers = tuple(build(each, found) for each in described)
    found.check()
    return providers


def _described(value: Any, file: str, found: Findings) -> list[Described]:
    """Every provider of the file whose own part is in order."""
    if not isinstance(value, dict):
        said = "nothing" if value is None else shown(value)
        hint = "its keys are: version, providers; see: runner providers --example"
        found.add("B12", f"a file of providers is a mapping, not {said}", hint, ())
        return []
    said = _plain(value, (), found)
    wrong: set[Any] = set()
    try:
        File.model_validate(said)
    except ValidationError as error:
        complain(error, File, said, found)
        wrong = {at[1] for detail in error.errors() if len(at := detail["loc"]) > 1 and at[0] == "providers"}
    entries = said.get("providers")
    return [
        Described(name, ProviderShape.model_validate(entry), ("providers", name), file)
        for name, entry in (entries if isinstance(entries, dict) else {}).items()
        if name not in wrong
    ]


def _plain(value: Any, path: Way, found: Findings) -> Any:
    """Values as JSON has them: numbers exact. One that YAML 1.2 and 1.1 read differently, or endless, is noted."""
    if isinstance(value, dict):
        return {key: _plain(inner, (*path, key), found) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, (*path, place), found) for place, inner in enumerate(value)]
    if isinstance(value, Bare) and value.kind in (Kind.EXPONENT, Kind.INFINITE):
        refuse_number(value, path, found)
        return 1
    return value.value if isinstance(value, Bare) else value


def _check_name(described: Described, taken: Collection[str], found: Findings) -> None:
    spot = Spot(described.path, on_key=True)
    if not NAME.fullmatch(described.name) or len(described.name) > 64:
        hint = "use small letters, digits and single hyphens: its key is read from NAME_API_KEY"
        found.add("B73", f"{quoted(described.name)} cannot name a provider", hint, spot)
    elif described.name in taken:
        found.add("B72", f"{described.name} is a provider of this program", "choose another name", spot)
