"""The runner, put together as `runner run` does it; manifests with many rows; queues filled without a manifest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, text

from runner.cli.assembly import RunOptions, prepared, read_order
from runner.clock import Clock
from runner.engine import Engine
from runner.jobs import State
from runner.settings import Settings
from runner.store import Store

KEY = "sk-bench-0123456789abcdef"
AT_ONCE = 64
MODELS = {"seedance2ai": "seedance", "happyhorse": "doubao-seedance-2-0"}
SCENE = "a narrow alley under neon signs after the rain, steam above the manholes, a cat on a wet crate looking up"
MOTION = "slow dolly forward at the height of the knees, reflections tremble, one sign flickers, then all go out"
CHUNK = 50_000


def manifest(
    folder: Path, jobs: int, *, provider: str = "seedance2ai", concurrency: int = AT_ONCE,
    poll_interval: float | None = 0.001, limits: str = "",
) -> Path:  # fmt: skip
    """A manifest with one job and a table of `jobs` rows of some 300 bytes. No `poll_interval`: the default."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.csv").open("w") as file:
        file.write("shot,scene,motion\n")
        file.writelines(f'{n},"{SCENE}, shot {n}","{MOTION}, until second {n % 7}"\n' for n in range(jobs))
    every = "" if poll_interval is None else f", poll_interval: {poll_interval}"
    path = folder / "manifest.yaml"
    path.write_text(
        f"version: 1\nbatch: bench\n"
        f"providers:\n  {provider}: {{concurrency: {concurrency}{every}{limits}}}\n"
        f"jobs:\n  clip:\n    provider: {provider}\n    model: {MODELS[provider]}\n    rows: rows.csv\n"
        f'    prompt: "${{scene}}. ${{motion}}"\n    duration: 5\n'
        f'outputs: {{dir: out, name: "${{shot}}-${{key}}.${{ext}}"}}\n'
    )
    return path


def environment(base_urls: dict[str, str], keys: dict[str, str] | None = None) -> dict[str, str]:
    """The variables under which the command line finds keys and addresses."""
    found = {}
    for provider, url in base_urls.items():
        found[f"{provider.upper()}_BASE_URL"] = url
        found[f"{provider.upper()}_API_KEY"] = (keys or {}).get(provider, KEY)
    return found


@asynccontextmanager
async def engine(
    folder: Path, order: Path | None, variables: dict[str, str], clock: Clock | None = None
) -> AsyncIterator[Engine]:
    """An engine over the queue of this folder, with the jobs of a manifest in it; ready to run."""
    clock = clock or Clock()
    folder.mkdir(parents=True, exist_ok=True)
    options = RunOptions(
        str(folder / "queue.db"), Settings(variables, {}), speed=clock.speed,
        anchor=clock.anchor if clock.speed != 1.0 else None,
    )  # fmt: skip
    async with prepared(read_order(order) if order else None, options, clock) as made:
        yield made


async def run_to_the_end(made: Engine, jobs: int) -> float:
    """Runs an engine whose jobs must all succeed; seconds of its clock until the last file was published."""
    began = made.store.clock.timestamp()
    await made.run()
    ended, states = await made.store.read(_outcome)
    if states != {State.SUCCEEDED.value: jobs}:
        raise RuntimeError(f"not all of {jobs} jobs succeeded: {states}")
    return ended - began


def _outcome(connection: Connection) -> tuple[float, dict[str, int]]:
    ended = connection.execute(text("SELECT max(published_at) FROM outputs")).scalar_one()
    states = connection.execute(text("SELECT state, count(*) FROM jobs GROUP BY state"))
    return ended / 1e6, dict(states.tuples().all())


async def fill(made: Engine, *, queued: int = 0, running: int = 0, urls: Sequence[str] = ()) -> None:
    """Multiplies the first job of a queue: so many queued ones, so many with a task, and a download for each URL.

    What a manifest would need minutes for; SQLite only. The first job itself stays queued.
    """
    store = made.store
    await _copies(store, queued, "queued", "q")
    await _copies(store, running, "running", "r")
    await _copies(store, len(urls), "downloading", "d")
    await store.write(_give_outputs, urls)


async def _copies(store: Store, many: int, state: str, mark: str) -> None:
    for first in range(0, many, CHUNK):
        await store.write(_copy, first, min(many, first + CHUNK), state, mark, store.clock.now())


def _copy(connection: Connection, first: int, last: int, state: str, mark: str, now: datetime) -> None:
    at = round(now.timestamp() * 1e6)
    names = [row[1] for row in connection.execute(text("PRAGMA table_info(jobs)")) if row[1] != "id"]
    changed = {"key": f"printf('{mark}%063x', n)", "output": f"printf('out/{mark}%d.mp4', n)", "state": f"'{state}'"}
    if state != "queued":
        changed |= {"task_id": f"printf('task-{mark}%d', n)", "attempts": "1", "accepted_at": str(at)}
    values = ", ".join(changed.get(name, name) for name in names)
    numbers = "WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :last)"
    template = "(SELECT * FROM jobs WHERE id = (SELECT min(id) FROM jobs))"
    connection.execute(
        text(f"{numbers} INSERT INTO jobs ({', '.join(names)}) SELECT {values} FROM {template}, numbers"),
        {"first": first, "last": last},
    )
    if state != "queued":
        _give_attempts(connection, at)


def _give_attempts(connection: Connection, at: int) -> None:
    """Whoever has a task was submitted once, by the account's key of today."""
    connection.execute(
        text("INSERT INTO attempts (job_id, account, generation, idempotency_key, fingerprint, path, body, intent_at, "
             "brink_at, answered_at, outcome, task_id) SELECT j.id, j.account, 1, j.key, a.fingerprint, "
             "'/api/v1/video/seedance', j.spec, :at, :at, :at, 'accepted', j.task_id "
             "FROM jobs j JOIN accounts a ON a.name = j.account WHERE j.task_id IS NOT NULL AND j.attempt_id IS NULL"),
        {"at": at},
    )  # fmt: skip
    connection.execute(
        text("UPDATE jobs SET attempt_id = (SELECT id FROM attempts WHERE job_id = jobs.id) "
             "WHERE task_id IS NOT NULL AND attempt_id IS NULL")
    )  # fmt: skip


def _give_outputs(connection: Connection, urls: Sequence[str]) -> None:
    waiting = connection.execute(text("SELECT id FROM jobs WHERE state = 'downloading' ORDER BY id")).scalars().all()
    for job, url in zip(waiting, urls, strict=True):
        statement = text("INSERT INTO outputs (job_id, number, url) VALUES (:job, 0, :url)")
        connection.execute(statement, {"job": job, "url": url})


async def silence(made: Engine, hours: float = 1.0) -> None:
    """From now on nothing is due for the accounts of this queue."""
    until = made.store.clock.now() + timedelta(hours=hours)
    await made.store.write(_block, round(until.timestamp() * 1e6))
    for lane in made.lanes:
        lane.news.set()


def _block(connection: Connection, until: int) -> None:
    connection.execute(text("UPDATE accounts SET blocked_until = :until"), {"until": until})
