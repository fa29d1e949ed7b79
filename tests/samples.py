"""Small files of every type, made byte by byte: whole containers whose content need not be playable."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes without a pattern, always the same."""
    out = bytearray()
    while len(out) < size:
        seed = (seed * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        out += seed.to_bytes(8, "big")
    return bytes(out[:size])


def png(size: int = 300) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    data = noise(size)
    middle = b"".join(chunk(b"IDAT", data[at : at + 200]) for at in range(0, size, 200))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"tEXt", b"Title\0x") + middle + chunk(b"IEND", b"")


def jpeg(size: int = 300) -> bytes:
    """Two scans, restart markers, fill bytes, and an end-of-image marker hidden in a thumbnail."""

    def segment(kind: int, data: bytes) -> bytes:
        return bytes([0xFF, kind]) + struct.pack(">H", len(data) + 2) + data

    def scan(seed: int) -> bytes:
        data = noise(size, seed).replace(b"\xff", b"\xff\x00")
        return segment(0xDA, bytes(6)) + data[: size // 2] + b"\xff\xd3" + data[size // 2 :]

    thumbnail = segment(0xE1, b"Exif\0\0" + b"\xff\xd8thumb\xff\xd9")
    frame = segment(0xC2, bytes(9))
    between = b"\xff" + segment(0xC4, bytes(20))
    return b"\xff\xd8" + thumbnail + frame + scan(2) + between + scan(3) + b"\xff\xd9"


def gif(size: int = 300) -> bytes:
    def blocks(data: bytes) -> bytes:
        return b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255)) + b"\0"

    head = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x81, 0, 0) + bytes(12)
    loop = b"\x21\xff" + blocks(b"NETSCAPE2.0")
    picture = b"\x2c" + struct.pack("<HHHHB", 0, 0, 4, 4, 0x80) + bytes(6) + b"\x02" + blocks(noise(size))
    return head + loop + picture + picture + b"\x3b"


def webp(size: int = 301) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    body = b"WEBP" + chunk(b"VP8X", bytes(10)) + chunk(b"VP8 ", noise(size)) + chunk(b"EXIF", b"abc")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wav(size: int = 300) -> bytes:
    body = b"WAVE" + b"fmt " + struct.pack("<I", 16) + bytes(16) + b"data" + struct.pack("<I", size) + noise(size)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def box(name: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), name) + data


def mp4(size: int = 300, brand: bytes = b"isom") -> bytes:
    return box(b"ftyp", brand + b"\0\0\2\0" + b"isomiso2") + moov() + box(b"mdat", noise(size))


def mp4_header_last(size: int = 300) -> bytes:
    """As encoders write them that do not look back; the media data with a 64-bit length."""
    data = struct.pack(">I4sQ", 1, b"mdat", 16 + size) + noise(size)
    return box(b"ftyp", b"mp42\0\0\2\0mp42") + box(b"free") + data + moov()


def mp4_fragments(size: int = 300) -> bytes:
    fragment = box(b"moof", box(b"mfhd", bytes(8))) + box(b"mdat", noise(size))
    return box(b"ftyp", b"iso5\0\0\2\0iso5") + moov() + box(b"sidx", bytes(24)) + fragment


def mov(size: int = 300) -> bytes:
    return box(b"wide") + box(b"mdat", noise(size)) + moov()


def moov() -> bytes:
    return box(b"moov", box(b"mvhd", bytes(100)), box(b"trak", box(b"tkhd", bytes(84))))


def _element(name: int, data: bytes) -> bytes:
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (len(data) | 1 << 56).to_bytes(8, "big") + data


def _webm_parts(size: int) -> tuple[bytes, bytes]:
    head = _element(0x1A45DFA3, _element(0x4282, b"webm") + _element(0x4287, b"\x04"))
    inner = _element(0x1549A966, bytes(12)) + _element(0x1654AE6B, bytes(40))
    return head, inner + _element(0x1F43B675, noise(size)) + _element(0x1F43B675, noise(size, 9))


def webm(size: int = 300) -> bytes:
    head, inner = _webm_parts(size)
    return head + _element(0x18538067, inner)


def webm_streamed(size: int = 300) -> bytes:
    """A segment that does not know its length."""
    head, inner = _webm_parts(size)
    return head + bytes.fromhex("18538067 01ffffffffffffff") + inner


def mp3(frames: int = 4) -> bytes:
    tag = b"ID3\x04\0\0" + bytes([0, 0, 1, 0]) + bytes(128)
    return tag + b"".join(b"\xff\xfb\x90\x00" + noise(413, n) for n in range(frames))


SAMPLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": ("png", png),
    "jpeg": ("jpg", jpeg),
    "gif": ("gif", gif),
    "webp": ("webp", webp),
    "wav": ("wav", wav),
    "mp4": ("mp4", mp4),
    "mp4, header last": ("mp4", mp4_header_last),
    "mp4, fragments": ("mp4", mp4_fragments),
    "mov": ("mov", mov),
    "mov by brand": ("mov", lambda: mp4(brand=b"qt  ")),
    "webm": ("webm", webm),
    "webm, streamed": ("webm", webm_streamed),
    "mp3": ("mp3", mp3),
}
