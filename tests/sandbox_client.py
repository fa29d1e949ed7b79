"""A plain client of the pretend providers, for their own tests: it keeps nothing back and mends nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from runner.sandbox import Options, Sandbox, fingerprint, serve

KEY = "sk-test-key-0001"
OTHER_KEY = "sk-test-key-0002"
PROVIDERS = ["seedance2ai", "happyhorse", "seegen"]
PRICE = {"seedance2ai": "30", "happyhorse": "25", "seegen": "200"}  # of a video with all defaults
VIDEO_PATH = {
    "seedance2ai": "/api/v1/video/seedance",
    "happyhorse": "/api/v1/generate",
    "seegen": "/api/v1/jobs/createTask",
}
NEED_A_LIST = ("stale_list", "hidden")  # faults that only a history shows
POLL_PATH = {
    "seedance2ai": "/api/v1/tasks/{}",
    "happyhorse": "/api/v1/videos/{}",
    "seegen": "/api/v1/jobs/queryTask?taskId={}",
}


NO_CERTIFICATES = ssl.SSLContext(
    ssl.PROTOCOL_TLS_CLIENT
)  # nothing here speaks TLS; loading them takes longer than a test


def http_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, verify=NO_CERTIFICATES)


@dataclass
class Client:
    sandbox: Sandbox
    provider: str
    http: httpx.AsyncClient
    key: str = KEY
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}", **self.headers, **more.pop("headers", {})}
        return await self.http.request(method, self.sandbox.base_urls[self.provider] + path, headers=headers, **more)

    async def order(
        self, body: Mapping[str, Any] | None = None, *, path: str = "", key: str | None = None, **more: Any
    ) -> httpx.Response:
        """Submits a video (or whatever `path` renders) under an idempotency key, if one is given."""
        headers = {"Idempotency-Key": key} if key else {}
        body = body or {"prompt": "a cat"}
        if self.provider == "seegen" and not path and "inputs" not in body:
            body = {"model": "sd2", "inputs": body}
        return await self.ask("POST", path or VIDEO_PATH[self.provider], json=body, headers=headers, **more)

    async def ordered(self, body: Mapping[str, Any] | None = None, **more: Any) -> str:
        """The id of a task that was just accepted."""
        answer = await self.order(body, **more)
        assert answer.status_code == 200, answer.text
        return task_id(answer.json())

    async def status(self, task: str) -> Any:
        answer = await self.ask("GET", POLL_PATH[self.provider].format(task))
        assert answer.status_code == 200, answer.text
        data = answer.json()
        if self.provider == "seegen":
            return as_the_others_say(data)
        return data if self.provider == "seedance2ai" else data["data"]

    async def control(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """GET, or POST where there is a body."""
        url = f"{self.sandbox.control}/{path}"
        answer = await (self.http.get(url) if body is None else self.http.post(url, json=body))
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def fault(self, name: str, **more: Any) -> Any:
        return await self.control("faults", {"name": name, "provider": self.provider, **more})

    async def finish(self, task: str, outcome: str = "completed") -> Any:
        await self.control("finish", {"provider": self.provider, "task_id": task, "outcome": outcome})
        return await self.status(task)

    async def result(self) -> str:
        """The URL of a finished video."""
        return url_of(await self.finish(await self.ordered()))

    def books(self) -> Any:
        """The account's part of the ledger: charged, refunded, net, balance, tasks."""
        empty = {"charged": "0", "refunded": "0", "net": "0", "tasks": []}
        provider = self.sandbox.ledger()["providers"].get(self.provider, {"accounts": {}})
        return provider["accounts"].get(fingerprint(self.key), empty)

    def money(self) -> tuple[str, str]:
        return self.books()["charged"], self.books()["refunded"]


def task_id(data: Mapping[str, Any]) -> str:
    inner = data.get("data") or data
    return str(next(inner[name] for name in ("video_id", "image_id", "id", "taskId") if name in inner))


def url_of(shown: Any) -> str:
    return str(shown["video_url"] if "video_url" in shown else shown["output"]["video_url"])


def as_the_others_say(data: Mapping[str, Any]) -> dict[str, Any]:
    """What seegen shows of a task, and beside it what the other providers call the same."""
    words = {"PENDING": "queued", "PROCESSING": "processing", "COMPLETED": "completed", "FAILED": "failed"}
    file = next(iter(data["output"] or ()), {}).get("url")
    status = words.get(data["status"], data["status"])
    return {**data, "id": data["taskId"], "status": status, "credits_used": data["creditsUsed"], "video_url": file}


async def until(question: Callable[[], Awaitable[Any]]) -> Any:
    """The first answer that is true: the sandbox's time goes on by itself, so there is nothing to be told by."""
    while not (answer := await question()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return answer


@asynccontextmanager
async def client_of(provider: str, **options: Any) -> AsyncIterator[Client]:
    """A sandbox of its own and a client for one of its providers."""
    async with serve(Options(**{"seed": "7", **options})) as sandbox, http_client() as http:
        yield Client(sandbox, provider, http)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def charged(client: Client, times: int = 1) -> None:
    assert client.money() == (str(int(PRICE[client.provider]) * times), "0")
    assert len(client.books()["tasks"]) == times


async def failing(client: Client, error: type[httpx.TransportError], **more: Any) -> None:
    with pytest.raises(error):
        await client.order(**more)


async def ended(client: Client, task: str) -> Any:
    """What the task shows at the moment of its end."""
    ends = next(each["finishes_at"] for each in client.books()["tasks"] if each["id"] == task)
    client.sandbox.clock.leap(max(0.0, ends - client.sandbox.clock.now()))
    return await client.status(task)


Try = Callable[[Client], Awaitable[None]]


@dataclass
class Tries:
    """Which test shows which faults to work: every fault must be in it, and fire in it, on every provider."""

    tried: dict[str, list[Try]] = field(default_factory=dict)
    timed: set[Try] = field(default_factory=set)

    def of(self, *names: str, timed: bool = False) -> Callable[[Try], Try]:
        """`timed`: real waiting is part of it, so time runs 200 times as fast."""

        def register(test: Try) -> Try:
            for name in names:
                self.tried.setdefault(name, []).append(test)
            if timed:
                self.timed.add(test)
            return test

        return register

    async def run(self, name: str, provider: str) -> None:
        for tried in self.tried[name]:
            async with client_of(provider, speed=200 if tried in self.timed else 1) as client:
                await tried(client)
                fired = client.sandbox.observed()["faults_fired"]
                assert name in fired or (provider != "happyhorse" and name in NEED_A_LIST), "it did not fire"
                assert client.sandbox.observed()["violations"] == []
