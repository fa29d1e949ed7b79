"""Looks for a key in everything that a run leaves behind: raw, in base64, in a URL, in JSON; any stretch of it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

from torture.evidence import THUMBNAIL

# The first looks like a key, the others like nothing that a pattern knows; all need escapes in JSON and in URLs.
KEYS = {
    "happyhorse": 'sk_live_7Qz/f+"Kd9=\\Vw2x&Jm4%R',
    "seedance2ai": 'Gt5}hB8"y/Pn3+c\\Zr6=Lk1&uW0~e',
    "seedhorse": 'Wd4[xN7"k/Qs2+v\\Fy9=Ht3&aE6~o',
    "seedhorse-video": 'Lu1{zC5"p/Xk8+m\\Jb4=Rw7&iD2~s',
    "seegen": 'Yv6(oT3"g/Mh9+d\\Pq1=Sf5&cU8~n',
}
ESCAPE = re.compile("%[0-9A-F]{2}")
WINDOW = 12  # characters that already tell too much
MEDIA = frozenset({".mp4", ".png", ".jpg", ".webp"})  # a provider made them, and they are compared with what it made


THEIRS = "sandbox.db"  # the provider's own books: it knows the keys, and a test may have told it one


class Canary:
    """A key to be recognised wherever it sings."""

    def __init__(self, key: str) -> None:
        forms = list(_forms(key))
        self._windows = {form[at : at + WINDOW] for form in forms for at in range(len(form) - WINDOW + 1)}
        # Every window holds one of these whole; that there are fewer of them makes looking fast.
        half = WINDOW // 2
        self._halves = {form[at : at + half] for form in forms for at in range(0, len(form) - half + 1, half)}

    def sings(self, content: bytes) -> bytes | None:
        """The first stretch of the key found in there."""
        if not any(half in content for half in self._halves):
            return None
        return next((window for window in self._windows if window in content), None)


def _forms(key: str) -> Iterator[bytes]:
    """Every form's own characters: in base64 the first and last ones depend on what stands around the key."""
    raw = key.encode()
    yield from (raw, raw.hex().encode(), raw.hex().upper().encode())
    yield from (json.dumps(key)[1:-1].encode(), json.dumps(key)[1:-1].replace("/", "\\/").encode())
    for quoted in (quote(key, safe=""), quote_plus(key)):
        yield from (quoted.encode(), ESCAPE.sub(lambda found: found[0].lower(), quoted).encode())
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw + b"\0" * 3)
        inner = encoded[-(-offset * 4 // 3) + (1 if offset else 0) : (offset + len(raw)) * 4 // 3]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def hits(folder: Path, canaries: Iterable[Canary]) -> list[str]:
    """Every file below the folder that holds a stretch of one of the keys, or has it in its name."""
    known, found = list(canaries), []
    for path in sorted(folder.rglob("*")):
        content = str(path.relative_to(folder)).encode()
        if path.is_file() and not _theirs(path):
            content += b"\0" + path.read_bytes()
        found += [f"{path.relative_to(folder)}: {each!r}" for canary in known if (each := canary.sings(content))]
    return found


def _theirs(path: Path) -> bool:
    """The providers' books, and what is compared byte for byte; thumbnails are not."""
    return path.name.startswith(THEIRS) or (path.suffix in MEDIA and not THUMBNAIL.search(path.stem))
