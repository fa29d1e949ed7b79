"""`runner status`: how far every batch is, what it has cost, and what needs a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from runner.cli import output
from runner.cli.app import EVERYDAY, Common, Json
from runner.jobs import State
from runner.ledger import ZERO

if TYPE_CHECKING:
    from runner.store.queries import AccountRow, Count, Sum

AMOUNTS = ("estimated", "charged", "refunded", "net")
TOLD = {
    State.HELD: "held: each waits for you. runner jobs --state held tells why, runner show JOB what can be done",
    State.FAILED: "failed: runner jobs --failed tells why; runner retry JOB orders one anew",
    State.PARTIAL: "partial: the provider did not make every output. runner jobs --failed tells which",
    State.UNKNOWN: "unknown: the answer got lost. They are looked into while runner run is at work",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One batch on one account. `estimated` None: no price is known for any of its jobs."""

    account: str
    states: Mapping[State, int]
    estimated: Decimal | None
    charged: Decimal
    refunded: Decimal

    @property
    def net(self) -> Decimal:
        return self.charged - self.refunded

    @property
    def total(self) -> int:
        return sum(self.states.values())


async def status(*, json: Json = False, common: Common = EVERYDAY) -> int:
    """Show how far every batch is, what it has cost, and what needs you."""
    from runner.clock import Clock
    from runner.store import read_store
    from runner.store.queries import account_rows, batch_names, counts, sums

    clock = Clock()
    async with read_store(common.db, clock) as store:
        names = await store.read(batch_names)
        counted, booked, rows = await store.read(counts), await store.read(sums), await store.read(account_rows)
    batches = {name: parts_of(name, counted, booked) for name in names.values()}
    if json:
        output.emit_json({"batches": [_record(name, parts) for name, parts in batches.items()]})
    else:
        _print_text(batches, rows, clock.now())
    return 0


def parts_of(batch: str, counted: Sequence[Count], booked: Sequence[Sum]) -> list[Part]:
    """What the queue says of one batch, account by account."""
    mine = [count for count in counted if count.batch == batch]
    spent = {one.account: one for one in booked if one.batch == batch}
    return [_part(name, mine, spent.get(name)) for name in sorted({count.account for count in mine} | spent.keys())]


def _part(account: str, counted: Iterable[Count], booked: Sum | None) -> Part:
    mine = [count for count in counted if count.account == account]
    estimated = sum((count.estimated for count in mine), ZERO)
    return Part(
        account, {count.state: count.jobs for count in mine}, estimated or None,
        booked.charged if booked else ZERO, booked.refunded if booked else ZERO,
    )  # fmt: skip


def _record(batch: str, parts: Sequence[Part]) -> dict[str, Any]:
    credits = {part.account: {name: getattr(part, name) for name in AMOUNTS} for part in parts}
    return {"batch": batch, "states": _states(parts), "total": sum(part.total for part in parts), "credits": credits}


def _states(parts: Iterable[Part]) -> dict[str, int]:
    """How many jobs are in each state, in the order of a job's life; states without jobs are left out."""
    found: dict[State, int] = dict.fromkeys(State, 0)
    for part in parts:
        for state, jobs in part.states.items():
            found[state] += jobs
    return {state.value: jobs for state, jobs in found.items() if jobs}


def _print_text(batches: Mapping[str, Sequence[Part]], rows: Sequence[AccountRow], now: datetime) -> None:
    if not batches:
        output.emit("no batches\n")
    for name, parts in batches.items():
        output.line(name)
        output.emit(_table(parts) + "\n" if parts else "  no jobs\n\n")
    for said in [*_jobs_that_matter(batches), *(line for row in rows for line in account_lines(row, now))]:
        output.line(said)
    for promise in _promises(rows):
        output.line(promise)


def _table(parts: Sequence[Part]) -> str:
    states = _states(parts)
    heads = ("account", *states, "jobs", *AMOUNTS)
    rows = [_row(part, states) for part in parts]
    return output.table(heads, rows, right=heads[1:])


def _row(part: Part, states: Mapping[str, int]) -> tuple[output.Cell, ...]:
    numbers: list[output.Cell] = []
    for name in states:
        jobs = part.states.get(State(name), 0)
        numbers.append(output.state_cell(name, str(jobs)) if jobs else "")
    amounts = (part.estimated, part.charged, part.refunded, part.net)
    return (part.account, *numbers, part.total, *(output.credits(amount) for amount in amounts))


def _jobs_that_matter(batches: Mapping[str, Sequence[Part]]) -> list[str]:
    found = _states(part for parts in batches.values() for part in parts)
    return [f"{found[state.value]} {what}" for state, what in TOLD.items() if state.value in found]


def account_lines(row: AccountRow, now: datetime) -> list[str]:
    """What keeps an account from going on, and what to do about it; nothing where nothing does."""
    lines: list[str] = []
    if row.stopped is not None:
        lines.append(f"{row.name} is stopped: {row.stopped}. Mend that (most often its key), then: runner run")
    if row.stopped_models:
        models = ", ".join(sorted(row.stopped_models))
        lines.append(f"{row.name} may not use {models}: see the account's plan at the provider, then: runner run")
    if row.paused_until is not None:
        lines.append(_pause(row, now))
    if row.blocked_until is not None and row.blocked_until > now:
        lines.append(
            f"{row.name} is at its request limit until {output.local(row.blocked_until, now)}; it goes on by itself"
        )
    return lines


def _pause(row: AccountRow, now: datetime) -> str:
    until = row.paused_until
    when = f"until {output.local(until, now)}" if until is not None and until > now else "and is tried again next"
    top_up = ". Top up its credits" if row.paused_kind == "insufficient_credits" else ""
    return f"{row.name} is paused {when}: {row.paused_note or row.paused_kind}{top_up}; runner run goes on by itself"


def _promises(rows: Sequence[AccountRow]) -> list[str]:
    """What is guaranteed after a lost answer differs by provider, so it is said."""
    from runner.providers import registry

    known = registry()
    names = sorted({row.provider for row in rows if row.provider in known})
    return [f"{name}, after a lost answer: {known[name].guarantee}" for name in names]
