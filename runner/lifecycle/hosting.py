"""A job's references on their way to the provider: local files are uploaded, and what it wants to review is reviewed.

Once per content and account, whoever of its jobs comes first, and once more where the URL given for it runs out.
Meanwhile the job stays `queued`, with a later `due_at` where the provider takes its time; what is refused refuses the
job. Nothing here is ever charged.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from runner import references
from runner.errors import ErrorKind, InputError
from runner.exchange import Action, Asset, Refusal, Review
from runner.expand.keys import Pinned, parse_spec
from runner.jobs import Change, Event, Failure, State
from runner.lifecycle.desk import Desk
from runner.limits import backoff
from runner.providers.description import Hosting, Reference, Registering
from runner.providers.reading import MODERATION_WORDS
from runner.store import hosted
from runner.store.hosted import Begun
from runner.store.work import Work
from runner.verdicts.submission import failure_of

T = TypeVar("T")
ELSEWHERE = timedelta(seconds=5)  # somebody else is asking for the same content


class Unhosted:
    """A job whose references the provider does not hold yet."""


UNHOSTED = Unhosted()


async def hosted_references(desk: Desk, work: Work, wanted: Sequence[Pinned]) -> list[Reference] | Unhosted | None:
    """The references as the provider will read them. None: one of them is refused, and so is the job."""
    found: list[Reference] = []
    for pinned in wanted:
        url = await _url_of(desk, work, pinned)
        if not isinstance(url, str):
            return url
        found.append(replace(pinned.reference, url=url))
    return found


async def host(desk: Desk, work: Work, wanted: Sequence[Pinned]) -> None:
    """Sends out those of the job's references that the provider does not hold yet, as far as that goes now."""
    for pinned in wanted:
        if await _url_of(desk, work, pinned) is not UNHOSTED:
            continue
        if not await _host_one(desk, work, pinned):
            return


async def _url_of(desk: Desk, work: Work, pinned: Pinned) -> str | Unhosted | None:
    """Where the provider reads a reference. None where it is refused, which refuses its job."""
    url = await _public_url(desk, work, pinned)
    if not isinstance(url, str):
        return url
    registered = replace(pinned.reference, url=url)
    if not desk.provider.must_register(desk.provider.model(work.model), registered):
        return url
    return await _held_url(desk, work, named(url))


async def _public_url(desk: Desk, work: Work, pinned: Pinned) -> str | Unhosted | None:
    """Its own URL, or the one under which the content of a local file is hosted already."""
    if pinned.sha256 is None:
        return pinned.reference.url
    local = await _inspect(desk, work, pinned)
    return None if local is None else await _held_url(desk, work, local.sha256)


async def _held_url(desk: Desk, work: Work, content: str) -> str | Unhosted | None:
    known = await desk.store.read(hosted.held, desk.now(), desk.account, content)
    if known is None or (known.url is None and known.refused is None):
        return UNHOSTED
    if known.refused is not None:
        await reject(desk, work, _refused_reference(known.refused))
    elif known.url and _runs_out(desk, known.url, known.asked_at):
        await desk.store.write(hosted.doubt, desk.account, [content])
        return UNHOSTED
    return known.url


def _runs_out(desk: Desk, url: str, since: datetime) -> bool:
    """Whether a URL that the provider gave us, by its own clock, is to be had anew."""
    skew = timedelta(seconds=desk.line.skew)
    return references.half_spent(url, since + skew, desk.now() + skew)


def contents_of(work: Work) -> list[str]:
    """What the references of a job may be held under at its provider."""
    wanted = parse_spec(work.spec)[1]
    return [pinned.sha256 or named(pinned.reference.url) for pinned in wanted]


def named(url: str) -> str:
    """What an asset is known by: the sha256 (hex) of the URL it was registered from."""
    return hashlib.sha256(url.encode()).hexdigest()


async def _inspect(desk: Desk, work: Work, pinned: Pinned) -> references.LocalFile | None:
    """The file as it is now. One that is gone, or no longer what the plan saw, refuses its job: nothing was sent."""
    try:
        local = await asyncio.to_thread(_found, work, pinned)
    except InputError as error:
        await reject(desk, work, Failure(ErrorKind.INVALID_REQUEST, "reference", error.message))
        return None
    if local.sha256 != pinned.sha256:
        why = f"{pinned.reference.path} has changed since it was planned: run the manifest again to plan it anew"
        await reject(desk, work, Failure(ErrorKind.INVALID_REQUEST, "reference_changed", why))
        return None
    return local


def _found(work: Work, pinned: Pinned) -> references.LocalFile:
    """The file where the plan found and allowed it: nothing but that very place, and no link that was put there since.
    Raises InputError."""
    if pinned.file is not None:
        return references.inspect(Path(pinned.file))
    folder = Path(work.folder)  # of a queue in which it was not noted yet
    return references.inspect(references.locate(pinned.reference.path or "", folder))


async def _host_one(desk: Desk, work: Work, pinned: Pinned) -> bool:
    """Whether the provider holds it now; otherwise the job has been put off or refused."""
    url = await _public_url(desk, work, pinned)
    if isinstance(url, Unhosted):
        local = await _inspect(desk, work, pinned)
        return local is not None and await _upload(desk, work, local)
    registering = desk.provider.registering
    if url is None or registering is None:
        return False
    return await _review(desk, work, registering, url, pinned.reference.role)


# --- local files


async def _upload(desk: Desk, work: Work, local: references.LocalFile) -> bool:
    hosting = desk.provider.hosting
    assert hosting is not None, "plan refuses local files where nothing hosts them"
    if await desk.store.write(hosted.begin, desk.now(), desk.account, local.sha256) is Begun.ELSEWHERE:
        await _put_off(desk, work, ELSEWHERE)
        return False
    try:
        content = await asyncio.to_thread(references.content_of, local)
    except InputError as error:
        await desk.store.write(hosted.forget, desk.account, local.sha256)
        await reject(desk, work, Failure(ErrorKind.INVALID_REQUEST, "reference_changed", error.message))
        return False
    answer = await _send(desk, hosting, local, content)
    if isinstance(answer, str):
        await desk.store.write(hosted.remember, desk.account, local.sha256, answer)
        return True
    await desk.store.write(hosted.forget, desk.account, local.sha256)  # if it came all the same, it is there twice
    return await _refused(desk, work, answer)


async def _send(desk: Desk, hosting: Hosting, local: references.LocalFile, content: bytes) -> str | Refusal:
    name = f"{local.sha256[:32]}.{local.extension}"
    request = await desk.permit()
    answer = await desk.ask_provider(lambda ask: hosting.upload(ask, name, content, local.media_type))
    await desk.answered(request)
    return answer


# --- assets


async def _review(desk: Desk, work: Work, registering: Registering, url: str, role: str) -> bool:
    content = named(url)
    known = await desk.store.read(hosted.held, desk.now(), desk.account, content)
    if known is not None and known.asset_id is not None:
        if desk.now() - known.asked_at > desk.timeout:
            return await _gave_up(desk, work, content)
        asset_id = known.asset_id
        return await _judged(desk, work, content, await _asked(desk, registering.inspect, asset_id))
    begun = await desk.store.write(hosted.begin, desk.now(), desk.account, content)
    if begun is Begun.ELSEWHERE:
        await _put_off(desk, work, ELSEWHERE)
        return False
    answer: Asset | Refusal | None = None
    if begun is Begun.AGAIN:
        answer = await _asked(desk, registering.find, content)
    if answer is None:
        answer = await _asked(desk, registering.register, url, role, content)
    return await _judged(desk, work, content, answer)


async def _asked(desk: Desk, question: Callable[..., Awaitable[T | Refusal]], *about: str) -> T | Refusal:
    request = await desk.permit()
    answer = await desk.ask_provider(lambda ask: question(ask, *about))
    await desk.answered(request)
    return answer


async def _judged(desk: Desk, work: Work, content: str, answer: Asset | Refusal) -> bool:
    store, account = desk.store, desk.account
    match answer:
        case Asset(review=Review.PASSED):
            await store.write(hosted.remember, account, content, answer.uri)
            return True
        case Asset(review=Review.PENDING):
            await store.write(hosted.under_review, account, content, answer.asset_id)
            await _put_off(desk, work, desk.poll_interval)
        case Asset():
            await store.write(hosted.refuse, desk.now(), account, content, answer.why)
            await reject(desk, work, _refused_reference(answer.why))
        case Refusal(action=Action.NOT_FOUND):
            await store.write(hosted.lost, account, content)
            await _put_off(desk, work, ELSEWHERE)
        case Refusal():
            await store.write(hosted.forget if _heard_no(answer) else hosted.unheard, account, content)
            return await _refused(desk, work, answer)
    return False


def _heard_no(refusal: Refusal) -> bool:
    """Whether the provider has certainly not taken it: anything else may be found there again."""
    return refusal.action is not Action.LATER or refusal.kind is ErrorKind.RATE_LIMITED


async def _gave_up(desk: Desk, work: Work, content: str) -> bool:
    why = f"its review has not ended within {desk.timeout.total_seconds() / 3600:g} hours"
    await desk.store.write(hosted.refuse, desk.now(), desk.account, content, why)
    await reject(desk, work, Failure(ErrorKind.TIMEOUT, "review", why))
    return False


# --- what becomes of the job


def _refused_reference(why: str) -> Failure:
    """The provider's review refused a reference: as moderation where it says so."""
    moderated = any(word in why.casefold() for word in MODERATION_WORDS)
    kind = ErrorKind.MODERATED if moderated else ErrorKind.INVALID_REQUEST
    return Failure(kind, "reference_refused", f"a reference was refused: {why or 'the provider gives no reason'}")


async def _refused(desk: Desk, work: Work, refusal: Refusal) -> bool:
    """Refused for good, or only for now."""
    if refusal.action is Action.FAIL:
        await reject(desk, work, failure_of(refusal))
        return False
    errors = work.standing.errors + 1
    wait = timedelta(seconds=refusal.wait or backoff(errors, spread=desk.random()))
    await _put_off(desk, work, wait, failure_of(refusal), errors)
    return False


async def reject(desk: Desk, work: Work, failure: Failure) -> None:
    """queued → failed: nothing was sent."""
    now = desk.now()
    standing = replace(work.standing, state=State.FAILED, due_at=now, failure=failure)
    await desk.record(Change(Event.REJECTED, work.id, State.QUEUED, None, now, standing, data={"why": failure.message}))


async def _put_off(
    desk: Desk, work: Work, wait: timedelta, failure: Failure | None = None, errors: int | None = None
) -> None:
    now = desk.now()
    standing = replace(work.standing, due_at=now + wait, failure=failure, errors=errors or work.standing.errors)
    await desk.record(Change(Event.POSTPONED, work.id, State.QUEUED, None, now, standing))
