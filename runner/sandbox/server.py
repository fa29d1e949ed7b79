"""Puts the sandbox together and serves it: the pretend providers and the control door on one port, media on another."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from . import mishaps
from .api import Api
from .assets import Assets
from .books import Books
from .callbacks import Callbacks, Messenger
from .clock import Clock
from .control import Control
from .dialect import Desk
from .faults import Faults, parse_rates
from .idempotency import KeyMemory
from .journal import Journal
from .mediahost import CLOCK, MediaHost, set_date
from .options import Options
from .pen import Pen, StateUnusable
from .providers import known
from .reports import Reports
from .signing import Signer
from .uploads import Uploads

MAX_REQUEST = 16 << 20  # bytes: above the largest documented upload
GRACE = 0.5  # real seconds for answers on their way when it stops
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that is being served. `keys` are examples; any key of the right form has an account of its own.

    `failed` is set when the state could not be written: from then on every connection is cut.
    """

    base_urls: Mapping[str, str]
    control: str
    media: str
    keys: Mapping[str, str]
    clock: Clock
    seed: str
    reports: Reports
    faults: Faults
    failed: asyncio.Event

    def ledger(self, **choice: Any) -> dict[str, Any]:
        """As GET /_sandbox/ledger tells it; `choice` as in `Reports.ledger`."""
        return self.reports.ledger(**choice)

    def observed(self) -> dict[str, Any]:
        """As GET /_sandbox/observed tells it."""
        return self.reports.observed()

    def about(self) -> dict[str, Any]:
        """The line that `python -m runner.sandbox` prints when it is ready."""
        return {
            "base_urls": dict(self.base_urls),
            "control": self.control,
            "media": self.media,
            "keys": dict(self.keys),
            "anchor": self.clock.anchor,
            "speed": self.clock.speed,
            "seed": self.seed,
        }


@asynccontextmanager
async def serve(options: Options | None = None) -> AsyncIterator[Sandbox]:
    """Serves while the block lasts. Raises StateUnusable, and OSError where a port cannot be had."""
    options = options or Options()
    async with AsyncExitStack() as stack:
        pen = Pen(options.state, fast_disk=options.fast_disk)
        stack.callback(pen.close)
        doors = [stack.enter_context(_door(options.host, port)) for port in (options.port, options.media_port)]
        kept = _kept(pen, options)
        clock = Clock(float(kept["anchor"]), options.speed)
        desk = _desk(pen, clock, options, kept, _origin(doors[1]))
        faults = Faults(kept["seed"], parse_rates(options.faults))
        api = Api(desk, pen, clock, faults, options.rate_limits, options.concurrency, options.error_statuses)
        sandbox = _sandbox(desk, clock, faults, kept["seed"], [_origin(door) for door in doors], pen)
        control = Control(
            desk.books, sandbox.reports, faults, clock, pen, frozenset(known()), {**sandbox.about(), "pid": os.getpid()}
        )
        media = MediaHost(desk, pen, clock, faults, options.media_bytes)
        routes = [*control.routes(), *(route for dialect in known().values() for route in api.routes(dialect))]
        messenger = _messenger(desk, clock, faults)
        stack.callback(_flush, desk.journal)
        stack.push_async_callback(_stop, asyncio.create_task(desk.journal.keep_flushing()))
        stack.push_async_callback(_stop, asyncio.create_task(messenger.keep_delivering()))
        stack.push_async_callback(api.close)
        for door, served in zip(doors, (routes, media.routes()), strict=True):
            await _open(stack, door, served, clock)
        yield sandbox


def _kept(pen: Pen, options: Options) -> dict[str, str]:
    """What a state keeps from its first day: its anchor, its seed, the secret of its signatures."""
    seed = options.seed if options.seed is not None else secrets.token_hex(8)
    secret = hashlib.sha256(f"media:{seed}".encode()).hexdigest()
    anchor = repr(options.anchor if options.anchor is not None else time.time())
    for name, value in {"anchor": anchor, "seed": seed, "secret": secret}.items():
        pen.write("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", (name, value))
    if options.anchor is not None:
        pen.write("UPDATE meta SET value = ? WHERE name = 'anchor'", (anchor,))
    return {row["name"]: row["value"] for row in pen.read("SELECT name, value FROM meta")}


def _desk(pen: Pen, clock: Clock, options: Options, kept: Mapping[str, str], media: str) -> Desk:
    books = Books(pen, seed=kept["seed"], render=options.render, opening_balance=options.credits)
    return Desk(
        books=books,
        keys=KeyMemory(pen, options.key_retention, options.ignore_keys),
        journal=Journal(pen, books, clock.now()),
        signer=Signer(media, kept["secret"].encode(), options.url_lifetime),
        uploads=Uploads(pen),
        assets=Assets(pen, kept["seed"]),
        callbacks=Callbacks(pen),
        lists_images=options.list_images,
    )


def _sandbox(desk: Desk, clock: Clock, faults: Faults, seed: str, origins: list[str], pen: Pen) -> Sandbox:
    return Sandbox(
        base_urls={name: f"{origins[0]}/{name}" for name in known()},
        control=f"{origins[0]}/_sandbox",
        media=origins[1],
        keys={
            name: dialect.example_key + hashlib.sha256(f"{name}:{seed}".encode()).hexdigest()[:24]
            for name, dialect in known().items()
        },
        clock=clock,
        seed=seed,
        reports=Reports(desk, clock),
        faults=faults,
        failed=pen.failed,
    )


def _door(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _origin(door: socket.socket) -> str:
    host, port = door.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _open(stack: AsyncExitStack, door: socket.socket, routes: Iterable[web.RouteDef], clock: Clock) -> None:
    app = web.Application(client_max_size=MAX_REQUEST, middlewares=[_no_answer_without_a_state])
    app[CLOCK] = clock
    app.on_response_prepare.append(set_date)
    app.add_routes(list(routes))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, door).start()


@web.middleware
async def _no_answer_without_a_state(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What could not be written is not answered: the connection is cut, as if the machine had died."""
    try:
        return await handler(request)
    except StateUnusable:
        return mishaps.cut(request, "reset")


def _messenger(desk: Desk, clock: Clock, faults: Faults) -> Messenger:
    def tell(provider: str, task_id: str, now: float) -> Any:
        task = desk.books.task(provider, task_id)
        return known()[provider].told(desk, task, now) if task else None

    return Messenger(desk.callbacks, desk.books, desk.journal, faults, clock, tell)


async def _stop(going: asyncio.Task[None]) -> None:
    going.cancel()
    with suppress(asyncio.CancelledError, StateUnusable):
        await going


def _flush(journal: Journal) -> None:
    with suppress(StateUnusable):
        journal.flush()
