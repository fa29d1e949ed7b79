"""A server of raw bytes on loopback, for answers that no proper HTTP server would give."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Asked:
    """One request as it came: `head` is its raw head, `headers` have lower-case names."""

    head: bytes
    target: str
    headers: dict[str, str]
    body: bytes


class Line:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, status: int = 200, body: bytes = b"", **headers: str | int | None) -> None:
        """A proper answer. `content_length=None` leaves the length out, so that the body ends with the connection."""
        fields: dict[str, str | int | None] = {"content_length": len(body), "connection": "close", **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value is not None]
        await self.send("\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode("latin-1"), body)

    def reset(self) -> None:
        """Ends the connection with a RST."""
        found: socket.socket = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Waits until the client has let go of this connection."""
        with suppress(OSError):
            while await self.reader.read(1 << 16):
                pass


Handler = Callable[[Asked, Line], Awaitable[None]]


@dataclass
class Wire:
    port: int
    scheme: str = "http"
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    def url(self, target: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{target}"


@asynccontextmanager
async def served(
    handler: Handler, *, keep_alive: bool = False, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    """Runs `handler` for each request; the connection ends after it, unless `keep_alive`."""
    wire = Wire(0, "https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.connections += 1
        line = Line(reader, writer)
        try:
            while (asked := await _read(reader)) is not None:
                wire.asked.append(asked)
                await handler(asked, line)
                if not keep_alive:
                    break
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(talk(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(head, first.split(" ")[1], headers, body)
