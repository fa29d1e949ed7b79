"""The two transports on real sockets: where they go, what they never do, and that nothing hangs behind them."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import certificates
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import Asked, Line, served

from runner.client import asking, sockets
from runner.client.addresses import objection
from runner.client.sockets import BadCertificate, Blocked, NoSuchHost, fast_transport, fresh_transport
from runner.errors import LocalError

Make = Callable[..., httpx.AsyncBaseTransport]
BOTH = pytest.mark.parametrize("make", [fast_transport, fresh_transport], ids=["fast", "fresh"])

LOOPBACK = [
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1",
    "0177.0.0.1", "017700000001", "0177.1", "127.0.0.1.", "localhost", "LOCALHOST", "0", "0x0", "0.0.0.0",  # noqa: S104
    "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]",
    "[2001:0:53aa:64c::80ff:fffe]", "[fe80::5efe:127.0.0.1]", "[2606:4700::5efe:127.0.0.1]", "[::1%25lo]",
    "[::ffff:127.0.0.1%25lo]", "127\u30020\u30020\u30021", "127\uff0e0\uff0e0\uff611", "\uff11\uff12\uff17.0.0.1",
    "\u24dbocalhost", "\uff4cocalhost", "00000177.0.0.1", "0x7f.0x0.0x0.0x1",
]  # fmt: skip
OTHERS = [
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.1", "192.168.1.1", "0xc0a80101", "3232235777",
    "100.64.0.1", "169.254.169.254", "0xa9fea9fe", "2852039166", "[::ffff:169.254.169.254]", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "192.88.99.1", "0.1.2.3", "[fc00::1]", "[fd12:3456::1]", "[fe80::1]", "[fec0::1]", "[ff02::1]",
    "[ff0e::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[64:ff9b::10.0.0.1]", "[2002:a00:1::]", "[::ffff:10.0.0.1]",
    "[::10.0.0.1]", "[5f00::1]", "[fe80::1%25lo]", "[fe80::1%lo]", "100.127.255.254", "169\u3002254\u3002169\u3002254",
    "[64:ff9b::169.254.169.254]", "[2002:a9fe:a9fe::]", "[::ffff:0:169.254.169.254]", "[2001::1]", "[fd00:ec2::254]",
]  # fmt: skip


def get(url: str, **extensions: Any) -> httpx.Request:
    timeout = {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0, **extensions.pop("timeout", {})}
    return httpx.Request(extensions.pop("method", "GET"), url, extensions={"timeout": timeout, **extensions})


async def asked(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> tuple[int, bytes]:
    """The whole answer."""
    response = await transport.handle_async_request(request)
    try:
        return response.status_code, b"".join([piece async for piece in response.stream])  # type: ignore[union-attr]
    finally:
        await response.aclose()


async def hello(_: Asked, line: Line) -> None:
    await line.answer(200, b"hello")


async def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name now leads to these addresses."""
    real = socket.getaddrinfo

    def pretend(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if not host.endswith(".example"):
            return real(host, port, *args, **kwargs)
        return [info for address in addresses for info in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", pretend)


# --- where they go


@BOTH
@pytest.mark.parametrize("host", LOOPBACK + OTHERS)
async def test_T9_no_spelling_of_a_special_address_is_connected_to(make: Make, host: str) -> None:
    async with served(hello) as wire, make() as transport:
        with pytest.raises((Blocked, NoSuchHost, httpx.InvalidURL)):
            await asked(transport, get(f"http://{host}:{wire.port}/"))
        assert wire.connections == 0


@BOTH
async def test_T9_loopback_is_reached_where_it_is_allowed(make: Make) -> None:
    async with served(hello) as wire, make(allow_private=True) as transport:
        assert await asked(transport, get(wire.url())) == (200, b"hello")
        assert await asked(transport, get(wire.url(host="localhost"))) == (200, b"hello")


@BOTH
@pytest.mark.parametrize("host", ["169.254.169.254", "224.0.0.1", "240.0.0.1", "0", "[fe80::1]", "[ff02::1]"])
async def test_T9_some_addresses_are_never_allowed(make: Make, host: str) -> None:
    async with make(allow_private=True) as transport:
        with pytest.raises(Blocked):
            await asked(transport, get(f"http://{host}:80/"))


@BOTH
async def test_T9_a_name_is_judged_by_the_address_it_leads_to(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    await resolve_to(monkeypatch, "127.0.0.1")
    async with served(hello) as wire, make() as transport:
        with pytest.raises(Blocked) as caught:
            await asked(transport, get(wire.url("/?sig=secret", host="cdn.example")))
        assert (wire.connections, caught.value.host, caught.value.address) == (0, "cdn.example", "127.0.0.1")
        assert "secret" not in repr(caught.value) + str(caught.value)


@BOTH
async def test_T9_a_name_that_changes_its_mind_is_judged_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "objection", lambda address, allowed: None if address == "127.0.0.1" else "elsewhere")
    await resolve_to(monkeypatch, "127.0.0.1")
    async with served(hello) as wire, make() as transport:
        assert await asked(transport, get(wire.url(host="rebinding.example"))) == (200, b"hello")
        monkeypatch.undo()
        await resolve_to(monkeypatch, "127.0.0.1")
        with pytest.raises(Blocked):
            await asked(transport, get(wire.url(host="rebinding.example")))
        assert wire.connections == 1


@BOTH
async def test_of_several_addresses_the_allowed_one_is_taken(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    await resolve_to(monkeypatch, "169.254.169.254", "127.0.0.1")
    async with served(hello) as wire, make(allow_private=True) as transport:
        assert await asked(transport, get(wire.url(host="both.example"))) == (200, b"hello")


@BOTH
async def test_of_several_addresses_a_dead_one_is_passed_over(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    await resolve_to(monkeypatch, "127.0.0.3", "127.0.0.1")
    async with served(hello) as wire, make(allow_private=True) as transport:
        assert await asked(transport, get(wire.url(host="both.example"))) == (200, b"hello")


@given(st.ip_addresses(v=4))
def test_T9_an_ipv6_address_is_no_better_than_the_ipv4_address_in_it(inner: IPv4Address) -> None:
    number, plain = int(inner), objection(str(inner), False)
    for prefix in ("::ffff:0:0", "::ffff:0:0:0", "64:ff9b::"):
        assert (objection(str(IPv6Address(int(IPv6Address(prefix)) | number)), False) is None) == (plain is None)
    for outer in (number, 0x2002 << 112 | number << 80, 0x20010000 << 96 | (number ^ 0xFFFFFFFF)):
        assert objection(str(IPv6Address(outer)), False)


@given(st.ip_addresses())
def test_T9_only_addresses_that_the_world_can_reach_pass(address: IPv4Address | IPv6Address) -> None:
    if objection(str(address), False) is None:
        inner = getattr(address, "ipv4_mapped", None) or address
        translated = IPv6Address("64:ff9b::") <= inner < IPv6Address("64:ff9b::1:0:0") if inner.version == 6 else False
        assert inner.is_global or translated
        assert objection(str(address), True) is None


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"])
def test_public_addresses_pass(address: str) -> None:
    assert objection(address, False) is None


# --- what they never do


@BOTH
async def test_T27_the_environment_changes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with served(hello) as sink, served(hello) as wire:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, sink.url())
            monkeypatch.setenv(name.upper(), sink.url())
        monkeypatch.setenv("NO_PROXY", "")
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password canary\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing"))
        sockets.tls.cache_clear()
        async with make(allow_private=True) as transport:
            assert await asked(transport, get(wire.url())) == (200, b"hello")
        assert sockets.tls().keylog_filename is None
        assert sockets.tls().cert_store_stats()["x509_ca"] > 50
        assert (sink.connections, len(wire.asked)) == (0, 1)
        assert "authorization" not in wire.asked[0].headers
        assert not (tmp_path / "keys").exists()


@BOTH
async def test_T8_a_redirect_is_an_answer_and_a_cookie_is_forgotten(make: Make) -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.answer(307, location="/elsewhere", set_cookie="a=canary; Path=/")

    async with served(handler) as wire:
        for _ in range(2):
            async with make(allow_private=True) as transport:
                for _ in range(2):
                    assert (await asked(transport, get(wire.url("/start"))))[0] == 307
        assert [one.target for one in wire.asked] == ["/start"] * 4
        assert not any("cookie" in one.headers for one in wire.asked)


@BOTH
async def test_a_signed_url_arrives_as_it_was_given(make: Make) -> None:
    target = "/a%2Fb%7E%41/c%20d?X-Cred=AK%2F20&sig=a%2Bb%3D%27&t=%e2%82%ac&s=%20+~"
    async with served(hello) as wire, make(allow_private=True) as transport:
        await asked(transport, get(wire.url(target)))
        assert wire.asked[0].target == target


@BOTH
async def test_the_headers_on_the_wire_are_those_of_the_request(make: Make) -> None:
    async with served(hello) as wire, make(allow_private=True) as transport:
        request = get(wire.url(), method="POST")
        request = httpx.Request("POST", wire.url(), headers={"X-A": "1"}, content=b"{}", extensions=request.extensions)
        await asked(transport, request)
    names = {"host", "x-a", "content-length"}
    assert set(wire.asked[0].headers) - {"accept-encoding", "connection"} == names
    assert wire.asked[0].body == b"{}"


async def test_an_upload_streams_with_its_length() -> None:
    async with served(hello) as wire, fast_transport(allow_private=True) as transport:
        base = get(wire.url())
        files = {"file": ("a.png", b"\x89PNG" * 5000, "image/png")}
        await asked(transport, httpx.Request("POST", wire.url(), files=files, extensions=base.extensions))
    assert b"\x89PNG" * 5000 in wire.asked[0].body
    assert "transfer-encoding" not in wire.asked[0].headers


@BOTH
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_request_without_an_answer_is_not_sent_again(make: Make, how: str) -> None:
    async def silent(_: Asked, line: Line) -> None:
        if how == "reset":
            line.reset()

    async with served(silent) as wire, make(allow_private=True) as transport:
        with pytest.raises(httpx.TransportError) as caught:
            await asked(transport, get(wire.url()))
        assert not isinstance(caught.value, httpx.ConnectError | httpx.ConnectTimeout)
        await asyncio.sleep(0.05)
        assert len(wire.asked) == 1


async def test_not_even_on_a_connection_that_was_used_before() -> None:
    async def once(question: Asked, line: Line) -> None:
        if question.target == "/first":
            await line.answer(200, b"ok", connection="keep-alive")
        else:
            line.reset()

    async with served(once, keep_alive=True) as wire, fast_transport(allow_private=True) as transport:
        await asked(transport, get(wire.url("/first")))
        with pytest.raises(httpx.TransportError):
            await asked(transport, get(wire.url("/second")))
        await asyncio.sleep(0.05)
        assert [one.target for one in wire.asked] == ["/first", "/second"]
        assert wire.connections == 1


async def test_every_submission_has_a_connection_of_its_own() -> None:
    async def kept(_: Asked, line: Line) -> None:
        await line.answer(200, b"ok", connection="keep-alive")

    async with served(kept, keep_alive=True) as wire:
        for _ in range(2):
            async with fresh_transport(allow_private=True) as transport:
                for _ in range(2):
                    await asked(transport, get(wire.url(), method="POST"))
        assert wire.connections == 4


async def test_the_brink_comes_after_the_connection_and_before_the_first_byte() -> None:
    seen: list[str] = []

    async def handler(_: Asked, line: Line) -> None:
        seen.append("arrived")
        await line.answer(200)

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "http11.send_request_headers.started":
            await asyncio.sleep(0.05)  # Whatever is sent in spite of us would arrive now.
            seen.append(f"brink of {info['request'].method.decode()}, {len(wire.asked)} asked")
        elif event.startswith("connection.connect_tcp"):
            seen.append(event.removeprefix("connection."))

    async with served(handler) as wire, fresh_transport(allow_private=True) as transport:
        await asked(transport, get(wire.url(), method="POST", trace=trace))
    assert seen == ["connect_tcp.started", "connect_tcp.complete", "brink of POST, 0 asked", "arrived"]


async def test_a_brink_that_fails_sends_nothing() -> None:
    async def trace(event: str, _: dict[str, Any]) -> None:
        if event == "http11.send_request_headers.started":
            raise OSError(28, "No space left on device")

    received = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read())
        writer.close()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, fresh_transport(allow_private=True) as transport:
        with pytest.raises(OSError, match="No space left"):
            await asked(transport, get(f"http://127.0.0.1:{port}/", method="POST", trace=trace))
        await asyncio.wait_for(gone.wait(), 5)
    assert received == b""


async def test_the_fresh_transport_reaches_no_brink_where_it_may_not_go() -> None:
    seen: list[str] = []

    async def trace(event: str, _: dict[str, Any]) -> None:
        seen.append(event)

    async with served(hello) as wire, fresh_transport() as transport:
        with pytest.raises(Blocked):
            await asked(transport, get(wire.url(), method="POST", trace=trace))
    assert not any("send_request" in event for event in seen)


# --- answers that break off, lie, or never end


@BOTH
@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"not even HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20) + b"\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["short", "chunk missing", "chunk short", "chunk bad", "head short", "no HTTP", "many headers", "big header"],
)
async def test_an_answer_that_is_not_whole_is_an_error(make: Make, bytes_sent: bytes) -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.send(bytes_sent)

    async with served(handler) as wire, make(allow_private=True) as transport:
        with pytest.raises(httpx.TransportError) as caught:
            await asked(transport, get(wire.url("/?sig=canary")))
    assert "canary" not in str(caught.value)


@BOTH
async def test_what_came_before_the_cut_is_delivered(make: Make) -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n", b"x" * 300_000)

    got = 0
    async with served(handler) as wire, make(allow_private=True) as transport:
        response = await transport.handle_async_request(get(wire.url()))
        with suppress(httpx.TransportError):
            async for piece in response.stream:  # type: ignore[union-attr]
                got += len(piece)
            pytest.fail("it did not notice")
        await response.aclose()
    assert got == 300_000


async def test_what_arrived_before_the_cut_is_not_dropped_because_it_was_read_late() -> None:
    gone = asyncio.Event()

    async def handler(_: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n", b"x" * 100_000)
        gone.set()

    async with served(handler) as wire, fast_transport(allow_private=True) as transport:
        response = await transport.handle_async_request(get(wire.url()))
        await gone.wait()
        await asyncio.sleep(0.2)  # The end of the connection has been noticed; the body is still in the buffer.
        body = aiter(response.stream)  # type: ignore[arg-type]
        assert await anext(body) == b"x" * 100_000
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(body)
        await response.aclose()


@BOTH
async def test_informational_answers_are_passed_over(make: Make) -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        await line.answer(200, b"real")

    async with served(handler) as wire, make(allow_private=True) as transport:
        assert await asked(transport, get(wire.url())) == (200, b"real")


@BOTH
async def test_one_byte_segments_change_nothing(make: Make) -> None:
    async def handler(_: Asked, line: Line) -> None:
        line.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello":
            await line.send(bytes([byte]))
            await asyncio.sleep(0)

    async with served(handler) as wire, make(allow_private=True) as transport:
        assert await asked(transport, get(wire.url())) == (200, b"hello")


@BOTH
async def test_a_silent_server_is_left_at_the_read_deadline(make: Make) -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.gone()

    async with served(handler) as wire, make(allow_private=True) as transport:
        begin = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            await asked(transport, get(wire.url(), timeout={"read": 0.2}))
        assert 0.15 < time.monotonic() - begin < 3


@BOTH
async def test_a_body_that_stops_is_left_at_the_read_deadline(make: Make) -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
        await line.gone()

    async with served(handler) as wire, make(allow_private=True) as transport:
        begin = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            await asked(transport, get(wire.url(), timeout={"read": 0.2}))
        assert 0.15 < time.monotonic() - begin < 3


@BOTH
async def test_a_black_hole_is_left_at_the_connect_deadline(make: Make) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:  # The queue of the listener is full now: further SYNs go unanswered.
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            async with make(allow_private=True) as transport:
                begin = time.monotonic()
                url = f"http://127.0.0.1:{full.getsockname()[1]}/?sig=canary"
                with pytest.raises(httpx.ConnectTimeout) as caught:
                    await asked(transport, get(url, timeout={"connect": 0.3, "pool": None}))
                assert 0.25 < time.monotonic() - begin < 3
                assert "canary" not in str(caught.value)
        finally:
            for filler in fillers:
                filler.close()


@BOTH
async def test_a_name_server_that_hangs_holds_nobody(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    release, before = threading.Event(), set(threading.enumerate())
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(30) and [])
    async with make(allow_private=True) as transport:
        begin = time.monotonic()
        with pytest.raises(httpx.ConnectTimeout):
            await asked(transport, get("http://slow.example/", timeout={"connect": 0.3, "pool": None}))
        assert 0.25 < time.monotonic() - begin < 3
    left = set(threading.enumerate()) - before
    release.set()
    assert [thread.daemon for thread in left] == [True]  # Nobody joins it, so the end of the process waits for nobody.


@BOTH
async def test_a_name_that_leads_nowhere_is_told_apart(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    async with make() as transport:
        with pytest.raises(NoSuchHost) as caught:
            await asked(transport, get("https://nowhere.example/?sig=canary"))
    assert str(caught.value) == "nowhere.example: no such host"


@BOTH
async def test_a_name_server_out_of_reach_says_nothing_of_the_host(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    async with make() as transport:
        with pytest.raises(httpx.ConnectError) as caught:
            await asked(transport, get("https://cdn.example/"))
    assert not isinstance(caught.value, NoSuchHost)


@BOTH
async def test_a_closed_port_is_a_connect_error(make: Make) -> None:
    async with served(hello) as wire:
        url = wire.url()
    async with make(allow_private=True) as transport:
        with pytest.raises(httpx.ConnectError) as caught:
            await asked(transport, get(url))
    assert type(caught.value) is httpx.ConnectError


# --- TLS


@BOTH
async def test_a_server_that_proves_who_it_is_is_spoken_to(make: Make, tmp_path: Path) -> None:
    trusting = make(allow_private=True, ssl_context=certificates.client_side())
    async with served(hello, tls=certificates.server_side(tmp_path)) as wire, trusting as transport:
        assert await asked(transport, get(wire.url())) == (200, b"hello")


@BOTH
@pytest.mark.parametrize("case", ["unknown authority", "expired", "wrong host"])
async def test_a_server_that_cannot_prove_who_it_is_hears_nothing(make: Make, case: str, tmp_path: Path) -> None:
    shown = certificates.EXPIRED if case == "expired" else certificates.GOOD
    trusted = None if case == "unknown authority" else certificates.client_side(shown)
    host = "127.0.0.2" if case == "wrong host" else "127.0.0.1"
    async with served(hello, tls=certificates.server_side(tmp_path, shown), host=host) as wire:
        async with make(allow_private=True, ssl_context=trusted) as transport:
            with pytest.raises(BadCertificate) as caught:
                await asked(transport, get(wire.url("/?sig=canary", host=host)))
        assert wire.asked == []
    assert caught.value.host == host
    assert "canary" not in str(caught.value)


@BOTH
async def test_a_handshake_cut_short_is_no_bad_certificate(make: Make) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server, make(allow_private=True) as transport:
        with pytest.raises(httpx.ConnectError) as caught:
            await asked(transport, get(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
    assert not isinstance(caught.value, BadCertificate)


# --- nothing hangs behind them


@BOTH
@pytest.mark.parametrize("phase", ["waiting for the head", "in the body"])
async def test_a_cancelled_request_lets_go_of_its_connection(make: Make, phase: str) -> None:
    let_go, began = asyncio.Event(), asyncio.Event()

    async def handler(_: Asked, line: Line) -> None:
        if phase == "in the body":
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
        began.set()
        await line.gone()
        let_go.set()

    before = asyncio.all_tasks()
    async with served(handler) as wire, make(allow_private=True) as transport:
        task = asyncio.create_task(asked(transport, get(wire.url())))
        await asyncio.wait_for(began.wait(), 5)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(let_go.wait(), 5)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_many_cancelled_requests_do_not_leak_the_pool() -> None:
    """The fault of httpcore that made polls use another transport (libraries.md, finding 1)."""
    chance = random.Random(7)

    async def handler(_: Asked, line: Line) -> None:
        await asyncio.sleep(chance.random() * 0.02)
        await line.answer(200, b"ok", connection="keep-alive")

    async with served(handler, keep_alive=True) as wire, fast_transport(allow_private=True, connections=3) as transport:
        for _ in range(15):
            tasks = [asyncio.create_task(asked(transport, get(wire.url()))) for _ in range(12)]
            for _task in tasks:
                await asyncio.sleep(chance.random() * 0.004)
                if chance.random() < 0.6:
                    chance.choice(tasks).cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        healthy = asyncio.gather(*(asked(transport, get(wire.url())) for _ in range(6)))
        assert await asyncio.wait_for(healthy, 5) == [(200, b"ok")] * 6


async def test_who_finds_the_pool_full_waits() -> None:
    now, most = 0, 0

    async def handler(_: Asked, line: Line) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.01)
        now -= 1
        await line.answer(200, b"ok", connection="keep-alive")

    async with served(handler, keep_alive=True) as wire, fast_transport(allow_private=True, connections=3) as transport:
        answers = await asyncio.gather(*(asked(transport, get(wire.url())) for _ in range(20)))
    assert answers == [(200, b"ok")] * 20
    assert most == 3
    assert wire.connections == 3


@BOTH
async def test_no_descriptor_stays_open(make: Make) -> None:
    async with served(hello) as wire:
        for _ in range(3):  # What is opened once and kept (epoll, pipes) is open after this.
            async with make(allow_private=True) as transport:
                await asked(transport, get(wire.url()))
        await asyncio.sleep(0.05)
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(20):
            async with make(allow_private=True) as transport:
                await asked(transport, get(wire.url()))
        await asyncio.sleep(0.05)
        after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after <= before


async def test_F91_a_machine_that_cannot_ask_itself_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short of open files, it closes the connection before it has heard anything."""

    def closed(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)

    monkeypatch.setattr(asking.sockets, "fresh_transport", lambda **_: httpx.MockTransport(closed))
    with pytest.raises(LocalError, match="does not answer itself") as caught:
        await asking.brink_hook_works()
    assert "ulimit" in caught.value.hint
