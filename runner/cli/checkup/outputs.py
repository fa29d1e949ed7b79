"""Published files, read again: no link is followed, and nothing is written."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from runner import health
from runner.clock import Clock
from runner.errors import LocalError
from runner.files import Descriptor, InTheWay, open_without_links
from runner.health.machine import LOCAL
from runner.health.outputs import Recorded, Standing, Stands, output

if TYPE_CHECKING:
    from runner.store.checkup import PublishedFile

PIECE = 1 << 20  # bytes


async def verify(db: str, clock: Clock) -> list[health.Check]:
    """A check for every file that is not as it was fetched, and one that counts those that are."""
    found: list[health.Check] = []
    whole = 0
    try:
        async for page in _pages(db, clock):
            judged = await anyio.to_thread.run_sync(_judge_all, page)
            found += [check for check in judged if check is not None]
            whole += judged.count(None)
    except LocalError as error:
        return [*found, health.trouble("outputs", "all", f"not all were looked at: {error.message}", error.hint, LOCAL)]
    return [*found, health.ok("outputs", "all", f"{whole} files are as they were fetched")]


async def _pages(db: str, clock: Clock) -> AsyncIterator[Sequence[PublishedFile]]:
    """Raises LocalError for a queue in which they cannot be read, or go round in a circle."""
    from runner.store import read_store
    from runner.store.checkup import published_after
    from runner.store.engines import DAMAGED

    last = 0
    async with read_store(db, clock) as store:
        while page := await store.read(published_after, last):
            if page[-1].id <= last:
                raise LocalError("the queue is damaged", DAMAGED)
            yield page
            last = page[-1].id


def _judge_all(files: Sequence[PublishedFile]) -> list[health.Check | None]:
    return [_judged(file) for file in files]


def _judged(file: PublishedFile) -> health.Check | None:
    recorded = Recorded(file.path, file.job_id, file.job, file.task_id, file.size, file.sha256)
    return output(recorded, look_at(Path(file.path), Path(file.root)))


def look_at(path: Path, root: Path) -> Standing:
    """What stands there now. The way to `root` may hold links, it is the person's own word; what is below may not."""
    below = path.relative_to(root) if path.is_relative_to(root) else None
    try:
        descriptor = open_without_links(root.resolve() / below if below else path)
    except FileNotFoundError:
        return Standing(Stands.NOTHING)
    except InTheWay:
        return Standing(Stands.ANOTHER)
    except OSError:
        return Standing(Stands.UNREADABLE)
    try:
        return _read(descriptor)
    except OSError:
        return Standing(Stands.UNREADABLE)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Standing:
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        return Standing(Stands.ANOTHER)
    source, digest = Descriptor(descriptor, state.st_size), sha256()
    offset = 0
    while piece := source.read(offset, PIECE):
        digest.update(piece)
        offset += len(piece)
    return Standing(Stands.FILE, offset, digest.hexdigest())
