"""A plan: what is new, kept and gone, and what it costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path

from runner.downloads import free_bytes
from runner.errors import Problem
from runner.expand import Order, Survey, orders, survey
from runner.jobs import State
from runner.ledger import ZERO
from runner.manifest import Manifest, read_manifest
from runner.manifest.findings import Findings
from runner.plan.foresight import Foresight
from runner.plan.places import Places
from runner.providers import registry
from runner.references import Outgoing, root_of
from runner.store import Store, hosted
from runner.store.queries import PAGE, Known, counts, known_states, last_durations, page_after, sums
from runner.store.work import Work, learned

CHUNK = 500
NAMED = 20  # jobs that are gone, named one by one
NEW, KEPT, GONE = "new", "kept", "gone"


@dataclass(slots=True)
class Bill:
    """What is still to be paid on one account: `jobs` of them, from `least` to `estimated` credits, `unpriced` without
    a price. `learned` counts those whose price is known from what such a request was charged before: no document
    gives it, or it is more than the document says."""

    jobs: int = 0
    least: Decimal = ZERO
    estimated: Decimal = ZERO
    unpriced: int = 0
    learned: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One job of the manifest and how the queue stands to it. `estimate` is what it costs at most (None: no price is
    known)."""

    order: Order
    status: str
    known: Known | None
    estimate: Decimal | None
    learned: bool = False

    @property
    def least(self) -> Decimal | None:
        """What it costs at least: less than the estimate where the provider measures something first."""
        return self.order.estimated.low if self.order.estimated else self.estimate

    @property
    def unpaid(self) -> bool:
        return self.known is None or self.known.unpaid

    @property
    def revived(self) -> bool:
        """Cancelled before it was paid, and asked for again: it would be submitted after all."""
        return self.known is not None and self.known.unpaid and self.known.state is State.CANCELLED


@dataclass(slots=True)
class Plan:
    """What is new, kept and gone, what is still to be paid per account, and the local `files` that will leave this
    machine for it: those that an account does not hold already. `first_gone`: the first of those that are gone, where
    a person is to see them before anything is done. `limits`: what the batch may cost per account; `spent`: what of it
    is paid or promised already. `warnings` are for the person, and no reason to refuse."""

    manifest: Manifest
    survey: Survey
    new: int = 0
    kept: int = 0
    gone: int = 0
    revived: int = 0
    first_gone: list[Work] = field(default_factory=list)
    bills: dict[str, Bill] = field(default_factory=dict)
    files: tuple[Outgoing, ...] = ()
    limits: Mapping[str, Decimal] = field(default_factory=dict)
    spent: Mapping[str, Decimal] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()

    @property
    def unpaid(self) -> int:
        return sum(bill.jobs for bill in self.bills.values())


def read(path: Path, allowed: Sequence[Path] = ()) -> tuple[Manifest, Survey]:
    """Reads and checks a manifest whole, before any queue is opened. Local files may lie in its folder and in those
    `allowed`. Raises InputError with every problem."""
    manifest = read_manifest(path)
    return manifest, survey(manifest, registry(), [root_of(folder) for folder in allowed])


async def make(manifest: Manifest, surveyed: Survey, store: Store | None, root: Path, now: datetime) -> Plan:
    """The plan against the queue (None: there is none yet), outputs being written below `root`.

    Raises InputError where outputs could not be written (B77), or a new one would stand on a file that is not ours
    (B78).
    """
    plan = Plan(manifest, surveyed, limits=manifest.budget)
    found, foresight = Findings(manifest.source), Foresight()
    places = Places(root, found)
    needed: dict[str, set[str]] = {}
    alive = 0
    async for line in lines(manifest, surveyed, store):
        plan.new += line.status == NEW
        plan.kept += line.status == KEPT
        alive += line.known is not None and line.known.state is not State.CANCELLED
        plan.revived += line.revived
        if line.unpaid:
            _add(plan.bills.setdefault(line.order.account, Bill()), line)
            contents = [pinned.sha256 for pinned in line.order.references if pinned.sha256]
            needed.setdefault(line.order.account, set()).update(contents)
            foresight.add(line.order)
            places.check(line.order, new=line.status == NEW)
    found.check()
    plan.gone = await _count_gone(manifest, store, alive)
    plan.files = await _leaving(surveyed, needed, store)
    plan.spent = await _spent(manifest.batch, store)
    end = foresight.end(now, *await _paces(manifest, foresight.accounts(), store))
    plan.warnings = (*surveyed.warnings, *foresight.warnings(now, end, free_bytes(root)))
    return plan


async def _spent(batch: str, store: Store | None) -> dict[str, Decimal]:
    found = await store.read(sums) if store is not None else []
    return {each.account: each.charged - each.refunded + each.reserved for each in found if each.batch == batch}


async def _paces(
    manifest: Manifest, accounts: Sequence[str], store: Store | None
) -> tuple[dict[str, int], dict[str, list[float]]]:
    """How many tasks these accounts take at a time, and how long their last ones took."""
    concurrency = {name: manifest.account(name).concurrency for name in accounts}
    return concurrency, {name: await store.read(last_durations, name) for name in accounts if store is not None}


def _add(bill: Bill, line: Line) -> None:
    bill.jobs += 1
    bill.least += line.least or ZERO
    bill.estimated += line.estimate or ZERO
    bill.unpriced += line.estimate is None
    bill.learned += line.learned


async def _leaving(surveyed: Survey, needed: Mapping[str, set[str]], store: Store | None) -> tuple[Outgoing, ...]:
    """The files that will really go out: to accounts with a job to pay that `needed` their content (sha256), and do
    not hold it yet."""
    lacking = {account: await _not_held(account, hashes, store) for account, hashes in needed.items()}
    found = [
        Outgoing(file.file, tuple(name for name in file.accounts if file.file.sha256 in lacking.get(name, ())))
        for file in surveyed.files
    ]
    return tuple(file for file in found if file.accounts)


async def _not_held(account: str, hashes: set[str], store: Store | None) -> set[str]:
    stream, lacking = iter(sorted(hashes)), set(hashes)
    while store is not None and (chunk := list(islice(stream, CHUNK))):
        lacking -= await store.read(hosted.among, account, chunk)
    return lacking


async def lines(manifest: Manifest, surveyed: Survey, store: Store | None) -> AsyncIterator[Line]:
    """Every job of the manifest, in its order, as a stream."""
    stream = orders_of(manifest, surveyed)
    while chunk := list(islice(stream, CHUNK)):
        states = await store.read(known_states, manifest.batch, [o.key for o in chunk]) if store else {}
        prices = await _learned(chunk, store)
        for order in chunk:
            yield _line(order, states.get(order.key), prices.get((order.provider, order.shape)))


def _line(order: Order, known: Known | None, known_price: Decimal | None) -> Line:
    documented = order.estimated.high if order.estimated else None
    learned_price = known_price is not None and (documented is None or known_price > documented)
    estimate = known_price if learned_price else documented
    return Line(order, NEW if known is None else KEPT, known, estimate, learned_price)


async def _learned(chunk: Sequence[Order], store: Store | None) -> Mapping[tuple[str, str], Decimal]:
    shapes: dict[str, set[str]] = {}
    for order in chunk:
        shapes.setdefault(order.provider, set()).add(order.shape)
    if store is None:
        return {}
    return {
        (provider, shape): credits
        for provider, names in shapes.items()
        for shape, credits in (await store.read(learned, provider, sorted(names))).items()
    }


async def _count_gone(manifest: Manifest, store: Store | None, alive: int) -> int:
    """Jobs of the batch that the manifest does not ask for (any more), but for those that are cancelled already."""
    if store is None:
        return 0
    found = await store.read(counts, manifest.batch)
    return sum(c.jobs for c in found if c.state is not State.CANCELLED) - alive


async def gone(plan: Plan, store: Store | None) -> AsyncIterator[Work]:
    """The jobs that only the queue holds, as a stream. Empty without a look where there are none."""
    if store is None or plan.gone <= 0:
        return
    asked = {int(order.key[:16], 16) for order in orders_of(plan.manifest, plan.survey)}
    last = 0
    while page := await store.read(page_after, last, plan.manifest.batch, (), None):
        for work in page:
            if int(work.key[:16], 16) not in asked and work.standing.state is not State.CANCELLED:
                yield work
        last = page[-1].id
        if len(page) < PAGE:
            return


async def first_gone(plan: Plan, store: Store | None) -> list[Work]:
    found: list[Work] = []
    async for work in gone(plan, store):
        found.append(work)
        if len(found) == NAMED:
            break
    return found


def orders_of(manifest: Manifest, surveyed: Survey) -> Iterator[Order]:
    """The jobs of a surveyed manifest once more, as a stream. Raises InputError if a table has changed meanwhile."""
    return orders(manifest, registry(), surveyed)
