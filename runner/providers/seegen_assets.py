"""SeeGen's assets: inputs that it reviews before they may be used (its document: "Assets"). Nothing here is charged.

A public URL is handed over under a name; the provider answers with a numeric `assetId`, to ask by, and a
`volcAssetId`, which orders name as `asset://…` once it is ACTIVE. An upload whose answer got lost is found again by its
name, which the document lets us choose (at most 64 characters).

Assumed: a status nobody documented means that the review goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.exchange import Ask, Asset, Refusal, Reply, Review
from runner.providers.description import Registering
from runner.providers.reading import (
    complaint_in,
    first,
    is_for,
    legible,
    no_such_id,
    refused_question,
    refused_upload,
    task_id,
)
from runner.providers.seegen_answers import VERDICTS

UPLOAD, STATUS, LIST = "/api/v1/assets/upload", "/api/v1/assets/status", "/api/v1/assets/list"
TYPES = {"images": "IMAGE", "first_frame": "IMAGE", "last_frame": "IMAGE", "videos": "VIDEO", "audios": "AUDIO"}
REVIEWS = {"PROCESSING": Review.PENDING, "ACTIVE": Review.PASSED, "FAILED": Review.REFUSED}
PAGE_SIZE = 50  # the most the document allows
MOST_PAGES = 200  # 10,000 assets are looked through; one beyond them is registered again, which costs nothing


async def register(ask: Ask, url: str, role: str, name: str) -> Asset | Refusal:
    """Hand over one public URL for review; without a `name` it gets none."""
    named = {"name": name} if name else {}
    reply = await ask("POST", UPLOAD, json={"url": url, "type": TYPES[role], **named})
    asset = None if _refuses(reply) else _asset(reply.data)
    if asset is None:
        return refused_upload(reply, VERDICTS, "no_asset" if reply.ok else "", "the answer holds no asset")
    return asset


async def inspect(ask: Ask, asset_id: str) -> Asset | Refusal:
    """How the review of one asset stands; asking moves it on ("Auto-polls review system when PROCESSING")."""
    if task_id(asset_id) is None:
        return no_such_id(asset_id)
    reply = await ask("GET", STATUS, query={"assetId": asset_id})
    asset = None if _refuses(reply) else _asset(reply.data, asset_id)
    if asset is None:
        return refused_question(reply, VERDICTS, "no_asset" if reply.ok else "", "the answer holds no asset")
    if not is_for(reply.data, ("assetId",), asset_id):
        return refused_question(reply, {}, "other_asset", "the answer is about another asset")
    return asset


async def find(ask: Ask, name: str) -> Asset | Refusal | None:
    """The first asset of exactly this name that was not refused; None where there is none among the first 10,000."""
    cursor: str | None = ""
    for _ in range(MOST_PAGES):
        reply = await ask("GET", LIST, query={"limit": str(PAGE_SIZE), **({"cursor": cursor} if cursor else {})})
        items = None if _refuses(reply) else first(reply.data, ("items",))
        if not isinstance(items, list):
            return refused_question(reply, VERDICTS, "no_list" if reply.ok else "", "the answer holds no list")
        named = (_asset(item) for item in items if isinstance(item, Mapping) and item.get("name") == name)
        found = next((asset for asset in named if asset is not None and asset.review is not Review.REFUSED), None)
        cursor = task_id(first(reply.data, ("nextCursor",)))
        if found is not None or cursor is None:
            return found
    return None


def _refuses(reply: Reply) -> bool:
    return not reply.ok or reply.unreadable is not None or complaint_in(reply.data) is not None


def _asset(data: Any, asked: str | None = None) -> Asset | None:
    """The asset an answer tells of; None where it tells of none, or of one that is ready and has no name to use it
    by."""
    known_id, status = task_id(first(data, ("assetId",))) or asked, first(data, ("status",))
    if known_id is None or status is None:
        return None
    volc_id = task_id(first(data, ("volcAssetId",)))
    review = REVIEWS.get(str(status), Review.PENDING)
    if review is Review.PASSED and volc_id is None:
        return None
    reason = first(data, ("failReason",))
    why = legible(reason) if isinstance(reason, str) and reason else "the provider gives no reason"
    return Asset(known_id, f"asset://{volc_id}" if volc_id else "", review, why if review is Review.REFUSED else "")


# Videos must be assets ("external URLs are rejected"); images and audios become some where their review is asked for.
REGISTERING = Registering(roles=("videos",), register=register, inspect=inspect, find=find)
