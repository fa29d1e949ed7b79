"""What a file is, by its first bytes, and whether it is there to its end. Nothing is ever decoded.

`sniff` names the type, `flaw` walks the container: boxes, chunks, markers or frames, each within the file, to the end
the format itself declares. That tells a whole file from one cut short without a length to compare with. Every step is
bounded: at most `STEPS` of them, and no read larger than a window.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

HEAD = 256  # bytes that `sniff` wants to see
STEPS = 1_000_000
WINDOW = 1 << 16


class Kind(StrEnum):
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class Media:
    """A type of file: `extension` without the dot."""

    kind: Kind
    media_type: str
    extension: str


PNG = Media(Kind.IMAGE, "image/png", "png")
JPEG = Media(Kind.IMAGE, "image/jpeg", "jpg")
WEBP = Media(Kind.IMAGE, "image/webp", "webp")
GIF = Media(Kind.IMAGE, "image/gif", "gif")
MP4 = Media(Kind.VIDEO, "video/mp4", "mp4")
MOV = Media(Kind.VIDEO, "video/quicktime", "mov")
WEBM = Media(Kind.VIDEO, "video/webm", "webm")
MP3 = Media(Kind.AUDIO, "audio/mpeg", "mp3")
WAV = Media(Kind.AUDIO, "audio/wav", "wav")
ALL = (PNG, JPEG, WEBP, GIF, MP4, MOV, WEBM, MP3, WAV)

_OTHER_SPELLINGS = {"jpeg": "jpg", "jpe": "jpg", "m4v": "mp4", "qt": "mov", "wave": "wav"}


def same_extension(one: str, other: str) -> bool:
    """Whether two extensions mean the same type: case and the usual second spellings do not count."""
    return _plain(one) == _plain(other)


def known_extension(extension: str) -> bool:
    return _plain(extension) in {media.extension for media in ALL}


def _plain(extension: str) -> str:
    lower = extension.lower()
    return _OTHER_SPELLINGS.get(lower, lower)


class Source(Protocol):
    """A file of `size` bytes; `read` gives fewer than asked for only at its end."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


# --- what it is

_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"crx ")
_MOVIE_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def sniff(head: bytes) -> Media | None:
    """The type by the first `HEAD` bytes of a file; None where they begin none of the types in `ALL`."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return GIF
    if head[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"WAVE": WAV}.get(head[8:12])
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM if b"webm" in head else None
    return _sniff_boxes(head) or _sniff_mp3(head)


def _sniff_boxes(head: bytes) -> Media | None:
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return None if brand in _STILL_BRANDS else MOV if brand == b"qt  " else MP4
    return MOV if head[4:8] in _MOVIE_BOXES else None


def _sniff_mp3(head: bytes) -> Media | None:
    return MP3 if head.startswith(b"ID3") or _frame_length(head[:4]) else None


# --- whether it is whole


class _Flaw(Exception):
    """What is wrong with the file, in words that follow "the file is not whole: "."""


def flaw(media: Media, source: Source) -> str | None:
    """Why this file is not a whole one of its type; None where it is."""
    walk = {
        PNG: _png, JPEG: _jpeg, GIF: _gif, WEBP: _webp, WAV: _wav, MP4: _movie, MOV: _movie, WEBM: _webm, MP3: _mp3
    }[media]  # fmt: skip
    try:
        walk(_Reader(source))
    except _Flaw as found:
        return str(found)
    return None


class _Reader:
    """Small reads out of a window; refuses to read past the end, and to take more than `STEPS` steps."""

    def __init__(self, source: Source) -> None:
        self.size = source.size
        self._source = source
        self._window = b""
        self._start = 0
        self._steps = 0

    def need(self, offset: int, length: int, what: str) -> bytes:
        """Exactly these few bytes."""
        self.must_hold(offset + length, what)
        piece = self._from(offset, length)[:length]
        if len(piece) < length:
            raise _Flaw(f"it ends within {what}")
        return piece

    def must_hold(self, end: int, what: str) -> None:
        if end > self.size:
            raise _Flaw(f"it ends within {what}")

    def pieces(self, offset: int, end: int) -> Iterator[bytes]:
        """The bytes between two offsets, at most a window at a time."""
        while offset < end:
            piece = self._from(offset, 1)[: end - offset]
            if not piece:
                raise _Flaw("it ends early")
            yield piece
            offset += len(piece)

    def _from(self, offset: int, least: int) -> bytes:
        self._steps += 1
        if self._steps > STEPS:
            raise _Flaw("it has too many parts")
        if not self._start <= offset <= offset + least <= self._start + len(self._window):
            self._start, self._window = offset, self._source.read(offset, WINDOW)
        return self._window[offset - self._start :]


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _little(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _png(file: _Reader) -> None:
    """Chunks with right checksums: first IHDR, image data, last IEND."""
    offset, seen = 8, set[bytes]()
    while b"IEND" not in seen:
        head = file.need(offset, 8, "a chunk's head")
        length, name = _number(head[:4]), head[4:]
        if not seen and name != b"IHDR":
            raise _Flaw("its first chunk is not IHDR")
        file.must_hold(offset + 12 + length, "a chunk")
        crc = 0
        for piece in file.pieces(offset + 4, offset + 8 + length):
            crc = zlib.crc32(piece, crc)
        if crc != _number(file.need(offset + 8 + length, 4, "a chunk's checksum")):
            raise _Flaw("a chunk's checksum is wrong")
        seen.add(name)
        offset += 12 + length
    if b"IDAT" not in seen:
        raise _Flaw("it holds no image data")


# In compressed image data 0xff is followed by zero, by a restart marker, or it begins the next segment.
_NEXT_SEGMENT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(file: _Reader) -> None:
    """Segments to the end-of-image marker; what follows it (a second picture, say) does not matter."""
    offset, seen = 2, set[int]()
    while (marker := file.need(offset, 2, "a marker")) != b"\xff\xd9":
        if marker[0] != 0xFF:
            raise _Flaw("a marker is missing")
        kind = marker[1]
        if kind == 0xFF:  # a fill byte
            offset += 1
            continue
        offset += 2
        if kind not in _BARE_MARKERS:
            length = _number(file.need(offset, 2, "a segment's head"))
            if length < 2:
                raise _Flaw("a segment has no length")
            offset += length
            file.must_hold(offset, "a segment")
        seen.add(kind)
        if kind == 0xDA:
            offset = _after_scan(file, offset)
    if 0xDA not in seen or not seen & _FRAME_MARKERS:
        raise _Flaw("it holds no image data")


def _after_scan(file: _Reader, offset: int) -> int:
    last = b""
    for piece in file.pieces(offset, file.size):
        if found := _NEXT_SEGMENT.search(last + piece):
            return offset - len(last) + found.start()
        offset, last = offset + len(piece), piece[-1:]
    raise _Flaw("it has no end-of-image marker")


def _gif(file: _Reader) -> None:
    """Blocks to the trailer."""
    offset, pictures = 13 + _colour_table(file.need(10, 1, "its head")[0]), 0
    while (kind := file.need(offset, 1, "a block")) != b"\x3b":
        if kind == b"\x21":
            offset = _after_blocks(file, offset + 2)
        elif kind == b"\x2c":
            flags = file.need(offset + 9, 1, "a picture's head")[0]
            offset, pictures = _after_blocks(file, offset + 11 + _colour_table(flags)), pictures + 1
        else:
            raise _Flaw("it holds an unknown block")
    if not pictures:
        raise _Flaw("it holds no picture")


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(file: _Reader, offset: int) -> int:
    while length := file.need(offset, 1, "a block")[0]:
        offset += 1 + length
    return offset + 1


def _webp(file: _Reader) -> None:
    """Chunks that fill the length in the head, the first of them an image's."""
    end = 8 + _little(file.need(4, 4, "its head"))
    file.must_hold(end, "its data")
    names = _riff_chunks(file, end)
    if not names or names[0] not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise _Flaw("it holds no image data")
    if names[0] == b"VP8X" and not {b"VP8 ", b"VP8L", b"ANMF"} & set(names):
        raise _Flaw("it holds no image data")


def _wav(file: _Reader) -> None:
    """Chunks that fill the length in the head; a length that a stream could not know (0 or all ones) is not held."""
    length = _little(file.need(4, 4, "its head"))
    end = file.size if length in (0, 0xFFFFFFFF) else 8 + length
    file.must_hold(end, "its data")
    if length not in (0, 0xFFFFFFFF) and b"data" not in _riff_chunks(file, end):
        raise _Flaw("it holds no sound")


def _riff_chunks(file: _Reader, end: int) -> list[bytes]:
    names, offset = [], 12
    while offset < end:
        head = file.need(offset, 8, "a chunk's head")
        length = _little(head[4:])
        names.append(head[:4])
        if offset + 8 + length > end:
            raise _Flaw("a chunk is longer than the file says it is")
        offset += 8 + length + length % 2
    return names


def _movie(file: _Reader) -> None:
    """Boxes to the exact end of the file, a movie header with tracks and media data among them."""
    boxes = list(_boxes(file, 0, file.size))
    data = [end - start for name, start, end in boxes if name == b"mdat"]
    movie = next(((start, end) for name, start, end in boxes if name == b"moov"), None)
    if movie is None:
        raise _Flaw("it has no movie header (moov)")
    if not any(data):
        raise _Flaw("it has no media data (mdat)")
    inner = {name for name, _, _ in _boxes(file, *movie)}
    if not {b"mvhd", b"trak"} <= inner and b"cmov" not in inner:
        raise _Flaw("its movie header names no track")


def _boxes(file: _Reader, offset: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box between two offsets."""
    while offset < end:
        if end - offset < 8:
            raise _Flaw("it ends within a box")
        head = file.need(offset, 8, "a box's head")
        length, name, start = _number(head[:4]), head[4:], offset + 8
        if length == 1:
            length, start = _number(file.need(offset + 8, 8, "a box's head")), offset + 16
        elif length == 0:  # to the end of the file: allowed for the last box
            length = end - offset
        if offset + length < start:
            raise _Flaw("a box has an impossible length")
        if offset + length > end:
            raise _Flaw(f"it ends within a box ({name.decode('latin-1')})" if name.isalnum() else "it ends in a box")
        yield name, start, offset + length
        offset += length


_EBML, _SEGMENT, _CLUSTER, _TRACKS = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1654AE6B


def _webm(file: _Reader) -> None:
    """An EBML head, then one segment with tracks and clusters; in a streamed file lengths may be unknown."""
    _, _, offset = _element(file, 0, file.size)
    name, start, end = _element(file, offset, file.size)
    if name != _SEGMENT:
        raise _Flaw("it has no segment")
    seen, offset = set[int](), start
    while offset < end:
        name, _, offset = _element(file, offset, end)
        seen.add(name)
    if not {_CLUSTER, _TRACKS} <= seen:
        raise _Flaw("it holds no tracks or no data")


def _element(file: _Reader, offset: int, limit: int) -> tuple[int, int, int]:
    """Name, start and end of the content of an EBML element; one of unknown length reaches to `limit`."""
    name_length = _vint_length(file.need(offset, 1, "an element")[0])
    name = _number(file.need(offset, name_length, "an element"))
    at = offset + name_length
    size_length = _vint_length(file.need(at, 1, "an element")[0])
    size = _number(file.need(at, size_length, "an element")) & ((1 << 7 * size_length) - 1)
    start = at + size_length
    end = limit if size == (1 << 7 * size_length) - 1 else start + size
    if end > limit:
        raise _Flaw("it ends within an element")
    return name, start, end


def _vint_length(first: int) -> int:
    if first == 0:
        raise _Flaw("it holds something that is no element")
    return 9 - first.bit_length()


_BIT_RATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1, layer III, kbit/s
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def _frame_length(head: bytes) -> int:
    """The length of the MP3 frame that begins so; 0 where none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, rate, sampling = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or rate in (0, 15) or sampling == 3:
        return 0
    samples = 144 if version == 3 else 72
    return samples * _BIT_RATES[version == 3][rate] * 1000 // _SAMPLE_RATES[version][sampling] + (head[2] >> 1 & 1)


def _mp3(file: _Reader) -> None:
    """Frames, none of them cut; what follows the last one (tags, padding) does not matter."""
    offset = frames = 0
    if file.need(0, 3, "its head") == b"ID3":
        sizes = file.need(6, 4, "its tag")
        offset = 10 + sum((size & 0x7F) << shift for size, shift in zip(sizes, (21, 14, 7, 0), strict=True))
    while offset + 4 <= file.size and (length := _frame_length(file.need(offset, 4, "a frame"))):
        file.must_hold(offset + length, "a frame")
        offset, frames = offset + length, frames + 1
    if not frames:
        raise _Flaw("it holds no sound")
    if offset < file.size < offset + 4 and file.need(offset, 1, "a frame") == b"\xff":
        raise _Flaw("it ends within a frame")
