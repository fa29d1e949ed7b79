"""A run, from a checked manifest to an exit code: what `run` and `rehearse` share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import structlog

from runner import expand
from runner import plan as planning
from runner.cli.accounts import (
    Member,
    check_leave,
    check_speed,
    lanes,
    limits_of,
    of_manifest,
    of_queue,
    tell_notes,
)
from runner.cli.output import say
from runner.client.callbacks import CallbackPlace, listening
from runner.clock import Clock
from runner.engine import Engine, Exit, Lane
from runner.errors import InputError, LocalError, NoQueue, Problem
from runner.expand import Survey
from runner.ledger import as_text
from runner.manifest import Manifest
from runner.manifest.places import Spot
from runner.plan import Plan
from runner.providers import registry
from runner.settings import Settings
from runner.store import Store, callbacks, facts, open_store, read_store
from runner.store.enqueue import (
    AccountSettings,
    Enqueued,
    NewBatch,
    NewJob,
    enqueue,
    save_accounts,
    tighten_budgets,
)
from runner.store.queries import account_rows

log = structlog.get_logger("runner")

SIGNALS = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED, signal.SIGHUP: Exit.TERMINATED}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the person asked for. `leave`: the accounts whose lost orders may go again. `callback`: where providers are
    asked to call. `root`: where outputs go (None: the manifest's folder). `anchor`: see `Clock`. `largest_file`: more
    bytes than these are no output (None: the default). `from_backup`: the queue may be a copy of another one."""

    db: str
    settings: Settings
    max_credits: Mapping[str, Decimal] = field(default_factory=dict)
    max_credits_each: Decimal | None = None
    until: datetime | None = None
    wait: bool = True
    leave: frozenset[str] = frozenset()
    callback: CallbackPlace | None = None
    speed: float = 1.0
    anchor: float | None = None
    root: Path | None = None
    largest_file: int | None = None
    from_backup: bool = False

    def cap(self, account: str) -> Decimal | None:
        """The most that the command line allows for an account."""
        caps = [cap for cap in (self.max_credits.get(account), self.max_credits_each) if cap is not None]
        return min(caps, default=None)


@dataclass(frozen=True, slots=True)
class Order:
    """A manifest, read and surveyed."""

    manifest: Manifest
    survey: Survey


def read_order(path: Path, allowed: Sequence[Path] | None = None) -> Order:
    """Reads and checks a manifest whole; `allowed` are the folders of --allow-files. Raises InputError with every
    problem; no queue is touched."""
    return Order(*planning.read(path, allowed or ()))


async def plan_against(order: Order, db: str, clock: Clock, root: Path) -> Plan:
    """The plan against the queue at `db`, which is neither made nor locked by this; what is gone is named in it."""
    async with opened_for_reading(db, clock) as store:
        plan = await planning.make(order.manifest, order.survey, store, root, clock.now())
        plan.first_gone = await planning.first_gone(plan, store)
        return plan


@asynccontextmanager
async def opened_for_reading(db: str, clock: Clock) -> AsyncIterator[Store | None]:
    """The queue, or None where there is none yet."""
    async with AsyncExitStack() as stack:
        store: Store | None = None
        with contextlib.suppress(NoQueue):
            store = await stack.enter_async_context(read_store(db, clock))
        yield store


async def must_exist(db: str, clock: Clock) -> None:
    """Raises NoQueue where there is none. Whatever else is wrong with it is told, or mended, when it is opened."""
    try:
        async with read_store(db, clock):
            return
    except NoQueue:
        raise
    except LocalError:
        return


async def clock_of(options: RunOptions) -> Clock:
    """The clock of a queue: a faster one counts from where the queue's own time line began."""
    if options.speed == 1.0:
        return Clock()
    if options.anchor is not None:
        return Clock(options.speed, options.anchor)
    async with opened_for_reading(options.db, Clock()) as store:
        return Clock(options.speed, await store.read(facts.anchor) if store else time.time())


@asynccontextmanager
async def prepared(order: Order | None, options: RunOptions, clock: Clock) -> AsyncIterator[Engine]:
    """An engine ready to run: keys checked, queue opened and owned, new jobs added, a lane for every account.

    Keys are checked before the queue is opened; with a missing one nothing is written.
    """
    members = members_of(order, options) if order else []
    async with open_store(options.db, clock, own=True) as store:
        await _must_be_in_use(store, options)
        others, lacking = of_queue(await store.read(account_rows), options.settings, [m.entry.name for m in members])
        check_speed(options.speed, others)
        everyone = [*members, *others]
        check_leave(options.leave, everyone)
        tell_notes(others)
        added = await _enqueue(store, order, options, members) if order else None
        if order is None:
            await _tighten(store, options)
        batch_ids = [added.batch_id] if added else None
        async with (
            lanes(store, everyone, batch_ids, options.until, options.leave) as made,
            _called_back(store, made, options.callback),
        ):
            for lane in made:
                lane.desk.largest_file = options.largest_file or lane.desk.largest_file
            yield Engine(store, made, batch_ids, lacking, options.until, options.wait)


async def _must_be_in_use(store: Store, options: RunOptions) -> None:
    """Raises InputError for a backup that nobody has said to go on with: what was ordered since is not in it, and would
    be ordered again."""
    copied = await store.read(facts.copied_at)
    if copied is None:
        return
    if not options.from_backup:
        raise InputError(
            f"this queue is a backup of {copied:%Y-%m-%d %H:%M} UTC, and does not know what was ordered since",
            "a run would order it again, and pay again where keys are not honoured, or not any more. Look at the "
            "providers, runner cancel JOB what is queued here and was ordered, then run once with --from-backup",
        )
    await store.write(facts.take_into_use)


@asynccontextmanager
async def _called_back(store: Store, made: Sequence[Lane], place: CallbackPlace | None) -> AsyncIterator[None]:
    """Asks providers to call back, and has the job asked that a call is about."""
    if place is None:
        yield
        return
    lane_of = {lane.desk.account: lane for lane in made}
    for lane in made:
        lane.desk.callback_url = place.url

    async def heard(word: str, task_id: str | None) -> bool:
        if not await store.read(callbacks.awaited, word):
            return False
        call = await store.write(callbacks.hear, store.clock.now(), word, task_id)
        if call is None:
            return False
        if call.account in lane_of:
            lane_of[call.account].news.set()
        if call.stray:
            hint = f"if it is held: runner resolve {call.job_id} --adopt {task_id}"
            log.warning(
                "a lost order has a task", account=call.account, job=str(call.job_id), task_id=task_id, hint=hint
            )
        return True

    async with listening(place, heard):
        yield


def members_of(order: Order, options: RunOptions) -> list[Member]:
    """The accounts of a manifest with their keys. Raises InputError for each that is missing or malformed, and for a
    faster clock against anything but sandboxes."""
    check_caps(options, order.survey.accounts_used())
    members = of_manifest(order.manifest, order.survey.accounts_used(), options.settings)
    check_speed(options.speed, members)
    return members


async def _enqueue(store: Store, order: Order, options: RunOptions, members: Sequence[Member]) -> Enqueued:
    manifest = order.manifest
    root = options.root or manifest.folder
    text = manifest.path.read_text(encoding="utf-8-sig")
    batch = NewBatch(
        manifest.batch, str(manifest.folder), str(root), text, manifest.sha256, batch_limits(order, options)
    )  # fmt: skip
    accounts = limits_of(members, await store.read(facts.salt))
    return await store.write(_add, store.clock.now(), accounts, batch, NewJobs(order))


def _add(
    connection: Any, now: datetime, accounts: Sequence[AccountSettings], batch: NewBatch, jobs: Iterable[NewJob]
) -> Enqueued:
    """Accounts and jobs in one transaction: a job without its account could never move."""
    save_accounts(connection, accounts)
    return enqueue(connection, now, batch, jobs)


async def _tighten(store: Store, options: RunOptions) -> None:
    """Without a manifest the caps hold for every batch of the queue. Raises InputError for a name it does not know."""
    names = [row.name for row in await store.read(account_rows)]
    check_caps(options, names)
    if options.max_credits or options.max_credits_each is not None:
        await store.write(tighten_budgets, names, options.max_credits, options.max_credits_each)


def check_caps(options: RunOptions, names: Collection[str]) -> None:
    """A cap for an account that is not there would be no cap at all. Raises InputError."""
    for name in options.max_credits:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"accounts here: {', '.join(sorted(names)) or 'none'}"
            raise InputError(f"--max-credits {name}=…: no account of that name", hint)


def batch_limits(order: Order, options: RunOptions) -> dict[str, Decimal]:
    """The tighter of the manifest's budget and the command line's cap, per account."""
    limits = dict(order.manifest.budget)
    for account in order.survey.accounts_used():
        given = [cap for cap in (limits.get(account), options.cap(account)) if cap is not None]
        if given:
            limits[account] = min(given)
    return limits


def contradictions(order: Order, options: RunOptions) -> Iterator[Problem]:
    """Where the command line and the manifest say different things about one account: both, and which of them holds
    (B85)."""
    source = order.manifest.source
    for account, budget in order.manifest.budget.items():
        cap = options.cap(account)
        if account in order.survey.accounts_used() and cap is not None and cap != budget:
            said = f"--max-credits says {as_text(cap)} for {account}, its budget {as_text(budget)}"
            message = f"{said}: the lower one holds, {as_text(min(cap, budget))}"
            place = source.place(Spot(("budget", account)))
            yield source.quote(Problem("B85", message, "the budget can only be raised in the manifest", place))


@dataclass(frozen=True, slots=True)
class NewJobs:
    """The jobs of a manifest for the queue: a stream that can be begun anew, should the transaction be tried again."""

    order: Order

    def __iter__(self) -> Iterator[NewJob]:
        manifest = self.order.manifest
        for job in planning.orders_of(manifest, self.order.survey):
            yield NewJob(
                job.key, job.job, job.take, job.account, job.provider, job.model, job.shape, job.spec,
                json.dumps(dict(job.variables), ensure_ascii=False), job.output, manifest.path.name, job.priority,
                job.estimated.high if job.estimated else None, _reviews(job),
            )  # fmt: skip


def _reviews(job: expand.Order) -> bool:
    """Whether the provider is to review some of the job's references before it is ordered."""
    provider = registry()[job.provider]
    model = provider.model(job.model)
    return any(provider.must_register(model, pinned.reference) for pinned in job.references)


async def work(engine: Engine) -> Exit:
    """Runs the engine until its end or a signal. The first signal ends it within ten seconds; a second one at once,
    which is as safe as a SIGKILL."""
    caught: list[Exit] = []
    with _signals(engine, caught):
        code = await engine.run()
    return caught[0] if caught else code


@contextlib.contextmanager
def _signals(engine: Engine, caught: list[Exit]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def heard(number: signal.Signals) -> None:
        if caught:
            os._exit(int(SIGNALS[number]))
        caught.append(SIGNALS[number])
        engine.stop.set()
        say("stopping: requests on the wire are awaited for up to 10 s; once more to end at once")

    for number in SIGNALS:
        loop.add_signal_handler(number, heard, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def parse_caps(texts: Sequence[str]) -> tuple[Decimal | None, dict[str, Decimal]]:
    """`--max-credits 500` (each account) and `--max-credits seegen=500`. Raises InputError for anything else."""
    each: Decimal | None = None
    caps: dict[str, Decimal] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        amount = _amount(number, text)
        if equals:
            caps[name] = amount
        else:
            each = amount
    return each, caps


def _amount(number: str, text: str) -> Decimal:
    try:
        amount = Decimal(number)
    except ArithmeticError:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise InputError(f"--max-credits {text}: not an amount of credits", "for example 500 or happyhorse=500")
    return amount
