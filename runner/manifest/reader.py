"""From values to what a manifest says: the top level, accounts, budget, outputs. Wrong things are noted, not mended."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

from runner.limits import DEFAULT_CONCURRENCY, Window, parse_window
from runner.manifest.document import Document
from runner.manifest.findings import Findings
from runner.manifest.grammar import OUTPUTS, PROVIDER, TOP, VERSION
from runner.manifest.jobs import read_defaults, read_jobs
from runner.manifest.model import (
    DEFAULT_DIR,
    DEFAULT_NAME,
    POLL_INTERVAL,
    TIMEOUT,
    JobEntry,
    Outputs,
    ProviderEntry,
    Value,
)
from runner.manifest.places import Path, Spot
from runner.manifest.scalars import Bare, Kind
from runner.manifest.secrets import check_secrets
from runner.manifest.templates import Template
from runner.manifest.values import (
    check_keys,
    read_boolean,
    read_mapping,
    read_name,
    read_number,
    read_text,
    read_whole,
    read_word,
    shown,
)
from runner.problems import quoted

T = TypeVar("T")
Read = Callable[[Any, Path, Findings], T | None]
EXAMPLE = """version: 1
batch: first
jobs:
  alley:
    provider: seedance2ai
    model: seedance
    prompt: "a neon alley in the rain\""""
LARGEST_BUDGET = Decimal(10) ** 12
LONGEST = timedelta(days=365)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Content:
    """What a manifest says, without where it lies."""

    batch: str
    budget: Mapping[str, Decimal]
    providers: Mapping[str, ProviderEntry]
    defaults: Mapping[str, Value]
    jobs: Mapping[str, JobEntry]
    outputs: Outputs


def read_content(document: Document) -> Content:
    """Raises InputError with every problem found and its place."""
    found = Findings(document.source)
    check_secrets(document.source, found)
    content = _content(document.value, found)
    found.check()
    return content


def _content(value: Any, found: Findings) -> Content:
    if value is None or (isinstance(value, Bare) and value.kind is Kind.NULL):
        found.add("B04", "no jobs: the manifest is empty", f"for example:\n{EXAMPLE}", ())
        value = {}
    elif not isinstance(value, dict):
        keys = ", ".join(key.name for key in TOP)
        found.add("B12", f"a manifest is a mapping, not {shown(value)}", f"its keys are: {keys}", ())
        value = {}
    else:
        check_keys(value, TOP, (), "the manifest", found)
        _read_version(value, found)
    return Content(
        batch=_read_batch(value, found),
        budget=_read_budget(value.get("budget", {}), found),
        providers=_read_providers(value.get("providers", {}), found),
        defaults=read_defaults(value.get("defaults", {}), found),
        jobs=_read_jobs(value, found),
        outputs=_read_outputs(value.get("outputs", {}), found),
    )


def _read_version(top: Mapping[str, Any], found: Findings) -> None:
    if "version" not in top:
        found.add("B32", "version is missing", f"begin with: version: {VERSION}", ())
        return
    version = read_whole(top["version"], ("version",), found, least=1)
    if version is not None and version > VERSION:
        message = f"this manifest is version {version}, this program reads version {VERSION}"
        found.add("B51", message, "use a newer runner", ("version",))


def _read_batch(top: Mapping[str, Any], found: Findings) -> str:
    if "batch" in top:
        return read_name(top["batch"], ("batch",), found) or ""
    if top:
        found.add("B32", "batch is missing", "name it: batch: neon-alley; the name is the batch's identity", ())
    return ""


def _read_jobs(top: Mapping[str, Any], found: Findings) -> dict[str, JobEntry]:
    if not top:
        return {}
    if "jobs" not in top or top["jobs"] == {} or _is_null(top["jobs"]):
        found.add("B04", "no jobs", f"for example:\n{EXAMPLE}", Spot(("jobs",), on_key=True))
        return {}
    return read_jobs(top["jobs"], found)


def _is_null(value: Any) -> bool:
    return isinstance(value, Bare) and value.kind is Kind.NULL


def _read_budget(value: Any, found: Findings) -> dict[str, Decimal]:
    budget = {}
    for account, credits in read_mapping(value, ("budget",), found, "credits by provider: {seegen: 12000}").items():
        amount = read_number(credits, ("budget", account), found)
        if amount is not None and not 0 <= amount <= LARGEST_BUDGET:
            found.add("B40", f"{amount} is no budget", "write credits, 0 or more", ("budget", account))
        elif amount is not None:
            budget[account] = Decimal(amount)
    return budget


def _read_providers(value: Any, found: Findings) -> dict[str, ProviderEntry]:
    entries = {}
    for name, entry in read_mapping(value, ("providers",), found, "limits by provider").items():
        if not re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", name) or len(name) > 64:
            hint = "use small letters, digits and single hyphens: its key is read from NAME_API_KEY"
            found.add("B73", f"{quoted(name)} cannot name an account", hint, Spot(("providers", name), on_key=True))
        entries[name] = _read_provider(name, entry, found)
    return entries


def _read_provider(name: str, value: Any, found: Findings) -> ProviderEntry:
    path: Path = ("providers", name)
    entry = {} if _is_null(value) else read_mapping(value, path, found, "limits: {concurrency: 3}")
    check_keys(entry, PROVIDER, path, f"an entry of providers ({quoted(name)})", found)
    return ProviderEntry(
        name=name,
        uses=_given(entry, "uses", path, found, read_word) or name,
        concurrency=_given(entry, "concurrency", path, found, _read_concurrency) or DEFAULT_CONCURRENCY,
        rate_limit=_given(entry, "rate_limit", path, found, _read_windows) or (),
        poll_interval=_given(entry, "poll_interval", path, found, _read_seconds) or POLL_INTERVAL,
        timeout=_given(entry, "timeout", path, found, _read_seconds) or TIMEOUT,
        account_exclusive=_given(entry, "account_exclusive", path, found, read_boolean) or False,
    )


def _given(entry: Mapping[str, Any], key: str, path: Path, found: Findings, read: Read[T]) -> T | None:
    return read(entry[key], (*path, key), found) if key in entry else None


def _read_concurrency(value: Any, path: Path, found: Findings) -> int | None:
    return read_whole(value, path, found, least=1, most=100_000, code="B82")


def _read_windows(value: Any, path: Path, found: Findings) -> tuple[Window, ...]:
    if not isinstance(value, list):
        window = _read_window(value, path, found)
        return (window,) if window else ()
    windows = [_read_window(item, (*path, place), found) for place, item in enumerate(value)]
    return tuple(window for window in windows if window)


def _read_window(value: Any, path: Path, found: Findings) -> Window | None:
    text = value if isinstance(value, str) else value.text if isinstance(value, Bare) else ""
    window = parse_window(text) if len(text) <= 40 else None
    if window is None:
        found.add("B82", f"{shown(value)} is no rate limit", "write for example 60/minute, 5/s or 100/10s", path)
    return window


def _read_seconds(value: Any, path: Path, found: Findings) -> timedelta | None:
    """Seconds as a number, or `90s`, `6h`, `1h30m`."""
    if isinstance(value, Bare) and isinstance(value.value, int | Decimal) and value.kind is not Kind.BOOLEAN:
        seconds = Decimal(value.value)
    elif isinstance(value, str) and len(value) <= 40 and re.fullmatch(f"(?:{_PART.pattern})+", value):
        seconds = sum((Decimal(amount) * _UNITS[unit] for amount, unit in _PART.findall(value)), Decimal(0))
    else:
        found.add("B40", f"{shown(value)} is no time", "write seconds, or for example 90s, 10m or 6h", path)
        return None
    if not 0 < seconds <= LONGEST.total_seconds():
        found.add("B82", f"{shown(value)} is no time to wait", "write more than 0 and at most 365d", path)
        return None
    return timedelta(seconds=float(seconds))


def _read_outputs(value: Any, found: Findings) -> Outputs:
    entry = read_mapping(value, ("outputs",), found, "{dir: …, name: …}")
    check_keys(entry, OUTPUTS, ("outputs",), "outputs", found)
    return Outputs(
        dir=_read_path(entry.get("dir", DEFAULT_DIR), ("outputs", "dir"), found),
        name=_read_path(entry.get("name", DEFAULT_NAME), ("outputs", "name"), found),
    )


def _read_path(value: Any, path: Path, found: Findings) -> str | Template:
    text = read_text(value, path, found)
    if text is None:
        return ""
    plain = text.text if isinstance(text, Template) else text
    if wrong := _why_no_path(plain):
        found.add("B75", f"{quoted(plain)} {wrong}", "write a path below the manifest's folder, with /", path)
    return text


def _why_no_path(text: str) -> str:
    parts = text.split("/")
    if text.startswith(("/", "~")):
        return "is not below the manifest's folder"
    if "\\" in text:
        return "holds a backslash"
    if re.match(r"[A-Za-z]:", text):
        return "begins with a drive"
    if ".." in parts:
        return "leaves the manifest's folder"
    return "is empty" if not text.strip("/. ") else ""
