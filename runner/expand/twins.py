"""Equal things among a million, in sixteen bytes each: which digests came more than once."""

from __future__ import annotations

from array import array
from itertools import pairwise

BUCKETS = 256


class Twins:
    """Takes 64-bit digests and tells which came twice: truly equal things, or once in 10⁷ batches an accident.

    Digests must be spread evenly. They are kept in 256 arrays, so that only one of them is sorted at a time.
    """

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(BUCKETS)]

    def add(self, digest: int) -> None:
        self._buckets[digest & (BUCKETS - 1)].append(digest)

    def found(self) -> set[int]:
        """The digests that came more than once."""
        return {digest for bucket in self._buckets for digest in _repeated(bucket)}


def _repeated(bucket: array[int]) -> set[int]:
    ordered = sorted(bucket)
    return {one for one, next_one in pairwise(ordered) if one == next_one}
