"""P3: from a table into the queue (read, expand, hash, check, insert), against raw `executemany` of the finished rows
into the same tables; memory meanwhile, and with a full queue; a manifest of many entries against the YAML loader alone.

What is timed is what `runner run` does between the command and the first request, less what it does for a manifest of
one job.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from runner.cli.assembly import read_order
from runner.clock import Clock
from runner.manifest import read_manifest
from runner.store import open_store
from tests.bench.children import in_child, provider
from tests.bench.measure import peak_mb, rounds_of, seconds
from tests.bench.p02_changes import prepare
from tests.bench.queues import MOTION, SCENE, engine, environment, manifest
from tests.bench.results import Line, Spread, at_most, ratio, spreads
from tests.bench.sizes import Size

NOWHERE = environment({"seedance2ai": "http://127.0.0.1:9"})
CHUNK = 10_000
FEW = 1000


def measure(size: Size, rounds: int) -> Sequence[Line]:
    return [*_enqueue(size.table_rows, size.hold_seconds, rounds), *_yaml(size.yaml_entries, rounds)]


def _enqueue(rows: int, hold: float, rounds: int) -> Sequence[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest(folder / "many", rows, concurrency=8)
        numbers = iter(range(1_000_000))
        found = rounds_of(
            {
                "runner": lambda: in_child("p03_enqueue", "enqueued", folder=folder, into=next(numbers)),
                "raw": lambda: in_child("p03_enqueue", "inserted", folder=folder, into=next(numbers)),
            },
            rounds,
        )
        took = {name: [one["seconds"] for one in each] for name, each in found.items()}
        peaks = {name: [one["peak_mb"] for one in each] for name, each in found.items()}
        shares = {part: Spread(tuple(one[part] for one in found["runner"]), "s") for part in ("read", "insert")}
        return [
            ratio("P3", f"enqueue {rows:,} jobs from a table, against raw executemany", took["runner"], took["raw"],
                  at_most(1.6), {**spreads("s", took), **shares}),
            Line("P3", "… most memory meanwhile, MB", Spread(tuple(peaks["runner"]), "MB"), at_most(120),
                 spreads("MB", peaks, "raw")),
            _full_queue(folder, rows, hold, rounds),
        ]  # fmt: skip


def enqueued(folder: str, into: int) -> dict[str, float]:
    """In a child: the table into a queue, the way `runner run` goes."""
    for warm in range(2):
        few = manifest(Path(folder, f"few-{into}-{warm}"), 1)
        alone = asyncio.run(_go(few, few.parent))
    read, insert = asyncio.run(_go(Path(folder, "many", "manifest.yaml"), Path(folder, f"runner-{into}")))
    return {"seconds": read + insert - sum(alone), "read": read, "insert": insert}


async def _go(order: Path, into: Path) -> tuple[float, float]:
    """Seconds to read and check the manifest (a first pass over its table), and to put it into the queue (a second)."""
    read = seconds(lambda: read_order(order))
    began = time.perf_counter()
    async with engine(into, order, NOWHERE):
        whole = time.perf_counter() - began
    return read, whole - read


def inserted(folder: str, into: int) -> dict[str, float]:
    """In a child: the rows of a finished queue, into an empty one of the same tables, 10,000 in a transaction."""
    source = sqlite3.connect(next(Path(folder).glob("runner-*/queue.db")))
    target = asyncio.run(_empty_queue(Path(folder, f"raw-{into}")))
    batch = source.execute("SELECT * FROM batches").fetchall()
    target.execute("BEGIN IMMEDIATE")
    target.executemany(f"INSERT INTO batches VALUES ({', '.join('?' * len(batch[0]))})", batch)
    target.execute("COMMIT")
    rows = source.execute("SELECT * FROM jobs ORDER BY id")
    statement = f"INSERT INTO jobs VALUES ({', '.join('?' * len(rows.description))})"
    spent = 0.0
    while chunk := rows.fetchmany(CHUNK):
        spent += seconds(lambda chunk=chunk: _insert(target, statement, chunk))
    return {"seconds": spent}


def _insert(target: sqlite3.Connection, statement: str, chunk: Sequence[Any]) -> None:
    target.execute("BEGIN IMMEDIATE")
    target.executemany(statement, chunk)
    target.execute("COMMIT")


async def _empty_queue(folder: Path) -> sqlite3.Connection:
    folder.mkdir()
    async with open_store(str(folder / "queue.db"), Clock(), own=True):
        pass
    connection = sqlite3.connect(folder / "queue.db")
    prepare(connection)
    return connection


def _full_queue(folder: Path, rows: int, hold: float, rounds: int) -> Line:
    """A run over a full queue against one over a short one: 8 tasks in flight that never end, the rest waits."""
    manifest(folder / "few", min(FEW, rows), concurrency=8)
    few = folder / "queue-of-few"
    asyncio.run(_go(folder / "few" / "manifest.yaml", few))
    many = next(folder.glob("runner-*"))
    with provider(polls=0) as url:
        found = rounds_of(
            {
                "many": lambda: in_child("p03_enqueue", "held", folder=many, url=url, seconds=hold)["peak_mb"],
                "few": lambda: in_child("p03_enqueue", "held", folder=few, url=url, seconds=hold)["peak_mb"],
            },
            rounds,
        )
    more = Spread(tuple(a - b for a, b in zip(found["many"], found["few"], strict=True)), "MB")
    return Line("P3", f"… more memory with {rows:,} queued than with {min(FEW, rows):,}, MB", more, at_most(20),
                spreads("MB", found))  # fmt: skip


def held(folder: str, url: str, seconds: float) -> dict[str, float]:
    """In a child: works on a queue for a moment."""
    asyncio.run(_hold(Path(folder), url, seconds))
    return {"at_end": peak_mb()}


async def _hold(folder: Path, url: str, seconds: float) -> None:
    async with engine(folder, None, environment({"seedance2ai": url})) as made:
        running = asyncio.create_task(made.run())
        await asyncio.sleep(seconds)
        made.stop.set()
        await running


def _yaml(entries: int, rounds: int) -> Sequence[Line]:
    """Entries as rows of one job, and as jobs of their own."""
    with tempfile.TemporaryDirectory() as name:
        lines = []
        for what, text in (("rows", _with_rows(entries)), ("jobs", _with_jobs(entries))):
            path = Path(name, f"{what}.yaml")
            path.write_text(text)
            took = rounds_of(
                {
                    "runner": lambda path=path: seconds(lambda: read_manifest(path)),
                    "CSafeLoader": lambda text=text: seconds(lambda: yaml.load(text, yaml.CSafeLoader)),
                },
                rounds,
            )
            title = f"a manifest of {entries:,} {what}, read and checked, against CSafeLoader"
            lines.append(ratio("P3", title, took["runner"], took["CSafeLoader"], at_most(1.1), spreads("s", took)))
        return lines


def _with_rows(entries: int) -> str:
    rows = "".join(f'      - {{shot: "{n}", scene: "{SCENE}, shot {n}", motion: "{MOTION}"}}\n' for n in range(entries))
    return (
        "version: 1\nbatch: bench\njobs:\n  clip:\n    provider: seedance2ai\n    model: seedance\n"
        f'    prompt: "${{scene}}. ${{motion}}"\n    rows:\n{rows}'
    )


def _with_jobs(entries: int) -> str:
    jobs = "".join(
        f"  clip-{n}:\n    provider: seedance2ai\n    model: seedance\n    duration: 5\n"
        f'    prompt: "{SCENE}, shot {n}. {MOTION}"\n'
        for n in range(entries)
    )
    return f"version: 1\nbatch: bench\njobs:\n{jobs}"
