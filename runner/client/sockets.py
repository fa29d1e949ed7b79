"""The two ways to the network, and the only place that opens either.

`fast_transport`   httpx over aiohttp: polls, lists, downloads. Measured, it serves twenty times the requests per
                   second of httpx's own pool at 64 in flight. One request asked for is one request on the wire:
                   aiohttp's silent second try would be missing from our request log.
`fresh_transport`  httpx's own transport, one submission on a connection of its own: its trace events are the brink.

Both refuse by the address they are about to connect to, never by a name: private, loopback, link-local, multicast,
reserved, and IPv6 addresses that stand for such an IPv4 address. Both ignore the environment (proxies, netrc,
certificate and key-log variables), follow no redirect, keep no cookie, and repeat nothing. No error text holds a URL:
result URLs are signed.

Why not the `httpx-aiohttp` package: it rewrites signed URLs (`%2F` to `/`, `%7E` to `~`), reports a connection that was
lost after the request as a timeout of *connecting*, and cuts downloads into pieces of 16 KiB.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from functools import cache
from typing import Any

import aiohttp
import anyio
import certifi
import httpcore
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from runner.client.addresses import look_up, objection

KEEP_ALIVE = 10.0  # seconds; short, because a connection the server is just closing costs a request
READ_BUFFER = 1 << 18  # bytes; large pieces, because each piece costs time of the loop
HEADER_LIMIT = 16_384  # bytes; signed addresses in `Location` are long
HEADERS = 128  # more of them are no answer (reliability.md F36)


class Blocked(httpx.ConnectError):
    """Nothing was sent: `host` leads to `address`, where this client may not go, for `reason`."""

    def __init__(self, host: str, address: str, reason: str) -> None:
        super().__init__(f"{host}: {address} is {reason}, and may not be connected to")
        self.host, self.address, self.reason = host, address, reason


class NoSuchHost(httpx.ConnectError):
    """Nothing was sent: the name of the host leads nowhere."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host}: no such host")
        self.host = host


class BadCertificate(httpx.ConnectError):
    """Nothing was sent: the server could not prove who it is."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"{host}: {why}")
        self.host = host


NOT_LET_IN = (Blocked, BadCertificate)


def fast_transport(
    *, allow_private: bool = False, connections: int = 100, ssl_context: ssl.SSLContext | None = None
) -> httpx.AsyncBaseTransport:
    """A pool of at most `connections`; who finds it full waits, within the `connect` and `pool` deadlines.

    `allow_private` lets it go to loopback and private addresses: only where the provider's own base is on loopback.
    """
    return _Fast(allow_private, connections, ssl_context or tls())


def fresh_transport(
    *, allow_private: bool = False, connect_seconds: float = 10.0, ssl_context: ssl.SSLContext | None = None
) -> httpx.AsyncBaseTransport:
    """A transport for one submission: a connection of its own, HTTP/1.1, never repeated, never reused.

    `connect_seconds` bounds looking the name up and connecting, where the request itself names no `connect` deadline.
    """
    return _Fresh(allow_private, connect_seconds, ssl_context or tls())


@cache
def tls() -> ssl.SSLContext:
    """The one way to verify servers; made once, because loading the authorities takes 20 ms.

    Not `ssl.create_default_context`: that would write the keys of every connection to the file SSLKEYLOGFILE names.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


# --- the check of an address, on its way through the socket layer


class _Refused(OSError):
    """An objection as the socket layer can carry it. Its text is always the same: that keeps it whole on the way up."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__("refused address")
        self.address, self.reason = address, reason


def _check(address: str, allow_private: bool) -> None:
    if why := objection(address, allow_private):
        raise _Refused(address, why)


# --- the fast one


class _Resolver(AbstractResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            infos = await look_up(host, port)
        except UnicodeError:
            raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from None
        return [
            ResolveResult(
                hostname=host, host=where[0], port=port, family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, where in infos
        ]

    async def close(self) -> None:
        return None


class _Fast(httpx.AsyncBaseTransport):
    def __init__(self, allow_private: bool, connections: int, ssl_context: ssl.SSLContext) -> None:
        self._allow_private = allow_private
        self._connections = connections
        self._ssl = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        failure: Exception
        try:
            answer = await self._send(request)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            failure = _translated(error, request.url.host)
        else:
            return httpx.Response(
                answer.status,
                headers=list(answer.raw_headers),
                stream=_Body(answer, request.url.host),
                extensions={"http_version": b"HTTP/1.1", "reason_phrase": (answer.reason or "").encode("latin-1")},
            )
        # Out here, so that no traceback shows the error below it: its text may hold the URL.
        raise failure

    async def _send(self, request: httpx.Request) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = self._open()
        return await self._session.request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=request.headers.multi_items(),
            data=_content(request),
            allow_redirects=False,
            timeout=_deadlines(request.extensions.get("timeout", {})),
        )

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._connections,
            keepalive_timeout=KEEP_ALIVE,
            ssl=self._ssl,
            resolver=_Resolver(),
            socket_factory=self._socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            read_bufsize=READ_BUFFER,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
            max_headers=HEADERS,
            middlewares=(_only_once,),
        )

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """aiohttp asks for a socket per address it is about to connect to, numeric hosts included."""
        family, kind, proto, _, where = info
        _check(where[0], self._allow_private)
        return socket.socket(family, kind, proto)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


async def _only_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from repeating a request whose connection broke: it repeats only errors of its own kinds."""
    failure: Exception
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        failure = _translated(error, request.url.host or "")
    raise failure


def _content(request: httpx.Request) -> Any:
    try:
        return request.content or None
    except httpx.RequestNotRead:
        return request.stream


def _deadlines(timeout: dict[str, float | None]) -> aiohttp.ClientTimeout:
    """aiohttp's `connect` covers waiting for a connection, looking the name up and connecting."""
    connect = timeout.get("connect")
    whole = None if connect is None else connect + (timeout.get("pool") or 0.0)
    return aiohttp.ClientTimeout(connect=whole, sock_connect=connect, sock_read=timeout.get("read"))


class _Body(httpx.AsyncByteStream):
    """The answer's bytes in the pieces in which they came, as large as the socket gave them."""

    def __init__(self, answer: aiohttp.ClientResponse, host: str) -> None:
        self._answer = answer
        self._host = host
        self._failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = b"" if self._failure else await self._read()
        if piece:
            return piece
        raise self._failure or StopAsyncIteration

    async def _read(self) -> bytes:
        content = self._answer.content
        try:
            return await content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._failure = _translated(error, self._host)
        # aiohttp would drop what arrived before the connection broke; a download goes on behind it.
        content.set_exception(None)  # type: ignore[arg-type]
        return content.read_nowait()

    async def aclose(self) -> None:
        self._answer.close()  # A connection whose answer was read to its end is back in the pool already.


def _translated(error: Exception, host: str) -> Exception:
    """aiohttp's errors in httpx's words, told apart by whether anything can have been sent. No text holds a URL."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return _unknown(host, error.os_error)
        case aiohttp.ClientConnectorCertificateError():
            return BadCertificate(host, _reason(error.certificate_error))
        case aiohttp.ClientConnectorError(os_error=_Refused() as refused):
            return Blocked(host, refused.address, refused.reason)
        case aiohttp.InvalidURL():
            return Blocked(host, host, "no address in its usual form")
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError(f"{host}: {_reason(error.os_error)}")
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(f"{host}: no connection in time")
        case TimeoutError():
            return httpx.ReadTimeout(f"{host}: nothing came in time")
        case aiohttp.ClientPayloadError():
            return httpx.RemoteProtocolError(f"{host}: the answer was cut short")
        case aiohttp.ServerDisconnectedError():
            return httpx.RemoteProtocolError(f"{host}: closed the connection without an answer")
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError(f"{host}: what it answers is not HTTP: {error.message[:100]}")
        case OSError():
            return httpx.ReadError(f"{host}: {_reason(error)}")
        case _:
            return httpx.ReadError(f"{host}: {type(error).__name__}")


def _unknown(host: str, error: Exception) -> httpx.ConnectError:
    """A name server that cannot be asked right now (a laptop without a network, say) is not one that knows no host."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return httpx.ConnectError(f"{host}: its name cannot be looked up now")
    return NoSuchHost(host)


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return text or type(error).__name__


# --- the fresh one


class _Fresh(httpx.AsyncHTTPTransport):
    def __init__(self, allow_private: bool, connect_seconds: float, ssl_context: ssl.SSLContext) -> None:
        super().__init__(verify=ssl_context, trust_env=False)
        # httpx offers no way to pass a network backend; the tests hold this to httpx 0.28 and httpcore 1.0.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=1,
            max_keepalive_connections=0,
            http1=True,
            http2=False,
            retries=0,
            network_backend=_Checked(allow_private, connect_seconds),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        failure: Exception
        try:
            response = await super().handle_async_request(request)
        except httpx.ConnectError as error:
            failure = _bad_certificate(error, request.url.host) or error
        else:
            if len(response.headers.raw) <= HEADERS:
                return response
            await response.aclose()
            failure = httpx.RemoteProtocolError(f"{request.url.host}: too many headers")
        raise failure


def _bad_certificate(error: BaseException, host: str) -> BadCertificate | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return BadCertificate(host, cause.verify_message or "its certificate is not valid")
        cause = cause.__cause__ or cause.__context__
    return None


class _Checked(httpcore.AsyncNetworkBackend):
    """Looks the name up itself and connects to nothing but addresses that passed the check."""

    def __init__(self, allow_private: bool, connect_seconds: float) -> None:
        self._allow_private = allow_private
        self._connect_seconds = connect_seconds
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        seconds = self._connect_seconds if timeout is None else timeout
        end = anyio.current_time() + seconds
        addresses = self._allowed(host, await _addresses(host, port, seconds))
        failure: Exception = NoSuchHost(host)
        for tried, address in enumerate(addresses):
            share = max(0.0, end - anyio.current_time()) / (len(addresses) - tried)
            try:
                return await self._plain.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _allowed(self, host: str, addresses: list[str]) -> list[str]:
        objections = {address: objection(address, self._allow_private) for address in addresses}
        allowed = [address for address, why in objections.items() if why is None]
        if not allowed:
            address, why = next(iter(objections.items()))
            raise Blocked(host, address, why or "")
        return allowed

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise Blocked(path, path, "a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)


async def _addresses(host: str, port: int, seconds: float) -> list[str]:
    """Each once, in the order in which the system would try them; NoSuchHost where there are none."""
    try:
        with anyio.fail_after(seconds):
            infos = await look_up(host, port)
    except TimeoutError:
        raise httpcore.ConnectTimeout("the name was not looked up in time") from None
    except (OSError, UnicodeError) as error:
        raise _unknown(host, error) from None
    if not infos:
        raise NoSuchHost(host)
    return list(dict.fromkeys(info[4][0] for info in infos))
