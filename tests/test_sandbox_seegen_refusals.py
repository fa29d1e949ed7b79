"""What the document (003) does not allow is refused by the pretend seegen, and costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
from sandbox_client import OTHER_KEY, client_of, error_of
from seegen_client import CREATE, IMAGE, SOUND, create, created, ready, upload

CLIP = "https://example.com/motion-{}s.mp4"
HAPPY: dict[str, Any] = {"prompt": "a panda"}
VIDEO: dict[str, Any] = {"prompt": "a cat"}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("sd2", {"prompt": " "}, "prompt is required"),
    ("sd2", {"prompt": 5}, "prompt must be"),
    ("sd2", {"prompt": None}, "must not be null"),
    *(("sd2", {**VIDEO, "duration": given}, "duration must be") for given in ("5", "3s", "16s", "5.0s", 5)),
    ("sd2", {**VIDEO, "resolution": "1920x1080"}, "resolution must be"),
    ("sd2", {**VIDEO, "outputResolution": "2k"}, "outputResolution must be"),
    ("sd2", {**VIDEO, "videoInputMode": "first-frame"}, "videoInputMode must be"),
    ("sd2", {**VIDEO, "upscaleResolution": "720p"}, "upscaleResolution must be"),
    ("sd2-fast", {**VIDEO, "outputResolution": "1080p"}, "does not support native 1080p"),
    ("sd2", {**VIDEO, "outputResolution": "1080p", "upscaleResolution": "4k"}, "720p base output"),
    ("sd2", {**VIDEO, "urls": [IMAGE] * 2}, "several urls need"),
    ("sd2", {**VIDEO, "urls": [IMAGE], "videoInputMode": "keyframe"}, "a first and a last frame"),
    ("sd2", {**VIDEO, "urls": [IMAGE] * 3, "videoInputMode": "keyframe"}, "a first and a last frame"),
    ("sd2", {**VIDEO, "videoInputMode": "reference"}, "needs a reference"),
    ("sd2", {**VIDEO, "urls": [IMAGE] * 10, "videoInputMode": "reference"}, "at most 9"),
    ("sd2", {**VIDEO, "urls": [IMAGE], "audioUrls": [SOUND] * 4, "videoInputMode": "reference"}, "at most 3"),
    ("sd2", {**VIDEO, "audioUrls": [SOUND], "videoInputMode": "reference"}, "the only reference"),
    ("sd2", {**VIDEO, "urls": [IMAGE], "audioUrls": [SOUND]}, "need videoInputMode reference"),
    ("sd2", {**VIDEO, "urls": ["http://example.com/a.png"]}, "public https"),
    ("sd2", {**VIDEO, "urls": ["https://10.0.0.1/a.png"]}, "public https"),
    ("sd2", {**VIDEO, "urls": "https://example.com/a.png"}, "must be a list"),
    ("sd2", {**VIDEO, "urls": ["asset://asset-20260326-abc123"]}, "there is no asset"),
    ("sd2", {**VIDEO, "urls": ["https://example.com/a-300x800.png"]}, "at least 400px"),
    (
        "sd2",
        {"urls": [IMAGE], "audioUrls": ["https://example.com/song-16s.mp3"], "videoInputMode": "reference"},
        "≤ 15s",
    ),
    (  # the document's own multi-reference example, against its own text
        "sd2",
        {
            "urls": ["https://example.com/ref1.jpg", "https://example.com/ref2.jpg"],
            "videoUrls": ["https://example.com/motion-ref.mp4"],
            "audioUrls": ["https://example.com/audio.mp3"],
            "prompt": "Character walks through a garden",
            "duration": "5s",
            "videoInputMode": "reference",
            "resolution": "1280x720",
        },
        "external URLs are not accepted",
    ),
    *(("happyhorse", {**HAPPY, "duration": given}, "duration must be") for given in ("2", "16", "16s", "5.5", 5)),
    ("happyhorse", {}, "prompt is required"),
    ("happyhorse", {"urls": [IMAGE] * 2, "videoWorkflowTab": "multi-reference"}, "prompt is required"),
    ("happyhorse", {**HAPPY, "urls": [IMAGE] * 2}, "need videoWorkflowTab"),
    ("happyhorse", {**HAPPY, "urls": [IMAGE] * 10, "videoWorkflowTab": "multi-reference"}, "at most 9"),
    ("happyhorse", {**HAPPY, "videoWorkflowTab": "multi-reference"}, "needs 1–9 urls"),
    ("happyhorse", {**HAPPY, "urls": [IMAGE], "ratio": "16:9"}, "not for image-to-video"),
    ("happyhorse", {**HAPPY, "ratio": "21:9"}, "ratio must be"),
    ("happyhorse", {**HAPPY, "outputResolution": "4k"}, "outputResolution must be"),
    ("happyhorse", {**HAPPY, "seed": -1}, "seed must be"),
    ("happyhorse", {**HAPPY, "seed": 2147483648}, "seed must be"),
    ("happyhorse", {**HAPPY, "seed": "7"}, "seed must be"),
    ("happyhorse", {**HAPPY, "videoUrls": ["asset://asset-20260326-abc123"]}, "not supported by this model"),
    ("happyhorse", {**HAPPY, "audioUrls": [SOUND]}, "not supported by this model"),
    ("happyhorse", {**HAPPY, "videoInputMode": "keyframe"}, "not supported by this model"),
    ("happyhorse", {**HAPPY, "urls": ["https://example.com/a-200x400.png"]}, "at least 300px"),
    ("happyhorse", {**HAPPY, "urls": ["https://example.com/a-1000x2501.png"]}, "aspect ratio"),
    ("gpt-image-2", {}, "prompt is required"),
    ("gpt-image-2", {"prompt": " "}, "prompt must not be empty"),
    ("gpt-image-2", {**VIDEO, "urls": [IMAGE] * 11}, "at most 10"),
    ("gpt-image-2", {**VIDEO, "quality": "low"}, "quality must be"),
    ("gpt-image-2", {**VIDEO, "resolution": "2K"}, "resolution must be"),
    ("gpt-image-2", {**VIDEO, "aspectRatio": "21:9"}, "aspectRatio must be"),
    ("gpt-image-2", {**VIDEO, "outputFormat": "jpg"}, "outputFormat must be"),
    ("gpt-image-2", {**VIDEO, "urls": ["https://example.com/a-255x300.png"]}, "at least 256px"),
    ("gpt-image-2", {**VIDEO, "urls": ["https://example.com/a-300x901.png"]}, "aspect ratio"),
]


async def test_what_the_tables_do_not_allow_is_refused_uncharged() -> None:
    async with client_of("seegen") as client:
        for model, inputs, said in REFUSED:
            answer = await create(client, model, **inputs)
            assert error_of(answer) == (400, "invalid_parameters"), f"{model} {inputs}"
            assert said in answer.json()["error"]["message"], f"{model} {inputs}"
        assert (client.money(), client.books()["tasks"]) == (("0", "0"), [])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": VIDEO}, "model is required"),
        ({"model": "sd3", "inputs": VIDEO}, "model must be one of"),
        ({"model": "sd2"}, "inputs is required"),
        ({"model": "sd2", "inputs": [VIDEO]}, "must be a JSON object"),
        ({"model": "sd2", "inputs": VIDEO, "callBackUrl": "ftp://example.com"}, "callBackUrl must be"),
        ({"model": "sd2", "inputs": VIDEO, "callBackUrl": "https://"}, "callBackUrl must be"),
        ({"model": "sd2", "inputs": VIDEO, "callBackUrl": 5}, "callBackUrl must be"),
        ([], "must be a JSON object"),
    ],
)
async def test_an_order_needs_a_model_and_its_inputs(body: Any, said: str) -> None:
    async with client_of("seegen") as client:
        answer = await client.ask("POST", CREATE, json=body)
        assert (answer.status_code, client.money()) == (400, ("0", "0"))
        assert said in answer.json()["error"]["message"]


async def test_twelve_references_at_most_in_all() -> None:
    async with client_of("seegen") as client:
        videos = [await ready(client, CLIP.format(5)) for _ in range(3)]
        many = {"urls": [IMAGE] * 6, "videoUrls": videos, "audioUrls": [SOUND] * 3, "videoInputMode": "reference"}
        await created(client, "sd2", **many)
        answer = await create(client, "sd2", **{**many, "urls": [IMAGE] * 7})
        assert "at most 12" in answer.json()["error"]["message"]
        answer = await create(client, "sd2", videoUrls=videos[:1], prompt="a cat")
        assert "need videoInputMode reference" in answer.json()["error"]["message"]
        answer = await create(client, "sd2", videoUrls=[*videos, videos[0]], videoInputMode="reference")
        assert "at most 3" in answer.json()["error"]["message"]


async def test_only_active_assets_of_the_right_kind_and_owner_can_be_used() -> None:
    async with client_of("seegen") as client:
        picture, video = await ready(client, IMAGE, "IMAGE"), await ready(client, CLIP.format(5))
        too_long, sound = await ready(client, CLIP.format("15.1")), await ready(client, SOUND, "AUDIO")
        waiting = (await upload(client, CLIP.format(4)))["volcAssetId"]
        reference = {"videoInputMode": "reference"}
        await created(client, "sd2", urls=[picture], videoUrls=[video], audioUrls=[sound], **reference)
        for model in ("happyhorse", "gpt-image-2"):
            await created(client, model, prompt="a cat", urls=[picture])
        for videos, said in (
            ([picture], "not of type VIDEO"),
            ([f"asset://{waiting}"], "not ACTIVE but PROCESSING"),
            ([too_long], "≤ 15s"),
            (["asset://1"], "there is no asset"),
        ):
            answer = await create(client, "sd2", videoUrls=videos, **reference)
            assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True), said
        client.key = OTHER_KEY
        answer = await create(client, "sd2", videoUrls=[video], **reference)
        assert "there is no asset" in answer.json()["error"]["message"]
        assert client.money() == ("0", "0")


async def test_a_field_that_no_table_names_is_ignored_and_seen() -> None:
    async with client_of("seegen") as client:
        answer = await client.ask("POST", CREATE, json={"model": "sd2", "inputs": {**VIDEO, "ratio": "1:1"}, "n": 4})
        assert (answer.status_code, client.money()) == (200, ("200", "0"))
        details = [each["detail"] for each in client.sandbox.observed()["violations"]]
        assert details == [f"/seegen{CREATE}: n", f"/seegen{CREATE}: inputs.ratio of sd2"]
