"""The scripts to compare with: they submit, poll and download, and keep nothing that a crash could not take; unless
they are given something that `keep`s each step of a job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from runner.client.sockets import fast_transport, fresh_transport
from tests.bench.queues import AT_ONCE, MOTION, SCENE

BODY = json.dumps({"prompt": f"{SCENE}. {MOTION}", "mode": "text-to-video", "duration": "5"}).encode()
HEADERS = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json"}

Send = Callable[[str, str], Awaitable[httpx.Response]]
Keep = Callable[[int], None]  # told the step of a job that is about to be taken
STEPS = 7  # claimed, brink, accepted, poll claimed, finished, download claimed, completed


def nothing(_step: int) -> None:
    """Keeps nothing."""


async def with_httpx(base_url: str, folder: Path, jobs: int) -> float:
    """What people write: one `httpx.AsyncClient`, many tasks. Seconds."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

        async def send(method: str, url: str) -> httpx.Response:
            return await client.request(method, url, headers=HEADERS, content=BODY if method == "POST" else None)

        return await _all(send, base_url, folder, jobs, nothing)


async def with_our_stack(base_url: str, folder: Path, jobs: int, keep: Keep = nothing) -> float:
    """The transports that runner uses, for what it uses them: each submission on a connection of its own. Seconds."""
    async with httpx.AsyncClient(transport=fast_transport(allow_private=True), trust_env=False, timeout=60) as fast:

        async def send(method: str, url: str) -> httpx.Response:
            if method != "POST":
                return await fast.get(url, headers=HEADERS)
            transport = fresh_transport(allow_private=True)
            async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=60) as fresh:
                return await fresh.post(url, headers=HEADERS, content=BODY)

        return await _all(send, base_url, folder, jobs, keep)


async def _all(send: Send, base_url: str, folder: Path, jobs: int, keep: Keep) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = iter(range(jobs))

    async def work() -> None:
        for number in numbers:
            await _one(send, base_url, folder / f"{number}.mp4", keep)

    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(work() for _ in range(min(AT_ONCE, jobs))))
    return loop.time() - began


async def _one(send: Send, base_url: str, path: Path, keep: Keep) -> None:
    keep(0)
    keep(1)
    task = (await send("POST", f"{base_url}/api/v1/video/seedance")).json()["id"]
    keep(2)
    keep(3)
    status = await _status(send, f"{base_url}/api/v1/tasks/{task}")
    keep(4)
    keep(5)
    found = await send("GET", status["output"]["video_url"])
    path.write_bytes(found.content)
    keep(6)


async def _status(send: Send, url: str) -> Any:
    while True:
        status = (await send("GET", url)).json()
        if status["status"] != "processing":
            return status
