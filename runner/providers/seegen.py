"""seegen: Seedance 2 video, HappyHorse 1.0 video, GPT Image 2, and a standalone upscaler (its document: "SeeGen.AI API
Documentation").

From the document: the models with their parameters, modes and limits, `/jobs/createTask` (everything under `inputs`),
`/upscale/create`, and all prices. `seegen_answers` holds the two kinds of tasks and the errors, `seegen_assets` the
reviewed inputs, `seegen_prices` the money.

Where the document leaves something open or says two things:
- One picture is animated ("Image to Video", no `videoInputMode`), whether it is written as `first_frame` or as the only
  one of `images`; `mode: reference` makes it a reference.
- Its example of several references has an https URL in `videoUrls`, its text refuses one: videos are registered first.
- HappyHorse's table writes a duration as "5", its examples as "5s": "5" is sent.
- HappyHorse cuts long prompts off, at 5000 characters or 2500 CJK ones. For a mixture it says nothing; here a CJK
  character (ideograph, kana, hangul, their punctuation and full-width forms) counts twice, and 5000 is the most.
- Two pictures without `videoInputMode` have no documented meaning and are refused.
- A URL at static.seedance2-pro.com is what its upscaler calls "uploaded to our R2".
- gpt-image-2 makes one image a task: several are several takes (the overview's "batch generation up to 4" has no
  field).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from runner.providers import seegen_answers as answers
from runner.providers import seegen_prices as prices
from runner.providers.description import Demands, Fault, Field, Mode, Model, Provider, Slot, Values
from runner.providers.seegen_assets import REGISTERING

SCHEMES = ("https", "asset")
R2 = "https://static.seedance2-pro.com/"
LONGEST_PROMPT = 5000  # of happyhorse, in characters; a CJK character counts as two
CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff]"
)
LISTS = ("urls", "videoUrls", "audioUrls")


def source(url: str) -> dict[str, Any]:
    """What the upscaler is to read: a public URL, or one of the provider's own storage."""
    if url.casefold().startswith(R2):
        return {"type": "uploadId", "r2Url": url}
    return {"type": "url", "url": url}


def check_sd2(values: Values) -> list[Fault]:
    faults = [*_check_references(values)]
    if "prompt" not in values and not any(name in values for name in LISTS):
        faults.append(Fault("B37", "prompt", "text-to-video needs a prompt", "write it, or add references"))
    if values["outputResolution"] == "1080p" and "upscaleResolution" in values:
        message = "upscaleResolution works on 720p, not on the native 1080p"
        faults.append(Fault("B42", "outputResolution", message, "leave out one of them"))
    return faults


def check_sd2_fast(values: Values) -> list[Fault]:
    if values["outputResolution"] == "1080p":
        message = "sd2-fast has no native 1080p"
        hint = "write params: {upscaleResolution: 1080p}, or choose sd2"
        return [Fault("B42", "outputResolution", message, hint)]
    return check_sd2(values)


def _check_references(values: Values) -> list[Fault]:
    """What "Parameters Reference" and the constraints of the modes say of the three lists together."""
    mode = values.get("videoInputMode")
    images, videos, audios = (len(values.get(name, ())) for name in LISTS)
    if mode == "keyframe" and (images != 2 or videos or audios):
        message = "keyframe takes exactly a first and a last frame"
        return [Fault("B46", "videoInputMode", message, "references: {first_frame: …, last_frame: …} sets both")]
    if mode is None and (images > 1 or videos or audios):
        message = "several images, videos and audios need videoInputMode keyframe or reference"
        last = next(name for name in reversed(LISTS) if name in values)
        return [Fault("B46", last, message, "write them under references, or params: {videoInputMode: reference}")]
    if audios and not images and not videos:
        message = "audio cannot be the only reference"
        return [Fault("B48", "audioUrls", message, "add an image or a video")]
    if mode == "reference" and not 1 <= images + videos + audios <= 12:
        message = f"reference takes 1 to 12 images, videos and audios, not {images + videos + audios}"
        return [Fault("B46", "videoInputMode", message, "write references: {images: […]}")]
    return []


def check_happyhorse(values: Values) -> list[Fault]:
    images, several = len(values.get("urls", ())), "videoWorkflowTab" in values
    faults = []
    if several and not images:
        faults.append(Fault("B46", "videoWorkflowTab", "multi-reference needs 1 to 9 images", "add references"))
    if images > 1 and not several:
        message = "more than one image needs videoWorkflowTab: multi-reference"
        faults.append(Fault("B46", "urls", message, "references: {images: […]} sets both"))
    first_frame = images == 1 and not several
    if first_frame and "ratio" in values:
        message = "a first frame gives the video its aspect ratio"
        faults.append(Fault("B42", "ratio", message, "leave out aspect_ratio"))
    if "prompt" not in values and not first_frame:
        faults.append(Fault("B37", "prompt", "only a first frame can do without a prompt", "write it"))
    return [*faults, *_check_length(values.get("prompt", ""))]


def _check_length(prompt: str) -> list[Fault]:
    """A prompt that is longer would be cut off by the provider, and the picture would be of something else."""
    double = len(CJK.findall(prompt))
    if len(prompt) + double <= LONGEST_PROMPT:
        return []
    message = f"prompt has {len(prompt) - double:,} characters and {double:,} CJK ones, which count twice"
    return [Fault("B39", "prompt", f"{message}: more than 5,000 for seegen happyhorse", "shorten it")]


def urls(native: str, most: int) -> Field:
    return Field(native, "urls", low=1, high=most, schemes=SCHEMES)


RATIOS = {
    "16:9": "1280x720", "9:16": "720x1280", "1:1": "720x720", "4:3": "960x720", "3:4": "720x960", "21:9": "1280x540",
}  # fmt: skip
COMMON_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4")
UPSCALES = tuple(prices.UPSCALE)
PICTURE = Demands(min_side=400)
CLIP = Demands(max_seconds=Decimal(15))
# "10MB", "50 MB", "200 MB": the smaller reading, which both readings allow.
HORSE_PICTURE = Demands(
    ("image/jpeg", "image/png", "image/bmp", "image/webp"), 10_000_000, min_side=300, max_ratio=Decimal("2.5")
)
GPT_PICTURE = Demands(("image/jpeg", "image/png", "image/webp"), 50_000_000, min_side=256, max_ratio=Decimal(3))
FILM = Demands(("video/mp4", "video/quicktime", "video/webm"), 200_000_000, max_seconds=Decimal(600))

TEXT_TO_VIDEO = Mode("text-to-video")
FRAME = Slot("urls", least=1, many=True, demands=PICTURE)
SD2_MODES = (
    TEXT_TO_VIDEO,
    Mode(
        "image-to-video",
        {role: Slot("urls", many=True, demands=PICTURE) for role in ("first_frame", "images")},
        least=1,
        most=1,
    ),
    Mode("keyframe", {"first_frame": FRAME, "last_frame": FRAME}, {"videoInputMode": "keyframe"}),
    Mode(
        "reference",
        {
            "images": Slot("urls", most=9, many=True, demands=PICTURE),
            "videos": Slot("videoUrls", most=3, many=True, demands=CLIP),
            "audios": Slot("audioUrls", most=3, many=True, demands=CLIP),
        },
        {"videoInputMode": "reference"},
        least=1,
        most=12,
    ),
)
SD2_FIELDS = {
    "prompt": Field("prompt", note="may be left out with references"),
    "duration": Field("duration", "integer", low=4, high=15, default=5, write="seconds", note="seconds"),
    "aspect_ratio": Field("resolution", choices=tuple(RATIOS.values()), translate=RATIOS),
}
SD2_PARAMS = {
    "urls": urls("urls", 9),
    "videoUrls": Field("videoUrls", "urls", low=1, high=3, schemes=("asset",), note="asset:// only"),
    "audioUrls": urls("audioUrls", 3),
    "videoInputMode": Field("videoInputMode", choices=("keyframe", "reference")),
    "upscaleResolution": Field("upscaleResolution", choices=tuple(prices.ADDED_UPSCALE), note="of 720p output"),
}


def _sd2(name: str, title: str, check: Callable[[Values], list[Fault]], resolution_note: str, rates: str) -> Model:
    resolution = Field("outputResolution", choices=("720p", "1080p"), default="720p", note=resolution_note)
    return Model(
        name=name,
        renders="video",
        path=answers.CREATE_TASK,
        model_field="model",
        nest="inputs",
        callback_field="callBackUrl",
        fields={**SD2_FIELDS, "resolution": resolution},
        modes=SD2_MODES,
        params=SD2_PARAMS,
        check=check,
        price=prices.video_price(name),
        price_note=(
            f"{rates}, for the seconds of each (rounded up, and two thirds of the output at least) like those of the "
            "output; upscaleResolution 1080p, 2k, 4k: 20, 30, 40 more a second of output"
        ),
        shape=("duration", "outputResolution", "upscaleResolution", "videoUrls"),
        note=f"{title}; one image alone is animated, mode: reference makes it a reference",
    )


SD2 = _sd2(
    "sd2",
    "Seedance2-Pro",
    check_sd2,
    "2k and 4k: params.upscaleResolution",
    "40 credits a second, 100 at 1080p; with reference videos 30 and 75",
)
SD2_FAST = _sd2(
    "sd2-fast",
    "Seedance2-Fast",
    check_sd2_fast,
    "1080p is refused: use params.upscaleResolution",
    "32 credits a second; with reference videos 24",
)

HAPPYHORSE = Model(
    name="happyhorse",
    aliases=("happyhorse-video-generation",),
    renders="video",
    path=answers.CREATE_TASK,
    model_field="model",
    nest="inputs",
    callback_field="callBackUrl",
    fields={
        "prompt": Field("prompt", high=LONGEST_PROMPT, note="a CJK character counts twice; optional with first_frame"),
        "duration": Field("duration", "integer", low=3, high=15, default=5, write="text", unit="s", note="seconds"),
        "resolution": Field("outputResolution", choices=("720p", "1080p"), default="720p"),
        "aspect_ratio": Field("ratio", choices=COMMON_RATIOS, note="not with first_frame"),
        "seed": Field("seed", "integer", low=0, high=2_147_483_647),
    },
    modes=(
        TEXT_TO_VIDEO,
        Mode("image-to-video", {"first_frame": Slot("urls", least=1, many=True, demands=HORSE_PICTURE)}),
        Mode(
            "multi-reference",
            {"images": Slot("urls", least=1, most=9, many=True, demands=HORSE_PICTURE)},
            {"videoWorkflowTab": "multi-reference"},
        ),
    ),
    params={"urls": urls("urls", 9), "videoWorkflowTab": Field("videoWorkflowTab", choices=("multi-reference",))},
    check=check_happyhorse,
    price=prices.happyhorse_price,
    price_note="32 credits a second, 60 at 1080p; references are not billed",
    shape=("duration", "outputResolution"),
    note="HappyHorse 1.0; images are character1, character2, … in the prompt",
)

GPT_SIZE = Field("resolution", choices=("1k", "2k", "4k"), default="2k")
GPT_IMAGE_2 = Model(
    name="gpt-image-2",
    renders="image",
    path=answers.CREATE_TASK,
    model_field="model",
    nest="inputs",
    callback_field="callBackUrl",
    fields={
        "prompt": Field("prompt", required=True),
        "resolution": GPT_SIZE,
        "size": GPT_SIZE,
        "aspect_ratio": Field("aspectRatio", choices=("1:1", "16:9", "9:16", "4:3", "3:4"), default="1:1"),
        "quality": Field("quality", choices=("medium", "high"), default="medium"),
        "format": Field("outputFormat", choices=("png", "jpeg", "webp"), default="png"),
    },
    modes=(
        Mode("text-to-image"),
        Mode("image-to-image", {"images": Slot("urls", least=1, most=10, many=True, demands=GPT_PICTURE)}),
    ),
    params={"urls": urls("urls", 10)},
    price=prices.image_price,
    price_note="credits an image, medium and high: 1k 15 and 70, 2k 35 and 125, 4k 60 and 230",
    shape=("resolution", "quality"),
    extension="png",
    note="one image a task: several are several takes",
)

UPSCALE = Model(
    name="upscale",
    renders="video",
    path=answers.CREATE_UPSCALE,
    callback_field="callBackUrl",
    takes_assets=False,
    fields={"resolution": Field("targetResolution", choices=UPSCALES, required=True, note="more than the source has")},
    modes=(Mode(slots={"videos": Slot("source", least=1, wrap=source, demands=FILM)}),),
    price=prices.upscale_price,
    price_note="by the second of the source, at least 5: 1080p 25 credits, 2k 38, 4k 50",
    shape=("targetResolution",),
    note="makes a finished video larger; no prompt; a source of up to 600 seconds and 200 MB",
)

PROVIDER = Provider(
    name="seegen",
    base_url="https://seegen.ai",
    models=(SD2, SD2_FAST, HAPPYHORSE, GPT_IMAGE_2, UPSCALE),
    submit=answers.submit,
    poll=answers.poll,
    balance=answers.balance,
    registering=REGISTERING,
    url_schemes=SCHEMES,
    refunds_failures=True,
    guarantee=(
        "at most once: there is no list of tasks, so after a lost answer the job is held for you. With "
        "account_exclusive the balance shows whether it was charged: if not, it goes again only with "
        "--resubmit-unknown; if so, only the support can tell its task. With --callback-url effectively once, if the "
        "callback is delivered: it names the task, which is asked for before it is believed; else as without. Assets "
        "are found again by their names, and never charged"
    ),
    assumptions=(
        "a 400, 401, 402, 403 or 429 to an order means that nothing was charged (the document does not say so)",
        "a 429 is about tasks at once: it ends when one of ours does",
        "creditsUsed of a failed task is what remains charged (that failed tasks are refunded is documented, when is "
        "not); a refund is booked only when an answer tells it",
        "creditsConsumed: null in a failed upscale means that all of it was refunded, as its section says",
        "availableCredits is what can be spent: what running tasks will cost is taken off already",
        "the upscaler's table of prices is right, not its example, which charges 1200 for 30 s to 4K instead of 1500",
        "the least of ⌈2 × output / 3⌉ billed seconds is meant for all reference videos together",
        "a callback comes once, when the task ends, and up to three times more within 36 s: the address must be up",
        "HappyHorse reads a duration of 5 like 5s (the document shows both)",
        "the demands on reference pictures of sd2 (400 pixels) hold for first and last frames too",
        "a URL at static.seedance2-pro.com is a file that the upscaler may take by its own storage",
    ),
)
