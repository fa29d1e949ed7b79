"""Equal things among a million: which 64-bit digests came more than once, in bounded memory."""

from __future__ import annotations

from array import array
from itertools import pairwise
from tempfile import TemporaryFile
from typing import IO

from runner.errors import LocalError

BUCKETS = 256
HELD = 1 << 16  # digests in memory; the rest waits in a nameless temporary file, eight bytes each


class Twins:
    """Takes digests and tells which came twice: truly equal things, or once in 10⁷ batches an accident.

    Digests must be spread evenly: they are kept in 256 heaps, of which only one at a time is read back and sorted.
    Raises LocalError where the temporary folder cannot take them.
    """

    def __init__(self) -> None:
        self._heaps = [array("Q") for _ in range(BUCKETS)]
        self._held = 0
        self._file: IO[bytes] | None = None
        self._spilled: list[list[tuple[int, int]]] = [[] for _ in range(BUCKETS)]  # by heap: (offset, how many)

    def add(self, digest: int) -> None:
        self._heaps[digest & (BUCKETS - 1)].append(digest)
        self._held += 1
        if self._held >= HELD:
            self._spill()

    def found(self) -> set[int]:
        """The digests that came more than once."""
        return {digest for number in range(BUCKETS) for digest in _repeated(self._whole(number))}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        try:
            file = self._file = self._file or TemporaryFile()  # noqa: SIM115  (closed by close)
            for number, heap in enumerate(self._heaps):
                self._spilled[number].append((file.tell(), len(heap)))
                heap.tofile(file)
                del heap[:]
        except OSError as error:
            raise LocalError(
                f"the temporary folder cannot be used: {error.strerror}", "free some space there"
            ) from None
        self._held = 0

    def _whole(self, number: int) -> array[int]:
        whole = array("Q", self._heaps[number])
        if self._file is not None:
            for offset, count in self._spilled[number]:
                self._file.seek(offset)
                whole.fromfile(self._file, count)
        return whole


def _repeated(heap: array[int]) -> set[int]:
    return {one for one, following in pairwise(sorted(heap)) if one == following}
