"""An order: one job of a batch as it will stand in the queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.errors import Place
from runner.expand.keys import Pinned
from runner.ledger import Price
from runner.manifest.places import Source, Spot


@dataclass(frozen=True, slots=True)
class Order:
    """One job: one take of one cell of the expanded manifest.

    `key` (64 hexadecimal digits) says what is asked for; `job` is its name in the manifest; `take` counts from 1.
    `provider` is the dialect, `account` the entry's name, `model` the provider's own spelling. `fields` are the
    common fields, normalised, with the defaults that hold; `dropped` names those that do not. `variables` are its
    row's columns and its axes, as text. `output` is a path below the manifest's folder with the expected extension.
    `estimated` is in credits, None where no document gives a price; `shape` tells what a learned price would hold
    for. `spec` is canonical JSON of (fields, references, params), which `parse_spec` reads.
    """

    key: str
    batch: str
    job: str
    take: int
    account: str
    provider: str
    model: str
    fields: Mapping[str, Any]
    references: tuple[Pinned, ...]
    params: Mapping[str, Any]
    variables: Mapping[str, str]
    priority: int
    output: str
    estimated: Price | None
    shape: str
    dropped: tuple[str, ...]
    spec: str
    where: Spot | Place
    source: Source

    @property
    def place(self) -> Place:
        """Where its row stands, or its job: looked up when asked for."""
        return self.where if isinstance(self.where, Place) else self.source.place(self.where)
