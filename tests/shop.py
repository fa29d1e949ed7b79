"""A small pretend provider of no dialect that is shipped, over real loopback HTTP, and its description in YAML.

Its answers look as nothing else does, so that only the description can tell what they mean.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import samples
from aiohttp import web

KEY = "corner-shop-key-0123456789"
KEY_HEADER = "X-Order-Key"
PRICE = 3  # credits a second

DESCRIPTION = """\
version: 1
providers:
  corner-shop:
    base_url: {base_url}
    documentation: "a note on the shop's door"
    {idempotency}
    limits: 600/minute
    submit: {{path: /orders/new, model_field: product, nest: wish, constants: {{channel: api}}}}
    poll: {{path: /orders, query: {{ticket: "{{task_id}}"}}}}
    {history}
    balance: {{path: /till, amount: till.left}}
    upload:
      path: /attic
      form_field: thing
      roles: [first_frame]
      media_types: [image/png]
      max_bytes: 100000
      url: thing.where
    answers:
      task_id: order.ticket
      status: order.state
      done: 7
      failed: 8
      cancelled: 9
      going: [1, 2]
      files: order.parcels
      used: order.paid
      error: {{code: trouble.sort, message: trouble.words}}
    errors:
      - {{code: no-money, means: credits}}
      - {{code: not-here, means: fail}}
      - {{code: rude, means: fail, kind: moderated}}
    models:
      clip:
        renders: video
        fields:
          prompt: {{native: text, required: true}}
          duration: {{native: seconds, kind: integer, low: 1, high: 10, default: 5, write: text}}
          size: {{choices: [small, large], default: small}}
        modes:
          - {{}}
          - references: {{first_frame: {{native: start}}}}
        price: {{credits: 3, per: duration}}
"""
IDEMPOTENCY = f"idempotency: {{header: {KEY_HEADER}}}"
HISTORY = (
    "history: {path: /shelf, entries: orders, id: ticket, prompt: wish.text, created: at, status: state, page: sheet, "
    "limit: lines}"
)


@dataclass
class Order:
    ticket: str
    body: Mapping[str, Any]
    at: datetime
    asked: int = 0
    paid: int = 0

    @property
    def prompt(self) -> str:
        return str(self.body["wish"]["text"])


@dataclass
class Shop:
    """`keyed`: honours its header. `lost` counts, by prompt, the answers to orders that it accepts and never sends.
    `posted` are the orders that arrived, with their key."""

    keyed: bool = False
    orders: dict[str, Order] = field(default_factory=dict)
    by_key: dict[str, str] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    posted: list[tuple[str | None, bytes]] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    base_url: str = ""

    @property
    def paid(self) -> int:
        return sum(order.paid for order in self.orders.values())

    def describe(self, folder: Path, *, history: bool = False) -> Path:
        """The description of this shop, in a file of its own."""
        path = folder / "shop.yaml"
        path.write_text(
            DESCRIPTION.format(
                base_url=self.base_url,
                idempotency=IDEMPOTENCY if self.keyed else "",
                history=HISTORY if history else "",
            )
        )
        return path

    async def order(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return _trouble(401, "who-are-you", "no such key")
        content = await request.read()
        key = request.headers.get(KEY_HEADER)
        self.posted.append((key, content))
        body = json.loads(content)
        prompt = body["wish"]["text"]
        if "rude" in prompt:
            return _trouble(200, "rude", "not in this shop")
        ticket = self.by_key.get(key or "") or self._new(key, body)
        if self.lost[prompt] > 0:
            self.lost[prompt] -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"order": {"ticket": ticket, "state": 1}})

    def _new(self, key: str | None, body: Mapping[str, Any]) -> str:
        ticket = f"T{len(self.orders) + 1:03}"
        self.orders[ticket] = Order(ticket, body, datetime.now(UTC), paid=PRICE * int(body["wish"].get("seconds", 5)))
        if self.keyed and key is not None:
            self.by_key[key] = ticket
        return ticket

    async def look(self, request: web.Request) -> web.Response:
        order = self.orders.get(request.query.get("ticket", ""))
        if order is None:
            return _trouble(404, "unknown", "no such order")
        order.asked += 1
        if "breaks" in order.prompt:
            order.paid = 0
            said: dict[str, Any] = {"state": 8, "paid": 0}
            return web.json_response(
                {"order": {"ticket": order.ticket, **said}, "trouble": {"sort": "oven", "words": "x"}}
            )
        if order.asked < 2:
            return web.json_response({"order": {"ticket": order.ticket, "state": 2}})
        parcels = [f"{self.base_url}/parcels/{order.ticket}.mp4"]
        said = {"ticket": order.ticket, "state": 7, "paid": order.paid, "parcels": parcels}
        return web.json_response({"order": said})

    async def shelf(self, request: web.Request) -> web.Response:
        sheet, lines = int(request.query["sheet"]), int(request.query["lines"])
        newest_first = list(self.orders.values())[::-1][(sheet - 1) * lines : sheet * lines]
        entries = [
            {"ticket": o.ticket, "wish": {"text": o.prompt}, "at": o.at.isoformat(), "state": 7 if o.asked > 1 else 2}
            for o in newest_first
        ]
        return web.json_response({"orders": entries})

    async def till(self, _request: web.Request) -> web.Response:
        return web.json_response({"till": {"left": 1000 - self.paid}})

    async def attic(self, request: web.Request) -> web.Response:
        thing = (await request.post())["thing"]
        assert isinstance(thing, web.FileField)
        self.uploads.append(thing.file.read())
        return web.json_response({"thing": {"where": f"https://attic.example/{len(self.uploads)}.png"}})

    async def parcel(self, _request: web.Request) -> web.Response:
        return web.Response(body=samples.mp4(), content_type="video/mp4")


def _trouble(status: int, sort: str, words: str) -> web.Response:
    return web.json_response({"trouble": {"sort": sort, "words": words}}, status=status)


@asynccontextmanager
async def shop(*, keyed: bool = False) -> AsyncIterator[Shop]:
    made = Shop(keyed)
    app = web.Application()
    app.add_routes([
        web.post("/orders/new", made.order), web.get("/orders", made.look), web.get("/shelf", made.shelf),
        web.get("/till", made.till), web.post("/attic", made.attic), web.get("/parcels/{name}", made.parcel),
    ])  # fmt: skip
    served = web.AppRunner(app)
    await served.setup()
    try:
        await web.TCPSite(served, "127.0.0.1", 0).start()
        made.base_url = f"http://127.0.0.1:{served.addresses[0][1]}"
        yield made
    finally:
        await served.cleanup()
