"""An order is paid for while the database is away: its task id is kept, stored when the database is back, and told
where that does not come to pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from liar import Lie, Said, liar
from proxy import Way, way_to
from scene import Scene, scene, states, until
from store.kit import fall_silent
from structlog.testing import CapturingLogger

from runner.engine import Exit
from runner.errors import Unstored
from runner.jobs import State
from runner.lifecycle import accepting
from runner.store import again, store
from runner.store.brink import Brink

LIMIT = 10.0  # wall seconds within which the first signal ends a run


@asynccontextmanager
async def night(folder: Path, database: str, **options: Any) -> AsyncIterator[tuple[Scene, Way]]:
    async with way_to(database) as way, scene(folder, **options) as s:
        s.db = way.url
        yield s, way


def away_from(way: Way, orders: int) -> Lie:
    """The database is away from the moment in which the last of so many orders is answered."""
    answered: list[Said] = []

    def lie(said: Said) -> Said | None:
        if said.method == "POST":
            answered.append(said)
            if len(answered) == orders:
                way.close()
        return None

    return lie


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    logger = CapturingLogger()
    monkeypatch.setattr(accepting, "log", logger)
    monkeypatch.setattr(accepting, "TELL_AFTER", 0.1)
    return logger


def ids(told: CapturingLogger, level: str) -> list[str]:
    return sorted(call.kwargs["task_id"] for call in told.calls if call.method_name == level)


@pytest.mark.parametrize(("provider", "orders"), [("happyhorse", 1), ("seedance2ai", 3)])
async def test_its_id_is_stored_when_the_database_is_back(
    tmp_path: Path, postgres_database: str, told: CapturingLogger, provider: str, orders: int
) -> None:
    async with night(tmp_path, postgres_database) as (s, way):
        for number in range(orders):
            s.ask(provider, f"paid while away {number}", duration=5)
        async with liar(s, provider, away_from(way, orders)) as proxy:
            running = asyncio.create_task(s.run())
            await until(lambda: bool(told.calls))
            assert not running.done()
            way.open()
            assert await running is Exit.DONE
            assert proxy.count("POST") == orders
        tasks = sorted(task["id"] for task in s.tasks(provider))
        assert sorted(job.standing.task_id or "" for job in await s.jobs()) == tasks
        assert set(ids(told, "warning")) <= set(tasks)
        assert ids(told, "error") == []
        assert sum(job.charged - job.refunded for job in await s.jobs()) == s.net(provider)


@pytest.mark.parametrize("provider", ["happyhorse", "seedance2ai"])
async def test_its_id_is_told_when_the_run_must_end_before(
    tmp_path: Path, postgres_database: str, told: CapturingLogger, provider: str
) -> None:
    async with night(tmp_path, postgres_database) as (s, way):
        s.ask(provider, "paid while away", duration=5)
        async with liar(s, provider, away_from(way, 1)) as proxy:
            async with s.engine() as engine:
                running = asyncio.create_task(engine.run())
                await until(lambda: bool(told.calls))
                began = time.monotonic()
                engine.stop.set()
                with pytest.raises(Unstored) as said:
                    await running
            assert time.monotonic() - began < LIMIT
            [task] = s.tasks(provider)
            assert f"--adopt {task['id']}" in said.value.hint
            assert task["id"] in said.value.message
            assert ids(told, "error") == [task["id"]]
            way.open()
            await fall_silent(postgres_database)
            assert await s.run() is Exit.DONE, "the next run finds it by its key, or in the history"
            assert proxy.count("POST") == (1 if provider == "happyhorse" else 2)
        [job] = await s.jobs()
        assert job.standing.task_id == task["id"]
        assert len(s.tasks(provider)) == 1


async def test_the_first_signal_ends_a_run_that_waits_for_its_database(
    tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = CapturingLogger()
    monkeypatch.setattr(again, "log", away)
    async with night(tmp_path, postgres_database, render=3600) as (s, way):
        s.ask("happyhorse", "takes long", duration=5)
        async with s.engine() as engine:
            running = asyncio.create_task(engine.run())
            await until(lambda: any(tally.of(State.RUNNING) for tally in engine.tallies))
            way.close()
            await until(lambda: bool(away.calls))
            began = time.monotonic()
            engine.stop.set()
            await running
            assert time.monotonic() - began < LIMIT
        way.open()
        assert len(s.tasks("happyhorse")) == 1


@pytest.mark.parametrize("back", ["soon", "late", "too late for the order"])
async def test_nothing_is_sent_while_its_brink_is_not_certain(
    tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch, back: str
) -> None:
    """Soon: the order goes out a little later. Late: its lease may be gone, so it is not sent, and made anew."""
    async with night(tmp_path, postgres_database) as (s, way):
        s.ask("happyhorse", "on the brink", duration=5)
        async with liar(s, "happyhorse", lambda _said: None) as proxy, s.engine() as engine:
            mark, marking = engine.store.mark_brink, []

            async def while_away(brink: Brink) -> None:
                if not marking:
                    way.cut("after", shut=True)
                marking.append(brink)
                monkeypatch.setattr(store, "BRINK_SECONDS", 0.0 if back == "late" and len(marking) == 1 else 10.0)
                await mark(brink)

            monkeypatch.setattr(engine.store, "mark_brink", while_away)
            running = asyncio.create_task(engine.run())
            await until(lambda: bool(way.cuts))
            await asyncio.sleep(3.0 if back == "too late for the order" else 0.1)  # at this speed it has two seconds
            assert proxy.count("POST") == 0
            assert s.tasks("happyhorse") == []
            way.open()
            assert await running is Exit.DONE
            assert len(marking) > 1 or back == "soon"
        [task] = s.tasks("happyhorse")
        [job] = await s.jobs()
        assert (job.standing.task_id, job.standing.attempts) == (task["id"], 1)
        assert states([job]) == ["succeeded"]
        assert job.charged - job.refunded == s.net("happyhorse")
