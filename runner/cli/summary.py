"""What a plan and a finished run say to a person. On stderr; what a script reads is `--json` on stdout."""

from __future__ import annotations

from rich.console import Console

from runner.engine import Engine, Exit
from runner.errors import LocalError
from runner.jobs import State
from runner.ledger import as_text
from runner.plan import Bill, Plan
from runner.providers import registry
from runner.store.queries import Sum, sums

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
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_plan(console: Console, plan: Plan) -> None:
    """What would be new, kept and gone, what it would cost, what would leave this machine, and what is promised."""
    say(console, f"batch {plan.manifest.batch}: {plan.new} new, {plan.kept} kept, {plan.gone} gone")
    if plan.revived:
        say(console, f"  {plan.revived} of the kept ones were cancelled unpaid, and are asked for again")
    for account, bill in sorted(plan.bills.items()):
        say(console, f"  {account}: {bill.jobs} jobs to pay, {_price(bill)}")
        budget = plan.manifest.budget.get(account)
        if budget is not None and bill.estimated > budget:
            say(console, f"    beyond the budget of {as_text(budget)}: jobs go while the next one fits")
        say(console, f"    after a lost answer: {registry()[plan.manifest.account(account).uses].guarantee}")
    for (job, name), number in sorted(plan.survey.dropped.items()):
        say(console, f"  {job}: the default {name!r} does not apply to {number} jobs and is dropped there")
    for file in plan.survey.files:
        say(console, f"  leaves this machine: {file.path} ({file.size} bytes)")
    for warning in plan.survey.warnings:
        say(console, f"  warning: {warning.message}")


def _price(bill: Bill) -> str:
    words = [] if bill.unpriced == bill.jobs else [f"{as_text(bill.estimated)} credits"]
    if bill.learned:
        words.append(f"{bill.learned} of them by what such requests were charged before")
    if bill.unpriced:
        words.append(f"{bill.unpriced} without a known price")
    return ", ".join(words)


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
