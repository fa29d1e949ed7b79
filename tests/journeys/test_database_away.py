"""Two workers whose database restarts, breaks off at their commits, or goes on while one of them is stopped: nothing is
paid twice, nothing is lost, and the bill is the providers' own."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from journeys.test_two_runners import database_steps
from postgres import Cluster, cluster
from proxy import Cut, way_beside
from sqlalchemy import make_url
from torture.commands import Running
from torture.judge import judge
from torture.manifests import PAIR, Limits
from torture.trial import Trial, trial
from torture.waiting import until

LIMITS = {"happyhorse": Limits(3, 60), "seedance2ai": Limits(5, 120)}
FAULTS = "lost_answer@submit=0.05,reset_download=0.05"
RESTARTS = 3


@contextmanager
def a_night(folder: Path, database: str, **more: Any) -> Iterator[Trial]:
    setting = trial(
        folder, PAIR, seed="away", speed=20, render=40, queue=database, limits=LIMITS, faults=FAULTS, **more
    )
    with setting as here:
        here.orders.grow({"hh-video": 7, "hh-takes": 1, "hh-upload": 1, "sd-video": 12, "sd-takes": 1, "sd-batch": 3})
        yield here


@contextmanager
def two_workers(here: Trial, *queues: str) -> Iterator[list[Running]]:
    """A worker by each of these ways to the queue. None of them outlives the test."""
    pair: list[Running] = []
    try:
        for queue in queues:
            pair.append(here.commands.start(*(queue if word == here.queue else word for word in here.arguments)))
        yield pair
    finally:
        for each in pair:
            each.send(signal.SIGKILL)
            each.process.wait()


def judged(here: Trial, pair: list[Running]) -> None:
    """Both are awaited; nothing went wrong, and both say so."""
    ends = [here.commands.over(each) for each in pair]
    evidence = here.evidence(ends[0], database_steps)
    said = "\n".join(each.said() for each in ends)
    assert judge(evidence).clean, f"{judge(evidence)}\n{said}"
    assert ends[0].code == ends[1].code, said
    assert {job.state for job in evidence.jobs} <= {"succeeded", "held"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["restarts", "crashes"])
@pytest.mark.timeout(300)
def test_the_server_restarts_in_the_middle_of_the_night(tmp_path: Path, number: signal.Signals) -> None:
    with (
        cluster() as server,
        a_night(tmp_path, server.dsn) as here,
        two_workers(here, server.dsn, server.dsn) as pair,
    ):
        for nth in range(RESTARTS):
            before = len(here.sandbox.requests())
            until(lambda: len(here.sandbox.requests()) > before + 10, "work")  # noqa: B023
            away(server, number, seconds=nth)
        judged(here, pair)
        assert all("the database does not answer" in each.said() for each in pair)
        assert all(each.said().count("the database answers again") <= RESTARTS for each in pair)


def away(server: Cluster, number: signal.Signals, seconds: float) -> None:
    server.stop(number)
    time.sleep(seconds + 0.5)
    server.start()


@pytest.mark.timeout(300)
def test_connections_break_at_commits(tmp_path: Path, postgres_database: str) -> None:
    with a_night(tmp_path, postgres_database) as here, ExitStack() as stack:
        ways = [stack.enter_context(way_beside(postgres_database, now_and_then(seed))) for seed in (1, 2)]
        judged(here, stack.enter_context(two_workers(here, *(way.url for way in ways))))
        for way in ways:
            assert {"before", "after"} <= set(way.cuts), f"{way.cuts} of {way.commits} commits"


def now_and_then(seed: int) -> Callable[[int], Cut | None]:
    """Cuts off one commit in ten, and spares those at the start, when a server that is away is an error."""
    drawn = random.Random(seed)

    def plan(number: int) -> Cut | None:
        return drawn.choice(("before", "after")) if number > 5 and drawn.random() < 0.1 else None

    return plan


@pytest.mark.timeout(300)
def test_a_worker_is_stopped_until_others_take_it_for_dead(tmp_path: Path, postgres_database: str) -> None:
    both = (postgres_database, postgres_database)
    with a_night(tmp_path, postgres_database) as here, two_workers(here, *both) as pair:
        stopped = pair[0]
        until(lambda: workers(postgres_database) == {each.process.pid for each in pair}, "both of them")
        before = here.sandbox.tasks()
        until(lambda: here.sandbox.tasks() > before + 2, "orders")
        stopped.send(signal.SIGSTOP)
        fall_silent(postgres_database, stopped.process.pid)
        until(lambda: stopped.process.pid not in workers(postgres_database), "the other one to take over")
        stopped.send(signal.SIGCONT)
        judged(here, pair)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_worker_that_waits_for_its_database(tmp_path: Path, number: signal.Signals) -> None:
    with (
        cluster() as server,
        trial(tmp_path, ("seedance2ai",), seed="waits", speed=5, render=60, queue=server.dsn) as here,
    ):
        here.orders.grow({"sd-video": 3})
        with two_workers(here, server.dsn) as [running]:
            until(lambda: len(ask(server.dsn, "SELECT 1 FROM jobs WHERE state = 'running'")) == 3, "its orders")
            server.stop()
            until(lambda: "does not answer" in running.said(), "the word that it waits")
            before = running.age()
            running.send(number)
            ended = here.commands.over(running)
        assert ended.code == 128 + number, ended.said()
        assert ended.seconds - before < 16, "ten seconds, on a machine that is busy with something else"
        assert "Traceback" not in ended.err, ended.said()
        server.start()
        fall_silent(server.dsn, running.process.pid)
        last = here.run()
        evidence = here.evidence(last, database_steps)
        assert judge(evidence).clean, f"{judge(evidence)}\n{last.said()}"
        assert [job.state for job in evidence.jobs] == ["succeeded"] * 3


def workers(database: str) -> set[int]:
    return {row["pid"] for row in ask(database, "SELECT pid FROM workers")}


def fall_silent(database: str, pid: int) -> None:
    ask(database, f"UPDATE workers SET seen_at = seen_at - 61000000 WHERE pid = {pid}")


def ask(database: str, statement: str) -> list[Any]:
    async def fetch() -> list[Any]:
        connection = await asyncpg.connect(make_url(database).set(drivername="postgresql").render_as_string(False))
        try:
            return list(await connection.fetch(statement))
        except asyncpg.UndefinedTableError:
            return []  # nobody has made the tables yet
        finally:
            await connection.close()

    return asyncio.run(fetch())
