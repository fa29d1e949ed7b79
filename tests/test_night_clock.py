"""Nights in which the machine sleeps, or its clock is set: all times are the wall's, and what has passed has passed
(reliability.md F15, F105, F106)."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from night import cable, night
from scene import until
from torture.judge import judge
from torture.trial import trial

from runner.engine import Exit
from runner.jobs import State
from runner.lifecycle import submitting
from runner.verdicts.submission import Submission, beyond_key_window

MINUTE, HOUR = 60.0, 3600.0


async def test_F106_after_eight_hours_of_sleep_the_tasks_are_asked_before_anybody_calls_them_overdue(
    tmp_path: Path,
) -> None:
    """Their addresses have expired meanwhile, too; the rest of the batch is ordered, and no limit burst."""
    async with night(tmp_path, "seedance2ai", render=10 * MINUTE) as n:
        running = n.start()
        await until(lambda: n.ordered() >= 4)
        await n.sleep(8 * HOUR)
        assert await running is Exit.DONE
        seen = (await n.s.control("observed"))["accounts"]["seedance2ai"]
        assert [account["rate_limited"] for account in seen.values()] == [0]
        await n.all_is_well()


async def test_F106_an_address_that_expired_in_sleep_is_asked_for_anew(tmp_path: Path) -> None:
    async with night(tmp_path, "happyhorse", jobs=1, render=MINUTE) as n:
        await n.s.fault("happyhorse", "slow_download", seconds=1200.0)
        running = n.start()
        await until(lambda: (tmp_path / "renders").is_dir())
        await n.s.fault("happyhorse", "reset_download", when="download", after=10)
        await n.sleep(3 * HOUR)
        assert await running is Exit.DONE
        await n.all_is_well()


async def test_F15_a_connection_that_did_not_outlive_the_sleep_costs_one_deadline(tmp_path: Path) -> None:
    """Half open: nobody says that the other end is gone. A question is asked anew; an order is an open question."""
    async with night(tmp_path, "happyhorse", jobs=2, speed=60, render=2 * MINUTE) as n, cable(n.s, "happyhorse") as way:
        running = n.start()
        await until(lambda: n.ordered() >= 2)
        way.fall_asleep()
        await n.sleep(2 * HOUR)
        began = time.monotonic()
        assert await running is Exit.DONE
        assert time.monotonic() - began < 20
        await n.all_is_well()


async def test_a_resend_that_slept_before_its_first_byte_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider is trusted to remember the key when the resend is begun, and no longer when the machine wakes up."""
    asked: list[bool] = []

    def then_asleep(sub: Submission) -> bool:
        beyond = beyond_key_window(sub)
        if sub.open and not asked:
            asked.append(beyond)
            n.wall.moved.append(3 * HOUR)
        return beyond

    monkeypatch.setattr(submitting, "beyond_key_window", then_asleep)
    async with night(tmp_path, "seedance2ai", jobs=1, speed=60) as n:
        await n.s.fault("seedance2ai", "lost_answer", when="submit")
        assert await n.run() is Exit.PERSON_NEEDED
        assert len([each for each in await n.asked() if each["point"] == "submit"]) == 1
        assert await n.state() == ["held"]


async def test_a_clock_set_back_makes_no_run_wait(tmp_path: Path) -> None:
    async with night(tmp_path, "seedance2ai", render=5 * MINUTE) as n:
        running = n.start()
        await until(lambda: n.ordered() >= 4)
        n.wall.moved.append(-12 * HOUR)  # at this speed more than a minute
        async with asyncio.timeout(20):
            assert await running is Exit.DONE
        assert "the clock of this machine was set back" in n.said
        await n.all_is_well()


async def test_a_clock_set_back_between_two_runs_makes_the_second_not_wait(tmp_path: Path) -> None:
    """The account is paused, and jobs are put off, until a time that is hours away by the new clock."""
    async with night(tmp_path, "seedance2ai", jobs=3) as n:
        account = {"provider": "seedance2ai", "key": n.s.sandbox.keys["seedance2ai"]}
        await n.s.control("credits", balance="0", **account)
        assert await n.run(wait=False) is Exit.PAUSED
        await n.s.control("credits", balance="1000", **account)
        n.wall.moved.append(-5 * HOUR)
        async with asyncio.timeout(20):
            assert await n.run() is Exit.DONE
        assert f"by={timedelta(hours=5) - timedelta(seconds=1)}"[:5] in n.said
        await n.all_is_well()


async def test_a_clock_set_forward_loses_nothing(tmp_path: Path) -> None:
    """The providers' own time has not moved: nothing that is due early may be taken for lost."""
    async with night(tmp_path, "happyhorse", render=5 * MINUTE) as n:
        running = n.start()
        await until(lambda: n.ordered() >= 4)
        n.wall.moved.append(3 * HOUR)
        assert await running is Exit.DONE
        await n.all_is_well()


def test_F105_a_run_that_is_stopped_for_five_minutes_goes_on_without_a_burst(tmp_path: Path) -> None:
    with trial(tmp_path, ("happyhorse",), seed="stop", speed=60, render=20) as here:
        here.orders.grow({"hh-video": 6})
        running = here.start()
        while here.sandbox.tasks() < 3:
            assert running.lives(0.05)
        running.send(signal.SIGSTOP)
        time.sleep(300 / here.speed)
        running.send(signal.SIGCONT)
        ended = here.commands.over(running)
        assert ended.code == 0, ended.said()
        evidence = here.evidence(ended)
        assert judge(evidence).clean, str(judge(evidence))
        assert [job.state for job in evidence.jobs] == [State.SUCCEEDED] * 6
        assert [job.attempts for job in evidence.jobs] == [1] * 6
        assert evidence.seen["happyhorse"].per_minute <= 60
        assert evidence.seen["happyhorse"].refused == 0
