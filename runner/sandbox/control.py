"""The door for tests and judges, under /_sandbox. JSON both ways; a bad request gets 400 and {"error": "…"}.

GET  ledger?provider=P&tasks=0&entries=1     GET  requests?after=N&limit=N&provider=P
GET  observed                                GET  uploads
GET  assets                                  GET  callbacks
GET  state                                   GET  faults      DELETE faults
POST faults  {"name", "provider"?, "when"?, "times"?, …the fault's parameters}
POST outage  {"provider", "seconds", "name"?, …the fault's parameters}
POST credits {"provider", "key", "balance"?, "paid_access"?}
POST keys    {"provider", "key", "revoked"}    or {"provider", "key", "same_as"}: one more key of that one's account
POST finish  {"provider", "task_id", "outcome"?}
POST leap    {"seconds"}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .books import Books
from .clock import Clock
from .credits import micros, text
from .faults import CATALOGUE, BadFault, Faults, Order, make_order, make_outage
from .journal import KEY, fingerprint
from .pen import Pen
from .reports import Reports
from .tasks import OUTCOMES, Outcome


class BadRequest(ValueError):
    """Its text goes into the answer."""


@dataclass(frozen=True, slots=True)
class Control:
    """`about` is what GET state tells besides the moment."""

    books: Books
    reports: Reports
    faults: Faults
    clock: Clock
    pen: Pen
    providers: frozenset[str]
    about: Mapping[str, Any]

    def routes(self) -> list[web.RouteDef]:
        looks: dict[str, Callable[[Mapping[str, str]], Any]] = {
            "ledger": self.ledger,
            "observed": lambda query: self.reports.observed(),
            "requests": self.requests,
            "uploads": lambda query: self.reports.uploads(),
            "assets": lambda query: self.reports.assets(),
            "callbacks": lambda query: self.reports.callbacks(),
            "state": self.state,
            "faults": self.queued,
        }
        orders: dict[str, Callable[[dict[str, Any]], Any]] = {
            "faults": self.order_fault,
            "outage": self.begin_outage,
            "credits": self.set_credits,
            "keys": self.set_key,
            "finish": self.finish,
            "leap": self.leap,
        }
        return [
            *(web.get(f"/_sandbox/{name}", self._looking(look)) for name, look in looks.items()),
            *(web.post(f"/_sandbox/{name}", self._ordering(order)) for name, order in orders.items()),
            web.delete("/_sandbox/faults", self._looking(self.forget_faults)),
        ]

    def _looking(self, look: Callable[[Mapping[str, str]], Any]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            return await self._answer(lambda: look(request.query))

        return handle

    def _ordering(self, order: Callable[[dict[str, Any]], Any]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            body = await request.read()
            return await self._answer(lambda: order(_object(body)))

        return handle

    async def _answer(self, make: Callable[[], Any]) -> web.Response:
        try:
            made = make()
        except (BadRequest, BadFault) as error:
            return web.json_response({"error": str(error)}, status=400)
        await self.pen.settled()
        return web.json_response(made)

    # -- looking ----------------------------------------------------------------------------------------------------

    def ledger(self, query: Mapping[str, str]) -> Any:
        return self.reports.ledger(
            provider=query.get("provider"), tasks=query.get("tasks") != "0", entries=query.get("entries") == "1"
        )

    def requests(self, query: Mapping[str, str]) -> Any:
        after, limit = _whole(query, "after", 0), _whole(query, "limit", 1000)
        return self.reports.requests(after=after, limit=limit, provider=query.get("provider"))

    def state(self, query: Mapping[str, str]) -> Any:
        return {**self.about, "now": self.clock.now()}

    def queued(self, query: Mapping[str, str]) -> Any:
        return {
            "queue": [_shown(order) for order in self.faults.queue],
            "outages": [
                {"provider": provider, "name": fault.name, "until": until}
                for provider, (until, fault) in self.faults.outages.items()
            ],
            "fired": self.reports.desk.journal.fired(),
            "fired_at": self.reports.desk.journal.fired_at(),
            "known": sorted(CATALOGUE),
        }

    # -- orders -----------------------------------------------------------------------------------------------------

    def order_fault(self, body: dict[str, Any]) -> Any:
        name, when, provider = body.pop("name", ""), body.pop("when", None), body.pop("provider", None)
        times = body.pop("times", 1)
        if provider is not None:
            self._provider({"provider": provider})
        if not isinstance(times, int) or times < 1:
            raise BadRequest("times must be a whole number above 0")
        order = make_order(name, body, provider=provider, when=when, times=times)
        self.faults.queue.append(order)
        return {"queued": _shown(order)}

    def forget_faults(self, query: Mapping[str, str]) -> Any:
        """Forgets the queue and the outages; the rates of the command line stay."""
        self.faults.queue.clear()
        self.faults.outages.clear()
        return {"queue": []}

    def begin_outage(self, body: dict[str, Any]) -> Any:
        """Until it is over every request that the fault can strike meets it; 0 seconds ends an outage."""
        provider, seconds = self._provider(body), _seconds(body)
        parameters = {name: body[name] for name in body if name not in ("provider", "seconds", "name")}
        fault = make_outage(body.get("name"), parameters)
        until = self.clock.now() + seconds
        self.faults.outages[provider] = (until, fault)
        return {"provider": provider, "name": fault.name, "until": until}

    def set_credits(self, body: dict[str, Any]) -> Any:
        provider, account = self._provider(body), _account(body)
        changes: dict[str, int] = {}
        if "balance" in body:
            changes["balance"] = _amount(body["balance"])
        if "paid_access" in body:
            changes["paid_access"] = int(bool(body["paid_access"]))
        self.books.settle(self.clock.now())
        self.books.change_account(provider, account, **changes)
        known = self.books.account(provider, account)
        return {"account": account, "balance": text(known.balance), "paid_access": known.paid_access}

    def set_key(self, body: dict[str, Any]) -> Any:
        provider, account = self._provider(body), _account(body)
        if "same_as" in body:
            first = _account({"key": body["same_as"]})
            self.books.give_key(provider, first, account)
            return {"account": first}
        self.books.change_account(provider, account, revoked=int(bool(body.get("revoked", True))))
        return {"account": account, "revoked": self.books.account(provider, account).revoked}

    def finish(self, body: dict[str, Any]) -> Any:
        now = self.clock.now()
        self.books.settle(now)
        task = self.books.task(self._provider(body), str(body.get("task_id")))
        if task is None or task.stage(now).ended:
            raise BadRequest("there is no such task, or it has ended")
        outcome = _outcome(body.get("outcome", "completed"))
        self.books.finish(task, outcome, now)
        return {"task_id": task.id, "outcome": outcome}

    def leap(self, body: dict[str, Any]) -> Any:
        """Time goes forward at once: addresses and keys expire, tasks end, refunds come."""
        self.clock.leap(_seconds(body))
        self.books.settle(self.clock.now())
        return {"now": self.clock.now()}

    def _provider(self, body: Mapping[str, Any]) -> str:
        name = body.get("provider")
        if name not in self.providers:
            raise BadRequest(f"provider must be one of: {', '.join(sorted(self.providers))}")
        return str(name)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadRequest("the body must be a JSON object")
    return found


def _account(body: Mapping[str, Any]) -> str:
    key = body.get("key")
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise BadRequest("key must be 8 to 512 visible ASCII characters")
    return fingerprint(key)


def _amount(value: Any) -> int:
    try:
        amount = micros(str(value))
    except ValueError as error:
        raise BadRequest(str(error)) from None
    if amount < 0:
        raise BadRequest("balance must not be negative")
    return amount


def _outcome(value: Any) -> Outcome:
    if value not in OUTCOMES:
        raise BadRequest(f"outcome must be one of: {', '.join(OUTCOMES)}")
    return value  # type: ignore[no-any-return]  # checked above


def _seconds(body: Mapping[str, Any]) -> float:
    seconds = body.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        raise BadRequest("seconds must be a number, and not negative")
    return float(seconds)


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    given = query.get(name, str(default))
    if not given.isdecimal() or len(given) > 12:
        raise BadRequest(f"{name} must be a whole number")
    return int(given)


def _shown(order: Order) -> dict[str, Any]:
    return {
        "name": order.fault.name,
        "provider": order.provider,
        "when": list(order.points),
        "times": order.times,
        **order.fault.parameters,
    }
