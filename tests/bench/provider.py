"""The least provider that will do, for measuring what asks it: `python -m tests.bench.provider`. It speaks the dialect
of seedance2ai, keeps nothing but counters, and spends as little time as Python allows.

    POST /api/v1/video/seedance   {"id"}                GET /media/{name}   a small video
    GET  /api/v1/tasks/{id}       {"status", …}         GET /big            a large one; ?cut=N breaks off once after N
    GET  /counted                 what was asked        GET /paced?rate=N   … at N bytes a second
    GET  /reset                   … from here on                            bytes, `If-Range` as if always true
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import time
from collections.abc import Iterator
from importlib import resources
from itertools import count
from pathlib import Path

from aiohttp import web

PIECE = 1 << 20


def video(length: int) -> Iterator[bytes]:
    """A playable video, padded to about `length` bytes by a box that players skip."""
    clip = resources.files("runner.sandbox").joinpath("media", "clip.mp4").read_bytes()
    padding = max(0, length - len(clip) - 8)
    yield clip + struct.pack(">I4s", 8 + padding, b"free")
    block = bytes(range(256)) * 4096
    while padding > 0:
        yield block[: min(padding, len(block))]
        padding -= len(block)


def write_video(path: Path, length: int) -> None:
    with path.open("wb") as file:
        file.writelines(video(length))


class Provider:
    def __init__(self, polls: int, media: bytes, big: Path | None) -> None:
        self._polls, self._media, self._big = polls, media, big
        self._ids = count(1)
        self._etag = '"of-the-one-file"'
        self._reset()

    def _reset(self) -> None:
        self._asked: dict[str, int] = {}
        self._submits = self._downloads = self._polled = self._bytes = 0
        self._first_poll_at: float | None = None
        self._cut = False

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/video/seedance", self.submit), web.get("/api/v1/tasks/{id}", self.poll),
            web.get("/media/{name}", self.media), web.get("/big", self.big), web.get("/paced", self.paced),
            web.get("/counted", self.counted), web.get("/reset", self.reset),
        ]  # fmt: skip

    async def submit(self, request: web.Request) -> web.Response:
        await request.read()
        self._submits += 1
        return web.json_response({"id": f"new-{next(self._ids)}"})

    async def poll(self, request: web.Request) -> web.Response:
        task = request.match_info["id"]
        self._first_poll_at = self._first_poll_at or time.time()
        self._polled += 1
        if self._polls:
            self._asked[task] = self._asked.get(task, 0) + 1
        if not self._polls or self._asked[task] < self._polls:
            return web.json_response({"id": task, "status": "processing"})
        url = f"http://{request.host}/media/{task}.mp4"
        return web.json_response({"id": task, "status": "completed", "output": {"video_url": url}, "credits_used": 10})

    async def media(self, _request: web.Request) -> web.Response:
        self._downloads += 1
        return web.Response(body=self._media, content_type="video/mp4", headers={"ETag": self._etag})

    async def big(self, request: web.Request) -> web.StreamResponse:
        """By the kernel where all is asked for; in pieces where it is cut, or where the rest of one is asked for."""
        assert self._big is not None
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        cut = int(request.query.get("cut", 0))
        if not cut and not start:
            return web.FileResponse(self._big)
        if cut and not self._cut:
            self._cut = True
            return await self._pieces(request, start, stop=cut)
        return await self._pieces(request, start)

    async def paced(self, request: web.Request) -> web.StreamResponse:
        return await self._pieces(request, 0, rate=float(request.query["rate"]))

    async def _pieces(self, request: web.Request, start: int, *, stop: int = 0, rate: float = 0) -> web.StreamResponse:
        assert self._big is not None
        size = self._big.stat().st_size
        headers = {"ETag": self._etag, "Content-Length": str(size - start), "Content-Type": "video/mp4"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        answer = web.StreamResponse(status=206 if start else 200, headers=headers)
        await answer.prepare(request)
        with self._big.open("rb") as file:
            file.seek(start)
            while piece := file.read(min(PIECE, stop - file.tell()) if stop else PIECE):
                await answer.write(piece)
                self._bytes += len(piece)
                await asyncio.sleep(len(piece) / rate if rate else 0)
        if stop and request.transport is not None:
            request.transport.close()  # what was written still leaves, the rest never does
        return answer

    async def counted(self, _request: web.Request) -> web.Response:
        return web.json_response({
            "submits": self._submits, "polls": self._polled, "downloads": self._downloads, "bytes": self._bytes,
            "first_poll_at": self._first_poll_at,
        })  # fmt: skip

    async def reset(self, _request: web.Request) -> web.Response:
        self._reset()
        return web.json_response({})


async def serve(polls: int, media_bytes: int, big: Path | None) -> None:
    app = web.Application()
    app.add_routes(Provider(polls, b"".join(video(media_bytes)), big).routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"base_url": f"http://{host}:{port}"}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--polls", type=int, default=1)
    parser.add_argument("--media-bytes", type=int, default=20_000)
    parser.add_argument("--big", type=Path)
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.polls, chosen.media_bytes, chosen.big))
