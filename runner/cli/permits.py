"""One unpaid request of a command that is no runner: it counts in the account's request window like any other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from runner.cli import output

if TYPE_CHECKING:
    from runner.store import Store

NOBODY = 0  # the worker of a request that no runner makes
LONGEST_WAIT = 120.0  # seconds for room in the request window


@asynccontextmanager
async def permitted(store: Store, account: str, longest_wait: float) -> AsyncIterator[None]:
    """The right to make one request within the block. Raises NotNow where there is no room within `longest_wait`
    seconds."""
    request = await _room(store, account, longest_wait)
    try:
        yield
    finally:
        await _answered(store, request)


async def _room(store: Store, account: str, longest_wait: float) -> int | None:
    """Waits for room in the account's request window; returns the request's row in the log. A stopped account is not
    waited for: asking whether a new key works is how it gets going again."""
    from runner.cli.decisions import NotNow

    waited = 0.0
    while True:
        now = store.clock.now()
        allowed, row, at = await store.write(_log_request, now, account)
        if allowed or (at is None and await _stopped(store, account)):
            return row
        wait = max((at - now).total_seconds(), 0.1) if at is not None else 1.0
        if waited + wait > longest_wait:
            raise NotNow(f"account {account} is at its request limit until {output.local(at, now)}", "try again then")
        output.say(f"waiting {wait:.0f} s for room in the request limit of {account}")
        await store.clock.sleep(wait)
        waited += wait


async def _stopped(store: Store, account: str) -> bool:
    from runner.store.queries import account_rows

    return any(row.name == account and row.stopped for row in await store.read(account_rows))


def _log_request(connection: Any, now: datetime, account: str) -> tuple[bool, int | None, datetime | None]:
    """Logged with its latest possible end: should we die before the answer, it does not count for ever."""
    from runner.client.asking import ASK_SECONDS
    from runner.store.changes import end_requests
    from runner.store.windows import claim_request

    allowed, row, at = claim_request(connection, now, NOBODY, account)
    if row is not None:
        end_requests(connection, {row: now + timedelta(seconds=ASK_SECONDS)})
    return allowed, row, at


async def _answered(store: Store, request: int | None) -> None:
    from runner.store.changes import end_requests

    if request is not None:
        await store.write(end_requests, {request: store.clock.now()})
