"""How large a picture is, and how long a video or a sound lasts, by what its headers say. Nothing is ever decoded.

What a header does not say, or says in a way that cannot be true, is unknown: then nothing is claimed. At most `STEPS`
small pieces of a file are read, however large it is and whatever it says of itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isfinite

from runner.media.containers import (
    FRAME_MARKERS,
    INFO,
    SCAN,
    Frame,
    after_tag,
    boxes,
    elements,
    frames,
    little,
    number,
    riff_chunks,
    riff_end,
    segments,
    webm_parts,
)
from runner.media.kinds import BMP, GIF, JPEG, MOV, MP3, MP4, PNG, WAV, WEBM, WEBP, Media
from runner.media.reader import Flaw, Reader, Source

STEPS = 100_000
WINDOW = 4096  # bytes
LONGEST = 1_000_000_000  # seconds; a header that says more cannot be true


@dataclass(frozen=True, slots=True)
class Measures:
    """`width` and `height` in pixels, `seconds` to the thousandth; None where it is not known."""

    width: int | None = None
    height: int | None = None
    seconds: Decimal | None = None


UNKNOWN = Measures()


def measure(media: Media, source: Source) -> Measures:
    """What the headers of a file of this type say. Raises what `source` raises."""
    try:
        return _LOOKS[media](Reader(source, STEPS, WINDOW))
    except Flaw:
        return UNKNOWN


def _pixels(width: int, height: int) -> Measures:
    return Measures(width, height) if width > 0 and height > 0 else UNKNOWN


def _lasting(units: Fraction | int, per_second: Fraction | int) -> Measures:
    if not 0 < units <= LONGEST * per_second:
        return UNKNOWN
    return Measures(seconds=Decimal(round(Fraction(units) / per_second * 1000)) / 1000)


def _png(file: Reader) -> Measures:
    head = file.need(8, 16, "its head")
    return _pixels(number(head[8:12]), number(head[12:])) if head[:8] == b"\0\0\0\x0dIHDR" else UNKNOWN


def _jpeg(file: Reader) -> Measures:
    """The frame's head, before the first scan. A height of 0 (it follows after the scan) is not known."""
    for kind, start in segments(file):
        if kind in FRAME_MARKERS:
            sides = file.need(start + 3, 4, "a frame's head")
            return _pixels(number(sides[2:]), number(sides[:2]))
        if kind == SCAN:
            break
    return UNKNOWN


def _gif(file: Reader) -> Measures:
    sides = file.need(6, 4, "its head")
    return _pixels(little(sides[:2]), little(sides[2:]))


def _webp(file: Reader) -> Measures:
    name = file.need(12, 4, "its head")
    data = file.need(20, 5 if name == b"VP8L" else 10, "its head")
    if name == b"VP8X":
        return _pixels(little(data[4:7]) + 1, little(data[7:]) + 1)
    if name == b"VP8L" and data[0] == 0x2F:
        bits = little(data[1:])
        return _pixels((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if name == b"VP8 " and not data[0] & 1 and data[3:6] == b"\x9d\x01\x2a":  # a key frame
        return _pixels(little(data[6:8]) & 0x3FFF, little(data[8:]) & 0x3FFF)
    return UNKNOWN


def _bmp(file: Reader) -> Measures:
    if little(file.need(14, 4, "its head")) == 12:
        sides = file.need(18, 4, "its head")
        return _pixels(little(sides[:2]), little(sides[2:]))
    width, height = struct.unpack("<ii", file.need(18, 8, "its head"))
    return _pixels(width, abs(height))  # a negative height tells that its first row is the top one


def _movie(file: Reader) -> Measures:
    movie = next(((start, end) for name, start, end in boxes(file, 0, file.size) if name == b"moov"), None)
    if movie is None:
        return UNKNOWN
    inner = {name: (start, end) for name, start, end in boxes(file, *movie) if name in (b"mvhd", b"mvex")}
    if b"mvhd" not in inner:
        return UNKNOWN
    per_second, units = _movie_header(file, inner[b"mvhd"][0])
    if b"mvex" in inner:  # fragments follow, of which the movie header need know nothing
        units = next((_whole_length(file, at) for name, at, _ in boxes(file, *inner[b"mvex"]) if name == b"mehd"), None)
    return UNKNOWN if units is None else _lasting(units, per_second)


def _movie_header(file: Reader, start: int) -> tuple[int, int | None]:
    """Time units in a second, and how many of them the movie lasts."""
    if file.need(start, 1, "a box")[0] == 1:
        times = file.need(start + 20, 12, "a box")
        return number(times[:4]), _said(times[4:])
    times = file.need(start + 12, 8, "a box")
    return number(times[:4]), _said(times[4:])


def _whole_length(file: Reader, start: int) -> int | None:
    width = 8 if file.need(start, 1, "a box")[0] == 1 else 4
    return _said(file.need(start + 4, width, "a box"))


def _said(raw: bytes) -> int | None:
    """A number, None where all ones stand for "not known"."""
    return None if raw.strip(b"\xff") == b"" else number(raw)


SCALE, DURATION = 0x2AD7B1, 0x4489


def _webm(file: Reader) -> Measures:
    info = next(((start, end) for name, start, end in webm_parts(file) if name == INFO), None)
    if info is None:
        return UNKNOWN
    said = {name: (start, end - start) for name, start, end in elements(file, *info) if name in (SCALE, DURATION)}
    if DURATION not in said or said[DURATION][1] not in (4, 8):
        return UNKNOWN
    start, width = said[DURATION]
    (units,) = struct.unpack(">f" if width == 4 else ">d", file.need(start, width, "an element"))
    nanoseconds = 1_000_000
    if SCALE in said:
        start, width = said[SCALE]
        nanoseconds = number(file.need(start, min(width, 8), "an element"))
    return _lasting(Fraction(units) * nanoseconds, 1_000_000_000) if isfinite(units) else UNKNOWN


PCM = (1, 3, 0xFFFE)  # whole numbers, floating point, "see the extension": sounds of so many bytes a sample


def _wav(file: Reader) -> Measures:
    bytes_a_second = 0
    for name, start, length in riff_chunks(file, riff_end(file) or file.size):
        if name == b"fmt " and length >= 16:
            said = file.need(start, 16, "its format")
            is_pcm = little(said[:2]) in PCM
            bytes_a_second = little(said[4:8]) * little(said[12:14]) if is_pcm else 0
        elif name == b"data":
            file.must_hold(start + length, "its sound")
            return _lasting(length, bytes_a_second)
    return UNKNOWN


AFTER_SOUND = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"\0\0\0\0")


def _mp3(file: Reader) -> Measures:
    """All frames, counted, less what an encoder says it has added. Known only where nothing but frames and tags is in
    the file, at one rate."""
    begin = end = after_tag(file)
    samples, rates = 0, set[int]()
    for start, frame in frames(file, begin):
        samples += frame.samples if start > begin else _heard(file, start, frame)
        rates.add(frame.rate)
        end = start + frame.length
    rest = file.need(end, min(11, file.size - end), "its end") if end < file.size else b""
    if len(rates) != 1 or (rest and not rest.startswith(AFTER_SOUND)):
        return UNKNOWN
    return _lasting(samples, rates.pop())


def _heard(file: Reader, start: int, frame: Frame) -> int:
    """Samples of the first frame; where it only holds facts about the others, none, less those that are to be cut off
    from them at their two ends."""
    content = file.need(start, min(frame.length, 180), "a frame")
    facts = content[4 + frame.side :]
    if content[36:40] == b"VBRI":
        return 0
    if facts[:4] not in (b"Xing", b"Info"):
        return frame.samples
    if facts[7:8] != b"\x0f" or facts[120:124] not in (b"LAME", b"Lavf", b"Lavc"):
        return 0
    cut = number(facts[141:144])
    return -(cut >> 12) - (cut & 0xFFF)


_LOOKS: Mapping[Media, Callable[[Reader], Measures]] = {
    PNG: _png, JPEG: _jpeg, GIF: _gif, WEBP: _webp, BMP: _bmp, MP4: _movie, MOV: _movie, WEBM: _webm, WAV: _wav,
    MP3: _mp3,
}  # fmt: skip
