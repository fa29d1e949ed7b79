"""Checksums that a server offers with a file, to be compared with what arrived.

Only headers that speak of the whole file are believed in answers to a Range; `Content-MD5` and `Content-Digest` speak
of the bytes of one answer. An ETag is no checksum: it may be one, but it never says so.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Mapping

# HTTP's names of the algorithms, and Python's.
_ALGORITHMS = {"sha-256": "sha256", "sha256": "sha256", "sha-512": "sha512", "sha512": "sha512", "md5": "md5"}
DIGESTS = frozenset(_ALGORITHMS.values())


def offered(headers: Mapping[str, str], *, whole: bool) -> dict[str, str]:
    """Algorithm (as `hashlib` names it) → hexadecimal digest of the whole file, as far as these headers offer any.

    `headers` have lower-case names; `whole` says that the answer holds the whole file (status 200).
    """
    lists = [headers.get("repr-digest", ""), headers.get("digest", ""), headers.get("x-goog-hash", "")]
    if whole:
        lists.append(headers.get("content-digest", ""))
        lists.append("md5=" + headers.get("content-md5", ""))
    lists.append("sha256=" + headers.get("x-amz-checksum-sha256", ""))
    found = (pair for text in lists for pair in _pairs(text))
    return {name: digest for name, digest in found if len(digest) == 2 * hashlib.new(name).digest_size}


def _pairs(text: str) -> list[tuple[str, str]]:
    """`sha-256=:…:, md5=…` as (algorithm, hexadecimal digest); what is unknown or malformed is left out."""
    pairs = []
    for name, value in re.findall(r"([A-Za-z0-9-]+)=:?([A-Za-z0-9+/]+=*):?(?=\s*(?:,|$))", text):
        if (algorithm := _ALGORITHMS.get(name.lower())) and (digest := _decoded(value)):
            pairs.append((algorithm, digest))
    return pairs


def _decoded(value: str) -> str | None:
    try:
        return b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError):
        return None


class Sums:
    """Running digests: always sha256, and whatever else was offered."""

    def __init__(self, wanted: Mapping[str, str]) -> None:
        self._wanted = dict(wanted)
        self._sums = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *wanted}}

    def update(self, piece: bytes | memoryview) -> None:
        for digest in self._sums.values():
            digest.update(piece)

    @property
    def sha256(self) -> str:
        return self._sums["sha256"].hexdigest()

    def wrong(self) -> str | None:
        """The first algorithm whose digest is not the one that was offered."""
        return next((name for name, digest in self._wanted.items() if self._sums[name].hexdigest() != digest), None)
