"""Fetching what a provider offers by URL, without any credentials.

A fetch is a bare request over the fast transport: no client that could remember a cookie, no authorization, no
referrer, nothing from the environment. Redirects are followed by hand, at most five, and every hop is checked anew:
https, and an address that may be connected to (reliability.md T8, T9). Signed URLs appear in no error and no log, only
their host does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Self

import anyio
import httpx

from runner.client.sockets import Blocked, fast_transport
from runner.log import redactor

HOPS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_PORTS = 65_535
MAY_BE_ASKED = frozenset({"range", "if-range"})


class FetchError(Exception):
    """Why a URL could not be fetched. `host` is all of the URL that is ever shown."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"{host}: {why}")
        self.host, self.why = host, why


class UnsafeUrl(FetchError):
    """This URL, or one it redirects to, may not be asked. Nothing was sent there, and asking again will not help."""


class Interrupted(FetchError):
    """The network was in the way, before or during the answer. The same URL may work later."""


class _Lost(Interrupted):
    """The connection broke before the answer began."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The head of an answer; its body comes through `chunks`, once. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    host: str
    _body: AsyncIterator[bytes] = field(repr=False)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body's bytes as they came, in pieces of the socket's size. Interrupted when it breaks off.

        A body that ends with its connection, without a length, can break off unnoticed.
        """
        why = ""
        try:
            async for piece in self._body:
                yield piece
        except httpx.TransportError as error:
            why = _said(error, self.host)
        if why:
            raise Interrupted(self.host, why)


class Fetcher:
    """Fetches URLs. `connect` and `idle` are deadlines in seconds: until a connection stands, and between two bytes.

    The head of an answer must be complete within both together. How slow a body may be is the caller's business.
    `allow_private` says that the provider's own base is on loopback: then loopback and private addresses may be asked,
    loopback ones without TLS. Use it as an asynchronous context manager, or call `aclose`.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        connect: float = 10.0,
        idle: float = 60.0,
        connections: int = 100,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._connect = connect
        self._idle = idle
        self._transport = transport or fast_transport(allow_private=allow_private, connections=connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._transport.aclose()

    @asynccontextmanager
    async def stream(self, url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Fetched]:
        """The answer to a GET of `url`, after redirects, whatever its status; its body is let go of at the end.

        `headers` may hold `Range` and `If-Range`, nothing else (ValueError). Raises UnsafeUrl and Interrupted.
        """
        if unknown := {name.lower() for name in headers or {}} - MAY_BE_ASKED:
            raise ValueError(f"a fetch carries no {', '.join(sorted(unknown))}")
        response, host = await self._followed(_parsed(url), headers or {})
        try:
            yield Fetched(response.status_code, dict(response.headers), host, aiter(_stream(response)))
        finally:
            await response.aclose()

    async def _followed(self, url: httpx.URL, headers: Mapping[str, str]) -> tuple[httpx.Response, str]:
        for _ in range(HOPS + 1):
            self._judge(url)
            try:
                response = await self._ask(url, headers)
            except _Lost:  # A kept connection may be closed just as it is used: once more, on another.
                response = await self._ask(url, headers)
            target = response.headers.get("location")
            if response.status_code not in REDIRECTS or not target:
                return response, url.host
            await response.aclose()
            url = _joined(url, target)
        raise Interrupted(url.host, f"more than {HOPS} redirects")

    def _judge(self, url: httpx.URL) -> None:
        """What can be refused by its text alone; where the connection goes is checked when it is made."""
        if not url.host:
            raise UnsafeUrl("a result URL", "names no host")
        if url.userinfo:
            raise UnsafeUrl(url.host, "its URL carries a name or a password")
        if redactor().holds(str(url)):
            raise UnsafeUrl(url.host, "its URL carries a key of yours")
        if url.scheme == "https" or (url.scheme == "http" and self._allow_private and _is_loopback(url.host)):
            return
        raise UnsafeUrl(url.host, f"{url.scheme or 'no scheme'} where https is needed")

    async def _ask(self, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        request = httpx.Request(
            "GET",
            url,
            headers={"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "runner", **headers},
            extensions={"timeout": {"connect": self._connect, "read": self._idle, "pool": None, "write": self._idle}},
        )
        failure: FetchError
        try:
            with anyio.fail_after(self._connect + self._idle):
                return await self._transport.handle_async_request(request)
        except Blocked as error:
            failure = UnsafeUrl(url.host, f"{error.address} is {error.reason}")
        except (httpx.RemoteProtocolError, httpx.ReadError) as error:
            failure = _Lost(url.host, _said(error, url.host))
        except httpx.TransportError as error:
            failure = Interrupted(url.host, _said(error, url.host))
        except TimeoutError:
            failure = Interrupted(url.host, "no answer in time")
        # Out here, so that no traceback shows the error below it.
        raise failure


def _parsed(url: str) -> httpx.URL:
    with suppress(httpx.InvalidURL, ValueError):
        return _checked(httpx.URL(url))
    raise UnsafeUrl("a result URL", "is not well formed")


def _joined(url: httpx.URL, target: str) -> httpx.URL:
    with suppress(httpx.InvalidURL, ValueError):
        return _checked(url.join(target))
    raise UnsafeUrl(url.host, "redirects to something that is no URL")


def _checked(url: httpx.URL) -> httpx.URL:
    """ValueError for a port or a host that cannot be one: httpx takes them, and fails once it is asked for them."""
    if (url.port or 0) > MOST_PORTS or "\0" in url.host:
        raise ValueError("no port, or no host")
    return url


def _is_loopback(host: str) -> bool:
    """Only what says so itself: whatever else leads to loopback must not do without TLS."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _said(error: httpx.TransportError, host: str) -> str:
    return str(error).removeprefix(f"{host}: ") or type(error).__name__


def _stream(response: httpx.Response) -> httpx.AsyncByteStream:
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # An asynchronous transport gives nothing else.
    return stream
