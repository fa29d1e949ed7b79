"""Types by their first bytes, and whole containers told from broken ones."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

import runner
from runner import media
from runner.media import Kind, flaw, same_extension, sniff

EVERY = pytest.mark.parametrize("name", samples.SAMPLES)
# Where the format has no end mark of its own, a file cut exactly between two of its parts is a shorter whole one.
ENDLESS = {"mp3": 417, "webm, streamed": 312}


class Bytes:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)
        self.most = 0

    def read(self, offset: int, length: int) -> bytes:
        self.most = max(self.most, length)
        return self.content[offset : offset + length]


def judged(content: bytes) -> str | None:
    """The flaw of a file, as a download would find it."""
    kind = sniff(content[: media.HEAD])
    return flaw(kind, Bytes(content)) if kind else "unknown"


@EVERY
def test_a_whole_file_is_named_and_has_no_flaw(name: str) -> None:
    extension, make = samples.SAMPLES[name]
    kind = sniff(make()[: media.HEAD])
    assert kind is not None
    assert kind.extension == extension
    assert flaw(kind, Bytes(make())) is None


@EVERY
def test_every_truncation_is_refused(name: str) -> None:
    whole = samples.SAMPLES[name][1]()
    passed = [size for size in range(len(whole)) if judged(whole[:size]) is None]
    step = ENDLESS.get(name)
    assert [size for size in passed if step is None or (len(whole) - size) % step] == []


@EVERY
@given(data=st.data())
def test_no_bytes_at_all_break_the_check(name: str, data: st.DataObject) -> None:
    whole = bytearray(samples.SAMPLES[name][1]())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    found = judged(bytes(whole))
    assert found is None or found


@given(st.binary(max_size=300))
def test_nonsense_is_no_media_or_has_a_flaw(content: bytes) -> None:
    for kind in media.ALL:
        found = flaw(kind, Bytes(content))
        assert found is None or found


@given(st.integers(0, len(samples.png()) - 1), st.integers(1, 255))
def test_a_flipped_byte_in_a_png_is_noticed(at: int, by: int) -> None:
    content = bytearray(samples.png())
    content[at] ^= by
    assert judged(bytes(content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        bytes(100),
        b"<!DOCTYPE html><html><body>Access denied</body></html>",
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        b'{"error": {"code": "expired"}}',
        b"%PDF-1.7\n",
        b"PK\x03\x04" + bytes(40),
        b"#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        samples.box(b"ftyp", b"avif\0\0\0\0avifmif1"),
        samples.box(b"ftyp", b"heic\0\0\0\0heic"),
        b"RIFF\x10\0\0\0AVI LIST" + bytes(20),
        b"\x1a\x45\xdf\xa3" + b"\x8bB\x82\x88matroska",
        b"\xff\xf1\x50\x80" + bytes(40),
    ],
)
def test_what_is_no_media_of_ours_has_no_name(content: bytes) -> None:
    assert sniff(content) is None


@pytest.mark.parametrize("name", ["clip.mp4", "still.png", "still.jpg", "still.webp"])
def test_the_files_of_the_sandbox_pass(name: str) -> None:
    content = (Path(runner.__file__).parent / "sandbox" / "media" / name).read_bytes()
    kind = sniff(content)
    assert kind is not None
    assert same_extension(kind.extension, name.rpartition(".")[2])
    assert judged(content) is None
    assert all(judged(content[:size]) for size in range(len(content)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (samples.png().replace(b"IDAT", b"IdAT"), "checksum"),
        (samples.png()[:8] + samples.png()[33:], "IHDR"),
        (b"\xff\xd8\xff\xd9", "no image data"),
        (b"\xff\xd8\xff\xe0\x00\x01", "no length"),
        (b"\xff\xd8\xff\xe0\x00\x02\x00", "marker"),
        (b"GIF89a" + bytes(7) + b"\x3b", "no picture"),
        (b"GIF89a" + bytes(7) + b"?", "unknown block"),
        (b"RIFF\x04\0\0\0WEBP", "no image data"),
        (b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10), "no image data"),
        (b"RIFF\x0c\0\0\0WEBPVP8 \xff\0\0\0", "longer"),
        (b"RIFF\x04\0\0\0WAVE", "no sound"),
        (samples.box(b"ftyp", b"isom") + samples.box(b"mdat", b"x"), "moov"),
        (samples.box(b"ftyp", b"isom") + samples.moov(), "mdat"),
        (samples.box(b"ftyp", b"isom") + samples.moov() + samples.box(b"mdat"), "mdat"),
        (samples.box(b"ftyp", b"isom") + samples.box(b"moov", bytes(40)) + samples.box(b"mdat", b"x"), "track"),
        (samples.mp4() + b"\0\0\0", "within a box"),
        (samples.box(b"ftyp", b"isom") + b"\0\0\0\x04free", "impossible"),
        (samples.webm()[: samples.webm().index(b"\x16\x54\xae\x6b")], "within"),
        (b"ID3\x04\0\0\0\0\0\0nothing here", "no sound"),
    ],
)
def test_flaws_are_told(content: bytes, says: str) -> None:
    kind = sniff(content)
    assert kind is not None
    assert says in (flaw(kind, Bytes(content)) or "")


@pytest.mark.parametrize(
    "content",
    [
        samples.png() + b"trailing",
        samples.jpeg() + b"a second picture",
        samples.webp() + b"\0\0",
        b"\xff\xd8\xff\xd8" + samples.jpeg()[2:],
        samples.wav()[:4] + b"\xff\xff\xff\xff" + samples.wav()[8:],
        samples.mp3() + b"TAG" + bytes(125),
        samples.mp3()[138:],
        samples.mp4()[: -308] + b"\0\0\0\0mdat" + bytes(300),
    ],
    ids=["png+", "jpeg+", "webp+", "jpeg twice begun", "wav streamed", "mp3 tag", "mp3 bare", "mp4 to the end"],
)  # fmt: skip
def test_odd_files_that_are_whole_pass(content: bytes) -> None:
    assert judged(content) is None


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8" + b"\xff\xda\x00\x02" * 400_000,
        b"GIF89a" + bytes(7) + b"\x21\xf9\x00" * 700_000,
        b"RIFF" + struct.pack("<I", 16_000_004) + b"WEBP" + b"VP8 \0\0\0\0" * 2_000_000,
        samples.box(b"ftyp", b"isom") + b"\0\0\0\x08free" * 2_000_000,
    ],
    ids=["jpeg", "gif", "webp", "mp4"],
)
def test_a_hostile_file_costs_a_bounded_time_and_small_reads(content: bytes) -> None:
    kind, source = sniff(content), Bytes(content)
    assert kind is not None
    begin = time.process_time()
    assert flaw(kind, source)
    assert time.process_time() - begin < 20
    assert source.most <= media.WINDOW


def test_extensions_mean_types() -> None:
    assert same_extension("JPEG", "jpg")
    assert same_extension("mp4", "MP4")
    assert not same_extension("png", "jpg")
    assert media.known_extension("Jpeg")
    assert not media.known_extension("5")
    assert {kind.kind for kind in media.ALL} == set(Kind)
