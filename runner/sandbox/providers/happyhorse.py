"""happyhorse, from its document (002): videos, images, a history list, uploads, a balance; 60 requests a minute.

No idempotency of any kind: every POST that is accepted is charged. What the document leaves open and this file decides:
images are polled where videos are, the list shows images only if an option says so, `credits_used` stands in the answer
about an ended task, a failed task is refunded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from ..clock import iso
from ..credits import micros, number
from ..dialect import Answer, Call, Dialect, FormFile, Route, whole_credits
from ..parameters import Field, Invalid, like, one_of, text, url, urls
from ..parameters import number as numeric
from ..tasks import Order, Task
from ..uploads import picture_type
from ..windows import Room

LITE, FULL, FAST, BANANA = "doubao-seedance-1-5-pro", "doubao-seedance-2-0", "doubao-seedance-2-0-fast", "nano-banana-2"
DEFAULT_MODEL = "seedance-1-5-pro"  # the parameter table's spelling; the price table has `doubao-` before it
PER_SECOND = {DEFAULT_MODEL: Decimal(5), LITE: Decimal(5), FULL: Decimal("7.5"), FAST: Decimal(5)}
PER_IMAGE = Decimal(5)
NEEDS_PAID_ACCESS = frozenset({FULL, FAST, BANANA})
UPLOAD_LIMIT = 10 * 1024 * 1024  # bytes
PAGE_LIMIT = 50

RATIO = like(r"[1-9]\d?:[1-9]\d?", "16:9")
VIDEO = (
    Field("prompt", text(1), required=True),
    Field("model", one_of(*PER_SECOND), default=DEFAULT_MODEL),
    Field("generation_type", one_of("text_to_video", "image_to_video"), default="text_to_video"),
    Field("image_url", url),
    Field("aspect_ratio", RATIO, default="16:9"),
    Field("duration", numeric(1, 60), default=5),
    Field("resolution", like(r"\d{3,4}p", "720p"), default="720p"),
)
IMAGE = (
    Field("prompt", text(1), required=True),
    Field("model", one_of(BANANA), default=BANANA),
    Field("resolution", one_of("1k", "2k", "4k"), default="1k"),
    Field("aspect_ratio", RATIO, default="1:1"),
    Field("output_format", one_of("png", "jpg", "webp"), default="png"),
    Field("images", urls(0, None)),
)


def video_order(values: Mapping[str, Any]) -> Order:
    """Priced as documented: 7.5 a second is rounded up for the whole video. Raises Invalid."""
    if values["generation_type"] == "image_to_video" and values["image_url"] is None:
        raise Invalid("image_url is required for image_to_video")
    model = values["model"]
    price = PER_SECOND[model] * Decimal(str(values["duration"]))
    price = whole_credits(price) if model == FULL else price
    shown = ("duration", "aspect_ratio", "resolution", "image_url", "generation_type")
    details = {name: values[name] for name in shown}
    return Order("generate", model, "video", values["prompt"], micros(price), "mp4", details=details)


def image_order(values: Mapping[str, Any]) -> Order:
    details = {"aspect_ratio": values["aspect_ratio"], "resolution": values["resolution"]}
    extension, price = values["output_format"], micros(PER_IMAGE)
    return Order("generate-image", values["model"], "image", values["prompt"], price, extension, details=details)


class HappyHorse(Dialect):
    name = "happyhorse"
    example_key = "sk-sd_sandbox_"
    task_prefix = {"video": "vid_", "image": "img_"}  # noqa: RUF012 (declared ClassVar in Dialect)
    rate_limit = 60
    strict = False
    codes = {  # noqa: RUF012
        "unauthorized": ("unauthorized", 401),
        "invalid": ("validation_error", 400),
        "insufficient_credits": ("insufficient_credits", 403),
        "paid_access": ("paid_access_required", 403),
        "rate_limited": ("rate_limit_exceeded", 429),
        "not_found": ("not_found", 404),
        "internal": ("internal_error", 500),
        "unavailable": ("upstream_error", 503),
    }

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", "/api/v1/generate", "submit", self._generate),
            Route("POST", "/api/v1/generate-image", "submit", self._generate_image),
            Route("GET", "/api/v1/videos", "list", self._list),
            Route("GET", "/api/v1/videos/{id}", "poll", self._status),
            Route("POST", "/api/v1/upload", "upload", self._upload),
            Route("GET", "/api/v1/credits", "credits", self._credits),
        )

    def error(self, code: str, message: str) -> Any:
        return {"data": None, "error": {"message": message, "code": code}}

    def limit_headers(self, room: Room) -> Mapping[str, str]:
        return {
            "X-RateLimit-Limit": str(room.limit),
            "X-RateLimit-Remaining": str(room.remaining),
            "X-RateLimit-Reset": str(room.reset),
        }

    def _generate(self, call: Call) -> Answer:
        return self._begin(call, video_order(self.values(call, VIDEO)), "video_id")

    def _generate_image(self, call: Call) -> Answer:
        return self._begin(call, image_order(self.values(call, IMAGE)), "image_id")

    def _begin(self, call: Call, order: Order, id_name: str) -> Answer:
        if order.model in NEEDS_PAID_ACCESS and not call.account.paid_access:
            raise self.refusal("paid_access", f"{order.model} requires paid access.")
        task = self.order(call, order)
        return _good({id_name: task.id, "status": "pending"}, task.id)

    def _status(self, call: Call) -> Answer:
        task = self.own_task(call)
        return _good(self._shown(call, task), task.id)

    def _list(self, call: Call) -> Answer:
        page, limit = _count(call, "page", 1, 10**6), _count(call, "limit", 20, PAGE_LIMIT)
        account, kinds = call.account.account, ("video", "image") if call.desk.lists_images else ("video",)
        found = call.desk.books.history(self.name, account, kinds, call.as_of, skip=(page - 1) * limit, limit=limit)
        return _good({"videos": [self._shown(call, task) for task in found], "page": page, "limit": limit})

    def _shown(self, call: Call, task: Task) -> dict[str, Any]:
        stage, odd = task.stage(call.as_of), task.oddity(call.as_of)
        done = stage.ended and not odd
        files = self.files(call, task) if done and task.outcome == "completed" else []
        shown = {
            "id": task.id,
            "prompt": task.prompt,
            "model": task.model,
            "status": odd or WORDS[stage.value],
            "created_at": iso(task.created_at),
            **task.details,
            "video_url": next(iter(files), None) if task.kind == "video" else None,
        }
        if task.kind == "image":
            shown["image_url"] = next(iter(files), None)
        if done and task.outcome != "completed":
            shown["error"] = FAILURES[task.outcome]
        return {**shown, "credits_used": number(task.used(call.as_of))} if done else shown

    def _upload(self, call: Call) -> Answer:
        picture = call.form.get("image")
        if not isinstance(picture, FormFile):
            raise Invalid("multipart field image with a file is required")
        if len(picture.content) > UPLOAD_LIMIT:
            raise Invalid("image must not be larger than 10MB")
        kind = picture_type(picture.content)
        if kind is None:
            raise Invalid("image must be a JPG, PNG or WebP")
        path = call.desk.uploads.add(self.name, call.account.account, *kind, picture.content, call.now)
        return _good({"url": call.desk.signer.origin + path})

    def _credits(self, call: Call) -> Answer:
        account = call.account
        subscription = {"status": "active", "plan": "pro"} if account.paid_access else None
        return _good(
            {"credits": number(account.balance), "paid_access": account.paid_access, "subscription": subscription}
        )


def _good(data: Any, task_id: str | None = None) -> Answer:
    return Answer(200, {"data": data, "error": None}, task_id=task_id)


def _count(call: Call, name: str, default: int, most: int) -> int:
    given = call.query.get(name, str(default))
    if not given.isdecimal() or len(given) > 9 or not 1 <= int(given) <= most:
        raise Invalid(f"{name} must be a number from 1 to {most}")
    return int(given)


WORDS = {
    "queued": "pending",
    "processing": "processing",
    "review": "processing",
    "completed": "completed",
    "failed": "failed",
}
FAILURES = {
    "failed": "The upstream model could not render this video.",
    "cancelled": "The task was cancelled.",
    "moderated": "Blocked by content moderation: the result breaks the safety policy.",
}
PROVIDER = HappyHorse()
