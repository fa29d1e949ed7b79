"""What the tests of the pretend seegen share: orders as its document writes them, assets that are ready."""

from __future__ import annotations

from typing import Any

import httpx
from sandbox_client import Client

CREATE, QUERY = "/api/v1/jobs/createTask", "/api/v1/jobs/queryTask"
UPSCALE, UPSCALE_QUERY = "/api/v1/upscale/create", "/api/v1/upscale/query"
UPLOAD, ASSET, ASSETS = "/api/v1/assets/upload", "/api/v1/assets/status", "/api/v1/assets/list"
CREDITS = "/api/v1/account/credits"
IMAGE, SOUND = "https://example.com/photo.jpg", "https://example.com/song-8s.mp3"
VIDEO_URL = "https://example.com/clip-7s.mp4"


async def create(client: Client, model: str, callback: str | None = None, **inputs: Any) -> httpx.Response:
    body = {"model": model, "inputs": inputs, **({"callBackUrl": callback} if callback else {})}
    return await client.ask("POST", CREATE, json=body)


async def created(client: Client, model: str, callback: str | None = None, **inputs: Any) -> str:
    answer = await create(client, model, callback, **inputs)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["taskId"]
    return str(answer.json()["taskId"])


async def get(client: Client, path: str, **query: Any) -> Any:
    answer = await client.ask("GET", path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def query(client: Client, task: str) -> Any:
    return await get(client, QUERY, taskId=task)


async def upload(client: Client, url: str, kind: str = "VIDEO", **more: Any) -> Any:
    answer = await client.ask("POST", UPLOAD, json={"url": url, "type": kind, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ready(client: Client, url: str, kind: str = "VIDEO") -> str:
    """The asset:// name of an asset whose review is over."""
    asset = await upload(client, url, kind)
    client.sandbox.clock.leap(15)
    assert (await get(client, ASSET, assetId=asset["assetId"]))["status"] == "ACTIVE"
    return f"asset://{asset['volcAssetId']}"


async def end(client: Client, task: str, outcome: str = "completed") -> None:
    await client.control("finish", {"provider": "seegen", "task_id": task, "outcome": outcome})


async def balance(client: Client) -> tuple[int, int]:
    shown = await get(client, CREDITS)
    assert set(shown) == {"credits", "availableCredits"}
    return shown["credits"], shown["availableCredits"]
