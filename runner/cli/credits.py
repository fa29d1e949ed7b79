"""`runner credits`: what each account was charged and refunded, by the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from runner.cli import output
from runner.cli.app import EVERYDAY, Common, Json
from runner.ledger import ZERO

if TYPE_CHECKING:
    from runner.store.queries import AccountRow, Sum


AMOUNTS = ("charged", "refunded", "net", "unsettled")


@dataclass(frozen=True, slots=True)
class Spent:
    """An account's ledger, in credits. `unsettled`: what is reserved for orders that are out or may be, and what was
    charged for ended tasks whose refund or final cost is not known yet."""

    provider: str
    account: str
    charged: Decimal
    refunded: Decimal
    unsettled: Decimal

    @property
    def net(self) -> Decimal:
        return self.charged - self.refunded


async def credits(*, json: Json = False, common: Common = EVERYDAY) -> int:
    """Show what each account was charged and refunded, over all batches of the queue.

    net = charged - refunded. What is unsettled is not known for good yet: orders that are out, and refunds to come.
    """
    from runner.clock import Clock
    from runner.store import read_store
    from runner.store.queries import account_rows, sums, unsettled

    async with read_store(common.db, Clock()) as store:
        rows, booked, open_bills = (await store.read(account_rows), await store.read(sums), await store.read(unsettled))
    spent = by_account(rows, booked, open_bills)
    if json:
        output.emit_json({"accounts": [_record(one) for one in spent]})
    else:
        output.emit(_table(spent))
    return 0


def by_account(rows: Iterable[AccountRow], booked: Sequence[Sum], open_bills: Mapping[str, Decimal]) -> list[Spent]:
    """The sums of every account, also of one that nothing was ordered from yet."""
    providers = {one.account: one.account for one in booked} | {row.name: row.provider for row in rows}
    return [_spent(providers[name], name, booked, open_bills.get(name, ZERO)) for name in sorted(providers)]


def _spent(provider: str, account: str, booked: Sequence[Sum], open_bills: Decimal) -> Spent:
    mine = [one for one in booked if one.account == account]
    return Spent(
        provider, account, sum((one.charged for one in mine), ZERO), sum((one.refunded for one in mine), ZERO),
        sum((one.reserved for one in mine), ZERO) + open_bills,
    )  # fmt: skip


def _record(spent: Spent) -> dict[str, Any]:
    return {"provider": spent.provider, "account": spent.account, **{name: getattr(spent, name) for name in AMOUNTS}}


def _table(spent: Sequence[Spent]) -> str:
    if not spent:
        return "no accounts\n"
    rows = [(one.account, one.provider, *(output.credits(getattr(one, name)) for name in AMOUNTS)) for one in spent]
    return output.table(("account", "provider", *AMOUNTS), rows, right=AMOUNTS)
