"""`runner backup PATH`: a copy of the queue, whole and of one moment, also while a runner is at work on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from runner.cli import output
from runner.cli.app import EVERYDAY, Common, Json


async def backup(
    path: Annotated[Path, Parameter(name="PATH", help="Where the copy goes: a file that does not exist yet.")],
    /,
    *,
    json: Json = False,
    common: Common = EVERYDAY,
) -> int:
    """Copy the queue to a file, also while runner run is at work on it. Never copy a queue by other means.

    The copy is checked before it gets its name. A queue on PostgreSQL is backed up with pg_dump. To go back to a
    backup, put it in the place of the queue while nothing runs (and nothing of the old one beside it), or name it with
    --db: orders that were sent since are not in it, so that the first run asks for --from-backup.
    """
    import anyio

    from runner.clock import Clock
    from runner.store import read_store
    from runner.store.backup import back_up
    from runner.store.engines import is_sqlite, parse

    clock = Clock()
    if is_sqlite(parse(common.db)):
        async with read_store(common.db, clock):  # it is a queue of ours, of today's schema
            pass
    made = await anyio.to_thread.run_sync(back_up, common.db, path, clock.now())
    if json:
        output.emit_json({"path": made.path, "bytes": made.size, "jobs": made.jobs})
    else:
        output.line(f"{made.path}: {made.jobs} jobs, {made.size} bytes")
    return 0
