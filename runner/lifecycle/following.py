"""Following a task until it ends: one by one, or all at once where the provider has a list."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import anyio
import structlog

from runner.errors import ErrorKind, Fenced
from runner.exchange import Action, Listed, Page, Phase, Refusal, Report
from runner.jobs import Change, Event, State
from runner.ledger import as_text, is_dear
from runner.lifecycle.desk import Desk
from runner.lifecycle.pausing import move_account
from runner.store import accounts as account_rows
from runner.store import prices
from runner.store.intents import Claim
from runner.store.work import Work
from runner.verdicts.polling import after_poll, after_settling

# A list may be a stale copy that only a question about the task itself brings up to date (happyhorse, "GET
# /videos/:id").
ALONE_EVERY = timedelta(seconds=60)
ENDED = frozenset({Event.FINISHED, Event.TASK_FAILED, Event.TASK_CANCELLED})
MADE = frozenset({State.DOWNLOADING, State.SUCCEEDED, State.PARTIAL})
KEPT_FOR_SUBMISSIONS = 6  # requests of the window that such questions leave alone
log = structlog.get_logger("runner")


async def poll(desk: Desk, work: Work, claim: Claim) -> None:
    """Asks for one task and records what the provider says."""
    answer = await _ask(desk, work)
    desk.asked_alone[work.id] = desk.now()
    await _record(desk, work, claim, answer)


async def _ask(desk: Desk, work: Work) -> Report | Refusal:
    attempt = work.attempt
    assert attempt is not None, "a followed job has an attempt"
    return await desk.ask_provider(lambda ask: desk.provider.poll(ask, attempt.path, work.standing.task_id or ""))


async def _record(desk: Desk, work: Work, claim: Claim, answer: Report | Refusal) -> None:
    if not desk.trusted and await _still_distrusted(desk, work, answer):
        answer = replace(answer, action=Action.LATER) if isinstance(answer, Refusal) else answer
    change = after_poll(desk.question(work, claim), answer)
    if change.event is not Event.POLLED:
        desk.asked_alone.pop(work.id, None)
    await _record_with_price(desk, work, change, answer)


async def _record_with_price(desk: Desk, work: Work, change: Change, answer: Report | Refusal) -> None:
    await _learn_price(desk, work, change)
    if change.event is Event.TASK_REFUSED and isinstance(answer, Report) and answer.error is not None:
        await move_account(desk, work, answer.error)
    elif change.event in ENDED and desk.paused:
        await desk.store.write(account_rows.task_ended, desk.account)
    await desk.record(change)


async def _learn_price(desk: Desk, work: Work, change: Change) -> None:
    """What an order turned out to cost, however late that is told, prices the next ones of its shape where no document
    does, and where it is more than the document says: a budget is then kept with what is really charged."""
    attempt = work.attempt
    if attempt is None or change.standing.state not in MADE:
        return
    charged, expected = attempt.bill.after(change.entries).charged, desk.dear.get(work.shape, attempt.priced)
    dear = is_dear(expected, charged)
    if not charged or not (dear or attempt.priced is None or work.shape in desk.dear):
        return
    if dear:
        say = {"job": work.id, "expected": as_text(expected), "charged": as_text(charged)}
        log.warning("charged more than expected", account=desk.account, **say, hint="a budget counts the next at that")
    if attempt.priced is not None:
        desk.dear[work.shape] = charged
    await desk.store.write(prices.learn, desk.now(), desk.provider.name, work.shape, charged)


async def _still_distrusted(desk: Desk, work: Work, answer: Report | Refusal) -> bool:
    """Tasks in flight were paid with another key. If today's key may see one, it is the same account; if it is told
    that there is no such task, it is somebody else's, and nothing more may be sent."""
    if work.attempt is None or work.attempt.fingerprint == desk.fingerprint:
        return False
    if isinstance(answer, Report):
        desk.trusted = True
        return False
    if answer.action is Action.NOT_FOUND:
        why = "tasks in flight were paid with another key, and this key does not know them"
        await desk.stop(why)
    return True


async def poll_list(desk: Desk, pairs: Sequence[tuple[Work, Claim]], pages: Sequence[int | None]) -> None:
    """Asks for many tasks by the pages of the provider's list. What the list leaves open is asked alone, as far as the
    window allows; the rest waits for the next list."""
    listed = await _walk(desk, pages)
    late: list[tuple[Work, Claim]] = []
    async with anyio.create_task_group() as group:  # together, so that they share a commit
        for work, claim in pairs:
            answer = _told(desk, work, listed)
            if answer is None:
                late.append((work, claim))
            else:
                group.start_soon(unless_fenced, _record(desk, work, claim, answer))
    late.sort(key=lambda pair: desk.asked_alone.get(pair[0].id, pair[0].created_at))
    for work, claim in late:
        await unless_fenced(_ask_alone(desk, work, claim))


def _told(desk: Desk, work: Work, listed: dict[str, Listed] | Refusal) -> Report | Refusal | None:
    """What the list says of a task; None where the task must be asked itself: a list that is refused says nothing
    about any task, unless it is the account that is refused."""
    if isinstance(listed, Refusal):
        return listed if listed.action is Action.STOP or listed.kind is ErrorKind.RATE_LIMITED else None
    found = listed.get(work.standing.task_id or "")
    return None if found is None or _wants_asking(desk, work, found.report) else found.report


async def _walk(desk: Desk, pages: Sequence[int | None]) -> dict[str, Listed] | Refusal:
    """The tasks on the first pages of the list, by id; a refusal if not even the first page came."""
    found: dict[str, Listed] = {}
    try:
        for number, _ in enumerate(pages, start=1):
            answer = await page(desk, number)
            if isinstance(answer, Refusal):
                return found or answer
            found.update({item.task_id: item for item in answer.items})
            if not answer.more:
                break
        return found
    finally:  # the pages that were not needed too: a request without an end would count in its window for ever
        for request in pages:
            await desk.answered(request)


async def page(desk: Desk, number: int) -> Page | Refusal:
    """One page of the provider's history."""
    history = desk.provider.history
    assert history is not None, "only a provider with a history is listed"
    answer = await desk.ask_provider(lambda ask: history(ask, number))
    if isinstance(answer, Refusal) and answer.action is Action.NOT_FOUND:
        return replace(answer, action=Action.LATER, kind=ErrorKind.UNAVAILABLE)  # a list has no task to not know
    return answer


def _wants_asking(desk: Desk, work: Work, report: Report) -> bool:
    """Whether the list's word is not enough: no status, an end without its files or its cost, or a copy that may be
    stale. One that is known to have ended is asked for a fresh URL, and the list may keep telling the old one."""
    if not report.status or work.standing.finished_at is not None:
        return True
    if report.phase is Phase.GOING:
        began = work.standing.accepted_at or work.created_at
        return desk.now() - desk.asked_alone.get(work.id, began) > ALONE_EVERY
    return report.used is None or (report.phase is Phase.DONE and not report.outputs)


async def _ask_alone(desk: Desk, work: Work, claim: Claim) -> None:
    keep = KEPT_FOR_SUBMISSIONS if work.standing.errors == 0 else 0
    allowed, request, _ = await desk.permitted(keep)
    if allowed:
        await poll(desk, work, replace(claim, request=request))
    else:
        now = desk.now()
        standing = replace(work.standing, due_at=now + max(desk.poll_interval, desk.every))
        await desk.record(Change(Event.POLLED, work.id, work.standing.state, claim.lease, now, standing))


async def unless_fenced(step: Awaitable[None]) -> None:
    """One job that has moved on must not keep the others of the list from being recorded."""
    with suppress(Fenced):
        await step


async def settle(desk: Desk, work: Work, claim: Claim) -> None:
    """Asks once more what an ended task cost in the end."""
    answer = await _ask(desk, work)
    change = after_settling(desk.question(work, claim), answer)
    await _learn_price(desk, work, change)
    await desk.record(change)
