"""Each fault of a download does what its name says, and the file is whole again for whoever comes back."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from sandbox_client import PROVIDERS, Client, Tries, client_of

from runner.sandbox.faults import CATALOGUE

TRIES = Tries()


@TRIES.of("expired_url", "gone")
async def refused_downloads(client: Client) -> None:
    url = await client.result()
    for name, status in (("expired_url", 403), ("gone", 410)):
        await client.fault(name)
        assert (await client.http.get(url)).status_code == status
    assert (await client.http.get(url)).status_code == 200


@TRIES.of("reset_download", "short_media")
async def downloads_break_off(client: Client) -> None:
    url = await client.result()
    whole = (await client.http.get(url)).content
    for name, parameters, error, expected in (
        ("reset_download", {"after": 5000}, httpx.ReadError, None),
        ("reset_download", {"after": 5000, "how": "close"}, httpx.RemoteProtocolError, 5000),
        ("short_media", {"missing": 7}, httpx.RemoteProtocolError, len(whole) - 7),
    ):
        await client.fault(name, **parameters)
        got = bytearray()
        with pytest.raises(error):
            await download(client, url, got)
        assert whole.startswith(got)
        assert expected in (None, len(got))


@TRIES.of("cut_media", "empty_media", "html_media", "corrupt_media")
async def files_are_not_what_they_say(client: Client) -> None:
    url = await client.result()
    whole = (await client.http.get(url)).content
    got: dict[str, bytes] = {}
    for name in ("cut_media", "empty_media", "html_media", "corrupt_media"):
        await client.fault(name)
        answer = await client.http.get(url)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "video/mp4")
        got[name] = answer.content
    assert got["cut_media"] == whole[:-1000]
    assert got["empty_media"] == b""
    assert got["html_media"].startswith(b"<html>")
    assert len(got["corrupt_media"]) == len(whole)
    assert got["corrupt_media"][4:8] != b"ftyp"


@TRIES.of("ignore_range", "wrong_range")
async def ranges_are_misunderstood(client: Client) -> None:
    url = await client.result()
    whole = (await client.http.get(url)).content
    await client.fault("ignore_range")
    await client.fault("wrong_range", shift=3)
    assert (await client.http.get(url)).content == whole  # neither strikes a request without a range
    headers = {"Range": "bytes=1000-"}
    ignored, wrong = [await client.http.get(url, headers=headers) for _ in range(2)]
    assert (ignored.status_code, ignored.content) == (200, whole)
    assert (wrong.status_code, wrong.content) == (206, whole[1003:])
    assert wrong.headers["Content-Range"] == f"bytes 1003-{len(whole) - 1}/{len(whole)}"


@TRIES.of("changed_etag")
async def changed_etag_is_another_file_from_now_on(client: Client) -> None:
    url = await client.result()
    before = await client.http.get(url)
    await client.fault("changed_etag")
    headers = {"Range": "bytes=1000-", "If-Range": before.headers["ETag"]}
    after = await client.http.get(url, headers=headers)
    assert after.status_code == 200
    assert after.headers["ETag"] != before.headers["ETag"]
    assert after.content != before.content
    assert (await client.http.get(url)).content == after.content


@TRIES.of("slow_download", timed=True)
async def slow_download_takes_its_time(client: Client) -> None:
    url = await client.result()
    await client.fault("slow_download", seconds=60)
    started = time.monotonic()
    slow = (await client.http.get(url)).content
    assert time.monotonic() - started > 0.2
    assert slow == (await client.http.get(url)).content


@TRIES.of("long_media")
async def long_media_goes_on_behind_its_announced_end(client: Client) -> None:
    url = await client.result()
    whole = (await client.http.get(url)).content
    await client.fault("long_media", extra=9)
    head, sent = await raw(url)
    assert f"Content-Length: {len(whole) - 9}\r\n".encode() in head
    assert sent == whole
    await client.fault("long_media", extra=9)
    assert (await client.http.get(url)).content == whole[:-9]


@TRIES.of("endless")
async def endless_begins_as_the_file_and_never_ends(client: Client) -> None:
    url = await client.result()
    whole = (await client.http.get(url)).content
    await client.fault("endless")
    got = bytearray()
    async with client.http.stream("GET", url) as answer:
        assert "Content-Length" not in answer.headers
        async for piece in answer.aiter_raw():
            got += piece
            if len(got) > len(whole) + 3_000_000:
                break
    assert got.startswith(whole)


@TRIES.of("loop")
async def loop_sends_round_in_a_circle(client: Client) -> None:
    url = await client.result()
    await client.fault("loop")
    seen: list[str] = []
    for _ in range(4):
        answer = await client.http.get(url)
        assert answer.status_code == 302
        url = str(answer.url.join(answer.headers["Location"]))
        seen.append(url)
    assert seen[0] == seen[2]
    assert seen[1] == seen[3] != seen[0]
    assert client.sandbox.observed()["violations"] == []


@TRIES.of("wrong_type", "evil_name")
async def heads_lie_about_the_right_file(client: Client) -> None:
    url = await client.result()
    whole = await client.http.get(url)
    await client.fault("wrong_type")
    await client.fault("wrong_type", type="application/json")
    await client.fault("evil_name")
    answers = [await client.http.get(url) for _ in range(3)]
    assert all(answer.content == whole.content for answer in answers)
    types = [answer.headers["Content-Type"] for answer in (*answers, whole)]
    assert types == ["text/html", "application/json", "video/mp4", "video/mp4"]
    name = answers[2].headers["Content-Disposition"]
    assert 'filename="../../.ssh/x"' in name
    assert "filename*=UTF-8''..%2F..%2F.ssh%2Fx" in name


async def test_an_unusual_way_of_a_download_changes_no_byte() -> None:
    async with client_of("happyhorse", speed=200) as client:
        url = await client.result()
        whole = (await client.http.get(url)).content
        for name in ("latency", "one_byte_segments", "early_hints"):
            await client.fault(name, when="download")
            assert (await client.http.get(url)).content == whole
        await client.fault("one_byte_segments", when="download")
        part = await client.http.get(url, headers={"Range": "bytes=9-"})
        assert (part.status_code, part.content) == (206, whole[9:])
        await client.fault("closes_idle", when="download")
        assert (await client.http.get(url)).content == whole
        with pytest.raises(httpx.RemoteProtocolError):
            await client.http.get(url)
        await client.fault("many_headers", when="download")
        head, _ = await raw(url)
        assert head.count(b"X-Filling") == 10_000


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_wire_of_a_download_breaks_too(provider: str) -> None:
    async with client_of(provider) as client:
        await broken_wires(client)


async def broken_wires(client: Client) -> None:
    url = await client.result()
    await client.fault("lost_request", when="download")
    with pytest.raises(httpx.RemoteProtocolError):
        await client.http.get(url)
    await client.fault("hang", when="download")
    with pytest.raises(httpx.ReadTimeout):
        await client.http.get(url, timeout=0.2)
    for name, status in (("redirect", 303), ("unavailable", 503), ("rate_limited", 429)):
        await client.fault(name, when="download")
        assert (await client.http.get(url)).status_code == status


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", sorted(name for name, kind in CATALOGUE.items() if kind.where == "file"))
async def test_fault(name: str, provider: str) -> None:
    await TRIES.run(name, provider)


async def raw(url: str) -> tuple[bytes, bytes]:
    """Head and body of a download, up to the very end of the connection."""
    place = httpx.URL(url)
    reader, writer = await asyncio.open_connection(place.host, place.port)
    writer.write(b"GET " + place.raw_path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    return head, body


async def download(client: Client, url: str, got: bytearray) -> None:
    """What came stays in `got`, also when it breaks off."""
    async with client.http.stream("GET", url) as answer:
        async for piece in answer.aiter_raw():
            got += piece
