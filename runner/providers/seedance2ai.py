"""seedance2ai: seedance video, GPT Image 2 and Nano Banana Pro (its document: "Public API", seedance2ai.io).

From the document: three endpoints with their tables of parameters (unsupported fields are refused, so only those in
the tables are ever sent), `GET /api/v1/tasks/{id}`, the states `completed` and `failed`, `output.video_url`,
`credits_used`, the table of error codes, and the `Idempotency-Key` header with its 409: "same key reused with a
different body, or still running".

Assumed, because the document is silent (providers.md section 7): the answer to a submission holds `id`, `task_id` or
`taskId`; files may stand under `output` in any of the spellings of FILES; words like `queued` and `processing` mean
that a task is still going; errors are `{error: {code, message}}` or `{code, message}`; a key is remembered for at
least an hour. No price and no refund is documented, and there is no balance and no list of tasks to look into.
"""

from __future__ import annotations

from runner.errors import ErrorKind, InternalError
from runner.exchange import Accepted, Action, Ask, Phase, Refusal, Report
from runner.providers.description import Fault, Field, Mode, Model, Provider, Slot, Values
from runner.providers.reading import (
    Verdict,
    Verdicts,
    accepted,
    amount,
    complaint_in,
    failure,
    first,
    in_path,
    is_for,
    no_such_id,
    phase_of,
    progress,
    refused_order,
    refused_question,
    results,
    task_id,
    task_in,
)

KEY_HEADER = "Idempotency-Key"
IDS = ("id", "task_id", "taskId")
FILES = ("video_url", "video_urls", "image_url", "image_urls", "images")
THUMBNAILS = ("thumbnail_url", "thumbnail_urls", "cover_url")
DONE, FAILED = ("completed",), ("failed",)
GOING = ("queued", "pending", "processing", "running", "in_progress")  # assumed
VERDICTS: Verdicts = {
    "unauthorized": Verdict(Action.STOP, ErrorKind.UNAUTHORIZED),
    "invalid_request": Verdict(Action.FAIL, ErrorKind.INVALID_REQUEST),
    "insufficient_credits": Verdict(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS),
    "rate_limited": Verdict(Action.LATER, ErrorKind.RATE_LIMITED),
    "idempotency_conflict": Verdict(Action.CONFLICT, ErrorKind.UNKNOWN_SUBMISSION),
    "service_busy": Verdict(Action.AMBIGUOUS, ErrorKind.UNAVAILABLE),
    "not_found": Verdict(Action.NOT_FOUND, ErrorKind.NOT_FOUND),
    "internal_error": Verdict(Action.AMBIGUOUS, ErrorKind.UNAVAILABLE),
    401: Verdict(Action.STOP, ErrorKind.UNAUTHORIZED),
    402: Verdict(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS),
    409: Verdict(Action.CONFLICT, ErrorKind.UNKNOWN_SUBMISSION),
}
# Refusals that may also come as the failure of a task; they say nothing about what the job asks for.
RETURNED: Verdicts = {
    "insufficient_credits": Verdict(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS),
    "service_busy": Verdict(Action.LATER, ErrorKind.UNAVAILABLE),
}


async def submit(ask: Ask, path: str, content: bytes, idempotency_key: str | None) -> Accepted | Refusal:
    """Order one task. 500, 503 and whatever is unclear are AMBIGUOUS: to be repeated with the same key and bytes."""
    if idempotency_key is None:
        raise InternalError("seedance2ai must never be asked without an idempotency key")
    reply = await ask("POST", path, headers={KEY_HEADER: idempotency_key}, content=content)
    # A task that failed at once is a task all the same: its `error` is its own, and its id must be followed.
    is_task = task_in(reply.data) is not None and task_id(first(reply.data, IDS)) is not None
    if not reply.ok or reply.unreadable or (complaint_in(reply.data) and not is_task):
        return refused_order(reply, VERDICTS)
    return accepted(reply, IDS, VERDICTS)


async def poll(ask: Ask, _path: str, known_id: str) -> Report | Refusal:
    """Ask for one task. A 404 means that it does not exist *or* belongs to another key's owner."""
    if task_id(known_id) is None:
        return no_such_id(known_id)
    reply = await ask("GET", f"/api/v1/tasks/{in_path(known_id)}")
    task = task_in(reply.data) if reply.ok else None
    if task is None:
        return refused_question(reply, VERDICTS, "no_status" if reply.ok else "", "the answer tells no status")
    if not is_for(reply.data, IDS, known_id):
        return refused_question(reply, {}, "other_task", "the answer is about another task")
    phase, status, recognised = phase_of(task["status"], DONE, FAILED, GOING)
    files, missing = results(task.get("output"), FILES, THUMBNAILS) if phase is Phase.DONE else ((), ())
    return Report(
        task_id=known_id,
        phase=phase,
        status=status,
        recognised=recognised,
        progress=progress(task.get("progress")),
        files=files,
        missing=missing,
        used=amount(first(task, ("credits_used", "creditsUsed"))) if phase is not Phase.GOING else None,
        error=failure(task, RETURNED) if phase is Phase.FAILED else None,
    )


def check_video(values: Values) -> list[Fault]:
    """The combinations that the table of Seedance Video forbids or demands, also where `params` made them."""
    faults = []
    if values.get("channel") == "real" and "seed" in values:
        message = "seed is not supported on the real channel"
        faults.append(Fault("B45", "seed", message, "leave out seed or channel: real"))
    if values["mode"] == "image-to-video" and "image_url" not in values:
        faults.append(Fault("B46", "mode", "image-to-video needs a start frame", "add references: {first_frame: …}"))
    if values["mode"] == "media-to-video" and "media_urls" not in values:
        faults.append(Fault("B46", "mode", "media-to-video needs 1 to 12 media", "add references: {images: […]}"))
    return faults


def check_gpt_image(values: Values) -> list[Fault]:
    """What the table of GPT Image 2 says of resolution: auto is for 1K only; on the standard channel 1:1 is not for
    4K."""
    faults = _check_type(values, "imageUrls")
    ratio, size = values["aspectRatio"], values["resolution"]
    if ratio == "auto" and size != "1K":
        faults.append(Fault("B42", "resolution", f"resolution {size} is not allowed with aspect_ratio auto", "use 1K"))
    if ratio == "1:1" and size == "4K" and values.get("channel") == "standard":
        message = "resolution 4K is not allowed with aspect_ratio 1:1 on the standard channel"
        faults.append(Fault("B42", "resolution", message, "use 2K, another ratio, or params: {channel: economy}"))
    return faults


def check_nano_banana(values: Values) -> list[Fault]:
    return _check_type(values, "image_urls")


def _check_type(values: Values, urls: str) -> list[Fault]:
    if (values["type"] == "image-to-image") == (urls in values):
        return []
    message = f"image-to-image is the type that goes with {urls}, and only that"
    return [Fault("B46", "type", message, "references: {images: […]} sets both")]


def _image_modes(urls: str, most: int) -> tuple[Mode, ...]:
    return (
        Mode("text-to-image", sends={"type": "text-to-image"}),
        Mode("image-to-image", {"images": Slot(urls, least=1, most=most, many=True)}, {"type": "image-to-image"}),
    )


TYPE = Field("type", choices=("text-to-image", "image-to-image"))
SIZES = ("1K", "2K", "4K")
AUDIO = Field("generate_audio", "boolean", default=True)
TIER = Field("quality_tier", choices=("standard", "pro"), default="standard")
VIDEO_RATIOS = ("1:1", "21:9", "4:3", "3:4", "16:9", "9:16")
GPT_RATIOS = (
    "auto", "1:1", "5:4", "9:16", "21:9", "16:9", "4:3", "3:2", "4:5", "3:4", "2:3", "2:1", "1:2", "3:1", "1:3",
    "9:21",
)  # fmt: skip
NANO_RATIOS = ("1:1", "9:16", "16:9", "3:4", "4:3", "3:2", "2:3", "5:4", "4:5", "21:9", "auto")
GPT_SIZE = Field("resolution", choices=SIZES, required=True, note="auto: 1K only; 1:1 not 4K on the standard channel")
NANO_SIZE = Field("resolution", choices=SIZES, default="1K")
UNPRICED = "no price is documented: learned from what tasks are charged"

SEEDANCE = Model(
    name="seedance",
    renders="video",
    path="/api/v1/video/seedance",
    fields={
        "prompt": Field("prompt", low=3, high=10_000, required=True),
        "duration": Field("duration", "integer", low=4, high=15, default=5, write="text", note="seconds"),
        "resolution": Field("resolution", choices=("720p", "1080p"), default="720p"),
        "aspect_ratio": Field("aspect_ratio", choices=VIDEO_RATIOS, default="16:9"),
        "quality": TIER,
        "audio": AUDIO,
        "seed": Field("seed", "integer", low=-1, high=4_294_967_295, note="not on the real channel"),
    },
    modes=(
        Mode("text-to-video", sends={"mode": "text-to-video"}),
        Mode(
            "image-to-video",
            {"first_frame": Slot("image_url", least=1), "last_frame": Slot("end_image_url")},
            {"mode": "image-to-video"},
        ),
        Mode(
            "media-to-video",
            {role: Slot("media_urls", most=12, many=True) for role in ("images", "videos", "audios")},
            {"mode": "media-to-video"},
            least=1,
            most=12,
        ),
    ),
    params={
        "mode": Field("mode", choices=("text-to-video", "image-to-video", "media-to-video"), default="text-to-video"),
        "channel": Field("channel", choices=("standard", "real", "wild"), default="standard"),
        "fixed_lens": Field("fixed_lens", "boolean", default=False),
        "image_url": Field("image_url", "url"),
        "end_image_url": Field("end_image_url", "url"),
        "media_urls": Field("media_urls", "urls", low=1, high=12),
    },
    check=check_video,
    price_note=UNPRICED,
    shape=("mode", "resolution", "duration", "quality_tier", "channel", "generate_audio"),
)

GPT_IMAGE_2 = Model(
    name="gpt-image-2",
    renders="image",
    path="/api/v1/image/gpt-image-2",
    fields={
        "prompt": Field("prompt", low=3, high=20_000, required=True),
        "resolution": GPT_SIZE,
        "size": GPT_SIZE,
        "aspect_ratio": Field("aspectRatio", choices=GPT_RATIOS, required=True),
        "count": Field("batchCount", "integer", low=1, high=4, default=1),
    },
    modes=_image_modes("imageUrls", 10),
    params={
        "type": TYPE,
        "channel": Field("channel", choices=("standard", "economy"), default="standard", note="economy: lower cost"),
        "imageUrls": Field("imageUrls", "urls", low=1, high=10),
    },
    check=check_gpt_image,
    price_note=UNPRICED,
    shape=("type", "resolution", "channel", "batchCount"),
    extension="png",
)

NANO_BANANA_PRO = Model(
    name="nano-banana-pro",
    renders="image",
    path="/api/v1/image/nano-banana-pro",
    fields={
        "prompt": Field("prompt", low=3, high=10_000, required=True),
        "resolution": NANO_SIZE,
        "size": NANO_SIZE,
        "aspect_ratio": Field("image_size", choices=NANO_RATIOS, default="auto"),
        "format": Field("output_format", choices=("png", "jpeg"), default="png"),
    },
    modes=_image_modes("image_urls", 8),
    params={"type": TYPE, "image_urls": Field("image_urls", "urls", low=1, high=8)},
    check=check_nano_banana,
    price_note=UNPRICED,
    shape=("type", "resolution"),
    extension="png",
)

PROVIDER = Provider(
    name="seedance2ai",
    base_url="https://seedance2ai.io",
    models=(SEEDANCE, GPT_IMAGE_2, NANO_BANANA_PRO),
    submit=submit,
    poll=poll,
    guarantee=(
        "effectively once within an hour of a lost answer, if the provider honours its key: the same key and bytes are "
        "sent again until the answer is clear; after that hour at most once: the job is held for you"
    ),
    idempotency_header=KEY_HEADER,
    assumptions=(
        "an idempotency key is remembered for at least one hour (the document names no time)",
        "a 400, 401, 402 or 429 means that nothing was charged (the document does not say so)",
        "whether a failed task is refunded is not documented: the credits_used of its last answer is what counts",
        "the credits are shared with the website: what is spent there is not seen here",
        "where files stand under output, and the words for a task still going, are read by likely spellings",
    ),
)
