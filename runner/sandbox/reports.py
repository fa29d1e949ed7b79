"""What the sandbox tells a judge: the ledger, what was observed, the requests, how it is set up. Plain JSON values.

Amounts are decimal strings, times are scaled seconds since 1970, accounts are fingerprints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .clock import Clock
from .credits import text
from .dialect import Desk
from .tasks import Task


@dataclass(frozen=True, slots=True)
class Totals:
    """Millionths of a credit."""

    charged: int = 0
    refunded: int = 0

    def plus(self, kind: str, credits: int) -> Totals:
        if kind == "charged":
            return Totals(self.charged + credits, self.refunded)
        return Totals(self.charged, self.refunded + credits)

    def shown(self) -> dict[str, str]:
        net = self.charged - self.refunded
        return {"charged": text(self.charged), "refunded": text(self.refunded), "net": text(net)}


@dataclass(frozen=True, slots=True)
class Reports:
    desk: Desk
    clock: Clock

    def ledger(self, *, provider: str | None = None, tasks: bool = True, entries: bool = False) -> dict[str, Any]:
        """By provider and account: charged, refunded, net, balance and every task; at each level the sums.

        The sums are of the ledger's rows and of nothing else. `entries` adds the rows themselves.
        """
        now = self.clock.now()
        self.desk.books.settle(now)
        by_task: dict[str, Totals] = defaultdict(Totals)
        by_account: dict[tuple[str, str], Totals] = defaultdict(Totals)
        by_provider: dict[str, Totals] = defaultdict(Totals)
        total, rows = Totals(), self.desk.books.booked(provider)
        for row in rows:
            kind, credits = row["kind"], row["credits"]
            by_task[row["task_id"]] = by_task[row["task_id"]].plus(kind, credits)
            owner = (row["provider"], row["account"])
            by_account[owner] = by_account[owner].plus(kind, credits)
            by_provider[row["provider"]] = by_provider[row["provider"]].plus(kind, credits)
            total = total.plus(kind, credits)
        shown: dict[str, Any] = {"at": now, **total.shown(), "providers": {}}
        for account in self.desk.books.accounts():
            if provider in (None, account.provider):
                place = shown["providers"].setdefault(
                    account.provider, {**by_provider[account.provider].shown(), "accounts": {}}
                )
                totals = by_account[account.provider, account.account]
                place["accounts"][account.account] = {**totals.shown(), "balance": text(account.balance), "tasks": []}
        for task in self.desk.books.tasks(provider) if tasks else ():
            account_shown = shown["providers"][task.provider]["accounts"][task.account]
            account_shown["tasks"].append(self._task(task, by_task[task.id], now))
        return {**shown, "entries": [_entry(row) for row in rows]} if entries else shown

    def _task(self, task: Task, totals: Totals, now: float) -> dict[str, Any]:
        return {
            "id": task.id,
            "endpoint": task.endpoint,
            "model": task.model,
            "kind": task.kind,
            "prompt": task.prompt,
            "body": task.body.decode(errors="replace"),
            "idempotency_key": task.idempotency_key,
            **totals.shown(),
            "state": task.stage(now).value,
            "outcome": task.outcome,
            "outputs": task.outputs,
            "missing": task.missing,
            "created_at": task.created_at,
            "finishes_at": task.finishes_at,
        }

    def observed(self) -> dict[str, Any]:
        """What the clients did: the most tasks at once, the most requests in any 60 s, leaks, violations."""
        self.desk.books.settle(self.clock.now())
        refused = self.desk.journal.rate_limited()
        accounts: dict[str, dict[str, Any]] = {}
        for account in self.desk.books.accounts():
            accounts.setdefault(account.provider, {})[account.account] = {
                "in_flight": account.in_flight,
                "max_in_flight": account.max_in_flight,
                "max_requests_60s": account.max_requests,
                "rate_limited": refused.get((account.provider, account.account), 0),
            }
        return {
            "accounts": accounts,
            "leaks": self.desk.journal.remarks("leak"),
            "violations": self.desk.journal.remarks("violation"),
            "keys_with_several_requests": self.desk.journal.keys_with_several_requests(),
            "bodies_with_several_keys": self.desk.books.bodies_with_several_keys(),
            "bodies_bought_again": self.desk.books.bodies_bought_again(),
            "faults_fired": self.desk.journal.fired(),
            "faults_fired_at": self.desk.journal.fired_at(),
            "asset_uploads": self.desk.assets.uploads_by_url(),
        }

    def requests(self, *, after: int = 0, limit: int = 1000, provider: str | None = None) -> dict[str, Any]:
        """The journal, oldest first, from behind request number `after`."""
        rows = self.desk.journal.requests(after, limit, provider)
        return {"requests": [dict(row) for row in rows]}

    def uploads(self) -> dict[str, Any]:
        return {"uploads": self.desk.uploads.all()}

    def assets(self) -> dict[str, Any]:
        now = self.clock.now()
        return {"assets": [{**asdict(asset), "status": asset.status(now)} for asset in self.desk.assets.all()]}

    def callbacks(self) -> dict[str, Any]:
        """What was to be told to whom, and what became of it; each delivery is among the requests."""
        return {"callbacks": self.desk.callbacks.all()}


def _entry(row: Mapping[str, Any] | Any) -> dict[str, Any]:
    return {**dict(row), "credits": text(row["credits"])}
