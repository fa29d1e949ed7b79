"""The types of files there are, and which of them a file is by its first bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.media.containers import DIB_HEADS, frame, little

HEAD = 256  # bytes that `sniff` wants to see


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
BMP = Media(Kind.IMAGE, "image/bmp", "bmp")
MP4 = Media(Kind.VIDEO, "video/mp4", "mp4")
MOV = Media(Kind.VIDEO, "video/quicktime", "mov")
WEBM = Media(Kind.VIDEO, "video/webm", "webm")
MP3 = Media(Kind.AUDIO, "audio/mpeg", "mp3")
WAV = Media(Kind.AUDIO, "audio/wav", "wav")
ALL = (PNG, JPEG, WEBP, GIF, MP4, MOV, WEBM, MP3, WAV)  # what providers render
INPUTS = (*ALL, BMP)  # what they may be given

_OTHER_SPELLINGS = {"jpeg": "jpg", "jpe": "jpg", "m4v": "mp4", "qt": "mov", "wave": "wav"}


def same_extension(one: str, other: str) -> bool:
    """Whether two extensions mean the same type: case and the usual second spellings do not count."""
    return _plain(one) == _plain(other)


def known_extension(extension: str) -> bool:
    return _plain(extension) in {media.extension for media in ALL}


def _plain(extension: str) -> str:
    lower = extension.lower()
    return _OTHER_SPELLINGS.get(lower, lower)


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


def sniff_input(head: bytes) -> Media | None:
    """The same for the types in `INPUTS`."""
    is_bmp = head.startswith(b"BM") and little(head[14:18]) in DIB_HEADS
    return BMP if is_bmp else sniff(head)


def _sniff_boxes(head: bytes) -> Media | None:
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return None if brand in _STILL_BRANDS else MOV if brand == b"qt  " else MP4
    return MOV if head[4:8] in _MOVIE_BOXES else None


def _sniff_mp3(head: bytes) -> Media | None:
    return MP3 if head.startswith(b"ID3") or frame(head[:4]) else None
