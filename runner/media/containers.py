"""How the formats are built: segments, chunks, boxes, elements and frames, gone through one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from runner.media.reader import Flaw, Reader


def number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def little(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


DIB_HEADS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # bytes: the head of a BMP tells its version by its length

# In compressed image data 0xff is followed by zero, by a restart marker, or it begins the next segment.
_NEXT_SEGMENT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCAN = 0xDA


def segments(file: Reader) -> Iterator[tuple[int, int]]:
    """Marker of each segment of a JPEG and where its content begins, to the end-of-image marker."""
    offset = 2
    while (marker := file.need(offset, 2, "a marker")) != b"\xff\xd9":
        if marker[0] != 0xFF:
            raise Flaw("a marker is missing")
        kind = marker[1]
        if kind == 0xFF:  # a fill byte
            offset += 1
            continue
        offset = start = offset + 2
        if kind not in _BARE_MARKERS:
            offset += _segment_length(file, start)
        yield kind, start
        if kind == SCAN:
            offset = _after_scan(file, offset)


def _segment_length(file: Reader, start: int) -> int:
    length = number(file.need(start, 2, "a segment's head"))
    if length < 2:
        raise Flaw("a segment has no length")
    file.must_hold(start + length, "a segment")
    return length


def _after_scan(file: Reader, offset: int) -> int:
    last = b""
    for piece in file.pieces(offset, file.size):
        if found := _NEXT_SEGMENT.search(last + piece):
            return offset - len(last) + found.start()
        offset, last = offset + len(piece), piece[-1:]
    raise Flaw("it has no end-of-image marker")


def riff_end(file: Reader) -> int | None:
    """Where a RIFF file ends by its own head; None where a stream could not know (0 or all ones)."""
    length = little(file.need(4, 4, "its head"))
    return None if length in (0, 0xFFFFFFFF) else 8 + length


def riff_chunks(file: Reader, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of the content of each chunk of a RIFF file that ends there."""
    offset = 12
    while offset < end:
        head = file.need(offset, 8, "a chunk's head")
        length = little(head[4:])
        if offset + 8 + length > end:
            raise Flaw("a chunk is longer than the file says it is")
        yield head[:4], offset + 8, length
        offset += 8 + length + length % 2


def boxes(file: Reader, offset: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box of an MP4 or MOV between two offsets."""
    while offset < end:
        if end - offset < 8:
            raise Flaw("it ends within a box")
        head = file.need(offset, 8, "a box's head")
        length, name, start = number(head[:4]), head[4:], offset + 8
        if length == 1:
            length, start = number(file.need(offset + 8, 8, "a box's head")), offset + 16
        elif length == 0:  # to the end of the file: allowed for the last box
            length = end - offset
        if offset + length < start:
            raise Flaw("a box has an impossible length")
        if offset + length > end:
            raise Flaw(f"it ends within a box ({name.decode('latin-1')})" if name.isalnum() else "it ends in a box")
        yield name, start, offset + length
        offset += length


SEGMENT, INFO, TRACKS, CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675


def webm_parts(file: Reader) -> Iterator[tuple[int, int, int]]:
    """The elements of the one segment of a WebM; in a streamed file lengths may be unknown."""
    _, _, offset = _element(file, 0, file.size)
    name, start, end = _element(file, offset, file.size)
    if name != SEGMENT:
        raise Flaw("it has no segment")
    return elements(file, start, end)


def elements(file: Reader, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Name, start and end of the content of each EBML element between two offsets."""
    while offset < end:
        name, start, offset = _element(file, offset, end)
        yield name, start, offset


def _element(file: Reader, offset: int, limit: int) -> tuple[int, int, int]:
    """Name, start and end of the content of an EBML element; one of unknown length reaches to `limit`."""
    name_length = _vint_length(file.need(offset, 1, "an element")[0])
    name = number(file.need(offset, name_length, "an element"))
    at = offset + name_length
    size_length = _vint_length(file.need(at, 1, "an element")[0])
    size = number(file.need(at, size_length, "an element")) & ((1 << 7 * size_length) - 1)
    start = at + size_length
    end = limit if size == (1 << 7 * size_length) - 1 else start + size
    if end > limit:
        raise Flaw("it ends within an element")
    return name, start, end


def _vint_length(first: int) -> int:
    if first == 0:
        raise Flaw("it holds something that is no element")
    return 9 - first.bit_length()


_BIT_RATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1, layer III, kbit/s
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of an MP3: `length` in bytes with its head, `samples` a channel, `rate` of them a second; `side` bytes
    stand between its head and its data."""

    length: int
    samples: int
    rate: int
    side: int


def frame(head: bytes) -> Frame | None:
    """The MP3 frame that begins with these four bytes, None where none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate, sampling = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or rate in (0, 15) or sampling == 3:
        return None
    newest, mono = version == 3, head[3] >> 6 == 3
    samples, per_second = 1152 if newest else 576, _SAMPLE_RATES[version][sampling]
    length = samples // 8 * _BIT_RATES[newest][rate] * 1000 // per_second + (head[2] >> 1 & 1)
    return Frame(length, samples, per_second, (17 if mono else 32) if newest else (9 if mono else 17))


def after_tag(file: Reader) -> int:
    """Where the frames of an MP3 begin: after its ID3 tag, if it has one."""
    if file.need(0, 3, "its head") != b"ID3":
        return 0
    sizes = file.need(6, 4, "its tag")
    return 10 + sum((size & 0x7F) << shift for size, shift in zip(sizes, (21, 14, 7, 0), strict=True))


def frames(file: Reader, offset: int) -> Iterator[tuple[int, Frame]]:
    """The frames of an MP3 from there on, none of them cut, and where each begins."""
    while offset + 4 <= file.size and (found := frame(file.need(offset, 4, "a frame"))):
        file.must_hold(offset + found.length, "a frame")
        yield offset, found
        offset += found.length
