"""`runner retry JOB…`: another try for jobs that failed, or whose files could not be had."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from runner.cli.app import EVERYDAY, Common, Job
from runner.cli.output import credits, warn

if TYPE_CHECKING:
    from runner.store.work import Work


async def retry(job: Job, /, *more: Job, common: Common = EVERYDAY) -> int:
    """Queue failed jobs again: each is a new order, and is paid again. Or fetch files again that could not be had.

    A job that is held because its answer got lost is not retried: decide with runner resolve. All jobs named are
    checked first; if one cannot be retried, nothing is changed.
    """
    from runner.cli.decisions import decide, tell
    from runner.clock import Clock
    from runner.jobs import Change
    from runner.lifecycle import deciding
    from runner.lifecycle.hosting import contents_of
    from runner.store import hosted, open_store
    from runner.store.work import outputs_of

    clock = Clock()
    async with open_store(common.db, clock) as store:

        async def decision(work: Work) -> Change | deciding.Declined:
            return deciding.retry(work, await store.read(outputs_of, work.id), clock.now())

        written = await decide(store, [job, *more], "be retried", decision)
        for work, _ in written:  # its task may have failed because what it was given is gone
            await store.write(hosted.doubt, work.account, contents_of(work))
    tell(written)
    for _, change in written:
        if lost := change.data.get("not_refunded"):
            warn(f"job {change.job_id}: {credits(Decimal(lost))} credits of its failed task were not refunded so far; "
                 "nobody asks for them any more")  # fmt: skip
    return 0
