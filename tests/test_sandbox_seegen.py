"""The pretend seegen makes and charges tasks as its document (003) says."""

from __future__ import annotations

import re
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_client import OTHER_KEY, client_of, error_of
from seegen_client import CREDITS, IMAGE, QUERY, SOUND, balance, create, created, end, query, ready

from runner.sandbox.measuring import measured_seconds, measured_size
from runner.sandbox.providers.seegen.orders import sd2_price, truncated

CLIP = "https://example.com/motion-{}s.mp4"
HAPPY: dict[str, Any] = {"prompt": "a panda"}
VIDEO: dict[str, Any] = {"prompt": "a cat"}

# model, inputs, price: "credits per task" (5 s), the two worked examples, HappyHorse and GPT Image tables.
PRICES: list[tuple[str, dict[str, Any], int]] = [
    ("sd2", {}, 200),
    ("sd2-fast", {}, 160),
    ("sd2", {"outputResolution": "1080p"}, 500),
    ("sd2", {"upscaleResolution": "1080p"}, 300),
    ("sd2", {"upscaleResolution": "2k"}, 350),
    ("sd2-fast", {"upscaleResolution": "2k"}, 310),
    ("sd2", {"upscaleResolution": "4k"}, 400),
    ("sd2-fast", {"upscaleResolution": "4k"}, 360),
    ("sd2-fast", {"upscaleResolution": "1080p"}, 260),
    ("sd2", {"duration": "4s"}, 160),
    ("sd2", {"duration": "15s", "upscaleResolution": "4k"}, 1200),
    *(("sd2", {"resolution": size}, 200) for size in ("720x720", "720x960", "960x720", "720x1280", "1280x540")),
    ("sd2", {"urls": [IMAGE]}, 200),
    ("sd2-fast", {"urls": [IMAGE] * 2, "videoInputMode": "keyframe"}, 160),
    ("sd2", {"urls": [IMAGE] * 9, "audioUrls": [SOUND] * 3, "videoInputMode": "reference"}, 200),
    ("happyhorse", {}, 160),
    ("happyhorse", {"outputResolution": "1080p"}, 300),
    ("happyhorse", {"duration": "15s"}, 480),
    ("happyhorse", {"duration": "15", "outputResolution": "1080p", "ratio": "9:16", "seed": 2147483647}, 900),
    ("happyhorse", {"duration": "3", "urls": [IMAGE]}, 96),
    ("happyhorse", {"urls": [IMAGE] * 9, "videoWorkflowTab": "multi-reference", "ratio": "1:1"}, 160),
    ("happyhorse-video-generation", {}, 160),
    ("gpt-image-2", {}, 35),
    *(
        ("gpt-image-2", {"resolution": size, "quality": quality}, price)
        for size, quality, price in (
            *(("1k", "medium", 15), ("1k", "high", 70), ("2k", "medium", 35)),
            *(("2k", "high", 125), ("4k", "medium", 60), ("4k", "high", 230)),
        )
    ),
    ("gpt-image-2", {"urls": [IMAGE] * 10, "resolution": "1k", "aspectRatio": "3:4"}, 15),
]


async def test_every_documented_price_is_charged() -> None:
    async with client_of("seegen") as client:
        for model, inputs, price in PRICES:
            before = await balance(client)
            task = await created(client, model, **{**VIDEO, **inputs})
            assert await balance(client) == (before[0], before[1] - price), f"{model} {inputs}"
            await end(client, task)
            shown = await query(client, task)
            assert (shown["creditsUsed"], shown["model"]) == (price, model)
        assert client.sandbox.observed()["violations"] == []


@pytest.mark.parametrize(
    ("model", "inputs", "lengths", "price"),
    [
        ("sd2", {}, ["5"], 300),
        ("sd2-fast", {}, ["5"], 240),
        ("sd2", {}, ["10"], 450),
        ("sd2-fast", {}, ["10"], 360),
        ("sd2", {"outputResolution": "1080p"}, ["5"], 750),
        ("sd2", {"outputResolution": "1080p"}, ["10"], 1125),
        ("sd2", {}, ["4.1", "2.5"], 390),  # 5 + (5 + 3): each is rounded up
        ("sd2", {}, ["2"], 270),  # 5 + ⌈10/3⌉
        ("sd2", {"duration": "15s"}, ["4", "5.5"], 750),  # 15 + max(4 + 6, 10)
        ("sd2", {"duration": "15s"}, ["9.1"], 750),
        ("sd2", {"duration": "15s"}, ["15"] * 3, 1800),
        ("sd2-fast", {"upscaleResolution": "2k"}, ["5"], 390),  # the upscale is per second of output
    ],
)
async def test_reference_videos_cost_what_is_measured_of_them(
    model: str, inputs: dict[str, Any], lengths: list[str], price: int
) -> None:
    async with client_of("seegen") as client:
        videos = [await ready(client, CLIP.format(length)) for length in lengths]
        await created(client, model, videoUrls=videos, videoInputMode="reference", **inputs)
        assert client.money() == (str(price), "0")


@given(st.integers(4, 15), st.lists(st.decimals("0.1", 15, places=1), min_size=1, max_size=3))
def test_the_input_seconds_are_never_below_two_thirds_of_the_output(output: int, inputs: list[Decimal]) -> None:
    billed, rest = divmod(sd2_price("sd2", output, inputs, "720p", None), 30)
    assert rest == 0
    assert billed - output >= Decimal(2 * output) / 3
    assert billed - output >= sum(inputs)
    assert billed - output < max(sum(inputs) + len(inputs), Decimal(2 * output) / 3 + 1)


# -- the way of a task ---------------------------------------------------------------------------------------------


async def test_a_task_goes_its_way() -> None:
    async with client_of("seegen") as client:
        started = time.time() * 1000
        task, seen = await created(client, "sd2", **VIDEO), []
        assert task.startswith("task_")
        while (shown := await query(client, task))["status"] != "COMPLETED":
            seen.append(shown["status"])
            assert (shown["output"], shown["error"], shown["completeTime"]) == (None, None, None)
            client.sandbox.clock.leap(1)
        assert list(dict.fromkeys(seen)) == ["PENDING", "PROCESSING"]
        assert set(shown) == {
            *("taskId", "model", "status", "creditsUsed", "output", "error", "createTime", "completeTime"),
        }
        assert shown["createTime"] == pytest.approx(started, abs=60_000)
        assert isinstance(shown["createTime"], int)
        assert 20_000 < shown["completeTime"] - shown["createTime"] < 200_000
        ((file),) = shown["output"]
        assert (file["width"], file["height"]) == (1280, 720)
        assert file["url"].startswith(f"{client.sandbox.media}/media/seegen/{task}/0.mp4?")
        assert (await client.http.get(file["url"])).headers["Content-Type"] == "video/mp4"


@pytest.mark.parametrize(
    ("model", "inputs", "size", "extension"),
    [
        ("sd2", {"outputResolution": "1080p"}, (1920, 1080), "mp4"),
        ("sd2", {"resolution": "720x1280", "upscaleResolution": "4k"}, (2160, 3840), "mp4"),
        ("happyhorse", {"ratio": "3:4"}, (720, 960), "mp4"),
        ("gpt-image-2", {"outputFormat": "jpeg"}, (2048, 2048), "jpg"),
        ("gpt-image-2", {"outputFormat": "webp", "aspectRatio": "16:9", "resolution": "1k"}, (1820, 1024), "webp"),
    ],
)
async def test_results_have_the_size_and_the_format_asked_for(
    model: str, inputs: dict[str, Any], size: tuple[int, int], extension: str
) -> None:
    async with client_of("seegen") as client:
        task = await created(client, model, prompt="a cat", **inputs)
        await end(client, task)
        (file,) = (await query(client, task))["output"]
        assert (file["width"], file["height"]) == size
        assert file["url"].partition("?")[0].endswith(f"{task}/0.{extension}")


@pytest.mark.parametrize(("outcome", "names_moderation"), [("failed", False), ("moderated", True)])
async def test_a_failed_task_is_refunded_in_full(outcome: str, names_moderation: bool) -> None:
    async with client_of("seegen") as client:
        task = await created(client, "sd2", **VIDEO)
        assert await balance(client) == (100000, 99800)
        await end(client, task, outcome)
        shown = await query(client, task)
        assert (shown["status"], shown["creditsUsed"], shown["output"]) == ("FAILED", 0, None)
        assert ("content safety" in str(shown["error"])) is names_moderation
        assert await balance(client) == (100000, 100000)
        assert client.money() == ("200", "200")


async def test_a_late_refund_is_held_back_and_then_comes() -> None:
    async with client_of("seegen") as client:
        await client.fault("late_refund", seconds=60)
        task = await created(client, "sd2", **VIDEO)
        client.sandbox.clock.leap(client.books()["tasks"][0]["finishes_at"] - client.sandbox.clock.now())
        assert (await query(client, task))["creditsUsed"] == 200
        assert await balance(client) == (99800, 99800)
        client.sandbox.clock.leap(61)
        assert (await query(client, task))["creditsUsed"] == 0
        assert await balance(client) == (100000, 100000)


async def test_no_output_is_an_empty_list() -> None:
    async with client_of("seegen") as client:
        for name in ("no_output", "late_output"):
            await client.fault(name)
            task = await created(client, "sd2", **VIDEO)
            await end(client, task)
            shown = await query(client, task)
            assert (shown["status"], shown["output"]) == ("COMPLETED", [])
        assert len((await query(client, task))["output"]) == 1


# -- the other codes of the document -------------------------------------------------------------------------------


async def test_402_without_credits() -> None:
    async with client_of("seegen", credits=Decimal(199)) as client:
        assert error_of(await create(client, "sd2", **VIDEO)) == (402, "insufficient_credits")
        assert client.books()["tasks"] == []
        await created(client, "sd2-fast", **VIDEO)


async def test_401_403_and_404() -> None:
    async with client_of("seegen") as client:
        task = await created(client, "sd2", **VIDEO)
        assert (await client.ask("GET", QUERY)).status_code == 400
        answer = await client.ask("GET", QUERY, params={"taskId": "task_none"})
        assert (answer.status_code, answer.json()) == (404, {"message": "Task not found."})
        client.key = OTHER_KEY
        answer = await client.ask("GET", QUERY, params={"taskId": task})
        assert (answer.status_code, list(answer.json())) == (403, ["error"])
        await client.control("keys", {"provider": "seegen", "key": OTHER_KEY, "revoked": True})
        assert error_of(await client.ask("GET", CREDITS)) == (401, "unauthorized")
        client.key = "short"
        assert error_of(await client.ask("GET", CREDITS)) == (401, "unauthorized")


async def test_429_is_about_tasks_at_once_and_never_about_requests() -> None:
    async with client_of("seegen", concurrency={"seegen": 2}) as client:
        tasks = [await created(client, "sd2", **VIDEO) for _ in range(2)]
        answer = await create(client, "sd2", **VIDEO)
        assert (answer.status_code, answer.json()["code"]) == (429, "concurrency_limit_reached")
        assert client.money() == ("400", "0")
        for _ in range(100):
            await query(client, tasks[0])
        await end(client, tasks[0])
        await created(client, "sd2", **VIDEO)
        (account,) = client.sandbox.observed()["accounts"]["seegen"].values()
        assert (account["max_in_flight"], account["rate_limited"]) == (2, 1)


async def test_500_before_and_after_the_charge() -> None:
    async with client_of("seegen") as client:
        for name, charged in (("error_before_charge", "0"), ("error_after_charge", "200")):
            await client.fault(name)
            assert error_of(await create(client, "sd2", **VIDEO)) == (500, "internal_error")
            assert client.money() == (charged, "0")


async def test_the_same_order_twice_is_two_tasks() -> None:
    async with client_of("seegen") as client:
        client.headers["Idempotency-Key"] = "order-1"
        first, second = [await created(client, "sd2", **VIDEO) for _ in range(2)]
        assert first != second
        assert client.money() == ("400", "0")


# -- what is measured ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "seconds", "size"),
    [
        ("https://example.com/walk-7.4s.mp4", "7.4", None),
        ("https://example.com/walk_7s_v2.mp4?x=3s", "7", None),
        ("https://example.com/walk-1920x1080-12s.mp4", "12", (1920, 1080)),
        ("https://example.com/12s.mp4", "12", None),
    ],
)
def test_a_name_can_tell_what_is_measured(url: str, seconds: str, size: tuple[int, int] | None) -> None:
    assert measured_seconds(url) == Decimal(seconds)
    assert measured_size(url) == size


@given(st.text("abcdef0123456789", min_size=1), st.text("abc="))
def test_a_name_that_tells_nothing_is_measured_all_the_same(name: str, asked: str) -> None:
    url = f"https://example.com/{name}.mp4"
    assert 3 <= measured_seconds(url) <= 15
    assert measured_seconds(url) == measured_seconds(f"{url}?{asked}")
    assert re.fullmatch(r"\d+(\.\d)?", str(measured_seconds(url)))


@pytest.mark.parametrize("url", ["https://example.com/a-16x9.png", "https://example.com/class.png"])
def test_other_words_are_no_measures(url: str) -> None:
    assert measured_size(url) is None


@pytest.mark.parametrize(
    ("prompt", "read"), [("x" * 5001, 5000), ("猫" * 2501, 2500), ("猫" * 2000 + "x" * 1001, 3000), ("x" * 5000, 5000)]
)
async def test_happyhorse_reads_only_so_much_of_a_prompt(prompt: str, read: int) -> None:
    assert truncated(prompt) == prompt[:read]
    async with client_of("seegen") as client:
        await created(client, "happyhorse", prompt=prompt)
        assert client.books()["tasks"][0]["prompt"] == prompt[:read]
