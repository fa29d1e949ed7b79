"""Several runners at once: one queue file has one owner, one database is shared, and limits are kept either way."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url
from torture.commands import Ended, Running
from torture.judge import judge
from torture.manifests import PAIR, Limits
from torture.scenarios.databases import ask
from torture.trial import Trial, trial
from torture.waiting import until

STARTS = 20
RESTARTS = 10


@contextmanager
def a_long_batch(folder: Path, **more: object) -> Iterator[Trial]:
    """Two renders that take longer than anybody here waits."""
    with trial(folder, ("seedance2ai",), seed="two", speed=10, render=36000, **more) as here:  # type: ignore[arg-type]
        here.orders.grow({"sd-video": 2})
        yield here


def stop(here: Trial, running: Running) -> Ended:
    running.send(signal.SIGTERM)
    return here.commands.over(running)


def test_the_second_on_one_queue_file_is_refused_and_told_who_owns_it(tmp_path: Path) -> None:
    with a_long_batch(tmp_path) as here:
        first = here.start()
        until(lambda: here.sandbox.tasks() == 2, "the first one's orders")
        second = here.run()
        assert second.code == 8
        assert re.search(rf"\b{first.process.pid}\b", second.err), second.said()
        assert "Traceback" not in second.err
        assert stop(here, first).code == 143
        assert here.sandbox.tasks() == 2


def test_of_twenty_started_at_once_exactly_one_runs(tmp_path: Path) -> None:
    with a_long_batch(tmp_path) as here:
        crowd = [here.start() for _ in range(STARTS)]
        until(lambda: sum(each.process.poll() is not None for each in crowd) == STARTS - 1, "all but one to give up")
        until(lambda: here.sandbox.tasks() == 2, "its orders")
        [winner] = [each for each in crowd if each.process.poll() is None]
        losers = [here.commands.over(each) for each in crowd if each is not winner]
        assert Counter(each.code for each in losers) == {8: STARTS - 1}
        for each in losers:
            assert re.search(rf"\b{winner.process.pid}\b|just starting", each.err), each.said()
        assert stop(here, winner).code == 143
        assert here.sandbox.tasks() == 2, "somebody else has bought something"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_queue_is_free_once_its_owner_is_gone(tmp_path: Path, number: signal.Signals) -> None:
    with a_long_batch(tmp_path) as here:
        first = here.start()
        until(lambda: here.sandbox.tasks() == 2, "the first one's orders")
        first.send(number)
        here.commands.over(first)
        second = here.start()
        polls = len(here.sandbox.requests())
        until(lambda: len(here.sandbox.requests()) > polls, "the second one to go on")
        assert stop(here, second).code == 143
        assert here.sandbox.tasks() == 2


def test_two_workers_share_one_database(tmp_path: Path, postgres_database: str) -> None:
    limits = {"happyhorse": Limits(3, 60), "seedance2ai": Limits(5, 120)}
    setting = trial(
        tmp_path, PAIR, seed="pg", speed=20, render=40, queue=postgres_database, limits=limits,
        faults="lost_answer@submit=0.1,error_after_charge@submit=0.05,reset_download=0.1",
    )  # fmt: skip
    with setting as here:
        here.orders.grow({"hh-video": 8, "hh-takes": 1, "sd-video": 12, "sd-takes": 1, "sd-batch": 3})
        pair = [here.start(), here.start()]
        busy = asyncio.run(requests_by_worker(postgres_database, lambda: any(e.process.poll() is None for e in pair)))
        ends = [here.commands.over(each) for each in pair]
        evidence = here.evidence(ends[0], ask)
        assert judge(evidence).clean, f"{judge(evidence)}\n{ends[0].said()}\n{ends[1].said()}"
        assert ends[0].code == ends[1].code
        assert len(busy) == 2, busy
        assert min(busy.values()) >= 5, f"one of them hardly did anything: {busy}"
        assert {job.state for job in evidence.jobs} <= {"succeeded", "held"}


async def requests_by_worker(database: str, alive: Callable[[], bool]) -> Counter[int]:
    """How many requests each worker has made, as the shared log tells while they are at work."""
    connection = await asyncpg.connect(_dsn(database))
    made: dict[int, int] = {}
    try:
        while alive():
            try:
                made |= {row["id"]: row["worker"] for row in await connection.fetch("SELECT id, worker FROM requests")}
            except asyncpg.UndefinedTableError:
                made = {}  # nobody has made the tables yet
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
    return Counter(made.values())


def _dsn(database: str) -> str:
    return make_url(database).set(drivername="postgresql").render_as_string(hide_password=False)


def test_F112_quick_restarts_keep_the_limits(tmp_path: Path) -> None:
    """Every start looks after everything at once: the log of requests must outlive the process.

    Each run dies of its eighth answer, so the next one starts as soon as the limits let it.
    """
    limits = {"happyhorse": Limits(6, 10), "seedance2ai": Limits(12, 40)}
    with trial(tmp_path, PAIR, seed="quick", speed=6, render=36000, limits=limits) as here:
        here.orders.grow({"hh-video": 8, "hh-upload": 2, "sd-video": 20})
        for _ in range(RESTARTS):
            assert here.run(RUNNER_FAILPOINT="answer-read:8").code == 137
        seen = here.evidence(None).seen
        for account, allowed in limits.items():
            assert seen[account].per_minute <= allowed.per_minute
            assert seen[account].in_flight <= allowed.concurrency
            assert seen[account].refused == 0
        assert seen["seedance2ai"].per_minute > 8, "no minute held more than one run: that was no quick succession"
