"""Results are whole, playable, unique, and served as a careful host serves them; credentials are not welcome there."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_client import KEY, Client, client_of

from runner.sandbox.mediahost import asked_for
from runner.sandbox.renders import MEDIA_TYPES, SOURCES, render
from runner.sandbox.signing import Signer

SIZES = (64_000, 300_000)


def mark_of(found: dict[str, Any]) -> tuple[str, int]:
    return found["task_id"], found["index"]


def mp4_mark(data: bytes) -> tuple[str, int]:
    """Walks every box to the last byte; the sample offsets must point into mdat."""
    boxes: list[tuple[bytes, int, int]] = []
    at = 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        assert 8 <= size <= len(data) - at
        boxes.append((name, at, size))
        at += size
    assert [name for name, _, _ in boxes] == [b"ftyp", b"moov", b"free", b"mdat", b"free", b"free"]
    _, start, size = boxes[3]
    table = data.index(b"stco")
    (first,) = struct.unpack_from(">I", data, table + 12)
    assert start + 8 <= first < start + size
    _, start, size = boxes[4]
    return mark_of(json.loads(data[start + 8 : start + size]))


def png_mark(data: bytes) -> tuple[str, int]:
    """Walks every chunk and checks every checksum; the picture itself must inflate."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(name + content),)
        chunks.append((name, content))
        at += 12 + length
    names = [name for name, _ in chunks]
    assert (names[:2], names[-2:]) == ([b"IHDR", b"tEXt"], [b"spAd", b"IEND"])
    assert len(zlib.decompress(b"".join(content for name, content in chunks if name == b"IDAT"))) > 1000
    return mark_of(json.loads(dict(chunks)[b"tEXt"].removeprefix(b"sandbox\0")))


def jpeg_mark(data: bytes) -> tuple[str, int]:
    """Walks the segments up to the scan; the first comment is the mark."""
    assert (data[:2], data[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    at, segments = 2, []
    while data[at + 1] != 0xDA:
        assert data[at] == 0xFF
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    assert {0xE0, 0xDB, 0xC0, 0xC4} & {kind for kind, _ in segments} >= {0xE0, 0xDB}
    return mark_of(json.loads(next(content for kind, content in segments if kind == 0xFE)))


def webp_mark(data: bytes) -> tuple[str, int]:
    """Walks the chunks of the RIFF to its announced end."""
    riff, size, form = struct.unpack_from("<4sI4s", data)
    assert (riff, size, form) == (b"RIFF", len(data) - 8, b"WEBP")
    at, chunks = 12, {}
    while at < len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        chunks[name] = data[at + 8 : at + 8 + length]
        assert len(chunks[name]) == length
        at += 8 + length + length % 2
    assert list(chunks) == [b"VP8X", b"VP8 ", b"SAND", b"PADD"]
    return mark_of(json.loads(chunks[b"SAND"]))


READ_MARK = {"mp4": mp4_mark, "png": png_mark, "jpg": jpeg_mark, "webp": webp_mark}


@pytest.mark.parametrize("extension", sorted(SOURCES))
@given(length=st.integers(0, 200_000), index=st.integers(0, 9), name=st.text("abcdef0123456789_", min_size=1))
def test_every_result_is_a_whole_file_that_names_its_task(extension: str, length: int, index: int, name: str) -> None:
    file = render(name, index, extension, (length, length))
    data = file.read(0, file.length)
    assert len(data) == file.length
    assert READ_MARK[extension](data) == (name, index)
    if length > 10_000:
        assert length - 4 <= file.length <= length


@given(
    start=st.integers(0, 320_000),
    size=st.integers(0, 320_000),
    extension=st.sampled_from(sorted(SOURCES)),
)
def test_any_piece_is_a_piece_of_the_whole(start: int, size: int, extension: str) -> None:
    file = render("task", 0, extension, SIZES)
    whole = file.read(0, file.length)
    assert file.read(start, size) == whole[start : start + size]


def test_results_differ_and_come_again() -> None:
    files = {
        (task, index): render(task, index, extension, SIZES)
        for task in "ab"
        for index, extension in enumerate(sorted(SOURCES))
    }
    assert len({file.etag for file in files.values()}) == 8
    assert len({file.length for file in files.values()}) == 8
    assert all(SIZES[0] - 4 <= file.length <= SIZES[1] for file in files.values())
    again = render("a", 0, sorted(SOURCES)[0], SIZES)
    assert (again.etag, again.read(0, 10**6)) == (files["a", 0].etag, files["a", 0].read(0, 10**6))


# -- HTTP ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_range", "first", "last"),
    [("bytes=0-", 0, 999), ("bytes=10-19", 10, 19), ("bytes=990-2000", 990, 999), ("bytes=-5", 995, 999)],
)
def test_ranges(given_range: str, first: int, last: int) -> None:
    sent = asked_for(given_range, None, '"tag"', 1000)
    assert (sent.status, sent.start, sent.size) == (206, first, last - first + 1)
    assert sent.content_range == {"Content-Range": f"bytes {first}-{last}/1000"}


@pytest.mark.parametrize("given_range", ["bytes=1000-", "bytes=-0"])
def test_ranges_beyond_the_end(given_range: str) -> None:
    sent = asked_for(given_range, None, '"tag"', 1000)
    assert (sent.status, sent.content_range) == (416, {"Content-Range": "bytes */1000"})


@pytest.mark.parametrize("given_range", [None, "", "bytes=5-1", "bytes=1-2,4-5", "lines=1-2", "bytes=-", "bytes=x-"])
def test_what_is_no_range_is_ignored(given_range: str | None) -> None:
    assert asked_for(given_range, None, '"tag"', 1000).status == 200


@pytest.mark.parametrize(
    ("if_range", "status"),
    [('"tag"', 206), ('W/"tag"', 200), ('"other"', 200), ("Sat, 21 Nov 2026 00:00:00 GMT", 200)],
)
def test_a_range_holds_only_for_the_same_strong_tag(if_range: str, status: int) -> None:
    assert asked_for("bytes=5-", if_range, '"tag"', 1000).status == status


async def test_a_result_is_served_with_everything_a_resume_needs() -> None:
    async with client_of("seedance2ai") as client:
        task = await client.ordered()
        url = (await client.finish(task))["output"]["video_url"]
        whole = await client.http.get(url)
        assert (whole.status_code, whole.headers["Content-Type"]) == (200, MEDIA_TYPES["mp4"])
        assert whole.headers["Accept-Ranges"] == "bytes"
        assert int(whole.headers["Content-Length"]) == len(whole.content)
        assert mp4_mark(whole.content) == (task, 0)
        headers = {"Range": "bytes=60000-", "If-Range": whole.headers["ETag"]}
        rest = await client.http.get(url, headers=headers)
        assert (rest.status_code, rest.content) == (206, whole.content[60000:])
        head = await client.http.head(url)
        assert (head.headers["Content-Length"], head.headers["ETag"]) == (
            whole.headers["Content-Length"],
            whole.headers["ETag"],
        )
        assert (await client.http.get(url, headers={"Range": "bytes=9999999-"})).status_code == 416


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
async def test_images_come_in_the_format_asked_for(extension: str) -> None:
    async with client_of("happyhorse") as client:
        order = {"prompt": "a cat", "output_format": extension}
        task = await client.ordered(order, path="/api/v1/generate-image")
        answer = await client.http.get((await client.finish(task))["image_url"])
        assert answer.headers["Content-Type"] == MEDIA_TYPES[extension]
        assert READ_MARK[extension](answer.content) == (task, 0)


async def test_results_are_as_long_as_ordered_also_when_that_is_long() -> None:
    async with client_of("seedance2ai", media_bytes=(50_000_000, 50_000_000)) as client:
        url = await client.result()
        tail = await client.http.get(url, headers={"Range": "bytes=49999990-"})
        assert (len(tail.content), tail.headers["Content-Range"]) == (10, "bytes 49999990-49999999/50000000")
        assert len((await client.http.get(url)).content) == 50_000_000


async def test_an_address_expires_and_the_task_gives_a_fresh_one() -> None:
    async with client_of("happyhorse", url_lifetime=100) as client:
        task = await client.ordered()
        url = (await client.finish(task))["video_url"]
        assert (await client.http.get(url)).status_code == 200
        client.sandbox.clock.leap(110)
        refused = await client.http.get(url)
        assert (refused.status_code, "RequestHasExpired" in refused.text) == (403, True)
        fresh = (await client.status(task))["video_url"]
        assert fresh != url
        assert (await client.http.get(fresh)).status_code == 200


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [("sig=", "sig=0", 403), ("expires=", "expires=9", 403), ("/0.mp4", "/1.mp4", 403), ("?", "#", 403)],
)
async def test_a_changed_address_is_refused(old: str, new: str, status: int) -> None:
    async with client_of("seedance2ai") as client:
        url = await client.result()
        assert (await client.http.get(url.replace(old, new, 1))).status_code == status


def test_a_signature_is_of_path_and_time() -> None:
    signer = Signer("http://127.0.0.1:1", b"secret", 60.0)
    url = httpx.URL(signer.url("/media/a", 100.0))
    assert signer.problem("/media/a", url.params, 160.0) is None
    assert signer.problem("/media/a", url.params, 161.0) == "RequestHasExpired"
    assert signer.problem("/media/b", url.params, 100.0) == "SignatureDoesNotMatch"
    assert signer.problem("/media/a", {}, 100.0) == "SignatureMissing"


@pytest.mark.parametrize(
    ("headers", "where"),
    [
        ({"Authorization": f"Bearer {KEY}"}, "Authorization"),
        ({"Idempotency-Key": "order-1"}, "Idempotency-Key"),
        ({"X-Whatever": f"key {KEY}"}, "x-whatever"),
    ],
)
async def test_credentials_on_the_media_origin_are_leaks(headers: dict[str, str], where: str) -> None:
    async with client_of("seedance2ai") as client:
        await client.http.get(await client.result(), headers=headers)
        assert await leaks(client) == [f"credential_on_media {where.lower()}"]
        assert KEY not in json.dumps(client.sandbox.observed())


async def test_a_key_in_a_media_address_is_a_leak_and_a_clean_request_is_none() -> None:
    async with client_of("seedance2ai") as client:
        url = await client.result()
        await client.http.get(url)
        assert await leaks(client) == []
        await client.http.get(f"{url}&k={KEY}")
        assert await leaks(client) == ["credential_on_media url"]


async def test_whoever_follows_a_redirect_is_seen() -> None:
    async with client_of("seedance2ai") as client:
        await client.fault("redirect", status=307)
        await client.ask("POST", "/api/v1/video/seedance", json={"prompt": "a cat"}, follow_redirects=True)
        (violation,) = client.sandbox.observed()["violations"]
        assert violation["name"] == "followed_redirect"
        assert violation["detail"].startswith("POST /elsewhere/seedance2ai/")


async def leaks(client: Client) -> list[str]:
    found = (await client.control("observed"))["leaks"]
    return [f"{leak['name']} {leak['detail'].rpartition(' ')[2].lower()}" for leak in found]
