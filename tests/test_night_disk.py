"""Nights in which this machine is in the way: its disk fills up and is freed, or takes no more at all; its memory, its
terminal. Nothing that was paid for is lost, and nothing is paid for that could not be written down."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from liar import Said, liar
from night import night
from scene import until
from sqlalchemy import Connection

from runner.engine import Exit
from runner.errors import DiskFull, LocalError
from runner.store import transactions

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
        assert "the queue's disk is full" in n.said
        assert "make room on its disk" in n.said
        assert "there is room again" in n.said
        await n.all_is_well()


@pytest.mark.parametrize("wait", [True, False])
async def test_F86_a_disk_that_stays_full_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, disk: Disk, wait: bool
) -> None:
    async with night(tmp_path, "seedance2ai", jobs=3, speed=1800, render=5 * MINUTE) as n:
        running = n.start(wait=wait)
        await until(lambda: n.ordered() >= 3)
        await asyncio.sleep(0.1)
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


async def test_F87_a_disk_that_takes_no_more_files_keeps_what_came_and_the_run_polls_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renders lie on a disk of their own: it fills up in the midst of a file, and is freed half an hour later."""
    write, full = os.write, True

    def on_a_full_disk(descriptor: int, data: Any) -> int:
        if full and len(data) > 10_000:
            half = write(descriptor, data[:10_000])
            if half:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", on_a_full_disk)
    async with night(tmp_path, "seedance2ai", render=5 * MINUTE) as n:
        running = n.start()
        await until(lambda: len([*tmp_path.rglob("*.part")]) == n.jobs)
        since = n.wall.timestamp()
        assert n.ordered() == n.jobs, "the others are ordered and followed meanwhile"
        await until(lambda: n.wall.timestamp() > since + 0.5 * HOUR)
        assert (await n.state()).count("downloading") == n.jobs
        assert "No space left on device" in n.said
        full = False
        assert await running is Exit.DONE
        asked = [each for each in await n.asked() if each["point"] == "download"]
        assert any(each["status"] == 206 for each in asked), "what came was kept"
        await n.all_is_well()
