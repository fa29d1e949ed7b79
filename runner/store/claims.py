"""Claims: the right to make one request, taken in one transaction together with the slot, the room and the lease.

Every claim locks the account's row first (SQLite: BEGIN IMMEDIATE is that lock). Counting and claiming in one statement
without it lets a limit of 5 reach 40 on PostgreSQL, because the count belongs to the statement's older snapshot.

A slot belongs to the job's state, not to a process: in flight = submitting + unknown + running. Derived counts cannot
leak.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import Connection, Executable, Row, bindparam, delete, func, insert, select, text, type_coerce, update

from runner.jobs import TERMINAL, Event, State
from runner.ledger import ZERO, reserve
from runner.limits import Window, next_room, room
from runner.store.changes import attempts, book, events, jobs, requests
from runner.store.rows import INTEGER, add, parameter, rowset, run
from runner.store.tables import MOVING, POSTPONED, Account, Batch, Total, ticks

accounts = Account.__table__  # type: ignore[attr-defined]
batches = Batch.__table__  # type: ignore[attr-defined]
totals = Total.__table__  # type: ignore[attr-defined]

# SQLite uses a partial index only for a query that repeats the index's own condition to the letter.
IS_MOVING = text(f"jobs.{MOVING}")
IS_POSTPONED = text(POSTPONED)
IS_UNSETTLED = text("jobs.settle_at IS NOT NULL")
QUEUED = text("jobs.state = 'queued'")

LOST_ANSWERS = 3  # so many answers lost …
LOST_WITHIN = timedelta(minutes=10)  # … within this time close an unkeyed account for as long


@dataclass(frozen=True, slots=True)
class Intent:
    """What a job's submission will say, composed and frozen before it is claimed.

    `priced` is the exact documented price, `estimate` the upper end of what is known (None: unpriced).
    """

    job_id: int
    batch_id: int
    generation: int
    path: str
    body: str
    idempotency_key: str | None
    fingerprint: str
    shape: str
    priced: Decimal | None
    estimate: Decimal | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A leased job and, where the account has request windows, the logged request it may make."""

    job_id: int
    lease: int
    request: int | None = None


@dataclass(frozen=True, slots=True)
class Wants:
    """What a lane could do now: the intents it has ready, and how many more requests of each kind it can carry."""

    worker: int
    account: str
    keyed: bool
    intents: Sequence[Intent] = ()
    resends: int = 0
    looks: bool = False
    polls: int = 0
    poll_pages: int = 0
    settles: int = 0
    downloads: int = 0


@dataclass(slots=True)
class Round:
    """What a lane may do now. `wake_at`: nothing further becomes possible before then, by what the database knows.

    `listing` holds the tasks that one walk over the provider's list asks for, and the request for each of its pages.
    """

    submissions: list[Claim] = field(default_factory=list)
    resends: list[Claim] = field(default_factory=list)
    looks: list[Claim] = field(default_factory=list)
    polls: list[Claim] = field(default_factory=list)
    listing: list[Claim] = field(default_factory=list)
    pages: list[int | None] = field(default_factory=list)
    settles: list[Claim] = field(default_factory=list)
    downloads: list[Claim] = field(default_factory=list)
    beyond_budget: bool = False
    paused: bool = False
    stopped: bool = False
    in_flight: int = 0
    wake_at: datetime | None = None

    def __bool__(self) -> bool:
        return any((self.submissions, self.resends, self.looks, self.polls, self.listing, self.settles, self.downloads))


def claim(connection: Connection, now: datetime, wants: Wants) -> Round:
    """Takes what the account's limits allow, in this order: open questions, submissions, polls; downloads apart."""
    account = lock_account(connection, wants.account)
    taken = Round(in_flight=count_in_flight(connection, wants.account))
    taken.paused, taken.stopped = account.probes > 0, account.stopped is not None
    taken.downloads = _lease_due(connection, now, wants, [State.DOWNLOADING], wants.downloads)
    if not account.blocked(now):
        desk = _Desk(connection, now, wants, account)
        taken.looks = desk.looks()
        if not account.paused(now):
            taken.resends = desk.resends()
            taken.submissions, taken.beyond_budget = desk.submissions(taken.in_flight)
        taken.listing, taken.pages = desk.listing()
        taken.polls = desk.polls()
        taken.settles = desk.settles()
        taken.in_flight += len(taken.submissions)
        account = desk.account  # with the moment of its next list
    taken.wake_at = _wake_at(connection, now, account, wants)
    return taken


def claim_request(
    connection: Connection, now: datetime, worker: int, account: str, keep: int = 0
) -> tuple[bool, int | None, datetime | None]:
    """The right to make one request that no claim of a job includes (a balance, an upload, a further page of a look),
    as long as more than `keep` are left in the window.

    Returns whether it may go now, its row in the log (None without windows), and otherwise when to ask again (None:
    nobody knows).
    """
    held = lock_account(connection, account)
    ends = _request_ends(connection, now, held)
    left = room(held.windows, ends, now)
    if held.blocked(now):
        return False, None, None if held.stopped is not None else held.blocked_until
    if left is not None and left <= keep:
        return False, None, next_room(held.windows, ends, now)
    [row] = _log_requests(connection, now, worker, held, 1)
    return True, row, None


@dataclass(frozen=True, slots=True)
class SubmissionRoom:
    """What a lane should know before it composes anything: how many submissions could go, and what stands in the
    way."""

    free: int
    paused: bool
    paused_kind: str | None
    stopped_models: frozenset[str]


def submission_room(connection: Connection, account: str, now: datetime) -> SubmissionRoom:
    """A look without a lock: the claim itself decides."""
    held = _as_account(connection.execute(select(accounts).where(accounts.c.name == account)).one())
    free = 0 if held.blocked(now) else held.concurrency - count_in_flight(connection, account)
    return SubmissionRoom(max(0, free), held.paused(now), held.paused_kind, held.stopped_models)


@dataclass(frozen=True, slots=True)
class LockedAccount:
    name: str
    concurrency: int
    windows: tuple[Window, ...]
    poll_interval: timedelta
    blocked_until: datetime | None
    paused_until: datetime | None
    paused_kind: str | None
    stopped: str | None
    stopped_models: frozenset[str]
    probes: int
    list_at: datetime | None

    def blocked(self, now: datetime) -> bool:
        return self.stopped is not None or (self.blocked_until is not None and self.blocked_until > now)

    def paused(self, now: datetime) -> bool:
        return self.paused_until is not None and self.paused_until > now


def lock_account(connection: Connection, name: str) -> LockedAccount:
    """The account's row, locked until the transaction ends."""
    return _as_account(connection.execute(select(accounts).where(accounts.c.name == name).with_for_update()).one())


def lock_accounts(connection: Connection) -> None:
    """All accounts, in one order, before anything else of a mixed transaction: a crowd locks sums that a claim of
    another worker needs while it holds the account that this one claims from next. (SQLite has one lock for all.)"""
    if connection.dialect.name == "postgresql":
        connection.execute(select(accounts.c.name).order_by(accounts.c.name).with_for_update())


def _as_account(row: Row[Any]) -> LockedAccount:
    return LockedAccount(
        row.name,
        row.concurrency,
        tuple(Window(*pair) for pair in json.loads(row.windows)),
        timedelta(milliseconds=row.poll_interval_ms),
        row.blocked_until,
        row.paused_until,
        row.paused_kind,
        row.stopped,
        frozenset(json.loads(row.stopped_models)),
        row.probes,
        row.list_at,
    )


def count_in_flight(connection: Connection, account: str) -> int:
    states = [State.SUBMITTING, State.UNKNOWN, State.RUNNING]
    return _count(connection, account, IS_MOVING, jobs.c.state.in_(states))


def _count(connection: Connection, account: str, *conditions: Any) -> int:
    statement = select(func.count()).select_from(jobs).where(jobs.c.account == account, *conditions)
    return int(connection.execute(statement).scalar_one())


class _Desk:
    """One claim in the making: what room is left shrinks with everything taken."""

    def __init__(self, connection: Connection, now: datetime, wants: Wants, account: LockedAccount) -> None:
        self.connection, self.now, self.wants, self.account = connection, now, wants, account
        left = room(account.windows, _request_ends(connection, now, account), now)
        self.room = 1_000_000 if left is None else left

    def resends(self) -> list[Claim]:
        """Keyed open questions that are due: the same bytes under the same key. They hold their slot already."""
        if not self.wants.keyed or not self.wants.resends:
            return []
        claims = self._requests([State.UNKNOWN], self.wants.resends)
        _become_submitting(self.connection, self.now, [c.job_id for c in claims])
        return claims

    def looks(self) -> list[Claim]:
        """Unkeyed open questions, all that are due at once: one walk over the history answers for all of them.

        Never while a submission is on the wire: its task could stand in the list before its id is on our disk.
        """
        if self.wants.keyed or not self.wants.looks or not self.room or self._on_the_wire():
            return []
        claims = _lease_due(self.connection, self.now, self.wants, [State.UNKNOWN], 1000)
        if claims:
            self.room -= 1
            [row] = _log_requests(self.connection, self.now, self.wants.worker, self.account, 1)
            claims = [Claim(c.job_id, c.lease, row) for c in claims]
        return claims

    def submissions(self, in_flight: int) -> tuple[list[Claim], bool]:
        most = min(self.account.concurrency - in_flight, self.room)
        if not self.wants.keyed:
            most = min(most, 1)
            if most > 0 and (self._on_the_wire() or self._looking() or self._closed_for_lost_answers()):
                return [], False
        if most <= 0 or not self.wants.intents:
            return [], False
        affordable, beyond = _affordable(self.connection, self.account.name, self.wants.intents)
        claims = _intend(self.connection, self.now, self.wants, self.account, affordable[:most])
        self.room -= len(claims)
        return claims, beyond

    def listing(self) -> tuple[list[Claim], list[int | None]]:
        """All tasks that are due, asked by the pages of one list; at most once per poll interval for the account."""
        pages = min(self.wants.poll_pages, self.room)
        if pages <= 0 or (self.account.list_at is not None and self.account.list_at > self.now):
            return [], []
        claims = _lease_due(self.connection, self.now, self.wants, [State.RUNNING], pages * 50)
        if len(claims) < 2:
            _unlease(self.connection, claims)
            return [], []
        used = min(pages, -(-len(claims) // 50))
        self.room -= used
        self._next_list_at(self.now + self.account.poll_interval)
        return claims, _log_requests(self.connection, self.now, self.wants.worker, self.account, used)

    def polls(self) -> list[Claim]:
        """Tasks asked one by one, the one polled longest ago first; where a list answers for all, it goes first."""
        if self.wants.poll_pages and self.account.list_at is not None and self.account.list_at > self.now:
            return []
        return self._requests([State.RUNNING], self.wants.polls)

    def settles(self) -> list[Claim]:
        """Ended tasks whose final cost is not known yet, when it is time to ask again."""
        due = [IS_UNSETTLED, jobs.c.state.in_(TERMINAL), jobs.c.settle_at <= self.now]
        most = min(self.wants.settles, self.room)
        return self._logged(_lease(self.connection, self.wants, due, most, "settle_at"))

    def _requests(self, states: list[State], most: int) -> list[Claim]:
        return self._logged(_lease_due(self.connection, self.now, self.wants, states, min(most, self.room)))

    def _logged(self, claims: list[Claim]) -> list[Claim]:
        self.room -= len(claims)
        rows = _log_requests(self.connection, self.now, self.wants.worker, self.account, len(claims))
        return [Claim(c.job_id, c.lease, row) for c, row in zip(claims, rows, strict=True)]

    def _on_the_wire(self) -> bool:
        return _count(self.connection, self.account.name, IS_MOVING, jobs.c.state == State.SUBMITTING) > 0

    def _looking(self) -> bool:
        unknown = jobs.c.state == State.UNKNOWN
        return _count(self.connection, self.account.name, IS_MOVING, unknown, jobs.c.lease.is_not(None)) > 0

    def _closed_for_lost_answers(self) -> bool:
        return lost_answers_until(self.connection, self.account.name, self.now) is not None

    def _next_list_at(self, at: datetime) -> None:
        self.connection.execute(update(accounts).where(accounts.c.name == self.account.name).values(list_at=at))
        self.account = replace(self.account, list_at=at)  # what its pages cannot answer for waits for the next one


def lost_answers_until(connection: Connection, account: str, now: datetime) -> datetime | None:
    """Until when the account stays closed because living processes lost too many answers; None when it is open.

    Each group of answers that were lost within ten minutes closes it for ten minutes from its last one.
    """
    recent = (
        select(attempts.c.answered_at)
        .where(text("outcome = 'no_answer'"), attempts.c.account == account)
        .where(attempts.c.answered_at > now - 2 * LOST_WITHIN)
        .order_by(attempts.c.answered_at.desc())
    )
    lost: list[datetime] = list(connection.execute(recent).scalars())
    groups = zip(lost, lost[LOST_ANSWERS - 1 :], strict=False)
    closing = (last + LOST_WITHIN for last, first in groups if last - first <= LOST_WITHIN)
    return max((until for until in closing if until > now), default=None)


def _affordable(connection: Connection, account: str, intents: Sequence[Intent]) -> tuple[list[Intent], bool]:
    """The intents that fit their batch's budget, in order, as long as the next one fits; whether one has to wait.

    Without a price the first of its shape goes alone: its charge prices the rest.
    """
    spend = {batch: _spend(connection, account, batch) for batch in {i.batch_id for i in intents}}
    limited = any(wallet.limit is not None for wallet in spend.values())
    unpriced_out = _unpriced_shapes_in_flight(connection, account) if limited else set()
    chosen: list[Intent] = []
    beyond = False
    for intent in intents:
        wallet = spend[intent.batch_id]
        if wallet.limit is not None and intent.estimate is None:
            if intent.shape in unpriced_out or wallet.spent >= wallet.limit:
                beyond = True
                continue
            unpriced_out.add(intent.shape)
        elif wallet.limit is not None and wallet.spent + (intent.estimate or ZERO) > wallet.limit:
            beyond = True
            continue
        wallet.spent += intent.estimate or ZERO
        chosen.append(intent)
    return chosen, beyond


@dataclass(slots=True)
class _Wallet:
    spent: Decimal
    limit: Decimal | None


def _spend(connection: Connection, account: str, batch_id: int) -> _Wallet:
    row = connection.execute(select(totals).where(totals.c.batch_id == batch_id, totals.c.account == account)).one()
    budget = json.loads(connection.execute(select(batches.c.budget).where(batches.c.id == batch_id)).scalar_one())
    limit = budget.get(account)
    return _Wallet(row.charged - row.refunded + row.estimated, None if limit is None else Decimal(limit))


def _unpriced_shapes_in_flight(connection: Connection, account: str) -> set[str]:
    states = [State.SUBMITTING, State.UNKNOWN, State.RUNNING]
    statement = select(jobs.c.shape).distinct().where(IS_MOVING, jobs.c.account == account, jobs.c.state.in_(states))
    return set(connection.execute(statement).scalars())


def _intend(
    connection: Connection, now: datetime, wants: Wants, account: LockedAccount, intents: Sequence[Intent]
) -> list[Claim]:
    """queued → submitting, with the intent to pay: the frozen bytes, the key, the reservation, all in this
    transaction."""
    leases = _take_queued(connection, now, wants.worker, intents)
    taken = [intent for intent in intents if intent.job_id in leases]
    if not taken:
        return []
    attempt_of = _new_attempts(connection, now, account.name, taken)
    book(connection, [
        (entry, now, i.batch_id, account.name, i.job_id, attempt_of[i.job_id])
        for i in taken for entry in reserve(i.estimate)
    ])  # fmt: skip
    add(connection, events, [
        {"at": now, "job_id": i.job_id, "event": Event.CLAIMED.value, "source": State.QUEUED.value,
         "target": State.SUBMITTING.value, "data": json.dumps({"generation": i.generation})}
        for i in taken
    ])  # fmt: skip
    rows = _log_requests(connection, now, wants.worker, account, len(taken))
    return [Claim(i.job_id, leases[i.job_id], row) for i, row in zip(taken, rows, strict=True)]


def _take_queued(connection: Connection, now: datetime, worker: int, intents: Sequence[Intent]) -> dict[int, int]:
    """Leases those of the jobs that still are queued and free; returns the lease of each."""
    rows = [{"id": i.job_id, "generation": i.generation, "lease": _token()} for i in intents]
    fixed = {"worker": worker, "now": ticks(now)}
    statement = _take_statement(connection.dialect.name)
    result = connection.execute(statement, {**parameter(rows), **fixed})
    return {row.id: row.lease for row in result}


@cache
def _take_statement(dialect: str) -> Executable:
    v = rowset(dialect, {"id": INTEGER, "generation": INTEGER, "lease": INTEGER})
    now = bindparam("now", type_=INTEGER)
    return (
        update(jobs)
        .values(state=State.SUBMITTING.value, lease=v.c.lease, owner=bindparam("worker", type_=INTEGER),
                attempts=jobs.c.attempts + 1, updated_at=now)
        .where(jobs.c.id == v.c.id, QUEUED, jobs.c.lease.is_(None), jobs.c.generation == v.c.generation,
               type_coerce(jobs.c.due_at, INTEGER) <= now)
        .returning(jobs.c.id, jobs.c.lease)
    )  # fmt: skip


def _new_attempts(connection: Connection, now: datetime, account: str, intents: Sequence[Intent]) -> dict[int, int]:
    """One row per intent, and the job's pointer to it; returns the attempt of each job."""
    statement = insert(attempts).returning(attempts.c.job_id, attempts.c.id)
    found = connection.execute(statement, [
        {"job_id": i.job_id, "account": account, "generation": i.generation, "idempotency_key": i.idempotency_key,
         "fingerprint": i.fingerprint, "path": i.path, "body": i.body, "priced": i.priced, "intent_at": now}
        for i in intents
    ])  # fmt: skip
    attempt_of = {row.job_id: row.id for row in found}
    run(connection, _point_statement(connection.dialect.name), [{"id": j, "attempt": a} for j, a in attempt_of.items()])
    return attempt_of


@cache
def _point_statement(dialect: str) -> Executable:
    v = rowset(dialect, {"id": INTEGER, "attempt": INTEGER})
    return update(jobs).values(attempt_id=v.c.attempt).where(jobs.c.id == v.c.id)


def _become_submitting(connection: Connection, now: datetime, ids: Sequence[int]) -> None:
    if ids:
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(state=State.SUBMITTING, updated_at=now))
        add(connection, events, [
            {"at": now, "job_id": job, "event": Event.RESENT.value, "source": State.UNKNOWN.value,
             "target": State.SUBMITTING.value, "data": "{}"}
            for job in ids
        ])  # fmt: skip


def _lease_due(connection: Connection, now: datetime, wants: Wants, states: list[State], most: int) -> list[Claim]:
    return _lease(connection, wants, [IS_MOVING, jobs.c.state.in_(states), jobs.c.due_at <= now], most, "due_at")


def _lease(connection: Connection, wants: Wants, conditions: Iterable[Any], most: int, order: str) -> list[Claim]:
    """Leases free jobs, the longest due first. One token serves the whole crowd: it fences each job by itself."""
    if most <= 0:
        return []
    due = (
        select(jobs.c.id)
        .where(jobs.c.account == wants.account, jobs.c.lease.is_(None), *conditions)
        .order_by(jobs.c[order], jobs.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    token = _token()
    mine = update(jobs).where(jobs.c.id.in_(select(due.c.id))).values(lease=token, owner=wants.worker)
    taken = mine.returning(jobs.c.id)
    return [Claim(job, token) for job in sorted(connection.execute(taken).scalars())]


def _unlease(connection: Connection, claims: Sequence[Claim]) -> None:
    if claims:
        ids = [c.job_id for c in claims]
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(lease=None, owner=None))


def _token() -> int:
    return secrets.randbits(62) | 1


def _request_ends(connection: Connection, now: datetime, account: LockedAccount) -> list[datetime | None]:
    """When each request that may still count in a window was answered; what no window counts any more is forgotten."""
    if not account.windows:
        return []
    longest = timedelta(seconds=max(w.seconds for w in account.windows))
    gone = requests.c.ended_at <= now - longest
    connection.execute(delete(requests).where(requests.c.account == account.name, gone))
    return list(connection.execute(select(requests.c.ended_at).where(requests.c.account == account.name)).scalars())


def _log_requests(
    connection: Connection, now: datetime, worker: int, account: LockedAccount, n: int
) -> list[int | None]:
    if not account.windows or not n:
        return [None] * n
    row = {"account": account.name, "worker": worker, "started_at": now, "ended_at": None}
    result = connection.execute(insert(requests).returning(requests.c.id), [row] * n)
    return list(result.scalars())


def _wake_at(connection: Connection, now: datetime, account: LockedAccount, wants: Wants) -> datetime | None:
    """The next moment at which something of this account falls due by itself.

    What is due already and was not claimed waits for something else: for hands, which their owner knows, for room in
    the window, or for the next walk over the list. Downloads go whatever the account may do.
    """
    download = _next_due(connection, now, account, [State.DOWNLOADING])
    if account.stopped is not None:
        return download  # for the rest a person is needed
    if account.blocked(now):
        return _earliest(now, download, account.blocked_until)
    full = next_room(account.windows, _request_ends(connection, now, account), now)
    asked = [_next_due(connection, now, account, [State.UNKNOWN, State.RUNNING]), _next_bill(connection, now, account)]
    asking = [max(at, full) if at is not None and full is not None else at for at in asked]
    lost = None if wants.keyed else lost_answers_until(connection, account.name, now)
    postponed = _postponed_until(connection, now, account)
    return _earliest(now, download, *asking, postponed, full, lost, account.paused_until, account.list_at)


def _earliest(now: datetime, *times: datetime | None) -> datetime | None:
    return min((at for at in times if at is not None and at > now), default=None)


def _next_due(connection: Connection, now: datetime, account: LockedAccount, states: list[State]) -> datetime | None:
    later = [IS_MOVING, jobs.c.account == account.name, jobs.c.state.in_(states), jobs.c.due_at > now]
    return _least(connection, jobs.c.due_at, *later, jobs.c.lease.is_(None))


def _next_bill(connection: Connection, now: datetime, account: LockedAccount) -> datetime | None:
    later = [IS_UNSETTLED, jobs.c.account == account.name, jobs.c.state.in_(TERMINAL), jobs.c.settle_at > now]
    return _least(connection, jobs.c.settle_at, *later, jobs.c.lease.is_(None))


def _postponed_until(connection: Connection, now: datetime, account: LockedAccount) -> datetime | None:
    return _least(connection, jobs.c.due_at, IS_POSTPONED, jobs.c.account == account.name, jobs.c.due_at > now)


def _least(connection: Connection, time: Any, *conditions: Any) -> datetime | None:
    found: datetime | None = connection.execute(select(func.min(time)).where(*conditions)).scalar_one()
    return found
