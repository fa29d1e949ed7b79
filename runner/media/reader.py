"""Bounded reading: small pieces out of a window, never past the end, never more than so many steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

STEPS = 1_000_000
WINDOW = 1 << 16  # bytes


class Source(Protocol):
    """A file of `size` bytes; `read` gives fewer than asked for only at its end."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class Flaw(Exception):
    """What is wrong with the file, in words that follow "the file is not whole: "."""


class Reader:
    """Small reads out of a window of so many bytes; refuses to read past the end, and to take too many steps."""

    def __init__(self, source: Source, steps: int = STEPS, window: int = WINDOW) -> None:
        self.size = source.size
        self._source = source
        self._steps, self._width = steps, window
        self._window = b""
        self._start = 0

    def need(self, offset: int, length: int, what: str) -> bytes:
        """Exactly these few bytes."""
        self.must_hold(offset + length, what)
        piece = self._from(offset, length)[:length]
        if len(piece) < length:
            raise Flaw(f"it ends within {what}")
        return piece

    def must_hold(self, end: int, what: str) -> None:
        if end > self.size:
            raise Flaw(f"it ends within {what}")

    def pieces(self, offset: int, end: int) -> Iterator[bytes]:
        """The bytes between two offsets, at most a window at a time."""
        while offset < end:
            piece = self._from(offset, 1)[: end - offset]
            if not piece:
                raise Flaw("it ends early")
            yield piece
            offset += len(piece)

    def _from(self, offset: int, least: int) -> bytes:
        self._steps -= 1
        if self._steps < 0:
            raise Flaw("it has too many parts")
        if not self._start <= offset <= offset + least <= self._start + len(self._window):
            self._start, self._window = offset, self._source.read(offset, self._width)
        return self._window[offset - self._start :]
