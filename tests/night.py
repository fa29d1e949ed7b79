"""A night of a run, in this process: `runner run --yes` against the sandbox over loopback, with all that it tells a
person; and what goes wrong in nights: a cable that is pulled, a machine that sleeps, a clock that is set."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from rich.console import Console
from scene import VIDEO, Scene, scene, states

from runner import log
from runner.cli import run as command
from runner.cli.app import EVERYDAY
from runner.cli.assembly import RunOptions, read_order
from runner.clock import Clock
from runner.engine import Exit
from runner.jobs import State
from runner.settings import Settings


@dataclass(frozen=True)
class Wall(Clock):
    """A clock that a test may set: `moved` holds by how many of its own seconds it was."""

    moved: list[float] = field(default_factory=list)

    def timestamp(self) -> float:
        return self.anchor + (time.time() - self.anchor) * self.speed + sum(self.moved)


@dataclass
class Night:
    """One batch of `jobs` videos at one provider. `run` is the command, `said` what stood on the screen so far."""

    s: Scene
    provider: str
    jobs: int
    concurrency: int
    wall: Wall
    screen: StringIO
    runs: list[asyncio.Task[Exit]] = field(default_factory=list)

    @property
    def said(self) -> str:
        return self.screen.getvalue()

    def environment(self, key: str = "") -> dict[str, str]:
        name = self.provider.upper().replace("-", "_")
        key = key or self.s.sandbox.keys[self.provider]
        return {f"{name}_API_KEY": key, f"{name}_BASE_URL": self.s.sandbox.base_urls[self.provider]}

    def manifest(self) -> Path:
        path = self.s.folder / "night.yaml"
        path.write_text(
            f"version: 1\nbatch: night\nproviders: {{{self.provider}: {{concurrency: {self.concurrency}}}}}\n"
            f"jobs:\n  fox: {{provider: {self.provider}, model: '{VIDEO[self.provider]}', prompt: a fox, "
            f"takes: {self.jobs}}}\n"
        )
        return path

    async def run(self, *, key: str = "", wait: bool = True, log_file: Path | None = None) -> Exit:
        settings = Settings.read(self.s.folder, self.environment(key))
        options = RunOptions(self.s.db, settings, wait=wait, speed=self.s.clock.speed)
        common = replace(EVERYDAY, no_progress=True)
        with pytest.MonkeyPatch.context() as patch, log.opened(file=log_file):
            patch.setattr(command, "clock_of", self._clock_of)
            return await command.perform(read_order(self.manifest()), options, common, yes=True)

    async def _clock_of(self, _options: RunOptions) -> Clock:
        return self.wall

    def start(self, **options: Any) -> asyncio.Task[Exit]:
        self.runs.append(asyncio.create_task(self.run(**options)))
        return self.runs[-1]

    async def end(self) -> None:
        """What a failed test has left running: cancelled with all else in the loop, it would wait for its own pen."""
        for running in self.runs:
            running.cancel()
        await asyncio.wait([*self.runs, asyncio.create_task(asyncio.sleep(0))])

    async def sleep(self, seconds: float) -> None:
        """The machine sleeps: its monotonic clock stands still, the wall's goes on, and so do the providers."""
        await self.s.control("leap", seconds=seconds)
        self.wall.moved.append(seconds)

    def ordered(self) -> int:
        return len(self.s.tasks(self.provider))

    async def asked(self, after: int = 0) -> list[Mapping[str, Any]]:
        """The requests that the provider has seen, from behind that number."""
        found = await self.s.control(f"requests?limit=100000&provider={self.provider}&after={after}")
        return list(found["requests"])

    async def state(self) -> list[str]:
        return states(await self.s.jobs())

    async def all_is_well(self) -> None:
        """Every job ordered once and paid for once, its file here, the bill the provider's own."""
        jobs = await self.s.jobs()
        assert [(job.standing.state, job.standing.attempts) for job in jobs] == [(State.SUCCEEDED, 1)] * self.jobs
        assert self.ordered() == self.jobs
        assert len(list((self.s.folder / "renders").rglob("*.mp4"))) == self.jobs
        await self.bill_agrees()

    async def bill_agrees(self) -> None:
        assert sum(job.charged - job.refunded for job in await self.s.jobs()) == self.s.net(self.provider)


@asynccontextmanager
async def night(
    folder: Path, provider: str, *, jobs: int = 6, concurrency: int = 4, speed: float = 600.0, **options: Any
) -> AsyncIterator[Night]:
    async with scene(folder, speed=speed, **options) as s:
        wall = Wall(speed, s.clock.anchor)
        s.clock = wall
        screen = StringIO()
        console = Console(file=screen, markup=False, highlight=False, emoji=False, width=1000)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log, "console", lambda: console)
            n = Night(s, provider, jobs, concurrency, wall, screen)
            try:
                yield n
            finally:
                await n.end()


@dataclass(eq=False)
class Cable:
    """Between us and a provider. `pull`: nobody gets through, and connections are refused; `fall_asleep`: what is open
    now stays open, and nothing comes through it any more."""

    host: str
    to: int
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _deaf: set[asyncio.StreamWriter] = field(default_factory=set)

    async def plug(self) -> None:
        self._server = await asyncio.start_server(self._carry, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def pull(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def fall_asleep(self) -> None:
        self._deaf |= self._writers

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        back, forth = await asyncio.open_connection(self.host, self.to)
        both = {writer, forth}
        self._writers |= both
        try:
            await asyncio.gather(self._pour(reader, forth), self._pour(back, writer))
        except OSError:
            pass
        finally:
            for each in both:
                each.transport.abort()
            self._writers -= both
            self._deaf -= both

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if writer not in self._deaf:
                writer.write(data)
                await writer.drain()
        if writer not in self._deaf:
            writer.close()


@asynccontextmanager
async def cable(s: Scene, provider: str) -> AsyncIterator[Cable]:
    """The scene's provider is reached by this cable meanwhile."""
    honest = s.sandbox
    address = urlsplit(honest.base_urls[provider])
    made = Cable(address.hostname or "", address.port or 0)
    await made.plug()
    s.sandbox = replace(
        honest, base_urls={**honest.base_urls, provider: f"http://{made.host}:{made.port}{address.path}"}
    )
    try:
        yield made
    finally:
        s.sandbox = honest
        await made.pull()
