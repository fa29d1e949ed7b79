"""A progress display that does not lie: every number comes from the queue, and what is not known is not shown.

On a terminal a small table is redrawn; elsewhere a plain line is written every so often. Always on stderr.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runner import log
from runner.cli.forecast import in_words, latest, remaining
from runner.engine import Engine
from runner.engine.ending import Tally
from runner.jobs import IN_FLIGHT, State
from runner.ledger import as_text
from runner.store.queries import AccountRow, last_durations, sums

REDRAW = 0.5  # wall seconds
LINE_EVERY = 15.0  # wall seconds between plain lines …
LINE_EVERY_FAST = 3.0  # … and where the clock runs faster


@dataclass(frozen=True, slots=True)
class Row:
    """One account as it is shown."""

    account: str
    queued: int
    in_flight: int
    downloading: int
    done: int
    failed: int
    held: int
    net: Decimal
    reserved: Decimal
    left: tuple[float, float] | None
    note: str


@asynccontextmanager
async def shown(engine: Engine, console: Console, *, progress: bool) -> AsyncIterator[None]:
    """Shows the engine's progress while the block runs."""
    if not progress:
        yield
        return
    task = asyncio.create_task(_live(engine, console) if console.is_terminal else _plain(engine, console))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # what ended the display ends the run too, and tells more


async def _live(engine: Engine, console: Console) -> None:
    with Live(console=console, refresh_per_second=4, redirect_stdout=False, transient=True) as live:
        while True:
            live.update(_table(await rows(engine)))
            await asyncio.sleep(REDRAW)


async def _plain(engine: Engine, console: Console) -> None:
    every = LINE_EVERY if engine.store.clock.speed == 1.0 else LINE_EVERY_FAST
    while True:
        await asyncio.sleep(every)
        for row in await rows(engine):
            console.print(log.clean(line(row)), markup=False, highlight=False, soft_wrap=True)


async def rows(engine: Engine) -> list[Row]:
    """One row per account, as the queue has it now."""
    spent: dict[str, tuple[Decimal, Decimal]] = {}
    for s in await engine.store.read(sums):
        net, reserved = spent.get(s.account, (Decimal(0), Decimal(0)))
        spent[s.account] = (net + s.charged - s.refunded, reserved + s.reserved)
    known = {account.name: account for account in engine.accounts}
    return [await _row(engine, tally, known.get(tally.account), spent) for tally in engine.tallies]


async def _row(
    engine: Engine, tally: Tally, account: AccountRow | None, spent: dict[str, tuple[Decimal, Decimal]]
) -> Row:
    net, reserved = spent.get(tally.account, (Decimal(0), Decimal(0)))
    queued, in_flight = tally.of(State.QUEUED, State.WAITING), tally.of(*IN_FLIGHT)
    durations = await engine.store.read(last_durations, tally.account)
    left = remaining(queued, in_flight, account.concurrency if account else 1, durations)
    return Row(
        tally.account, queued, in_flight, tally.of(State.DOWNLOADING), tally.of(State.SUCCEEDED, State.PARTIAL),
        tally.of(State.FAILED), tally.of(State.HELD), net, reserved, left, _note(engine, account),
    )  # fmt: skip


def _note(engine: Engine, account: AccountRow | None) -> str:
    """Why an account does not go on right now, if it does not."""
    now = engine.store.clock.now()
    if account is None:
        return ""
    if account.stopped:
        return f"stopped: {account.stopped}"
    if account.paused_until is not None and account.paused_until > now:
        return f"waiting until {account.paused_until:%H:%M:%S} UTC: {account.paused_note}"
    if account.blocked_until is not None and account.blocked_until > now:
        return f"rate limit until {account.blocked_until:%H:%M:%S} UTC"
    return ""


def line(row: Row) -> str:
    """One account in one line."""
    parts = [
        f"{row.account}: {row.done} done", f"{row.in_flight} in flight", f"{row.queued} queued",
        f"{row.downloading} downloading", f"{row.failed} failed", f"{row.held} held",
        f"{as_text(row.net)} credits spent, {as_text(row.reserved)} reserved", f"left: {in_words(row.left)}",
    ]  # fmt: skip
    return ", ".join(parts) + (f" ({row.note})" if row.note else "")


def _table(shown_rows: Sequence[Row]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("account", "queued", "in flight", "downloading", "done", "failed", "held", "credits", "reserved"):
        table.add_column(heading, justify="left" if heading == "account" else "right", no_wrap=True)
    for row in shown_rows:
        numbers = (row.queued, row.in_flight, row.downloading, row.done, row.failed, row.held)
        table.add_row(Text(row.account), *(str(n) for n in numbers), as_text(row.net), as_text(row.reserved))
    notes = [Text(log.clean(f"{row.account}: {row.note}"), style="yellow") for row in shown_rows if row.note]
    left = Text(f"time left: {in_words(latest([row.left for row in shown_rows]))}", style="dim")
    return Group(table, left, *notes)
