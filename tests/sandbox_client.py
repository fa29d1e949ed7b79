"""A plain client of the pretend providers, for their own tests: it keeps nothing back and mends nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import pytest

from runner.sandbox import Options, Sandbox, fingerprint, serve
from runner.sandbox.credits import micros, text

KEY = "sk-test-key-0001"
OTHER_KEY = "sk-test-key-0002"
NEED_A_LIST = ("stale_list", "hidden")  # faults that only a history shows


@dataclass(frozen=True)
class Way:
    """How a provider is spoken to, where a test is of all of them. `price`: of a video with all defaults.

    `errors`: what it says with which HTTP status; `words`: what it calls the ends of a task.
    """

    video_path: str
    poll_path: str
    price: str
    errors: Mapping[str, tuple[int, str | int]]
    words: Mapping[str, str | int] = field(default_factory=lambda: {"completed": "completed", "failed": "failed"})
    body: Mapping[str, Any] = field(default_factory=dict)  # what a video needs besides its prompt
    nest: str = ""  # the object of the body in which the prompt stands
    key_header: str | None = None
    lists: bool = False
    refunds: bool = True


WAYS = {
    "seedance2ai": Way(
        "/api/v1/video/seedance",
        "/api/v1/tasks/{}",
        "30",
        {
            "internal": (500, "internal_error"),
            "unavailable": (503, "service_busy"),
            "rate_limited": (429, "rate_limited"),
            "unauthorized": (401, "unauthorized"),
            "not_found": (404, "not_found"),
            "refused": (400, "invalid_request"),
        },
        key_header="Idempotency-Key",
    ),
    "happyhorse": Way(
        "/api/v1/generate",
        "/api/v1/videos/{}",
        "25",
        {
            "internal": (500, "internal_error"),
            "unavailable": (503, "upstream_error"),
            "rate_limited": (429, "rate_limit_exceeded"),
            "unauthorized": (401, "unauthorized"),
            "not_found": (404, "not_found"),
            "refused": (400, "validation_error"),
        },
        lists=True,
    ),
    "seedhorse": Way(
        "/api/v1/task/generate",
        "/api/v1/query/{}",
        "38",
        {
            "internal": (200, 10001),
            "unavailable": (200, 50002),
            "rate_limited": (429, 10001),
            "unauthorized": (200, 20008),
            "not_found": (200, 40002),
            "refused": (200, 50015),
        },
        words={"completed": 2, "failed": 3, "cancelled": 5, "review": 4},
        body={"model": "Seedance 2.0", "taskName": "a task", "type": "img_txt"},
        key_header="X-Idempotency-Key",
        refunds=False,
    ),
    "seedhorse-video": Way(
        "/api/v1/video/generate",
        "/api/v1/video/task/{}",
        "37.5",
        {
            "internal": (500, "internal_error"),
            "unavailable": (503, "service_unavailable"),
            "rate_limited": (429, "rate_limited"),
            "unauthorized": (401, "unauthorized"),
            "not_found": (404, "not_found"),
            "refused": (400, "content_moderated"),
        },
        words={"completed": "succeeded", "failed": "failed"},
        body={"model": "seedance-2.0"},
    ),
    "seegen": Way(
        "/api/v1/jobs/createTask",
        "/api/v1/jobs/queryTask?taskId={}",
        "200",
        {
            "internal": (500, "internal_error"),
            "unavailable": (503, "service_unavailable"),
            "rate_limited": (429, "concurrency_limit_reached"),
            "unauthorized": (401, "unauthorized"),
            "not_found": (404, ""),
            "refused": (400, "invalid_parameters"),
        },
        words={"completed": "COMPLETED", "failed": "FAILED", "processing": "PROCESSING"},
        body={"model": "sd2"},
        nest="inputs",
    ),
}
PROVIDERS = list(WAYS)


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

    @property
    def way(self) -> Way:
        return WAYS[self.provider]

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}", **self.headers, **more.pop("headers", {})}
        return await self.http.request(method, self.sandbox.base_urls[self.provider] + path, headers=headers, **more)

    async def order(
        self, body: Mapping[str, Any] | None = None, *, path: str = "", key: str | None = None, **more: Any
    ) -> httpx.Response:
        """Submits a video (or whatever `path` renders) under an idempotency key, if one is given."""
        headers = {self.way.key_header or "Idempotency-Key": key} if key else {}
        given = body or {"prompt": "a cat"}
        nested = self.way.nest and not path and self.way.nest not in given
        whole = {**({} if path else self.way.body), **({self.way.nest: given} if nested else given)}
        return await self.ask("POST", path or self.way.video_path, json=whole, headers=headers, **more)

    async def ordered(self, body: Mapping[str, Any] | None = None, **more: Any) -> str:
        """The id of a task that was just accepted."""
        answer = await self.order(body, **more)
        assert answer.status_code == 200, answer.text
        return task_id(answer.json())

    async def status(self, task: str) -> Any:
        answer = await self.ask("GET", self.way.poll_path.format(task))
        assert answer.status_code == 200, answer.text
        data = answer.json()
        return data.get("data") or data

    async def look(self, task: str) -> Seen:
        return seen(self.way, await self.status(task))

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

    async def finished(self, task: str, outcome: str = "completed") -> Seen:
        return seen(self.way, await self.finish(task, outcome))

    def cost(self, share: str = "1") -> str:
        """So much of a video's price, as the ledger writes it."""
        return text(micros(Decimal(self.way.price) * Decimal(share)))

    def books(self) -> Any:
        """The account's part of the ledger: charged, refunded, net, balance, tasks."""
        empty = {"charged": "0", "refunded": "0", "net": "0", "tasks": []}
        provider = self.sandbox.ledger()["providers"].get(self.provider, {"accounts": {}})
        return provider["accounts"].get(fingerprint(self.key), empty)

    def money(self) -> tuple[str, str]:
        return self.books()["charged"], self.books()["refunded"]


def task_id(data: Mapping[str, Any]) -> str:
    inner = data.get("data") or data
    return str(next(inner[name] for name in ("video_id", "image_id", "taskId", "id") if name in inner))


def url_of(shown: Any) -> str:
    """Of a finished video; "" where there is none."""
    if "results" in shown:
        return str(next((result["fileUrl"] for result in shown["results"]), ""))
    if isinstance(shown.get("output"), list):
        return str(next((file["url"] for file in shown["output"]), ""))
    return (shown["output"]["video_url"] if "output" in shown else shown["video_url"]) or ""


@dataclass(frozen=True)
class Seen:
    """A status answer of any provider. `state`: completed, failed … or the provider's own word; `used`: None if untold;
    `error`: all that it says about a failure.
    """

    id: str
    state: str | int
    used: Decimal | None
    error: str
    shown: Any


def seen(way: Way, shown: Any) -> Seen:
    word = shown["taskStatus"] if "taskStatus" in shown else shown["status"]
    state = next((name for name, known in way.words.items() if known == word), word)
    return Seen(task_id(shown), state, _used(shown), str(shown.get("failReason") or shown.get("error")), shown)


def _used(shown: Any) -> Decimal | None:
    if "credits_charged" in shown:
        return Decimal(str(shown["credits_charged"])) - Decimal(str(shown["credits_refunded"]))
    used = shown.get("credits_used", shown.get("creditsUsed"))
    return None if used is None else Decimal(str(used))


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


def error_of(answer: httpx.Response) -> tuple[int, str | int]:
    data = answer.json()
    error = data.get("error", data)
    return answer.status_code, error.get("code", "") if isinstance(error, dict) else error


def charged(client: Client, times: int = 1) -> None:
    assert client.money() == (client.cost(str(times)), "0")
    assert len(client.books()["tasks"]) == times


async def failing(client: Client, error: type[httpx.TransportError], **more: Any) -> None:
    with pytest.raises(error):
        await client.order(**more)


async def ended(client: Client, task: str) -> Seen:
    """What the task shows at the moment of its end."""
    ends = next(each["finishes_at"] for each in client.books()["tasks"] if each["id"] == task)
    client.sandbox.clock.leap(max(0.0, ends - client.sandbox.clock.now()))
    return await client.look(task)


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
                assert name in fired or (not WAYS[provider].lists and name in NEED_A_LIST), "it did not fire"
                assert client.sandbox.observed()["violations"] == []
