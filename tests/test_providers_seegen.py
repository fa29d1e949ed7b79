"""What SeeGen's tables promise beyond its transcript: prices, forbidden combinations, and the walk through its assets.

Every worked price of the document is here, by the function that computes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_providers import REPLIES
from transcripts import EXAMPLE_ARGUMENTS, Once, perform, transcript

from runner.exchange import Accepted, Action, Asset, Phase, Refusal, Reply, Report, Review
from runner.jobs import Event, Standing, State
from runner.ledger import Bill, Price, reserve
from runner.providers import registry, seegen, seegen_assets
from runner.providers.compose import Composed, compose, stamped
from runner.providers.describe import describe
from runner.providers.description import Reference
from runner.providers.seegen_prices import upscale_credits, video_credits
from runner.verdicts.polling import Poll, after_poll

SEEGEN = registry()["seegen"]
PICTURE = "https://example.com/a.png"
FILM = "https://example.com/a.mp4"
SOUND = "https://example.com/a.mp3"
UPSCALING = "/api/v1/upscale/create"


def refs(**roles: Sequence[str]) -> list[Reference]:
    return [Reference(role, url) for role, urls in roles.items() for url in urls]


def job(model: str, fields: Mapping[str, Any] | None = None, **rest: Any) -> Composed:
    prompt = {} if model == "upscale" else {"prompt": "a cat"}
    return compose(SEEGEN, model, {**prompt, **(fields or {})}, **rest)


def codes(composed: Composed) -> list[tuple[str, str]]:
    return [(fault.code, fault.field) for fault in composed.faults]


def inputs(composed: Composed) -> dict[str, Any]:
    assert composed.faults == ()
    found: dict[str, Any] = composed.body["inputs"]
    return found


# --- what the document says it costs


@pytest.mark.parametrize(
    ("credits", "model", "resolution", "upscale", "measured"),
    [
        (200, "sd2", "720p", None, ()),
        (160, "sd2-fast", "720p", None, ()),
        (300, "sd2", "720p", None, (5,)),
        (240, "sd2-fast", "720p", None, (5,)),
        (450, "sd2", "720p", None, (10,)),
        (360, "sd2-fast", "720p", None, (10,)),
        (500, "sd2", "1080p", None, ()),
        (750, "sd2", "1080p", None, (5,)),
        (1125, "sd2", "1080p", None, (10,)),
        (350, "sd2", "720p", "2k", ()),
        (310, "sd2-fast", "720p", "2k", ()),
        (400, "sd2", "720p", "4k", ()),
        (360, "sd2-fast", "720p", "4k", ()),
        (260, "sd2-fast", "720p", "1080p", ()),
    ],
)
def test_the_worked_prices_of_five_seconds(
    credits: int, model: str, resolution: str, upscale: str | None, measured: tuple[int, ...]
) -> None:
    assert video_credits(model, 5, resolution, upscale, measured) == credits
    videos = refs(videos=[FILM] * len(measured))
    params = {"upscaleResolution": upscale} if upscale else {}
    price = job(model, {"duration": 5, "resolution": resolution}, references=videos, params=params).price
    assert price is not None
    assert price.low <= credits <= price.high
    assert price.exact == (not measured)


def test_measured_seconds_are_rounded_up_one_by_one_and_have_a_least() -> None:
    assert video_credits("sd2", 5, measured=[Decimal("4.1"), Decimal("4.1")]) == (5 + 5 + 5) * 30
    assert video_credits("sd2", 5, measured=[Decimal("0.2")]) == (5 + 4) * 30, "two thirds of five, rounded up"
    assert video_credits("sd2", 15, measured=[1, 1, 1]) == (15 + 10) * 30
    assert video_credits("sd2", 5, upscale="1080p", measured=[5]) == (5 + 5) * 30 + 5 * 20, "the output alone"


SECONDS = st.decimals(min_value="0.1", max_value=15, places=3)


@given(
    model=st.sampled_from(("sd2", "sd2-fast")),
    duration=st.integers(4, 15),
    upscale=st.sampled_from((None, "1080p", "2k", "4k")),
    measured=st.lists(SECONDS, min_size=1, max_size=3),
)
def test_a_bill_by_measured_seconds_lies_in_the_planned_interval(
    model: str, duration: int, upscale: str | None, measured: list[Decimal]
) -> None:
    params = {"upscaleResolution": upscale} if upscale else {}
    price = job(model, {"duration": duration}, references=refs(videos=[FILM] * len(measured)), params=params).price
    assert price is not None
    assert price.low <= video_credits(model, duration, "720p", upscale, measured) <= price.high
    assert price.high == video_credits(model, duration, "720p", upscale, [15] * len(measured)), "no wider than it must"
    assert price.low == video_credits(model, duration, "720p", upscale, [1] * len(measured))
    assert "measures" in price.note


@pytest.mark.parametrize(
    ("resolution", "duration", "credits"),
    [("720p", 5, 160), ("1080p", 5, 300), ("720p", 15, 480), ("1080p", 15, 900), (None, None, 160)],
)
def test_the_worked_prices_of_happyhorse(resolution: str | None, duration: int | None, credits: int) -> None:
    said = {"resolution": resolution, "duration": duration}
    fields = {name: value for name, value in said.items() if value is not None}
    assert job("happyhorse", fields).price == Price.exactly(credits)
    assert job("happyhorse", fields, references=refs(images=[PICTURE] * 9)).price == Price.exactly(credits)
    assert job("happyhorse", fields, references=refs(first_frame=[PICTURE])).price == Price.exactly(credits)


@pytest.mark.parametrize(
    ("size", "medium", "high"), [("1k", 15, 70), ("2k", 35, 125), (None, 35, 125), ("4k", 60, 230)]
)
def test_the_table_of_images(size: str | None, medium: int, high: int) -> None:
    fields = {"size": size} if size else {}
    assert job("gpt-image-2", fields).price == Price.exactly(medium)
    assert job("gpt-image-2", {**fields, "quality": "high"}).price == Price.exactly(high)


@pytest.mark.parametrize(("target", "rate"), [("1080p", 25), ("2k", 38), ("4k", 50)])
def test_the_table_of_upscales(target: str, rate: int) -> None:
    assert upscale_credits(target, 30) == Price.exactly(30 * rate)
    assert upscale_credits(target, 2) == upscale_credits(target, 5) == Price.exactly(5 * rate)
    part = upscale_credits(target, Decimal("7.5"))
    assert (part.low, part.high) == (Decimal("7.5") * rate, 8 * rate)
    price = job("upscale", {"resolution": target}, references=refs(videos=[FILM])).price
    assert price is not None
    assert (price.low, price.high) == (5 * rate, 600 * rate)
    assert price.note


def test_the_upscale_example_contradicts_its_table() -> None:
    """It charges 1200 for 30 s to 4K: 40 a second, which is the rate of the upscale that follows a generation."""
    (example,) = [e for e in transcript("seegen") if e["name"] == "documented completed upscale"]
    told = json.loads(example["reply"]["body"])
    assert (told["creditsConsumed"], told["result"]["probedDurationSeconds"]) == (1200, 30)
    assert upscale_credits("4k", 30) == Price.exactly(1500)
    assert any("1200" in assumption for assumption in SEEGEN.assumptions)


# --- the ways of sd2


@pytest.mark.parametrize(
    ("references", "mode", "sent"),
    [
        ({}, None, {}),
        ({"first_frame": [PICTURE]}, None, {"urls": [PICTURE]}),
        ({"images": [PICTURE]}, None, {"urls": [PICTURE]}),
        ({"images": [PICTURE]}, "reference", {"urls": [PICTURE], "videoInputMode": "reference"}),
        ({"images": [PICTURE] * 2}, None, {"urls": [PICTURE] * 2, "videoInputMode": "reference"}),
        ({"videos": [FILM]}, None, {"videoUrls": [FILM], "videoInputMode": "reference"}),
        (
            {"audios": [SOUND], "images": [PICTURE]},
            None,
            {"urls": [PICTURE], "audioUrls": [SOUND], "videoInputMode": "reference"},
        ),
        (
            {"last_frame": [FILM], "first_frame": [PICTURE]},
            "keyframe",
            {"urls": [PICTURE, FILM], "videoInputMode": "keyframe"},
        ),
    ],
)
@pytest.mark.parametrize("model", ["sd2", "sd2-fast"])
def test_what_becomes_of_references(
    model: str, references: dict[str, list[str]], mode: str | None, sent: dict[str, Any]
) -> None:
    composed = job(model, {"mode": mode} if mode else {}, references=refs(**references))
    assert inputs(composed) == {"prompt": "a cat", **sent}


@pytest.mark.parametrize(
    ("references", "wrong"),
    [
        ({"images": [PICTURE] * 10}, ("B46", "references.images")),
        ({"videos": [FILM] * 4}, ("B46", "references.videos")),
        ({"images": [PICTURE], "audios": [SOUND] * 4}, ("B46", "references.audios")),
        ({"images": [PICTURE] * 9, "videos": [FILM] * 3, "audios": [SOUND]}, ("B46", "references")),
        ({"audios": [SOUND]}, ("B48", "references")),
        ({"last_frame": [PICTURE]}, ("B46", "references.first_frame")),
        ({"first_frame": [PICTURE], "images": [PICTURE]}, ("B46", "references")),
    ],
)
def test_references_that_do_not_fit(references: dict[str, list[str]], wrong: tuple[str, str]) -> None:
    assert codes(job("sd2", references=refs(**references))) == [wrong]


def test_twelve_references_fit() -> None:
    composed = job("sd2", references=refs(images=[PICTURE] * 6, videos=[FILM] * 3, audios=[SOUND] * 3))
    assert composed.faults == ()


def test_a_video_is_planned_by_its_url_and_sent_as_an_asset() -> None:
    """References of videos are registered before they are sent; what `params` say is sent as it is."""
    assert job("sd2", references=refs(videos=[FILM])).faults == ()
    assert SEEGEN.registering is not None
    assert SEEGEN.registering.roles == ("videos",)
    said = {"videoInputMode": "reference", "urls": [PICTURE]}
    (fault,) = job("sd2", params={**said, "videoUrls": [FILM]}).faults
    assert (fault.code, fault.field) == ("B49", "params.videoUrls")
    assert "references" in fault.hint
    assert codes(job("sd2", params={**said, "videoUrls": ["http://example.com/a.mp4"]})) == [
        ("B49", "params.videoUrls")
    ]
    assert job("sd2", params={**said, "videoUrls": ["asset://asset-1"]}).faults == ()


@pytest.mark.parametrize(
    ("params", "wrong"),
    [
        ({"videoInputMode": "keyframe", "urls": [PICTURE]}, ("B46", "params.videoInputMode")),
        ({"videoInputMode": "reference"}, ("B46", "params.videoInputMode")),
        ({"videoInputMode": "sideways"}, ("B42", "params.videoInputMode")),
        ({"urls": [PICTURE, PICTURE]}, ("B46", "params.urls")),
        ({"audioUrls": [SOUND]}, ("B46", "params.audioUrls")),
        ({"videoInputMode": "reference", "audioUrls": [SOUND]}, ("B48", "params.audioUrls")),
        ({"urls": [PICTURE] * 10, "videoInputMode": "reference"}, ("B46", "params.urls")),
        ({"upscaleResolution": "8k"}, ("B42", "params.upscaleResolution")),
        ({"callBackUrl": "https://elsewhere.example"}, ("B32", "params.callBackUrl")),
        ({"seed": 1}, ("B32", "params.seed")),
    ],
)
def test_params_are_checked_like_the_rest(params: dict[str, Any], wrong: tuple[str, str]) -> None:
    assert codes(job("sd2", params=params)) == [wrong]


def test_text_to_video_needs_its_text() -> None:
    assert codes(compose(SEEGEN, "sd2", {})) == [("B37", "prompt")]
    assert codes(compose(SEEGEN, "sd2-fast", {"mode": "text-to-video"})) == [("B37", "prompt")]
    assert compose(SEEGEN, "sd2", {}, refs(first_frame=[PICTURE])).faults == ()


@pytest.mark.parametrize(
    ("ratio", "pixels"),
    [
        ("16:9", "1280x720"),
        ("9:16", "720x1280"),
        ("1:1", "720x720"),
        ("4:3", "960x720"),
        ("3:4", "720x960"),
        ("21:9", "1280x540"),
        ("720x720", "720x720"),
    ],
)
def test_a_ratio_is_told_in_pixels(ratio: str, pixels: str) -> None:
    assert inputs(job("sd2", {"aspect_ratio": ratio}))["resolution"] == pixels


@pytest.mark.parametrize(("model", "least"), [("sd2", 4), ("sd2-fast", 4), ("happyhorse", 3)])
def test_durations(model: str, least: int) -> None:
    for duration in (least, 15):
        assert job(model, {"duration": duration}).faults == ()
    for duration in (least - 1, 16):
        assert codes(job(model, {"duration": duration})) == [("B41", "duration")]
    assert job(model).price == job(model, {"duration": 5}).price


def test_1080p_is_native_to_sd2_alone() -> None:
    assert inputs(job("sd2", {"resolution": "1080p"}))["outputResolution"] == "1080p"
    (fault,) = job("sd2-fast", {"resolution": "1080p"}).faults
    assert (fault.code, fault.field) == ("B42", "resolution")
    assert "upscaleResolution" in fault.hint
    assert job("sd2-fast", defaults={"resolution": "1080p"}).dropped == ("resolution",)


def test_an_upscale_follows_720p() -> None:
    more = {"upscaleResolution": "2k"}
    assert codes(job("sd2", {"resolution": "1080p"}, params=more)) == [("B42", "resolution")]
    assert job("sd2", params=more, defaults={"resolution": "1080p"}).dropped == ("resolution",)


# --- the ways of happyhorse


def test_one_image_is_a_reference_there_and_a_frame_is_a_frame() -> None:
    reference = {"urls": [PICTURE], "videoWorkflowTab": "multi-reference"}
    assert inputs(job("happyhorse", references=refs(images=[PICTURE]))) == {"prompt": "a cat", **reference}
    assert inputs(job("happyhorse", references=refs(first_frame=[PICTURE]))) == {"prompt": "a cat", "urls": [PICTURE]}


@pytest.mark.parametrize("role", ["last_frame", "videos", "audios"])
def test_happyhorse_takes_only_images(role: str) -> None:
    assert codes(job("happyhorse", references=refs(**{role: [PICTURE]}))) == [("B32", f"references.{role}")]


def test_a_first_frame_has_its_own_ratio_and_needs_no_prompt() -> None:
    frame = refs(first_frame=[PICTURE])
    assert codes(job("happyhorse", {"aspect_ratio": "16:9"}, references=frame)) == [("B42", "aspect_ratio")]
    assert job("happyhorse", references=frame, defaults={"aspect_ratio": "16:9"}).dropped == ("aspect_ratio",)
    assert job("happyhorse", {"aspect_ratio": "16:9"}, references=refs(images=[PICTURE])).faults == ()
    assert codes(job("happyhorse", {"aspect_ratio": "21:9"})) == [("B42", "aspect_ratio")]
    assert compose(SEEGEN, "happyhorse", {}, frame).faults == ()
    assert codes(compose(SEEGEN, "happyhorse", {}, refs(images=[PICTURE]))) == [("B37", "prompt")]
    assert codes(compose(SEEGEN, "happyhorse", {})) == [("B37", "prompt")]


def test_params_cannot_leave_the_ways_of_happyhorse() -> None:
    assert codes(job("happyhorse", params={"urls": [PICTURE] * 2})) == [("B46", "params.urls")]
    tab = {"videoWorkflowTab": "multi-reference"}
    assert codes(job("happyhorse", params=tab)) == [("B46", "params.videoWorkflowTab")]
    assert job("happyhorse", params={**tab, "urls": [PICTURE] * 2}).faults == ()


@pytest.mark.parametrize("seed", [-1, 2_147_483_648])
def test_seeds(seed: int) -> None:
    assert codes(job("happyhorse", {"seed": seed})) == [("B45", "seed")]
    assert codes(job("sd2", {"seed": 1})) == [("B32", "seed")]


ASIAN, OTHER = "字あ한。Ａ𠀀", "aä🎬 €"


@given(asian=st.integers(0, 2600), other=st.integers(0, 5200))
def test_a_prompt_that_would_be_cut_off_is_refused(asian: int, other: int) -> None:
    """5000 characters, or 2500 CJK ones, or a mixture of as much."""
    prompt = (ASIAN * 500)[:asian] + (OTHER * 1100)[:other] + "."
    over = Decimal(other + 1) / 5000 + Decimal(asian) / 2500 > 1
    assert codes(job("happyhorse", {"prompt": prompt})) == ([("B39", "prompt")] if over else [])
    assert job("sd2", {"prompt": prompt}).faults == (), "no document bounds it there"


@pytest.mark.parametrize(
    ("prompt", "right"),
    [("字" * 2500, True), ("字" * 2501, False), ("a" * 5000, True), ("a" * 5001, False), ("字" * 2500 + "a", False)],
)
def test_the_edges_of_a_long_prompt(prompt: str, right: bool) -> None:
    assert (job("happyhorse", {"prompt": prompt}).faults == ()) == right


# --- images and upscales


def test_images_are_ten_at_most_and_one_a_task() -> None:
    assert job("gpt-image-2", references=refs(images=["asset://asset-1"] * 10)).faults == ()
    assert codes(job("gpt-image-2", references=refs(images=[PICTURE] * 11))) == [("B46", "references.images")]
    assert codes(job("gpt-image-2", {"count": 2})) == [("B32", "count")]
    assert job("gpt-image-2", {"format": "jpg"}).extension == "jpg"
    assert job("gpt-image-2").extension == "png"


def test_an_upscale_has_a_source_and_a_target_and_no_prompt() -> None:
    source = refs(videos=[FILM])
    assert job("upscale", {"resolution": "4K"}, references=source, defaults={"prompt": "a cat"}).dropped == ("prompt",)
    assert codes(job("upscale", {"resolution": "4k", "prompt": "a cat"}, references=source)) == [("B32", "prompt")]
    assert codes(job("upscale", references=source)) == [("B42", "resolution")]
    assert codes(job("upscale", {"resolution": "720p"}, references=source)) == [("B42", "resolution")]
    assert codes(job("upscale", {"resolution": "4k"})) == [("B46", "references.videos")]
    assert codes(job("upscale", {"resolution": "4k"}, references=refs(videos=[FILM] * 2))) == [
        ("B46", "references.videos")
    ]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://static.seedance2-pro.com/a.mp4", "uploadId"),
        ("HTTPS://Static.seedance2-pro.com/a.mp4", "uploadId"),
        ("https://static.seedance2-pro.com.elsewhere.example/a.mp4", "url"),
        ("https://example.com/static.seedance2-pro.com/a.mp4", "url"),
    ],
)
def test_only_the_providers_own_host_is_its_storage(url: str, kind: str) -> None:
    composed = job("upscale", {"resolution": "4k"}, references=refs(videos=[url]))
    assert composed.body["source"]["type"] == kind
    assert url in composed.body["source"].values()


def test_an_upscale_takes_no_asset() -> None:
    (fault,) = job("upscale", {"resolution": "4k"}, references=refs(videos=["asset://asset-1"])).faults
    assert (fault.code, fault.field) == ("B63", "references.videos")
    told = {model["name"]: model["takes_assets"] for model in describe(SEEGEN)["models"]}
    assert [name for name, takes in told.items() if not takes] == ["upscale"]
    assert not any(model["takes_assets"] for model in describe(registry()["happyhorse"])["models"])


def test_assets_are_taken_everywhere_else() -> None:
    asset = ["asset://asset-20260326-abc123"]
    everything = refs(images=asset, videos=asset, audios=asset)
    assert job("sd2", references=everything).faults == ()
    assert job("sd2-fast", references=refs(first_frame=asset, last_frame=asset)).faults == ()
    assert job("happyhorse", references=refs(images=asset)).faults == ()


@pytest.mark.parametrize("model", SEEGEN.models, ids=lambda model: model.name)
def test_the_callback_stands_beside_the_model(model: Any) -> None:
    fields = {"resolution": "4k"} if model.name == "upscale" else {}
    composed = job(model.name, fields, references=refs(videos=[FILM]) if model.name == "upscale" else ())
    sent = json.loads(stamped(composed, {model.callback_field: "https://your-server.com/webhook"}))
    assert sent == {**json.loads(composed.content), "callBackUrl": "https://your-server.com/webhook"}


def test_demands_on_files_are_told() -> None:
    told = {model["name"]: model["modes"] for model in describe(SEEGEN)["models"]}
    assert told["sd2"][3]["references"]["images"]["demands"] == {"min_side": 400}
    assert told["sd2-fast"][3]["references"]["videos"]["demands"] == {"max_seconds": "15"}
    assert told["happyhorse"][1]["references"]["first_frame"]["demands"] == {
        "media_types": ["image/jpeg", "image/png", "image/bmp", "image/webp"],
        "max_bytes": 10_000_000,
        "min_side": 300,
        "max_ratio": "2.5",
    }
    assert told["gpt-image-2"][1]["references"]["images"]["demands"] == {
        "media_types": ["image/jpeg", "image/png", "image/webp"],
        "max_bytes": 50_000_000,
        "min_side": 256,
        "max_ratio": "3",
    }
    assert told["upscale"][0]["references"]["videos"]["demands"] == {
        "media_types": ["video/mp4", "video/quicktime", "video/webm"],
        "max_bytes": 200_000_000,
        "max_seconds": "600",
    }


def test_the_promise_tells_all_three_cases() -> None:
    for words in ("at most once", "account_exclusive", "--callback-url", "Assets"):
        assert words in SEEGEN.guarantee
    assert not SEEGEN.keyed
    assert SEEGEN.refunds_failures
    assert SEEGEN.windows == ()


# --- what a failed upscale means for its job


@pytest.mark.parametrize(
    ("error", "consumed", "state", "event"),
    [
        ("INSUFFICIENT_CREDITS", None, State.QUEUED, Event.TASK_REFUSED),
        ("SERVICE_DISABLED", None, State.QUEUED, Event.TASK_REFUSED),
        ("INSUFFICIENT_CREDITS", 1500, State.FAILED, Event.TASK_FAILED),
        ("UPSTREAM_FAILED", None, State.FAILED, Event.TASK_FAILED),
    ],
)
async def test_a_refusal_that_comes_as_a_failed_upscale(
    error: str, consumed: int | None, state: State, event: Event
) -> None:
    """It is ordered again only where the answer says that it is free; and it owes nothing then."""
    said = {"taskId": "up_1", "status": "failed", "creditsConsumed": consumed, "error": {"code": error, "message": "m"}}
    report = await SEEGEN.poll(Once(Reply(200, {}, said)), UPSCALING, "up_1")
    assert isinstance(report, Report)
    now = datetime(2026, 11, 21, tzinfo=UTC)
    standing = Standing(State.RUNNING, now, attempts=1, task_id="up_1", accepted_at=now)
    bill = Bill().after(reserve(Decimal(30_000)))
    poll = Poll(1, 1, standing, bill, None, timedelta(seconds=5), timedelta(hours=6), None, now)
    change = after_poll(poll, report)
    assert (change.event, change.standing.state) == (event, state)
    after = bill.after(change.entries)
    assert (after.reserved, after.charged - after.refunded) == (0, consumed or 0)


# --- the walk through the assets


class Shelf:
    """An `Ask` over a list of assets, so many on a page; `pages` counts the questions."""

    def __init__(self, names: Sequence[str], per_page: int = 50, status: str = "ACTIVE") -> None:
        self.items = [
            {"assetId": n, "volcAssetId": f"asset-{n}", "status": status, "name": name} for n, name in enumerate(names)
        ]
        self.per_page = per_page
        self.pages = 0

    async def __call__(self, method: str, path: str, *, query: Mapping[str, str] | None = None, **_: Any) -> Reply:
        assert (method, path) == ("GET", seegen_assets.LIST)
        assert query is not None
        assert query["limit"] == "50"
        self.pages += 1
        start = int(query.get("cursor", "0"))
        end = start + self.per_page
        cursor = end if end < len(self.items) else None
        return Reply(200, {}, {"items": self.items[start:end], "nextCursor": cursor})


async def found(shelf: Shelf, name: str) -> Asset | Refusal | None:
    assert SEEGEN.registering is not None
    return await SEEGEN.registering.find(shelf, name)


@given(names=st.lists(st.sampled_from("abc"), max_size=30), per_page=st.integers(1, 7), name=st.sampled_from("abc"))
async def test_an_asset_is_found_on_whatever_page(names: list[str], per_page: int, name: str) -> None:
    shelf = Shelf(names, per_page)
    asset = await found(shelf, name)
    if name not in names:
        assert asset is None
        assert shelf.pages == max(1, -(-len(names) // per_page)), "all of them were looked at, each once"
    else:
        place = names.index(name)
        assert asset == Asset(str(place), f"asset://asset-{place}", Review.PASSED)
        assert shelf.pages == place // per_page + 1


async def test_what_was_refused_is_not_found() -> None:
    assert await found(Shelf(["a"], status="FAILED"), "a") is None


async def test_a_list_without_end_is_given_up() -> None:
    shelf = Shelf(["b"] * 1000, per_page=1)
    assert await found(shelf, "a") is None
    assert shelf.pages == seegen_assets.MOST_PAGES


async def test_a_page_that_fails_is_no_proof_of_absence() -> None:
    ask = Once(Reply(500, {}, None, "not JSON"))
    outcome = await seegen_assets.find(ask, "a")
    assert isinstance(outcome, Refusal)
    assert outcome.action is Action.LATER


# --- whatever is answered


@pytest.mark.parametrize("call", ["balance", "register", "inspect", "find"])
@given(reply=REPLIES)
async def test_every_answer_is_survived(call: str, reply: Reply) -> None:
    outcome = await perform(SEEGEN, {"call": {call: EXAMPLE_ARGUMENTS[call]}}, Once(reply))
    if isinstance(outcome, Refusal):
        assert outcome.action not in (Action.AMBIGUOUS, Action.CONFLICT)
    else:
        assert reply.ok


STATUSES = st.sampled_from(("validating", "processing", "completed", "failed", "COMPLETED", "FAILED", "odd", "", None))
UPSCALES = st.fixed_dictionaries(
    {"status": STATUSES},
    optional={
        "taskId": st.sampled_from(("up_1", "up_2", None)),
        "creditsConsumed": st.sampled_from((None, 0, 190, "190", -1, "lots")),
        "result": st.none() | st.just({}) | st.just({"url": FILM}) | st.just([FILM]),
        "error": st.none() | st.sampled_from(("no", {"code": "SERVICE_DISABLED"}, {"message": "blocked"}, 7)),
    },
)


@given(said=UPSCALES | UPSCALES.map(lambda inner: {"data": inner}), status=st.sampled_from((200, 202, 404, 500)))
async def test_an_upscale_never_succeeds_by_guess(said: dict[str, Any], status: int) -> None:
    outcome = await SEEGEN.poll(Once(Reply(status, {}, said)), UPSCALING, "up_1")
    task = said.get("data", said)
    if isinstance(outcome, Refusal):
        assert outcome.action in (Action.LATER, Action.NOT_FOUND)
        assert status >= 400 or task["status"] is None or task.get("taskId") == "up_2"
        return
    assert status < 400
    assert (outcome.phase is Phase.DONE) == (task["status"] == "completed")
    assert (outcome.phase is Phase.FAILED) == (task["status"] == "failed")
    assert (outcome.error is not None) == (outcome.phase is Phase.FAILED)
    if outcome.used == 0:
        free = task["status"] == "failed" and "creditsConsumed" in task and task["creditsConsumed"] is None
        assert free or task.get("creditsConsumed") == 0


async def test_an_upscale_is_asked_for_where_it_was_ordered() -> None:
    asked: list[tuple[str, Any]] = []

    async def ask(_method: str, path: str, *, query: Any = None, **_: Any) -> Reply:
        asked.append((path, query))
        return Reply(404, {}, {})

    for model in SEEGEN.models:
        await SEEGEN.poll(ask, model.path, "t")
    assert {path for path, _ in asked[:4]} == {"/api/v1/jobs/queryTask"}
    assert asked[4] == ("/api/v1/upscale/query", {"taskId": "t"})


async def test_an_order_has_no_key() -> None:
    headers: list[Any] = []

    async def ask(_method: str, _path: str, **sent: Any) -> Reply:
        headers.append(sent.get("headers"))
        return Reply(200, {}, {"taskId": "t"})

    assert await SEEGEN.submit(ask, seegen.SD2.path, b"{}", None) == Accepted("t")
    assert headers == [None]
