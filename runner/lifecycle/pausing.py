"""What the refusal of an order means for its whole account: a pause, a stop, or one model less.

The same refusal may come as an HTTP answer or as a task that failed; both end here.
"""

from __future__ import annotations

from runner.errors import ErrorKind
from runner.exchange import Action, Refusal
from runner.lifecycle.desk import Desk, in_our_words
from runner.store import accounts as account_rows
from runner.store.work import Work

REDIRECT = "redirect"  # the code of a 3xx on a paid request: it also closes the account


async def move_account(desk: Desk, work: Work, refusal: Refusal) -> None:
    """Moves the account for everyone. Nothing to do for what only concerns this job."""
    if refusal.action is Action.STOP_MODEL:
        await desk.store.write(account_rows.stop_model, desk.account, work.model)
    elif refusal.action is Action.STOP:
        await desk.stop(refusal.message, in_our_words(refusal))
    elif refusal.code == REDIRECT:
        await desk.stop(f"a paid request was redirected: {refusal.message}", "a paid request was redirected")
    elif refusal.kind in (ErrorKind.INSUFFICIENT_CREDITS, ErrorKind.UNAVAILABLE) or refusal.action is Action.SLOT:
        for_slot = refusal.action is Action.SLOT
        await desk.pause(refusal.kind, refusal.message, refusal.wait, for_slot=for_slot, told=in_our_words(refusal))
