"""Faults acted out on a real connection: cut, reset, trickled, inflated, garbled. Their names are in `faults`."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from .clock import Clock, http_date

PIECE = 1 << 16  # bytes written at once
STEPS = 200  # into how many pieces a slow answer is cut, at most
LINGER_OFF = struct.pack("ii", 1, 0)  # close means reset


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
    _write(request, head(status, headers) + body[: len(body) // 2])
    return cut(request, "close")


async def trickled(
    request: web.Request, status: int, body: bytes, *, part: str, seconds: float, clock: Clock
) -> web.Response:
    """A whole answer, its head or its body arriving little by little over `seconds` (scaled)."""
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Date": http_date(clock.now())}
    start = head(status, {**headers, "Connection": "close"})
    quick, slow = (b"", start) if part == "headers" else (start, body)
    _write(request, quick)
    await _drip(request, slow, seconds, clock)
    _write(request, body if part == "headers" else b"")
    return cut(request, "close")


async def _drip(request: web.Request, data: bytes, seconds: float, clock: Clock) -> None:
    step = max(1, len(data) // STEPS)
    for start in range(0, len(data), step):
        _write(request, data[start : start + step])
        await clock.sleep(seconds * step / max(1, len(data)))


def _write(request: web.Request, data: bytes) -> None:
    if data and request.transport is not None and not request.transport.is_closing():
        request.transport.write(data)


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
