"""Looking into a lost answer where the provider honours no key: its own history is searched for the task, and where
nobody else spends from the account its balance tells whether the order was charged.

Absence is not proof: looks are made at once (and at every start), after a minute and after a quarter of an hour; then
the job is held. Nothing here ever submits anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from runner.errors import Taken
from runner.exchange import Action, Listed, Refusal
from runner.jobs import Change, Event, Standing, State
from runner.lifecycle import evidence
from runner.lifecycle.desk import Desk
from runner.lifecycle.following import page, unless_fenced
from runner.providers.values import as_written
from runner.store.intents import Claim
from runner.store.work import Work, foreign_tasks, owned_task_ids, spoken_for, unknowns
from runner.verdicts.looking import TOLERANCE, Charge, Look, Question, after_look, identify, tells_our_time
from runner.verdicts.submission import CHANGED

PAGES = 40  # 2,000 tasks: whoever makes more within one open question's time is asked to look by hand


async def look(desk: Desk, pairs: Sequence[tuple[Work, Claim]]) -> None:
    """One look for all open questions of the account that today's key sent."""
    foreign = [pair for pair in pairs if _is_foreign(desk, pair[0])]
    for work, claim in foreign:
        await unless_fenced(desk.record(_hold_foreign(desk, work, claim.lease)))
    left = [pair for pair in pairs if pair not in foreign]
    if left:
        await _look(desk, left)
    else:
        await desk.answered(pairs[0][1].request)  # which was never made


async def _look(desk: Desk, pairs: Sequence[tuple[Work, Claim]]) -> None:
    request = pairs[0][1].request
    called = [pair for pair in pairs if await _called_back(desk, *pair)]
    pairs = [pair for pair in pairs if pair not in called]
    if pairs:
        await _look_around(desk, pairs)
    else:
        await desk.answered(request)


async def _called_back(desk: Desk, work: Work, claim: Claim) -> bool:
    """Whether this settles the look: the provider has told the task by calling back, and confirms it when asked, or
    cannot be asked now."""
    attempt = work.attempt
    if attempt is None or attempt.hint is None:
        return False
    if await desk.store.read(owned_task_ids, desk.account, [attempt.hint]):
        return False
    path, hint = attempt.path, attempt.hint
    request = await desk.permit()
    answer = await desk.ask_provider(lambda ask: desk.provider.poll(ask, path, hint))
    await desk.answered(request)
    if isinstance(answer, Refusal):
        if answer.action is not Action.LATER:
            return False
        await unless_fenced(desk.record(_put_off(desk, work, claim, answer.wait)))
        return True
    with suppress(Taken):
        await unless_fenced(desk.record(_found(desk, work, claim, hint, None, "it called back")))
        return True
    return False


async def _look_around(desk: Desk, pairs: Sequence[tuple[Work, Claim]]) -> None:
    found = await _searched(desk, pairs)
    if isinstance(found, Refusal):
        for work, claim in pairs:
            await unless_fenced(desk.record(_put_off(desk, work, claim, found.wait)))
        return
    alone = len(pairs) == 1
    for work, claim in pairs:
        await unless_fenced(_conclude(desk, work, claim, found.get(work.id), alone=alone))


async def _searched(desk: Desk, pairs: Sequence[tuple[Work, Claim]]) -> dict[int, Listed] | Refusal:
    """The tasks that were found in one walk over the history, newest first, where the provider has one."""
    request = pairs[0][1].request
    if desk.provider.history is None:
        await desk.answered(request)
        return {}
    # One that is not due yet may own a task as well: nothing is certain without it.
    asked = {work.id: work for work in (*await desk.store.read(unknowns, desk.account), *(work for work, _ in pairs))}
    tasks = await _history_since(desk, min(map(_brink, asked.values())), request)
    if isinstance(tasks, Refusal):
        return tasks
    if not tells_our_time(tasks, desk.now() + timedelta(seconds=desk.line.skew), _tolerance(desk)):
        return {}
    taken = await desk.store.read(spoken_for, desk.account, [task.task_id for task in tasks])
    free = [task for task in tasks if task.task_id not in taken]
    questions = [_question(desk, work) for work in asked.values()]
    return identify(questions, free, _same_model(desk), _tolerance(desk))


def _question(desk: Desk, work: Work) -> Question:
    """When it was sent, by the provider's clock: asked only after an answer has told how that differs from ours."""
    assert work.attempt is not None
    since = _brink(work) + timedelta(seconds=desk.line.skew)
    model = desk.provider.model(work.model)
    if model is None or "prompt" not in model.fields:
        return Question(work.id, work.attempt.body, since, listed=False)
    assumed = {f.native: as_written(f, f.default) for f in model.fields.values() if f.default is not None}
    prompt = model.fields["prompt"].native
    return Question(work.id, work.attempt.body, since, model.nest, prompt, assumed, desk.lists(work.model))


def _brink(work: Work) -> datetime:
    assert work.attempt is not None
    assert work.attempt.brink_at is not None, "an open question has passed its brink"
    return work.attempt.brink_at


def _tolerance(desk: Desk) -> timedelta:
    """With a faster clock the same delays on the wire last longer in its seconds."""
    return TOLERANCE * max(1.0, desk.clock.speed / 10)


def _same_model(desk: Desk) -> Callable[[str, str], bool]:
    """Two names of one model are no contradiction."""

    def same(one: str, other: str) -> bool:
        known = desk.provider.model(one)
        return one == other or (known is not None and known is desk.provider.model(other))

    return same


async def _history_since(desk: Desk, since: datetime, request: int | None) -> list[Listed] | Refusal:
    """The tasks created since then. New ones that arrive while we walk only push older ones to later pages: nothing is
    missed, some are seen twice."""
    seen: dict[str, Listed] = {}
    for number in range(1, PAGES + 1):
        if number > 1:
            request = await desk.permit()
        answer = await page(desk, number)
        await desk.answered(request)
        if isinstance(answer, Refusal):
            return answer
        seen.update({item.task_id: item for item in answer.items})
        theirs = since + timedelta(seconds=desk.line.skew) - _tolerance(desk)
        if not answer.more or not answer.items or _reaches_back(answer.items, theirs):
            break
    return list(seen.values())


def _reaches_back(items: Sequence[Listed], moment: datetime) -> bool:
    """Whether the pages after this one are from before `moment`. Only where it is newest first: what order a list has
    is not documented everywhere, and in another one its old tasks say nothing of the next page."""
    times = [item.created_at for item in items if item.created_at is not None]
    return bool(times) and times[0] >= times[-1] < moment


async def _conclude(desk: Desk, work: Work, claim: Claim, task: Listed | None, *, alone: bool) -> None:
    if task is not None:
        try:
            how = "the provider's history"
            await desk.record(_found(desk, work, claim, task.task_id, task.created_at, how))
            return
        except Taken:  # somebody adopted it in the meantime
            alone = False
    charge = await evidence.charge(desk, work) if alone else None
    if isinstance(charge, evidence.NotNow):
        await desk.record(_put_off(desk, work, claim, charge.wait))
    else:
        await desk.record(after_look(_look_of(desk, work, claim, charge)))


def _look_of(desk: Desk, work: Work, claim: Claim, charge: Charge | None) -> Look:
    assert work.attempt is not None
    return Look(
        work.id, claim.lease, work.standing, work.attempt.bill, _brink(work), desk.now(),
        searched=desk.lists(work.model), charge=charge, awaited=work.attempt.callback is not None, leave=desk.leave,
        silent=desk.provider.balance is None,
    )  # fmt: skip


def _found(desk: Desk, work: Work, claim: Claim, task_id: str, created_at: datetime | None, how: str) -> Change:
    now = desk.now()
    standing = replace(
        work.standing, state=State.RUNNING, due_at=now, task_id=task_id, failure=None, errors=0,
        accepted_at=created_at or now, finished_at=None,
    )  # fmt: skip
    return _change(Event.FOUND, work, claim, now, standing, task_id=task_id, how=how)


def _put_off(desk: Desk, work: Work, claim: Claim, wait: float | None) -> Change:
    """What was to be looked at could not be read: that is not a look."""
    now = desk.now()
    standing = replace(work.standing, due_at=now + timedelta(seconds=wait or 15.0))
    return _change(Event.POSTPONED, work, claim, now, standing)


def _change(event: Event, work: Work, claim: Claim, now: datetime, standing: Standing, **data: str) -> Change:
    return Change(event, work.id, State.UNKNOWN, claim.lease, now, standing, data=data)


async def hold_foreign(desk: Desk) -> None:
    """Open questions of another key: today's key may belong to another account, so neither resend nor look proves
    anything. They are held for a person; nothing else is submitted until a running task has answered to this key."""
    for work in await desk.store.read(unknowns, desk.account):
        if _is_foreign(desk, work) and work.lease is None:
            await unless_fenced(desk.record(_hold_foreign(desk, work, None)))
    desk.trusted = False
    await trusted(desk)


async def trusted(desk: Desk) -> bool:
    """Whether orders may go with today's key. What was paid with another one may have ended in another worker's hands:
    then no task is left that could answer to this one."""
    if not desk.trusted:
        desk.trusted = not await desk.store.read(foreign_tasks, desk.account, desk.fingerprint)
    return desk.trusted


def _is_foreign(desk: Desk, work: Work) -> bool:
    return work.attempt is not None and work.attempt.fingerprint != desk.fingerprint


def _hold_foreign(desk: Desk, work: Work, lease: int | None) -> Change:
    now = desk.now()
    standing = replace(work.standing, state=State.HELD, due_at=now)
    return Change(Event.NOT_FOUND, work.id, State.UNKNOWN, lease, now, standing, data={"why": CHANGED})
