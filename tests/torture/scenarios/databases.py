"""Two workers on one PostgreSQL, whose server restarts and crashes, whose connections break at commits, and of whom one
is killed, or stopped until the other takes it for dead."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
from postgres import Cluster, cluster
from proxy import Cut, way_beside
from sqlalchemy import make_url

from torture.commands import Running
from torture.judge import Finding, judge
from torture.manifests import PAIR, Limits
from torture.random_kills import Torn, landed, look
from torture.scenarios.scene import Scenario, staged
from torture.tally import Tally
from torture.trial import Trial
from torture.waiting import until

LIMITS = {"happyhorse": Limits(3, 60), "seedance2ai": Limits(5, 120)}
FAULTS = "lost_answer@submit=0.05,reset_download=0.05"
JOBS = {"hh-video": 7, "hh-takes": 1, "hh-upload": 1, "sd-video": 12, "sd-takes": 1, "sd-batch": 3}
KILLS, RESTARTS = 12, 3


@contextmanager
def a_night(folder: Path, seed: str, database: str, jobs: Mapping[str, int] = JOBS) -> Iterator[tuple[Trial, Tally]]:
    with staged(
        folder, seed, PAIR, jobs=dict(jobs), speed=20, render=40, queue=database, limits=LIMITS, faults=FAULTS
    ) as night:
        yield night


@contextmanager
def two_workers(here: Trial, *queues: str) -> Iterator[list[Running]]:
    """A worker by each of these ways to the queue. None of them outlives the night."""
    pair: list[Running] = []
    try:
        for queue in queues:
            pair.append(a_worker(here, queue))
        yield pair
    finally:
        for each in pair:
            each.send(signal.SIGKILL)
            each.process.wait()


def a_worker(here: Trial, queue: str) -> Running:
    return here.commands.start(*(queue if word == here.queue else word for word in here.arguments))


def judged(here: Trial, told: Tally, pair: Sequence[Running]) -> None:
    """All are awaited; nothing went wrong, and all say so."""
    ends = [here.commands.over(each) for each in pair]
    (here.folder / "database.txt").write_text("\n".join(_told(here.queue)))  # where keys are searched for
    evidence = here.evidence(ends[0], ask)
    told.judged(evidence, judge(evidence))
    if len({each.code for each in ends}) > 1:
        told.find(Finding("endings", "\n".join(each.said() for each in ends)))


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


def _told(database: str) -> Iterator[str]:
    """Every row of every table, as text."""
    for row in ask(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        rows = ask(database, f'SELECT each::text AS said FROM "{row["tablename"]}" AS each')
        yield from (each["said"] for each in rows)


def workers(database: str) -> set[int]:
    return {row["pid"] for row in ask(database, "SELECT pid FROM workers")}


def fall_silent(database: str, pid: int) -> None:
    """As if this worker had not been heard of for longer than a lease lasts."""
    ask(database, f"UPDATE workers SET seen_at = seen_at - 61000000 WHERE pid = {pid}")


def away(server: Cluster, number: signal.Signals, seconds: float) -> None:
    server.stop(number)
    time.sleep(seconds + 0.5)
    server.start()


def some_work(here: Trial, requests: int = 10) -> None:
    before = here.sandbox.last_request()
    until(lambda: here.sandbox.last_request(before) > before + requests, "work")


def now_and_then(seed: int) -> Callable[[int], Cut | None]:
    """Cuts off one commit in ten, and spares those at the start, when a server that is away is an error."""
    drawn = random.Random(seed)

    def plan(number: int) -> Cut | None:
        return drawn.choice(("before", "after")) if number > 5 and drawn.random() < 0.1 else None

    return plan


# -- the scenarios ----------------------------------------------------------------------------------------------------


def _restarts(folder: Path, seed: str, number: signal.Signals = signal.SIGINT) -> Tally:
    with (
        cluster() as server,
        a_night(folder, seed, server.dsn) as (here, told),
        two_workers(here, server.dsn, server.dsn) as pair,
    ):
        for nth in range(RESTARTS):
            some_work(here)
            away(server, number, seconds=nth)
            told.done["database restarts"] += 1
        judged(here, told, pair)
    return told


def _crashes(folder: Path, seed: str) -> Tally:
    return _restarts(folder, seed, signal.SIGQUIT)


def _cuts(folder: Path, seed: str) -> Tally:
    with cluster() as server, a_night(folder, seed, server.dsn) as (here, told), ExitStack() as stack:
        ways = [stack.enter_context(way_beside(server.dsn, now_and_then(nth))) for nth in (1, 2)]
        judged(here, told, stack.enter_context(two_workers(here, *(way.url for way in ways))))
        told.done["commits cut off"] += sum(len(way.cuts) for way in ways)
    return told


def _kills(folder: Path, seed: str) -> Tally:
    """Now the one, now the other is killed in the middle of its work, and started anew."""
    drawn = random.Random(seed)
    with (
        cluster() as server,
        a_night(folder, seed, server.dsn, {"hh-video": 20, "hh-upload": 2, "sd-video": 40, "sd-batch": 6}) as (
            here,
            told,
        ),
        two_workers(here, server.dsn, server.dsn) as pair,
    ):
        torn = Torn(here.renders)
        for nth in range(KILLS):
            some_work(here, drawn.randint(1, 6))
            struck = pair[nth % 2]
            struck.send(signal.SIGKILL)
            hit = landed(here.commands.over(struck), signal.SIGKILL)
            fall_silent(server.dsn, struck.process.pid)  # what it was about is gone on with now, not in a minute
            told.kills["SIGKILL"] += hit
            told.fired["F104"] += hit
            look(torn, told)
            pair[nth % 2] = a_worker(here, server.dsn)
        judged(here, told, pair)
    return told


def _stopped(folder: Path, seed: str) -> Tally:
    """One is stopped in the middle of its work; the others take it for dead; it wakes up and must not act on what it
    believes."""
    with (
        cluster() as server,
        a_night(folder, seed, server.dsn) as (here, told),
        two_workers(here, server.dsn, server.dsn) as pair,
    ):
        until(lambda: workers(server.dsn) == {each.process.pid for each in pair}, "both of them")
        before = here.sandbox.tasks()
        until(lambda: here.sandbox.tasks() > before + 2, "orders")
        pair[0].send(signal.SIGSTOP)
        told.fired["F105"] += 1
        fall_silent(server.dsn, pair[0].process.pid)
        until(lambda: pair[0].process.pid not in workers(server.dsn), "the other one to take over")
        pair[0].send(signal.SIGCONT)
        judged(here, told, pair)
    return told


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("postgres-restarts", (), _restarts),
    Scenario("postgres-crashes", (), _crashes),
    Scenario("postgres-cuts", (), _cuts),
    Scenario("postgres-kills", ("F104",), _kills),
    Scenario("postgres-stopped", ("F105",), _stopped),
)
