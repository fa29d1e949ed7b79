"""A whole run in one process: the sandbox over real loopback HTTP, a real queue file, real downloads."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from runner.client.asking import Line
from runner.client.fetching import Fetcher
from runner.clock import Clock
from runner.engine import Engine, Exit, Lane
from runner.lifecycle.desk import Desk
from runner.providers import registry
from runner.providers.compose import compose
from runner.providers.description import Reference
from runner.sandbox import Options, Sandbox, serve
from runner.settings import Credentials, Secret, fingerprint
from runner.store import Store, facts, open_store
from runner.store.enqueue import AccountSettings, NewBatch, NewJob, enqueue, save_accounts
from runner.store.queries import stream
from runner.store.work import Work

VIDEO = {
    "happyhorse": "doubao-seedance-2-0",
    "seedance2ai": "seedance",
    "seedhorse": "Seedance 2.0",
    "seedhorse-video": "seedance-2.0",
    "seegen": "sd2",
}


@dataclass
class Scene:
    """`ask` adds jobs, `run` works until the run ends by itself, `jobs` tells where they stand."""

    folder: Path
    sandbox: Sandbox
    clock: Clock
    db: str
    concurrency: int = 4
    keys: dict[str, str] = field(default_factory=dict)
    orders: list[NewJob] = field(default_factory=list)
    budget: dict[str, Decimal] = field(default_factory=dict)
    windows: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    exclusive: bool = False
    leave: bool = False
    callback_url: str | None = None

    def ask(
        self,
        provider: str,
        prompt: str,
        *,
        model: str | None = None,
        files: Mapping[str, Path] | None = None,
        urls: Sequence[Mapping[str, Any]] = (),
        **more: Any,
    ) -> None:
        """One more video job (or of another model); `files`: role → a local file below the folder; `urls`: further
        references, as a spec has them."""
        model = model or VIDEO[provider]
        fields = {"prompt": prompt, **more} if prompt else more
        pinned = [*(_pinned(self.folder, role, path) for role, path in (files or {}).items()), *urls]
        references = [Reference(p["role"], p["url"], p.get("path"), p.get("review", False)) for p in pinned]
        composed = compose(registry()[provider], model, fields, references)
        assert not composed.faults, composed.faults
        spec = json.dumps({"fields": fields, "params": {}, "references": pinned}, default=str)
        number = len(self.orders)
        self.orders.append(
            NewJob(
                f"{number:064x}", "job", 1, provider, provider, composed.model, composed.shape, spec, "{}",
                f"out/{provider}-{number}.{composed.extension}", "m.yaml", 0,
                composed.price.high if composed.price else None,
                any(registry()[provider].must_register(registry()[provider].model(model), r) for r in references),
            )
        )  # fmt: skip

    @asynccontextmanager
    async def engine(self, **options: Any) -> AsyncIterator[Engine]:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(self.db, self.clock, own=True))
            lanes = [await self._lane(stack, store, name) for name in sorted({o.account for o in self.orders})]
            batch = NewBatch("scene", str(self.folder), str(self.folder), "", "", self.budget)
            added = await store.write(enqueue, store.clock.now(), batch, self.orders)
            for lane in lanes:
                lane.batch_ids = [added.batch_id]
            yield Engine(store, lanes, [added.batch_id], **options)

    async def run(self, **options: Any) -> Exit:
        async with self.engine(**options) as engine:
            return await engine.run()

    async def jobs(self) -> list[Work]:
        from runner.store import read_store

        async with read_store(self.db, self.clock) as store:
            return await store.read(_all)

    async def control(self, what: str, **body: Any) -> Any:
        """The sandbox's door for tests."""
        async with httpx.AsyncClient() as client:
            url = f"{self.sandbox.control}/{what}"
            answer = await (client.post(url, json=body) if body else client.get(url))
            assert answer.status_code < 300, answer.text
            return answer.json()

    async def fault(self, provider: str, name: str, times: int = 1, **more: Any) -> None:
        await self.control("faults", provider=provider, name=name, times=times, **more)

    def net(self, provider: str) -> Decimal:
        """What the sandbox itself says was spent there."""
        return Decimal(self.sandbox.ledger()["providers"][provider]["net"])

    def tasks(self, provider: str) -> list[Mapping[str, Any]]:
        accounts = self.sandbox.ledger()["providers"].get(provider, {"accounts": {}})["accounts"]
        return [task for account in accounts.values() for task in account["tasks"]]

    async def _lane(self, stack: AsyncExitStack, store: Store, name: str) -> Lane:
        provider = registry()[name]
        key = Secret(self.keys.get(name, self.sandbox.keys[name]))
        credentials = Credentials(name, name, key, self.sandbox.base_urls[name], True)
        mark = fingerprint(key, await store.read(facts.salt))
        interval, timeout = timedelta(seconds=5), timedelta(hours=6)
        windows = self.windows.get(name, provider.windows)
        settings = AccountSettings(name, name, mark, self.concurrency, windows, interval, timeout, False)
        await store.write(save_accounts, [settings])
        line = await stack.enter_async_context(Line(credentials, self.clock))
        fetcher = await stack.enter_async_context(Fetcher(allow_private=True))
        desk = Desk(name, provider, line, fetcher, store, self.clock, mark, interval, timeout)
        desk.exclusive, desk.leave, desk.callback_url = self.exclusive, self.leave, self.callback_url
        return Lane(desk)


@asynccontextmanager
async def scene(folder: Path, *, speed: float = 120.0, render: float = 20.0, **options: Any) -> AsyncIterator[Scene]:
    anchor = time.time()
    async with serve(
        Options(speed=speed, anchor=anchor, seed="7", render=render, fast_disk=True, **options)
    ) as sandbox:
        yield Scene(folder, sandbox, Clock(speed, anchor), str(folder / "runner.db"))


def _all(connection: Any) -> list[Work]:
    return list(stream(connection))


def _pinned(folder: Path, role: str, path: Path) -> dict[str, str]:
    from runner.references import inspect, placeholder

    local = inspect(path)
    return {
        "role": role, "url": placeholder(local.sha256, local.media_type), "path": str(path.relative_to(folder)),
        "sha256": local.sha256, "file": str(local.path),
    }  # fmt: skip


def states(works: Sequence[Work]) -> list[str]:
    return [work.standing.state.value for work in works]


async def until(condition: Callable[[], bool]) -> None:
    """Waits until the condition holds; the test's own timeout is its limit."""
    while not condition():  # noqa: ASYNC110  # what is waited for is another process's or the engine's doing
        await asyncio.sleep(0.01)
