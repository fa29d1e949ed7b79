"""The adapters' tables against the pretend providers, which somebody else wrote from the same documents: what one of
them allows the other allows, value by value, at every model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest

from runner.providers import registry
from runner.providers.compose import canonical, compose, stamped
from runner.providers.description import Field, Model, Provider, Reference
from runner.providers.values import as_written
from runner.sandbox import Options, serve

PROMPT = "a neon alley in the rain"
PICTURE = Reference("images", "https://example.com/a.png")
CLIP = Reference("videos", "https://example.com/a-5s.mp4")
# What else a request needs so that the value under test is the only doubt.
BASE: dict[tuple[str, str], dict[str, Any]] = {
    ("seedance2ai", "gpt-image-2"): {"resolution": "1K", "aspect_ratio": "16:9"},
    ("seegen", "upscale"): {"resolution": "4k"},
}
NEEDS = {("seegen", "upscale"): [CLIP]}
# Where the document leaves it open, and the two read it differently on purpose: one passes on what the other refuses.
OPEN = {
    ("happyhorse", "resolution"),  # "sizes other than the examples are passed through"
    ("happyhorse", "aspect_ratio"),
    ("happyhorse", "duration"),  # a number without bounds; the pretend one draws a line at 60
    ("seedhorse-video", "aspect_ratio"),  # no value is documented
    ("seedhorse-video", "seed"),
}


SIDES = [(1, 1), (1, 2), (1, 3), (2, 3), (3, 4), (4, 5), (9, 16), (9, 21)]
RATIOS = ["auto", *(f"{a}:{b}" for a, b in SIDES), *(f"{b}:{a}" for a, b in SIDES)]


@dataclass(frozen=True)
class Case:
    provider: Provider
    model: Model
    name: str
    field: Field

    def __str__(self) -> str:
        return f"{self.provider.name} {self.model.name} {self.name}"


def cases() -> Iterator[Case]:
    for provider in registry().values():
        for model in provider.models:
            if not model.unavailable:
                yield from (Case(provider, model, name, field) for name, field in model.fields.items())


CASES = [case for case in cases() if (case.provider.name, case.name) not in OPEN]


def candidates(case: Case) -> list[Any]:
    """Every value that any model of any provider allows for a field of this name, and those just outside of the bounds,
    as they stand in a request before they are written."""
    field = case.field
    if field.kind == "boolean":
        return [True, False]
    if field.choices or field.translate:
        alike = [other.field for other in cases() if other.name in (case.name, _TWIN.get(case.name))]
        found = {choice for other in alike for choice in (*other.choices, *other.translate.values())}
        same = [*(value for value in found if isinstance(value, str)), *(RATIOS if case.name == "aspect_ratio" else ())]
        return sorted({*same, *map(str, field.choices)} if field.kind == "text" else set(field.choices), key=str)
    if field.kind in ("integer", "number") and (field.low is not None or field.high is not None):
        edges = [edge + step for edge in (field.low, field.high) if edge is not None for step in (-1, 0, 1)]
        return sorted({int(edge) for edge in edges})
    return []


_TWIN = {"resolution": "size", "size": "resolution"}


@asynccontextmanager
async def sandbox() -> AsyncIterator[Any]:
    options = Options(seed="7", fast_disk=True, credits=Decimal(10**9), concurrency=dict.fromkeys(registry(), 0))
    async with serve(options) as served, httpx.AsyncClient() as client:

        async def accepts(provider: Provider, path: str, body: bytes) -> bool:
            name = provider.name
            headers = {"Authorization": f"Bearer {served.keys[name]}", "Content-Type": "application/json"}
            answer = await client.post(served.base_urls[name] + path, content=body, headers=headers)
            said = answer.json()
            return answer.status_code == 200 and said.get("code", 0) == 0 and not said.get("error")

        yield accepts


def composed(case: Case, value: Any = None) -> Any:
    provider, model = case.provider, case.model
    fields = {"prompt": PROMPT} if "prompt" in model.fields else {}
    fields |= BASE.get((provider.name, model.name), {})
    if value is not None:
        shadowed = _TWIN.get(case.name)
        fields = {name: said for name, said in fields.items() if name != shadowed} | {case.name: value}
    return compose(provider, model.name, fields, NEEDS.get((provider.name, model.name), []))


def with_native(case: Case, value: Any) -> bytes:
    """The request with this very value in the field, whatever the tables say of it."""
    plain = composed(case)
    assert plain.faults == (), plain.faults
    body = json.loads(stamped(plain, {case.model.mark_field: "runner-1"} if case.model.mark_field else {}))
    inner = body[case.model.nest] if case.model.nest else body
    inner[case.field.native] = as_written(case.field, value)
    return canonical(body).encode()


@pytest.mark.parametrize("name", registry())
async def test_they_allow_the_same(name: str) -> None:
    tried = 0
    differ: list[str] = []
    async with sandbox() as accepts:
        for case in (case for case in CASES if case.provider.name == name):
            spoken = {native: spelled for spelled, native in case.field.translate.items()}
            for value in candidates(case):
                ours = not composed(case, spoken.get(value, value)).faults
                if isinstance(value, str) and ours and value not in (*case.field.choices, *spoken):
                    continue  # another spelling of an allowed value, which is translated
                theirs = await accepts(case.provider, case.model.path, with_native(case, value))
                tried += 1
                if ours != theirs:
                    differ.append(f"{case}: {value!r}: allowed by {'us' if ours else 'them'} alone")
    assert differ == []
    assert tried > 5
