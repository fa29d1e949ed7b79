"""Signed addresses on the media origin: they expire, and a changed one is refused."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signer:
    """`origin` without a final slash; `lifetime` in scaled seconds."""

    origin: str
    secret: bytes
    lifetime: float

    def url(self, path: str, now: float) -> str:
        expires = math.ceil(now + self.lifetime)
        return f"{self.origin}{path}?expires={expires}&sig={self._sign(path, expires)}"

    def problem(self, path: str, query: Mapping[str, str], now: float) -> str | None:
        """Why the address is refused, or None."""
        expires = query.get("expires", "")
        if not expires.isdecimal() or len(expires) > 15:
            return "SignatureMissing"
        if not hmac.compare_digest(self._sign(path, int(expires)), query.get("sig", "")):
            return "SignatureDoesNotMatch"
        return "RequestHasExpired" if now > int(expires) else None

    def _sign(self, path: str, expires: int) -> str:
        return hmac.new(self.secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()[:40]
