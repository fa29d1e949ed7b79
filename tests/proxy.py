"""A way to PostgreSQL that can be cut: a small TCP proxy that knows where a COMMIT begins and where its answer ends.

`before` and `after` drop the connection with the COMMIT unsent, or carried out and its answer unheard: to whoever sent
it the two look alike. With `late` the connection is gone and the COMMIT still on its way: it arrives when it is let go.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import URL, make_url

Cut = Literal["before", "after", "late"]
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104  # asked before anything else; the answer here is no
COMMIT, READY = b"Q", b"Z"


@dataclass(eq=False)
class _Pair:
    """One connection of a client and its own one to the server. `deaf`: the client hears nothing any more."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    deaf: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    def drop(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass(eq=False)
class Way:
    """Yields from `way_to`. `plan` decides about every COMMIT by its number, from 1; `cut` about the next one."""

    server: URL
    plan: Callable[[int], Cut | None] = lambda _number: None
    port: int = 0
    commits: int = 0
    cuts: list[Cut] = field(default_factory=list)
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _next: Cut | None = None
    _shut: bool = False
    _closed: bool = False
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _let_go: asyncio.Event = field(default_factory=asyncio.Event)
    _pairs: set[_Pair] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """`--db` by this way."""
        there = URL.create("postgresql", self.server.username, host="127.0.0.1", port=self.port)
        return there.set(database=self.server.database).render_as_string(hide_password=False)

    def cut(self, how: Cut, *, shut: bool = False) -> None:
        """The next COMMIT is cut off like this, and the way closed with it (`shut`); `happened` is set when it was."""
        self.happened.clear()
        self._next, self._shut = how, shut

    def let_go(self) -> None:
        """What was cut off `late` goes on to the server; `arrived` is set when it has been carried out."""
        self._let_go.set()

    def close(self) -> None:
        """Drops everybody and lets nobody in until it is opened again."""
        self._closed = True
        for pair in list(self._pairs):
            pair.drop()

    def open(self) -> None:
        self._closed = False
        self._flowing.set()

    def stall(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        self._flowing.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whoever runs the listener asks every task for its error, and does not know a cancelled one
        finally:
            writer.transport.abort()

    async def end(self) -> None:
        self.close()
        self._let_go.set()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            return
        first = await _first_message(reader, writer)
        back, forth = await self._connect()
        pair = _Pair(writer, forth)
        self._pairs.add(pair)
        forth.write(first)
        down = asyncio.create_task(self._down(back, pair))
        try:
            await self._up(reader, pair)
        finally:
            self._pairs.discard(pair)
            down.cancel()
            pair.drop()
            await asyncio.wait([down])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        folder, port = self.server.query.get("host"), self.server.port or 5432
        if self.server.host is None and folder:
            return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self.server.host, port)

    async def _up(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        while True:
            kind, message = await _message(reader)
            how = self._decide() if kind == COMMIT and message[5:].startswith(b"COMMIT") else None
            if how is not None:
                return await self._cut_off(how, message, pair)
            await self._flowing.wait()
            pair.server.write(message)
            await pair.server.drain()

    def _decide(self) -> Cut | None:
        self.commits += 1
        how, self._next = self._next or self.plan(self.commits), None
        return how

    async def _cut_off(self, how: Cut, message: bytes, pair: _Pair) -> None:
        self.cuts.append(how)
        pair.deaf = True
        self._closed, self._shut = self._shut, False
        if how == "late":
            pair.client.transport.abort()
            self.happened.set()
            await self._let_go.wait()
        if how != "before":
            pair.server.write(message)
            await pair.answered.wait()
        self.arrived.set()
        self.happened.set()

    async def _down(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        try:
            while True:
                kind, message = await _message(reader)
                if pair.deaf:
                    if kind == READY:
                        pair.answered.set()
                else:
                    await self._flowing.wait()
                    pair.client.write(message)
                    await pair.client.drain()
        except (OSError, asyncio.IncompleteReadError):
            pair.answered.set()
            pair.client.transport.abort()


async def _first_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What opens a connection has no letter before its length."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!ii", head)
        rest = await reader.readexactly(length - 8)
        if code not in (SSL_REQUEST, GSS_REQUEST):
            return head + rest
        writer.write(b"N")


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


@asynccontextmanager
async def way_to(database: str, plan: Callable[[int], Cut | None] = lambda _number: None) -> AsyncIterator[Way]:
    """A way to this database, on a port of its own on loopback."""
    way = Way(make_url(database), plan)
    way.open()
    listener = await asyncio.start_server(way.serve, "127.0.0.1", 0)
    way.port = listener.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        listener.close()
        await way.end()


@contextmanager
def way_beside(database: str, plan: Callable[[int], Cut | None]) -> Iterator[Way]:
    """The same in a thread of its own, for tests without a loop."""
    ready, over = threading.Event(), threading.Event()
    opened: list[Way] = []

    async def keep() -> None:
        async with way_to(database, plan) as way:
            opened.append(way)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=[keep()], name="proxy")
    thread.start()
    try:
        assert ready.wait(30), "the proxy did not start"
        yield opened[0]
    finally:
        over.set()
        thread.join()
