"""seedhorse, from its document (001): one paid endpoint for images and videos, one to ask, `X-Idempotency-Key`.

Every answer has HTTP status 200, errors too (`Options.error_statuses` sets another): the body's `code` decides. What
the document leaves open and this file decides:

- Keys: the same key and body get the first answer again; another body is 30001; 10006 while the first is processed.
- Money: a video costs 7.5 credits a second, an image 5 (1K), 7.5 (2K) or 12.5 (4K), rounded up for the whole task. It
  is pre-deducted, and nothing comes back from a task that failed or was cancelled, nor for missing images: no answer
  would tell a client, and so the bill is what a client can know.
- Refused prompts are 50015; a reference whose address contains `sandbox-unsafe` is 50014. 50001, 60002 and whatever
  else come on request only (`error_before_charge`, `error_after_charge` with a code).
- An account without access (`paid_access`) gets 20002. Too many requests or tasks at once: HTTP 429 with code 10001.
- Fields of the other kind of task are 30001; `aspectRatio`, said to be for images only, goes with both, as the examples
  have it. Fields nobody documents are ignored, and remarked upon.
- `createTime` has no zone; here it is the time at UTC+8.
- A video and a single image show 0 for `subStatus`, `subTaskTotal` and `subTaskDone`, also when they are completed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from ..credits import micros, number
from ..dialect import Answer, Call, Dialect, Route, whole_credits
from ..parameters import Field, Invalid, boolean, integer, one_of, text, told, urls
from ..tasks import Order, Stage, Task

VIDEO, IMAGE = "Seedance 2.0", "Imagen Nano Banana 2"
MODEL_IDS = {VIDEO: 4, IMAGE: 7}
TYPES = {VIDEO: ("img_txt", "img_vid_txt", "img_aud_txt", "img_vid_aud_txt"), IMAGE: ("txt", "img_txt")}
PER_SECOND = Decimal("7.5")
PER_IMAGE = {"1K": Decimal(5), "2K": Decimal("7.5"), "4K": Decimal("12.5")}
SECONDS = 5  # of a video, where none are asked for
LONG = integer(-(2**63), 2**63 - 1)
THERE = timezone(timedelta(hours=8))


def model(name: str, value: Any, _: str) -> str:
    if not isinstance(value, str) or not value:
        raise Invalid("model must be a string")
    if value not in MODEL_IDS:
        raise Invalid(f"{value} model does not exist", "model")
    return value


BODY = (
    Field("model", model, required=True),
    Field("taskName", text(1), required=True),
    Field("type", text(1), required=True),
    Field("prompt", text(1), required=True),
    Field("resolution", told("resolution", text(), one_of("720p"))),
    Field("durationSeconds", told("duration", LONG, integer(4, 15))),
    Field("aspectRatio", told("ratio", text(), one_of("16:9", "9:16"))),
    Field("imageCount", told("image_count", LONG, integer(1, 4))),
    Field("size", told("size", text(), one_of("1K", "2K", "4K", "1k", "2k", "4k"))),
    Field("quality", integer(50, 100), default=80),
    Field("seed", integer(-1, 2**63 - 1), default=-1),
    Field("generateAudio", boolean),
    Field("refImageUrls", urls(0, 5), default=[]),
    Field("refVideoUrls", urls(0, 5), default=[]),
    Field("refAudioUrls", urls(0, 5), default=[]),
)
ONLY = {
    IMAGE: ("imageCount", "size"),
    VIDEO: ("resolution", "durationSeconds", "generateAudio", "refVideoUrls", "refAudioUrls"),
}
ECHOED = (
    *("taskName", "aspectRatio", "imageCount", "size", "quality", "seed", "generateAudio", "resolution"),
    *("durationSeconds", "refImageUrls", "refVideoUrls", "refAudioUrls"),
)


def order(values: Mapping[str, Any]) -> Order:
    """Priced as the docstring of this file says. Raises Invalid for what does not go together."""
    name, other = values["model"], IMAGE if values["model"] == VIDEO else VIDEO
    _demand(values["type"] in TYPES[name], f"{name} does not support {values['type']}", "type")
    for field in ONLY[other]:
        _demand(values[field] in (None, []), f"{field} is for {other} only")
    _references_go_with_type(name, values)
    kept = {"type": values["type"], **{field: values[field] for field in ECHOED}}
    if name == VIDEO:
        price = whole_credits(PER_SECOND * (values["durationSeconds"] or SECONDS))
        return Order("task/generate", name, "video", values["prompt"], micros(price), "mp4", details=kept)
    count = values["imageCount"] or 1
    price = whole_credits(PER_IMAGE[(values["size"] or "1K").upper()] * count)
    return Order("task/generate", name, "image", values["prompt"], micros(price), "png", count, kept)


def _references_go_with_type(name: str, values: Mapping[str, Any]) -> None:
    """A video of type `img_txt` may do without any image: the document's own Quick Start does."""
    parts = values["type"].split("_")
    for part, field in (("vid", "refVideoUrls"), ("aud", "refAudioUrls")):
        _demand((part in parts) == bool(values[field]), f"{field} must go with a type that names {part}")
    images = values["refImageUrls"]
    _demand("img" in parts or not images, "refImageUrls needs type img_txt")
    optional = parts == ["txt"] or (name == VIDEO and parts == ["img", "txt"])
    _demand(optional or bool(images), "a reference image is required", "no_image")
    addresses = (*images, *values["refVideoUrls"], *values["refAudioUrls"])
    safe = not any("sandbox-unsafe" in address for address in addresses)
    _demand(safe, "Reference content failed safety review", "unsafe_reference")


def _demand(holds: bool, message: str, problem: str = "invalid") -> None:
    if not holds:
        raise Invalid(message, problem)


class Seedhorse(Dialect):
    name = "seedhorse"
    example_key = "sh-sandbox-"
    task_prefix = {"video": None, "image": None}  # noqa: RUF012 (declared ClassVar in Dialect)
    rate_limit = 0
    key_header = "X-Idempotency-Key"
    strict = False
    refunds = False
    codes = {  # noqa: RUF012
        "internal": ("10001", 200),
        "rate_limited": ("10001", 429),
        "key_busy": ("10006", 200),
        "no_key": ("20001", 200),
        "no_access": ("20002", 200),
        "not_yours": ("20003", 200),
        "unauthorized": ("20008", 200),
        "invalid": ("30001", 200),
        "conflict": ("30001", 200),
        "not_found": ("40002", 200),
        "model": ("40003", 200),
        "unavailable": ("50002", 200),
        "type": ("50003", 200),
        "resolution": ("50006", 200),
        "duration": ("50007", 200),
        "size": ("50008", 200),
        "ratio": ("50009", 200),
        "image_count": ("50010", 200),
        "no_image": ("50011", 200),
        "unsafe_reference": ("50014", 200),
        "refused": ("50015", 200),
        "insufficient_credits": ("60001", 200),
    }

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", "/api/v1/task/generate", "submit", lambda call: self.once(call, self._generate)),
            Route("GET", "/api/v1/query/{id}", "poll", self._status),
        )

    def error(self, code: str, message: str) -> Any:
        return {"code": _number_if_one(code), "data": None, "msg": message, "ok": False}

    def _generate(self, call: Call) -> Answer:
        if not call.account.paid_access:
            raise self.refusal("no_access", "No access permission")
        task = self.order(call, order(self.values(call, BODY)))
        number_of_task = hashlib.sha256(f"taskNo:{task.id}".encode()).hexdigest()[:32]
        told = {"estimatedCredits": number(task.price), "taskId": int(task.id), "taskNo": number_of_task}
        return _good(told, task)

    def _status(self, call: Call) -> Answer:
        if not call.match["id"].isdecimal():
            raise Invalid("taskId must be a number")
        task = self.own_task(call)
        return _good(self._shown(call, task), task)

    def _shown(self, call: Call, task: Task) -> dict[str, Any]:
        given, stage, odd = task.details, task.stage(call.now), task.oddity(call.now)
        several, progress = _count(task) > 1, _progress(task, call.now)
        done = stage is Stage.COMPLETED and not odd
        made = len(task.came) if done else _count(task) * progress // 100
        return {
            "aspectRatio": given["aspectRatio"] or "",
            "createTime": datetime.fromtimestamp(task.created_at, THERE).replace(tzinfo=None).isoformat("T", "seconds"),
            "durationSeconds": given["durationSeconds"] or 0,
            "failReason": FAILURES[task.outcome] if stage is Stage.FAILED and not odd else "",
            "genMethod": given["type"],
            "generateAudio": task.kind == "video" if given["generateAudio"] is None else given["generateAudio"],
            "imageCount": _count(task),
            "modelId": MODEL_IDS[task.model],
            "negativePrompt": None,
            "progress": progress,
            "prompt": task.prompt,
            "quality": given["quality"],
            "refAudioUrls": given["refAudioUrls"],
            "refImageUrls": given["refImageUrls"],
            "refVideoUrls": given["refVideoUrls"],
            "resolution": given["resolution"] or ("720p" if task.kind == "video" else ""),
            "results": self._results(call, task) if done else [],
            "seed": given["seed"],
            "size": given["size"] or "",
            "subTaskDone": made if several else 0,
            "subTaskTotal": _count(task) if several else 0,
            "taskId": int(task.id),
            "taskName": given["taskName"],
            "taskStatus": _number_if_one(odd) if odd else _status(task, stage),
            "taskType": 1 if task.kind == "video" else 2,
        }

    def _results(self, call: Call, task: Task) -> list[dict[str, Any]]:
        return [] if call.without_files else [self._result(call, task, index) for index in range(_count(task))]

    def _result(self, call: Call, task: Task, index: int) -> dict[str, Any]:
        """What has no file is failed where there are several, and is for ever pending where there is but one."""
        came, several = index in task.came, _count(task) > 1
        pictured = came and int(task.id) % 2 == 1
        return {
            "durationSeconds": (task.details["durationSeconds"] or SECONDS) if task.kind == "video" else 0,
            "failReason": "The upstream model could not render this image." if several and not came else "",
            "fileUrl": self.file(call, task, index, task.extension) if came else "",
            "height": 0,
            "subStatus": (1 if came else 2) if several else 0,
            "thumbnailUrl": self.file(call, task, index, "jpg") if pictured else None,
            "width": 0,
        }


def _count(task: Task) -> int:
    return int(task.details["imageCount"] or 1)


def _progress(task: Task, now: float) -> int:
    """Percent; 100 is kept for what is completed."""
    stage = task.stage(now)
    if stage in (Stage.QUEUED, Stage.COMPLETED):
        return 0 if stage is Stage.QUEUED else 100
    return 99 if stage.ended else min(99, int(100 * (now - task.created_at) / (task.finishes_at - task.created_at)))


def _status(task: Task, stage: Stage) -> int:
    return 5 if stage is Stage.FAILED and task.outcome == "cancelled" else STATUSES[stage]


def _number_if_one(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _good(data: Any, task: Task) -> Answer:
    return Answer(200, {"code": 0, "data": data, "msg": "success", "ok": True}, task_id=task.id)


STATUSES = {Stage.QUEUED: 0, Stage.PROCESSING: 1, Stage.COMPLETED: 2, Stage.FAILED: 3, Stage.REVIEW: 4}
FAILURES = {
    "failed": "The upstream model could not render this task.",
    "moderated": "The result was blocked by the content safety review.",
    "cancelled": "The task was cancelled.",
}
PROVIDER = Seedhorse()
