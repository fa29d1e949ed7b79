"""The scripts to compare with: they submit, poll and download, and keep nothing that a crash could not take."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from runner.client.sockets import fast_transport, fresh_transport
from tests.bench.queues import AT_ONCE, MOTION, SCENE

BODY = json.dumps({"prompt": f"{SCENE}. {MOTION}", "mode": "text-to-video", "duration": "5"}).encode()
HEADERS = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json"}

Send = Callable[[str, str], Awaitable[httpx.Response]]


async def with_httpx(base_url: str, folder: Path, jobs: int) -> float:
    """What people write: one `httpx.AsyncClient`, many tasks. Seconds."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

        async def send(method: str, url: str) -> httpx.Response:
            return await client.request(method, url, headers=HEADERS, content=BODY if method == "POST" else None)

        return await _all(send, base_url, folder, jobs)


async def with_our_stack(base_url: str, folder: Path, jobs: int) -> float:
    """The transports that runner uses, for what it uses them: each submission on a connection of its own. Seconds."""
    async with httpx.AsyncClient(transport=fast_transport(allow_private=True), trust_env=False, timeout=60) as fast:

        async def send(method: str, url: str) -> httpx.Response:
            if method != "POST":
                return await fast.get(url, headers=HEADERS)
            transport = fresh_transport(allow_private=True)
            async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=60) as fresh:
                return await fresh.post(url, headers=HEADERS, content=BODY)

        return await _all(send, base_url, folder, jobs)


async def _all(send: Send, base_url: str, folder: Path, jobs: int) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = iter(range(jobs))

    async def work() -> None:
        for number in numbers:
            await _one(send, base_url, folder / f"{number}.mp4")

    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(work() for _ in range(min(AT_ONCE, jobs))))
    return loop.time() - began


async def _one(send: Send, base_url: str, path: Path) -> None:
    task = (await send("POST", f"{base_url}/api/v1/video/seedance")).json()["id"]
    status = {"status": "processing"}
    while status["status"] == "processing":
        status = (await send("GET", f"{base_url}/api/v1/tasks/{task}")).json()
    found = await send("GET", status["output"]["video_url"])  # type: ignore[index]
    path.write_bytes(found.content)
