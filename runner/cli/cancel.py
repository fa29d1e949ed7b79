"""`runner cancel JOB…`: take back jobs that were not sent yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cli.app import EVERYDAY, Common, Job
from runner.cli.output import say

if TYPE_CHECKING:
    from runner.store.work import Work


async def cancel(job: Job, /, *more: Job, common: Common = EVERYDAY) -> int:
    """Cancel jobs that are waiting or queued.

    What was sent cannot be taken back: no provider documents a way to. All jobs named are checked first; if one cannot
    be cancelled, nothing is changed. A job that its manifest still asks for is queued again when that is run.
    """
    from runner.cli.decisions import decide, tell
    from runner.clock import Clock
    from runner.jobs import Change
    from runner.lifecycle import deciding
    from runner.store import open_store

    clock = Clock()
    async with open_store(common.db, clock) as store:

        async def decision(work: Work) -> Change | deciding.Declined:
            return deciding.cancel(work, clock.now())

        written = await decide(store, [job, *more], "be cancelled", decision)
    tell(written)
    if not common.quiet:
        say("running a manifest that still asks for a cancelled job queues it again")
    return 0
