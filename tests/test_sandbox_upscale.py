"""seegen's standalone upscaler: probed first, then charged by what was measured; every failure costs nothing."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_client import OTHER_KEY, Client, client_of, error_of
from seegen_client import QUERY, UPSCALE, UPSCALE_QUERY, VIDEO_URL, balance, created, end, get

from runner.sandbox.providers.seegen.upscales import upscale_price


def body_of(url: str = VIDEO_URL, target: str = "4k", **more: Any) -> dict[str, Any]:
    return {"source": {"type": "url", "url": url}, "targetResolution": target, **more}


async def begin(client: Client, url: str = VIDEO_URL, target: str = "4k", **more: Any) -> str:
    answer = await client.ask("POST", UPSCALE, json=body_of(url, target, **more))
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (set(shown), shown["status"]) == ({"taskId", "orderId", "status"}, "validating")
    return str(shown["taskId"])


async def look(client: Client, task: str) -> Any:
    return await get(client, UPSCALE_QUERY, taskId=task)


async def followed(client: Client, task: str) -> tuple[list[str], Any]:
    """The states it goes through, and what it shows at its end."""
    seen: list[str] = []
    while (shown := await look(client, task))["status"] not in ("completed", "failed"):
        seen.append(shown["status"])
        client.sandbox.clock.leap(1)
    return list(dict.fromkeys(seen)), shown


@pytest.mark.parametrize(
    ("url", "target", "price"),
    [
        ("https://example.com/a-30s.mp4", "1080p", 750),
        ("https://example.com/a-30s.mp4", "2k", 1140),
        ("https://example.com/a-30s.mp4", "4k", 1500),  # the table; the document's example says 1200
        ("https://example.com/a-1s.mp4", "1080p", 125),
        ("https://example.com/a-4.9s.mov", "2k", 190),
        ("https://example.com/a-5.1s.webm", "1080p", 150),
        ("https://example.com/a-600s.mp4", "4k", 30000),
        ("https://example.com/a-1080p-10s.mp4", "2k", 380),
        ("https://example.com/a-2560x1440-10s.mp4", "4k", 500),
        ("https://example.com/stream-10s", "4k", 500),
    ],
)
async def test_an_upscale_costs_what_is_measured_of_its_source(url: str, target: str, price: int) -> None:
    async with client_of("seegen") as client:
        task = await begin(client, url, target)
        await end(client, task)
        assert (await look(client, task))["creditsConsumed"] == price
        assert client.money() == (str(price), "0")


@given(st.decimals("0.1", 600, places=2), st.sampled_from(["1080p", "2k", "4k"]))
def test_a_started_second_counts_and_five_at_least(seconds: Decimal, target: str) -> None:
    billed = max(5, math.ceil(seconds))
    assert upscale_price(seconds, target) == billed * {"1080p": 25, "2k": 38, "4k": 50}[target]


async def test_an_upscale_goes_its_way() -> None:
    async with client_of("seegen") as client:
        task = await begin(client, "https://example.com/a-30s.mp4", callBackUrl="https://example.com/heard")
        seen, shown = await followed(client, task)
        assert seen == ["validating", "processing"]
        result, times = shown["result"], [shown.pop(name) for name in ("createdAt", "finishedAt")]
        assert times[0] < times[1]
        assert all(len(each) == 24 and each[10] == "T" and each.endswith("Z") for each in times)
        assert (result["probedDurationSeconds"], result["probedSourceResolution"]) == (30, "1280x720")
        assert (await client.http.get(result["url"])).headers["Content-Type"] == "video/mp4"
        assert shown == {
            "taskId": task,
            "status": "completed",
            "targetResolution": "4k",
            "creditsConsumed": 1500,
            "result": result,
            "error": None,
        }


async def test_what_is_not_over_tells_no_cost_and_no_result() -> None:
    async with client_of("seegen") as client:
        shown = await look(client, await begin(client))
        assert [shown[name] for name in ("creditsConsumed", "result", "error", "finishedAt")] == [None] * 4
        assert (shown["status"], shown["targetResolution"]) == ("validating", "4k")


async def test_the_credits_go_when_the_probe_is_over() -> None:
    """Whoever lost the answer and looks at the balance at once sees nothing yet."""
    async with client_of("seegen") as client:
        task = await begin(client, "https://example.com/a-30s.mp4")
        assert (await balance(client), client.money()) == ((100000, 100000), ("0", "0"))
        while (await look(client, task))["status"] == "validating":
            client.sandbox.clock.leap(1)
        assert await balance(client) == (100000, 98500)
        (entry,) = client.sandbox.ledger(entries=True)["entries"]
        (told,) = client.books()["tasks"]
        assert told["created_at"] < entry["at"] < told["finishes_at"]
        client.sandbox.clock.leap(1000)
        assert await balance(client) == (98500, 98500)


async def test_credits_that_have_gone_by_then_fail_the_task() -> None:
    async with client_of("seegen") as client:
        await client.control("credits", {"provider": "seegen", "key": client.key, "balance": "300"})
        tasks = [await begin(client, "https://example.com/a-5s.mp4", "1080p") for _ in range(3)]
        ends = [(await followed(client, task))[1] for task in tasks]
        assert sorted(each["status"] for each in ends) == ["completed", "completed", "failed"]
        (failed,) = [each for each in ends if each["status"] == "failed"]
        assert failed["error"]["code"] == "INSUFFICIENT_CREDITS"
        assert client.money() == ("250", "0")
        (account,) = client.sandbox.observed()["accounts"]["seegen"].values()
        assert (account["in_flight"], account["max_in_flight"]) == (0, 3)


# -- failures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/too-long.mp4", "DURATION_EXCEEDS_LIMIT"),
        ("https://example.com/a-600.1s.mp4", "DURATION_EXCEEDS_LIMIT"),
        ("https://example.com/too-sharp.mp4", "SOURCE_RESOLUTION_TOO_HIGH"),
        ("https://example.com/a-2160p.mp4", "SOURCE_RESOLUTION_TOO_HIGH"),
        ("https://example.com/too-large.mp4", "FILE_TOO_LARGE"),
        ("https://example.com/unsupported.mp4", "UNSUPPORTED_MEDIA_TYPE"),
        ("https://example.com/a.avi", "UNSUPPORTED_MEDIA_TYPE"),
        ("https://unreachable.example.com/a.mp4", "URL_NOT_REACHABLE"),
        ("https://private.example.com/a.mp4", "URL_RESOLVES_TO_PRIVATE_IP"),
        ("https://example.com/unprobed.mp4", "PROBE_FAILED"),
        ("https://example.com/upstream.mp4", "UPSTREAM_FAILED"),
        ("https://example.com/sandbox:failed.mp4", "UPSTREAM_FAILED"),
        ("https://example.com/no-credits.mp4", "INSUFFICIENT_CREDITS"),
        ("https://example.com/disabled.mp4", "SERVICE_DISABLED"),
    ],
)
async def test_every_documented_failure_costs_nothing(url: str, code: str) -> None:
    async with client_of("seegen") as client:
        task = await begin(client, url)
        seen, shown = await followed(client, task)
        message = shown["error"].pop("message")
        assert len(message) > 10
        assert shown == {
            "taskId": task,
            "status": "failed",
            "creditsConsumed": None,
            "result": None,
            "error": {"code": code},
        }
        assert seen == (["validating", "processing"] if code == "UPSTREAM_FAILED" else ["validating"])
        assert client.money()[0] == client.money()[1]
        assert (client.money()[0] != "0") is (code == "UPSTREAM_FAILED")
        assert client.books()["balance"] == "100000"


async def test_a_moderated_upscale_says_so() -> None:
    async with client_of("seegen") as client:
        await client.fault("moderated")
        shown = (await followed(client, await begin(client)))[1]
        assert shown["error"]["code"] == "UPSTREAM_FAILED"
        assert "moderation" in shown["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"targetResolution": "4k"},
        {"source": {"type": "url", "url": VIDEO_URL}},
        body_of(target="4K"),
        body_of(target="720p"),
        body_of("http://example.com/a.mp4"),
        body_of("https://192.168.1.1/a.mp4"),
        body_of("https://localhost/a.mp4"),
        {"source": VIDEO_URL, "targetResolution": "4k"},
        {"source": {"url": VIDEO_URL}, "targetResolution": "4k"},
        {"source": {"type": "url"}, "targetResolution": "4k"},
        {"source": {"type": "uploadId", "url": VIDEO_URL}, "targetResolution": "4k"},
        {"source": {"type": "uploadId", "r2Url": VIDEO_URL}, "targetResolution": "4k"},
        body_of(callBackUrl="nowhere"),
    ],
)
async def test_what_is_no_upscale_is_refused_uncharged(body: dict[str, Any]) -> None:
    async with client_of("seegen") as client:
        assert error_of(await client.ask("POST", UPSCALE, json=body)) == (400, "invalid_parameters")
        assert client.books()["tasks"] == []


async def test_a_stored_file_can_be_upscaled_and_so_can_a_result() -> None:
    async with client_of("seegen") as client:
        first = await begin(client)
        await end(client, first)
        for url in ("https://static.seedance2-pro.com/a-5s.mp4", (await look(client, first))["result"]["url"]):
            body = {"source": {"type": "uploadId", "r2Url": url}, "targetResolution": "4k"}
            assert (await client.ask("POST", UPSCALE, json=body)).status_code == 200


async def test_each_product_knows_its_own_tasks_of_its_own_accounts() -> None:
    async with client_of("seegen") as client:
        upscale, video = await begin(client), await created(client, "sd2", prompt="a cat")
        for path, task in ((QUERY, upscale), (UPSCALE_QUERY, video), (UPSCALE_QUERY, "task_none")):
            assert (await client.ask("GET", path, params={"taskId": task})).status_code == 404
        assert (await client.ask("GET", UPSCALE_QUERY)).status_code == 400
        client.key = OTHER_KEY
        assert (await client.ask("GET", UPSCALE_QUERY, params={"taskId": upscale})).status_code == 403


async def test_an_ended_by_hand_upscale_is_charged_first() -> None:
    async with client_of("seegen") as client:
        for outcome, money in (("completed", ("250", "0")), ("failed", ("500", "250"))):
            task = await begin(client, "https://example.com/a-5s.mp4")
            await end(client, task, outcome)
            assert (await look(client, task))["status"] == outcome
            assert client.money() == money


async def test_a_probe_outlives_the_sandbox_and_is_charged_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {"state": str(tmp_path / "state.db")}
    async with client_of("seegen", **options) as client:
        task = await begin(client, "https://example.com/a-5s.mp4")
    for _ in range(2):
        async with client_of("seegen", **options) as client:
            client.sandbox.clock.leap(1000)
            assert (await look(client, task))["creditsConsumed"] == 250
            assert client.money() == ("250", "0")
