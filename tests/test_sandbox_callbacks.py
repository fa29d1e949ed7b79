"""Callbacks tell the end of a task to whoever asked, again while nobody hears, and never outside this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from sandbox_client import Client, client_of, until
from seegen_client import UPSCALE, UPSCALE_QUERY, VIDEO_URL, create, created, end, get, query

from runner.sandbox.faults import CATALOGUE

VIDEO = {"prompt": "a cat"}


@dataclass
class Receiver:
    """Hears callbacks: what came, in its order. `statuses` are its answers, the last one for ever."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    heard: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _free: asyncio.Event = field(default_factory=asyncio.Event)

    async def hear(self, request: web.Request) -> web.Response:
        async with self._news:
            self.heard.append((request.path, json.loads(await request.read())))
            self.headers.append(dict(request.headers))
            self._news.notify_all()
        if request.path == "/hang":
            await self._free.wait()
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, headers={"Location": "/followed"} if status == 307 else {})

    async def wait_for(self, number: int) -> list[Any]:
        """The payloads, when there are so many."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.heard) >= number)
        return [payload for _, payload in self.heard]

    async def wait_for_path(self, path: str) -> None:
        async with self._news:
            await self._news.wait_for(lambda: path in [each for each, _ in self.heard])


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    receiver.statuses = list(statuses) or [200]
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", receiver.hear)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = site.name
    try:
        yield receiver
    finally:
        receiver._free.set()
        await runner.cleanup()


async def outcome(client: Client, wanted: str, tries: int | None = None) -> dict[str, Any]:
    """The callback of the one task, once it has come to `wanted`."""

    async def come() -> Any:
        (callback,) = (await client.control("callbacks"))["callbacks"]
        return callback if callback["outcome"] == wanted and tries in (None, callback["tries"]) else None

    return dict(await until(come))


async def deliveries(client: Client) -> list[dict[str, Any]]:
    return [each for each in (await client.control("requests"))["requests"] if each["point"] == "callback"]


async def test_a_callback_says_what_the_status_says() -> None:
    async with receiving() as receiver, client_of("seegen") as client:
        for ending in ("completed", "failed", "moderated"):
            task = await created(client, "sd2", receiver.url + "/nonce", **VIDEO)
            await end(client, task, ending)
            heard = (await receiver.wait_for(len(receiver.heard) + 1))[-1]
            shown = await query(client, task)
            for told in (heard, shown):
                for file in told["output"] or ():
                    file["url"] = file["url"].partition("?")[0]
            assert heard == shown
            assert heard["taskId"] == task
        assert [path for path, _ in receiver.heard] == ["/nonce"] * 3
        assert "Authorization" not in receiver.headers[0]
        assert receiver.headers[0]["Content-Type"] == "application/json"
        assert client.sandbox.observed()["violations"] == []


async def test_a_task_that_ends_by_itself_is_told_too_and_its_file_can_be_had() -> None:
    async with receiving() as receiver, client_of("seegen", speed=100) as client:
        task = await created(client, "sd2", receiver.url, **VIDEO)
        (heard,) = await receiver.wait_for(1)
        assert (heard["taskId"], heard["status"], heard["creditsUsed"]) == (task, "COMPLETED", 200)
        assert (await client.http.get(heard["output"][0]["url"])).status_code == 200
        assert await outcome(client, "delivered", 1)


@pytest.mark.parametrize("url", [VIDEO_URL, "https://example.com/no-credits.mp4"])
async def test_an_upscale_is_told_in_its_own_words(url: str) -> None:
    async with receiving() as receiver, client_of("seegen", speed=100) as client:
        body = {"source": {"type": "url", "url": url}, "targetResolution": "4k", "callBackUrl": receiver.url}
        task = (await client.ask("POST", UPSCALE, json=body)).json()["taskId"]
        (heard,) = await receiver.wait_for(1)
        shown = await get(client, UPSCALE_QUERY, taskId=task)
        for told in (heard, shown):
            if told["result"]:
                told["result"]["url"] = told["result"]["url"].partition("?")[0]
        assert heard == shown
        assert heard["status"] == ("completed" if url == VIDEO_URL else "failed")


async def test_credits_that_are_missing_after_the_probe_are_told() -> None:
    async with receiving() as receiver, client_of("seegen", speed=100) as client:
        await client.control("credits", {"provider": "seegen", "key": client.key, "balance": "1"})
        body = {"source": {"type": "url", "url": VIDEO_URL}, "targetResolution": "4k", "callBackUrl": receiver.url}
        await client.ask("POST", UPSCALE, json=body)
        (heard,) = await receiver.wait_for(1)
        assert heard["error"]["code"] == "INSUFFICIENT_CREDITS"


async def test_a_lost_answer_is_found_by_its_callback() -> None:
    async with receiving() as receiver, client_of("seegen", speed=100) as client:
        await client.fault("lost_answer")
        with pytest.raises(httpx.TransportError):
            await create(client, "sd2", receiver.url + "/nonce-1", **VIDEO)
        (heard,) = await receiver.wait_for(1)
        assert receiver.heard[0][0] == "/nonce-1"
        assert (await query(client, heard["taskId"]))["status"] == "COMPLETED"


async def test_what_is_accepted_late_is_told_too_and_what_is_refused_is_not() -> None:
    async with receiving() as receiver, client_of("seegen", speed=100) as client:
        assert (await create(client, "sd2", receiver.url, prompt="sandbox:refused")).status_code == 400
        await client.fault("late_accept", seconds=10)
        with pytest.raises(httpx.TransportError):
            await create(client, "sd2", receiver.url, **VIDEO)
        (heard,) = await receiver.wait_for(1)
        assert heard["taskId"] == client.books()["tasks"][0]["id"]
        assert len((await client.control("callbacks"))["callbacks"]) == 1


# -- retries -------------------------------------------------------------------------------------------------------


async def test_a_callback_is_tried_again_after_1_5_and_30_seconds_and_then_given_up() -> None:
    async with receiving(500, 307, 404) as receiver, client_of("seegen", speed=50) as client:
        task = await created(client, "sd2", receiver.url, **VIDEO)
        await end(client, task)
        assert (await outcome(client, "failed"))["tries"] == 4
        tried = await deliveries(client)
        assert [each["status"] for each in tried] == [500, 307, 404, 404]
        assert {each["task_id"] for each in tried} == {task}
        assert {each["path"] for each in tried} == {receiver.url}
        gaps = [later["at"] - sooner["at"] for sooner, later in pairwise(tried)]
        assert all(gap >= least for gap, least in zip(gaps, (1, 5, 30), strict=True))
        assert len({json.dumps(payload["taskId"]) for _, payload in receiver.heard}) == 1
        assert {path for path, _ in receiver.heard} == {"/"}, "it followed a redirect"


async def test_a_callback_that_is_heard_is_not_repeated() -> None:
    async with receiving(503, 204) as receiver, client_of("seegen", speed=50) as client:
        await end(client, await created(client, "sd2", receiver.url, **VIDEO))
        await outcome(client, "delivered", 2)
        await client.sandbox.clock.sleep(40)
        assert len(receiver.heard) == 2


async def test_a_receiver_that_is_not_there_or_never_answers_keeps_nobody_waiting() -> None:
    async with receiving() as receiver, client_of("seegen", speed=50) as client:
        async with receiving() as gone:
            nowhere = gone.url
        for url in (nowhere, receiver.url + "/hang", receiver.url + "/nonce"):
            await end(client, await created(client, "sd2", url, **VIDEO))
        await receiver.wait_for_path("/nonce")
        await receiver.wait_for_path("/hang")
        assert len({each["task_id"] for each in await deliveries(client)}) == 3
        (first, *_) = [each for each in await deliveries(client) if each["path"] == nowhere]
        assert first["status"] is None


@pytest.mark.parametrize(
    "url", ["https://relay.example.com/h/nonce", "http://10.1.2.3:80/", "http://169.254.1.1/", "http://[2001:db8::1]/"]
)
async def test_nothing_leaves_this_machine(url: str) -> None:
    async with client_of("seegen") as client:
        await end(client, await created(client, "sd2", url, **VIDEO))
        assert (await outcome(client, "elsewhere"))["tries"] == 0
        assert not client.sandbox.reports.desk.callbacks.waiting.is_set()


async def test_callbacks_outlive_the_sandbox(tmp_path: Path) -> None:
    options: dict[str, Any] = {"state": str(tmp_path / "state.db")}
    async with receiving() as receiver:
        async with client_of("seegen", **options) as client:
            task = await created(client, "sd2", receiver.url, **VIDEO)
        async with client_of("seegen", **options) as client:
            client.sandbox.clock.leap(1000)
            (heard,) = await receiver.wait_for(1)
            assert heard["taskId"] == task
            await outcome(client, "delivered")
        async with client_of("seegen", **options) as client:
            assert not client.sandbox.reports.desk.callbacks.waiting.is_set()


# -- faults --------------------------------------------------------------------------------------------------------


async def struck(client: Client, receiver: Receiver, name: str, **parameters: Any) -> str:
    """A task whose callback meets the fault."""
    await client.fault(name, **parameters)
    task = await created(client, "sd2", receiver.url, **VIDEO)
    await end(client, task)
    return task


async def lost(client: Client, receiver: Receiver) -> None:
    await struck(client, receiver, "callback_lost")
    assert (await outcome(client, "lost"))["tries"] == 0
    assert receiver.heard == []


async def late(client: Client, receiver: Receiver) -> None:
    await struck(client, receiver, "callback_late", seconds=50)
    await receiver.wait_for(1)
    first, second = await deliveries(client)
    assert (first["status"], first["fault"]) == (None, "callback_late")
    assert second["at"] - first["at"] >= 50


async def twice(client: Client, receiver: Receiver) -> None:
    await struck(client, receiver, "callback_twice")
    first, second = await receiver.wait_for(2)
    assert first["taskId"] == second["taskId"]
    await outcome(client, "delivered", 1)


async def forged(client: Client, receiver: Receiver) -> None:
    task = await struck(client, receiver, "callback_forged")
    false, true = await receiver.wait_for(2)
    assert (false["taskId"], true["taskId"]) == ("task_" + "0" * 20, task)


async def forged_result(client: Client, receiver: Receiver) -> None:
    task = await struck(client, receiver, "callback_forged", how="result")
    false, true = await receiver.wait_for(2)
    assert (false["taskId"], true["taskId"]) == (task, task)
    assert (false["status"], true["status"]) == ("FAILED", "COMPLETED")
    assert "impostor" in false["output"][0]["url"]


TRIES = {
    "callback_lost": [lost],
    "callback_late": [late],
    "callback_twice": [twice],
    "callback_forged": [forged, forged_result],
}


@pytest.mark.parametrize("name", sorted(name for name, kind in CATALOGUE.items() if kind.where == "callback"))
async def test_callback_fault(name: str) -> None:
    for tried in TRIES[name]:
        async with receiving() as receiver, client_of("seegen", speed=100) as client:
            await tried(client, receiver)
            assert name in client.sandbox.observed()["faults_fired"]
            assert client.sandbox.observed()["violations"] == []


async def test_a_rate_strikes_callbacks() -> None:
    async with receiving() as receiver, client_of("seegen", faults="seegen.callback_lost=1") as client:
        await end(client, await created(client, "sd2", receiver.url, **VIDEO))
        await outcome(client, "lost")
        assert receiver.heard == []


async def test_a_payload_that_cannot_be_made_is_seen_and_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Sequence[str]:
        raise KeyError("width")

    async with receiving() as receiver, client_of("seegen") as client:
        monkeypatch.setattr("runner.sandbox.providers.seegen.PROVIDER.addresses", broken)
        await end(client, await created(client, "sd2", receiver.url, **VIDEO))
        await outcome(client, "lost")
        (violation,) = client.sandbox.observed()["violations"]
        assert violation["name"] == "sandbox_bug"
