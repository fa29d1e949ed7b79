"""The books: accounts, tasks, and the ledger that says who was charged. It is the judge, so it is short.

A task and its charge are one unit, and so are its end and its refund. (A task that is probed first is charged when the
probe is over.) A task is charged once and refunded at most once: the schema says so (`UNIQUE (task_id, kind)`), and the
ledger refuses every update and delete.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

from .credits import micros
from .pen import Pen
from .tasks import Fate, Order, Outcome, Task, render_seconds, spelled, task_name

TASK_COLUMNS = tuple(each.name for each in fields(Task) if each.name != "seq")
TASK_FIELDS = ", ".join(("seq", *TASK_COLUMNS))


class InsufficientCredits(Exception):
    """The balance does not cover the price; nothing was written."""


@dataclass(frozen=True, slots=True)
class Account:
    provider: str
    account: str
    balance: int
    paid_access: bool
    revoked: bool
    in_flight: int
    max_in_flight: int
    max_requests: int


@dataclass(frozen=True, slots=True)
class Buyer:
    """Who orders, and with what bytes: kept as evidence beside the task."""

    provider: str
    account: str
    body: bytes
    idempotency_key: str | None = None


class Books:
    def __init__(self, pen: Pen, *, seed: str, render: float, opening_balance: Decimal) -> None:
        self._pen, self._seed, self._render = pen, seed, render
        self._opening = micros(opening_balance)
        counted = pen.read("SELECT provider, count(*) AS n FROM tasks GROUP BY provider")
        self._counts: dict[str, int] = {row["provider"]: row["n"] for row in counted}
        self._next_due = self._look_for_due()

    # -- accounts ---------------------------------------------------------------------------------------------------

    def account(self, provider: str, account: str) -> Account:
        """The account, opened with the opening balance where it is new."""
        sql = "SELECT * FROM accounts WHERE provider = ? AND account = ?"
        rows = self._pen.read(sql, (provider, account))
        if not rows:
            values = (provider, account, self._opening)
            self._pen.write("INSERT INTO accounts (provider, account, balance) VALUES (?, ?, ?)", values)
            rows = self._pen.read(sql, (provider, account))
        flags = {name: bool(rows[0][name]) for name in ("paid_access", "revoked")}
        return Account(**{**dict(rows[0]), **flags})

    def account_of(self, provider: str, name: str) -> Account:
        """The account of a key, by the key's fingerprint. A further key of an account is good whether or not the first
        one, whose fingerprint the account bears, is revoked."""
        sql = "SELECT account FROM further_keys WHERE provider = ? AND name = ?"
        further = self._pen.read(sql, (provider, name))
        if not further:
            return self.account(provider, name)
        return replace(self.account(provider, further[0]["account"]), revoked=False)

    def give_key(self, provider: str, account: str, name: str) -> None:
        """The account gets one more key, of this fingerprint."""
        self.account(provider, account)
        self._pen.write("INSERT OR REPLACE INTO further_keys VALUES (?, ?, ?)", (provider, name, account))

    def accounts(self) -> list[Account]:
        keys = self._pen.read("SELECT provider, account FROM accounts ORDER BY provider, account")
        return [self.account(row["provider"], row["account"]) for row in keys]

    def change_account(self, provider: str, account: str, **changes: int) -> None:
        """Sets `balance` (millionths), `paid_access` or `revoked`."""
        self.account(provider, account)
        for name, value in changes.items():
            sql = f"UPDATE accounts SET {name} = ? WHERE provider = ? AND account = ?"  # noqa: S608 (our own names)
            self._pen.write(sql, (value, provider, account))

    def note_requests(self, provider: str, account: str, most: int) -> None:
        """`most` requests were seen within one window: the highest such figure is kept."""
        self.account(provider, account)
        sql = "UPDATE accounts SET max_requests = max(max_requests, ?) WHERE provider = ? AND account = ?"
        self._pen.write(sql, (most, provider, account))

    # -- tasks and money --------------------------------------------------------------------------------------------

    def accept(
        self, buyer: Buyer, order: Order, fate: Fate, *, prefix: str | None, now: float, probed: bool = False
    ) -> Task:
        """Charges and begins a task, in one unit; `prefix` as in `tasks.spelled`. Raises InsufficientCredits.

        A `probed` one is accepted whatever the balance is, charged at its `begins_at`, and fails there, uncharged, if
        the balance is too small; its details then have "problem": "insufficient_credits".
        """
        price = int(order.price * fate.price_factor)
        account = self.account(buyer.provider, buyer.account)
        if account.balance < price and not probed:
            raise InsufficientCredits
        task = self._deal(buyer, order, fate, price, prefix, now)
        due = task.begins_at if probed else task.finishes_at
        with self._pen.unit():
            self._insert(task, charged=not probed, due_at=due)
            sql = """UPDATE accounts SET in_flight = in_flight + 1, max_in_flight = max(max_in_flight, in_flight + 1)
                     WHERE provider = ? AND account = ?"""
            self._pen.write(sql, (buyer.provider, buyer.account))
            if not probed:
                self._charge(task, now)
        self._counts[buyer.provider] = self._counts.get(buyer.provider, 0) + 1
        self._next_due = min(self._next_due, due)
        return task

    def _charge(self, task: Task, at: float) -> None:
        if task.price:
            self._book(at, task, "charged", task.price, "submitted")
            sql = "UPDATE accounts SET balance = balance - ? WHERE provider = ? AND account = ?"
            self._pen.write(sql, (task.price, task.provider, task.account))

    def _deal(self, buyer: Buyer, order: Order, fate: Fate, price: int, prefix: str | None, now: float) -> Task:
        name = spelled(prefix, task_name(self._seed, buyer.provider, self._counts.get(buyer.provider, 0) + 1))
        finishes = now + render_seconds(self._seed, name, order.kind, self._render, fate)
        outputs = 0 if fate.no_output else order.outputs
        return Task(
            seq=0,
            id=name,
            provider=buyer.provider,
            account=buyer.account,
            endpoint=order.endpoint,
            model=order.model,
            kind=order.kind,
            prompt=order.prompt,
            body=buyer.body,
            idempotency_key=buyer.idempotency_key,
            details=order.details,
            extension=order.extension,
            outputs=outputs,
            missing=max(0, min(fate.missing, outputs - 1)),
            price=price,
            refund=int(price * (1 if fate.refund is None else fate.refund)),
            outcome=fate.outcome,
            created_at=now,
            visible_at=now + fate.hidden_for,
            finishes_at=finishes,
            refund_at=finishes + fate.refund_after,
            review_for=fate.review_for,
            odd_status=fate.odd_status,
            odd_until=now + fate.odd_for,
        )

    def _insert(self, task: Task, *, charged: bool, due_at: float) -> None:
        values = {name: getattr(task, name) for name in TASK_COLUMNS}
        values.update(details=json.dumps(dict(task.details)), charged=int(charged), due_at=due_at)
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self._pen.write(f"INSERT INTO tasks ({names}) VALUES ({marks})", tuple(values.values()))  # noqa: S608

    def _book(self, at: float, task: Task, kind: str, credits: int, reason: str) -> None:
        sql = "INSERT INTO ledger (at, provider, account, task_id, kind, credits, reason) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._pen.write(sql, (at, task.provider, task.account, task.id, kind, credits, reason))

    def settle(self, now: float) -> None:
        """Ends the tasks that are over by `now` and books the charges and refunds that are due, each at its moment."""
        while self._next_due <= now:
            sql = f"SELECT {TASK_FIELDS}, ended, charged FROM tasks WHERE due_at <= ? ORDER BY due_at, seq LIMIT 1000"  # noqa: S608
            for row in self._pen.read(sql, (now,)):
                with self._pen.unit():
                    if row["charged"]:
                        self._end(_task(row), bool(row["ended"]), now)
                    else:
                        self._end_probe(_task(row), now)
            self._next_due = self._look_for_due()

    def _end_probe(self, task: Task, now: float) -> None:
        at = min(task.begins_at, now)
        if self.account(task.provider, task.account).balance < task.price:
            details = json.dumps({**task.details, "problem": "insufficient_credits"})
            ending = {"outcome": "failed", "price": 0, "refund": 0, "finishes_at": at, "refund_at": at, "due_at": at}
            self._change(task, charged=1, details=details, **ending)
        else:
            self._charge(task, at)
            self._change(task, charged=1, due_at=task.finishes_at)

    def _end(self, task: Task, ended: bool, now: float) -> None:
        if not ended:
            sql = "UPDATE accounts SET in_flight = in_flight - 1 WHERE provider = ? AND account = ?"
            self._pen.write(sql, (task.provider, task.account))
        later = task.refund_at if task.gives_back and task.refund_at > now else None
        if task.gives_back and later is None:
            self._book(task.refund_at, task, "refunded", task.gives_back, task.outcome)
            sql = "UPDATE accounts SET balance = balance + ? WHERE provider = ? AND account = ?"
            self._pen.write(sql, (task.gives_back, task.provider, task.account))
        self._pen.write("UPDATE tasks SET ended = 1, due_at = ? WHERE seq = ?", (later, task.seq))

    def _look_for_due(self) -> float:
        found = self._pen.read("SELECT min(due_at) AS due FROM tasks WHERE due_at IS NOT NULL")[0]["due"]
        return float("inf") if found is None else float(found)

    def held(self, provider: str, account: str) -> int:
        """What was charged for the account's tasks that are still going."""
        sql = """SELECT coalesce(sum(price), 0) AS held FROM tasks
                 WHERE provider = ? AND account = ? AND ended = 0 AND charged = 1"""
        return int(self._pen.read(sql, (provider, account))[0]["held"])

    # -- looking and meddling ---------------------------------------------------------------------------------------

    def task(self, provider: str, task_id: str) -> Task | None:
        sql = f"SELECT {TASK_FIELDS} FROM tasks WHERE id = ? AND provider = ?"  # noqa: S608
        return next(map(_task, self._pen.read(sql, (task_id, provider))), None)

    def history(
        self, provider: str, account: str, kinds: tuple[str, ...], as_of: float, *, skip: int = 0, limit: int = 50
    ) -> list[Task]:
        """The account's tasks that its list shows at `as_of`, newest first."""
        sql = f"""SELECT {TASK_FIELDS} FROM tasks WHERE provider = ? AND account = ? AND visible_at <= ?
                  AND kind IN (?, ?) ORDER BY created_at DESC, seq DESC LIMIT ? OFFSET ?"""  # noqa: S608
        return [_task(row) for row in self._pen.read(sql, (provider, account, as_of, kinds[0], kinds[-1], limit, skip))]

    def tasks(self, provider: str | None = None, after: int = 0) -> Iterator[Task]:
        sql = f"""SELECT {TASK_FIELDS} FROM tasks WHERE seq > ? AND (? IS NULL OR provider = ?)
                  ORDER BY seq"""  # noqa: S608
        return map(_task, self._pen.read(sql, (after, provider, provider)))

    def booked(self, provider: str | None = None) -> list[sqlite3.Row]:
        """The ledger as it stands, oldest row first."""
        sql = "SELECT * FROM ledger WHERE ? IS NULL OR provider = ? ORDER BY seq"
        return self._pen.read(sql, (provider, provider))

    def bodies_with_several_keys(self) -> int:
        """How many equal orders of one account came under more than one idempotency key."""
        sql = """SELECT count(*) AS n FROM (SELECT 1 FROM tasks WHERE idempotency_key IS NOT NULL
                 GROUP BY provider, account, endpoint, body HAVING count(DISTINCT idempotency_key) > 1)"""
        return int(self._pen.read(sql)[0]["n"])

    def bodies_bought_again(self) -> int:
        """How many tasks are equal in every byte to an earlier one of the same account (takes are, and doubles are)."""
        sql = """SELECT (SELECT count(*) FROM tasks)
                 - (SELECT count(*) FROM (SELECT DISTINCT provider, account, endpoint, body FROM tasks)) AS n"""
        return int(self._pen.read(sql)[0]["n"])

    def finish(self, task: Task, outcome: Outcome, now: float) -> None:
        """Ends a task that is still going, now, with `outcome`."""
        self._change(task, finishes_at=now, refund_at=now, due_at=now, outcome=outcome)
        self._next_due = min(self._next_due, now)
        self.settle(now)

    def speak_oddly(self, task: Task, status: str, until: float) -> None:
        """The task shows an undocumented status until then."""
        self._change(task, odd_status=status, odd_until=until)

    def _change(self, task: Task, **changes: Any) -> None:
        marks = ", ".join(f"{name} = ?" for name in changes)
        self._pen.write(f"UPDATE tasks SET {marks} WHERE seq = ?", (*changes.values(), task.seq))  # noqa: S608


def _task(row: sqlite3.Row) -> Task:
    values = {name: row[name] for name in ("seq", *TASK_COLUMNS)}
    return Task(**{**values, "details": json.loads(values["details"])})
