"""What a server would measure of a file that only its address is known of: a pure function of the address.

    https://example.com/walk-7.4s.mp4                 7.4 seconds
    https://example.com/walk-1920x1080-12s.mp4        12 seconds, 1920x1080
    https://example.com/walk-1080p.mp4                1920x1080, between 3 and 15 seconds, drawn from the path

The query does not count: a signed address measures the same each time it is signed.
"""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal
from urllib.parse import unquote, urlsplit

SECONDS = re.compile(r"(?<![\w.])(\d{1,4}(?:\.\d{1,3})?)s(?![\w])")
PIXELS = re.compile(r"(?<!\d)(\d{3,5})x(\d{3,5})(?!\d)")
LINES = re.compile(r"(?<!\d)(\d{3,4})p(?!\w)")
SHORTEST, LONGEST = 30, 150  # tenths of a second, where the name tells nothing


def measured_seconds(url: str) -> Decimal:
    """How long a video or audio lasts: what its name says, else 3 to 15 seconds drawn from its path."""
    said = SECONDS.findall(_name(url).replace("_", "-"))
    if said:
        return Decimal(said[-1])
    drawn = int.from_bytes(hashlib.sha256(urlsplit(url).path.encode()).digest()[:8], "big")
    return Decimal(SHORTEST + drawn % (LONGEST - SHORTEST + 1)) / 10


def measured_size(url: str) -> tuple[int, int] | None:
    """Width and height, where the name says them."""
    name = _name(url).replace("_", "-")
    pixels, lines = PIXELS.findall(name), LINES.findall(name)
    if pixels:
        return int(pixels[-1][0]), int(pixels[-1][1])
    return (int(lines[-1]) * 16 // 9, int(lines[-1])) if lines else None


def extension(url: str) -> str:
    """What stands behind the last dot of the name, in lower case; empty where there is no dot."""
    return _name(url).rpartition(".")[2].lower() if "." in _name(url) else ""


def _name(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])
