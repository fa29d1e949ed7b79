"""The request log of accounts with request windows: what still counts, and the right to make one request more."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from runner.limits import next_room, room, share
from runner.store.accounts import LockedAccount, lock_account
from runner.store.changes import requests


def claim_request(
    connection: Connection, now: datetime, worker: int, account: str, keep: int = 0
) -> tuple[bool, int | None, datetime | None]:
    """The right to make one request that no claim of a job includes (a balance, an upload, a further page of a look),
    as long as more than `keep` are left in the window (of a small one, a third).

    Returns whether it may go now, its row in the log (None without windows), and otherwise when to ask again (None:
    nobody knows).
    """
    held = lock_account(connection, account)
    ends = request_ends(connection, now, held)
    left = room(held.windows, ends, now)
    if held.blocked(now):
        return False, None, None if held.stopped is not None else held.blocked_until
    if left is not None and left <= min(keep, share(held.windows) or 0):
        return False, None, next_room(held.windows, ends, now)
    [row] = log_requests(connection, now, worker, held, 1)
    return True, row, None


def request_ends(connection: Connection, now: datetime, account: LockedAccount) -> list[datetime | None]:
    """When each request that may still count in a window was answered; what no window counts any more is forgotten."""
    if not account.windows:
        return []
    longest = timedelta(seconds=max(w.seconds for w in account.windows))
    gone = requests.c.ended_at <= now - longest
    connection.execute(delete(requests).where(requests.c.account == account.name, gone))
    return list(connection.execute(select(requests.c.ended_at).where(requests.c.account == account.name)).scalars())


def log_requests(
    connection: Connection, now: datetime, worker: int, account: LockedAccount, n: int
) -> list[int | None]:
    if not account.windows or not n:
        return [None] * n
    row = {"account": account.name, "worker": worker, "started_at": now, "ended_at": None}
    result = connection.execute(insert(requests).returning(requests.c.id), [row] * n)
    return list(result.scalars())
