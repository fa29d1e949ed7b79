"""From a queued job to a task: freeze the intent, pay once, and record what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from runner.client import callbacks
from runner.errors import ErrorKind, NoAnswer, NotSent
from runner.exchange import Accepted, Refusal
from runner.expand.keys import parse_spec
from runner.jobs import Failure
from runner.lifecycle.accepting import record_accepted
from runner.lifecycle.desk import Desk, silence
from runner.lifecycle.hosting import Unhosted, hosted_references, reject
from runner.lifecycle.pausing import move_account
from runner.providers.compose import Composed, compose, stamped
from runner.store.brink import Brink
from runner.store.intents import Claim, Intent
from runner.store.work import Work, learned
from runner.verdicts.submission import (
    CHANGED,
    Outcome,
    Submission,
    Unanswered,
    Unsent,
    after_submission,
    beyond_key_window,
    idempotency_key,
    mark_of,
    never_resent,
)

LATE = "it could not be noted in time that it was to be sent"


async def prepare(desk: Desk, work: Work) -> Intent | Unhosted | None:
    """The intent to pay for a queued job. UNHOSTED: its references must go out first (`hosting.host`). None: it was
    refused."""
    fields, wanted, params = parse_spec(work.spec)
    found = await hosted_references(desk, work, wanted)
    if found is None or isinstance(found, Unhosted):
        return found
    composed = compose(desk.provider, work.model, fields, found, params)
    if composed.faults:
        why = "; ".join(fault.message for fault in composed.faults)
        await reject(desk, work, Failure(ErrorKind.INVALID_REQUEST, composed.faults[0].code, why))
        return None
    return await _intent(desk, work, composed)


async def _intent(desk: Desk, work: Work, composed: Composed) -> Intent:
    generation = work.standing.generation
    own = idempotency_key(work.batch, work.key, generation)
    word = callbacks.new_word() if _calls_back(desk, work) else None
    body = stamped(composed, _marks(desk, work, own, word))
    price, estimate = composed.price, await _estimate(desk, composed)
    return Intent(
        work.id, work.batch_id, generation, composed.path, body.decode(), own if desk.provider.keyed else None,
        desk.fingerprint, composed.shape, price.high if price and price.exact else None, estimate,
        callbacks.digest(word) if word else None,
    )  # fmt: skip


async def _estimate(desk: Desk, composed: Composed) -> Decimal | None:
    """What to reserve: at most what the document says, or what such a request was charged before where that is more."""
    charged = (await desk.store.read(learned, desk.provider.name, [composed.shape])).get(composed.shape)
    if composed.price is None or charged is None:
        return composed.price.high if composed.price else charged
    if charged > composed.price.high:
        desk.dear[composed.shape] = charged
    return max(composed.price.high, charged)


def _calls_back(desk: Desk, work: Work) -> bool:
    model = desk.provider.model(work.model)
    return desk.callback_url is not None and model is not None and bool(model.callback_field)


def _marks(desk: Desk, work: Work, key: str, word: str | None) -> dict[str, str]:
    """What tells this order from all others: a mark by which a person finds it at the provider, derived from its key,
    and the address that the provider shall call."""
    model = desk.provider.model(work.model)
    assert model is not None, "what was composed has a model"
    marks = {model.mark_field: mark_of(key)} if model.mark_field else {}
    return marks | ({model.callback_field: f"{desk.callback_url}/{word}"} if word else {})


async def submit(desk: Desk, work: Work, claim: Claim) -> None:
    """Pays for one claimed job, or sends the same bytes again under the same key, and records the outcome."""
    sub = _submission(desk, work, claim)
    if sub.open and work.attempt is not None and work.attempt.fingerprint != desk.fingerprint:
        await desk.record(*never_resent(sub, "other_key", CHANGED))
        return
    if beyond_key_window(sub):
        why = "no definitive answer came while the provider is trusted to remember the key"
        await desk.record(*never_resent(sub, "key_window", why))
        return
    outcome = await _pay(desk, work, claim)
    await desk.surely(_conclude(desk, work, replace(sub, now=desk.now()), outcome))


async def _conclude(desk: Desk, work: Work, sub: Submission, outcome: Outcome) -> None:
    """Both together, so that they share a commit: else the lane could claim the job again before its account is
    paused. Neither is left alone when the other fails: an id that is still to be stored would be forgotten."""
    both = _record_outcome(desk, sub, outcome), _move_account(desk, work, outcome)
    for trouble in await asyncio.gather(*both, return_exceptions=True):
        if trouble is not None:
            raise trouble


async def _record_outcome(desk: Desk, sub: Submission, outcome: Outcome) -> None:
    if isinstance(outcome, Accepted):
        await record_accepted(desk, sub, outcome)
    else:
        await desk.record(*after_submission(sub, outcome))


async def _pay(desk: Desk, work: Work, claim: Claim) -> Outcome:
    attempt = work.attempt
    assert attempt is not None, "an intent is on disk before anything is sent"
    noting = False

    async def brink() -> None:
        nonlocal noting
        noting = True
        if beyond_key_window(_submission(desk, work, claim)):  # the machine may have slept on the way to here
            raise NotSent(LATE)
        await desk.store.mark_brink(Brink(work.id, attempt.id, claim.lease, desk.now()))
        noting = False

    ask = desk.line.submission(brink)
    try:
        return await desk.provider.submit(ask, attempt.path, attempt.body.encode(), attempt.idempotency_key)
    except NotSent as error:
        return Unsent(LATE, ours=True) if noting else Unsent(str(error), error.stops_after)
    except NoAnswer as error:
        return Unanswered(str(error))


def _submission(desk: Desk, work: Work, claim: Claim) -> Submission:
    attempt = work.attempt
    assert attempt is not None
    return Submission(
        work.id, claim.lease, work.standing, attempt.id, attempt.bill, attempt.outcome, attempt.brink_at,
        attempt.answered_at, desk.provider.keyed,
        lookable=desk.lists(work.model) or desk.balance_tells or desk.leave or attempt.callback is not None,
        key_window=timedelta(seconds=desk.provider.key_window), poll_interval=desk.poll_interval,
        request=claim.request, now=desk.now(), spread=desk.random(),
    )  # fmt: skip


async def _move_account(desk: Desk, work: Work, outcome: Outcome) -> None:
    """Pauses and stops that the answer means for the whole account; an accepted order ends a pause."""
    match outcome:
        case Unsent(ours=True):
            return  # the provider was not even spoken to
        case Unsent() as unsent:
            desk.hear(unsent.why)
            if desk.breaker.hopeless(unsent.stops_after):
                await desk.stop(unsent.why)
            elif desk.breaker.open:
                await desk.pause(ErrorKind.NETWORK, unsent.why)
        case Unanswered() as lost:
            desk.hear(lost.why)
        case Accepted():
            desk.hear(None)
            await desk.obey(None)
            await desk.orders_again()
        case Refusal() as refusal:
            desk.hear(silence(refusal))
            await desk.obey(refusal)
            await move_account(desk, work, refusal)
