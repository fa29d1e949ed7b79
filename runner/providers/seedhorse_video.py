"""seedhorse-video: seedance-2.0, HappyHorse 1.0 and Vido Q3-Pro video (its document: the overview "Seedhorse API").

From the document: `POST /api/v1/video/generate` and `GET /api/v1/video/task/{id}`, three video and three image models,
480p and 720p, 4 to 30 seconds, an optional audio track, a first and a last frame, up to 9 reference images, 3 videos
and 3 audios, the states `succeeded` and `failed`, `video_url`, `credits_charged` and `credits_refunded`. Credits are
deducted "atomically before the task is submitted", so an answer that got lost may have cost a render; a failure is
refunded in full, "automatically". Want of credits is a 402. A key in a query string is refused and burnt: it only ever
goes out in its header.

Assumed, because the document is an overview (providers.md section 7): its base address, which is cut off in it; every
name in the body of a request, so that unknown names in `params` are passed on; the spellings IDS, VIDEOS and IMAGES;
words like `processing` mean that a task is still going; errors are `{error: {code, message}}`, `{error: "…"}` or
`{message}`; 401 and 403 refuse the key, other 4xx but 408 the job, and only those (and 402, 429) mean that nothing was
charged. The three ways to give references are told one by one, so frames and reference media do not go together here.
There is no idempotency key, no list of tasks and no balance: a lost answer cannot be looked into. Prices are said to
follow from model, duration and resolution, and are not given. For images no endpoint is documented.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runner.errors import ErrorKind
from runner.exchange import Accepted, Action, Ask, Phase, Refusal, Report, ResultFile
from runner.providers.description import Field, Mode, Model, Provider, Slot
from runner.providers.reading import (
    Said,
    Verdict,
    Verdicts,
    accepted,
    amount,
    complaint_in,
    failure,
    first,
    in_path,
    is_for,
    levels,
    no_such_id,
    phase_of,
    progress,
    refused_order,
    refused_question,
    results,
    task_id,
    task_in,
)

IDS = ("id", "task_id", "taskId")
VIDEOS, IMAGES = ("video_url", "video_urls"), ("image_url", "image_urls")
THUMBNAILS = ("thumbnail_url", "thumbnail_urls", "cover_url")
DONE, FAILED = ("succeeded",), ("failed",)
# Names that only an answer about a video holds: its `image_url` is then a frame that went in, and no output.
ABOUT_VIDEO = (*VIDEOS, "duration", "generate_audio", "end_image_url", "reference_videos", "reference_audios")
GOING = ("queued", "pending", "processing", "running", "in_progress")  # assumed
VERDICTS: Verdicts = {
    401: Verdict(Action.STOP, ErrorKind.UNAUTHORIZED),
    402: Verdict(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS),
    403: Verdict(Action.STOP, ErrorKind.UNAUTHORIZED),
}


async def submit(ask: Ask, path: str, content: bytes, _idempotency_key: str | None) -> Accepted | Refusal:
    """Order one task. No key is honoured and no list is kept: an unclear answer is AMBIGUOUS, and only a person can
    look into it."""
    reply = await ask("POST", path, content=content)
    # A task that failed at once is a task all the same: its `error` is its own, and its id must be followed.
    is_task = task_in(reply.data) is not None and task_id(first(reply.data, IDS)) is not None
    if not reply.ok or reply.unreadable or (complaint_in(reply.data) and not is_task):
        return refused_order(reply, VERDICTS)
    outcome = accepted(reply, IDS, VERDICTS)
    if isinstance(outcome, Refusal):
        return outcome
    return replace(outcome, charged=amount(first(reply.data, ("credits_charged",))))


async def poll(ask: Ask, _path: str, known_id: str) -> Report | Refusal:
    """Ask for one task."""
    if task_id(known_id) is None:
        return no_such_id(known_id)
    reply = await ask("GET", f"/api/v1/video/task/{in_path(known_id)}")
    task = task_in(reply.data) if reply.ok else None
    if task is None:
        return refused_question(reply, VERDICTS, "no_status" if reply.ok else "", "the answer tells no status")
    if not is_for(reply.data, IDS, known_id):
        return refused_question(reply, {}, "other_task", "the answer is about another task")
    return _report(known_id, {**_whole(reply.data), "status": task["status"]})


def _whole(data: Any) -> Said:
    """All that an answer says, in one level: what stands under `data` is nearer to the task than what is around it."""
    whole: dict[str, Any] = {}
    for level in levels(data):
        whole |= {name: value for name, value in level.items() if value is not None or name not in whole}
    return whole


def _report(known_id: str, task: Said) -> Report:
    phase, status, recognised = phase_of(task["status"], DONE, FAILED, GOING)
    files, missing = _files(task) if phase is Phase.DONE else ((), ())
    ended = phase is not Phase.GOING
    return Report(
        task_id=known_id,
        phase=phase,
        status=status,
        recognised=recognised,
        progress=progress(task.get("progress")),
        files=files,
        missing=missing,
        charged=amount(task.get("credits_charged")) if ended else None,
        refunded=amount(task.get("credits_refunded")) if ended else None,
        error=failure(task, {}) if phase is Phase.FAILED else None,
    )


def _files(task: Said) -> tuple[tuple[ResultFile, ...], tuple[str, ...]]:
    """The videos; images only where nothing says that a video was ordered (what an image task answers is not
    documented)."""
    is_video = any(name in task for name in ABOUT_VIDEO) or task.get("model") in VIDEO_MODELS
    return results(task, VIDEOS if is_video else IMAGES, THUMBNAILS)


VIDEO_MODELS = ("seedance-2.0", "HappyHorse 1.0", "Vido Q3-Pro")
IMAGE_MODELS = ("NanoBanana Pro", "NanoBanana 2.0", "gpt-image 2.0")
MOST = {"images": 9, "videos": 3, "audios": 3}
NATIVE = {"images": "reference_images", "videos": "reference_videos", "audios": "reference_audios"}
PROMPT = Field("prompt", required=True, assumed=True)


def _video(name: str) -> Model:
    return Model(
        name=name,
        renders="video",
        path="/api/v1/video/generate",
        model_field="model",
        open_params=True,
        fields={
            "prompt": PROMPT,
            "duration": Field("duration", "integer", low=4, high=30, note="seconds", assumed=True),
            "resolution": Field("resolution", choices=("480p", "720p"), assumed=True),
            "aspect_ratio": Field("aspect_ratio", note="passed on as written", assumed=True),
            "audio": Field("generate_audio", "boolean", assumed=True),
            "seed": Field("seed", "integer", assumed=True),
        },
        modes=(
            Mode(),
            Mode(slots={"first_frame": Slot("image_url", least=1), "last_frame": Slot("end_image_url")}),
            Mode(slots={role: Slot(NATIVE[role], most=most, many=True) for role, most in MOST.items()}, least=1),
        ),
        params={
            "image_url": Field("image_url", "url", assumed=True),
            "end_image_url": Field("end_image_url", "url", assumed=True),
            **{NATIVE[role]: Field(NATIVE[role], "urls", low=1, high=n, assumed=True) for role, n in MOST.items()},
        },
        price_note="by model, duration and resolution; the figures are not documented: learned from credits_charged",
        shape=("duration", "resolution"),
        note="names of parameters are assumed: other ones go through params",
    )


def _image(name: str) -> Model:
    why = "no endpoint is documented for images"
    return Model(name, "image", "", {"prompt": PROMPT}, unavailable=why, extension="png")


PROVIDER = Provider(
    name="seedhorse-video",
    base_url="https://api.seedhorse.ai",
    models=(*map(_video, VIDEO_MODELS), *map(_image, IMAGE_MODELS)),
    submit=submit,
    poll=poll,
    guarantee=(
        "at most once, whatever the provider does: a lost answer cannot be looked up, so its job is held for you at "
        "once and never sent again by itself; the Credits page shows whether it was charged"
    ),
    refunds_failures=True,
    assumptions=(
        "the base address (it is cut off in the document): SEEDHORSE_VIDEO_BASE_URL sets another",
        "every name in the body of a request, and the likely spellings by which answers are read: the document shows "
        "neither",
        "a 401, 402, 403, 429 or another 4xx but 408 means that nothing was charged (the document only says that "
        "credits are deducted before a task is submitted, and that want of credits is a 402)",
        "a failed task is refunded in full, automatically: documented, and booked only when an answer says so",
        "frames and reference media do not go together: the document tells of them one by one",
        "ratios are passed on as written: none are documented",
    ),
)
