"""seedhorse: Seedance 2.0 video and Imagen Nano Banana 2 images (its document: the task API of SeedHorse,
api.seedhorse.ai).

From the document: `POST /api/v1/task/generate` and `GET /api/v1/query/{taskId}`, the table of parameters, the types
(`txt`, `img_txt`, …), the envelope `{code, data, msg, ok}`, the table of numeric codes, the six task states and the
three of a subtask, `estimatedCredits` as what was "pre-deducted", and the `X-Idempotency-Key` header, "to prevent
duplicate submissions". `taskName` is required: an order that sets none is given a mark that a person can find again
in the studio.

Where it contradicts itself, its examples win: `aspectRatio` is "image only", and stands in every video; `size` is "4K",
and stands there as "4k"; polling ends at 2 or 3, and 5 is "Cancelled"; a result with `subStatus` 0, "Pending", belongs
to a completed task. A heading names Imagen Nano Banana Pro, which no request may ask for.

Assumed, because the document is silent (providers.md section 7): the body's `code` decides with any HTTP status, and
without a code 0 nothing is a yes; only the codes that refuse an order in so many words mean that nothing was charged,
and any other answer may hide an accepted order; video without references is `img_txt` (so says its Quick Start); a key
is remembered for at least an hour. No price and no refund is documented, and there is no balance and no list of tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from runner.errors import ErrorKind, InternalError
from runner.exchange import Accepted, Action, Ask, Phase, Refusal, Reply, Report
from runner.providers.description import Fault, Field, Mode, Model, Provider, Slot, Values
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
    legible,
    no_such_id,
    phase_of,
    progress,
    refused_order,
    refused_question,
    results,
    task_id,
    task_in,
)

KEY_HEADER = "X-Idempotency-Key"
IDS = ("taskId",)
STATUS = "taskStatus"
GOING, DONE, FAILED, CANCELLED = ("0", "1", "4"), ("2",), ("3",), ("5",)  # 4, the safety review, ends nothing
FINISHED_SUBTASK, FAILED_SUBTASK = "1", "2"
MOST_IMAGES = 4

REFUSED = Verdict(Action.FAIL, ErrorKind.INVALID_REQUEST)
MODERATED = Verdict(Action.FAIL, ErrorKind.MODERATED)
CLOSED = Verdict(Action.STOP, ErrorKind.UNAUTHORIZED)
NO_MODEL = Verdict(Action.STOP_MODEL, ErrorKind.UNAVAILABLE)
LOCKED = Verdict(Action.AMBIGUOUS, ErrorKind.UNKNOWN_SUBMISSION)  # our own first request may hold the lock

ORDERS: Verdicts = {
    "10001": Verdict(Action.AMBIGUOUS, ErrorKind.UNAVAILABLE),
    "10006": LOCKED,
    "60002": LOCKED,
    "20001": CLOSED,
    "20002": CLOSED,
    "20008": CLOSED,
    "40003": NO_MODEL,
    "50001": NO_MODEL,
    "50002": Verdict(Action.LATER, ErrorKind.UNAVAILABLE),
    "60001": Verdict(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS),
    "50014": MODERATED,
    "50015": MODERATED,
    **dict.fromkeys(("30001", "50003", "50006", "50007", "50008", "50009", "50010", "50011"), REFUSED),
}
BUSY = Verdict(Action.LATER, ErrorKind.UNAVAILABLE)
QUESTIONS: Verdicts = {
    **ORDERS,
    "10006": BUSY,
    "60002": BUSY,
    "20003": CLOSED,  # the task is another key's
    "40002": Verdict(Action.NOT_FOUND, ErrorKind.NOT_FOUND),
}


async def submit(ask: Ask, path: str, content: bytes, idempotency_key: str | None) -> Accepted | Refusal:
    """Order one task. Whatever is neither a yes nor a documented refusal is AMBIGUOUS: to be repeated with the same key
    and bytes."""
    if idempotency_key is None:
        raise InternalError("seedhorse must never be asked without an idempotency key")
    reply = await ask("POST", path, headers={KEY_HEADER: idempotency_key}, content=content)
    if not _agrees(reply):
        return _in_doubt(refused_order(reply, ORDERS, *_unnamed(reply)))
    outcome = accepted(reply, IDS, ORDERS)
    if isinstance(outcome, Refusal):
        return outcome
    return replace(outcome, charged=amount(first(reply.data, ("estimatedCredits",))))


async def poll(ask: Ask, _path: str, known_id: str) -> Report | Refusal:
    """Ask for one task. No answer tells what it cost: the charge stays what the submission told."""
    if task_id(known_id) is None:
        return no_such_id(known_id)
    reply = await ask("GET", f"/api/v1/query/{in_path(known_id)}")
    if not _agrees(reply):
        return refused_question(reply, QUESTIONS, *_unnamed(reply))
    task = task_in(reply.data, STATUS)
    if task is None:
        return refused_question(reply, {}, "no_status", "the answer tells no status")
    if not is_for(reply.data, IDS, known_id):
        return refused_question(reply, {}, "other_task", "the answer is about another task")
    return _report(known_id, task)


def _agrees(reply: Reply) -> bool:
    """A yes has code 0 (as a number or as text), nothing that contradicts it, and a 2xx."""
    told = reply.data.get("code") if isinstance(reply.data, Mapping) else None
    return reply.ok and reply.unreadable is None and str(told) == "0" and complaint_in(reply.data) is None


def _unnamed(reply: Reply) -> tuple[str, str]:
    """What to call a 2xx that is no yes and has no code of its own for it; empty where it has, or is no 2xx."""
    told = reply.data.get("code") if isinstance(reply.data, Mapping) else None
    if reply.ok and str(told) in ("0", "None"):
        return "no_yes", "the answer says neither yes (code 0, ok) nor why not"
    return "", ""


def _in_doubt(refusal: Refusal) -> Refusal:
    """A 4xx without one of the documented codes refuses nothing for good: only a code does."""
    if refusal.action is Action.FAIL and refusal.code not in ORDERS:
        return replace(refusal, action=Action.AMBIGUOUS)
    return refusal


def _report(known_id: str, task: Said) -> Report:
    phase, status, recognised = phase_of(legible(str(task[STATUS])), DONE, FAILED, GOING, CANCELLED)
    if phase in (Phase.FAILED, Phase.CANCELLED) and _came_in_part(task):
        phase = Phase.DONE
    files, missing = results([*_results(task)], ("fileUrl",), ("thumbnailUrl",)) if phase is Phase.DONE else ((), ())
    return Report(
        task_id=known_id,
        phase=phase,
        status=status,
        recognised=recognised,
        progress=progress(task.get("progress")),
        files=files,
        missing=missing,
        error=_why(phase, task),
    )


def _results(task: Said) -> Iterator[Mapping[str, Any]]:
    """The results of a task, one entry for each that was asked for: of a failed subtask the reason alone, of one that
    is not even listed nothing."""
    listed = task.get("results")
    entries = listed if isinstance(listed, list) else []
    for entry in entries:
        said = entry if isinstance(entry, Mapping) else {}
        yield {"failReason": said.get("failReason")} if str(said.get("subStatus")) == FAILED_SUBTASK else said
    if entries:
        yield from [{}] * (_wanted(task) - len(entries))


def _came_in_part(task: Said) -> bool:
    """Whether a task that did not end well holds finished outputs all the same ("subStatus", 1 is Success): they are
    paid for, and to be fetched."""
    finished = [entry for entry in _results(task) if str(entry.get("subStatus")) == FINISHED_SUBTASK]
    return any(isinstance(entry.get("fileUrl"), str) and entry["fileUrl"] for entry in finished)


def _wanted(task: Said) -> int:
    """How many images were ordered, as the answer repeats it; 0 where it says nothing sensible."""
    told = [amount(task.get(name)) for name in ("imageCount", "subTaskTotal")]
    return max([int(count) for count in told if count is not None and count <= MOST_IMAGES], default=0)


def _why(phase: Phase, task: Said) -> Refusal | None:
    """Why a task ended without a result: its own reason, else that of one of its subtasks."""
    reasons = [task.get("failReason"), *[entry.get("failReason") for entry in _results(task)]]
    why = next((reason for reason in reasons if isinstance(reason, str) and reason.strip()), "")
    if phase is Phase.FAILED:
        return failure({"failReason": why}, {})
    if phase is Phase.CANCELLED:
        return Refusal(Action.FAIL, ErrorKind.CANCELLED, "cancelled", legible(why) or "the provider cancelled the task")
    return None


def check_image(values: Values) -> list[Fault]:
    return _check_type(values, "img_txt" if "refImageUrls" in values else "txt")


def check_video(values: Values) -> list[Fault]:
    """No type is documented for videos or audios without an image."""
    beside = {"_vid": "refVideoUrls", "_aud": "refAudioUrls"}
    sent = {part: native for part, native in beside.items() if native in values}
    if sent and "refImageUrls" not in values:
        message = "reference videos and audios go with at least one reference image"
        return [Fault("B46", native, message, "add references: {images: […]}") for native in sent.values()]
    return _check_type(values, f"img{''.join(sent)}_txt")


def _check_type(values: Values, wanted: str) -> list[Fault]:
    if values["type"] == wanted:
        return []
    message = f"type {values['type']} does not go with these references: theirs is {wanted}"
    return [Fault("B46", "type", message, "leave it out: references: {images: […], …} set it")]


URLS = {"images": "refImageUrls", "videos": "refVideoUrls", "audios": "refAudioUrls"}
MOST_URLS = 5


def _mode(kind: str, *roles: str) -> Mode:
    slots = {role: Slot(URLS[role], least=1, most=MOST_URLS, many=True) for role in roles}
    return Mode(kind, slots, {"type": kind})


def _urls(*roles: str) -> dict[str, Field]:
    return {URLS[role]: Field(URLS[role], "urls", low=1, high=MOST_URLS) for role in roles}


PROMPT = Field("prompt", required=True)
RATIO = Field("aspectRatio", choices=("16:9", "9:16"))
QUALITY = Field("quality", "integer", low=50, high=100)
SEED = Field("seed", "integer", low=-1, high=2**63 - 1, note="-1: random")
TASK_NAME = Field("taskName", note="filled in with a mark of the order's own where it is left out")
# The table says "4K", the examples that were surely tried say "4k"; of 1K and 2K there is only the table's spelling.
SIZE = Field("size", choices=("1K", "2K", "4k"))
UNPRICED = "no price is documented: learned from the estimatedCredits that orders are charged"

SEEDANCE = Model(
    name="Seedance 2.0",
    renders="video",
    path="/api/v1/task/generate",
    model_field="model",
    mark_field="taskName",
    fields={
        "prompt": PROMPT,
        "duration": Field("durationSeconds", "integer", low=4, high=15, note="seconds"),
        "resolution": Field("resolution", choices=("720p",)),
        "aspect_ratio": RATIO,
        "quality": QUALITY,
        "audio": Field("generateAudio", "boolean", default=True),
        "seed": SEED,
    },
    modes=(
        Mode("img_txt", {"images": Slot(URLS["images"], most=MOST_URLS, many=True)}, {"type": "img_txt"}),
        _mode("img_vid_txt", "images", "videos"),
        _mode("img_aud_txt", "images", "audios"),
        _mode("img_vid_aud_txt", "images", "videos", "audios"),
    ),
    params={
        "taskName": TASK_NAME,
        "type": Field("type", choices=("img_txt", "img_vid_txt", "img_aud_txt", "img_vid_aud_txt")),
        **_urls("images", "videos", "audios"),
    },
    check=check_video,
    price_note=UNPRICED,
    shape=("type", "resolution", "durationSeconds", "quality", "generateAudio"),
)

NANO_BANANA_2 = Model(
    name="Imagen Nano Banana 2",
    renders="image",
    path="/api/v1/task/generate",
    model_field="model",
    mark_field="taskName",
    fields={
        "prompt": PROMPT,
        "size": SIZE,
        "resolution": SIZE,
        "aspect_ratio": RATIO,
        "count": Field("imageCount", "integer", low=1, high=MOST_IMAGES),
        "quality": QUALITY,
        "seed": SEED,
    },
    modes=(Mode("txt", sends={"type": "txt"}), _mode("img_txt", "images")),
    params={"taskName": TASK_NAME, "type": Field("type", choices=("txt", "img_txt")), **_urls("images")},
    check=check_image,
    price_note=UNPRICED,
    shape=("type", "size", "imageCount", "quality"),
    extension="png",
)

PROVIDER = Provider(
    name="seedhorse",
    base_url="https://api.seedhorse.ai",
    models=(SEEDANCE, NANO_BANANA_2),
    submit=submit,
    poll=poll,
    guarantee=(
        "effectively once within an hour of a lost answer, if the provider honours its key: the same key and bytes are "
        "sent again until the answer is clear; after that hour at most once: the job is held for you, with the "
        "taskName to look for in the studio"
    ),
    idempotency_header=KEY_HEADER,
    key_window=3600,
    assumptions=(
        "an idempotency key is remembered for at least one hour (the document says what it is for, but names no time)",
        "the same key with the same body gives the first task again (what a repeated key answers is not documented)",
        "codes 20001–20008, 30001, 40003, 50001–50015 and 60001 mean that nothing was charged (the document does not "
        "say so)",
        "the estimatedCredits of an order's answer are its whole charge: no status tells what a task cost in the end",
        "whether a failed or cancelled task is refunded is not documented: no refund is booked",
        "aspect_ratio is for videos too: the table says images only, the examples say otherwise",
        "sizes are sent as 1K, 2K and 4k: the table says 4K, the examples say 4k",
        "a result with a file counts unless its subtask failed: the document's example calls a finished one pending",
    ),
)
