"""From a queued job to a task: host its references, freeze the intent, pay once, and record what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from runner import references
from runner.errors import ErrorKind, InputError, NoAnswer, NotSent
from runner.exchange import Accepted, Action, Refusal
from runner.expand.keys import Pinned, parse_spec
from runner.jobs import Change, Event, Failure, State
from runner.lifecycle.accepting import record_accepted
from runner.lifecycle.desk import Desk
from runner.lifecycle.pausing import move_account
from runner.limits import backoff
from runner.providers.compose import Composed, compose, stamped
from runner.providers.description import Reference
from runner.store import accounts as account_rows
from runner.store import hosted
from runner.store.brink import Brink
from runner.store.intents import Claim, Intent
from runner.store.work import Work, learned
from runner.verdicts.submission import (
    Outcome,
    Submission,
    Unanswered,
    Unsent,
    after_submission,
    beyond_key_window,
    failure_of,
    idempotency_key,
    never_resent,
)

OUT_OF_REACH = 3  # orders in a row that could not even be sent: the provider cannot be reached, for any job
MARK = 16  # characters of the key that stand in a mark


class Unhosted:
    """A job whose local files the provider does not hold yet."""


UNHOSTED = Unhosted()


async def prepare(desk: Desk, work: Work) -> Intent | Unhosted | None:
    """The intent to pay for a queued job. UNHOSTED: its files must go out first (`host`). None: it was refused."""
    fields, wanted, params = parse_spec(work.spec)
    found: list[Reference] = []
    for pinned in wanted:
        url = await _url_of(desk, work, pinned)
        if not isinstance(url, str):
            return url
        found.append(replace(pinned.reference, url=url))
    composed = compose(desk.provider, work.model, fields, found, params)
    if composed.faults:
        why = "; ".join(fault.message for fault in composed.faults)
        await _reject(desk, work, Failure(ErrorKind.INVALID_REQUEST, composed.faults[0].code, why))
        return None
    return await _intent(desk, work, composed)


async def _url_of(desk: Desk, work: Work, pinned: Pinned) -> str | Unhosted | None:
    """Where the provider reads a reference: its own URL, or the one under which its content is hosted already."""
    if pinned.sha256 is None:
        return pinned.reference.url
    local = await _inspect(desk, work, pinned)
    return None if local is None else await desk.store.read(hosted.url_of, desk.account, local.sha256) or UNHOSTED


async def _inspect(desk: Desk, work: Work, pinned: Pinned) -> references.LocalFile | None:
    """The file as it is now. One that is gone, or no longer what the plan saw, refuses its job: nothing was sent."""
    try:
        local = references.inspect(Path(work.folder, pinned.reference.path or ""))
    except InputError as error:
        await _reject(desk, work, Failure(ErrorKind.INVALID_REQUEST, "reference", error.message))
        return None
    if local.sha256 != pinned.sha256:
        why = f"{pinned.reference.path} has changed since it was planned: run the manifest again to plan it anew"
        await _reject(desk, work, Failure(ErrorKind.INVALID_REQUEST, "reference_changed", why))
        return None
    return local


async def host(desk: Desk, work: Work) -> None:
    """Uploads the job's local files that the provider does not hold yet: once per content and account. The job stays
    queued meanwhile; refused files refuse it, a busy provider puts it off."""
    _, wanted, _ = parse_spec(work.spec)
    for pinned in wanted:
        if await _url_of(desk, work, pinned) is not UNHOSTED:
            continue
        local = await _inspect(desk, work, pinned)
        if local is None or not await _upload(desk, work, local):
            return


async def _intent(desk: Desk, work: Work, composed: Composed) -> Intent:
    generation = work.standing.generation
    own = idempotency_key(work.batch, work.key, generation)
    body = stamped(composed, _marks(desk, work, own))
    price = composed.price
    estimate = (
        price.high
        if price
        else (await desk.store.read(learned, desk.provider.name, [composed.shape])).get(composed.shape)
    )
    return Intent(
        work.id, work.batch_id, generation, composed.path, body.decode(), own if desk.provider.keyed else None,
        desk.fingerprint, composed.shape, price.high if price and price.exact else None, estimate,
    )  # fmt: skip


def _marks(desk: Desk, work: Work, key: str) -> dict[str, str]:
    """What a person can find this order by at the provider: derived from its key, so that a resend has the same
    bytes."""
    model = desk.provider.model(work.model)
    return {model.mark_field: f"runner-{key[:MARK]}"} if model is not None and model.mark_field else {}


async def _upload(desk: Desk, work: Work, local: references.LocalFile) -> bool:
    hosting = desk.provider.hosting
    assert hosting is not None, "plan refuses local files where nothing hosts them"
    content = await asyncio.to_thread(local.path.read_bytes)
    name = f"{local.sha256[:32]}{local.path.suffix.lower()}"
    request = await desk.permit()
    answer = await desk.ask_provider(lambda ask: hosting.upload(ask, name, content, local.media_type))
    await desk.answered(request)
    if isinstance(answer, str):
        await desk.store.write(hosted.remember, desk.now(), desk.account, local.sha256, answer)
        return True
    if answer.action is Action.FAIL:
        await _reject(desk, work, failure_of(answer))
    else:
        await _put_off(desk, work, answer)
    return False


async def _reject(desk: Desk, work: Work, failure: Failure) -> None:
    now = desk.now()
    standing = replace(work.standing, state=State.FAILED, due_at=now, failure=failure)
    await desk.record(Change(Event.REJECTED, work.id, State.QUEUED, None, now, standing, data={"why": failure.message}))


async def _put_off(desk: Desk, work: Work, refusal: Refusal) -> None:
    now, errors = desk.now(), work.standing.errors + 1
    wait = timedelta(seconds=refusal.wait or backoff(errors, spread=desk.random()))
    standing = replace(work.standing, due_at=now + wait, errors=errors, failure=failure_of(refusal))
    await desk.record(Change(Event.POSTPONED, work.id, State.QUEUED, None, now, standing))


async def submit(desk: Desk, work: Work, claim: Claim) -> None:
    """Pays for one claimed job, or sends the same bytes again under the same key, and records the outcome."""
    sub = _submission(desk, work, claim)
    if sub.open and work.attempt is not None and work.attempt.fingerprint != desk.fingerprint:
        await desk.record(*never_resent(sub, "other_key", "the account's key has changed since it was sent"))
        return
    if beyond_key_window(sub):
        why = "no definitive answer came while the provider is trusted to remember the key"
        await desk.record(*never_resent(sub, "key_window", why))
        return
    outcome = await _pay(desk, work, claim)
    await desk.surely(_conclude(desk, work, replace(sub, now=desk.now()), outcome))


async def _conclude(desk: Desk, work: Work, sub: Submission, outcome: Outcome) -> None:
    """Both together, so that they share a commit: else the lane could claim the job again before its account is
    paused."""
    await asyncio.gather(_record_outcome(desk, sub, outcome), _move_account(desk, work, outcome))


async def _record_outcome(desk: Desk, sub: Submission, outcome: Outcome) -> None:
    if isinstance(outcome, Accepted):
        await record_accepted(desk, sub, outcome)
    else:
        await desk.record(*after_submission(sub, outcome))


async def _pay(desk: Desk, work: Work, claim: Claim) -> Outcome:
    attempt = work.attempt
    assert attempt is not None, "an intent is on disk before anything is sent"

    async def brink() -> None:
        await desk.store.mark_brink(Brink(work.id, attempt.id, claim.lease, desk.now()))

    ask = desk.line.submission(brink)
    try:
        return await desk.provider.submit(ask, attempt.path, attempt.body.encode(), attempt.idempotency_key)
    except NotSent as error:
        return Unsent(str(error))
    except NoAnswer as error:
        return Unanswered(str(error))


def _submission(desk: Desk, work: Work, claim: Claim) -> Submission:
    attempt = work.attempt
    assert attempt is not None
    model = desk.provider.model(work.model)
    return Submission(
        work.id, claim.lease, work.standing, attempt.id, attempt.bill, attempt.outcome, attempt.brink_at,
        attempt.answered_at, desk.provider.keyed,
        findable=desk.provider.history is not None and model is not None and model.listed,
        key_window=timedelta(seconds=desk.provider.key_window), poll_interval=desk.poll_interval,
        request=claim.request, now=desk.now(), spread=desk.random(),
    )  # fmt: skip


async def _move_account(desk: Desk, work: Work, outcome: Outcome) -> None:
    """Pauses and stops that the answer means for the whole account; an accepted order ends a pause."""
    match outcome:
        case Unsent() as unsent:
            desk.unsent += 1
            if desk.unsent >= OUT_OF_REACH:
                note = (account_rows.pause, desk.now(), desk.account, ErrorKind.NETWORK.value, unsent.why, None)
                await desk.store.write(*note)
        case Accepted():
            desk.unsent = 0
            await desk.obey(None)
            if desk.paused:
                await desk.store.write(account_rows.resume_if_paused, desk.account)
        case Refusal() as refusal:
            desk.unsent = 0
            await desk.obey(refusal)
            await move_account(desk, work, refusal)
