"""seedance2ai, from its document (004): three paid endpoints, one status endpoint, `Idempotency-Key`.

Prices are not documented but for one example (30 for a standard 720p video of 5 s); the rest of the table is ours.
Neither is the form of the submission's answer: it is the task itself, as the status endpoint shows it. A batch of
images of which some did not come is completed, shorter, and costs the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from ..credits import micros, number
from ..dialect import Answer, Call, Dialect, Route
from ..parameters import Field, Invalid, boolean, integer, one_of, text, url, urls
from ..tasks import Order, Stage, Task

VIDEO = (
    Field("mode", one_of("text-to-video", "image-to-video", "media-to-video"), default="text-to-video"),
    Field("quality_tier", one_of("standard", "pro"), default="standard"),
    Field("channel", one_of("standard", "real", "wild"), default="standard"),
    Field("prompt", text(3, 10000), required=True),
    Field("aspect_ratio", one_of("1:1", "21:9", "4:3", "3:4", "16:9", "9:16"), default="16:9"),
    Field("duration", one_of(*(str(seconds) for seconds in range(4, 16))), default="5"),
    Field("resolution", one_of("720p", "1080p"), default="720p"),
    Field("image_url", url),
    Field("end_image_url", url),
    Field("media_urls", urls(1, 12)),
    Field("generate_audio", boolean, default=True),
    Field("fixed_lens", boolean, default=False),
    Field("seed", integer(-1, 4294967295)),
)
RATIOS = (
    *("auto", "1:1", "5:4", "9:16", "21:9", "16:9", "4:3", "3:2"),
    *("4:5", "3:4", "2:3", "2:1", "1:2", "3:1", "1:3", "9:21"),
)
GPT_IMAGE = (
    Field("type", one_of("text-to-image", "image-to-image"), required=True),
    Field("channel", one_of("standard", "economy"), default="standard"),
    Field("prompt", text(3, 20000), required=True),
    Field("resolution", one_of("1K", "2K", "4K"), required=True),
    Field("aspectRatio", one_of(*RATIOS), required=True),
    Field("batchCount", integer(1, 4), default=1),
    Field("imageUrls", urls(1, 10)),
)
SIZES = ("1:1", "16:9", "9:16", "3:4", "4:3", "3:2", "2:3", "5:4", "4:5", "21:9", "auto")
NANO_BANANA = (
    Field("type", one_of("text-to-image", "image-to-image"), required=True),
    Field("prompt", text(3, 10000), required=True),
    Field("image_size", one_of(*SIZES), default="auto"),
    Field("output_format", one_of("png", "jpeg"), default="png"),
    Field("resolution", one_of("1K", "2K", "4K"), default="1K"),
    Field("image_urls", urls(1, 8)),
)

PER_SECOND = Decimal(6)
PER_IMAGE = {"1K": Decimal(6), "2K": Decimal(12), "4K": Decimal(24)}


def video_order(values: Mapping[str, Any]) -> Order:
    """Raises Invalid for combinations that the document's table forbids."""
    mode = values["mode"]
    _demand(mode == "image-to-video" or values["end_image_url"] is None, "end_image_url needs mode image-to-video")
    _demand(mode != "text-to-video" or values["image_url"] is None, "image_url needs mode image-to-video")
    _demand(mode != "image-to-video" or values["image_url"] is not None, "image_url is required for image-to-video")
    _demand((mode == "media-to-video") == (values["media_urls"] is not None), "media_urls belong to media-to-video")
    _demand(values["channel"] != "real" or values["seed"] is None, "seed is not supported on the real channel")
    factor = (2 if values["quality_tier"] == "pro" else 1) * (2 if values["resolution"] == "1080p" else 1)
    price = PER_SECOND * int(values["duration"]) * factor
    return Order("video/seedance", "seedance", "video", values["prompt"], micros(price), "mp4")


def gpt_image_order(values: Mapping[str, Any]) -> Order:
    """Raises Invalid for combinations that the document's table forbids."""
    ratio, resolution, standard = values["aspectRatio"], values["resolution"], values["channel"] == "standard"
    _images_go_with_type(values["type"], "imageUrls", values["imageUrls"])
    _demand(ratio != "auto" or resolution == "1K", "aspectRatio auto only supports 1K")
    _demand(not (ratio == "1:1" and resolution == "4K" and standard), "1:1 cannot use 4K on the standard channel")
    price = PER_IMAGE[resolution] * values["batchCount"] * (Decimal(1) if standard else Decimal("0.5"))
    outputs = values["batchCount"]
    return Order("image/gpt-image-2", "gpt-image-2", "image", values["prompt"], micros(price), "png", outputs)


def nano_banana_order(values: Mapping[str, Any]) -> Order:
    _images_go_with_type(values["type"], "image_urls", values["image_urls"])
    extension = "jpg" if values["output_format"] == "jpeg" else "png"
    price = micros(PER_IMAGE[values["resolution"]])
    return Order("image/nano-banana-pro", "nano-banana-pro", "image", values["prompt"], price, extension)


def _images_go_with_type(kind: str, name: str, images: list[str] | None) -> None:
    _demand(kind != "image-to-image" or images is not None, f"{name} is required for image-to-image")
    _demand(kind != "text-to-image" or images is None, f"{name} needs type image-to-image")


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise Invalid(message)


class Seedance2ai(Dialect):
    name = "seedance2ai"
    example_key = "sk_live_sandbox_"
    task_prefix = {"video": "sd2_", "image": "sd2_"}  # noqa: RUF012 (declared ClassVar in Dialect)
    rate_limit = 600
    key_header = "Idempotency-Key"
    codes = {  # noqa: RUF012
        "unauthorized": ("unauthorized", 401),
        "invalid": ("invalid_request", 400),
        "insufficient_credits": ("insufficient_credits", 402),
        "rate_limited": ("rate_limited", 429),
        "conflict": ("idempotency_conflict", 409),
        "unavailable": ("service_busy", 503),
        "not_found": ("not_found", 404),
        "internal": ("internal_error", 500),
    }

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", "/api/v1/video/seedance", "submit", lambda call: self.once(call, self._video)),
            Route("POST", "/api/v1/image/gpt-image-2", "submit", lambda call: self.once(call, self._gpt_image)),
            Route("POST", "/api/v1/image/nano-banana-pro", "submit", lambda call: self.once(call, self._nano_banana)),
            Route("GET", "/api/v1/tasks/{id}", "poll", self._status),
        )

    def error(self, code: str, message: str) -> Any:
        return {"error": {"code": code, "message": message}}

    def _video(self, call: Call) -> Answer:
        return self._begin(call, video_order(self.values(call, VIDEO)))

    def _gpt_image(self, call: Call) -> Answer:
        return self._begin(call, gpt_image_order(self.values(call, GPT_IMAGE)))

    def _nano_banana(self, call: Call) -> Answer:
        return self._begin(call, nano_banana_order(self.values(call, NANO_BANANA)))

    def _begin(self, call: Call, order: Order) -> Answer:
        task = self.order(call, order)
        return Answer(200, self._shown(call, task), task_id=task.id)

    def _status(self, call: Call) -> Answer:
        task = self.own_task(call)
        return Answer(200, self._shown(call, task), task_id=task.id)

    def _shown(self, call: Call, task: Task) -> dict[str, Any]:
        stage = task.stage(call.now)
        odd = task.oddity(call.now)
        word = odd or (Stage.PROCESSING if stage is Stage.REVIEW else stage).value
        shown: dict[str, Any] = {"id": task.id, "status": word, "model": task.model, "output": None}
        if stage is Stage.COMPLETED and not odd:
            files = self.files(call, task)
            shown["output"] = {"images": files} if task.kind == "image" else {"video_url": next(iter(files), None)}
        if stage is Stage.FAILED and not odd:
            shown["error"] = FAILURES[task.outcome]
        return {**shown, "credits_used": number(task.used(call.now))}


FAILURES = {
    "cancelled": {"code": "task_cancelled", "message": "The task was cancelled."},
    "failed": {"code": "generation_failed", "message": "The upstream model could not render this request."},
    "moderated": {"code": "content_moderated", "message": "The result was blocked by the content safety policy."},
}
PROVIDER = Seedance2ai()
