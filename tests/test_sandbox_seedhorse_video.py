"""The pretend seedhorse-video behaves as its document (000) says, and as this project assumes where that is silent."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import pytest
from sandbox_client import KEY, OTHER_KEY, client_of, error_of

GENERATE = "/api/v1/video/generate"
MODELS = ["seedance-2.0", "HappyHorse 1.0", "Vido Q3-Pro"]
URL = "https://example.com/a.png"
REFERENCES = {"reference_images": [URL] * 9, "reference_videos": [URL] * 3, "reference_audios": [URL] * 3}


@pytest.mark.parametrize(
    ("body", "price"),
    [
        ({}, "37.5"),
        ({"resolution": "480p"}, "22.5"),
        ({"duration": 4}, "30"),
        ({"duration": 30, "resolution": "720p", "generate_audio": True}, "225"),
        ({"model": "HappyHorse 1.0", "duration": 7, "resolution": "480p"}, "22.75"),
        ({"model": "HappyHorse 1.0"}, "30"),
        ({"model": "Vido Q3-Pro", "duration": 5, "resolution": "480p"}, "10.625"),
        ({"model": "Vido Q3-Pro"}, "26.25"),
        ({"image_url": URL}, "37.5"),
        ({"image_url": URL, "end_image_url": URL, "aspect_ratio": "9:16", "seed": 7}, "37.5"),
        (REFERENCES, "37.5"),
        ({"reference_audios": [URL]}, "37.5"),
    ],
)
async def test_videos_cost_model_duration_and_resolution_exactly(body: dict[str, Any], price: str) -> None:
    async with client_of("seedhorse-video") as client:
        answer = await client.order({"prompt": "a cat", **body})
        assert answer.status_code == 200
        assert answer.json().keys() == {"id", "status"}
        assert answer.json()["status"] == "queued"
        assert client.money() == (price, "0")
        shown = await client.status(answer.json()["id"])
        assert (str(shown["credits_charged"]), shown["credits_refunded"]) == (price, 0)
        assert client.sandbox.observed()["violations"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"model": None},
        {"prompt": None},
        {"prompt": " "},
        {"model": "sora"},
        {"model": "happyhorse 1.0"},
        {"model": ["seedance-2.0"]},
        *({"model": model} for model in ("NanoBanana Pro", "NanoBanana 2.0", "gpt-image 2.0")),
        {"duration": 3},
        {"duration": 31},
        {"duration": "5"},
        {"duration": 5.5},
        {"resolution": "1080p"},
        {"resolution": "4K"},
        {"aspect_ratio": "wide"},
        {"generate_audio": "yes"},
        {"image_url": "http://example.com/a.png"},
        {"image_url": "https://10.0.0.1/a.png"},
        {"end_image_url": URL},
        {"image_url": URL, "reference_images": [URL]},
        {"reference_images": [URL] * 10},
        {"reference_videos": [URL] * 4},
        {"reference_audios": [URL] * 4},
        {"reference_images": URL},
        {"seed": "7"},
        {"prompt": "a cat sandbox:refused"},
    ],
)
async def test_what_is_not_offered_is_refused_uncharged(body: dict[str, Any]) -> None:
    async with client_of("seedhorse-video") as client:
        answer = await client.order({"prompt": "a cat", **body})
        assert answer.status_code == 400
        assert answer.json()["error"].keys() == {"code", "message"}
        assert client.money() == ("0", "0")


@pytest.mark.parametrize("model", MODELS)
async def test_a_task_goes_its_way_and_is_nobody_elses(model: str) -> None:
    async with client_of("seedhorse-video") as client:
        task, seen = await client.ordered({"prompt": "a cat", "model": model}), []
        assert task.startswith("shv_")
        while (shown := await client.status(task))["status"] != "succeeded":
            seen.append(shown["status"])
            assert (shown["video_url"], shown["error"]) == (None, None)
            client.sandbox.clock.leap(1)
        assert list(dict.fromkeys(seen)) == ["queued", "processing"]
        assert (shown["id"], shown["model"], shown["credits_refunded"]) == (task, model, 0)
        assert abs(datetime.fromisoformat(shown["created_at"]).timestamp() - client.sandbox.clock.now()) < 3600
        assert shown["video_url"].startswith(client.sandbox.media + f"/media/seedhorse-video/{task}/0.mp4?")
        assert (await client.http.get(shown["video_url"])).headers["Content-Type"] == "video/mp4"
        client.key = OTHER_KEY
        assert error_of(await client.ask("GET", f"/api/v1/video/task/{task}")) == (404, "not_found")
        assert error_of(await client.ask("GET", "/api/v1/video/task/shv_none")) == (404, "not_found")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("failed", "generation_failed"), ("moderated", "content_moderated"), ("cancelled", "task_cancelled")],
)
async def test_a_failed_task_is_refunded_in_full(outcome: str, code: str) -> None:
    async with client_of("seedhorse-video") as client:
        shown = await client.finish(await client.ordered(), outcome)
        assert (shown["status"], shown["error"]["code"], shown["video_url"]) == ("failed", code, None)
        assert shown["credits_refunded"] == shown["credits_charged"] == 37.5
        assert client.money() == ("37.5", "37.5")
        assert client.books()["balance"] == "100000"


async def test_a_refund_may_be_late_and_shows_when_it_is_there() -> None:
    async with client_of("seedhorse-video") as client:
        await client.fault("late_refund", seconds=600)
        task = await client.ordered()
        client.sandbox.clock.leap(client.books()["tasks"][0]["finishes_at"] - client.sandbox.clock.now())
        shown = await client.status(task)
        assert (shown["status"], shown["credits_charged"], shown["credits_refunded"]) == ("failed", 37.5, 0)
        client.sandbox.clock.leap(600)
        assert (await client.status(task))["credits_refunded"] == 37.5


async def test_the_credits_are_deducted_before_the_task_is_submitted() -> None:
    """An error after the deduction looks like one before it; nothing here can tell them apart."""
    async with client_of("seedhorse-video") as client:
        answers = []
        for fault in ("error_before_charge", "error_after_charge"):
            await client.fault(fault)
            answers.append(await client.order())
        assert answers[0].status_code == answers[1].status_code == 500
        assert answers[0].content == answers[1].content
        assert client.money() == ("37.5", "0")


async def test_credits_that_do_not_suffice() -> None:
    async with client_of("seedhorse-video", credits=37) as client:
        assert error_of(await client.order()) == (402, "insufficient_credits")
        await client.ordered({"prompt": "a cat", "resolution": "480p"})
        assert client.books()["balance"] == "14.5"
        await client.control("credits", {"provider": "seedhorse-video", "key": KEY, "balance": "37.5"})
        await client.ordered()
        assert client.books()["balance"] == "0"


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Idempotency-Key"])
async def test_there_is_no_idempotency_of_any_kind(header: str) -> None:
    async with client_of("seedhorse-video") as client:
        client.headers = {header: "order-1"}
        assert await client.ordered() != await client.ordered()
        assert client.money() == ("75", "0")


async def test_an_order_whose_answer_was_lost_is_charged_beside_its_resend() -> None:
    async with client_of("seedhorse-video") as client:
        await client.fault("lost_answer")
        with pytest.raises(httpx.TransportError):
            await client.order()
        await client.ordered()
        assert client.money() == ("75", "0")
        assert client.sandbox.observed()["bodies_bought_again"] == 1


@pytest.mark.parametrize("header", ["", "Bearer short", "Basic abcdefghij"])
async def test_a_missing_or_malformed_key_is_unauthorized(header: str) -> None:
    async with client_of("seedhorse-video") as client:
        body = {"model": "seedance-2.0", "prompt": "a cat"}
        answer = await client.ask("POST", GENERATE, json=body, headers={"Authorization": header})
        assert error_of(answer) == (401, "unauthorized")
        assert client.money() == ("0", "0")


@pytest.mark.parametrize("query", ["?api_key=whatever", "?token=whatever", f"?x={KEY}"])
async def test_a_key_in_the_query_is_refused_and_burned(query: str) -> None:
    async with client_of("seedhorse-video") as client:
        task = await client.ordered()
        answer = await client.ask("GET", f"/api/v1/video/task/{task}{query}")
        assert error_of(answer) == (400, "invalid_request")
        assert "Rotate" in answer.text
        (leak,) = client.sandbox.observed()["leaks"]
        assert (leak["provider"], leak["name"], KEY in str(leak)) == ("seedhorse-video", "key_in_query", False)


async def test_there_is_neither_a_list_nor_a_balance() -> None:
    async with client_of("seedhorse-video") as client:
        for path in ("/api/v1/videos", "/api/v1/video/tasks", "/api/v1/credits", "/api/v1/image/generate"):
            assert error_of(await client.ask("GET", path)) == (404, "not_found")


async def test_a_field_nobody_names_is_ignored_and_told() -> None:
    async with client_of("seedhorse-video") as client:
        await client.ordered({"prompt": "a cat", "negative_prompt": "dogs"})
        (violation,) = client.sandbox.observed()["violations"]
        assert violation["detail"] == "/seedhorse-video/api/v1/video/generate: negative_prompt"


async def test_rates_and_limits_go_by_its_hyphenated_name() -> None:
    options: dict[str, Any] = {"rate_limits": {"seedhorse-video": 2}, "concurrency": {"seedhorse-video": 1}}
    async with client_of("seedhorse-video", faults="seedhorse-video.task_failed=1", **options) as client:
        await client.ordered()
        assert error_of(await client.order()) == (429, "rate_limited")
        assert error_of(await client.order()) == (429, "rate_limited")
        assert client.books()["tasks"][0]["outcome"] == "failed"
