"""The pretend happyhorse behaves as its document (002) says."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from sandbox_client import KEY, OTHER_KEY, client_of, error_of

IMAGE = "/api/v1/generate-image"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100


@pytest.mark.parametrize(
    ("body", "price"),
    [
        ({"duration": 5, "aspect_ratio": "16:9"}, "25"),
        ({}, "25"),
        ({"model": "seedance-1-5-pro", "duration": 10}, "50"),
        ({"model": "doubao-seedance-1-5-pro", "duration": 10}, "50"),
        ({"model": "doubao-seedance-2-0", "duration": 4}, "30"),
        ({"model": "doubao-seedance-2-0", "duration": 5}, "38"),
        ({"model": "doubao-seedance-2-0", "duration": 7}, "53"),
        ({"model": "doubao-seedance-2-0-fast", "duration": 5}, "25"),
        ({"duration": 2.5}, "12.5"),
        ({"generation_type": "image_to_video", "image_url": "https://example.com/a.png"}, "25"),
    ],
)
async def test_videos_cost_what_is_documented(body: dict[str, Any], price: str) -> None:
    async with client_of("happyhorse") as client:
        answer = (await client.order({"prompt": "a cat", **body})).json()
        assert answer["error"] is None
        assert answer["data"]["video_id"].startswith("vid_")
        assert client.money() == (price, "0")


@pytest.mark.parametrize(
    ("body", "extension"),
    [
        ({}, "png"),
        ({"output_format": "jpg"}, "jpg"),
        ({"output_format": "webp", "resolution": "4k", "images": ["https://example.com/a.png"]}, "webp"),
    ],
)
async def test_an_image_costs_five_and_is_polled_where_videos_are(body: dict[str, Any], extension: str) -> None:
    async with client_of("happyhorse") as client:
        task = await client.ordered({"prompt": "a cat", **body}, path=IMAGE)
        shown = await client.finish(task)
        assert shown["image_url"].partition("?")[0].endswith(f"{task}/0.{extension}")
        assert (shown["model"], shown["credits_used"]) == ("nano-banana-2", 5)
        assert client.money() == ("5", "0")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {}),
        ("", {"prompt": "  "}),
        ("", {"prompt": "a cat", "model": "sora"}),
        ("", {"prompt": "a cat", "model": "nano-banana-2"}),
        ("", {"prompt": "a cat", "duration": "5"}),
        ("", {"prompt": "a cat", "duration": 0}),
        ("", {"prompt": "a cat", "generation_type": "image_to_video"}),
        ("", {"prompt": "a cat", "generation_type": "video"}),
        ("", {"prompt": "a cat", "aspect_ratio": "wide"}),
        ("", {"prompt": "a cat", "resolution": "sharp"}),
        (IMAGE, {}),
        (IMAGE, {"prompt": "a cat", "resolution": "1K"}),
        (IMAGE, {"prompt": "a cat", "output_format": "jpeg"}),
        (IMAGE, {"prompt": "a cat", "images": "https://example.com/a.png"}),
    ],
)
async def test_invalid_orders_are_refused_uncharged(path: str, body: dict[str, Any]) -> None:
    async with client_of("happyhorse") as client:
        answer = await client.ask("POST", path or "/api/v1/generate", json=body)
        assert error_of(answer) == (400, "validation_error")
        assert answer.json()["data"] is None
        assert client.money() == ("0", "0")


async def test_a_field_nobody_documents_is_ignored_and_told() -> None:
    async with client_of("happyhorse") as client:
        await client.ordered({"prompt": "a cat", "seed": 4})
        (violation,) = client.sandbox.observed()["violations"]
        assert (violation["name"], violation["detail"]) == ("undocumented_field", "/happyhorse/api/v1/generate: seed")


async def test_there_is_no_idempotency_of_any_kind() -> None:
    async with client_of("happyhorse") as client:
        assert await client.ordered(key="order-1") != await client.ordered(key="order-1")
        assert client.money() == ("50", "0")


async def test_empty_credits_and_missing_access_are_told_apart() -> None:
    async with client_of("happyhorse", credits=24) as client:
        assert error_of(await client.order()) == (403, "insufficient_credits")
        await client.control("credits", {"provider": "happyhorse", "key": KEY, "balance": 1000, "paid_access": False})
        for path, model in (("", "doubao-seedance-2-0"), ("", "doubao-seedance-2-0-fast"), (IMAGE, "nano-banana-2")):
            answer = await client.order({"prompt": "a cat", "model": model}, path=path)
            assert error_of(answer) == (403, "paid_access_required")
        await client.ordered()
        assert client.money() == ("25", "0")


async def test_the_balance_falls_with_a_charge_and_comes_back_with_a_refund() -> None:
    async with client_of("happyhorse") as client:

        async def balance() -> Any:
            return (await client.ask("GET", "/api/v1/credits")).json()["data"]

        assert (await balance())["credits"] == 100000
        task = await client.ordered({"prompt": "a cat", "duration": 2.5})
        assert (await balance())["credits"] == 99987.5
        shown = await client.finish(task, "moderated")
        assert (shown["status"], shown["credits_used"]) == ("failed", 0)
        assert "moderation" in shown["error"]
        assert await balance() == {
            "credits": 100000,
            "paid_access": True,
            "subscription": {"status": "active", "plan": "pro"},
        }
        assert client.money() == ("12.5", "12.5")


async def test_the_list_is_the_accounts_own_newest_first_in_pages() -> None:
    async with client_of("happyhorse") as client:
        tasks = [await client.ordered({"prompt": f"cat {number}"}) for number in range(5)]
        image = await client.ordered({"prompt": "a still"}, path=IMAGE)
        await client.finish(tasks[0])

        async def page(query: str) -> Any:
            return (await client.ask("GET", f"/api/v1/videos{query}")).json()["data"]["videos"]

        shown = await page("")
        assert [item["id"] for item in shown] == tasks[::-1]
        assert image not in str(shown)
        assert [item["prompt"] for item in await page("?page=2&limit=2")] == ["cat 2", "cat 1"]
        assert await page("?page=9") == []
        oldest, newest = shown[-1], shown[0]
        assert (oldest["status"], newest["video_url"]) == ("completed", None)
        assert oldest["video_url"].startswith(client.sandbox.media)
        created = datetime.fromisoformat(oldest["created_at"])
        assert abs((created - datetime.fromtimestamp(client.sandbox.clock.now(), UTC)).total_seconds()) < 600
        assert (oldest["model"], oldest["duration"], oldest["aspect_ratio"]) == ("seedance-1-5-pro", 5, "16:9")
        client.key = OTHER_KEY
        assert await page("") == []


@pytest.mark.parametrize("query", ["?limit=51", "?limit=0", "?page=0", "?page=x", "?limit=-1"])
async def test_a_page_has_its_limits(query: str) -> None:
    async with client_of("happyhorse") as client:
        assert error_of(await client.ask("GET", f"/api/v1/videos{query}")) == (400, "validation_error")


async def test_the_list_shows_images_where_it_is_told_to() -> None:
    async with client_of("happyhorse", list_images=True) as client:
        task = await client.ordered({"prompt": "a still"}, path=IMAGE)
        (item,) = (await client.ask("GET", "/api/v1/videos")).json()["data"]["videos"]
        assert item["id"] == task


async def test_sixty_requests_a_minute_whatever_they_are() -> None:
    async with client_of("happyhorse", speed=0.001) as client:
        for number in range(60):
            answer = await client.ask("GET", "/api/v1/credits" if number % 2 else "/api/v1/videos/vid_none")
            assert answer.headers["X-RateLimit-Limit"] == "60"
            assert answer.headers["X-RateLimit-Remaining"] == str(59 - number)
        refused = await client.order()
        assert error_of(refused) == (429, "rate_limit_exceeded")
        now = parsedate_to_datetime(refused.headers["Date"]).timestamp()
        assert 58 <= int(refused.headers["X-RateLimit-Reset"]) - now <= 62
        client.key = OTHER_KEY
        assert (await client.order()).status_code == 200
        observed = client.sandbox.observed()["accounts"]["happyhorse"]
        assert sorted((each["max_requests_60s"], each["rate_limited"]) for each in observed.values()) == [
            (1, 0),
            (61, 1),
        ]


async def test_the_window_slides() -> None:
    async with client_of("happyhorse", rate_limits={"happyhorse": 2}) as client:
        statuses = [(await client.ask("GET", "/api/v1/credits")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        client.sandbox.clock.leap(61)
        assert (await client.ask("GET", "/api/v1/credits")).status_code == 200


@pytest.mark.parametrize(
    ("content", "extension"),
    [(PNG, "png"), (b"\xff\xd8\xff\xe0" + b"\0" * 50, "jpg"), (b"RIFF\0\0\0\0WEBPVP8 ", "webp")],
)
async def test_an_upload_is_hosted_as_it_is_and_can_be_used(content: bytes, extension: str) -> None:
    async with client_of("happyhorse") as client:
        answer = await client.ask("POST", "/api/v1/upload", files={"image": ("a.bin", content, "image/png")})
        url = answer.json()["data"]["url"]
        assert url.endswith("." + extension)
        assert (await client.http.get(url)).content == content
        await client.ordered({"prompt": "a cat", "generation_type": "image_to_video", "image_url": url})
        (upload,) = (await client.control("uploads"))["uploads"]
        assert upload["bytes"] == len(content)


@pytest.mark.parametrize(
    "files",
    [
        {"image": ("a.gif", b"GIF89a" + b"\0" * 50, "image/png")},
        {"image": ("a.png", b"", "image/png")},
        {"file": ("a.png", PNG, "image/png")},
        {"image": ("a.png", PNG + b"\0" * 10 * 1024 * 1024, "image/png")},
    ],
)
async def test_other_uploads_are_refused(files: Any) -> None:
    async with client_of("happyhorse") as client:
        assert error_of(await client.ask("POST", "/api/v1/upload", files=files)) == (400, "validation_error")
        assert error_of(await client.ask("POST", "/api/v1/upload", content=b"x")) == (400, "validation_error")


async def test_another_accounts_task_is_not_found() -> None:
    async with client_of("happyhorse") as client:
        task = await client.ordered()
        client.key = OTHER_KEY
        assert error_of(await client.ask("GET", f"/api/v1/videos/{task}")) == (404, "not_found")


async def test_without_a_key_nothing_is_told() -> None:
    async with client_of("happyhorse") as client:
        answer = await client.http.get(client.sandbox.base_urls["happyhorse"] + "/api/v1/credits")
        assert error_of(answer) == (401, "unauthorized")
