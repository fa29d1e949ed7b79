"""What a job asks for, as one text: its key, which is never its position, and its spec, which is sent later.

The key is the sha256 of (format version, provider, model, common fields after defaults and substitution, `params`, the
content of references, take) as canonical JSON: sorted keys, no spaces, no floats, text as it is. Not in it: batch, job
name, order, unused columns, output names, account, limits, the adapter's own body (design.md section 9).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from runner.providers.compose import canonical
from runner.providers.description import REFERENCE_ROLES, Reference
from runner.providers.values import exact

KEY_VERSION = 1


class Hash(Protocol):
    """As much of a hashlib object as a key needs."""

    def copy(self) -> Hash: ...
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """A reference with its content pinned: `sha256` (hex) of a local file, and `file`, where it was found: absolute,
    links resolved. None for what lies elsewhere."""

    reference: Reference
    sha256: str | None = None
    file: str | None = None

    @property
    def content(self) -> str:
        """What the key knows of it: a URL's text, a file's hash."""
        return f"sha256:{self.sha256}" if self.sha256 else self.reference.url


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of a key that all takes of one cell share, each as canonical JSON."""

    provider: str
    model: str
    fields: str
    params: str
    contents: str

    def hashed(self) -> Hash:
        """The hash of everything but the take, which stands last."""
        names = f"{canonical(self.provider)},{canonical(self.model)}"
        told = f"[{KEY_VERSION},{names},{self.fields},{self.params},{self.contents},"
        return hashlib.sha256(told.encode())


def key_of(hashed: Hash, take: int) -> str:
    """The job's key, 64 hexadecimal digits."""
    whole = hashed.copy()
    whole.update(f"{take}]".encode())
    return whole.hexdigest()


def params_text(params: Mapping[str, Any]) -> str:
    return canonical(exact(params))


def contents_text(pinned: Sequence[Pinned]) -> str:
    """The content of references by role, each role's in its order."""
    by_role = {role: [p.content for p in pinned if p.reference.role == role] for role in REFERENCE_ROLES}
    return canonical({role: contents for role, contents in by_role.items() if contents})


def references_text(pinned: Sequence[Pinned]) -> str:
    return canonical([_reference(p) for p in pinned])


def _reference(pinned: Pinned) -> dict[str, Any]:
    given = pinned.reference
    known = {"role": given.role, "url": given.url, "path": given.path, "sha256": pinned.sha256, "file": pinned.file}
    return {name: value for name, value in known.items() if value is not None} | (
        {"review": True} if given.review else {}
    )


def spec_text(fields: str, references: str, params: str) -> str:
    """The spec of parts that are canonical JSON already."""
    return f'{{"fields":{fields},"params":{params},"references":{references}}}'


def parse_spec(text: str) -> tuple[dict[str, Any], tuple[Pinned, ...], dict[str, Any]]:
    """(fields, references, params) of a spec, for `compose` to be run on again; its numbers are int or Decimal."""
    spec = json.loads(text, parse_float=Decimal)
    return spec["fields"], tuple(_pinned(spec["references"])), spec["params"]


def _pinned(items: Iterable[Mapping[str, Any]]) -> Iterable[Pinned]:
    for item in items:
        given = Reference(item["role"], item["url"], item.get("path"), item.get("review", False))
        yield Pinned(given, item.get("sha256"), item.get("file"))
