"""Nights in which this machine is in the way: its disk fills up and is freed, or takes no more at all; its memory, its
terminal. Nothing that was paid for is lost, and nothing is paid for that could not be written down."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from liar import Said, liar
from night import night
from scene import until
from sqlalchemy import Connection
from torture.commands import PROGRAM

from runner.engine import Exit
from runner.errors import DiskFull, LocalError
from runner.jobs import State
from runner.store import read_store, transactions
from runner.store.queries import account_rows, counts, sums

MINUTE, HOUR = 60.0, 3600.0


@dataclass
class Disk:
    """The queue's own: while it is `full`, SQLite itself finds no page more for any transaction, and says so."""

    full: Callable[[], bool] = field(default=lambda: False)
    refused: int = 0

    def transact(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def overfilled(connection: Connection, *args: Any) -> Any:
            found = function(connection, *args)
            full = self.full()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {1 if full else 1 << 30}")  # not below what it has
            if full:
                self.refused += 1
                connection.exec_driver_sql("CREATE TABLE too_much AS SELECT zeroblob(1000000) AS much")
            return found

        return overfilled


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made, transact = Disk(), transactions._InThread._transact

    def on_it(self: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return transact(self, made.transact(function), args)

    monkeypatch.setattr(transactions._InThread, "_transact", on_it)
    return made


@pytest.mark.parametrize("provider", ["seedance2ai", "happyhorse"])
async def test_F86_a_disk_that_is_full_for_half_an_hour_is_waited_for(
    tmp_path: Path, disk: Disk, provider: str
) -> None:
    """No order leaves while its brink could not be written."""
    async with night(tmp_path, provider, jobs=8, render=5 * MINUTE) as n:
        running = n.start()
        await until(lambda: n.ordered() >= 2)
        disk.full = lambda: True
        await until(lambda: disk.refused > 3)
        on_the_wire = n.ordered()
        full = n.wall.timestamp()
        await until(lambda: n.wall.timestamp() > full + 0.5 * HOUR)
        assert not running.done()
        assert n.ordered() < n.jobs
        assert n.ordered() <= on_the_wire + n.concurrency, "but for what had passed its brink before"
        disk.full = lambda: False
        assert await running is Exit.DONE
        waited = "the queue's disk is full" in n.said and "there is room again" in n.said
        assert waited or "not stored" in n.said, (
            "or what stood in the way of everything was a task's id, told by itself"
        )
        await n.all_is_well()


@pytest.mark.parametrize("wait", [True, False])
async def test_F86_a_disk_that_stays_full_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, disk: Disk, wait: bool
) -> None:
    async with night(tmp_path, "seedance2ai", jobs=3, speed=1800, render=HOUR) as n:
        running = n.start(wait=wait)
        await until(lambda: n.ordered() >= 3)
        while (await n.state()).count("running") < 3:  # noqa: ASYNC110  # until their ids are stored
            await asyncio.sleep(0.05)
        disk.full = lambda: True
        with pytest.raises(LocalError) as ended:
            await running
        assert ended.value.exit_code == Exit.LOCAL
        assert isinstance(ended.value, DiskFull)
        assert ended.value.hint == "make room on its disk"
        disk.full = lambda: False
        assert await n.run() is Exit.DONE
        await n.all_is_well()


async def test_F88_the_id_of_a_paid_task_takes_the_place_of_the_ballast(tmp_path: Path, disk: Disk) -> None:
    """The disk is full from the moment in which the order is answered, but for the room that was kept for this."""
    ballast = tmp_path / "runner.db.ballast"
    kept: list[int] = []

    def full_from_now(said: Said) -> Said | None:
        if said.method == "POST" and not kept:
            kept.append(ballast.stat().st_size)
            disk.full = ballast.exists
        return None

    async with night(tmp_path, "happyhorse", jobs=2, render=MINUTE) as n:
        async with liar(n.s, "happyhorse", full_from_now):
            assert await n.run() is Exit.DONE
        assert kept == [1 << 20]
        assert disk.refused > 0
        assert not ballast.exists()
        await n.all_is_well()


async def test_F90_a_place_that_cannot_be_written_is_told_before_any_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    async with night(tmp_path, "seedance2ai", jobs=1) as n:
        n.s.db = str(tmp_path / "file" / "runner.db")
        with pytest.raises(LocalError) as refused:
            await n.run()
        assert refused.value.exit_code == Exit.LOCAL
        assert await n.asked() == []


async def test_F110_a_log_that_takes_no_more_ends_no_run(tmp_path: Path) -> None:
    async with night(tmp_path, "seedance2ai", jobs=2, render=MINUTE) as n:
        assert await n.run(log_file=Path("/dev/full")) is Exit.DONE
        assert n.said.count("the log file cannot be written any more") == 1
        await n.all_is_well()


async def test_F108_F110_without_memory_and_without_anybody_who_reads_a_run_ends_cleanly_and_goes_on(
    tmp_path: Path,
) -> None:
    """In 256 MiB of address space, and with stdout closed."""
    async with night(tmp_path, "seedance2ai", jobs=2, speed=120, render=MINUTE) as n:
        words = ["run", str(n.manifest()), "--yes", "--speed", "120", "--db", n.s.db, "--no-progress"]
        environment = {**os.environ, **n.environment(), "RUNNER_ANCHOR": repr(n.wall.anchor)}
        limited = f'ulimit -v {256 << 10}; "$0" "$@" >&-; echo "ended with $?" >ended'
        narrow = await asyncio.create_subprocess_exec(
            "sh", "-c", limited, str(PROGRAM), *words, cwd=tmp_path, env=environment, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert narrow.stderr is not None
        said = (await narrow.stderr.read()).decode()
        assert "Traceback" not in said
        assert (tmp_path / "ended").read_text() in ("ended with 0\n", "ended with 3\n", "ended with 7\n")
        assert await n.run() is Exit.DONE
        await n.all_is_well()


async def test_F111_ten_thousand_held_jobs_at_the_head_starve_nobody(tmp_path: Path) -> None:
    async with night(tmp_path, "seedance2ai", jobs=3, render=MINUTE) as n:
        await n.s.control("credits", provider="seedance2ai", key=n.s.sandbox.keys["seedance2ai"], balance="0")
        assert await n.run(wait=False) is Exit.PAUSED
        await n.s.control("credits", provider="seedance2ai", key=n.s.sandbox.keys["seedance2ai"], balance="1000")
        _hold(n.s.db, 10_000)
        async with read_store(n.s.db, n.wall) as store:
            began = time.process_time()
            counted, _, _ = await store.read(counts), await store.read(sums), await store.read(account_rows)
            assert time.process_time() - began < 1.0
        assert {count.state: count.jobs for count in counted} == {State.HELD: 10_000, State.QUEUED: 3}
        assert await n.run() is Exit.PERSON_NEEDED
        assert n.ordered() == 3
        assert "10000 held, 3 succeeded" in n.said


def _hold(db: str, number: int) -> None:
    """So many held jobs, of the same batch, that stand before all others."""
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
        new = {"id": "-n", "key": "printf('%064x', n)", "state": "'held'", "place": "'old'", "task_id": "NULL"}
        values = ", ".join(new.get(name, name) for name in names)
        connection.execute(
            f"INSERT INTO jobs ({', '.join(names)}) WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 "
            f"FROM number WHERE n < {number}) SELECT {values} FROM number, (SELECT * FROM jobs LIMIT 1)"
        )
