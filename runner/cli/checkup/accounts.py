"""Every account that is known here: its key, its provider's answer to one unpaid question, and the time it told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from runner import health, log
from runner.cli.accounts import Member, entry_of, mark_of, unknown_provider, wanted_of
from runner.cli.decisions import NotNow
from runner.cli.permits import permitted
from runner.client.asking import Line
from runner.clock import Clock
from runner.errors import ErrorKind, InputError, LocalError, NoAnswer, NotSent, Problem
from runner.exchange import Action, Ask, Page, Refusal, Reply, Report
from runner.health import accounts as judged
from runner.health.accounts import NO_TASK
from runner.manifest import ProviderEntry
from runner.providers import registry
from runner.providers.description import Provider
from runner.settings import Settings, variable

if TYPE_CHECKING:
    from runner.cli.checkup.queue import Seen
    from runner.store import Store

T = TypeVar("T")
Said = Decimal | Report | Refusal
PATIENCE = 10.0  # seconds for room in the account's request window


@dataclass(frozen=True, slots=True)
class Known:
    """An account, and whether anything is to be done with it."""

    entry: ProviderEntry
    needed: bool


def known(wanted: Iterable[ProviderEntry], seen: Seen | None, settings: Settings) -> list[Known]:
    """Those of the manifest (`wanted`), those of the queue, and every provider whose key is set."""
    found = {entry.name: Known(entry, needed=True) for entry in wanted}
    for row in seen.rows if seen else ():
        found.setdefault(row.name, Known(entry_of(row), seen is not None and row.name in seen.unfinished))
    for name in registry():
        if settings.has_key(name):
            found.setdefault(name, Known(ProviderEntry(name, name), needed=False))
    return [found[name] for name in sorted(found)]


async def examine(everyone: Sequence[Known], seen: Seen | None, settings: Settings, clock: Clock) -> list[health.Check]:
    """Each account's checks, in the order given; all are asked at once."""
    if not everyone:
        names = ", ".join(variable(name, "API_KEY") for name in registry())
        return [health.warning("key", "accounts", "no key is set, and no account is known", f"set one of {names}")]
    async with AsyncExitStack() as stack:
        store = await _store(stack, seen, clock)
        found = await asyncio.gather(*(_examine(each, seen, store, settings, clock) for each in everyone))
    return [check for checks in found for check in checks]


async def _store(stack: AsyncExitStack, seen: Seen | None, clock: Clock) -> Store | None:
    """The queue, in which our questions count like all others; None where there is none in a state to be written."""
    from runner.store import open_store

    if seen is None or not seen.sound:
        return None
    try:
        return await stack.enter_async_context(open_store(seen.db, clock))
    except LocalError:
        return None  # why, its own checks tell


async def _examine(
    account: Known, seen: Seen | None, store: Store | None, settings: Settings, clock: Clock
) -> list[health.Check]:
    entry, name = account.entry, account.entry.name
    if entry.uses not in registry():
        return [health.warning("key", name, unknown_provider(entry.uses), "without it nobody can be asked")]
    found = _credentials(entry, settings)
    problems = found if isinstance(found, tuple) else ()
    key = variable(name, "API_KEY")
    checks = judged.key(name, key, problems, is_set=settings.has_key(name), needed=account.needed)
    if isinstance(found, tuple):
        return checks
    checks += [health.warning("key", name, note, "") for note in found.credentials.notes]
    if seen is not None and (told := _fingerprint(found, key, seen)):
        checks.append(told)
    in_queue = seen is not None and any(row.name == name for row in seen.rows)
    return checks + await _asked(found, key, store if in_queue else None, clock)


def _credentials(entry: ProviderEntry, settings: Settings) -> Member | tuple[Problem, ...]:
    try:
        return Member(entry, settings.one(wanted_of(entry.name, entry.uses)))
    except InputError as error:
        return error.problems


def _fingerprint(member: Member, key: str, seen: Seen) -> health.Check | None:
    name = member.entry.name
    return judged.fingerprint(name, key, mark_of(member, seen.salt), seen.fingerprints.get(name))


async def _asked(member: Member, key: str, store: Store | None, clock: Clock) -> list[health.Check]:
    """One unpaid question, and one more for the list of tasks where there is one; in the account's window, where the
    queue keeps one."""
    log.keep(member.credentials.key)
    provider, name = registry()[member.entry.uses], member.entry.name
    found: list[health.Check | None] = []
    asking = "answer"
    async with Line(member.credentials, clock) as line:
        heard = _Heard(line)
        try:
            said: Said = await _answered(store, name, heard, partial(_cheapest, provider))
            found += [judged.answer(name, key, said), judged.skew(name, heard.skew)]
            if provider.history is not None and not isinstance(said, Refusal):
                asking = "history"
                listed = await _answered(store, name, heard, partial(_first_page, provider))
                found.append(judged.history(name, listed))
        except (NotNow, LocalError) as error:
            hint = error.hint or "try again later"
            found.append(health.warning(asking, name, f"it was not asked: {error.message}", hint))
    return [check for check in found if check is not None]


async def _answered(
    store: Store | None, name: str, ask: Ask, question: Callable[[Ask], Awaitable[T | Refusal]]
) -> T | Refusal:
    """Raises NotNow where there is no room for it in the account's window."""
    async with AsyncExitStack() as stack:
        if store is not None:
            await stack.enter_async_context(permitted(store, name, PATIENCE))
        try:
            return await question(ask)
        except NotSent as unsent:
            action = Action.STOP if unsent.stops_after == 1 else Action.LATER
            return Refusal(action, ErrorKind.NETWORK, "not_sent", str(unsent))
        except NoAnswer as silence:
            return Refusal(Action.LATER, ErrorKind.NETWORK, "no_answer", str(silence))


class _Heard:
    """Asks over a line, and remembers whether an answer told the time."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._dated = False

    async def __call__(self, method: str, path: str, **more: Any) -> Reply:
        reply = await self._line.ask(method, path, **more)
        self._dated = self._dated or reply.date is not None
        return reply

    @property
    def skew(self) -> float | None:
        """Seconds by which the provider's clock is ahead of ours; None where it told no time."""
        return self._line.skew if self._dated else None


async def _cheapest(provider: Provider, ask: Ask) -> Said:
    """The balance, where it is documented how to ask for it; else for a task that does not exist. Neither costs
    anything, and both need the key."""
    if provider.balance is not None:
        return await provider.balance(ask)
    model = next(model for model in provider.models if not model.unavailable)
    return await provider.poll(ask, model.path, NO_TASK)


async def _first_page(provider: Provider, ask: Ask) -> Page | Refusal:
    assert provider.history is not None, "only a provider with a list is asked for it"
    return await provider.history(ask, 1)


__all__ = ["Known", "examine", "known"]
