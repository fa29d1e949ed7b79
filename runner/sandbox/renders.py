"""The results: small playable files of our own, made unique by the task's id and padded to a believable length.

The four in `media/` were made once: a second of 192x108 H.264 with its index in front, a PNG, a JPEG, and a WebP in the
extended layout (which allows foreign chunks). Nothing is encoded at run time. The bytes are a pure function of task id,
index, version and the range of sizes.

    MP4   free box with the mark, free box of padding, both behind the media, so that no offset moves
    PNG   tEXt chunk "sandbox" before the image data, private chunk spAd of padding before IEND, right checksums
    JPEG  COM segments behind SOI
    WebP  RIFF chunks SAND and PADD behind the image, the sizes in RIFF put right
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources

MEDIA_TYPES = {"mp4": "video/mp4", "png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
SOURCES = {"mp4": "clip.mp4", "png": "still.png", "jpg": "still.jpg", "webp": "still.webp"}
BLOCK = 1 << 16  # bytes of padding before it repeats
COMMENT = 65000  # bytes in one COM segment of padding


@dataclass(frozen=True, slots=True)
class Render:
    """A file: `head`, then `padding` bytes of the repeated `block`, then `tail`."""

    extension: str
    head: bytes
    block: bytes
    padding: int
    tail: bytes = b""
    etag: str = ""

    @property
    def length(self) -> int:
        return len(self.head) + self.padding + len(self.tail)

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.extension]

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer at the end."""
        pieces, position, left = [], start, min(size, self.length - start)
        for offset, length, take in (
            (0, len(self.head), self._from_head),
            (len(self.head), self.padding, self._from_padding),
            (len(self.head) + self.padding, len(self.tail), self._from_tail),
        ):
            if left > 0 and position < offset + length:
                piece = take(position - offset, min(left, offset + length - position))
                pieces.append(piece)
                position, left = position + len(piece), left - len(piece)
        return b"".join(pieces)

    def _from_head(self, start: int, size: int) -> bytes:
        return self.head[start : start + size]

    def _from_tail(self, start: int, size: int) -> bytes:
        return self.tail[start : start + size]

    def _from_padding(self, start: int, size: int) -> bytes:
        inside = start % BLOCK
        repeats = (inside + size) // BLOCK + 1
        return (self.block * repeats)[inside : inside + size]


def render(task_id: str, index: int, extension: str, sizes: tuple[int, int], version: int = 0) -> Render:
    """The `index`-th file of a task, between `sizes` bytes long (never shorter than the bare picture with its mark)."""
    return _render(task_id, index, extension, sizes, version)


@lru_cache(maxsize=64)
def _render(task_id: str, index: int, extension: str, sizes: tuple[int, int], version: int) -> Render:
    drawn = random.Random(f"{task_id}:{index}:{version}")
    length = drawn.randint(*sizes)
    block = drawn.randbytes(BLOCK // 16) * 16
    mark = json.dumps({"task_id": task_id, "index": index}).encode()
    source = _source(extension)
    make = {"mp4": _mp4, "png": _png, "jpg": _jpeg, "webp": _webp}[extension]
    made = make(source, mark, block, length)
    known = hashlib.sha256(made.head + made.block + made.tail + str(made.length).encode())
    return replace(made, etag=f'"{known.hexdigest()[:32]}"')


@cache
def _source(extension: str) -> bytes:
    return resources.files(__package__).joinpath("media", SOURCES[extension]).read_bytes()


def _mp4(source: bytes, mark: bytes, block: bytes, length: int) -> Render:
    marked = source + struct.pack(">I4s", 8 + len(mark), b"free") + mark
    padding = max(0, length - len(marked) - 8)
    return Render("mp4", marked + struct.pack(">I4s", 8 + padding, b"free"), block, padding)


def _png(source: bytes, mark: bytes, block: bytes, length: int) -> Render:
    ends_ihdr, starts_iend = 8 + 12 + 13, len(source) - 12
    head = source[:ends_ihdr] + _png_chunk(b"tEXt", b"sandbox\0" + mark) + source[ends_ihdr:starts_iend]
    padding = max(0, length - len(head) - 12 - 12)
    filling = (block * (padding // BLOCK + 1))[:padding]
    chunk = _png_chunk(b"spAd", filling)
    return Render("png", head + chunk[:8], block, padding, chunk[-4:] + source[starts_iend:])


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _jpeg(source: bytes, mark: bytes, block: bytes, length: int) -> Render:
    marked = source[:2] + _comment(mark)
    left = max(0, length - len(marked) - len(source) + 2)
    comments = b""
    while left > 4:
        size = min(COMMENT, left - 4)
        comments += _comment(block[:size])
        left -= size + 4
    return Render("jpg", marked + comments + source[2:], block, 0)


def _comment(content: bytes) -> bytes:
    return b"\xff\xfe" + struct.pack(">H", len(content) + 2) + content


def _webp(source: bytes, mark: bytes, block: bytes, length: int) -> Render:
    chunks = source[12:] + _riff_chunk(b"SAND", mark)
    padding = max(0, length - 12 - len(chunks) - 8) & ~1
    head = b"RIFF" + struct.pack("<I", 4 + len(chunks) + 8 + padding) + b"WEBP" + chunks
    return Render("webp", head + b"PADD" + struct.pack("<I", padding), block, padding)


def _riff_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
