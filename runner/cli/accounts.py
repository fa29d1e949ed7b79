"""Putting an account together: its entry in the manifest, its key, its line, its desk, its lane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

import structlog

from runner import log
from runner.client.asking import Line, brink_hook_works
from runner.client.fetching import Fetcher
from runner.engine import Lane
from runner.errors import InputError
from runner.lifecycle.desk import Desk
from runner.manifest import Manifest, ProviderEntry
from runner.problems import quoted, suggestion
from runner.providers import registry
from runner.settings import Credentials, Settings, Wanted, fingerprint
from runner.store import Store, facts
from runner.store.enqueue import AccountSettings, save_accounts
from runner.store.queries import AccountRow

news = structlog.get_logger("runner")


@dataclass(frozen=True, slots=True)
class Member:
    """One account of a run: how it may be used, and with which key."""

    entry: ProviderEntry
    credentials: Credentials


def of_manifest(manifest: Manifest, names: Iterable[str], settings: Settings) -> list[Member]:
    """The accounts a manifest's jobs use. Raises InputError for every key that is missing or malformed."""
    entries = [manifest.account(name) for name in sorted(names)]
    found = settings.credentials(wanted_of(entry.name, entry.uses) for entry in entries)
    return [Member(entry, found[entry.name]) for entry in entries]


def of_queue(
    rows: Sequence[AccountRow], settings: Settings, known: Iterable[str]
) -> tuple[list[Member], dict[str, str]]:
    """The further accounts of a queue, for whose paid tasks the run also looks; and those it must leave alone, with the
    reason: their key is not at hand, or nobody says how their provider is spoken to."""
    members: list[Member] = []
    lacking: dict[str, str] = {}
    for row in rows:
        if row.name in set(known):
            continue
        if row.provider not in registry():
            lacking[row.name] = unknown_provider(row.provider)
            continue
        try:
            credentials = settings.one(wanted_of(row.name, row.provider))
        except InputError as error:
            lacking[row.name] = error.message
            continue
        members.append(Member(entry_of(row), credentials))
    return members, lacking


def tell_notes(members: Iterable[Member]) -> None:
    """What a person should know of these accounts before their keys are used."""
    for member in members:
        name, source = member.entry.name, registry()[member.entry.uses].source
        if source:
            base = member.credentials.base_url
            news.warning(f"{name} is described in {source}: its key goes to {base}, and the file's word is believed")
        for note in member.credentials.notes:
            news.warning(note)


def unknown_provider(name: str) -> str:
    return f"the provider {quoted(name)} is not known here; if a file describes it, name that with --providers"


def wanted_of(name: str, provider: str) -> Wanted:
    """What an account needs to speak to its provider."""
    return Wanted(name, provider, registry()[provider].base_url)


def entry_of(row: AccountRow) -> ProviderEntry:
    """An account as a manifest would describe it, from what the queue keeps of it."""
    return ProviderEntry(
        row.name, row.provider, row.concurrency, row.windows, row.poll_interval, row.timeout, row.exclusive
    )


def check_leave(names: Collection[str], members: Sequence[Member]) -> None:
    """`--resubmit-unknown` is for accounts that are there and honour no key. Raises InputError for any other."""
    known = {member.entry.name: registry()[member.entry.uses] for member in members}
    for name in names:
        if name not in known:
            raise InputError(
                f"--resubmit-unknown {name}: no account of that name", suggestion(name, [*known], "accounts")
            )
        if known[name].keyed:
            why = f"--resubmit-unknown {name}: {known[name].name} honours idempotency keys"
            raise InputError(why, "leave it out: a lost answer is asked for again under the same key")


def check_speed(speed: float, members: Sequence[Member]) -> None:
    """A faster clock is for sandboxes only. Raises InputError where any base address is not on loopback."""
    elsewhere = [m.entry.name for m in members if not m.credentials.loopback]
    if speed != 1.0 and elsewhere:
        names = ", ".join(elsewhere)
        raise InputError(f"--speed is for sandboxes on this machine; not so: {names}", "leave --speed out")


@asynccontextmanager
async def lanes(
    store: Store,
    members: Sequence[Member],
    batch_ids: Sequence[int] | None,
    until: datetime | None,
    leave: Collection[str] = (),
) -> AsyncIterator[list[Lane]]:
    """A lane per account, its limits written to the queue first (again, where the jobs' transaction has done it).
    `leave`: the accounts whose lost orders may go again."""
    salt = await store.read(facts.salt)
    await store.write(save_accounts, limits_of(members, salt))
    hook_works = await brink_hook_works()
    async with AsyncExitStack() as stack:
        made: list[Lane] = []
        for member in members:
            log.keep(member.credentials.key)
            line = await stack.enter_async_context(Line(member.credentials, store.clock, hook_works=hook_works))
            fetcher = await stack.enter_async_context(Fetcher(allow_private=member.credentials.loopback))
            desk = _desk(store, member, line, fetcher, salt)
            desk.leave = member.entry.name in leave
            made.append(Lane(desk, batch_ids, until))
        yield made


def limits_of(members: Sequence[Member], salt: bytes) -> list[AccountSettings]:
    """What the queue keeps of these accounts."""
    return [_settings(member, salt) for member in members]


def _settings(member: Member, salt: bytes) -> AccountSettings:
    entry = member.entry
    windows = entry.rate_limit or registry()[entry.uses].windows
    return AccountSettings(
        entry.name, entry.uses, mark_of(member, salt), entry.concurrency, windows,
        entry.poll_interval, entry.timeout, entry.account_exclusive,
    )  # fmt: skip


def mark_of(member: Member, salt: bytes) -> str:
    """The fingerprint of the account's key, at this host and under this header: an order that went elsewhere, or under
    another header, must never be sent again as if it were the same. (A pretend provider has another port each time.)"""
    host = urlsplit(member.credentials.base_url).hostname
    bound = f"{host} {registry()[member.entry.uses].idempotency_header}"
    return fingerprint(member.credentials.key, salt + bound.encode())


def _desk(store: Store, member: Member, line: Line, fetcher: Fetcher, salt: bytes) -> Desk:
    entry = member.entry
    return Desk(
        entry.name, registry()[entry.uses], line, fetcher, store, store.clock, mark_of(member, salt),
        entry.poll_interval, entry.timeout, exclusive=entry.account_exclusive,
    )  # fmt: skip
