"""Each fault of a download does what its name says, and the file is whole again for whoever comes back."""

from __future__ import annotations

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


async def download(client: Client, url: str, got: bytearray) -> None:
    """What came stays in `got`, also when it breaks off."""
    async with client.http.stream("GET", url) as answer:
        async for piece in answer.aiter_raw():
            got += piece
