"""The client without credentials: what its requests carry, where redirects may lead, and what its errors tell."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import certificates
import pytest
from wire import Asked, Line, served

from runner.client.fetching import HOPS, Fetched, Fetcher, FetchError, Interrupted, UnsafeUrl
from runner.client.sockets import fast_transport

SECRET = "c4n4ry51gn4tur3"
TARGET = f"/out/clip%2Fa.mp4?X-Amz-Signature={SECRET}&Expires=1"


async def fetched(fetcher: Fetcher, url: str, headers: Mapping[str, str] | None = None) -> tuple[Fetched, bytes]:
    async with fetcher.stream(url, headers) as answer:
        return answer, b"".join([piece async for piece in answer.chunks()])


async def hello(_: Asked, line: Line) -> None:
    await line.answer(200, b"hello", content_type="video/mp4", x_thing="1", etag='"abc"')


def redirecting(target: str, status: int = 302) -> object:
    async def handler(_: Asked, line: Line) -> None:
        await line.answer(status, b"moved", location=target)

    return handler


# --- what a request carries


async def test_an_answer_comes_with_its_head_and_its_body() -> None:
    async with served(hello) as wire, Fetcher(allow_private=True) as fetcher:
        answer, body = await fetched(fetcher, wire.url(TARGET))
    assert (answer.status, answer.host, body) == (200, "127.0.0.1", b"hello")
    assert (answer.headers["content-type"], answer.headers["etag"]) == ("video/mp4", '"abc"')
    assert wire.asked[0].target == TARGET


async def test_T8_a_request_carries_nothing_but_what_it_needs() -> None:
    async with served(hello) as wire, Fetcher(allow_private=True) as fetcher:
        await fetched(fetcher, wire.url(), {"Range": "bytes=5-", "If-Range": '"abc"'})
    headers = wire.asked[0].headers
    assert set(headers) <= {"host", "accept", "accept-encoding", "user-agent", "range", "if-range", "connection"}
    assert headers["accept-encoding"] == "identity"
    assert (headers["range"], headers["if-range"]) == ("bytes=5-", '"abc"')


@pytest.mark.parametrize("name", ["Authorization", "cookie", "REFERER", "X-Api-Key", "X-Idempotency-Key"])
async def test_T8_a_credential_cannot_even_be_given(name: str) -> None:
    async with served(hello) as wire, Fetcher(allow_private=True) as fetcher:
        with pytest.raises(ValueError, match=name.lower()):
            await fetched(fetcher, wire.url(), {name: "canary"})
        assert wire.asked == []


async def test_T8_neither_cookies_nor_referrers_follow_a_redirect_to_another_origin() -> None:
    async with served(hello) as second, Fetcher(allow_private=True) as fetcher:

        async def first(_: Asked, line: Line) -> None:
            await line.answer(302, location=second.url("/there"), set_cookie="a=canary; Domain=127.0.0.1; Path=/")

        async with served(first) as origin:
            for _ in range(2):
                answer, _body = await fetched(fetcher, origin.url(TARGET))
                assert answer.status == 200
        for asked in [*origin.asked, *second.asked]:
            assert not set(asked.headers) & {"cookie", "referer", "authorization", "origin"}
        assert SECRET.encode() not in b"".join(asked.head for asked in second.asked)


# --- where it may go


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(status: int) -> None:
    async with served(hello) as end, served(redirecting(end.url("/end?x=%2F"), status)) as begin:
        async with Fetcher(allow_private=True) as fetcher:
            answer, body = await fetched(fetcher, begin.url(), {"Range": "bytes=1-"})
        assert (answer.status, body) == (200, b"hello")
        assert (end.asked[0].target, end.asked[0].headers["range"]) == ("/end?x=%2F", "bytes=1-")


@pytest.mark.parametrize("hops", [HOPS, HOPS + 1])
async def test_T8_F25_five_redirects_and_no_more(hops: int) -> None:
    async def handler(asked: Asked, line: Line) -> None:
        step = int(asked.target.strip("/") or 0)
        await (line.answer(302, location=f"/{step + 1}") if step < hops else line.answer(200, b"end"))

    async with served(handler) as wire, Fetcher(allow_private=True) as fetcher:
        if hops == HOPS:
            assert (await fetched(fetcher, wire.url()))[1] == b"end"
        else:
            with pytest.raises(Interrupted, match="redirects"):
                await fetched(fetcher, wire.url())
    assert len(wire.asked) == HOPS + 1


async def test_a_redirect_to_itself_ends() -> None:
    async with served(redirecting("?again")) as wire, Fetcher(allow_private=True) as fetcher:
        with pytest.raises(Interrupted):
            await fetched(fetcher, wire.url())


async def test_a_redirect_without_a_target_is_an_answer() -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.answer(302)

    async with served(handler) as wire, Fetcher(allow_private=True) as fetcher:
        assert (await fetched(fetcher, wire.url()))[0].status == 302


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://127.0.0.1/x",
        "data:video/mp4;base64,AAAA",
        "//169.254.169.254/latest/meta-data",
        "https://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/x",
        "http://10.0.0.1/x",
        "http://192.168.0.1/x",
        "http://localhost.evil.example/x",
        "https://user:pass@127.0.0.1/x",
        "https://user@127.0.0.1/x",
        "http://[::1",
        "https://cdn.example:99999/x",
        "https://cdn.example:99999999999999999999/x",
        "https://xn--a/x",
    ],
)
async def test_T9_F26_a_redirect_may_not_lead_astray(target: str) -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.answer(302, location=target)

    async with served(handler) as wire, Fetcher(allow_private=True, connect=2, idle=2) as fetcher:
        with pytest.raises(UnsafeUrl):
            await fetched(fetcher, wire.url())
        assert len(wire.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/x",
        "http://localhost:{port}/x",
        "http://[::1]:{port}/x",
        "https://127.0.0.1:{port}/x",
        "https://localhost:{port}/x",
        "https://2130706433:{port}/x",
        "https://[::ffff:127.0.0.1]:{port}/x",
        "file:///etc/passwd",
        "/etc/passwd",
        "",
        "https://",
    ],
)
async def test_T9_without_leave_nothing_on_this_machine_is_asked(url: str) -> None:
    async with served(hello) as wire, Fetcher(connect=2, idle=2) as fetcher:
        with pytest.raises(UnsafeUrl):
            await fetched(fetcher, url.format(port=wire.port))
        assert wire.connections == 0


async def test_https_is_fine_with_leave_and_without_leave_for_the_transport_alone(tmp_path: Path) -> None:
    transport = fast_transport(allow_private=True, ssl_context=certificates.client_side())
    async with served(hello, tls=certificates.server_side(tmp_path)) as wire, Fetcher(transport=transport) as fetcher:
        assert (await fetched(fetcher, wire.url(TARGET)))[1] == b"hello"
        with pytest.raises(UnsafeUrl, match="https is needed"):
            await fetched(fetcher, wire.url(TARGET).replace("https", "http"))


async def test_T8_a_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    transport = fast_transport(allow_private=True, ssl_context=certificates.client_side())
    async with served(hello) as plain:
        secure = served(redirecting(plain.url()), tls=certificates.server_side(tmp_path))
        async with secure as wire, Fetcher(transport=transport) as fetcher:
            with pytest.raises(UnsafeUrl):
                await fetched(fetcher, wire.url(TARGET))
        assert plain.connections == 0


# --- answers that break off or never end


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_what_came_before_the_cut_is_delivered_first(framing: str) -> None:
    async def handler(_: Asked, line: Line) -> None:
        if framing == "length":
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n", b"x" * 300_000)
        else:
            await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n493e0\r\n", b"x" * 300_000, b"\r\n")

    got = 0
    async with (
        served(handler) as wire,
        Fetcher(allow_private=True) as fetcher,
        fetcher.stream(wire.url(TARGET)) as answer,
    ):
        chunks = answer.chunks()
        while got < 300_000:
            got += len(await anext(chunks))
        with pytest.raises(Interrupted, match="cut short"):
            await anext(chunks)
    assert got == 300_000


async def test_silence_in_a_body_is_left_at_the_idle_deadline() -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
        await line.gone()

    async with served(handler) as wire, Fetcher(allow_private=True, idle=0.2) as fetcher:
        begin = time.monotonic()
        with pytest.raises(Interrupted, match="in time"):
            await fetched(fetcher, wire.url(TARGET))
        assert 0.15 < time.monotonic() - begin < 3


async def test_a_body_that_trickles_is_not_idle() -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            await line.send(b"x")
            await asyncio.sleep(0.1)

    async with served(handler) as wire, Fetcher(allow_private=True, idle=0.4) as fetcher:
        assert (await fetched(fetcher, wire.url()))[1] == b"x" * 8


async def test_a_head_that_trickles_for_ever_is_left() -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await line.send(b"X-A: b\r\n")
            await asyncio.sleep(0.05)

    async with served(handler) as wire, Fetcher(allow_private=True, connect=0.3, idle=0.3) as fetcher:
        begin = time.monotonic()
        with pytest.raises(Interrupted):
            await fetched(fetcher, wire.url(TARGET))
        assert time.monotonic() - begin < 3


async def test_a_server_that_is_not_there_is_tried_later() -> None:
    async with served(hello) as wire:
        url = wire.url(TARGET)
    async with Fetcher(allow_private=True) as fetcher:
        with pytest.raises(Interrupted):
            await fetched(fetcher, url)


async def test_a_connection_closed_as_it_is_used_again_costs_nothing() -> None:
    """F14: what a server does that keeps connections open for a moment only."""

    async def fickle(_: Asked, line: Line) -> None:
        if len(wire.asked) == 2:
            line.reset()
        else:
            await line.answer(200, b"hello", connection="keep-alive")

    async with served(fickle, keep_alive=True) as wire, Fetcher(allow_private=True) as fetcher:
        for _ in range(2):
            assert (await fetched(fetcher, wire.url()))[1] == b"hello"
    assert (len(wire.asked), wire.connections) == (3, 2)


async def test_a_server_that_never_answers_is_not_asked_for_ever() -> None:
    async def refuse(_: Asked, line: Line) -> None:
        line.reset()

    async with served(refuse) as wire, Fetcher(allow_private=True) as fetcher:
        with pytest.raises(Interrupted):
            await fetched(fetcher, wire.url())
    assert len(wire.asked) == 2


async def test_leaving_early_lets_go_of_the_connection() -> None:
    gone = asyncio.Event()

    async def handler(_: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello")
        await line.gone()
        gone.set()

    async with served(handler) as wire, Fetcher(allow_private=True) as fetcher:
        async with fetcher.stream(wire.url()) as answer:
            assert answer.status == 200
        await asyncio.wait_for(gone.wait(), 5)


# --- what the errors tell


async def everything_that_goes_wrong(folder: Path) -> list[FetchError]:
    """An error of every kind, each from a signed URL."""

    async def cut(_: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")

    async def silent(_: Asked, line: Line) -> None:
        await line.gone()

    async def refuse(_: Asked, line: Line) -> None:
        line.reset()

    async def nonsense(_: Asked, line: Line) -> None:
        await line.send(b"nonsense\r\n\r\n")

    caught: list[FetchError] = []

    async def collect(fetcher: Fetcher, url: str) -> None:
        with pytest.raises(FetchError) as error:
            await fetched(fetcher, url)
        caught.append(error.value)

    async with Fetcher(allow_private=True, connect=0.5, idle=0.3) as fetcher:
        for handler in (cut, silent, refuse, nonsense, redirecting(TARGET), redirecting(f"file://{TARGET}")):
            async with served(handler) as wire:
                await collect(fetcher, wire.url(TARGET))
        await collect(fetcher, wire.url(TARGET))  # nobody listens any more
        async with served(hello, tls=certificates.server_side(folder)) as wire:
            await collect(fetcher, wire.url(TARGET))
        await collect(fetcher, f"https://[::1{TARGET}")
        await collect(fetcher, f"https://nowhere.invalid{TARGET}")
        await collect(fetcher, f"https://{SECRET}:x@127.0.0.1/{TARGET}")
    async with served(hello) as wire, Fetcher() as fetcher:
        await collect(fetcher, f"https://127.0.0.1:{wire.port}{TARGET}")
    return caught


def chain(error: BaseException | None) -> list[BaseException]:
    return [error, *chain(error.__cause__), *chain(error.__context__)] if error is not None else []


async def test_T3_no_error_and_no_log_holds_a_signed_url(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    errors = await everything_that_goes_wrong(tmp_path)
    assert len(errors) == 12
    for error in errors:
        told = [error.host, error.why]
        for one in chain(error):
            told += [repr(one), str(one), *map(str, one.args), *traceback.format_exception(one)]
        assert not [text for text in told if SECRET in text]
    assert SECRET not in caplog.text


def test_an_answer_shows_no_url() -> None:
    assert "http" not in repr(Fetched(200, {}, "cdn.example", iter(())))  # type: ignore[arg-type]
