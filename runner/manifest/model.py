"""A manifest, read: what each part asks for, before anything is expanded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from runner.limits import DEFAULT_CONCURRENCY, Window
from runner.manifest.places import Source
from runner.manifest.templates import Template

POLL_INTERVAL = timedelta(seconds=5)  # the documents say 5–10 s
TIMEOUT = timedelta(hours=6)
DEFAULT_DIR = "renders/${batch}"
DEFAULT_NAME = "${job}/${slug}-${key}.${ext}"

Value = str | int | Decimal | bool | Template  # of a field: as written, text with variables as a template


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """One account: which provider's dialect it speaks and its limits. Keys and addresses are never in a manifest.

    `uses` is the provider's name. `rate_limit` replaces the documented request windows where it is not empty.
    """

    name: str
    uses: str
    concurrency: int = DEFAULT_CONCURRENCY
    rate_limit: tuple[Window, ...] = ()
    poll_interval: timedelta = POLL_INTERVAL
    timeout: timedelta = TIMEOUT
    account_exclusive: bool = False


@dataclass(frozen=True, slots=True)
class ReferenceEntry:
    """An entry of `references`: a path, a URL or `asset://…`, and whether it is to be reviewed first."""

    source: str | Template
    review: bool = False


@dataclass(frozen=True, slots=True)
class TableFile:
    """Rows in a file of their own: `.csv`, `.jsonl` or `.txt`, named relative to the manifest's folder."""

    name: str


@dataclass(frozen=True, slots=True)
class InlineRows:
    """Rows in the manifest: each maps columns to text. A column without a value is absent from its row."""

    rows: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class JobEntry:
    """One entry of `jobs`: fields as written, and what multiplies them.

    `fields` holds provider and model too. `matrix` keeps the order of its axes; all values of rows and axes are text.
    """

    name: str
    fields: Mapping[str, Value]
    references: Mapping[str, tuple[ReferenceEntry, ...]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    rows: TableFile | InlineRows | None = None
    matrix: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    include: tuple[Mapping[str, str], ...] = ()
    exclude: tuple[Mapping[str, str], ...] = ()
    takes: int = 1
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where files go: templates of paths below the manifest's folder, parts between `/`."""

    dir: str | Template
    name: str | Template


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked manifest. `folder` is absolute; `size` (bytes) and `sha256` are those of the file as it was read.

    `budget` (credits) and `providers` go by the account's name. An account that no entry describes has the defaults.
    """

    path: Path
    folder: Path
    sha256: str
    size: int
    source: Source
    version: int
    batch: str
    jobs: Mapping[str, JobEntry]
    outputs: Outputs
    budget: Mapping[str, Decimal] = field(default_factory=dict)
    providers: Mapping[str, ProviderEntry] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)

    def account(self, name: str) -> ProviderEntry:
        """The account of that name, described or not: an undescribed one is called after its provider."""
        return self.providers.get(name) or ProviderEntry(name, name)
