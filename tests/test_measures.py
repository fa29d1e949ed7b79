"""Sizes of pictures and lengths of videos and sounds, by headers alone; whatever a file says, looking stays cheap.

The files in `media/` come from real encoders (Pillow, FFmpeg).
"""

from __future__ import annotations

import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st
from samples import box

import runner
from runner import media
from runner.media import UNKNOWN, Measures, measure, sniff_input
from runner.media.measures import LONGEST, STEPS, WINDOW

MEDIA = Path(__file__).parent / "media"
SANDBOX = Path(runner.__file__).parent / "sandbox" / "media"
REAL = {
    path.name: path.read_bytes() for folder in (MEDIA, SANDBOX) for path in sorted(folder.iterdir()) if path.is_file()
}
MADE = {name: make() for name, (_, make) in samples.SAMPLES.items()}


class Counted:
    """A file that notes how it was read."""

    def __init__(self, content: bytes, size: int | None = None) -> None:
        self.content = content
        self.size = len(content) if size is None else size
        self.reads = self.most = 0

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        self.reads, self.most = self.reads + 1, max(self.most, length)
        return self.content[offset : offset + length]


def measured(content: bytes, reads: int = STEPS) -> Measures:
    """The measures of a file, found with at most so many reads of at most a window."""
    kind, source = sniff_input(content[: media.HEAD]), Counted(content)
    assert kind is not None
    found = measure(kind, source)
    assert source.reads <= reads
    assert source.most <= WINDOW
    return found


def pixels(width: int, height: int) -> Measures:
    return Measures(width, height)


def lasting(seconds: str) -> Measures:
    return Measures(seconds=Decimal(seconds))


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "adpcm.wav": UNKNOWN,
        "animated.webp": pixels(48, 20),
        "bare.mp3": lasting("1.152"),  # as it plays: nothing in it tells what the encoder has added
        "clip.webm": lasting("1.5"),
        "fragments.mp4": UNKNOWN,
        "grey.png": pixels(48, 20),
        "header-first.mp4": lasting("1.5"),
        "header-last.mov": lasting("1.5"),
        "header-last.mp4": lasting("1.5"),
        "live.webm": UNKNOWN,
        "lossless.webp": pixels(48, 20),
        "lossy.webp": pixels(48, 20),
        "progressive.jpg": pixels(48, 20),
        "small.bmp": pixels(5, 7),
        "tone.mp3": lasting("1"),
        "tone.wav": lasting("0.25"),
    }.items(),
)
def test_files_of_real_encoders(name: str, expected: Measures) -> None:
    assert measured(REAL[name], reads=4) == expected


def test_every_real_file_is_looked_at() -> None:
    assert {path.name for path in MEDIA.iterdir()} <= REAL.keys()
    assert all(measured(content, reads=20) for content in REAL.values())


# --- pictures, for all sizes

SIDES = st.integers(1, 0x3FFF)


def png_of(width: int, height: int) -> bytes:
    return samples.png()[:16] + struct.pack(">II", width, height) + samples.png()[24:]


def jpeg_of(width: int, height: int, marker: int = 0xC0) -> bytes:
    exif = b"\xff\xe1\x00\x12Exif\0\0\xff\xc0\x00\x0b\x08\x00\x07\x00\x07"
    frame = bytes([0xFF, marker]) + struct.pack(">HBHH", 17, 8, height, width) + bytes(10)
    return b"\xff\xd8" + exif + b"\xff" + frame + b"\xff\xda\x00\x02\xff\xd9"


def webp_of(name: bytes, data: bytes) -> bytes:
    body = b"WEBP" + name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossy_of(width: int, height: int, scale: int = 0) -> bytes:
    sides = struct.pack("<HH", width | scale << 14, height | scale << 14)
    return webp_of(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + sides + bytes(5))


def lossless_of(width: int, height: int) -> bytes:
    return webp_of(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14))


def extended_of(width: int, height: int) -> bytes:
    return webp_of(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


def bmp_of(width: int, height: int, dib: int = 40) -> bytes:
    sides = struct.pack("<HH", width, height) if dib == 12 else struct.pack("<ii", width, height)
    return b"BM" + bytes(12) + struct.pack("<I", dib) + sides + bytes(100)


@given(SIDES, SIDES)
def test_pixels_of_every_picture_format(width: int, height: int) -> None:
    for content in (
        png_of(width, height), jpeg_of(width, height), jpeg_of(width, height, 0xC2), lossy_of(width, height),
        lossy_of(width, height, 3), lossless_of(width, height), extended_of(width, height), bmp_of(width, height),
        bmp_of(width, -height), bmp_of(width, height, 12), bmp_of(width, height, 124),
        b"GIF89a" + struct.pack("<HH", width, height) + bytes(4),
    ):  # fmt: skip
        assert measured(content, reads=2) == pixels(width, height)


@pytest.mark.parametrize(
    "content",
    [
        png_of(0, 7),
        samples.png().replace(b"IHDR", b"CgBI"),
        jpeg_of(7, 0),
        b"\xff\xd8\xff\xda\x00\x02" + jpeg_of(7, 7)[2:],
        lossy_of(0, 7),
        webp_of(b"VP8 ", b"\x11\0\0\x9d\x01\x2a" + bytes(9)),
        webp_of(b"VP8 ", b"\x10\0\0not it" + bytes(9)),
        webp_of(b"VP8L", b"\x2e" + bytes(9)),
        webp_of(b"ICCP", bytes(20)),
        bmp_of(-7, 7),
        bmp_of(7, 0),
        b"GIF89a" + bytes(7),
    ],
)
def test_a_picture_that_cannot_be_has_no_pixels(content: bytes) -> None:
    assert measured(content) == UNKNOWN


# --- what lasts, for all lengths


def movie(mvhd: bytes, *more: bytes, size: int = 0) -> bytes:
    """Its header last, after media data with a 64-bit length."""
    data = struct.pack(">I4sQ", 1, b"mdat", 16 + size) + bytes(size)
    return box(b"ftyp", b"isom\0\0\2\0") + data + box(b"moov", box(b"mvhd", mvhd), *more)


def short_header(per_second: int, units: int) -> bytes:
    return struct.pack(">B3xIIII", 0, 1, 2, per_second, units) + bytes(80)


def long_header(per_second: int, units: int) -> bytes:
    return struct.pack(">B3xQQIQ", 1, 1, 2, per_second, units) + bytes(80)


@given(st.integers(5, 10**6), st.integers(1, 2**32 - 2))
def test_a_movie_lasts_as_its_header_says(per_second: int, units: int) -> None:
    expected = Measures(seconds=Decimal(round(1000 * units / per_second)) / 1000)
    for header in (short_header(per_second, units), long_header(per_second, units)):
        found = measured(movie(header, size=100_000), reads=4)
        assert expected.seconds is not None
        assert found.seconds is not None
        assert abs(found.seconds - expected.seconds) <= Decimal("0.001")


@pytest.mark.parametrize(
    "content",
    [
        movie(short_header(0, 100)),
        movie(short_header(1000, 0)),
        movie(short_header(1000, 2**32 - 1)),
        movie(long_header(1000, 2**64 - 1)),
        movie(long_header(1, 2**63)),
        movie(short_header(1000, 9000), box(b"mvex", box(b"trex", bytes(24)))),
        movie(short_header(1000, 9000), box(b"mvex")),
        movie(b""),
        box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", box(b"cmov", bytes(40))),
        box(b"ftyp", b"isom\0\0\2\0") + box(b"mdat", bytes(40)),
        box(b"ftyp", b"isom\0\0\2\0") + struct.pack(">I4sQ", 1, b"moov", 2**63),
        box(b"ftyp", b"isom\0\0\2\0") + struct.pack(">I4sQ", 1, b"moov", 3),
        box(b"ftyp", b"isom\0\0\2\0") + struct.pack(">I4s", 4, b"moov"),
    ],
)
def test_a_movie_whose_length_is_not_told_has_none(content: bytes) -> None:
    assert measured(content) == UNKNOWN


@pytest.mark.parametrize("mehd", [struct.pack(">B3xI", 0, 12_500), struct.pack(">B3xQ", 1, 12_500)])
def test_a_movie_in_fragments_lasts_as_long_as_all_of_them(mehd: bytes) -> None:
    fragments = box(b"mvex", box(b"mehd", mehd), box(b"trex", bytes(24)))
    assert measured(movie(short_header(1000, 1), fragments)) == lasting("12.5")
    assert measured(movie(short_header(1000, 0), fragments)) == lasting("12.5")


def webm_of(*info: bytes, head: bytes = b"") -> bytes:
    ebml = samples._element(0x1A45DFA3, samples._element(0x4282, b"webm"))
    inner = head + samples._element(0x1549A966, b"".join(info)) + samples._element(0x1F43B675, bytes(300))
    return ebml + samples._element(0x18538067, inner)


def duration(value: float, form: str = ">d") -> bytes:
    return samples._element(0x4489, struct.pack(form, value))


def scale(nanoseconds: int) -> bytes:
    return samples._element(0x2AD7B1, nanoseconds.to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (webm_of(duration(2500)), lasting("2.5")),
        (webm_of(duration(2500, ">f")), lasting("2.5")),
        (webm_of(scale(1000), duration(2_500_000)), lasting("2.5")),
        (webm_of(duration(2500), scale(2_000_000)), lasting("5")),
        (webm_of(duration(2500), head=samples._element(0x114D9B74, bytes(9000))), lasting("2.5")),
        (webm_of(), UNKNOWN),
        (webm_of(scale(1000)), UNKNOWN),
        (webm_of(scale(0), duration(2500)), UNKNOWN),
        (webm_of(samples._element(0x4489, b"\0\0\0")), UNKNOWN),
        (webm_of(duration(float("nan"))), UNKNOWN),
        (webm_of(duration(float("inf"))), UNKNOWN),
        (webm_of(duration(-1)), UNKNOWN),
        (webm_of(duration(0)), UNKNOWN),
        (webm_of(duration(1e300)), UNKNOWN),
        (samples.webm(), UNKNOWN),
    ],
)
def test_a_webm_lasts_as_its_info_says(content: bytes, expected: Measures) -> None:
    assert measured(content, reads=4) == expected


def wav_of(data: int, *, form: int = 1, rate: int = 8000, align: int = 2, said: int | None = None) -> bytes:
    fmt = struct.pack("<HHIIHH", form, 1, rate, rate * align, align, 8 * align)
    body = b"WAVE" + b"JUNK" + struct.pack("<I", 3) + bytes(4) + b"fmt " + struct.pack("<I", 16) + fmt
    body += b"data" + struct.pack("<I", data if said is None else said) + bytes(data)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (wav_of(16_000), lasting("1")),
        (wav_of(4000, form=3), lasting("0.25")),
        (wav_of(48_000, form=0xFFFE, align=6), lasting("1")),
        (wav_of(16_000, form=2), UNKNOWN),
        (wav_of(16_000, rate=0), UNKNOWN),
        (wav_of(16_000, align=0), UNKNOWN),
        (wav_of(0), UNKNOWN),
        (wav_of(16_000, said=0xFFFFFFFF), UNKNOWN),
        (wav_of(16_000, said=17_000), UNKNOWN),
        (wav_of(16_000)[:-1], UNKNOWN),
    ],
)
def test_a_wav_lasts_as_its_data_does(content: bytes, expected: Measures) -> None:
    assert measured(content, reads=2) == expected


FRAME = b"\xff\xfb\x90\x00" + bytes(413)  # 1152 samples at 44.1 kHz
SLOW = b"\xff\xfb\x90\x08" + bytes(380)  # at 32 kHz


def facts(
    name: bytes = b"Info", flags: int = 15, encoder: bytes = b"LAME3.100", cut: tuple[int, int] = (0, 0)
) -> bytes:
    told = name + struct.pack(">I", flags) + bytes(112) + encoder + bytes(12)
    return FRAME[:36] + (told + (cut[0] << 12 | cut[1]).to_bytes(3, "big")).ljust(381, b"\0")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (FRAME * 100, lasting("2.612")),
        (b"ID3\x04\0\0\0\0\x01\0" + bytes(128) + FRAME * 100, lasting("2.612")),
        (FRAME * 100 + b"TAG" + bytes(125), lasting("2.612")),
        (FRAME * 100 + b"APETAGEX" + bytes(24), lasting("2.612")),
        (FRAME * 100 + bytes(500), lasting("2.612")),
        (facts() + FRAME * 100, lasting("2.612")),
        (facts(b"Xing", flags=0) + FRAME * 100, lasting("2.612")),
        (facts(cut=(576, 624)) + FRAME * 100, lasting("2.585")),
        (facts(encoder=b"other", cut=(576, 624)) + FRAME * 100, lasting("2.612")),
        (FRAME[:36] + b"VBRI" + FRAME[40:] + FRAME * 100, lasting("2.612")),
        (facts(cut=(4095, 4095)) + FRAME, UNKNOWN),
        (facts(), UNKNOWN),
        (FRAME * 100 + b"\xff", UNKNOWN),
        (FRAME * 100 + b"a hole in the middle" + FRAME * 100, UNKNOWN),
        (FRAME * 100 + SLOW, UNKNOWN),
        (FRAME * 100 + FRAME[:-1], UNKNOWN),
        (b"ID3\x04\0\0\0\0\x01\0" + bytes(128), UNKNOWN),
        (b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + FRAME, UNKNOWN),
    ],
)
def test_an_mp3_lasts_as_its_frames_do(content: bytes, expected: Measures) -> None:
    assert measured(content, reads=20) == expected


# --- hostile files (T21)


def mutated(data: st.DataObject, whole: bytes) -> bytes:
    """A file with some bytes changed, cut out, put in, made huge or all ones, or its end lost."""
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        piece = data.draw(
            st.one_of(st.binary(max_size=9), st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7]))
        )
        content[at : at + data.draw(st.integers(0, 9))] = piece
    return bytes(content[: data.draw(st.integers(0, len(content)))]) if data.draw(st.booleans()) else bytes(content)


@pytest.mark.parametrize("name", [*REAL, *MADE])
@given(data=st.data())
def test_T21_no_bytes_break_the_look(name: str, data: st.DataObject) -> None:
    content = mutated(data, (REAL | MADE)[name])
    for kind in media.INPUTS:
        source = Counted(content)
        found = measure(kind, source)
        assert (found.width is None) == (found.height is None)
        assert found.width is None or found.height is None or (0 < found.width < 2**32 and 0 < found.height < 2**32)
        assert found.seconds is None or 0 <= found.seconds <= LONGEST
        assert source.reads <= STEPS
        assert source.most <= WINDOW


@given(st.binary(max_size=400), st.integers(0, 2**63))
def test_T21_a_file_that_is_shorter_than_it_was_is_unknown_or_measured(content: bytes, size: int) -> None:
    """As it is when somebody cuts it while it is looked at."""
    for kind in media.INPUTS:
        for head in (b"", content):
            assert isinstance(measure(kind, Counted(head + content, size)), Measures)


class Endless:
    """A sparse file of 2^62 bytes that repeats itself, and notes how much of it was read."""

    size = 1 << 62

    def __init__(self, head: bytes, rest: bytes) -> None:
        self.head, self.rest, self.read_bytes = head, rest, 0

    def read(self, offset: int, length: int) -> bytes:
        self.read_bytes += length
        begin = self.head[offset:]
        at = max(0, offset - len(self.head)) % len(self.rest)
        return (begin + self.rest[at:] + self.rest * (length // len(self.rest) + 1))[:length]


@pytest.mark.parametrize(
    ("kind", "head", "rest"),
    [
        ("jpg", b"\xff\xd8", b"\xff\xe0\x00\x02"),
        ("jpg", b"\xff\xd8", b"\xff"),
        ("jpg", b"\xff\xd8", b"\xff\xe0\xff\xfe" + bytes(0xFFFC)),
        ("mp4", box(b"ftyp", b"isom"), box(b"free")),
        ("mp4", b"", struct.pack(">I4sQ", 1, b"free", 16)),
        ("mp4", struct.pack(">I4sQ", 1, b"moov", 1 << 61), box(b"trak")),
        ("mp4", struct.pack(">I4sQ", 1, b"moov", 1 << 61), box(b"trak", bytes(8184))),
        ("webm", samples._element(0x1A45DFA3, b"") + bytes.fromhex("18538067 01ffffffffffffff"), b"\xec\x80"),
        ("wav", b"RIFF\0\0\0\0WAVE", b"JUNK\0\0\0\0"),
        ("mp3", b"", FRAME),
        ("mp3", b"", b"\xff\xe3\x18\xc4" + bytes(68)),
    ],
)
def test_T21_files_without_end_are_given_up(kind: str, head: bytes, rest: bytes) -> None:
    [known] = [each for each in media.INPUTS if each.extension == kind]
    source: Any = Endless(head, rest)
    assert measure(known, source) == UNKNOWN
    assert source.read_bytes <= STEPS * WINDOW
