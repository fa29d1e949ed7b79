"""When a run ends, and with what code: a run that cannot move ends, and one that can goes on."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene import Scene, scene, states, until

from runner.cli import assembly
from runner.cli.assembly import RunOptions, prepared, read_order
from runner.engine import Engine, Exit
from runner.engine.ending import PRECEDENCE, Hindrances, Tally, moving, verdict
from runner.jobs import SETTLED, State
from runner.settings import Settings
from runner.store import open_store, read_store
from runner.store.enqueue import NewBatch, enqueue
from runner.store.queries import account_rows, counts

LIMIT = 8.0  # wall seconds: a run that should have ended long ago
MANIFEST = """\
version: 1
batch: b
jobs:
  a: {provider: happyhorse, model: doubao-seedance-2-0, prompt: one fox, duration: 5}
"""


def settings_of(s: Scene, *names: str) -> Settings:
    environment: dict[str, str] = {}
    for name in names:
        environment[f"{name.upper()}_API_KEY"] = s.sandbox.keys[name]
        environment[f"{name.upper()}_BASE_URL"] = s.sandbox.base_urls[name]
    return Settings.read(s.folder, environment)


# R5


async def test_no_wait_goes_on_when_a_person_has_topped_up(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        key = s.sandbox.keys["seedance2ai"]
        s.ask("seedance2ai", "poor at first")
        await s.control("credits", provider="seedance2ai", key=key, balance="0")
        for _ in range(2):
            assert await s.run(wait=False) is Exit.PAUSED
        await s.control("credits", provider="seedance2ai", key=key, balance="1000")
        assert await s.run(wait=False) is Exit.DONE
        assert states(await s.jobs()) == ["succeeded"]


# R6


@pytest.mark.parametrize("told", [True, False])
async def test_a_run_without_the_key_ends_over_a_file_that_nobody_fetches(tmp_path: Path, told: bool) -> None:
    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "its file is on its way when the key goes")
        await s.fault("seedance2ai", "reset_download", times=1000, when="download", after=10)
        async with s.engine() as engine:
            work = asyncio.create_task(engine.run())
            await until(lambda: bool(engine.tallies) and engine.tallies[0].of(State.DOWNLOADING) == 1)
            engine.stop.set()
            await work
        lacking = {"seedance2ai": "no key"} if told else {}
        async with open_store(s.db, s.clock, own=True) as store, asyncio.timeout(LIMIT):
            assert await Engine(store, [], None, lacking).run() is Exit.PAUSED
        assert states(await s.jobs()) == ["downloading"]


# R10


async def test_overdue_tasks_in_every_slot_end_the_run(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=20_000.0) as s:
        s.concurrency = 1
        s.ask("seedance2ai", "stuck for ever")
        s.ask("seedance2ai", "behind it")
        await s.fault("seedance2ai", "stuck", when="submit")
        async with asyncio.timeout(LIMIT):
            assert await s.run() is Exit.PERSON_NEEDED
        assert states(await s.jobs()) == ["running", "queued"]


async def test_overdue_tasks_of_another_batch_in_every_slot_end_the_run(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=20_000.0) as s:
        s.concurrency = 1
        s.ask("seedance2ai", "stuck for ever")
        await s.fault("seedance2ai", "stuck", when="submit")
        assert await s.run() is Exit.PERSON_NEEDED
        [job] = s.orders
        async with s.engine() as engine, asyncio.timeout(LIMIT):
            other = NewBatch("other", str(s.folder), str(s.folder), "", "", {})
            added = await engine.store.write(enqueue, s.clock.now(), other, [replace(job, key="f" * 64)])
            engine.batch_ids = engine.lanes[0].batch_ids = [added.batch_id]
            assert await engine.run() is Exit.PERSON_NEEDED
        assert states(await s.jobs()) == ["running", "queued"]


# R24


async def test_a_batch_beyond_its_budget_does_not_stand_before_another(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.budget = {"happyhorse": Decimal(1)}
        s.ask("happyhorse", "too dear", duration=5)
        s.ask("happyhorse", "affordable", duration=5)
        first, second = s.orders
        s.orders = [first]
        async with s.engine() as engine:
            await engine.store.write(enqueue, s.clock.now(), NewBatch("two", str(tmp_path), str(tmp_path), "", "", {}),
                                     [second])  # fmt: skip
            engine.batch_ids = engine.lanes[0].batch_ids = None
            async with asyncio.timeout(LIMIT):
                assert await engine.run() is Exit.LIMIT
        assert {job.batch: job.standing.state for job in await s.jobs()} == {
            "scene": State.QUEUED,
            "two": State.SUCCEEDED,
        }


# R25


@pytest.mark.parametrize("wait", [True, False])
async def test_jobs_of_an_account_without_a_row_end_the_run(tmp_path: Path, wait: bool) -> None:
    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "an orphan")
        async with open_store(s.db, s.clock, own=True) as store:
            batch = NewBatch("scene", str(tmp_path), str(tmp_path), "", "", {})
            await store.write(enqueue, s.clock.now(), batch, s.orders)
            async with asyncio.timeout(LIMIT):
                assert await Engine(store, [], None, wait=wait).run() is Exit.PAUSED
        assert states(await s.jobs()) == ["queued"]


async def test_jobs_and_their_accounts_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def killed(*_: object) -> None:
        raise Killed

    (tmp_path / "m.yaml").write_text(MANIFEST)
    monkeypatch.setattr(assembly, "lanes", killed)  # the first step after the jobs' commit
    async with scene(tmp_path) as s:
        options = RunOptions(s.db, settings_of(s, "happyhorse"))
        with pytest.raises(Killed):
            async with prepared(read_order(tmp_path / "m.yaml"), options, s.clock):
                pass
        async with read_store(s.db, s.clock) as store:
            assert [count.jobs for count in await store.read(counts)] == [1]
            assert [row.name for row in await store.read(account_rows)] == ["happyhorse"]


# What the rules say, for all counts

NUMBERS = st.integers(0, 3)
TALLIES = st.builds(
    lambda states, extra, concurrency, by_provider: Tally(
        "a", states, min(extra, states[State.RUNNING]), max(1, concurrency), min(extra, states[State.QUEUED]),
        by_provider,
    ),
    st.fixed_dictionaries(dict.fromkeys(State, NUMBERS)), NUMBERS, NUMBERS, NUMBERS,
)  # fmt: skip
NAMES = st.sampled_from([(), ("a",), ("b",)])
HINDRANCES = st.builds(Hindrances, NAMES, NAMES, NAMES, NAMES, st.booleans(), st.booleans())


def tally(overdue: int = 0, concurrency: int = 4, stopped_model: int = 0, **counted: int) -> Tally:
    return Tally("a", {State(name): n for name, n in counted.items()}, overdue, concurrency, stopped_model)


@given(TALLIES, HINDRANCES)
def test_a_hindrance_never_makes_more_move(one: Tally, hindered: Hindrances) -> None:
    assert 0 <= moving([one], hindered) <= moving([one], Hindrances())


@given(TALLIES, HINDRANCES)
def test_nothing_moves_without_a_key(one: Tally, hindered: Hindrances) -> None:
    assert moving([one], replace(hindered, lacking=("a",))) == 0


@given(TALLIES, HINDRANCES)
def test_what_is_settled_never_moves_and_held_always_needs_a_person(one: Tally, hindered: Hindrances) -> None:
    settled = replace(one, states={s: n for s, n in one.states.items() if s in SETTLED}, overdue=0, stopped_model=0)
    assert moving([settled], hindered) == 0
    if settled.of(State.HELD):
        assert verdict([settled], hindered) is Exit.PERSON_NEEDED
    else:
        assert verdict([settled], hindered) in (Exit.DONE, Exit.SOME_FAILED)


@given(st.lists(TALLIES, min_size=1, max_size=3), HINDRANCES)
def test_the_gravest_account_gives_the_code(many: list[Tally], hindered: Hindrances) -> None:
    codes = [verdict([one], hindered) for one in many]
    order = [*PRECEDENCE, Exit.DONE]
    assert verdict(many, hindered) is min(codes, key=order.index)


@pytest.mark.parametrize(
    ("one", "hindered", "moves", "code"),
    [
        (tally(succeeded=3), Hindrances(), 0, Exit.DONE),
        (tally(succeeded=3, failed=1), Hindrances(), 0, Exit.SOME_FAILED),
        (tally(held=1, failed=1), Hindrances(), 0, Exit.PERSON_NEEDED),
        (tally(running=1, overdue=1), Hindrances(), 0, Exit.PERSON_NEEDED),
        (tally(running=2, overdue=1), Hindrances(), 1, Exit.PERSON_NEEDED),
        (tally(running=2, queued=5, overdue=2, concurrency=2), Hindrances(), 0, Exit.PERSON_NEEDED),
        (tally(running=2, queued=5, overdue=2, concurrency=3), Hindrances(), 5, Exit.PERSON_NEEDED),
        (tally(downloading=2, queued=1), Hindrances(lacking=("a",)), 0, Exit.PAUSED),
        (tally(downloading=2, queued=1), Hindrances(stopped=("a",)), 2, Exit.PAUSED),
        (tally(downloading=2, queued=1), Hindrances(lacking=("b",)), 3, Exit.LIMIT),
        (tally(queued=2), Hindrances(paused=("a",), wait=False), 0, Exit.PAUSED),
        (tally(queued=2), Hindrances(paused=("a",)), 2, Exit.PAUSED),
        (tally(queued=2, stopped_model=2), Hindrances(), 0, Exit.PAUSED),
        (tally(queued=2), Hindrances(beyond_budget=("a",)), 0, Exit.LIMIT),
        (tally(queued=2, running=1), Hindrances(beyond_budget=("a",)), 3, Exit.LIMIT),
        (tally(queued=2, running=1), Hindrances(time_is_up=True), 1, Exit.LIMIT),
        (tally(unknown=1), Hindrances(time_is_up=True), 1, Exit.LIMIT),
    ],
)
def test_examples(one: Tally, hindered: Hindrances, moves: int, code: Exit) -> None:
    assert moving([one], hindered) == moves
    assert verdict([one], hindered) is code


@pytest.mark.parametrize("wait", [True, False])
async def test_F87_a_file_that_finds_no_place_ends_the_run_in_the_end_and_is_fetched_by_the_next(
    tmp_path: Path, wait: bool
) -> None:
    async with scene(tmp_path, speed=3_600.0) as s:
        s.ask("seedance2ai", "where shall I put it")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.mkdir", _full)
            assert await s.run(wait=wait) is Exit.LOCAL
        assert states(await s.jobs()) == ["downloading"]
        assert await s.run() is Exit.DONE
        assert (tmp_path / s.orders[0].output).is_file()
        assert len(s.tasks("seedance2ai")) == 1


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
