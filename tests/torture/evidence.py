"""What is left behind, as plain data: gathered once everything is over, from outside the program.

The queue is opened here only while no run is alive. Nothing is asked of the program but its own `--json`.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from runner.sandbox.renders import render
from torture.commands import Ended
from torture.manifests import Limits

MARK = re.compile(rb'\{"task_id": "([^"]+)", "index": (\d+)\}')
THUMBNAIL = re.compile(r"-thumbnail(-\d+)?$")
VERSIONS = 8  # how often a result's bytes may have been changed under its address (the fault changed_etag)
SIZES = (20_000, 60_000)  # bytes; what the providers are told to make


@dataclass(frozen=True)
class Output:
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Job:
    """As the program tells it. `line` is its prompt; credits are None where it does not know them. `changed`: when it
    last did, in seconds."""

    id: int
    key: str
    account: str
    state: str
    task_id: str | None
    idempotency_key: str | None
    attempts: int
    line: str
    error: str | None
    code: str | None
    changed: float
    estimated: Decimal | None
    charged: Decimal | None
    refunded: Decimal | None
    outputs: tuple[Output, ...] = ()

    @property
    def net(self) -> Decimal:
        return (self.charged or Decimal(0)) - (self.refunded or Decimal(0))


@dataclass(frozen=True)
class Task:
    """As the provider tells it; `account` is the program's name for it. `missing` of its outputs were not made. It was
    at work from when it `began` until it was `over`, in the provider's seconds."""

    id: str
    account: str
    prompt: str
    idempotency_key: str | None
    charged: Decimal
    net: Decimal
    outcome: str
    ended: bool
    outputs: int
    missing: int = 0
    began: float = 0.0
    over: float = 0.0


@dataclass(frozen=True)
class Step:
    """An event as it was logged."""

    job_id: int
    event: str
    source: str
    target: str


@dataclass(frozen=True)
class Try:
    """One intent to pay, as the queue tells it. Times in seconds, None for what has not been."""

    job_id: int
    account: str
    idempotency_key: str | None
    outcome: str | None
    code: str | None
    brink: float | None
    answered: float | None


@dataclass(frozen=True)
class File:
    """A file below the output folder. `whole`: it has, to the byte, what the provider makes for its mark."""

    path: Path
    size: int
    sha256: str
    task_id: str | None = None
    index: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class Seen:
    """What an account's provider saw of it."""

    in_flight: int
    per_minute: int
    refused: int


@dataclass(frozen=True)
class Stop:
    """A run that was told to end by a signal, once or twice (`again`: so many wall seconds after the first).

    `seconds` until it had ended, since the first signal; `code` is 137 where it had to be killed.
    """

    number: int
    seconds: float
    code: int
    again: float | None = None


@dataclass(frozen=True)
class Evidence:
    """All there is to judge by. `last` is the last run, if nothing went wrong in it any more.

    `wanted`: how many jobs the manifests ask for, by account and line. `tries` are those of the queue, `sent` the keys
    (with their accounts) under which the providers have seen orders, `submits` how many each has seen. `asked`: the
    tasks (account and id) that the program asked its provider about. `hits`: where a key was found. `touched`: what is
    no longer as its owner left it, or should not have been written.
    """

    wanted: Mapping[tuple[str, str], int]
    jobs: Sequence[Job]
    tasks: Sequence[Task]
    steps: Sequence[Step]
    tries: Sequence[Try]
    sent: frozenset[tuple[str, str]]
    submits: Mapping[str, int]
    files: Sequence[File]
    sidecars: Sequence[Path]
    strays: Sequence[Path]
    seen: Mapping[str, Seen]
    limits: Mapping[str, Limits]
    net: Mapping[str, Decimal]
    unsettled: Mapping[str, Decimal]
    remarks: Sequence[str]
    ended: Sequence[Ended]
    last: Ended | None = None
    fired: Mapping[str, int] = field(default_factory=dict)
    asked: frozenset[tuple[str, str]] = frozenset()
    stops: Sequence[Stop] = ()
    hits: Sequence[str] = ()
    touched: Sequence[str] = ()


def jobs(told: Sequence[Mapping[str, Any]]) -> list[Job]:
    """From `runner jobs --json`."""
    return [
        Job(
            int(job["id"]), job["key"], job["account"], job["state"], job["task_id"], job["idempotency_key"],
            job["attempts"], job["variables"]["line"], (job["error"] or {}).get("kind"),
            (job["error"] or {}).get("code"),
            datetime.fromisoformat(job["updated_at"]).timestamp(),
            _credits(job["credits"]["estimated"]), _credits(job["credits"]["charged"]),
            _credits(job["credits"]["refunded"]),
            tuple(Output(Path(o["path"]), o["bytes"], o["sha256"]) for o in job["outputs"]),
        )
        for job in told
    ]  # fmt: skip


def _credits(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def tasks(ledger: Mapping[str, Any], accounts: Mapping[str, str]) -> list[Task]:
    """From the providers' ledger; `accounts` tells the program's name of each fingerprint."""
    return [
        Task(
            task["id"], accounts.get(fingerprint, fingerprint), task["prompt"], task["idempotency_key"],
            Decimal(task["charged"]), Decimal(task["net"]), task["outcome"], task["state"] in ("completed", "failed"),
            task["outputs"], task["missing"], task["created_at"], task["finishes_at"],
        )
        for provider in ledger["providers"].values()
        for fingerprint, account in provider["accounts"].items()
        for task in account["tasks"]
    ]  # fmt: skip


def seen(observed: Mapping[str, Any], accounts: Mapping[str, str]) -> dict[str, Seen]:
    return {
        accounts.get(fingerprint, fingerprint): Seen(
            account["max_in_flight"], account["max_requests_60s"], account["rate_limited"]
        )
        for provider in observed["accounts"].values()
        for fingerprint, account in provider.items()
    }


def asked(requests: Sequence[Mapping[str, Any]], accounts: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """The tasks that were asked for by their ids, from the providers' log of requests."""
    polls = (each for each in requests if each["point"] == "poll" and each["task_id"])
    return frozenset((accounts.get(each["account"], each["account"]), each["task_id"]) for each in polls)


def remarks(observed: Mapping[str, Any]) -> list[str]:
    """Leaked credentials and broken promises that the providers have noted."""
    noted = [(kind, remark) for kind in ("leaks", "violations") for remark in observed[kind]]
    return [f"{kind}: {remark['name']}: {remark['detail']}" for kind, remark in noted]


def sent(requests: Sequence[Mapping[str, Any]], accounts: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """The keys under which something was ordered, whatever became of it, from the providers' log of requests."""
    orders = (each for each in requests if each["point"] == "submit" and each["idempotency_key"])
    return frozenset((accounts.get(each["account"], each["account"]), each["idempotency_key"]) for each in orders)


def submits(requests: Sequence[Mapping[str, Any]], accounts: Mapping[str, str]) -> Counter[str]:
    """How many orders of each account arrived, whatever became of them."""
    return Counter(accounts.get(each["account"], each["account"]) for each in requests if each["point"] == "submit")


Read = Callable[[str, str], Sequence[Sequence[Any]]]  # the rows that a queue gives for a statement


def rows(queue: str, statement: str) -> list[Any]:
    """Of an SQLite queue that nobody works on."""
    with closing(sqlite3.connect(queue)) as connection:
        connection.execute("PRAGMA query_only = ON")
        return connection.execute(statement).fetchall()


def steps(queue: str, read: Read = rows) -> list[Step]:
    """The event log."""
    return [Step(*row) for row in read(queue, "SELECT job_id, event, source, target FROM events ORDER BY id")]


def tries(queue: str, read: Read = rows) -> list[Try]:
    sql = "SELECT job_id, account, idempotency_key, outcome, code, brink_at, answered_at FROM attempts ORDER BY id"
    return [Try(*row[:5], *map(_seconds, row[5:])) for row in read(queue, sql)]


def _seconds(stamp: int | None) -> float | None:
    return None if stamp is None else stamp / 1e6


BOOKS = ("jobs", "attempts", "events", "ledger", "outputs", "totals")


def books(queue: str) -> dict[str, list[Any]]:
    """All that the queue says of jobs and money."""
    return {table: rows(queue, f"SELECT * FROM {table} ORDER BY 1") for table in BOOKS}


def published(folder: Path) -> list[Path]:
    """Every published output: not the parts, not the sidecars, and no thumbnails, which do not count."""
    whole = [path for path in _below(folder) if path.suffix not in (".json", ".txt") and not _is_part(path)]
    return [path for path in whole if not THUMBNAIL.search(path.stem)]


def sidecars(folder: Path) -> list[Path]:
    return [path for path in _below(folder) if path.suffix == ".json" and not _is_part(path)]


def parts(folder: Path) -> list[Path]:
    return [path for path in _below(folder) if _is_part(path)]


def file(path: Path) -> File:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    mark = MARK.search(content)
    if mark is None:
        return File(path, len(content), digest)
    task, index = mark[1].decode(), int(mark[2])
    extension = {"jpeg": "jpg"}.get(path.suffix[1:], path.suffix[1:])
    return File(path, len(content), digest, task, index, digest in _possible(task, index, extension))


def _possible(task: str, index: int, extension: str) -> set[str]:
    if extension not in ("mp4", "png", "jpg", "webp"):
        return set()
    made = [render(task, index, extension, SIZES, version) for version in range(VERSIONS)]
    return {hashlib.sha256(each.read(0, each.length)).hexdigest() for each in made}


def is_whole(path: Path) -> bool:
    """Whether a published file has all its bytes, or a sidecar is whole JSON: so it must be at any instant."""
    return _is_json(path) if path.suffix == ".json" else file(path).whole


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def _is_part(path: Path) -> bool:
    return ".part" in path.suffixes or path.name.startswith(".")
