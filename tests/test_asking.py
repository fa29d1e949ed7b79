"""The line to a provider: what it refuses to send, where it does not follow, and how much it reads."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import Asked, Wire, served
from wire import Line as Connection

from runner import log
from runner.client.asking import REPLY_CAP, Line
from runner.client.sockets import HEADERS
from runner.clock import Clock
from runner.errors import InternalError, NoAnswer, NotSent
from runner.exchange import Ask, Reply
from runner.settings import Credentials, Secret

KEY = "sk/canary+0123456789=abcdef"
OTHER = "Xy7[another]key&of/the+same%person"
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in a URL": lambda key: quote(key, safe=""),
    "in a URL, slashes kept": quote,
    "in a form": quote_plus,
    "in JSON": lambda key: json.dumps(key)[1:-1],
    "in base64": lambda key: base64.b64encode(f"me:{key}".encode()).decode(),
}
Handler = Callable[[Asked, Connection], Any]


def line_to(base: str, key: str = KEY) -> Line:
    return Line(Credentials("acme", "acme", Secret(key), base, True), Clock())


async def passed() -> None:
    """A brink that nobody minds."""


@asynccontextmanager
async def spoken_to(handler: Handler) -> AsyncIterator[tuple[Line, Wire]]:
    async with served(handler) as wire, line_to(wire.url("")) as line:
        yield line, wire


async def fine(_: Asked, connection: Connection) -> None:
    await connection.answer(200, b"{}")


async def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("something was sent")


# --- T5: no known secret in a URL


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("key", [KEY, OTHER], ids=["its own", "another one's"])
async def test_T5_no_known_key_is_sent_in_an_address(spelling: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = log.Redactor([Secret(OTHER)])
    monkeypatch.setattr("runner.client.asking.redactor", lambda: known)
    spelt = SPELLINGS[spelling](key)
    async with spoken_to(fine) as (line, wire):
        for ask in (line.ask, line.submission(passed)):
            with pytest.raises(InternalError) as refused:
                await ask("POST", "/api/v1/videos", query={"token": spelt})
            with pytest.raises(InternalError):
                await ask("POST", f"/api/v1/{spelt}/videos")
            assert key not in str(refused.value)
        assert wire.connections == 0
        assert (await line.ask("GET", "/api/v1/videos", query={"page": "1"})).ok


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60), st.text(), st.text())
def test_T5_whatever_the_key_is_it_is_found_in_an_address(key: str, before: str, after: str) -> None:
    line = line_to("https://acme.invalid", key)
    with pytest.raises(InternalError):
        line._request("GET", "/x", {"q": f"{before}{key}{after}"}, None, None, None, None)


# --- T8: a redirect is never followed, so nobody else sees what was meant for the provider


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("paid", [True, False], ids=["submission", "question"])
async def test_T8_F24_a_second_origin_receives_nothing(status: int, paid: bool) -> None:
    async with served(fine) as second:

        async def elsewhere(_: Asked, connection: Connection) -> None:
            await connection.answer(status, b"", location=second.url("/there"))

        async with spoken_to(elsewhere) as (line, first):
            ask: Ask = line.submission(passed) if paid else line.ask
            reply = await ask("POST", "/api/v1/videos", headers={"X-Idempotency-Key": "k1"}, json={"prompt": "x"})
        assert (reply.status, len(first.asked)) == (status, 1)
        assert first.asked[0].headers["authorization"] == f"Bearer {KEY}"
        assert second.connections == 0


# --- F34–F37: an answer has an end


@cache
def bomb(size: int, wrap: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wrap)
    return packer.compress(b'{"a": "' + bytes(size)) + packer.flush()


async def read_of(handler: Handler, *, paid: bool = True) -> Reply:
    async with spoken_to(handler) as (line, _):
        ask = line.submission(passed) if paid else line.ask
        return await ask("POST", "/api/v1/videos", json={})


@pytest.mark.parametrize("paid", [True, False], ids=["submission", "question"])
@pytest.mark.parametrize(("encoding", "wrap"), [("gzip", 31), ("deflate", 15)])
async def test_F34_a_small_body_does_not_unfold_to_a_large_one(encoding: str, wrap: int, paid: bool) -> None:
    packed = bomb(40_000_000, wrap)
    assert len(packed) < 50_000

    async def handler(_: Asked, connection: Connection) -> None:
        await connection.answer(200, packed, content_encoding=encoding)

    tracemalloc.start()
    try:
        with pytest.raises(NoAnswer, match="larger than 4 MiB"):
            await read_of(handler, paid=paid)
        assert tracemalloc.get_traced_memory()[1] < 6 * REPLY_CAP
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [10 * 1024**3, None], ids=["with its length", "without"])
async def test_F35_a_body_without_end_is_left(length: int | None) -> None:
    sent = 0

    async def handler(_: Asked, connection: Connection) -> None:
        nonlocal sent
        await connection.answer(200, b'{"a": "', content_length=length)
        while True:
            await connection.send(b"x" * 65_536)
            sent += 65_536

    with pytest.raises(NoAnswer, match="larger than 4 MiB"):
        await read_of(handler)
    assert sent < 16 * REPLY_CAP, "it was read on"


async def test_F35_the_largest_body_that_is_read() -> None:
    async def handler(asked: Asked, connection: Connection) -> None:
        body = b'"%s"' % (b"x" * (REPLY_CAP - 2))
        packed = gzip.compress(body, 1)
        await connection.answer(200, packed, content_encoding="gzip")

    assert len((await read_of(handler)).data) == REPLY_CAP - 2


@pytest.mark.parametrize("head", ["many", "long"])
@pytest.mark.parametrize("paid", [True, False], ids=["submission", "question"])
async def test_F36_a_head_without_measure_is_no_answer(head: str, paid: bool) -> None:
    lines = {"many": [f"x-{n}: {n}" for n in range(10_000)], "long": [f"x-a: {'y' * 1_048_576}"]}[head]

    async def handler(_: Asked, connection: Connection) -> None:
        await connection.send("\r\n".join(["HTTP/1.1 200 OK", *lines, "content-length: 2", "", "{}"]).encode())

    with pytest.raises(NoAnswer):
        await read_of(handler, paid=paid)
    assert HEADERS < 1_000


@pytest.mark.parametrize("body", [b'{"id": "\xff"}', '{"id": "ü"}'.encode("latin-1"), b"\xff\xfe{\x00}\x00"])
async def test_F37_what_is_no_utf_8_is_not_understood(body: bytes) -> None:
    async def handler(_: Asked, connection: Connection) -> None:
        await connection.answer(200, body, content_type="application/json; charset=latin-1")

    reply = await read_of(handler)
    assert (reply.status, reply.data) == (200, None)
    assert reply.unreadable


async def test_what_never_left_is_told_apart() -> None:
    async with served(fine) as wire:
        gone = wire.url("")
    async with line_to(gone) as line:
        with pytest.raises(NotSent):
            await line.submission(never)("POST", "/api/v1/videos", json={})


# --- what was read is had


@pytest.mark.parametrize("paid", [True, False])
@pytest.mark.parametrize("how", ["breaks", "never ends"])
async def test_an_answer_that_was_read_is_not_lost_to_closing(
    how: str, paid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closing(rightly: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def close(it: Any) -> None:
            await rightly(it)
            if how == "breaks":
                raise httpx.ReadError("the connection was reset")
            await asyncio.Event().wait()

        return close

    monkeypatch.setattr("runner.client.asking.CLOSE_SECONDS", 0.05)
    async with spoken_to(fine) as (line, _):
        with monkeypatch.context() as patch:
            for each in (httpx.Response, httpx.AsyncHTTPTransport):
                patch.setattr(each, "aclose", closing(each.aclose))
            ask = line.submission(passed) if paid else line.ask
            assert (await ask("POST", "/api/v1/videos", json={})).status == 200
