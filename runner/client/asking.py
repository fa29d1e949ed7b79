"""Questions to a provider: the account's key, deadlines, size caps, redaction and error translation are kept here.

Two ways out. `Line.ask` goes over the fast transport (polls, lists, uploads, balances). `Line.submission` makes the
`Ask` for exactly one paid request: a fresh connection, no redirects, a total deadline, and the brink: a callback that
is awaited after DNS, TCP and TLS, and before the first byte leaves. If the callback raises, nothing is sent.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlencode

import anyio
import httpx
import structlog

from runner import __version__
from runner.client import sockets
from runner.clock import Clock
from runner.errors import Fenced, InternalError, LocalError, NoAnswer, NotSent, RunnerError
from runner.exchange import Ask, Reply, Upload
from runner.failpoints import reached
from runner.limits import RETRY_AFTER_CAP
from runner.log import redactor
from runner.settings import Credentials, forms_of, holds

SUBMIT_SECONDS = 120.0  # total deadline of a paid request: before it, no answer is never "no"
ASK_SECONDS = 30.0
CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 1.0
NO_SUCH_HOST_TIMES = 3
REPLY_CAP = 4 * 1024 * 1024  # bytes, inflated
MILLISECONDS_FROM = 100_000_000_000  # no second of this era is that large: such a time is in milliseconds
BRINK = "http11.send_request_headers.started"

Brink = Callable[[], Awaitable[None]]
log = structlog.get_logger("runner")


@dataclass(slots=True)
class Signals:
    """What the last answers said of the account's own limits: None where they said nothing."""

    limit: int | None = None
    remaining: int | None = None
    reset_in: float | None = None  # seconds


class Line:
    """One account's line to its provider. Use as an async context manager; many requests may share it.

    `hook_works` False means that the brink cannot be seen: every submission then counts as sent from its start.
    """

    def __init__(self, credentials: Credentials, clock: Clock, *, hook_works: bool = True) -> None:
        self._credentials = credentials
        self._forms = forms_of(credentials.key)
        self._clock = clock
        self._hook_works = hook_works
        self.signals = Signals()
        self.skew = 0.0  # seconds by which the provider's clock is ahead of ours
        self._fast = sockets.fast_transport(allow_private=credentials.loopback)

    async def __aenter__(self) -> Self:
        await self._fast.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._fast.__aexit__(kind, error, trace)

    @property
    def ask(self) -> Ask:
        return self._ask

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        upload: Upload | None = None,
    ) -> Reply:
        request = self._request(method, path, query, headers, json, content, upload)
        try:
            with anyio.fail_after(self._clock.deadline(ASK_SECONDS)):
                return await self._exchange(self._fast, request)
        except sockets.NOT_LET_IN as error:
            _not_sent(error)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError) as error:
            _no_answer(error)

    def submission(self, brink: Brink) -> Ask:
        """The `Ask` for one paid request. `brink` is awaited at most once, before the first byte."""

        async def submit(
            method: str,
            path: str,
            *,
            query: Mapping[str, str] | None = None,
            headers: Mapping[str, str] | None = None,
            json: Any = None,
            content: bytes | None = None,
            upload: Upload | None = None,
        ) -> Reply:
            request = self._request(method, path, query, headers, json, content, upload)
            return await self._pay(request, brink)

        return submit

    async def _pay(self, request: httpx.Request, brink: Brink) -> Reply:
        passed = _Passed(brink)
        request.extensions["trace"] = passed.trace
        transport = sockets.fresh_transport(allow_private=self._credentials.loopback)
        try:
            if not self._hook_works:
                await passed.pass_it()
            with anyio.fail_after(self._clock.deadline(SUBMIT_SECONDS)):
                return await self._exchange(transport, request)
        except (Fenced, RunnerError):
            raise
        except (httpx.HTTPError, OSError, TimeoutError, ValueError) as error:
            if passed.done:
                _no_answer(error)
            _not_sent(error)
        finally:
            await _close(transport)

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        json_body: Any,
        content: bytes | None,
        upload: Upload | None,
    ) -> httpx.Request:
        url = self._credentials.base_url + path + (f"?{urlencode(query)}" if query else "")
        key = self._credentials.key.reveal()
        if holds(url, self._forms) or redactor().holds(url):
            raise InternalError("a key was about to be sent in an address; nothing was sent")
        sent = {
            "Authorization": f"Bearer {key}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"runner/{__version__}",
            **(headers or {}),
        }
        if upload is not None:
            files = {upload.field: (upload.filename, upload.content, upload.media_type)}
            return httpx.Request(method, url, headers=sent, files=files, extensions=self._timeouts())
        if json_body is not None:
            content = json.dumps(json_body, ensure_ascii=False, separators=(",", ":"), default=str).encode()
        if content is not None:
            sent["Content-Type"] = "application/json"
        return httpx.Request(method, url, headers=sent, content=content, extensions=self._timeouts())

    def _timeouts(self) -> dict[str, Any]:
        """No limits inside a request but the connect: a total deadline stands around it, because httpx's are per
        read."""
        return {
            "timeout": {"connect": self._clock.deadline(CONNECT_SECONDS), "read": None, "write": None, "pool": None}
        }

    async def _exchange(self, transport: httpx.AsyncBaseTransport, request: httpx.Request) -> Reply:
        """One request over a bare transport: no client that could follow a redirect or remember a cookie."""
        response = await transport.handle_async_request(request)
        try:
            raw = await _read_capped(response)
        finally:
            await _close(response)
        reached("answer-read")
        log.debug("answer", account=self._credentials.account, method=request.method, path=request.url.path,
                  status=response.status_code)  # fmt: skip
        reply = _reply(response, raw, _Veil(self._credentials.key.reveal()))
        self.signals = read_signals(reply.headers, reply.date)
        if reply.date is not None:
            self.skew = reply.date.timestamp() - self._clock.timestamp()
        return reply


class _Passed:
    """Knows whether the brink was passed. httpcore awaits `trace` for every step; behind a proxy the same step comes
    for CONNECT first, so only the paid method counts."""

    def __init__(self, brink: Brink) -> None:
        self._brink = brink
        self.done = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event == BRINK and info["request"].method == b"POST":
            await self.pass_it()
        elif event == "http11.send_request_body.complete":
            reached("request-sent")

    async def pass_it(self) -> None:
        if not self.done:
            reached("before-brink")
            await self._brink()
            self.done = True
            reached("after-brink")


class _Veil:
    """Takes a key out of what a provider says: "Incorrect API key provided: sk-…" must not reach disk or screen."""

    def __init__(self, key: str) -> None:
        spellings = {key, json.dumps(key)[1:-1], quote(key, safe=""), key.replace("/", "\\/")}
        self._spellings = sorted(spellings, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for spelling in self._spellings:
            text = text.replace(spelling, "[redacted]")
        return text


async def _close(what: httpx.Response | httpx.AsyncBaseTransport) -> None:
    """Whatever comes of it, and when: an answer that was read, with the id of what was paid, is not lost to an error or
    a deadline on the way out."""
    with anyio.move_on_after(CLOSE_SECONDS, shield=True), suppress(Exception):
        await what.aclose()


async def _read_capped(response: httpx.Response) -> bytes:
    """The body, inflated where it is compressed although nobody asked. ValueError for too much, or for damaged data."""
    inflate = zlib.decompressobj(47) if response.headers.get("content-encoding") in ("gzip", "deflate") else None
    body = bytearray()
    async for piece in _pieces(response):
        body += _inflated(inflate, piece, REPLY_CAP + 1 - len(body)) if inflate else piece
        if len(body) > REPLY_CAP:
            raise ValueError("the answer is larger than 4 MiB")
    return bytes(body)


def _inflated(inflate: Any, piece: bytes, most: int) -> bytes:
    try:
        return bytes(inflate.decompress(piece, most))
    except zlib.error:
        raise ValueError("the answer is compressed, and damaged") from None


def _reply(response: httpx.Response, raw: bytes, veil: _Veil) -> Reply:
    headers = {name.lower(): veil(value) for name, value in response.headers.items()}
    data, unreadable = _parse(raw, veil)
    return Reply(response.status_code, headers, data, unreadable, _date(headers.get("date")))


def _parse(raw: bytes, veil: _Veil) -> tuple[Any, str | None]:
    """JSON as UTF-8, strictly, with exact decimals; anything else is None with the reason."""
    try:
        return json.loads(veil(raw.decode("utf-8")), parse_float=Decimal, parse_constant=_no_number), None
    except (ValueError, ArithmeticError, RecursionError) as error:  # arithmetic: 1e99999999999999999999
        return None, "empty" if not raw.strip() else f"not JSON ({type(error).__name__})"


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text) if text else None
    except (ValueError, ArithmeticError, TypeError, IndexError):  # arithmetic: the year 99999999999
        return None
    return found if found is not None and found.tzinfo is not None else None


def _pieces(response: httpx.Response) -> AsyncIterable[bytes]:
    """Of the body, as they come. (httpx's own iterator closes the response before it says that it is at the end.)"""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream


def read_signals(headers: Mapping[str, str], date: datetime | None) -> Signals:
    """The `X-RateLimit-*` headers. Reset is a Unix time by the provider's clock, so it is read against its `Date`."""
    reset = _number(headers.get("x-ratelimit-reset"))
    if reset is not None and reset >= MILLISECONDS_FROM:
        reset //= 1000
    wait = None if reset is None or date is None else min(RETRY_AFTER_CAP, max(0.0, reset - date.timestamp()))
    return Signals(_number(headers.get("x-ratelimit-limit")), _number(headers.get("x-ratelimit-remaining")), wait)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 16 else None


def _no_answer(error: Exception) -> NoReturn:
    raise NoAnswer(_say(error)) from None


def _not_sent(error: Exception) -> NoReturn:
    """Who leads us where we may not go, or cannot prove who it is, does so the next time too; a name that leads nowhere
    may be a slip of the network's, but not three times in a row."""
    match error:
        case sockets.Blocked() | sockets.BadCertificate():
            raise NotSent(str(error), stops_after=1) from None
        case sockets.NoSuchHost():
            raise NotSent(str(error), stops_after=NO_SUCH_HOST_TIMES) from None
    raise NotSent(_say(error)) from None


def _say(error: Exception) -> str:
    """The kind of trouble in words, without any address: those may be signed."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        return str(error)
    return f"the connection failed ({type(error).__name__})"


async def brink_hook_works() -> bool:
    """Asks a socket of our own on loopback whether httpcore still awaits the hook before the first byte.

    Raises LocalError where this machine cannot even be asked by itself: it is short of open files, say.
    """
    order: list[str] = []
    failed: httpx.TransportError | None = None

    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            order.append("arrived")
            await stream.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    async def brink() -> None:
        order.append("brink")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610  # no Django here
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        request = httpx.Request("POST", f"http://127.0.0.1:{port}/", extensions={"trace": _Passed(brink).trace})
        with anyio.move_on_after(5):
            transport = sockets.fresh_transport(allow_private=True)
            try:
                async with transport:
                    await (await transport.handle_async_request(request)).aclose()
            except httpx.TransportError as error:  # out of here as it is, not as part of a group
                failed = error
        group.cancel_scope.cancel()
    if failed is not None:
        message = f"this machine does not answer itself on 127.0.0.1: {_say(failed)}"
        raise LocalError(message, "may a process open too few files (ulimit -n)?")
    return order == ["brink", "arrived"]
