"""Signed URLs: until when they are good, read from their own parameters. Pure.

Each great store writes it in one of three ways: the moment of signing and how many seconds it holds, the second since
1970 at which it ends, or that moment in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import parse_qsl, urlsplit

FORMATS = ("%Y%m%dT%H%M%SZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d")
SIGNERS = ("x-amz", "x-goog", "x-oss", "x-tos")  # their -date and -expires belong together
MOST_FIELDS = 100
SHORTEST = timedelta(minutes=1)


@lru_cache(maxsize=4096)  # jobs by the thousand name the same references
def expiry(url: str) -> datetime | None:
    """When a signed URL ends; None for one that is not signed, or says so in a way not known here."""
    try:
        fields = _fields(url)
        return _from_signing(fields) or _by_second(fields) or _in_words(fields)
    except (ValueError, OverflowError):
        return None


def half_spent(url: str, since: datetime, now: datetime) -> bool:
    """Whether less than half is left of the time that a URL, had at `since`, is good for. Never of one that is good for
    less than a minute: a later one would be no better."""
    ends = expiry(url)
    return ends is not None and ends - since >= SHORTEST and now - since > (ends - since) / 2


def without_signature(url: str) -> str:
    """The URL as it may be shown: whoever reads its parameters could use it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _fields(url: str) -> Mapping[str, str]:
    given = parse_qsl(urlsplit(url).query, max_num_fields=MOST_FIELDS)
    return {name.lower(): value for name, value in reversed(given)}


def _from_signing(fields: Mapping[str, str]) -> datetime | None:
    for signer in SIGNERS:
        signed, seconds = _moment(fields.get(f"{signer}-date", "")), fields.get(f"{signer}-expires", "")
        if signed is not None and _is_whole(seconds):
            return signed + timedelta(seconds=int(seconds))
    return None


def _by_second(fields: Mapping[str, str]) -> datetime | None:
    """`Expires` of a URL that is signed, and the second half of `q-sign-time`."""
    second = fields.get("expires", "") if "signature" in fields else fields.get("q-sign-time", "").partition(";")[2]
    return datetime.fromtimestamp(int(second), UTC) if _is_whole(second) else None


def _in_words(fields: Mapping[str, str]) -> datetime | None:
    return _moment(fields.get("se", "")) if "sig" in fields else None


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def _moment(text: str) -> datetime | None:
    for form in FORMATS if text else ():
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
