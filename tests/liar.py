"""A proxy before the sandbox that may lie: what a provider says passes through a `Lie` on its way to us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
from aiohttp import web
from scene import Scene

NOT_PASSED_ON = frozenset({"host", "content-length", "transfer-encoding", "connection", "server"})


@dataclass(frozen=True, slots=True)
class Said:
    """One request, and what the sandbox answered it: `path` with its query, `asked` the request's own headers."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    asked: Mapping[str, str]


Lie = Callable[[Said], Said | None]


@dataclass(slots=True)
class Liar:
    """Notes every request that passed, so that a test can count them."""

    seen: list[Said] = field(default_factory=list)

    def count(self, method: str, part: str = "") -> int:
        return sum(1 for said in self.seen if said.method == method and part in said.path)


@asynccontextmanager
async def liar(
    scene: Scene, provider: str, lie: Lie | None = None, aliases: Mapping[str, str] | None = None
) -> AsyncIterator[Liar]:
    """The scene's provider is reached through here meanwhile; `lie` gives the answer to tell instead, or None for the
    truth. `aliases`: further keys of an account, and the one by which the sandbox knows it."""
    proxy, honest = Liar(), scene.sandbox
    upstream = honest.base_urls[provider]
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{rest:.*}", _handler(proxy, session, upstream, lie, aliases or {}))
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        _, port = runner.addresses[0]
        scene.sandbox = replace(honest, base_urls={**honest.base_urls, provider: f"http://127.0.0.1:{port}"})
        try:
            yield proxy
        finally:
            scene.sandbox = honest
            await runner.cleanup()


def _handler(
    proxy: Liar, session: aiohttp.ClientSession, upstream: str, lie: Lie | None, aliases: Mapping[str, str]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        headers = _passed_on(request.headers)
        if (bearer := headers.get("Authorization", "").removeprefix("Bearer ")) in aliases:
            headers["Authorization"] = f"Bearer {aliases[bearer]}"
        url = upstream + request.path_qs
        async with session.request(request.method, url, data=body or None, headers=headers) as answer:
            said = Said(request.method, request.path_qs, answer.status, _passed_on(answer.headers),
                        await answer.read(), dict(request.headers))  # fmt: skip
        proxy.seen.append(said)
        told = (lie(said) if lie is not None else None) or said
        return web.Response(status=told.status, headers=told.headers, body=told.body)

    return handle


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in NOT_PASSED_ON}
