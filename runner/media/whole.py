"""Whether a file is there to its end. Nothing is ever decoded.

`flaw` walks the container: boxes, chunks, markers or frames, each within the file, to the end the format itself
declares. That tells a whole file from one cut short without a length to compare with.
"""

from __future__ import annotations

import zlib

from runner.media.containers import (
    CLUSTER,
    FRAME_MARKERS,
    SCAN,
    TRACKS,
    after_tag,
    boxes,
    frames,
    number,
    riff_chunks,
    riff_end,
    segments,
    webm_parts,
)
from runner.media.kinds import GIF, JPEG, MOV, MP3, MP4, PNG, WAV, WEBM, WEBP, Media
from runner.media.reader import Flaw, Reader, Source


def flaw(media: Media, source: Source) -> str | None:
    """Why this file is not a whole one of its type; None where it is."""
    walk = {
        PNG: _png, JPEG: _jpeg, GIF: _gif, WEBP: _webp, WAV: _wav, MP4: _movie, MOV: _movie, WEBM: _webm, MP3: _mp3
    }[media]  # fmt: skip
    try:
        walk(Reader(source))
    except Flaw as found:
        return str(found)
    return None


def _png(file: Reader) -> None:
    """Chunks with right checksums: first IHDR, image data, last IEND."""
    offset, seen = 8, set[bytes]()
    while b"IEND" not in seen:
        head = file.need(offset, 8, "a chunk's head")
        length, name = number(head[:4]), head[4:]
        if not seen and name != b"IHDR":
            raise Flaw("its first chunk is not IHDR")
        file.must_hold(offset + 12 + length, "a chunk")
        crc = 0
        for piece in file.pieces(offset + 4, offset + 8 + length):
            crc = zlib.crc32(piece, crc)
        if crc != number(file.need(offset + 8 + length, 4, "a chunk's checksum")):
            raise Flaw("a chunk's checksum is wrong")
        seen.add(name)
        offset += 12 + length
    if b"IDAT" not in seen:
        raise Flaw("it holds no image data")


def _jpeg(file: Reader) -> None:
    """Segments to the end-of-image marker; what follows it (a second picture, say) does not matter."""
    seen = {kind for kind, _ in segments(file)}
    if SCAN not in seen or not seen & FRAME_MARKERS:
        raise Flaw("it holds no image data")


def _gif(file: Reader) -> None:
    """Blocks to the trailer."""
    offset, pictures = 13 + _colour_table(file.need(10, 1, "its head")[0]), 0
    while (kind := file.need(offset, 1, "a block")) != b"\x3b":
        if kind == b"\x21":
            offset = _after_blocks(file, offset + 2)
        elif kind == b"\x2c":
            flags = file.need(offset + 9, 1, "a picture's head")[0]
            offset, pictures = _after_blocks(file, offset + 11 + _colour_table(flags)), pictures + 1
        else:
            raise Flaw("it holds an unknown block")
    if not pictures:
        raise Flaw("it holds no picture")


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(file: Reader, offset: int) -> int:
    while length := file.need(offset, 1, "a block")[0]:
        offset += 1 + length
    return offset + 1


def _webp(file: Reader) -> None:
    """Chunks that fill the length in the head, the first of them an image's."""
    end = riff_end(file)
    if end is None:
        raise Flaw("it does not say how long it is")
    file.must_hold(end, "its data")
    names = [name for name, _, _ in riff_chunks(file, end)]
    if not names or names[0] not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise Flaw("it holds no image data")
    if names[0] == b"VP8X" and not {b"VP8 ", b"VP8L", b"ANMF"} & set(names):
        raise Flaw("it holds no image data")


def _wav(file: Reader) -> None:
    """Chunks that fill the length in the head; a length that a stream could not know is not held."""
    end = riff_end(file)
    if end is None:
        return
    file.must_hold(end, "its data")
    if b"data" not in {name for name, _, _ in riff_chunks(file, end)}:
        raise Flaw("it holds no sound")


def _movie(file: Reader) -> None:
    """Boxes to the exact end of the file, a movie header with tracks and media data among them."""
    found = list(boxes(file, 0, file.size))
    data = [end - start for name, start, end in found if name == b"mdat"]
    movie = next(((start, end) for name, start, end in found if name == b"moov"), None)
    if movie is None:
        raise Flaw("it has no movie header (moov)")
    if not any(data):
        raise Flaw("it has no media data (mdat)")
    inner = {name for name, _, _ in boxes(file, *movie)}
    if not {b"mvhd", b"trak"} <= inner and b"cmov" not in inner:
        raise Flaw("its movie header names no track")


def _webm(file: Reader) -> None:
    """An EBML head, then one segment with tracks and clusters."""
    if not {CLUSTER, TRACKS} <= {name for name, _, _ in webm_parts(file)}:
        raise Flaw("it holds no tracks or no data")


def _mp3(file: Reader) -> None:
    """Frames, none of them cut; what follows the last one (tags, padding) does not matter."""
    offset = None
    for start, frame in frames(file, after_tag(file)):
        offset = start + frame.length
    if offset is None:
        raise Flaw("it holds no sound")
    if offset < file.size < offset + 4 and file.need(offset, 1, "a frame") == b"\xff":
        raise Flaw("it ends within a frame")
