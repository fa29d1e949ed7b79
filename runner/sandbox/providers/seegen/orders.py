"""What seegen's `createTask` takes and what it costs, model by model, from its document (003). Pure.

What the document leaves open and this file decides: several `urls` need a `videoInputMode`; a keyframe is exactly two
images; native 1080p and an upscale exclude each other (the upscale is "applied on top of 720p base output"); references
need at least one file; a name that tells the size of an image or the length of a sound is believed, and checked.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from ...credits import micros
from ...measuring import measured_seconds, measured_size
from ...parameters import Check, Field, Invalid, integer, one_of, text, url
from ...tasks import Order

ENDPOINT = "jobs/createTask"
ASSET = "asset://"


Resolve = Callable[[str, str], str]
"""(reference, kind of asset) → where the file is; raises Invalid where an asset may not be used."""


def references(high: int) -> Check:
    """At most `high` public https addresses or asset:// names."""

    def check(name: str, value: Any, own_media: str) -> list[str]:
        if not isinstance(value, list) or len(value) > high:
            raise Invalid(f"{name} must be a list of at most {high} URLs")
        return [_reference(name, each, own_media) for each in value]

    return check


def _reference(name: str, value: Any, own_media: str) -> str:
    return value if isinstance(value, str) and value.startswith(ASSET) else url(name, value, own_media)


def assets_only(high: int) -> Check:
    def check(name: str, value: Any, own_media: str) -> list[str]:
        found: list[str] = references(high)(name, value, own_media)
        if not all(each.startswith(ASSET) for each in found):
            raise Invalid(f"{name} must be asset:// URIs: external URLs are not accepted, upload them first")
        return found

    return check


def unsupported(name: str, value: Any, own_media: str) -> Any:
    raise Invalid(f"{name} is not supported by this model")


RESOLUTIONS = ("720x720", "720x960", "960x720", "1280x720", "720x1280", "1280x540")
RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4")
SD2 = (
    Field("prompt", text(), default=""),
    Field("urls", references(9), default=()),
    Field("videoUrls", assets_only(3), default=()),
    Field("audioUrls", references(3), default=()),
    Field("duration", one_of(*(f"{seconds}s" for seconds in range(4, 16))), default="5s"),
    Field("resolution", one_of(*RESOLUTIONS), default="1280x720"),
    Field("outputResolution", one_of("720p", "1080p"), default="720p"),
    Field("videoInputMode", one_of("keyframe", "reference")),
    Field("upscaleResolution", one_of("1080p", "2k", "4k")),
)
HAPPYHORSE = (
    Field("prompt", text(), default=""),
    Field("urls", references(9), default=()),
    Field("videoWorkflowTab", one_of("multi-reference")),
    Field("duration", one_of(*(f"{seconds}{unit}" for unit in ("", "s") for seconds in range(3, 16))), default="5"),
    Field("outputResolution", one_of("720p", "1080p"), default="720p"),
    Field("ratio", one_of(*RATIOS)),
    Field("seed", integer(0, 2147483647)),
    *(Field(name, unsupported) for name in ("videoUrls", "audioUrls", "videoInputMode")),
)
GPT_IMAGE = (
    Field("prompt", text(1), required=True),
    Field("urls", references(10), default=()),
    Field("quality", one_of("medium", "high"), default="medium"),
    Field("resolution", one_of("1k", "2k", "4k"), default="2k"),
    Field("aspectRatio", one_of(*RATIOS), default="1:1"),
    Field("outputFormat", one_of("png", "jpeg", "webp"), default="png"),
)

RATES = {  # credits a second by (model, output, are there reference videos)
    ("sd2", "720p", False): 40,
    ("sd2", "720p", True): 30,
    ("sd2", "1080p", False): 100,
    ("sd2", "1080p", True): 75,
    ("sd2-fast", "720p", False): 32,
    ("sd2-fast", "720p", True): 24,
}
UPSCALE_RATES = {None: 0, "1080p": 20, "2k": 30, "4k": 40}
HAPPYHORSE_RATES = {"720p": 32, "1080p": 60}
IMAGE_PRICES = {
    ("1k", "medium"): 15,
    ("1k", "high"): 70,
    ("2k", "medium"): 35,
    ("2k", "high"): 125,
    ("4k", "medium"): 60,
    ("4k", "high"): 230,
}
LINES = {"720p": 720, "1080p": 1080, "2k": 1440, "4k": 2160}


def sd2_price(model: str, output: int, inputs: Sequence[Decimal], resolution: str, upscale: str | None) -> int:
    """Credits: seconds of output and of input (each reference rounded up, together at least ⌈2/3⌉ of the output)."""
    measured = sum(seconds_up(each) for each in inputs)
    billed = output + max(measured, -(-2 * output // 3)) if inputs else output
    return billed * RATES[model, resolution, bool(inputs)] + output * UPSCALE_RATES[upscale]


def seconds_up(seconds: Decimal) -> int:
    return int(seconds.to_integral_value(rounding="ROUND_CEILING"))


def sd2_order(model: str, values: Mapping[str, Any], resolve: Resolve) -> Order:
    """For sd2 and sd2-fast. Raises Invalid."""
    _demand(model == "sd2" or values["outputResolution"] == "720p", f"{model} does not support native 1080p")
    upscale, output = values["upscaleResolution"], values["outputResolution"]
    _demand(upscale is None or output == "720p", "upscaleResolution needs the 720p base output")
    _sd2_mode(values)
    images = [resolve(each, "IMAGE") for each in values["urls"]]
    videos = [resolve(each, "VIDEO") for each in values["videoUrls"]]
    sounds = [resolve(each, "AUDIO") for each in values["audioUrls"]]
    _images_fit(images, shortest=400)
    _demand(all(measured_seconds(each) <= 15 for each in [*videos, *sounds]), "each video and audio must be ≤ 15s")
    seconds = int(values["duration"].removesuffix("s"))
    price = sd2_price(model, seconds, [measured_seconds(each) for each in videos], output, upscale)
    size = _scaled(values["resolution"], LINES[upscale or output])
    return _video(model, values["prompt"], price, size)


def _sd2_mode(values: Mapping[str, Any]) -> None:
    """Raises Invalid for references that do not go together, or not with the mode."""
    images, videos, sounds = (len(values[name]) for name in ("urls", "videoUrls", "audioUrls"))
    mode = values["videoInputMode"]
    _demand(mode == "reference" or not videos + sounds, "videoUrls and audioUrls need videoInputMode reference")
    _demand(not sounds or images + videos > 0, "audio cannot be the only reference")
    _demand(images + videos + sounds <= 12, "at most 12 references in all")
    _demand(mode != "reference" or images + videos > 0, "videoInputMode reference needs a reference")
    _demand(mode != "keyframe" or images == 2, "videoInputMode keyframe needs a first and a last frame")
    _demand(mode is not None or images < 2, "several urls need videoInputMode keyframe or reference")
    _demand(images + videos > 0 or bool(values["prompt"].strip()), "prompt is required for text-to-video")


def happyhorse_order(model: str, values: Mapping[str, Any], resolve: Resolve) -> Order:
    """The mode is found from the inputs. Raises Invalid."""
    images, many = values["urls"], values["videoWorkflowTab"] is not None
    _demand(not many or len(images) > 0, "multi-reference needs 1–9 urls")
    _demand(many or len(images) < 2, "several urls need videoWorkflowTab multi-reference")
    first_frame = len(images) == 1 and not many
    _demand(not first_frame or values["ratio"] is None, "ratio is not for image-to-video: the first frame has one")
    _demand(first_frame or bool(values["prompt"].strip()), "prompt is required")
    _images_fit([resolve(each, "IMAGE") for each in images], shortest=300, widest=Decimal("2.5"))
    output = values["outputResolution"]
    price = int(values["duration"].removesuffix("s")) * HAPPYHORSE_RATES[output]
    size = _by_ratio(values["ratio"] or "16:9", LINES[output])
    return _video(model, truncated(values["prompt"]), price, size)


def truncated(prompt: str) -> str:
    """As much of it as HappyHorse reads: 5000 characters, or 2500 of Chinese, Japanese and Korean."""
    room = 5000
    for position, character in enumerate(prompt):
        room -= 2 if _is_cjk(character) else 1
        if room < 0:
            return prompt[:position]
    return prompt


def _is_cjk(character: str) -> bool:
    return ord(character) > 0x2E7F and unicodedata.east_asian_width(character) in "WF"


def gpt_image_order(model: str, values: Mapping[str, Any], resolve: Resolve) -> Order:
    """One image a task. Raises Invalid."""
    _images_fit([resolve(each, "IMAGE") for each in values["urls"]], shortest=256, widest=Decimal(3))
    price = micros(IMAGE_PRICES[values["resolution"], values["quality"]])
    extension = {"jpeg": "jpg"}.get(values["outputFormat"], values["outputFormat"])
    width, height = _by_ratio(values["aspectRatio"], {"1k": 1024, "2k": 2048, "4k": 4096}[values["resolution"]])
    details = {"width": width, "height": height}
    return Order(ENDPOINT, model, "image", values["prompt"], price, extension, details=details)


def _video(model: str, prompt: str, price: int, size: tuple[int, int]) -> Order:
    details = {"width": size[0], "height": size[1]}
    return Order(ENDPOINT, model, "video", prompt, micros(price), "mp4", details=details)


def _images_fit(images: Sequence[str], *, shortest: int, widest: Decimal | None = None) -> None:
    for size in filter(None, map(measured_size, images)):
        _demand(min(size) >= shortest, f"images must have at least {shortest}px on the shortest side")
        fits = widest is None or max(size) <= widest * min(size)
        _demand(fits, f"the aspect ratio of images must be between 1:{widest} and {widest}:1")


def _scaled(resolution: str, lines: int) -> tuple[int, int]:
    width, height = (int(each) for each in resolution.split("x"))
    return width * lines // 720, height * lines // 720


def _by_ratio(ratio: str, shortest: int) -> tuple[int, int]:
    width, height = (int(each) for each in ratio.split(":"))
    return width * shortest // min(width, height), height * shortest // min(width, height)


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise Invalid(message)


Make = Callable[[str, Mapping[str, Any], Resolve], Order]
MODELS: Mapping[str, tuple[Sequence[Field], Make]] = {
    "sd2": (SD2, sd2_order),
    "sd2-fast": (SD2, sd2_order),
    "happyhorse": (HAPPYHORSE, happyhorse_order),
    "happyhorse-video-generation": (HAPPYHORSE, happyhorse_order),
    "gpt-image-2": (GPT_IMAGE, gpt_image_order),
}
