"""The balance as evidence: noted while nothing is under way, and asked again when an answer got lost.

Only on an account that nobody else spends from (`account_exclusive`), where the provider documents a balance, honours
no key, and the order has an exact price.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from runner.exchange import Refusal
from runner.lifecycle.desk import Desk
from runner.store import evidence
from runner.store.work import Work
from runner.verdicts.looking import Charge, charge_of

WHILE_BUSY = 10.0  # seconds between two looks whether everything else has ended


@dataclass(frozen=True, slots=True)
class NotNow:
    """The balance cannot tell yet: look again after so many seconds."""

    wait: float


async def charge(desk: Desk, work: Work) -> Charge | NotNow | None:
    """Whether the balance says that this order was charged; None where it cannot be evidence."""
    attempt = work.attempt
    if not desk.balance_tells or attempt is None or attempt.priced is None or attempt.brink_at is None:
        return None
    books = await desk.store.read(evidence.books, desk.now(), desk.account, attempt.id)
    if books.baseline is None or books.baseline_at is None or books.baseline_at > attempt.intent_at or books.clouded:
        return None
    if books.busy:
        return NotNow(WHILE_BUSY)
    balance = await _balance(desk)
    if isinstance(balance, Refusal):
        return NotNow(balance.wait or WHILE_BUSY)
    return charge_of(books.baseline, balance, books.spent, attempt.priced)


async def note_baseline(desk: Desk) -> bool:
    """Asks for the balance while nothing is under way, so that what goes missing from it later can be told. False where
    it may not be asked for now: the lane, which stands still for this, must not wait until it may."""
    if not desk.balance_tells or not await desk.store.read(evidence.wants_baseline, desk.account):
        return True
    allowed, request, _ = await desk.permitted()
    if not allowed:
        return False
    asked_at = desk.now()
    balance = await _answer(desk, request)
    if not isinstance(balance, Refusal):
        await desk.store.write(evidence.save_baseline, desk.account, asked_at, balance)
    return True


async def _balance(desk: Desk) -> Decimal | Refusal:
    return await _answer(desk, await desk.permit())


async def _answer(desk: Desk, request: int | None) -> Decimal | Refusal:
    ask_balance = desk.provider.balance
    assert ask_balance is not None, "only a documented balance tells"
    answer = await desk.ask_provider(ask_balance)
    await desk.answered(request)
    return answer
