"""A table's lines, one after the other: hashed, decoded and checked as they are read, never kept."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from runner.problems import CONTROL, looks_secret

CHUNK = 1 << 16  # bytes
LONGEST = 1_000_000  # characters of a line


class Broken(Exception):
    """A table cannot be read, or not further.

    `line` and `column` count from 1; `text` is the line if it may be shown.
    """

    def __init__(
        self, code: str, message: str, hint: str = "", line: int = 1, column: int = 1, text: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint
        self.line, self.column, self.text = line, column, text


class Lines:
    """UTF-8 with or without a byte order mark; no control characters, nothing that looks like a key, no endless line.

    `number` is that of the line given last. Raises `Broken`, when opened and on the way.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = _Hashed(_opened(path))
        self._text = io.TextIOWrapper(io.BufferedReader(self._bytes, CHUNK), encoding="utf-8-sig", newline="")
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._next():
            self.number += 1
            if CONTROL.search(line):
                raise self._control(line)
            if looks_secret(line):
                hint = "keys come from the environment: <PROVIDER>_API_KEY"
                raise Broken("B31", "this looks like a key", hint, self.number)
            yield line

    @property
    def sha256(self) -> str:
        """Of everything read so far: of the file, after the last line."""
        return self._bytes.hash.hexdigest()

    def close(self) -> None:
        self._text.close()

    def _next(self) -> str:
        try:
            line = self._text.readline(LONGEST + 1)
        except UnicodeDecodeError as error:
            wrong = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
            raise Broken("B26", wrong, "save the table as UTF-8", *_where_undecodable(self._path)) from None
        except OSError as error:
            raise Broken("B03", f"cannot be read: {error.strerror}", line=self.number + 1) from None
        if len(line) > LONGEST:
            raise Broken("B68", f"a line has more than {LONGEST:,} characters", "split it", self.number + 1)
        return line

    def _control(self, line: str) -> Broken:
        sign = CONTROL.search(line)
        column, name = (sign.start() + 1, f"U+{ord(sign[0]):04X}") if sign else (1, "this sign")
        message = f"{name} is not allowed in a table"
        return Broken("B26", message, "remove it", self.number, column, line.rstrip("\r\n"))


class _Hashed(io.RawIOBase):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self.hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _where_undecodable(path: Path) -> tuple[int, int]:
    """Line and column of the first byte that is not UTF-8: text is decoded far ahead of the line that is read."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    at = (1, 1)
    with _opened(path) as file:
        while chunk := file.read(CHUNK):
            try:
                at = _moved(at, decoder.decode(chunk))
            except UnicodeDecodeError as error:
                return _moved(at, error.object[: error.start].decode("utf-8-sig", "replace"))
    return at


def _moved(at: tuple[int, int], text: str) -> tuple[int, int]:
    """The line and column after a text that began at `at`."""
    breaks = text.count("\n")
    return at[0] + breaks, len(text) - text.rfind("\n") if breaks else at[1] + len(text)


def _opened(path: Path) -> IO[bytes]:
    """Opened without waiting, and judged after opening: a pipe would wait for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise Broken("B52", f"is not there ({path})") from None
    except OSError as error:
        raise Broken("B03", f"cannot be read: {error.strerror}") from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb", buffering=0)
    os.close(descriptor)
    raise Broken("B02", "is not a regular file", "name a table: shots.csv")
