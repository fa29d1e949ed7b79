"""Published files, read again: no link is followed, and nothing is written."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from runner import health
from runner.clock import Clock
from runner.files import Descriptor, InTheWay, open_without_links
from runner.health.outputs import Recorded, Standing, Stands, output

if TYPE_CHECKING:
    from runner.store.checkup import PublishedFile

PIECE = 1 << 20  # bytes


async def verify(db: str, clock: Clock) -> list[health.Check]:
    """A check for every file that is not as it was fetched, and one that counts those that are."""
    from runner.store import read_store
    from runner.store.checkup import published_after

    found: list[health.Check] = []
    last = whole = 0
    async with read_store(db, clock) as store:
        while page := await store.read(published_after, last):
            judged = await anyio.to_thread.run_sync(_judge_all, page)
            found += [check for check in judged if check is not None]
            whole += judged.count(None)
            last = page[-1].id
    return [*found, health.ok("outputs", "all", f"{whole} files are as they were fetched")]


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
