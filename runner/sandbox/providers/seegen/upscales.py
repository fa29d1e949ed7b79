"""seegen's standalone upscaler, from its document (003): priced by what is measured of the source. Pure.

The address tells what goes wrong, as `measuring` has it (`…-700s.mp4` is too long, `…-1080p.mp4` too sharp for 1080p)
or by a word: `too-long too-sharp too-large unsupported unreachable private unprobed upstream no-credits disabled`.

What the document leaves open and this file decides: a started second counts whole; the credits are deducted when the
probe is over (that it comes first is documented) and come back only after an upstream failure; an address that says
itself that it is private is refused at once, one that only turns out to be is a failed task. Where the document
contradicts itself (1200 credits for 30 s to 4K), its price table stands: 1500.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from ...credits import micros
from ...measuring import extension, measured_seconds, measured_size
from ...parameters import Field, Invalid, one_of, url
from ...tasks import Order
from .orders import LINES, seconds_up

ENDPOINT = "upscale/create"
MODEL = "upscale"
RATES = {"1080p": 25, "2k": 38, "4k": 50}  # credits a second
SHORTEST_BILLED = 5  # seconds
LONGEST = Decimal(600)  # seconds
FORMATS = ("mp4", "mov", "webm")
STORAGE = "https://static.seedance2-pro.com/"
UNSAID_SIZE = (1280, 720)  # of a source whose name does not tell

PROBLEMS = {  # word in the address: code, message
    "too-long": ("DURATION_EXCEEDS_LIMIT", "The video is longer than 600 seconds."),
    "too-sharp": ("SOURCE_RESOLUTION_TOO_HIGH", "The source resolution must be lower than the target."),
    "too-large": ("FILE_TOO_LARGE", "The file is larger than 200 MB."),
    "unsupported": ("UNSUPPORTED_MEDIA_TYPE", "Only MP4, MOV and WebM are supported."),
    "unreachable": ("URL_NOT_REACHABLE", "The source URL could not be fetched."),
    "private": ("URL_RESOLVES_TO_PRIVATE_IP", "The source URL resolves to a private address."),
    "unprobed": ("PROBE_FAILED", "The video could not be probed."),
    "upstream": ("UPSTREAM_FAILED", "The upscale job failed."),
    "no-credits": ("INSUFFICIENT_CREDITS", "Insufficient credits for this upscale."),
    "disabled": ("SERVICE_DISABLED", "The upscaler is disabled."),
}
AFTER_THE_PROBE = "upstream"
MODERATED = ("UPSTREAM_FAILED", "Blocked by content moderation: the video breaks the safety policy.")

CREATE = (
    Field("source", lambda name, value, own_media: source_url(name, value, own_media), required=True),
    Field("targetResolution", one_of(*RATES), required=True),
)


def source_url(name: str, value: Any, own_media: str) -> str:
    """The address of `{type: url, url}` or `{type: uploadId, r2Url}`. Raises Invalid."""
    if not isinstance(value, Mapping) or value.get("type") not in ("url", "uploadId"):
        raise Invalid(f"{name} must be an object with type url or uploadId")
    if value["type"] == "url":
        return url(f"{name}.url", value.get("url"), own_media)
    stored = value.get("r2Url")
    if not isinstance(stored, str) or not stored.startswith((STORAGE, own_media + "/")):
        raise Invalid(f"{name}.r2Url must be the URL of an upload")
    return stored


def problem_of(address: str, target: str) -> str | None:
    """The key of what goes wrong with this source, in `PROBLEMS`; None where nothing does."""
    parts = urlsplit(address)
    asked = next((word for word in PROBLEMS if word in f"{parts.netloc}{parts.path}"), None)
    if asked is not None:
        return asked
    if extension(address) not in ("", *FORMATS):
        return "unsupported"
    if measured_seconds(address) > LONGEST:
        return "too-long"
    return "too-sharp" if min(source_size(address)) >= LINES[target] else None


def source_size(address: str) -> tuple[int, int]:
    return measured_size(address) or UNSAID_SIZE


def upscale_price(seconds: Decimal, target: str) -> int:
    """Credits for a source of that length."""
    return max(SHORTEST_BILLED, seconds_up(seconds)) * RATES[target]


def upscale_order(values: Mapping[str, Any]) -> Order:
    """Costs nothing where the probe will fail. Its prompt is the address, so that it can ask for a fate."""
    address, target = values["source"], values["targetResolution"]
    problem, seconds = problem_of(address, target), measured_seconds(address)
    price = upscale_price(seconds, target) if problem in (None, AFTER_THE_PROBE) else 0
    size = source_size(address)
    details = {"target": target, "seconds": str(seconds), "size": f"{size[0]}x{size[1]}", "problem": problem}
    return Order(ENDPOINT, MODEL, "video", address, micros(price), "mp4", details=details)


def failure(details: Mapping[str, Any], outcome: str) -> tuple[str, str]:
    """Code and message of a failed upscale."""
    problem = {"insufficient_credits": "no-credits"}.get(details["problem"], details["problem"])
    if problem is not None:
        return PROBLEMS[problem]
    return MODERATED if outcome == "moderated" else PROBLEMS[AFTER_THE_PROBE]
