"""The pretend seedance2ai behaves as its document (004) says."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sandbox_client import KEY, OTHER_KEY, client_of, error_of, until, url_of

GPT, BANANA = "/api/v1/image/gpt-image-2", "/api/v1/image/nano-banana-pro"
IMAGE_URL = "https://example.com/a.png"
DOCUMENTED = [
    (
        "/api/v1/video/seedance",
        {
            "mode": "text-to-video",
            "quality_tier": "standard",
            "prompt": "A cinematic shot of a glass train crossing a snowy mountain bridge",
            "aspect_ratio": "16:9",
            "duration": "5",
            "resolution": "720p",
        },
        "30",
    ),
    (
        GPT,
        {
            "type": "text-to-image",
            "prompt": "Editorial product photo of a transparent running shoe on chrome",
            "resolution": "1K",
            "aspectRatio": "1:1",
        },
        "6",
    ),
    (
        BANANA,
        {
            "type": "text-to-image",
            "prompt": "A premium packaging mockup for an AI video studio",
            "image_size": "1:1",
            "resolution": "1K",
            "output_format": "png",
        },
        "6",
    ),
]


@pytest.mark.parametrize(("path", "body", "price"), DOCUMENTED)
async def test_the_documented_requests_are_accepted_and_charged(path: str, body: dict[str, Any], price: str) -> None:
    async with client_of("seedance2ai") as client:
        answer = await client.order(body, path=path)
        shown = answer.json()
        assert answer.status_code == 200
        assert shown["id"].startswith("sd2_")
        assert (shown["status"], shown["output"]) == ("queued", None)
        assert client.money() == (price, "0")


@pytest.mark.parametrize(
    ("path", "change", "price"),
    [
        (None, {"duration": "15"}, "90"),
        (None, {"quality_tier": "pro"}, "60"),
        (None, {"resolution": "1080p", "quality_tier": "pro"}, "120"),
        (None, {"mode": "image-to-video", "image_url": IMAGE_URL, "end_image_url": IMAGE_URL}, "30"),
        (None, {"mode": "media-to-video", "media_urls": [IMAGE_URL] * 12}, "30"),
        (None, {"channel": "wild", "seed": 4294967295, "generate_audio": False, "fixed_lens": True}, "30"),
        (GPT, {"type": "text-to-image", "resolution": "2K", "aspectRatio": "21:9", "batchCount": 4}, "48"),
        (GPT, {"type": "text-to-image", "resolution": "4K", "aspectRatio": "1:1", "channel": "economy"}, "12"),
        (
            GPT,
            {"type": "image-to-image", "resolution": "1K", "aspectRatio": "auto", "imageUrls": [IMAGE_URL] * 10},
            "6",
        ),
        (BANANA, {"type": "image-to-image", "resolution": "4K", "image_urls": [IMAGE_URL] * 8}, "24"),
    ],
)
async def test_allowed_combinations_and_their_prices(path: str | None, change: dict[str, Any], price: str) -> None:
    async with client_of("seedance2ai") as client:
        await client.ordered({"prompt": "a cat", **change}, path=path or "")
        assert client.money() == (price, "0")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (None, {}),
        (None, {"prompt": "ab"}),
        (None, {"prompt": "x" * 10001}),
        (None, {"prompt": 5}),
        (None, {"prompt": "a cat", "negative_prompt": "dogs"}),
        (None, {"prompt": "a cat", "duration": 5}),
        (None, {"prompt": "a cat", "duration": "3"}),
        (None, {"prompt": "a cat", "duration": "16"}),
        (None, {"prompt": "a cat", "duration": "5.0"}),
        (None, {"prompt": "a cat", "duration": None}),
        (None, {"prompt": "a cat", "mode": "video"}),
        (None, {"prompt": "a cat", "mode": "image-to-video"}),
        (None, {"prompt": "a cat", "mode": "media-to-video"}),
        (None, {"prompt": "a cat", "mode": "media-to-video", "media_urls": [IMAGE_URL] * 13}),
        (None, {"prompt": "a cat", "image_url": IMAGE_URL}),
        (None, {"prompt": "a cat", "mode": "image-to-video", "image_url": "http://example.com/a.png"}),
        (None, {"prompt": "a cat", "mode": "image-to-video", "image_url": "https://127.0.0.1/a.png"}),
        (None, {"prompt": "a cat", "mode": "image-to-video", "image_url": "https://localhost/a.png"}),
        (None, {"prompt": "a cat", "channel": "real", "seed": 1}),
        (None, {"prompt": "a cat", "seed": -2}),
        (None, {"prompt": "a cat", "seed": 4294967296}),
        (None, {"prompt": "a cat", "seed": True}),
        (None, {"prompt": "a cat", "generate_audio": "true"}),
        (None, {"prompt": "a cat", "aspect_ratio": "2:1"}),
        (None, {"prompt": "a cat", "resolution": "4K"}),
        (GPT, {"prompt": "a cat", "resolution": "1K", "aspectRatio": "1:1"}),
        (GPT, {"type": "text-to-image", "prompt": "a cat", "aspectRatio": "1:1"}),
        (GPT, {"type": "text-to-image", "prompt": "a cat", "resolution": "2K", "aspectRatio": "auto"}),
        (GPT, {"type": "text-to-image", "prompt": "a cat", "resolution": "4K", "aspectRatio": "1:1"}),
        (GPT, {"type": "text-to-image", "prompt": "a cat", "resolution": "1k", "aspectRatio": "1:1"}),
        (GPT, {"type": "text-to-image", "prompt": "a cat", "resolution": "1K", "aspectRatio": "1:1", "batchCount": 5}),
        (
            GPT,
            {"type": "text-to-image", "prompt": "a cat", "resolution": "1K", "aspectRatio": "1:1", "batchCount": "2"},
        ),
        (GPT, {"type": "image-to-image", "prompt": "a cat", "resolution": "1K", "aspectRatio": "1:1"}),
        (BANANA, {"type": "image-to-image", "prompt": "a cat"}),
        (BANANA, {"type": "image-to-image", "prompt": "a cat", "image_urls": [IMAGE_URL] * 9}),
        (BANANA, {"type": "text-to-image", "prompt": "a cat", "output_format": "webp"}),
        (BANANA, {"type": "text-to-image", "prompt": "a cat", "batchCount": 2}),
    ],
)
async def test_what_the_tables_do_not_allow_is_refused_uncharged(path: str | None, body: dict[str, Any]) -> None:
    async with client_of("seedance2ai") as client:
        answer = await client.ask("POST", path or "/api/v1/video/seedance", json=body)
        assert error_of(answer) == (400, "invalid_request")
        assert client.money() == ("0", "0")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"text"', b'{"prompt": NaN}', b"\xff\xfe{}"])
async def test_a_body_that_is_no_json_object_is_refused(content: bytes) -> None:
    async with client_of("seedance2ai") as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.ask("POST", "/api/v1/video/seedance", content=content, headers=headers)
        assert error_of(answer) == (400, "invalid_request")


async def test_a_task_goes_its_way_and_is_nobody_elses() -> None:
    async with client_of("seedance2ai") as client:
        task, seen = await client.ordered(), []
        while (shown := await client.status(task))["status"] != "completed":
            seen.append(shown["status"])
            assert shown["output"] is None
            client.sandbox.clock.leap(1)
        assert list(dict.fromkeys(seen)) == ["queued", "processing"]
        assert 20 < len(seen) < 200
        assert shown["model"] == "seedance"
        assert shown["credits_used"] == 30
        assert url_of(shown).startswith(client.sandbox.media + "/media/seedance2ai/sd2_")
        client.key = OTHER_KEY
        assert error_of(await client.ask("GET", f"/api/v1/tasks/{task}")) == (404, "not_found")
        assert error_of(await client.ask("GET", "/api/v1/tasks/sd2_none")) == (404, "not_found")


async def test_a_batch_of_images_comes_as_a_list() -> None:
    async with client_of("seedance2ai") as client:
        body = {"type": "text-to-image", "prompt": "a cat", "resolution": "1K", "aspectRatio": "1:1", "batchCount": 3}
        shown = await client.finish(await client.ordered(body, path=GPT))
        assert len(set(shown["output"]["images"])) == 3
        assert shown["credits_used"] == 18


async def test_a_batch_of_images_can_come_in_part_and_is_paid_for() -> None:
    async with client_of("seedance2ai") as client:
        body = {"type": "text-to-image", "prompt": "a cat", "resolution": "1K", "aspectRatio": "1:1", "batchCount": 4}
        await client.fault("partial", missing=3)
        shown = await client.finish(await client.ordered(body, path=GPT))
        assert (shown["status"], len(shown["output"]["images"]), shown["credits_used"]) == ("completed", 1, 24)
        assert (await client.http.get(shown["output"]["images"][0])).status_code == 200
        shown = await client.finish(await client.ordered({**body, "prompt": "sandbox:partial"}, path=GPT))
        assert len(shown["output"]["images"]) == 3


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("failed", "generation_failed"), ("moderated", "content_moderated"), ("cancelled", "task_cancelled")],
)
async def test_a_failed_task_is_refunded(outcome: str, code: str) -> None:
    async with client_of("seedance2ai") as client:
        shown = await client.finish(await client.ordered(), outcome)
        assert (shown["status"], shown["credits_used"], shown["error"]["code"]) == ("failed", 0, code)
        assert client.money() == ("30", "30")
        assert client.books()["balance"] == "100000"


# -- keys and money ------------------------------------------------------------------------------------------------


async def test_the_same_key_and_bytes_are_answered_again_without_a_second_charge() -> None:
    async with client_of("seedance2ai") as client:
        first, again = [await client.order(key="order-1") for _ in range(2)]
        assert first.content == again.content
        assert client.money() == ("30", "0")
        assert client.books()["tasks"][0]["idempotency_key"] == "order-1"


async def test_the_answer_kept_is_the_first_even_when_the_task_has_moved_on() -> None:
    async with client_of("seedance2ai") as client:
        first = await client.order(key="order-1")
        await client.finish(first.json()["id"])
        assert (await client.order(key="order-1")).content == first.content


async def test_a_replay_needs_no_credits() -> None:
    async with client_of("seedance2ai") as client:
        first = await client.order(key="order-1")
        await client.control("credits", {"provider": "seedance2ai", "key": KEY, "balance": "0"})
        assert (await client.order(key="order-1")).content == first.content
        assert error_of(await client.order(key="order-2")) == (402, "insufficient_credits")


@pytest.mark.parametrize("other", [("", {"prompt": "a dog"}), (BANANA, {"prompt": "a cat"})])
async def test_the_same_key_with_another_request_is_a_conflict(other: tuple[str, dict[str, Any]]) -> None:
    async with client_of("seedance2ai") as client:
        await client.ordered(key="order-1")
        assert error_of(await client.order(other[1], path=other[0], key="order-1")) == (409, "idempotency_conflict")
        assert client.money() == ("30", "0")
        violation = client.sandbox.observed()["violations"][0]
        assert (violation["provider"], violation["name"]) == ("seedance2ai", "key_reused")


async def test_a_key_belongs_to_its_account() -> None:
    async with client_of("seedance2ai") as client:
        await client.ordered(key="order-1")
        client.key = OTHER_KEY
        await client.ordered({"prompt": "a dog"}, key="order-1")
        assert client.money() == ("30", "0")


async def test_a_key_whose_request_is_still_running_is_a_conflict_and_then_a_replay() -> None:
    async with client_of("seedance2ai", speed=200) as client:
        await client.fault("late_accept", seconds=150)
        with pytest.raises(httpx.TransportError):
            await client.order(key="order-1")
        assert error_of(await client.order(key="order-1")) == (409, "idempotency_conflict")
        assert client.money() == ("0", "0")

        async def try_again() -> Any:
            answer = await client.order(key="order-1")
            return answer if answer.status_code != 409 else None

        answer = await until(try_again)
        assert answer.json()["id"] == client.books()["tasks"][0]["id"]
        assert client.money() == ("30", "0")
        assert client.sandbox.observed()["violations"] == []


async def test_without_a_key_each_post_is_an_order() -> None:
    async with client_of("seedance2ai") as client:
        assert await client.ordered() != await client.ordered()
        assert client.money() == ("60", "0")


async def test_a_refusal_is_not_kept_under_the_key() -> None:
    async with client_of("seedance2ai", credits=0) as client:
        assert (await client.order(key="order-1")).status_code == 402
        await client.control("credits", {"provider": "seedance2ai", "key": KEY, "balance": 30})
        await client.ordered(key="order-1")
        assert client.books()["balance"] == "0"


async def test_keys_are_forgotten_after_their_time() -> None:
    async with client_of("seedance2ai", key_retention=100) as client:
        first = await client.ordered(key="order-1")
        assert await client.ordered(key="order-1") == first
        client.sandbox.clock.leap(150)
        assert await client.ordered({"prompt": "a dog"}, key="order-1") != first
        assert client.money() == ("60", "0")


async def test_a_provider_that_ignores_keys_charges_again() -> None:
    async with client_of("seedance2ai", ignore_keys=True) as client:
        assert await client.ordered(key="order-1") != await client.ordered(key="order-1")
        assert client.money() == ("60", "0")
        assert client.sandbox.observed()["bodies_bought_again"] == 1


async def test_sixty_four_at_once_under_one_key_are_one_order() -> None:
    async with client_of("seedance2ai") as client:
        answers = await asyncio.gather(*(client.order(key="order-1") for _ in range(64)))
        assert {answer.json()["id"] for answer in answers} == {client.books()["tasks"][0]["id"]}
        assert client.money() == ("30", "0")


async def test_the_rate_limit_refuses_and_is_remembered() -> None:
    async with client_of("seedance2ai", rate_limits={"seedance2ai": 3}) as client:
        answers = [await client.order() for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert error_of(answers[3]) == (429, "rate_limited")
        assert client.money() == ("90", "0")


async def test_a_limit_of_tasks_at_once() -> None:
    async with client_of("seedance2ai", concurrency={"seedance2ai": 2}) as client:
        first = await client.ordered()
        await client.ordered()
        assert error_of(await client.order()) == (429, "rate_limited")
        await client.finish(first)
        await client.ordered()
        (account,) = client.sandbox.observed()["accounts"]["seedance2ai"].values()
        assert (account["in_flight"], account["max_in_flight"]) == (2, 2)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer short", "Basic abcdefghij", "Bearer a b c d e f g h"])
async def test_a_missing_or_malformed_key_is_unauthorized(header: str) -> None:
    async with client_of("seedance2ai") as client:
        answer = await client.ask(
            "POST", "/api/v1/video/seedance", json={"prompt": "a cat"}, headers={"Authorization": header}
        )
        assert error_of(answer) == (401, "unauthorized")


async def test_a_revoked_key_is_unauthorized_until_it_is_back() -> None:
    async with client_of("seedance2ai") as client:
        task = await client.ordered()
        await client.control("keys", {"provider": "seedance2ai", "key": KEY, "revoked": True})
        assert error_of(await client.order()) == (401, "unauthorized")
        assert error_of(await client.ask("GET", f"/api/v1/tasks/{task}")) == (401, "unauthorized")
        await client.control("keys", {"provider": "seedance2ai", "key": KEY, "revoked": False})
        assert (await client.status(task))["id"] == task


async def test_an_account_can_have_one_more_key() -> None:
    async with client_of("seedance2ai") as client:
        task = await client.ordered()
        await client.control("keys", {"provider": "seedance2ai", "key": f"{KEY}-next", "same_as": KEY})
        await client.control("keys", {"provider": "seedance2ai", "key": KEY, "revoked": True})
        assert error_of(await client.ask("GET", f"/api/v1/tasks/{task}")) == (401, "unauthorized")
        next_key = {"Authorization": f"Bearer {KEY}-next"}
        answer = await client.ask("GET", f"/api/v1/tasks/{task}", headers=next_key)
        assert answer.json()["id"] == task
        [account] = client.sandbox.ledger()["providers"]["seedance2ai"]["accounts"].values()
        assert [each["id"] for each in account["tasks"]] == [task]


@pytest.mark.parametrize("query", ["?api_key=whatever", f"?x={KEY}"])
async def test_a_key_in_the_query_is_refused_and_told(query: str) -> None:
    async with client_of("seedance2ai") as client:
        assert error_of(await client.ask("GET", f"/api/v1/tasks/sd2_1{query}")) == (400, "invalid_request")
        (leak,) = client.sandbox.observed()["leaks"]
        assert leak["name"] == "key_in_query"
        assert KEY not in str(leak)


async def test_other_paths_are_not_found() -> None:
    async with client_of("seedance2ai") as client:
        assert error_of(await client.ask("GET", "/api/v1/videos")) == (404, "not_found")
        assert error_of(await client.ask("DELETE", "/api/v1/tasks/sd2_1")) == (404, "not_found")
