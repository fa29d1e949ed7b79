"""Claims: the right to make one request, taken in one transaction together with the slot, the room and the lease.

Every claim locks the account's row first: see `accounts`. A slot belongs to the job's state, not to a process: in
flight = submitting + unknown + running. Derived counts cannot leak.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import Column, Connection, Executable, TextClause, bindparam, func, select, update

from runner.jobs import TERMINAL, Event, State
from runner.limits import list_every, room, share
from runner.store.accounts import LockedAccount, as_account, lock_account
from runner.store.changes import events, jobs
from runner.store.intents import Claim, Intent, affordable, intend, lost_answers_until, new_lease
from runner.store.rows import add
from runner.store.tables import IS_MOVING, IS_UNSETTLED, accounts
from runner.store.waking import wake_at
from runner.store.windows import log_requests, request_ends

UNLIMITED = 1_000_000


@dataclass(frozen=True, slots=True)
class Wants:
    """What a lane could do now: the intents it has ready, and how many more requests of each kind it can carry.
    `drains`: nothing is ordered while a question is open, so that the balance can answer it. `most`: of all requests
    together, downloads apart."""

    worker: int
    account: str
    keyed: bool
    intents: Sequence[Intent] = ()
    drains: bool = False
    resends: int = 0
    looks: bool = False
    polls: int = 0
    poll_pages: int = 0
    settles: int = 0
    downloads: int = 0
    most: int = UNLIMITED


@dataclass(slots=True)
class Round:
    """What a lane may do now. `wake_at`: nothing further becomes possible before then, by what the database knows.
    `closed_until`: nothing is ordered before then, because too many answers were lost.

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
    closed_until: datetime | None = None

    def __bool__(self) -> bool:
        return bool(self.asks or self.downloads)

    @property
    def asks(self) -> bool:
        """Whether the provider's API is asked anything."""
        return any((self.submissions, self.resends, self.looks, self.polls, self.listing, self.settles))


def claim(connection: Connection, now: datetime, wants: Wants) -> Round:
    """Takes what the account's limits allow, in this order: open questions, submissions, polls; downloads apart."""
    account = lock_account(connection, wants.account)
    taken = Round(in_flight=count_in_flight(connection, wants.account))
    taken.paused, taken.stopped = account.probes > 0, account.stopped is not None
    taken.downloads = _lease_due(connection, now, wants, State.DOWNLOADING, wants.downloads)
    if not account.blocked(now):
        desk = _Desk(connection, now, wants, account)
        taken.looks = desk.looks()
        if not account.paused(now):
            taken.resends = desk.resends()
            taken.submissions, taken.beyond_budget = desk.submissions(taken.in_flight)
        taken.listing, taken.pages = desk.listing()
        taken.polls = desk.polls()
        taken.settles = desk.settles()
        taken.closed_until = desk.closed_until
        taken.in_flight += len(taken.submissions)
        account = desk.account  # with the moment of its next list
    taken.wake_at = wake_at(connection, now, account, keyed=wants.keyed)
    return taken


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
    held = as_account(connection.execute(select(accounts).where(accounts.c.name == account)).one())
    free = 0 if held.blocked(now) else held.concurrency - count_in_flight(connection, account)
    return SubmissionRoom(max(0, free), held.paused(now), held.paused_kind, held.stopped_models)


def count_in_flight(connection: Connection, account: str) -> int:
    return _count(connection, account, State.SUBMITTING, State.UNKNOWN, State.RUNNING)


def _count(connection: Connection, account: str, *states: State, leased: bool = False) -> int:
    return int(connection.execute(_count_statement(states, leased), {"of_account": account}).scalar_one())


@cache  # a claim would spend more time on building its statements than on running them
def _count_statement(states: Collection[State], leased: bool) -> Executable:
    moving = select(func.count()).select_from(jobs).where(IS_MOVING, jobs.c.account == bindparam("of_account"))
    counted = moving.where(jobs.c.state.in_(states))
    return counted.where(jobs.c.lease.is_not(None)) if leased else counted


class _Desk:
    """One claim in the making: what room is left shrinks with everything taken."""

    def __init__(self, connection: Connection, now: datetime, wants: Wants, account: LockedAccount) -> None:
        self.connection, self.now, self.wants, self.account = connection, now, wants, account
        self.closed_until: datetime | None = None
        left = room(account.windows, request_ends(connection, now, account), now)
        self.room = min(wants.most, UNLIMITED if left is None else left)

    def resends(self) -> list[Claim]:
        """Keyed open questions that are due: the same bytes under the same key. They hold their slot already."""
        if not self.wants.keyed or not self.wants.resends:
            return []
        claims = self._requests(State.UNKNOWN, self.wants.resends)
        _become_submitting(self.connection, self.now, [c.job_id for c in claims])
        return claims

    def looks(self) -> list[Claim]:
        """Unkeyed open questions, all that are due at once: one walk over the history answers for all of them.

        Never while a submission is on the wire: its task could stand in the list before its id is on our disk.
        """
        if self.wants.keyed or not self.wants.looks or not self.room or self._on_the_wire():
            return []
        claims = _lease_due(self.connection, self.now, self.wants, State.UNKNOWN, 1000)
        if claims:
            self.room -= 1
            [row] = log_requests(self.connection, self.now, self.wants.worker, self.account, 1)
            claims = [Claim(c.job_id, c.lease, row) for c in claims]
        return claims

    def submissions(self, in_flight: int) -> tuple[list[Claim], bool]:
        most = min(self.account.concurrency - in_flight, self.room)
        if not self.wants.keyed or self.account.probing:
            most = min(most, 1)
            if most > 0 and (self._on_the_wire() or self._looking_into_lost_answers()):
                return [], False
        if most <= 0 or not self.wants.intents:
            return [], False
        payable, beyond = affordable(self.connection, self.account.name, self.wants.intents)
        claims = intend(self.connection, self.now, self.wants.worker, self.account, payable[:most])
        self.room -= len(claims)
        return claims, beyond

    def listing(self) -> tuple[list[Claim], list[int | None]]:
        """All tasks that are due, asked by the pages of one list; at most once per poll interval for the account, and
        with a small window less often."""
        pages = min(self._pages(), self.room)
        if pages <= 0 or (self.account.list_at is not None and self.account.list_at > self.now):
            return [], []
        claims = _lease_due(self.connection, self.now, self.wants, State.RUNNING, pages * 50)
        if len(claims) < 2:
            _unlease(self.connection, claims)
            return [], []
        used = min(pages, -(-len(claims) // 50))
        self.room -= used
        every = list_every(self.account.poll_interval.total_seconds(), used, self.account.windows)
        self._next_list_at(self.now + timedelta(seconds=every))
        return claims, log_requests(self.connection, self.now, self.wants.worker, self.account, used)

    def _pages(self) -> int:
        """How many pages of the list one walk may ask for: none where the window leaves no room beside it."""
        return 0 if share(self.account.windows) == 0 else self.wants.poll_pages

    def polls(self) -> list[Claim]:
        """Tasks asked one by one, the one polled longest ago first; where a list answers for all, it goes first."""
        if self._pages() and self.account.list_at is not None and self.account.list_at > self.now:
            return []
        return self._requests(State.RUNNING, self.wants.polls)

    def settles(self) -> list[Claim]:
        """Ended tasks whose final cost is not known yet, when it is time to ask again."""
        due = _lease_statement(IS_UNSETTLED, jobs.c.settle_at, TERMINAL)
        return self._logged(_lease(self.connection, self.now, self.wants, due, min(self.wants.settles, self.room)))

    def _requests(self, state: State, most: int) -> list[Claim]:
        return self._logged(_lease_due(self.connection, self.now, self.wants, state, min(most, self.room)))

    def _logged(self, claims: list[Claim]) -> list[Claim]:
        self.room -= len(claims)
        rows = log_requests(self.connection, self.now, self.wants.worker, self.account, len(claims))
        return [Claim(c.job_id, c.lease, row) for c, row in zip(claims, rows, strict=True)]

    def _on_the_wire(self) -> bool:
        return _count(self.connection, self.account.name, State.SUBMITTING) > 0

    def _looking_into_lost_answers(self) -> bool:
        return not self.wants.keyed and (self._asking_around() or self._closed_for_lost_answers())

    def _asking_around(self) -> bool:
        """Whether a lost answer is being looked into; on an account that drains, whether one is open at all."""
        return _count(self.connection, self.account.name, State.UNKNOWN, leased=not self.wants.drains) > 0

    def _closed_for_lost_answers(self) -> bool:
        self.closed_until = lost_answers_until(self.connection, self.account.name, self.now)
        return self.closed_until is not None

    def _next_list_at(self, at: datetime) -> None:
        self.connection.execute(update(accounts).where(accounts.c.name == self.account.name).values(list_at=at))
        self.account = replace(self.account, list_at=at)  # what its pages cannot answer for waits for the next one


def _become_submitting(connection: Connection, now: datetime, ids: Sequence[int]) -> None:
    if ids:
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(state=State.SUBMITTING, updated_at=now))
        add(connection, events, [
            {"at": now, "job_id": job, "event": Event.RESENT.value, "source": State.UNKNOWN.value,
             "target": State.SUBMITTING.value, "data": "{}"}
            for job in ids
        ])  # fmt: skip


def _lease_due(connection: Connection, now: datetime, wants: Wants, state: State, most: int) -> list[Claim]:
    return _lease(connection, now, wants, _lease_statement(IS_MOVING, jobs.c.due_at, (state,)), most)


def _lease(connection: Connection, now: datetime, wants: Wants, statement: Executable, most: int) -> list[Claim]:
    """Leases free jobs, the longest due first. One token serves the whole crowd: it fences each job by itself."""
    if most <= 0:
        return []
    token = new_lease()
    bound = {"of_account": wants.account, "at": now, "most": most, "token": token, "worker": wants.worker}
    return [Claim(job, token) for job in sorted(connection.execute(statement, bound).scalars())]


@cache
def _lease_statement(kind: TextClause, time: Column[datetime], states: Collection[State]) -> Executable:
    """Of the kind that `kind` tells, the jobs in these states whose `time` has come."""
    due = (
        select(jobs.c.id)
        .where(kind, jobs.c.account == bindparam("of_account"), jobs.c.lease.is_(None))
        .where(jobs.c.state.in_(states), time <= bindparam("at"))
        .order_by(time, jobs.c.id)
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    mine = update(jobs).where(jobs.c.id.in_(select(due.c.id)))
    return mine.values(lease=bindparam("token"), owner=bindparam("worker")).returning(jobs.c.id)


def _unlease(connection: Connection, claims: Sequence[Claim]) -> None:
    if claims:
        ids = [c.job_id for c in claims]
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(lease=None, owner=None))
