"""What a plan and a finished run say to a person. On stderr; what a script reads is `--json` on stdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich.console import Console

from runner import log
from runner.cli.decisions import title
from runner.engine import Engine, Exit
from runner.errors import LocalError, Problem
from runner.jobs import SETTLED, UNPAID, State
from runner.ledger import ZERO, as_text
from runner.plan import Bill, Plan
from runner.problems import SHOWN as MOST_WARNINGS
from runner.problems import render
from runner.providers import registry
from runner.references import Outgoing
from runner.store.queries import Sum, counts, sums

SHOWN = 20  # files listed for a person
ENDS = {
    Exit.DONE: "all done",
    Exit.SOME_FAILED: "finished; some jobs failed or are partial",
    Exit.PERSON_NEEDED: "a person is needed: some jobs are held, or a task is overdue",
    Exit.PAUSED: "paused by credits, a key or a provider; run the same command again to go on",
    Exit.LIMIT: "the budget or the time limit is reached; run the same command again to go on",
    Exit.INTERRUPTED: "interrupted; run the same command again to go on",
    Exit.TERMINATED: "terminated; run the same command again to go on",
}


def say(console: Console, text: str) -> None:
    console.print(log.clean(text), markup=False, highlight=False, soft_wrap=True)


def show_plan(console: Console, plan: Plan) -> None:
    """What would be new, kept and gone, what it would cost, what would leave this machine, and what is promised."""
    say(console, f"batch {plan.manifest.batch}: {plan.new} new, {plan.kept} kept, {plan.gone} gone")
    if plan.revived:
        say(console, f"  {plan.revived} of the kept ones were cancelled unpaid, and are asked for again")
    for line in _gone(plan):
        say(console, f"  gone: {line}")
    for account, bill in sorted(plan.bills.items()):
        say(console, f"  {account}: {bill.jobs} jobs to pay, {_price(bill)}")
        if beyond := _beyond(plan, account, bill.estimated):
            say(console, f"    {beyond}")
        say(console, f"    after a lost answer: {registry()[plan.manifest.account(account).uses].guarantee}")
    for (job, name), number in sorted(plan.survey.dropped.items()):
        say(console, f"  {job}: the default {name!r} does not apply to {number} jobs and is dropped there")
    _show_files(console, plan.files)
    _show_warnings(console, plan.warnings)


def _beyond(plan: Plan, account: str, estimated: Decimal) -> str:
    limit, spent = plan.limits.get(account), plan.spent.get(account, ZERO)
    if limit is None or spent + estimated <= limit:
        return ""
    used = f", {as_text(spent)} of it spent or promised" if spent else ""
    return f"beyond the limit of {as_text(limit)}{used}: jobs go while the next one fits, the others stay queued"


def _show_warnings(console: Console, warnings: Sequence[Problem]) -> None:
    for warning in warnings[:MOST_WARNINGS]:
        for line in f"warning: {render((warning,))}".splitlines():
            say(console, line)
    if len(warnings) > MOST_WARNINGS:
        say(console, f"+{len(warnings) - MOST_WARNINGS} more warnings (plan --json lists all)")


def _show_files(console: Console, files: Sequence[Outgoing]) -> None:
    """The local files that leave this machine, and for which account."""
    for leaving in files[:SHOWN]:
        file = leaving.file
        what = f"{file.media_type}, {file.size:,} bytes"
        say(console, f"  leaves this machine: {file.path} ({what}) to {', '.join(leaving.accounts)}")
    if len(files) > SHOWN:
        say(console, f"  leave this machine, too: +{len(files) - SHOWN} more (plan --json lists all)")


def _gone(plan: Plan) -> Iterator[str]:
    """What becomes of the jobs that the manifest does not ask for any more: only what is unpaid is touched."""
    for work in plan.first_gone:
        state = work.standing.state
        yield f"{title(work)} is {state} and {'will be cancelled' if state in UNPAID else 'stays as it is'}"
    if plan.gone > len(plan.first_gone) > 0:
        yield f"and {plan.gone - len(plan.first_gone)} more (runner plan --json lists all)"


def _price(bill: Bill) -> str:
    words = [] if bill.unpriced == bill.jobs else [f"{between(bill.least, bill.estimated)} credits"]
    if bill.learned:
        words.append(f"{bill.learned} of them by what such requests were charged before")
    if bill.unpriced:
        words.append(f"{bill.unpriced} without a known price")
    return ", ".join(words)


def between(least: Decimal | None, most: Decimal | None) -> str:
    """An amount, or the interval that it lies in."""
    if most is None:
        return "unpriced"
    return as_text(most) or "" if least is None or least == most else f"{as_text(least)}–{as_text(most)}"


async def show_left_alone(console: Console, engine: Engine) -> None:
    """Unfinished jobs of the queue that this run cannot move, and why."""
    open_jobs: Counter[str] = Counter()
    for count in await engine.store.read(counts) if engine.lacking else ():
        open_jobs[count.account] += count.jobs if count.state not in SETTLED else 0
    for account, why in sorted(engine.lacking.items()):
        if number := open_jobs[account]:
            jobs = "1 unfinished job is" if number == 1 else f"{number} unfinished jobs are"
            say(console, f"{account}: {jobs} left alone: {why}")


async def show_end(console: Console, engine: Engine, code: Exit) -> None:
    """How the jobs stand, what was spent, and what to do next."""
    for tally in engine.tallies:
        states = ", ".join(f"{n} {state}" for state, n in sorted(tally.states.items()))
        say(console, f"{tally.account}: {states}")
    for s in await _spent(console, engine):
        line = f"  {s.batch}, {s.account}: {as_text(s.charged)} charged, {as_text(s.refunded)} refunded"
        say(console, line + (f", {as_text(s.reserved)} not settled yet" if s.reserved else ""))
    for account in engine.accounts:
        if account.stopped:
            say(console, f"{account.name} is stopped: {account.stopped}")
    if any(tally.of(State.HELD) for tally in engine.tallies):
        say(console, "held jobs: `runner jobs --state held`, then `runner show JOB` tells the evidence and the choices")
    say(console, f"{ENDS.get(code, 'ended')} (exit {int(code)})")


async def _spent(console: Console, engine: Engine) -> list[Sum]:
    try:
        return await engine.store.read(sums)
    except LocalError as error:  # the database is away: the run has ended all the same, and its code says how
        say(console, f"what was spent is in the queue, which cannot be read now: {error.message}")
        return []
