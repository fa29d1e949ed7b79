"""The tables hold the other providers too (their documents: seedhorse-video 000, seedhorse 001, SeeGen 003)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from runner.ledger import Price
from runner.providers.compose import Composed, compose
from runner.providers.description import Field, Mode, Model, Provider, Reference, Slot, Values

PROMPT = "a cat on a wall"


def refs(**roles: Sequence[str]) -> list[Reference]:
    return [Reference(role, url) for role, urls in roles.items() for url in urls]


def codes(composed: Composed) -> list[tuple[str, str]]:
    return [(fault.code, fault.field) for fault in composed.faults]


async def _never(*_: Any) -> Any:
    raise AssertionError("nothing is sent here")


def provider_with(*models: Model, schemes: tuple[str, ...] = ("https",)) -> Provider:
    return Provider("other", "https://other.example", models, _never, _never, guarantee="none", url_schemes=schemes)


def test_an_object_within_the_body() -> None:
    """SeeGen: `{model, inputs: {…}}`, durations as "5s", ratios as pixels, references that choose the input mode."""

    def price(values: Values) -> Price:
        rate = 30 if "videoUrls" in values else 40
        return Price.exactly(rate * values["duration"])

    ratio = {"16:9": "1280x720", "9:16": "720x1280"}
    model = Model(
        "sd2",
        "video",
        "/api/v1/jobs/createTask",
        {
            "prompt": Field("prompt"),
            "duration": Field("duration", "integer", low=4, high=15, default=5, write="seconds"),
            "aspect_ratio": Field("resolution", choices=tuple(ratio.values()), translate=ratio),
            "resolution": Field("outputResolution", choices=("720p", "1080p"), default="720p"),
        },
        modes=(
            Mode(),
            Mode(slots={"first_frame": Slot("urls", least=1, many=True)}),
            Mode(
                "keyframe",
                {"first_frame": Slot("urls", least=1, many=True), "last_frame": Slot("urls", least=1, many=True)},
                {"videoInputMode": "keyframe"},
            ),
            Mode(
                "reference",
                {"images": Slot("urls", most=9, many=True), "videos": Slot("videoUrls", most=3, many=True)},
                {"videoInputMode": "reference"},
                least=1,
                most=12,
            ),
        ),
        params={"upscaleResolution": Field("upscaleResolution", choices=("1080p", "2k", "4k"))},
        model_field="model",
        nest="inputs",
        price=price,
    )
    seegen = provider_with(model, schemes=("https", "asset"))
    frames = refs(last_frame=["https://example.com/last.jpg"], first_frame=["https://example.com/first.jpg"])
    composed = compose(seegen, "sd2", {"prompt": PROMPT, "duration": "5s", "aspect_ratio": "16:9"}, frames)
    assert composed.body == {
        "model": "sd2",
        "inputs": {
            "prompt": PROMPT,
            "duration": "5s",
            "resolution": "1280x720",
            "videoInputMode": "keyframe",
            "urls": ["https://example.com/first.jpg", "https://example.com/last.jpg"],
        },
    }
    assert composed.fields["aspect_ratio"] == "16:9"
    assert composed.price == Price.exactly(200)
    mixed = refs(images=["https://example.com/1.jpg"], videos=["asset://asset-20260326-abc123"])
    composed = compose(seegen, "sd2", {"prompt": PROMPT}, mixed, {"upscaleResolution": "4K"})
    assert composed.body["inputs"]["videoUrls"] == ["asset://asset-20260326-abc123"]
    assert composed.body["inputs"]["upscaleResolution"] == "4k"
    assert composed.price == Price.exactly(150)
    assert codes(compose(seegen, "sd2", {"aspect_ratio": "2:1"})) == [("B42", "aspect_ratio")]
    assert codes(compose(seegen, "sd2", {}, (), {"model": "sd2-fast"})) == [("B32", "params.model")]
    (fault,) = compose(seegen, "sd2", {"mode": "reference"}).faults
    assert fault.message == "reference of other sd2 takes 1 to 12 of images and videos, not 0"


def test_a_reference_that_is_an_object() -> None:
    """SeeGen's standalone upscale: `{source: {type, url}, targetResolution}`, no prompt and no model in the body."""
    source = Slot("source", least=1, wrap=lambda url: {"type": "url", "url": url})
    target = Field("targetResolution", choices=("1080p", "2k", "4k"), required=True)
    model = Model(
        "upscale", "video", "/api/v1/upscale/create", {"resolution": target}, (Mode(slots={"videos": source}),)
    )
    composed = compose(
        provider_with(model), "upscale", {"resolution": "4K"}, refs(videos=["https://example.com/v.mp4"])
    )
    assert composed.body == {
        "source": {"type": "url", "url": "https://example.com/v.mp4"},
        "targetResolution": "4k",
    }
    assert codes(compose(provider_with(model), "upscale", {"resolution": "4K"})) == [("B46", "references.videos")]


def test_a_type_chosen_from_the_references() -> None:
    """seedhorse: `img_txt` also stands for text alone; videos and audios need an image."""
    images, videos, audios = (Slot(f"ref{kind}Urls", most=5, many=True) for kind in ("Image", "Video", "Audio"))
    image = Slot("refImageUrls", least=1, most=5, many=True)
    video_, audio = (Slot(s.native, least=1, most=5, many=True) for s in (videos, audios))
    model = Model(
        "Seedance 2.0",
        "video",
        "/api/v1/task/generate",
        {"prompt": Field("prompt", required=True), "duration": Field("durationSeconds", "integer", low=4, high=15)},
        modes=(
            Mode("img_txt", {"images": images}, {"type": "img_txt"}),
            Mode("img_vid_txt", {"images": image, "videos": video_}, {"type": "img_vid_txt"}),
            Mode("img_aud_txt", {"images": image, "audios": audio}, {"type": "img_aud_txt"}),
            Mode("img_vid_aud_txt", {"images": image, "videos": video_, "audios": audio}, {"type": "img_vid_aud_txt"}),
        ),
        model_field="model",
    )
    seedhorse = provider_with(model)
    url = ["https://example.com/1"]
    for references, kind in (
        (refs(), "img_txt"),
        (refs(images=url), "img_txt"),
        (refs(images=url, videos=url), "img_vid_txt"),
        (refs(audios=url, images=url), "img_aud_txt"),
        (refs(images=url, videos=url, audios=url), "img_vid_aud_txt"),
    ):
        composed = compose(seedhorse, "Seedance 2.0", {"prompt": PROMPT}, references)
        assert composed.faults == ()
        assert composed.body["type"] == kind
        assert composed.body["model"] == "Seedance 2.0"
    assert codes(compose(seedhorse, "Seedance 2.0", {"prompt": PROMPT}, refs(videos=url))) == [
        ("B46", "references.images")
    ]


def test_fields_that_no_document_lists() -> None:
    """seedhorse-video shows no body: what its document does not name may still be sent, exactly as it is written."""
    model = Model(
        "seedance-2.0", "video", "/api/v1/video/generate", {"prompt": Field("prompt", assumed=True)}, open_params=True
    )
    dead = Model("gpt-image 2.0", "image", "", {}, unavailable="no endpoint is documented for images")
    provider = provider_with(model, dead)
    composed = compose(
        provider, "seedance-2.0", {"prompt": PROMPT}, (), {"style": {"weights": [0.1, Decimal("2.50"), 3]}}
    )
    assert composed.content == b'{"prompt":"a cat on a wall","style":{"weights":[0.1,2.5,3]}}'
    assert codes(compose(provider, "seedance-2.0", {"prompt": PROMPT}, (), {"x": float("inf")})) == [
        ("B24", "params.x")
    ]
    assert codes(compose(provider, "seedance-2.0", {"prompt": PROMPT}, (), {"x": {1, 2}})) == [("B24", "params.x")]
    assert codes(compose(provider, "seedance-2.0", {"prompt": PROMPT}, (), {"x": 10**5000})) == [("B24", "params.x")]
    (fault,) = compose(provider, "gpt-image 2.0", {"prompt": PROMPT}).faults
    assert (fault.code, fault.field) == ("B35", "model")
    assert "no endpoint is documented" in fault.message
