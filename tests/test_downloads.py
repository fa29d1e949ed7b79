"""Outputs coming in, over real sockets and onto a real disk: faults F73–F91 of reliability.md, and kills anywhere."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import stat
import sys
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import md5, sha256, sha512
from pathlib import Path
from typing import Any

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st
from wire import Asked, Line, Wire, served

from runner import failpoints, files
from runner.client.fetching import Fetcher
from runner.clock import Clock
from runner.downloads import (
    DiskTrouble,
    FreshUrl,
    Later,
    Obstacle,
    Outcome,
    Published,
    Refused,
    Wanted,
    fetch,
    fetch_output,
    sidecar,
)
from runner.downloads.answers import Body, Restart, Whole, meaning
from runner.downloads.checksums import Sums, offered
from runner.media import Kind

BIG = samples.mp4(3_000_000)
FACTS = {"task_id": "task-1", "output": 0, "prompt": "a café at night", "credits": {"charged": "7.5"}}
CANARY = "s1gn4tur3"

Act = Callable[["Store", Asked, Line], Awaitable[None]]


@dataclass
class Store:
    """What the provider's file host has: one file, and what to do instead of serving it, request by request."""

    content: bytes = BIG
    etag: str | None = '"v1"'
    headers: dict[str, str] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    wire: Wire = field(default_factory=lambda: Wire(0))
    sent: int = 0

    @property
    def url(self) -> str:
        return self.wire.url(f"/out.mp4?X-Signature={CANARY}")

    async def handle(self, asked: Asked, line: Line) -> None:
        act = self.acts.pop(0) if self.acts else serve
        await act(self, asked, line)

    def start_of(self, asked: Asked) -> int:
        """Where the answer begins: 0 for the whole file."""
        place = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
        fits = asked.headers.get("if-range") in (self.etag, self.headers.get("Last-Modified"))
        return int(place[1]) if place and fits else 0

    async def head(self, line: Line, start: int = 0, **changed: str | int | None) -> None:
        fields: dict[str, str | int | None] = {"content_type": "video/mp4", **self.headers, "etag": self.etag}
        if start:
            fields["content_range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        fields |= {"content_length": len(self.content) - start, **changed}
        await line.answer(206 if start else 200, b"", **fields)

    async def body(self, line: Line, piece: bytes) -> None:
        self.sent += len(piece)
        await line.send(piece)


async def serve(store: Store, asked: Asked, line: Line) -> None:
    start = store.start_of(asked)
    await store.head(line, start)
    await store.body(line, store.content[start:])


def cut(after: int, how: str = "close") -> Act:
    """Promises the file and breaks off after so many bytes of the body."""

    async def act(store: Store, asked: Asked, line: Line) -> None:
        start = store.start_of(asked)
        await store.head(line, start)
        await store.body(line, store.content[start : start + after])
        if how == "reset":
            await asyncio.sleep(0.05)  # A reset overtakes what the client has not read yet.
            line.reset()

    return act


def says(status: int, body: bytes = b"", **headers: str | int | None) -> Act:
    async def act(_: Store, __: Asked, line: Line) -> None:
        await line.answer(status, body, **headers)

    return act


@asynccontextmanager
async def store_of(*acts: Act, **fields: Any) -> AsyncIterator[Store]:
    store = Store(acts=list(acts), **fields)
    async with served(store.handle) as store.wire:
        yield store


def wanted(store: Store, root: Path, path: str = "night/clip.mp4", **fields: Any) -> Wanted:
    return Wanted(store.url, root, path, "task-1", **{"facts": FACTS, **fields})


async def once(want: Wanted, **fetcher: Any) -> Outcome:
    async with Fetcher(allow_private=True, **{"connect": 5, "idle": 5, **fetcher}) as client:
        return await fetch_output(client, Clock(), want)


async def until(true: Callable[[], bool]) -> None:
    """For what only the file system tells of."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def soon(want: Wanted) -> Outcome:
    """After a cancelled try: its thread may need a moment to let go of the part."""
    outcome: Outcome = Later("")
    async with asyncio.timeout(10):
        while isinstance(outcome, Later):
            await asyncio.sleep(0.02)
            outcome = await once(want)
    return outcome


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def assert_published(outcome: Outcome, root: Path, content: bytes = BIG, name: str = "night/clip.mp4") -> Published:
    assert isinstance(outcome, Published), outcome
    assert outcome.path == root / name
    assert outcome.path.read_bytes() == content
    assert (outcome.bytes, outcome.sha256) == (len(content), sha256(content).hexdigest())
    assert names(root) == [name, f"{name}.json"]
    assert json.loads((root / f"{name}.json").read_text())["sha256"] == outcome.sha256
    return outcome


# --- the plain way


async def test_a_file_is_published_with_its_sidecar_and_nothing_else(tmp_path: Path) -> None:
    async with store_of() as store:
        found = assert_published(await once(wanted(store, tmp_path)), tmp_path)
    assert (found.media_type, found.extension, found.adopted) == ("video/mp4", "mp4", False)
    said = json.loads((tmp_path / "night/clip.mp4.json").read_text())
    assert said == {**FACTS, "bytes": len(BIG), "sha256": found.sha256, "media_type": "video/mp4"}
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(found.path.parent.stat().st_mode) == 0o700
    assert found.path.stat().st_nlink == 1


async def test_without_facts_there_is_no_sidecar(tmp_path: Path) -> None:
    async with store_of() as store:
        assert isinstance(await once(wanted(store, tmp_path, facts=None)), Published)
    assert names(tmp_path) == ["night/clip.mp4"]


@pytest.mark.parametrize("sample", samples.SAMPLES)
async def test_every_type_is_published_under_its_own_extension(sample: str, tmp_path: Path) -> None:
    extension, make = samples.SAMPLES[sample]
    async with store_of(content=make()) as store:
        outcome = await once(wanted(store, tmp_path, "pic.bin.heic"))
    assert_published(outcome, tmp_path, make(), f"pic.bin.heic.{extension}")


@pytest.mark.parametrize(
    ("asked_for", "content", "published"),
    [
        ("a/b.png", samples.jpeg(), "a/b.jpg"),
        ("a/b.jpeg", samples.jpeg(), "a/b.jpeg"),
        ("a/b.JPG", samples.jpeg(), "a/b.JPG"),
        ("b", samples.png(), "b.png"),
        ("v1.5", samples.png(), "v1.5.png"),
        (".mp4", samples.mp4(), ".mp4.mp4"),
    ],
)
async def test_the_extension_follows_the_bytes(asked_for: str, content: bytes, published: str, tmp_path: Path) -> None:
    async with store_of(content=content) as store:
        assert_published(await once(wanted(store, tmp_path, asked_for)), tmp_path, content, published)


async def test_T11_F85_what_the_server_calls_the_file_does_not_matter(tmp_path: Path) -> None:
    """F85."""
    headers = {"Content-Disposition": 'attachment; filename="../../.ssh/authorized_keys"', "Content-Type": "text/html"}
    async with store_of(headers=headers) as store:
        assert_published(await once(wanted(store, tmp_path / "root")), tmp_path / "root")
    assert names(tmp_path) == ["root/night/clip.mp4", "root/night/clip.mp4.json"]


async def test_a_body_without_a_length_is_taken_if_the_container_is_whole(tmp_path: Path) -> None:
    async def unframed(store: Store, _: Asked, line: Line) -> None:
        await store.head(line, content_length=None)
        await store.body(line, store.content)

    async def unframed_and_cut(store: Store, _: Asked, line: Line) -> None:
        await store.head(line, content_length=None)
        await store.body(line, store.content[:-1])

    async with store_of(unframed_and_cut, unframed) as store:
        outcome = await once(wanted(store, tmp_path))
        assert isinstance(outcome, FreshUrl)
        assert "not whole" in outcome.why
        assert names(tmp_path) == []
        assert_published(await once(wanted(store, tmp_path)), tmp_path)


# --- cut short, and gone on with


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_after_a_cut_only_the_missing_bytes_travel(how: str, tmp_path: Path) -> None:
    async with store_of(cut(1_000_000, how), cut(500_000, how)) as store:
        first = await once(wanted(store, tmp_path))
        assert isinstance(first, Later)
        assert first.received == 1_000_000
        second = await once(wanted(store, tmp_path))
        assert isinstance(second, Later)
        assert second.received == 500_000
        assert_published(await once(wanted(store, tmp_path)), tmp_path)
        assert store.sent == len(BIG)
    assert [asked.headers.get("range") for asked in store.wire.asked] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert [asked.headers.get("if-range") for asked in store.wire.asked] == [None, '"v1"', '"v1"']


async def test_a_fresh_url_goes_on_where_the_old_one_stopped(tmp_path: Path) -> None:
    """F73, expired in the middle of the file."""
    async with store_of(cut(1_000_000), says(403, b"<Error>expired</Error>")) as store:
        assert isinstance(await once(wanted(store, tmp_path)), Later)
        assert await once(wanted(store, tmp_path)) == FreshUrl("HTTP 403", 403)
        fresh = replace(wanted(store, tmp_path), url=store.wire.url("/elsewhere.mp4?X-Signature=fresh"))
        assert_published(await once(fresh), tmp_path)
        assert store.sent == len(BIG)


async def test_a_file_that_is_all_there_needs_no_request(tmp_path: Path) -> None:
    """Killed between the last byte and the publication, by a disk that was full."""
    async with store_of() as store:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("runner.downloads.parts.flush", _full)
            assert isinstance(await once(wanted(store, tmp_path)), DiskTrouble)
        assert_published(await once(wanted(store, tmp_path)), tmp_path)
        assert len(store.wire.asked) == 1


@pytest.mark.parametrize("etag", ['W/"v1"', None, "unquoted", '""', '"é"'])
async def test_without_a_strong_validator_it_begins_again(etag: str | None, tmp_path: Path) -> None:
    async with store_of(cut(1_000_000), etag=etag) as store:
        assert isinstance(await once(wanted(store, tmp_path)), Later)
        assert_published(await once(wanted(store, tmp_path)), tmp_path)
        assert "range" not in store.wire.asked[1].headers


async def test_a_date_is_a_validator_only_when_it_is_old(tmp_path: Path) -> None:
    old = {"Last-Modified": "Fri, 20 Nov 2026 10:00:00 GMT", "Date": "Fri, 20 Nov 2026 12:00:00 GMT"}
    async with store_of(cut(1_000_000), etag=None, headers=old) as store:
        assert isinstance(await once(wanted(store, tmp_path / "a")), Later)
        assert_published(await once(wanted(store, tmp_path / "a")), tmp_path / "a")
        assert store.wire.asked[1].headers["if-range"] == old["Last-Modified"]
    async with store_of(cut(1_000_000), etag=None, headers={**old, "Date": old["Last-Modified"]}) as store:
        assert isinstance(await once(wanted(store, tmp_path / "b")), Later)
        assert_published(await once(wanted(store, tmp_path / "b")), tmp_path / "b")
        assert "if-range" not in store.wire.asked[1].headers


async def test_nothing_is_kept_where_resuming_is_not_wanted(tmp_path: Path) -> None:
    async with store_of(cut(1_000_000)) as store:
        assert isinstance(await once(wanted(store, tmp_path)), Later)
        assert_published(await once(wanted(store, tmp_path, resume=False)), tmp_path)
        assert "range" not in store.wire.asked[1].headers


async def test_the_whole_file_in_reply_to_a_range_starts_anew(tmp_path: Path) -> None:
    """F74."""

    async def ignoring(store: Store, _: Asked, line: Line) -> None:
        await store.head(line)
        await store.body(line, store.content)

    async with store_of(cut(1_000_000), ignoring) as store:
        await once(wanted(store, tmp_path))
        assert_published(await once(wanted(store, tmp_path)), tmp_path)
        assert len(store.wire.asked) == 2


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 1000001-{last}/{total}",
        "bytes 0-{last}/{total}",
        "bytes 1000000-{last}/{more}",
        "bytes 1000000-{last}/*",
        "bytes */{total}",
        "nonsense",
        None,
    ],
)
async def test_another_range_than_was_asked_for_starts_anew(content_range: str | None, tmp_path: Path) -> None:
    """F75."""
    total = len(BIG)
    place = content_range and content_range.format(last=total - 1, total=total, more=total + 1)

    async def wrong(store: Store, _: Asked, line: Line) -> None:
        await store.head(line, 1_000_000, content_range=place)
        await store.body(line, store.content[1_000_001:])

    async with store_of(cut(1_000_000), wrong) as store:
        await once(wanted(store, tmp_path))
        assert_published(await once(wanted(store, tmp_path)), tmp_path)
        assert [("range" in asked.headers) for asked in store.wire.asked] == [False, True, False]


async def test_a_changed_file_starts_anew(tmp_path: Path) -> None:
    """F77: the server says so by sending the whole, or a rude one by another tag."""
    other = samples.mp4(2_000_000, b"mp42")
    async with store_of(cut(1_000_000)) as store:
        await once(wanted(store, tmp_path / "a"))
        store.content, store.etag = other, '"v2"'
        assert_published(await once(wanted(store, tmp_path / "a")), tmp_path / "a", other)

    async def rude(store: Store, _: Asked, line: Line) -> None:
        store.etag = '"v2"'
        await store.head(line, 1_000_000)
        await store.body(line, store.content[1_000_000:])

    async with store_of(cut(1_000_000), rude) as store:
        await once(wanted(store, tmp_path / "b"))
        assert_published(await once(wanted(store, tmp_path / "b")), tmp_path / "b")
        assert len(store.wire.asked) == 3


async def test_a_range_beyond_the_end_starts_anew(tmp_path: Path) -> None:
    async with store_of(cut(1_000_000), says(416), says(416)) as store:
        await once(wanted(store, tmp_path))
        assert isinstance(await once(wanted(store, tmp_path)), Later)  # 416 to a plain question too
        assert_published(await once(wanted(store, tmp_path)), tmp_path)


async def test_a_server_that_gives_less_than_the_rest_is_asked_on(tmp_path: Path) -> None:
    async def in_parts(store: Store, asked: Asked, line: Line) -> None:
        start = store.start_of(asked)
        end = min(start + 700_000, len(store.content))
        place = f"bytes {start}-{end - 1}/{len(store.content)}"
        await store.head(line, start, content_range=place, content_length=end - start)
        await store.body(line, store.content[start:end])

    async with store_of(cut(1_000_000), in_parts, in_parts) as store:
        await once(wanted(store, tmp_path))
        for _ in range(2):
            outcome = await once(wanted(store, tmp_path))
            assert isinstance(outcome, Later)
            assert outcome.received == 700_000
        assert_published(await once(wanted(store, tmp_path)), tmp_path)
        assert store.sent == len(BIG)


async def test_another_host_does_not_go_on_with_the_file_of_the_first(tmp_path: Path) -> None:
    async with store_of(cut(1_000_000)) as store:
        await once(wanted(store, tmp_path))
        moved = replace(wanted(store, tmp_path), url=store.url.replace("127.0.0.1", "localhost"))
        assert_published(await once(moved), tmp_path)
        assert [("range" in asked.headers) for asked in store.wire.asked] == [False, True, False]


async def test_a_part_that_is_longer_than_the_file_is_thrown_away(tmp_path: Path) -> None:
    async with store_of(cut(1_000_000)) as store:
        await once(wanted(store, tmp_path))
        [part] = (tmp_path / "night").glob(".*.part")
        with part.open("ab") as file:
            file.write(bytes(len(BIG)))
        assert_published(await once(wanted(store, tmp_path)), tmp_path)


ODD_NOTE = json.dumps({"host": "127.0.0.1", "total": len(BIG), "validator": '"v1"', "digests": {"sha256": 1}}).encode()
NOT_ASCII = json.dumps({"host": "127.0.0.1", "total": len(BIG), "validator": '"é"', "digests": {}}).encode()
DEEP = b"[" * 60_000  # what Python's reader of JSON gives up, and not with a ValueError


@pytest.mark.parametrize(
    "note",
    [b"", b"{", b"[]", b"{}", b'{"host": 1, "total": "x"}', b"\xff" * 100, ODD_NOTE, NOT_ASCII, DEEP, bytes(1 << 17)],
)
async def test_a_note_that_makes_no_sense_is_no_note(note: bytes, tmp_path: Path) -> None:
    async with store_of(cut(1_000_000)) as store:
        await once(wanted(store, tmp_path))
        [path] = (tmp_path / "night").glob(".*.part.json")
        path.write_bytes(note)
        assert_published(await once(wanted(store, tmp_path)), tmp_path)


@pytest.mark.parametrize("length", [1_000_000, len(BIG)])
async def test_what_a_loss_of_power_may_have_emptied_is_not_gone_on_with(length: int, tmp_path: Path) -> None:
    """The length of a file may be on the disk before its bytes are."""
    async with store_of(cut(length - 1)) as store:
        await once(wanted(store, tmp_path))
        [part] = (tmp_path / "night").glob(".*.part")
        part.write_bytes(BIG[:500_000] + bytes(length - 500_000))
        note = part.with_name(f"{part.name}.json")
        note.write_text(json.dumps({**json.loads(note.read_text()), "boot": "an earlier one"}))
        assert_published(await once(wanted(store, tmp_path)), tmp_path)
        assert "range" not in store.wire.asked[-1].headers


# --- what cannot be used


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204, 206])
async def test_an_expired_url_asks_for_a_fresh_one(status: int, tmp_path: Path) -> None:
    async with store_of(says(status, content_length=0)) as store:
        outcome = await once(wanted(store, tmp_path))
    assert isinstance(outcome, Later if status == 206 else FreshUrl)
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [302, 304, 408, 425, 429, 500, 502, 503, 504])
async def test_a_server_in_trouble_is_asked_later(status: int, tmp_path: Path) -> None:
    async with store_of(says(status, retry_after=7)) as store:
        assert await once(wanted(store, tmp_path)) == Later(f"HTTP {status}", wait=7.0)


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [
        ("5", 5), ("Fri, 20 Nov 2026 12:01:30 GMT", 90), ("x", None), ("1" * 40, 3600), ("-1", None), ("", None),
        ("Fri, 20 Nov 99999999999 12:01:30 GMT", None),
    ],
)  # fmt: skip
async def test_how_long_to_wait(retry_after: str, wait: float | None, tmp_path: Path) -> None:
    """F27."""
    answer = says(503, retry_after=retry_after, date="Fri, 20 Nov 2026 12:00:00 GMT")
    async with store_of(answer) as store:
        assert await once(wanted(store, tmp_path)) == Later("HTTP 503", wait=wait)


@pytest.mark.parametrize(
    "body",
    [
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        b'{"error": "gone"}',
        b"",
        b"\x89PNG",
        bytes(1000),
        b"#EXTM3U\nfile:///etc/passwd\n",
    ],
)
async def test_T21_F80_F81_what_is_no_media_is_never_published(body: bytes, tmp_path: Path) -> None:
    async with store_of(says(200, body, content_type="video/mp4", etag='"v0"')) as store:
        assert isinstance(await once(wanted(store, tmp_path)), FreshUrl)
        assert names(tmp_path) == []
        assert_published(await once(wanted(store, tmp_path)), tmp_path)


@pytest.mark.parametrize("missing", [1, 7, 1000, len(BIG) // 2])
async def test_a_length_that_is_too_short_is_not_believed(missing: int, tmp_path: Path) -> None:
    """F79: the server says less than the file has, and sends as much as it says."""

    async def short(store: Store, _: Asked, line: Line) -> None:
        await store.head(line, content_length=len(store.content) - missing)
        await store.body(line, store.content)

    async with store_of(short) as store:
        outcome = await once(wanted(store, tmp_path))
        assert isinstance(outcome, FreshUrl)
        assert names(tmp_path) == []


async def test_a_length_that_is_too_long_is_not_published(tmp_path: Path) -> None:
    """F79, the other way round."""

    async def long(store: Store, _: Asked, line: Line) -> None:
        await store.head(line, content_length=len(store.content) + 1)
        await store.body(line, store.content)

    async with store_of(long) as store:
        assert isinstance(await once(wanted(store, tmp_path)), Later)
        assert not (tmp_path / "night/clip.mp4").exists()


def digests(content: bytes) -> list[dict[str, str]]:
    def base(digest: bytes) -> str:
        return b64encode(digest).decode()

    weak = base(md5(content, usedforsecurity=False).digest())
    return [
        {"Content-MD5": weak},
        {"Repr-Digest": f"sha-256=:{base(sha256(content).digest())}:"},
        {"Content-Digest": f"sha-512=:{base(sha512(content).digest())}:"},
        {"Digest": f"SHA-256={base(sha256(content).digest())},MD5={weak}"},
        {"X-Goog-Hash": f"crc32c=AAAAAA==, md5={weak}"},
        {"X-Amz-Checksum-Sha256": base(sha256(content).digest())},
    ]


@pytest.mark.parametrize("headers", digests(BIG), ids=lambda headers: next(iter(headers)))
async def test_flipped_bytes_are_noticed_where_the_server_offers_a_checksum(
    headers: dict[str, str], tmp_path: Path
) -> None:
    """F82: a byte deep in the media data, where the container stays whole."""
    flipped = bytearray(BIG)
    flipped[2_000_000] ^= 1

    async def corrupt(store: Store, _: Asked, line: Line) -> None:
        await store.head(line)
        await store.body(line, bytes(flipped))

    async with store_of(corrupt, headers=headers) as store:
        outcome = await once(wanted(store, tmp_path))
        assert isinstance(outcome, FreshUrl)
        assert names(tmp_path) == []
        assert_published(await once(wanted(store, tmp_path)), tmp_path)


async def test_a_checksum_of_the_whole_file_holds_across_a_resume(tmp_path: Path) -> None:
    async with store_of(cut(1_000_000), headers=digests(BIG)[0]) as store:
        await once(wanted(store, tmp_path))
        [part] = (tmp_path / "night").glob(".*.part")
        with part.open("r+b") as file:
            file.seek(500_000)
            file.write(b"rotten")
        store.headers = {}
        outcome = await once(wanted(store, tmp_path))
        assert isinstance(outcome, FreshUrl)
        assert "md5" in outcome.why
        assert_published(await once(wanted(store, tmp_path)), tmp_path)


@given(st.text(), st.booleans())
def test_headers_that_offer_nonsense_offer_nothing_wrong(text: str, whole: bool) -> None:
    named = dict.fromkeys(("repr-digest", "digest", "content-digest", "content-md5", "x-goog-hash"), text)
    for algorithm, digest in offered(named, whole=whole).items():
        Sums({algorithm: digest}).update(b"x")


async def test_another_kind_than_was_asked_for_is_not_published(tmp_path: Path) -> None:
    async with store_of(content=samples.jpeg()) as store:
        outcome = await once(wanted(store, tmp_path, kinds=frozenset({Kind.VIDEO})))
    assert isinstance(outcome, FreshUrl)
    assert "image/jpeg" in outcome.why
    assert names(tmp_path) == []


async def test_an_encoded_file_is_not_taken_for_the_file(tmp_path: Path) -> None:
    async with store_of(headers={"Content-Encoding": "gzip"}) as store:
        assert isinstance(await once(wanted(store, tmp_path)), FreshUrl)


async def test_F83_an_endless_stream_ends_at_the_cap(tmp_path: Path) -> None:
    async def endless(store: Store, _: Asked, line: Line) -> None:
        await store.head(line, content_length=None)
        while True:
            await store.body(line, bytes(1 << 16))

    async with store_of(endless) as store:
        outcome = await once(wanted(store, tmp_path, cap=1_000_000))
        assert isinstance(outcome, Refused)
        assert outcome.reason is Obstacle.TOO_LARGE
        assert names(tmp_path) == []
        assert store.sent < 20_000_000


async def test_a_file_that_says_it_is_too_large_is_not_begun(tmp_path: Path) -> None:
    async with store_of() as store:
        outcome = await once(wanted(store, tmp_path, cap=len(BIG) - 1))
        assert outcome == Refused(Obstacle.TOO_LARGE, f"{len(BIG)} bytes, more than the {len(BIG) - 1} allowed")
        assert names(tmp_path) == []
        assert isinstance(await once(wanted(store, tmp_path, cap=len(BIG))), Published)


async def test_T9_F26_a_redirect_astray_is_refused(tmp_path: Path) -> None:
    async with store_of(says(302, location="https://169.254.169.254/x"), says(302, location="file:///x")) as store:
        for _ in range(2):
            outcome = await once(wanted(store, tmp_path))
            assert isinstance(outcome, Refused)
            assert outcome.reason is Obstacle.UNSAFE_URL
    assert names(tmp_path) == []


async def test_a_redirect_loop_is_tried_later(tmp_path: Path) -> None:
    """F25."""
    async with store_of(*[says(302, location="/again") for _ in range(9)]) as store:
        assert isinstance(await once(wanted(store, tmp_path)), Later)


async def test_a_body_that_only_trickles_is_left_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F13 and F17: bytes flow, but so slowly that a new connection is worth a try."""
    monkeypatch.setattr(fetch, "FLOOR_SECONDS", 0.3)

    async def trickle(store: Store, asked: Asked, line: Line) -> None:
        start = store.start_of(asked)
        await store.head(line, start)
        for at in range(start, start + 1000):
            await store.body(line, store.content[at : at + 1])
            await asyncio.sleep(0.05)

    async with store_of(trickle) as store:
        outcome = await asyncio.wait_for(once(wanted(store, tmp_path)), 5)
        assert isinstance(outcome, Later)
        assert "slower" in outcome.why
        assert 0 < outcome.received < 100
        assert_published(await once(wanted(store, tmp_path)), tmp_path)
        assert store.wire.asked[1].headers["range"] == f"bytes={outcome.received}-"


async def test_a_slow_body_above_the_floor_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "FLOOR_SECONDS", 0.2)

    async def slow(store: Store, _: Asked, line: Line) -> None:
        await store.head(line)
        for at in range(0, len(store.content), 100):
            await store.body(line, store.content[at : at + 100])
            await asyncio.sleep(0.05)

    async with store_of(slow, content=samples.mp4(1200)) as store:
        assert_published(await once(wanted(store, tmp_path)), tmp_path, samples.mp4(1200))


async def test_what_came_is_on_disk_long_before_a_piece_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "HOLD", 0.05)
    seen = asyncio.Event()

    async def slow(store: Store, _: Asked, line: Line) -> None:
        await store.head(line)
        for at in range(0, 2000, 100):
            await store.body(line, store.content[at : at + 100])
            await asyncio.sleep(0.02)
            if any(part.stat().st_size for part in (tmp_path / "night").glob(".*.part")):
                seen.set()

    async with store_of(slow) as store:
        await once(wanted(store, tmp_path))
    assert seen.is_set()


# --- the disk


def _full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE])
async def test_F87_F90_F91_trouble_with_the_disk_keeps_what_came(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.write, 0

    def write(descriptor: int, data: Any) -> int:
        nonlocal written
        if len(data) > 10_000 and written >= 1_200_000:
            raise OSError(code, os.strerror(code))
        count = real(descriptor, data[:100_000] if len(data) > 10_000 else data)
        written += count
        return count

    async with store_of() as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            outcome = await once(wanted(store, tmp_path))
        assert outcome == DiskTrouble(code, os.strerror(code))
        assert outcome.full is (code in (errno.ENOSPC, errno.EDQUOT))
        [part] = (tmp_path / "night").glob(".*.part")
        kept = part.stat().st_size
        assert kept >= 1_200_000
        assert_published(await once(wanted(store, tmp_path)), tmp_path)
        assert store.wire.asked[1].headers["range"] == f"bytes={kept}-"


async def test_F90_a_folder_that_cannot_be_written_is_trouble_with_the_disk(tmp_path: Path) -> None:
    """With a file where a folder's parent should be, which not even root may write to."""
    (tmp_path / "file").write_text("")
    async with store_of() as store:
        outcome = await once(wanted(store, tmp_path / "file" / "root"))
        assert isinstance(outcome, DiskTrouble)
        assert store.wire.asked == []


@pytest.mark.parametrize("step", ["open", "mkdir", "link", "fsync", "replace", "unlink"])
async def test_no_step_on_the_disk_may_fail_unseen(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails, nothing incomplete stands under the final name, and the next try succeeds."""
    async with store_of() as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, step, _full)
            outcome = await once(wanted(store, tmp_path))
        assert isinstance(outcome, DiskTrouble)
        final = tmp_path / "night/clip.mp4"
        assert not final.exists() or final.read_bytes() == BIG
        assert_published(await once(wanted(store, tmp_path)), tmp_path)


async def test_F91_a_name_too_long_for_the_disk_is_shortened(tmp_path: Path) -> None:
    """108 Chinese characters are 324 bytes; folders, too."""
    long, folder = "夜" * 108, "巷" * 100
    async with store_of() as store:
        first = await once(wanted(store, tmp_path, f"{folder}/{long}.mp4"))
        assert isinstance(first, Published)
        assert first.path.read_bytes() == BIG
        assert first.path.name.startswith("夜" * 50)
        assert first.path.name.endswith(".mp4")
        second = await once(wanted(store, tmp_path, f"{folder}/{long}!.mp4", facts={**FACTS, "task_id": "other"}))
        assert isinstance(second, Published)
        assert second.path != first.path
        assert all(len(part.encode()) <= 255 for name in names(tmp_path) for part in name.split("/"))
        assert len(names(tmp_path)) == 4


async def test_a_disk_that_takes_only_short_names_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def choosy(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, str) and len(os.path.basename(path)) > 143:
                raise OSError(errno.ENAMETOOLONG, "File name too long")
            return real(path, *args, **kwargs)

        return call

    for name in ("open", "stat", "link"):
        monkeypatch.setattr(os, name, choosy(getattr(os, name)))
    monkeypatch.setattr(files, "RELATIVE", True)
    async with store_of() as store:
        outcome = await once(wanted(store, tmp_path, "x" * 200 + ".mp4"))
    assert isinstance(outcome, Published)
    assert len(outcome.path.name) <= 143


# --- what stands there already


async def test_T12_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """I8: another content gets `-2`; the sidecar of that name, too, stays the person's."""
    (tmp_path / "night").mkdir()
    (tmp_path / "night/clip.mp4").write_bytes(b"mine")
    (tmp_path / "night/clip-2.mp4").write_bytes(samples.mp4())
    (tmp_path / "night/clip-3.mp4.json").write_text("my own notes")
    async with store_of() as store:
        outcome = await once(wanted(store, tmp_path))
    assert isinstance(outcome, Published)
    assert outcome.path == tmp_path / "night/clip-3.mp4"
    assert (tmp_path / "night/clip.mp4").read_bytes() == b"mine"
    assert (tmp_path / "night/clip-2.mp4").read_bytes() == samples.mp4()
    assert (tmp_path / "night/clip-3.mp4.json").read_text() == "my own notes"
    assert len(names(tmp_path)) == 4


async def test_the_same_content_in_its_place_is_adopted(tmp_path: Path) -> None:
    """Published by a process that could not tell: no row, no sidecar, but the source agrees."""
    (tmp_path / "night").mkdir()
    (tmp_path / "night/clip.mp4").write_bytes(BIG)
    async with store_of() as store:
        outcome = assert_published(await once(wanted(store, tmp_path)), tmp_path)
    assert outcome.adopted


async def test_with_its_sidecar_it_is_adopted_without_asking_anybody(tmp_path: Path) -> None:
    """Even if the source is gone for good."""
    async with store_of(serve, says(410)) as store:
        first = await once(wanted(store, tmp_path))
        assert isinstance(first, Published)
        assert await once(wanted(store, tmp_path)) == replace(first, adopted=True)
        assert len(store.wire.asked) == 1


@pytest.mark.parametrize("change", ["edited", "another task", "another output", "link"])
async def test_only_the_very_output_is_adopted(change: str, tmp_path: Path) -> None:
    async with store_of() as store:
        want = wanted(store, tmp_path)
        first = await once(want)
        assert isinstance(first, Published)
        match change:
            case "edited":
                first.path.write_bytes(BIG[:-1] + b"!")
            case "another task":
                want = replace(want, task_id="task-2", facts={**FACTS, "task_id": "task-2"})
                store.content = samples.mp4(5000)
            case "another output":
                want = replace(want, index=1, facts={**FACTS, "output": 1})
                store.content = samples.mp4(5000)
            case "link":
                first.path.rename(tmp_path / "moved")
                first.path.symlink_to(tmp_path / "moved")
        before = first.path.read_bytes()
        second = await once(want)
        assert isinstance(second, Published)
        assert (second.path, second.adopted) == (tmp_path / "night/clip-2.mp4", False)
        assert second.path.read_bytes() == store.content
        assert first.path.read_bytes() == before


async def test_a_sidecar_that_cannot_be_read_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    (tmp_path / "night/clip.mp4").write_bytes(b"mine")
    (tmp_path / "night/clip.mp4.json").write_bytes(DEEP)
    async with store_of() as store:
        outcome = await once(wanted(store, tmp_path))
    assert isinstance(outcome, Published), outcome
    assert outcome.path == tmp_path / "night/clip-2.mp4"


async def test_when_every_name_is_taken_a_person_is_needed(tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    for name in ["clip.mp4", *(f"clip-{n}.mp4" for n in range(2, 100))]:
        (tmp_path / "night" / name).write_bytes(b"mine")
    async with store_of() as store:
        outcome = await once(wanted(store, tmp_path))
        assert isinstance(outcome, Refused)
        assert outcome.reason is Obstacle.TAKEN
        (tmp_path / "night/clip-7.mp4").unlink()
        outcome = await once(wanted(store, tmp_path))
        assert isinstance(outcome, Published)
        assert (outcome.path.name, len(store.wire.asked)) == ("clip-7.mp4", 1)


@pytest.mark.parametrize("place", ["folder", "part", "note"])
async def test_T13_a_link_in_the_way_is_never_followed(place: str, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"precious")
    async with store_of() as store:
        want = wanted(store, root)
        if place == "folder":
            root.mkdir()
            (root / "night").symlink_to(outside)
        else:
            (root / "night").mkdir(parents=True)
            name = want.part_name if place == "part" else f"{want.part_name}.json"
            (root / "night" / name).symlink_to(outside / "victim")
        outcome = await once(want)
        assert (outside / "victim").read_bytes() == b"precious"
        assert os.listdir(outside) == ["victim"]
        if place == "note":
            assert_published(outcome, root)
        else:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Obstacle.UNSAFE_PATH


@pytest.mark.parametrize("path", ["../clip.mp4", "a/../../clip.mp4", "/etc/clip.mp4", "a//clip.mp4", "a/./clip.mp4"])
async def test_no_path_leads_out_of_the_root(path: str, tmp_path: Path) -> None:
    async with store_of() as store:
        outcome = await once(wanted(store, tmp_path / "root", path))
    assert isinstance(outcome, Refused)
    assert outcome.reason is Obstacle.UNSAFE_PATH
    assert names(tmp_path) == []


async def test_a_part_that_somebody_else_has_linked_is_not_written_to(tmp_path: Path) -> None:
    """As `cp -al` does for a backup."""
    async with store_of(cut(1_000_000)) as store:
        await once(wanted(store, tmp_path))
        [part] = (tmp_path / "night").glob(".*.part")
        os.link(part, tmp_path / "backup")
        assert isinstance(await once(wanted(store, tmp_path)), Published)
    assert (tmp_path / "backup").read_bytes() == BIG[:1_000_000]
    assert (tmp_path / "night/clip.mp4").read_bytes() == BIG


async def test_without_hard_links_it_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    async with store_of() as store:
        assert_published(await once(wanted(store, tmp_path)), tmp_path)


async def test_a_part_swapped_while_it_is_published_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def swap(source: str, *args: Any, src_dir_fd: int, **kwargs: Any) -> None:
        os.unlink(source, dir_fd=src_dir_fd)
        os.symlink("/etc/passwd", source, dir_fd=src_dir_fd)
        real(source, *args, src_dir_fd=src_dir_fd, **kwargs)

    monkeypatch.setattr(os, "link", swap)
    async with store_of() as store:
        outcome = await once(wanted(store, tmp_path))
    assert isinstance(outcome, Refused)
    assert outcome.reason is Obstacle.UNSAFE_PATH
    assert not os.path.lexists(tmp_path / "night/clip.mp4")


# --- several at once, and cancelled


async def test_two_at_once_do_not_write_the_same_part(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def halting(store: Store, _: Asked, line: Line) -> None:
        await store.head(line)
        await store.body(line, store.content[:1_500_000])
        begun.set()
        await go_on.wait()
        await store.body(line, store.content[1_500_000:])

    async with store_of(halting) as store:
        first = asyncio.create_task(once(wanted(store, tmp_path)))
        await asyncio.wait_for(begun.wait(), 5)
        second = await once(wanted(store, tmp_path))
        assert isinstance(second, Later)
        go_on.set()
        assert_published(await first, tmp_path)


async def test_many_at_once_get_what_is_theirs(tmp_path: Path) -> None:
    async def by_name(store: Store, asked: Asked, line: Line) -> None:
        store.content = samples.mp4(50_000 + int(asked.target.strip("/")))
        await store.head(line)
        await store.body(line, samples.mp4(50_000 + int(asked.target.strip("/"))))

    async with store_of(*[by_name] * 20) as store, Fetcher(allow_private=True) as fetcher:
        wants = [
            Wanted(store.wire.url(f"/{n}"), tmp_path, "same/clip.mp4", f"task-{n}", facts={**FACTS}) for n in range(20)
        ]
        outcomes = await asyncio.gather(*(fetch_output(fetcher, Clock(), want) for want in wants))
    published = [outcome for outcome in outcomes if isinstance(outcome, Published)]
    assert len({outcome.path for outcome in published}) == 20
    assert sorted(outcome.bytes for outcome in published) == sorted(len(samples.mp4(50_000 + n)) for n in range(20))


async def test_a_cancelled_download_is_gone_on_with(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def halting(store: Store, _: Asked, line: Line) -> None:
        await store.head(line)
        await store.body(line, store.content[:2_500_000])
        begun.set()
        await line.gone()

    async with store_of(halting) as store:
        before = asyncio.all_tasks()
        task = asyncio.create_task(once(wanted(store, tmp_path)))
        await asyncio.wait_for(begun.wait(), 5)
        await until(lambda: any(p.stat().st_size >= 1 << 20 for p in (tmp_path / "night").glob(".*.part")))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any("fetch_output" in repr(left) for left in asyncio.all_tasks() - before - {task})
        assert_published(await soon(wanted(store, tmp_path)), tmp_path)
        assert int(store.wire.asked[1].headers["range"].strip("bytes=-")) >= 1 << 20


async def test_cancelled_at_any_moment_nothing_is_left_open(tmp_path: Path) -> None:
    async with store_of() as store, Fetcher(allow_private=True) as fetcher:
        for n in range(40):
            want = wanted(store, tmp_path)
            task = asyncio.create_task(fetch_output(fetcher, Clock(), want))
            await asyncio.sleep(0.0007 * n)
            task.cancel()
            await asyncio.wait([task])
        assert_published(await soon(wanted(store, tmp_path)), tmp_path)
        await until(lambda: not [path for path in open_files() if path.startswith(str(tmp_path))])


async def test_cancelled_at_its_very_end_it_still_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished, finish = threading.Event(), fetch.Part.finish
    one = ThreadPoolExecutor(1)
    monkeypatch.setattr(fetch, "THREADS", one)

    def finish_and_hold(part: fetch.Part) -> Any:
        one.submit(time.sleep, 0.2)  # Now there is a moment between the result and the closing.
        finished.set()
        return finish(part)

    monkeypatch.setattr(fetch.Part, "finish", finish_and_hold)
    async with store_of() as store:
        task = asyncio.create_task(once(wanted(store, tmp_path)))
        await until(finished.is_set)
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
    await until(lambda: not [path for path in open_files() if path.startswith(str(tmp_path))])
    one.shutdown()
    assert (tmp_path / "night/clip.mp4").read_bytes() == BIG


def open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # The one that lists them.
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


# --- killed anywhere

CHILD = """
import asyncio, json, sys
from pathlib import Path
from runner.client.fetching import Fetcher
from runner.clock import Clock
from runner.downloads import Wanted, fetch_output

async def main(url, root):
    want = Wanted(url, Path(root), "night/clip.mp4", "task-1", facts=json.loads(sys.argv[3]))
    async with Fetcher(allow_private=True) as fetcher:
        print(await fetch_output(fetcher, Clock(), want))

asyncio.run(main(*sys.argv[1:3]))
"""
OURS = ["part-opened", "first-chunk", "before-fsync", "after-fsync", "after-link", "after-sidecar", "after-unlink"]


async def child(store: Store, root: Path, failpoint: str, facts: object = FACTS) -> tuple[int, str]:
    env = {**os.environ, "RUNNER_FAILPOINT": failpoint}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, store.url, str(root), json.dumps(facts),
        env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert not err, err.decode()
    return process.returncode or 0, out.decode()


def test_the_sweep_knows_every_place() -> None:
    assert set(OURS) <= failpoints.NAMES


@pytest.mark.parametrize("place", [*OURS, "first-chunk:2"])
async def test_killed_anywhere_the_next_try_ends_it(place: str, tmp_path: Path) -> None:
    async with store_of() as store:
        assert (await child(store, tmp_path, place))[0] == -signal.SIGKILL
        final = tmp_path / "night/clip.mp4"
        assert not final.exists() or final.read_bytes() == BIG
        code, said = await child(store, tmp_path, "")
        assert code == 0
        assert said.startswith("Published")
        outcome = await once(wanted(store, tmp_path))
        assert assert_published(outcome, tmp_path).adopted
        in_the_middle = place.startswith("first-chunk")
        assert len(store.wire.asked) == 1 + in_the_middle
        if in_the_middle:
            assert int(store.wire.asked[1].headers["range"].strip("bytes=-")) >= (1 << 20) * int(place[12:] or 1)


@pytest.mark.parametrize("place", OURS)
async def test_killed_twice_and_without_a_sidecar(place: str, tmp_path: Path) -> None:
    async with store_of() as store:
        await child(store, tmp_path, place, None)
        await child(store, tmp_path, place, None)
        code, said = await child(store, tmp_path, "", None)
        assert (code, said[:9]) == (0, "Published")
    assert names(tmp_path) == ["night/clip.mp4"]
    assert (tmp_path / "night/clip.mp4").read_bytes() == BIG


# --- the sidecar by itself


def test_a_sidecar_is_written_and_replaced_by_its_owner_alone(tmp_path: Path) -> None:
    output = tmp_path / "clip.mp4"
    beside = tmp_path / "clip.mp4.json"
    sidecar(output, FACTS)
    assert json.loads(beside.read_text()) == FACTS
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    sidecar(output, {**FACTS, "credits": {"charged": "8"}})
    assert json.loads(beside.read_text())["credits"] == {"charged": "8"}
    sidecar(output, {**FACTS, "task_id": "another"})
    assert json.loads(beside.read_text())["task_id"] == "task-1"
    beside.write_text("{not ours")
    sidecar(output, FACTS)
    assert beside.read_text() == "{not ours"
    beside.unlink()
    beside.symlink_to(tmp_path / "elsewhere")
    sidecar(output, FACTS)
    assert names(tmp_path) == ["clip.mp4.json"]


def test_a_sidecar_says_whose_it_is(tmp_path: Path) -> None:
    sidecar(tmp_path / "clip.mp4", FACTS)
    with pytest.raises(KeyError):
        sidecar(tmp_path / "clip.mp4", {"prompt": "x"})


# --- the pure part, and what is told


@given(
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["content-range", "content-length", "etag", "retry-after", "date", "last-modified"]), st.text()
    ),
    st.sampled_from([0, 5]),
)
def test_every_answer_means_something(status: int, headers: dict[str, str], had: int) -> None:
    known = Whole("cdn.example", 10, '"v1"') if had else None
    means = meaning(status, headers, "cdn.example", had=had, known=known, cap=100)
    assert isinstance(means, Body | Restart | FreshUrl | Later | Refused)
    if isinstance(means, Restart):
        assert had  # or it would be asked for ever
    if isinstance(means, Body):
        assert means.offset in (0, had)


LONG = "9" * 5000  # more digits than Python reads as a number
FAR = "Fri, 20 Nov 99999999999 12:00:00 GMT"  # more years than it has


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {"content-range": f"bytes {LONG}-{LONG}/{LONG}"}), (200, {"content-length": LONG}),
        (200, {"last-modified": FAR}), (200, {"date": FAR}), (503, {"retry-after": FAR}),
        (503, {"retry-after": "Fri, 20 Nov 2026 12:00:00 +99999999999999"}),
    ],
)  # fmt: skip
def test_no_number_is_too_large_to_mean_nothing(status: int, headers: dict[str, str]) -> None:
    date = {"date": "Fri, 20 Nov 2026 12:00:00 GMT"}
    means = meaning(status, date | headers, "cdn.example", had=5, known=Whole("cdn.example", 10, '"v1"'), cap=100)
    assert isinstance(means, Body | Restart | Later)
    assert not isinstance(means, Body) or not means.whole.validator


async def test_T6_no_outcome_and_no_file_holds_the_signed_url(tmp_path: Path) -> None:
    acts = [cut(1000), says(403), says(503), says(200, b"<html>"), says(302, location=f"file:///{CANARY}"), serve]
    async with store_of(*acts) as store:
        told = "".join([repr(await once(wanted(store, tmp_path))) for _ in acts])
        assert CANARY not in told + repr(wanted(store, tmp_path))
        store.acts, store.etag = [cut(1_000_000)], '"v2"'
        other = replace(wanted(store, tmp_path, "other.mp4"), task_id="other")
        told += repr(await once(other))
        raw = b"".join((tmp_path / name).read_bytes() for name in names(tmp_path) if name.endswith("json"))
    assert CANARY not in told
    assert CANARY.encode() not in raw


async def test_the_loop_only_receives(tmp_path: Path) -> None:
    """P6: a millisecond of the loop per megabyte. Three are allowed here: the machine may be busy with other tests."""
    content = samples.box(b"ftyp", b"isom") + samples.moov() + samples.box(b"mdat", bytes(64 << 20))

    async with store_of(content=content) as store:
        code = CHILD.replace(
            "print(await fetch_output(fetcher, Clock(), want))",
            "import time; began = time.thread_time(); await fetch_output(fetcher, Clock(), want);"
            " print(time.thread_time() - began)",
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, store.url, str(tmp_path), json.dumps(FACTS), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    assert float(out) < 64 * 0.003
    assert (tmp_path / "night/clip.mp4").stat().st_size == len(content)
