"""The queue: whether it is whole, where it lies, and what of it needs a person."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from runner import health
from runner.cli import evidence
from runner.cli.decisions import title
from runner.cli.output import local
from runner.cli.status import TOLD, account_lines
from runner.clock import Clock
from runner.errors import LocalError, NoQueue
from runner.health import machine
from runner.health.machine import LOCAL
from runner.jobs import State

if TYPE_CHECKING:
    from runner.store import Store
    from runner.store.checkup import Server
    from runner.store.queries import AccountRow
    from runner.store.work import Work

PERSON, PAUSED = 4, 5  # exit codes
SHOWN = 20  # jobs of a kind; the rest is a count


@dataclass(frozen=True, slots=True)
class Seen:
    """What the queue at `db` holds that matters here. `sound`: nothing is wrong with it."""

    db: str
    sound: bool
    salt: bytes
    rows: Sequence[AccountRow]
    fingerprints: Mapping[str, str | None]
    unfinished: frozenset[str]
    folders: Sequence[str]
    states: Mapping[State, int]
    held: Sequence[Work]
    overdue: Sequence[Work]


async def look(db: str, clock: Clock) -> tuple[Seen | None, list[health.Check]]:
    """What there is, and whether it is whole. Nothing is written, and whoever works on it is not disturbed."""
    from runner.store import read_store
    from runner.store.engines import database_path, is_sqlite, parse

    url = parse(db)
    name = str(database_path(url)) if is_sqlite(url) else f"the database {url.database!r}"
    found: list[health.Check] = []
    try:
        async with read_store(db, clock) as store:
            found.append(health.ok("schema", name, "a queue of this program's version"))
            found += [await _integrity(store, name)] if store.sqlite else await _server(store, name)
            found += await _origin(store, name)
            return await _seen(store, db, sound=all(not check.exit_code for check in found)), found
    except NoQueue:
        return None, [health.ok("queue", name, "there is none yet; a run makes it")]
    except LocalError as error:
        return None, [*found, health.trouble("queue", name, error.message, error.hint, LOCAL)]


async def _integrity(store: Store, name: str) -> health.Check:
    from runner.store import commits
    from runner.store.checkup import flaws
    from runner.store.engines import DAMAGED, database_path

    await store.read(commits.check, database_path(store.url))
    found = await store.read(flaws)
    if not found:
        return health.ok("integrity", name, "every page, row and link is whole")
    more = f" (and {len(found) - 1} more)" if found[1:] else ""
    return health.trouble("integrity", name, f"it is damaged: {found[0]}{more}", DAMAGED, LOCAL)


async def _origin(store: Store, name: str) -> list[health.Check]:
    from runner.store import facts

    copied = await store.read(facts.copied_at)
    if copied is None:
        return []
    told = f"it is a backup of {copied:%Y-%m-%d %H:%M} UTC, and does not know what was ordered since"
    advice = "look at the providers, runner cancel JOB what is queued and was ordered, then run once with --from-backup"
    return [health.warning("backup", name, told, advice)]


async def _server(store: Store, name: str) -> list[health.Check]:
    from runner.store.checkup import server

    found: Server = await store.read(server)
    return [health.ok("server", name, f"PostgreSQL {found.version} answers"),
            machine.durability(name, found.synchronous_commit, found.fsync)]  # fmt: skip


async def _seen(store: Store, db: str, *, sound: bool) -> Seen:
    from runner.store import checkup, facts
    from runner.store.queries import account_rows, counts

    states: dict[State, int] = {}
    for count in await store.read(counts):
        states[count.state] = states.get(count.state, 0) + count.jobs
    return Seen(
        db, sound, await store.read(facts.salt), await store.read(account_rows),
        await store.read(checkup.fingerprints), frozenset(await store.read(checkup.unfinished)),
        await store.read(checkup.output_folders), states, await store.read(checkup.in_state, State.HELD, SHOWN),
        await store.read(checkup.overdue, store.clock.now(), SHOWN),
    )  # fmt: skip


# --- where it lies


def places(db: str, folders: Iterable[Path]) -> list[health.Check]:
    """The places of the queue (if it is a file) and of the outputs, each folder once."""
    from runner.store.engines import database_path, is_sqlite, parse

    url = parse(db)
    found = _queue_place(database_path(url)) if is_sqlite(url) else []
    told = {check.subject for check in found if check.check == "space"}
    for folder in sorted({_standing(path) for path in folders if str(_standing(path)) not in told}):
        found += [_space(folder), machine.writable(str(folder), may_write=os.access(folder, os.W_OK | os.X_OK))]
    return found


def _queue_place(queue: Path) -> list[health.Check]:
    from runner.store import place

    folder = _standing(queue.parent)
    kind = place.file_system(folder)
    files = [path for path in (queue, Path(f"{queue}-wal"), Path(f"{queue}-shm")) if path.is_file()]
    may_write = all(os.access(path, os.W_OK) for path in (folder, *files)) and _may_be_made(queue.parent)
    return [
        machine.sqlite(sqlite3.sqlite_version_info),
        machine.place(str(folder), kind, network=kind in place.NETWORK, synced=place.synced(folder),
                      memory=kind in place.MEMORY),
        _space(folder),
        machine.writable(str(queue), may_write=may_write),
        *(machine.modes(str(path), path.stat().st_mode) for path in files),
    ]  # fmt: skip


def _may_be_made(folder: Path) -> bool:
    """Nothing but folders is on the way to it."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path)).is_dir()


def _space(folder: Path) -> health.Check:
    return machine.space(str(folder), shutil.disk_usage(folder).free)


def _standing(folder: Path) -> Path:
    """The folder, or the nearest above it that there is already."""
    absolute = folder.expanduser().absolute()
    return next(path for path in (absolute, *absolute.parents) if path.is_dir())


# --- what needs a person


def standing(seen: Seen, now: datetime) -> list[health.Check]:
    """Held jobs, overdue tasks, open questions, failures, and accounts that do not go on, in the words of `status`."""
    return [*_held(seen), *(_overdue(work, now) for work in seen.overdue), *_counted(seen), *_accounts(seen, now)]


def _held(seen: Seen) -> list[health.Check]:
    found = [_held_one(work) for work in seen.held]
    if more := seen.states.get(State.HELD, 0) - len(found):
        found.append(health.trouble("held", f"{more} more", f"{more} {TOLD[State.HELD]}", "", PERSON))
    return found


def _held_one(work: Work) -> health.Check:
    known = evidence.gather(work)
    decide = "; ".join(f"{command} ({meaning})" for command, meaning in known.commands)
    return health.trouble("held", title(work), known.why, f"look for {known.look_for}; then {decide}", PERSON)


def _overdue(work: Work, now: datetime) -> health.Check:
    standing = work.standing
    found = f"task {standing.task_id} is past its timeout: accepted {local(standing.accepted_at, now)}, and still "
    advice = f"see what became of it at the provider; runner run asks hourly. More: runner show {work.id}"
    return health.trouble("overdue", title(work), found + (standing.status or "not ended"), advice, PERSON)


def _counted(seen: Seen) -> list[health.Check]:
    told = [state for state in TOLD if state is not State.HELD and seen.states.get(state)]
    return [health.warning(state.value, "jobs", f"{seen.states[state]} {TOLD[state]}", "") for state in told]


def _accounts(seen: Seen, now: datetime) -> list[health.Check]:
    found: list[health.Check] = []
    for row in seen.rows:
        for number, line in enumerate(account_lines(row, now)):
            stopped = number == 0 and row.stopped is not None
            found.append(health.trouble("account", row.name, line, "", PAUSED) if stopped
                         else health.warning("account", row.name, line, ""))  # fmt: skip
    return found
