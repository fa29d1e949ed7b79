"""Assets are reviewed before they may be used, kept, listed, and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_client import OTHER_KEY, Client, client_of, error_of
from seegen_client import ASSET, ASSETS, IMAGE, UPLOAD, get, upload

SHOWN = {"assetId", "volcAssetId", "type", "status", "failReason", "url", "name", "createdAt"}


async def status(client: Client, identity: Any) -> Any:
    return (await get(client, ASSET, assetId=identity))["status"]


async def test_an_asset_is_reviewed_and_then_active() -> None:
    async with client_of("seegen") as client:
        asset = await upload(client, IMAGE, "IMAGE", name="hero")
        assert set(asset) == SHOWN
        assert isinstance(asset["assetId"], int)
        assert asset["volcAssetId"].startswith("asset-20")
        assert (asset["type"], asset["status"], asset["failReason"]) == ("IMAGE", "PROCESSING", None)
        assert (asset["url"], asset["name"]) == (IMAGE, "hero")
        assert asset["createdAt"] == pytest.approx(client.sandbox.clock.now() * 1000, abs=60_000)
        assert await status(client, asset["assetId"]) == "PROCESSING"
        client.sandbox.clock.leap(12)
        for identity in (asset["assetId"], asset["volcAssetId"]):
            assert await get(client, ASSET, assetId=identity) == {**asset, "status": "ACTIVE"}
        assert client.money() == ("0", "0")


@pytest.mark.parametrize(
    ("url", "more", "reason"),
    [
        (IMAGE, {"name": "sandbox:refused"}, "moderation"),
        ("https://example.com/sandbox:refused.png", {}, "moderation"),
        (IMAGE, {"name": "sandbox:failed"}, "could not be downloaded"),
    ],
)
async def test_an_asset_can_be_refused(url: str, more: dict[str, Any], reason: str) -> None:
    async with client_of("seegen") as client:
        asset = await upload(client, url, "IMAGE", **more)
        assert (asset["status"], asset["failReason"]) == ("PROCESSING", None)
        client.sandbox.clock.leap(12)
        shown = await get(client, ASSET, assetId=asset["assetId"])
        assert (shown["status"], reason in shown["failReason"]) == ("FAILED", True)


async def test_a_review_can_be_slow_or_never_end() -> None:
    async with client_of("seegen") as client:
        slow, stuck = [await upload(client, IMAGE, "IMAGE", name=f"sandbox:{how}") for how in ("slow", "stuck")]
        client.sandbox.clock.leap(15)
        assert [await status(client, each["assetId"]) for each in (slow, stuck)] == ["PROCESSING"] * 2
        client.sandbox.clock.leap(10**7)
        assert [await status(client, each["assetId"]) for each in (slow, stuck)] == ["ACTIVE", "PROCESSING"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": IMAGE},
        {"type": "IMAGE"},
        {"url": IMAGE, "type": "image"},
        {"url": "http://example.com/a.png", "type": "IMAGE"},
        {"url": "https://localhost/a.png", "type": "IMAGE"},
        {"url": "asset://asset-20260326-abc123", "type": "IMAGE"},
        {"url": IMAGE, "type": "IMAGE", "name": "x" * 65},
        {"url": IMAGE, "type": "IMAGE", "name": 5},
    ],
)
async def test_uploads_that_the_document_does_not_allow(body: dict[str, Any]) -> None:
    async with client_of("seegen") as client:
        assert error_of(await client.ask("POST", UPLOAD, json=body)) == (400, "invalid_parameters")
        await upload(client, IMAGE, "IMAGE", name="x" * 64)
        assert [each["assetId"] for each in (await get(client, ASSETS))["items"]] == [1]


async def test_assets_of_others_are_theirs() -> None:
    async with client_of("seegen") as client:
        asset = await upload(client, IMAGE, "IMAGE")
        assert (await client.ask("GET", ASSET)).status_code == 400
        assert (await client.ask("GET", ASSET, params={"assetId": 99})).status_code == 404
        client.key = OTHER_KEY
        assert (await client.ask("GET", ASSET, params={"assetId": asset["assetId"]})).status_code == 403
        assert (await get(client, ASSETS)) == {"items": [], "nextCursor": None}


# -- the list ------------------------------------------------------------------------------------------------------


async def test_the_list_can_be_walked_and_chosen_from() -> None:
    async with client_of("seegen") as client:
        for number in range(25):
            kind = ("IMAGE", "AUDIO", "VIDEO")[number % 3]
            await upload(client, IMAGE, kind, name="sandbox:refused" if number == 3 else "plain")
        assert (await get(client, ASSETS, status="ACTIVE"))["items"] == []
        client.sandbox.clock.leap(12)
        page = await get(client, ASSETS)
        assert [each["assetId"] for each in page["items"]] == list(range(25, 5, -1))
        rest = await get(client, ASSETS, cursor=page["nextCursor"])
        assert [each["assetId"] for each in rest["items"]] == [5, 4, 3, 2, 1]
        assert rest["nextCursor"] is None
        assert len((await get(client, ASSETS, limit=50))["items"]) == 25
        chosen = await get(client, ASSETS, type="VIDEO", status="ACTIVE", limit=3)
        assert [each["assetId"] for each in chosen["items"]] == [24, 21, 18]
        (refused,) = (await get(client, ASSETS, status="FAILED"))["items"]
        assert (refused["assetId"], set(refused)) == (4, SHOWN)


async def test_a_page_that_ends_with_the_list_has_no_next_one() -> None:
    async with client_of("seegen") as client:
        for _ in range(4):
            await upload(client, IMAGE, "IMAGE")
        cursors = [(await get(client, ASSETS, limit=limit))["nextCursor"] for limit in (3, 4, 5)]
        assert cursors == [2, None, None]


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 51}, {"limit": "x"}, {"cursor": "x"}, {"cursor": -1}, {"type": "video"}, {"status": "OK"}],
)
async def test_lists_that_the_document_does_not_allow(query: dict[str, Any]) -> None:
    async with client_of("seegen") as client:
        assert error_of(await client.ask("GET", ASSETS, params=query)) == (400, "invalid_parameters")


async def test_the_list_can_lag_behind() -> None:
    async with client_of("seegen", speed=0.001) as client:
        await upload(client, IMAGE, "IMAGE")
        client.sandbox.clock.leap(20)
        await upload(client, IMAGE, "IMAGE")
        seen: list[list[tuple[int, str]]] = []
        for seconds in (1000, 19, 1):
            await client.fault("stale_list", seconds=seconds)
            items = (await get(client, ASSETS))["items"]
            seen.append([(each["assetId"], each["status"]) for each in items])
        assert seen == [[], [(1, "PROCESSING")], [(1, "ACTIVE")]]
        assert len((await get(client, ASSETS))["items"]) == 2


# -- what a judge sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept"), [("lost_answer", 1), ("lost_request", 0), ("error_after_charge", 1), ("unavailable", 0)]
)
async def test_faults_strike_uploads(name: str, kept: int) -> None:
    async with client_of("seegen") as client:
        await client.fault(name, when="upload")
        if name.startswith("lost"):
            with pytest.raises(httpx.TransportError):
                await upload(client, IMAGE, "IMAGE")
        else:
            answer = await client.ask("POST", UPLOAD, json={"url": IMAGE, "type": "IMAGE"})
            assert answer.status_code in (500, 503)
        assert len((await client.control("assets"))["assets"]) == kept


async def test_a_second_upload_of_the_same_file_is_another_asset_and_counted() -> None:
    async with client_of("seegen") as client:
        first, second = [await upload(client, IMAGE, "IMAGE", name="hash") for _ in range(2)]
        await upload(client, "https://example.com/other.png", "IMAGE")
        assert first["assetId"] != second["assetId"]
        assert first["volcAssetId"] != second["volcAssetId"]
        observed = await client.control("observed")
        assert observed["asset_uploads"] == {"seegen": {IMAGE: 2, "https://example.com/other.png": 1}}
        assert [each["status"] for each in (await client.control("assets"))["assets"]] == ["PROCESSING"] * 3


async def test_assets_outlive_the_sandbox(tmp_path: Path) -> None:
    options = {"state": str(tmp_path / "state.db")}
    async with client_of("seegen", **options) as client:
        asset = await upload(client, IMAGE, "IMAGE")
    async with client_of("seegen", **options) as client:
        client.sandbox.clock.leap(15)
        assert await get(client, ASSET, assetId=asset["volcAssetId"]) == {**asset, "status": "ACTIVE"}
        assert (await upload(client, IMAGE, "IMAGE"))["assetId"] == asset["assetId"] + 1


@settings(max_examples=10)
@given(st.lists(st.tuples(st.text(max_size=64), st.text(max_size=30)), min_size=1, max_size=10))
async def test_any_name_comes_back_as_it_was_given(files: list[tuple[str, str]]) -> None:
    async with client_of("seegen") as client:
        for name, path in files:
            url = f"https://example.com/{quote(path)}"
            given_back = await upload(client, url, "AUDIO", name=name)
            assert (given_back["name"], given_back["url"]) == (name, url)
            assert (await get(client, ASSETS, limit=1))["items"] == [given_back]
