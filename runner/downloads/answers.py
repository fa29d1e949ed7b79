"""What the head of an answer means for a file of which a part may be here already. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self

from runner.downloads.checksums import DIGESTS, offered
from runner.downloads.outcomes import FreshUrl, Later, Obstacle, Refused
from runner.limits import RETRY_AFTER_CAP

LATER = frozenset({408, 425, 429})
PLACE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
LENGTH = re.compile(r"[0-9]{1,18}")  # more digits are no length of a file, and Python would not even read all of them
ETAG = re.compile(r'"[\x21\x23-\x7e]+"')  # others may be strong, too, but could not be sent back as they came


@dataclass(frozen=True, slots=True)
class Whole:
    """What is known of the whole file: who serves it, its length in bytes, a strong validator ("" for none; a quoted
    ETag or a date, as `If-Range` takes it), and the digests the server offers."""

    host: str
    total: int | None
    validator: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, noted: Any) -> Self:
        """What `dataclasses.asdict` made of one and a file has kept; ValueError for anything else."""
        match noted:
            case {"host": str(host), "total": int(total), "validator": str(validator), "digests": {**digests}}:
                sums = {name: digest for name, digest in digests.items() if isinstance(digest, str)}
                if sums.keys() == digests.keys() <= DIGESTS and validator.isascii() and validator.isprintable():
                    return cls(host, total, validator, {str(name): digest for name, digest in sums.items()})
        raise ValueError("not what is known of a file")


@dataclass(frozen=True, slots=True)
class Body:
    """The answer's body is the file from byte `offset` on."""

    offset: int
    whole: Whole


@dataclass(frozen=True, slots=True)
class Restart:
    """The part that is here and this answer do not belong together: ask again for the whole file."""

    why: str


Meaning = Body | Restart | FreshUrl | Later | Refused


def meaning(status: int, headers: Mapping[str, str], host: str, *, had: int, known: Whole | None, cap: int) -> Meaning:
    """What an answer is good for. `headers` have lower-case names.

    `had` bytes of the file `known` were here, and the rest was asked for with Range and If-Range; 0: all was asked for.
    """
    if status == 200:
        return _whole(headers, host, cap)
    if status == 206:
        return _rest(headers, host, had, known) if had and known else Later("the server answers with a part unasked")
    if status == 416:
        return Restart("the file is shorter than what is here") if had else Later("the server refuses the whole file")
    if status in LATER or status >= 500 or 300 <= status < 400:
        return Later(f"HTTP {status}", wait=_wait(headers))
    return FreshUrl(f"HTTP {status}", status)


def _whole(headers: Mapping[str, str], host: str, cap: int) -> Meaning:
    if headers.get("content-encoding", "identity") != "identity":
        return FreshUrl("the file comes encoded, though it was asked for as it is")
    total = _length(headers.get("content-length"))
    if total is not None and total > cap:
        return Refused(Obstacle.TOO_LARGE, f"{total} bytes, more than the {cap} allowed")
    return Body(0, Whole(host, total, _validator(headers), offered(headers, whole=True)))


def _rest(headers: Mapping[str, str], host: str, had: int, known: Whole) -> Meaning:
    place = PLACE.fullmatch(headers.get("content-range", ""))
    etag = headers.get("etag")
    if place is None or (int(place[1]), int(place[3])) != (had, known.total):
        return Restart("the server gives another part than was asked for")
    if etag is not None and known.validator.startswith('"') and etag != known.validator:
        return Restart("the file has changed")
    if host != known.host:
        return Restart("another host answers, whose marks mean nothing to the first")
    return Body(had, Whole(host, known.total, known.validator, {**known.digests, **offered(headers, whole=False)}))


def _length(text: str | None) -> int | None:
    return int(text) if text is not None and LENGTH.fullmatch(text) else None


def _validator(headers: Mapping[str, str]) -> str:
    """A strong one or none: no weak ETag, and a date only if it is a minute older than the answer (RFC 9110, 8.8.2)."""
    etag = headers.get("etag", "")
    if ETAG.fullmatch(etag):
        return etag
    last = headers.get("last-modified", "")
    changed, answered = _date(last), _date(headers.get("date"))
    if not etag and last.isascii() and changed and answered and answered - changed >= timedelta(seconds=60):
        return last
    return ""


def _wait(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds, by the server's own clock where it names a time; at most an hour."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return min(float(text[:9]), RETRY_AFTER_CAP)
    until, answered = _date(text), _date(headers.get("date"))
    return min(max(0.0, (until - answered).total_seconds()), RETRY_AFTER_CAP) if until and answered else None


def _date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text) if text else None
    except (ValueError, ArithmeticError, TypeError, IndexError):  # arithmetic: the year 99999999999
        return None
    return found if found is not None and found.tzinfo is not None else None
