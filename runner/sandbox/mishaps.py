"""Faults acted out on a real connection: cut, reset, trickled, inflated, garbled. Their names are in `faults`."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from weakref import WeakKeyDictionary

from aiohttp import web

from .clock import Clock, http_date
from .faults import Fault, Struck

PIECE = 1 << 16  # bytes written at once
STEPS = 200  # into how many pieces a slow answer is cut, at most
LINGER_OFF = struct.pack("ii", 1, 0)  # close means reset
MANY, LONG = 10_000, 1 << 20  # headers; bytes of a single one
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n"


def cut(request: web.Request, how: str) -> web.Response:
    """Ends the connection without another byte: "reset" sends RST, "close" sends FIN. What is returned goes nowhere."""
    transport = request.transport
    if transport is not None and how == "reset":
        wire = transport.get_extra_info("socket")
        if wire is not None:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_OFF)
        transport.abort()
    elif transport is not None:
        transport.close()
    return web.Response()


async def hang(request: web.Request) -> web.Response:
    """No answer until the client has left."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 (nobody tells us)
        await asyncio.sleep(0.05)
    return web.Response()


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """The first lines of an answer, for those that are written by hand."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def truncated(request: web.Request, status: int, body: bytes, how: str, clock: Clock) -> web.Response:
    """The first half of the body, then the end: announced too long ("length") or not announced at all ("close")."""
    length = {"Content-Length": str(len(body))} if how == "length" else {"Connection": "close"}
    headers = {"Content-Type": "application/json", "Date": http_date(clock.now()), **length}
    write(request, head(status, headers) + body[: len(body) // 2])
    return cut(request, "close")


async def trickled(
    request: web.Request, status: int, body: bytes, *, part: str, seconds: float, clock: Clock
) -> web.Response:
    """A whole answer, its head or its body arriving little by little over `seconds` (scaled)."""
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Date": http_date(clock.now())}
    start = head(status, {**headers, "Connection": "close"})
    quick, slow = (b"", start) if part == "headers" else (start, body)
    write(request, quick)
    await _drip(request, slow, seconds, clock)
    write(request, body if part == "headers" else b"")
    return cut(request, "close")


async def _drip(request: web.Request, data: bytes, seconds: float, clock: Clock) -> None:
    step = max(1, len(data) // STEPS)
    for start in range(0, len(data), step):
        write(request, data[start : start + step])
        await clock.sleep(seconds * step / max(1, len(data)))


def write(request: web.Request, data: bytes) -> None:
    if data and request.transport is not None and not request.transport.is_closing():
        request.transport.write(data)


async def byte_by_byte(request: web.Request, data: bytes) -> None:
    """Each byte in a segment of its own, without waiting: aiohttp has TCP_NODELAY set."""
    for each in data:
        write(request, bytes([each]))
        await asyncio.sleep(0)


async def segmented(request: web.Request, status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
    """A whole answer, one byte per TCP segment."""
    told = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    await byte_by_byte(request, head(status, told) + body)
    return cut(request, "close")


async def adorn(request: web.Request, response: web.StreamResponse, fault: Fault, clock: Clock) -> None:
    """What comes before or beside an answer that is itself whole and true. To be called before it is prepared."""
    match fault.name:
        case "latency":
            await clock.sleep(fault.seconds())
        case "early_hints":
            write(request, HINTS)
        case "many_headers" if fault.parameters["how"] == "long":
            response.headers["X-Filling"] = "x" * LONG
        case "many_headers":
            response.headers.extend((f"X-Filling-{number}", "x") for number in range(MANY))


@dataclass(frozen=True, slots=True)
class Closed:
    """Connections that the provider has closed after an answer, without having announced it.

    They end as the next request arrives, unread: whoever sent it finds out that nobody is there any more.
    """

    _closed: WeakKeyDictionary[asyncio.Transport, Struck] = field(default_factory=WeakKeyDictionary)

    def put_aside(self, request: web.Request, struck: Struck) -> Struck:
        """Whoever is struck by `closes_idle` is answered as if nothing were wrong: it is for the next request."""
        if struck.wire is None or struck.wire.name != "closes_idle":
            return struck
        if request.transport is not None:
            self._closed[request.transport] = replace(struck, fate=None)
        return replace(struck, wire=None)

    def met(self, request: web.Request) -> Struck | None:
        """What the request meets if it came on such a connection."""
        return self._closed.pop(request.transport, None) if request.transport is not None else None


async def huge(request: web.Request, status: int, body: bytes, size: int, gzipped: bool) -> web.StreamResponse:
    """The same JSON object with a field of `size` bytes in front: well-formed, but too much."""
    response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
    if gzipped:
        response.headers["Content-Encoding"] = "gzip"
    packer = zlib.compressobj(wbits=31) if gzipped else None
    await response.prepare(request)
    filling = b"x" * PIECE
    pieces = [b'{"padding":"', *[filling] * (size // PIECE), b'",', body.lstrip()[1:]]
    for piece in pieces:
        data = packer.compress(piece) if packer else piece
        if data:
            await response.write(data)
    if packer:
        await response.write(packer.flush())
    await response.write_eof()
    return response


def garbled(body: bytes, how: str) -> bytes:
    """The JSON in an encoding that strict UTF-8 refuses: invalid bytes in a string, a mark in front, or UTF-16."""
    if how == "bom":
        return b"\xef\xbb\xbf" + body
    if how == "utf16":
        return body.decode().encode("utf-16")
    return body.rstrip()[:-1] + b',"note":"\xff\xfe\xc3"}'
