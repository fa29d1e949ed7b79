"""happyhorse: HappyHorse video and Nano Banana 2.0 images (its document: "API Reference", happy-horse.ai).

From the document: the envelope `{data, error}`, `POST /generate`, `POST /generate-image`, `GET /videos` (page, limit
up to 50), `GET /videos/{id}`, `POST /upload` (form field `image`; JPG, PNG, WebP; 10 MB), `GET /credits`, the
parameters with their defaults, the table of error codes, 60 requests a minute and key with `X-RateLimit-*`, and the
prices. It honours no idempotency key: a lost answer is looked up in `GET /videos`.

Assumed, because the document is silent (providers.md section 7): images are polled at `/videos/{id}` too and are not
in the list; the spellings IDS, VIDEOS and IMAGES; `credits` or `balance` in the balance; `url` or `image_url` in an
upload's answer; words like `processing` mean that a task is still going; a time without a zone is UTC. Both spellings
of the default model mean HappyHorse Lite. Resolutions and ratios of videos are passed on as written, since only
examples are given. Its tables name all parameters of both endpoints, so a name in `params` that they do not hold is
refused at plan: an ignored typo would be a paid picture of something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from runner.errors import ErrorKind
from runner.exchange import Accepted, Action, Ask, Listed, Page, Phase, Refusal, Reply, Report, Upload
from runner.ledger import Price
from runner.limits import Window
from runner.providers.description import Fault, Field, Hosting, Mode, Model, Provider, Slot, Values
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
    moment,
    no_such_id,
    phase_of,
    progress,
    refused_order,
    refused_question,
    refused_upload,
    results,
    task_id,
    task_in,
)

PAGE_SIZE = 50  # the most the document allows
IDS = ("video_id", "image_id", "id")
IMAGE_ORDERS = "/api/v1/generate-image"
# An order of images names its references `images` ("/generate-image"): an answer that repeats them offers no outputs.
VIDEOS, IMAGES = ("video_url", "video_urls"), ("image_url", "image_urls")
THUMBNAILS = ("thumbnail_url", "thumbnail_urls", "cover_url")
DONE, FAILED = ("completed",), ("failed",)
GOING = ("queued", "pending", "processing", "running", "in_progress")  # assumed
VERDICTS: Verdicts = {
    "unauthorized": Verdict(Action.STOP, ErrorKind.UNAUTHORIZED),
    "insufficient_credits": Verdict(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS),
    "paid_access_required": Verdict(Action.STOP_MODEL, ErrorKind.UNAUTHORIZED),
    "validation_error": Verdict(Action.FAIL, ErrorKind.INVALID_REQUEST),
    "rate_limit_exceeded": Verdict(Action.LATER, ErrorKind.RATE_LIMITED),
    "internal_error": Verdict(Action.AMBIGUOUS, ErrorKind.UNAVAILABLE),
    "upstream_error": Verdict(Action.AMBIGUOUS, ErrorKind.UNAVAILABLE),
    401: Verdict(Action.STOP, ErrorKind.UNAUTHORIZED),
    403: Verdict(Action.STOP, ErrorKind.UNAUTHORIZED),
}
# Refusals that may also come as the failure of a task; they say nothing about what the job asks for.
RETURNED: Verdicts = {
    "insufficient_credits": Verdict(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS),
    "paid_access_required": Verdict(Action.STOP_MODEL, ErrorKind.UNAUTHORIZED),
}


async def submit(ask: Ask, path: str, content: bytes, _idempotency_key: str | None) -> Accepted | Refusal:
    """Order one task. No key is honoured: an unclear answer is AMBIGUOUS and can only be looked up in the history."""
    reply = await ask("POST", path, content=content)
    if _refuses(reply):
        return refused_order(reply, VERDICTS)
    return accepted(reply, IDS, VERDICTS)


async def poll(ask: Ask, path: str, known_id: str) -> Report | Refusal:
    """Ask for one task, image or video; the provider asks its own upstream for a fresh answer.

    What was ordered tells which files are outputs: the `image_url` of a video is the reference that went in."""
    if task_id(known_id) is None:
        return no_such_id(known_id)
    reply = await ask("GET", f"/api/v1/videos/{in_path(known_id)}")
    if _refuses(reply):
        return refused_question(reply, VERDICTS)
    task = task_in(reply.data)
    if task is None:
        return refused_question(reply, VERDICTS, "no_status", "the answer tells no status")
    if not is_for(reply.data, IDS, known_id):
        return refused_question(reply, {}, "other_task", "the answer is about another task")
    return _report(known_id, task, IMAGES if path == IMAGE_ORDERS else VIDEOS)


async def history(ask: Ask, page: int) -> Page | Refusal:
    """One page (from 1) of the account's video tasks, 50 at most; entries without a usable id are left out."""
    reply = await ask("GET", "/api/v1/videos", query={"page": str(page), "limit": str(PAGE_SIZE)})
    entries = None if _refuses(reply) else _entries(reply.data)
    if entries is None:
        return refused_question(reply, VERDICTS, "no_list" if reply.ok else "", "the answer holds no list")
    items = [listed for entry in entries if (listed := _listed(entry)) is not None]
    return Page(tuple(items), _more(reply.data, len(entries)))


async def balance(ask: Ask) -> Decimal | Refusal:
    """The credits that are left."""
    reply = await ask("GET", "/api/v1/credits")
    left = None if _refuses(reply) else amount(first(reply.data, ("credits", "balance")))
    if left is None:
        return refused_question(reply, VERDICTS, "no_balance" if reply.ok else "", "the answer holds no balance")
    return left


async def upload(ask: Ask, filename: str, content: bytes, media_type: str) -> str | Refusal:
    """Host one image; gives its URL."""
    reply = await ask("POST", "/api/v1/upload", upload=Upload("image", filename, content, media_type))
    url = None if _refuses(reply) else first(reply.data, ("url", "image_url"))
    if not isinstance(url, str) or not url:
        return refused_upload(reply, VERDICTS, "no_url" if reply.ok else "", "the answer holds no URL")
    return url


def _refuses(reply: Reply) -> bool:
    """An error in the envelope beats a 200; the `error` of a task stands inside `data`, and so is none of these."""
    return not reply.ok or reply.unreadable is not None or complaint_in(reply.data) is not None


def _report(known_id: str, task: Said, outputs: tuple[str, ...]) -> Report:
    phase, status, recognised = phase_of(task["status"], DONE, FAILED, GOING)
    files, missing = results(task, outputs, THUMBNAILS) if phase is Phase.DONE else ((), ())
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


def _entries(data: Any) -> list[Any] | None:
    """The list of a history, spelled `videos` or `items` or bare, at the top level or under `data`."""
    listed = first(data, ("videos", "items"))
    if listed is None:
        listed = data.get("data") if isinstance(data, Mapping) else data
    return listed if isinstance(listed, list) else None


def _listed(entry: Any) -> Listed | None:
    known_id = task_id(first(entry, ("video_id", "id")))
    if known_id is None:
        return None
    prompt = entry.get("prompt")
    created = _created(entry)
    told = entry if entry.get("status") is not None else {**entry, "status": ""}
    report = _report(known_id, told, VIDEOS)  # an image that is listed all the same shows no file: it is asked itself
    return Listed(known_id, prompt if isinstance(prompt, str) else None, created, report, dict(entry))


def _created(entry: Said) -> datetime | None:
    return moment(first(entry, ("created_at", "createdAt")))


def _more(data: Any, count: int) -> bool:
    """Whether an older page may follow: as the answer says, else when this one is full."""
    for level in levels(data):
        for said in (level, level.get("pagination")):
            if isinstance(said, Mapping) and isinstance(said.get("has_more"), bool):
                return bool(said["has_more"])
    return count >= PAGE_SIZE


def by_second(rate: str, *, rounded_up: bool = False) -> Callable[[Values], Price | None]:
    """A price by the second of video ("Models & Credits"). Where the document does not say whether part of a credit is
    rounded up, it is an interval."""

    def price(values: Values) -> Price | None:
        credits = Decimal(rate) * values["duration"]
        whole = credits.to_integral_value(ROUND_CEILING)
        if rounded_up or credits == whole:
            return Price.exactly(whole)
        return Price(credits, whole, "whether part of a credit is rounded up is not documented")

    return price


def five_credits(_values: Values) -> Price | None:
    return Price.exactly(5)


def check_video(values: Values) -> list[Fault]:
    faults = []
    if values["duration"] <= 0:
        faults.append(Fault("B41", "duration", "duration must be more than 0 seconds", "for example 5"))
    if (values["generation_type"] == "image_to_video") != ("image_url" in values):
        message = "image_to_video is the generation_type that goes with image_url, and only that"
        faults.append(Fault("B46", "generation_type", message, "references: {first_frame: …} sets both"))
    return faults


def _video(name: str, title: str, price: Callable[[Values], Price | None], price_note: str, *aliases: str) -> Model:
    return Model(
        name=name,
        aliases=aliases,
        renders="video",
        path="/api/v1/generate",
        model_field="model",
        fields={
            "prompt": Field("prompt", required=True),
            "duration": Field("duration", "number", default=5, note="seconds"),
            "resolution": Field("resolution", default="720p"),
            "aspect_ratio": Field("aspect_ratio", default="16:9"),
        },
        modes=(
            Mode("text_to_video", sends={"generation_type": "text_to_video"}),
            Mode(
                "image_to_video",
                {"first_frame": Slot("image_url"), "images": Slot("image_url")},
                {"generation_type": "image_to_video"},
                least=1,
                most=1,
            ),
        ),
        params={
            "generation_type": Field("generation_type", choices=("text_to_video", "image_to_video")),
            "image_url": Field("image_url", "url"),
        },
        check=check_video,
        price=price,
        price_note=price_note,
        shape=("generation_type", "resolution", "duration"),
        listed=True,
        note=title,
    )


IMAGE_SIZE = Field("resolution", choices=("1k", "2k", "4k"))
NANO_BANANA_2 = Model(
    name="nano-banana-2",
    renders="image",
    path=IMAGE_ORDERS,
    model_field="model",
    fields={
        "prompt": Field("prompt", required=True),
        "resolution": IMAGE_SIZE,
        "size": IMAGE_SIZE,
        "aspect_ratio": Field("aspect_ratio", default="1:1"),
        "format": Field("output_format", choices=("png", "jpg", "webp"), default="png"),
    },
    modes=(Mode(slots={"images": Slot("images", most=None, many=True)}),),
    params={"images": Field("images", "urls")},
    price=five_credits,
    price_note="5 credits per image",
    shape=("resolution", "images"),
    extension="png",
    note="Nano Banana 2.0; needs a subscription",
)

PROVIDER = Provider(
    name="happyhorse",
    base_url="https://happy-horse.ai",
    models=(
        _video(
            "doubao-seedance-1-5-pro",
            "HappyHorse Lite; the provider's default",
            by_second("5"),
            "5 credits a second",
            "seedance-1-5-pro",
        ),
        _video(
            "doubao-seedance-2-0",
            "HappyHorse 1.0; needs a subscription",
            by_second("7.5", rounded_up=True),
            "7.5 credits a second, rounded up per video",
        ),
        _video(
            "doubao-seedance-2-0-fast",
            "HappyHorse 1.0 Fast; needs a subscription",
            by_second("5"),
            "5 credits a second",
        ),
        NANO_BANANA_2,
    ),
    submit=submit,
    poll=poll,
    history=history,
    balance=balance,
    hosting=Hosting(
        roles=("images", "first_frame"),
        media_types=("image/jpeg", "image/png", "image/webp"),
        max_bytes=10_000_000,  # "10MB": the smaller reading, which both readings allow
        upload=upload,
    ),
    windows=(Window(60, 60),),
    guarantee=(
        "at most once: a lost answer is looked for in the history of videos and adopted where exactly one task can be "
        "it; otherwise, and for every image, the job is held for you and never sent again by itself"
    ),
    assumptions=(
        "a 400, 401, 403 or 429 means that nothing was charged (the document does not say so)",
        "the history shows id, prompt and time of every video (its fields are not documented)",
        "an order is taken off the credits when it is accepted (when is not documented): only then does the balance "
        "tell that a lost one was not charged",
        "images are polled like videos and do not appear in the history",
        "whether a failed task is refunded is not documented: the credits_used of its last answer is what counts",
        "seedance-1-5-pro and doubao-seedance-1-5-pro are one model, HappyHorse Lite",
        "resolutions and ratios of videos other than the examples are passed on as written",
    ),
)
