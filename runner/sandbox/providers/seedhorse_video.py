"""seedhorse-video, from its document (000): videos of three models, deducted before the task is submitted, refunded in
full if it fails. No idempotency of any kind, no list, no balance.

The document shows neither requests nor answers. What it leaves open and this file decides:

- Fields of a request as in `BODY`; `model` and `prompt` are required; those that nobody names are ignored, and remarked
  upon. The three image models are refused: only `/video/generate` is documented.
- Frames and references do not go together: the document knows them as two things to build.
- Prices are the product of what it says to count, exact and not rounded: see `PER_SECOND`. Audio costs nothing.
- The submission's answer is an id and a status; `credits_charged` and `credits_refunded` stand in every status answer.
- Statuses besides `succeeded` and `failed`: `queued`, `processing`. A cancelled task is `failed`. Errors:
  `{error: {code, message}}`; task failures the same, under `error`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from ..clock import iso
from ..credits import micros, number
from ..dialect import Answer, Call, Dialect, Route
from ..parameters import Field, Invalid, boolean, integer, like, one_of, text, url, urls
from ..tasks import Order, Stage, Task

PER_SECOND = {
    "seedance-2.0": {"480p": Decimal("4.5"), "720p": Decimal("7.5")},
    "HappyHorse 1.0": {"480p": Decimal("3.25"), "720p": Decimal(6)},
    "Vido Q3-Pro": {"480p": Decimal("2.125"), "720p": Decimal("5.25")},
}
IMAGE_MODELS = ("NanoBanana Pro", "NanoBanana 2.0", "gpt-image 2.0")


def model(name: str, value: Any, own_media: str) -> str:
    if value in IMAGE_MODELS:
        raise Invalid(f"{value} makes images: it cannot be used here")
    return str(one_of(*PER_SECOND)(name, value, own_media))


BODY = (
    Field("model", model, required=True),
    Field("prompt", text(1), required=True),
    Field("duration", integer(4, 30), default=5),
    Field("resolution", one_of("480p", "720p"), default="720p"),
    Field("aspect_ratio", like(r"[1-9]\d?:[1-9]\d?", "16:9"), default="16:9"),
    Field("generate_audio", boolean, default=False),
    Field("image_url", url),
    Field("end_image_url", url),
    Field("reference_images", urls(0, 9), default=[]),
    Field("reference_videos", urls(0, 3), default=[]),
    Field("reference_audios", urls(0, 3), default=[]),
    Field("seed", integer(-1, 4294967295)),
)


def order(values: Mapping[str, Any]) -> Order:
    """Raises Invalid for what does not go together."""
    first, last = values["image_url"], values["end_image_url"]
    references = any(values[f"reference_{kind}"] for kind in ("images", "videos", "audios"))
    if last is not None and first is None:
        raise Invalid("end_image_url needs image_url")
    if references and first is not None:
        raise Invalid("image_url does not go with references")
    price = PER_SECOND[values["model"]][values["resolution"]] * values["duration"]
    return Order("video/generate", values["model"], "video", values["prompt"], micros(price), "mp4")


class SeedhorseVideo(Dialect):
    name = "seedhorse-video"
    example_key = "sk_sandbox_"
    task_prefix = {"video": "shv_"}  # noqa: RUF012 (declared ClassVar in Dialect)
    rate_limit = 0
    strict = False
    codes = {  # noqa: RUF012
        "unauthorized": ("unauthorized", 401),
        "invalid": ("invalid_request", 400),
        "refused": ("content_moderated", 400),
        "insufficient_credits": ("insufficient_credits", 402),
        "rate_limited": ("rate_limited", 429),
        "not_found": ("not_found", 404),
        "internal": ("internal_error", 500),
        "unavailable": ("service_unavailable", 503),
    }

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", "/api/v1/video/generate", "submit", self._generate),
            Route("GET", "/api/v1/video/task/{id}", "poll", self._status),
        )

    def error(self, code: str, message: str) -> Any:
        return {"error": {"code": code, "message": message}}

    def _generate(self, call: Call) -> Answer:
        task = self.order(call, order(self.values(call, BODY)))
        return Answer(200, {"id": task.id, "status": "queued"}, task_id=task.id)

    def _status(self, call: Call) -> Answer:
        task = self.own_task(call)
        return Answer(200, self._shown(call, task), task_id=task.id)

    def _shown(self, call: Call, task: Task) -> dict[str, Any]:
        stage, odd = task.stage(call.now), task.oddity(call.now)
        done = stage is Stage.COMPLETED and not odd
        failed = stage is Stage.FAILED and not odd
        return {
            "id": task.id,
            "status": odd or WORDS[stage],
            "model": task.model,
            "created_at": iso(task.created_at),
            "video_url": next(iter(self.files(call, task)), None) if done else None,
            "credits_charged": number(task.price),
            "credits_refunded": number(task.price - task.used(call.now)),
            "error": FAILURES[task.outcome] if failed else None,
        }


WORDS = {
    Stage.QUEUED: "queued",
    Stage.PROCESSING: "processing",
    Stage.REVIEW: "processing",
    Stage.COMPLETED: "succeeded",
    Stage.FAILED: "failed",
}
FAILURES = {
    "failed": {"code": "generation_failed", "message": "The upstream model could not render this video."},
    "moderated": {"code": "content_moderated", "message": "The result was blocked by the content safety policy."},
    "cancelled": {"code": "task_cancelled", "message": "The task was cancelled."},
}
PROVIDER = SeedhorseVideo()
