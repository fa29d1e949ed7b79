"""Nights in which a provider is away, or the way to it, or the credits, or the key: paused and resumed without a person
where that is possible, without burning attempts, and told plainly where it is not."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from liar import liar
from night import Night, cable, night
from scene import until

from runner.client.asking import Line
from runner.engine import Exit
from runner.engine import run as runs

PROBE = 30.0  # seconds between two requests to a provider that does not answer
MINUTE, HOUR = 60.0, 3600.0
FIRST = 3  # requests that it takes to find out
OTHER_KEY = "a-key-of-another-kind-0123456789"


async def in_the_midst(n: Night, orders: int) -> int:
    """Waits until so many orders were made and answered; returns the number of the last request so far."""
    await until(lambda: n.ordered() >= orders)
    while not _answered(await n.state(), orders):  # noqa: ASYNC110  # the engine tells nobody
        await asyncio.sleep(0.01)
    return int((await n.asked())[-1]["seq"])


def _answered(states: list[str], orders: int) -> bool:
    """And none is on the wire, where it could get lost."""
    return "submitting" not in states and len(states) - states.count("queued") >= orders


def most(n: Night, seconds: float) -> float:
    """The requests that an outage of so long may see: what was under way, what finds out, then one after the other."""
    return n.concurrency + FIRST + seconds / PROBE


@pytest.mark.parametrize(("provider", "hours", "jobs"), [("seedance2ai", 0.5, 6), ("happyhorse", 2.0, 4)])
async def test_F41_a_provider_that_is_away_is_probed_and_waited_for(
    tmp_path: Path, provider: str, hours: float, jobs: int
) -> None:
    async with night(tmp_path, provider, jobs=jobs, speed=600 * hours, render=20 * MINUTE) as n:
        running = n.start()
        before = await in_the_midst(n, 4)
        end = n.wall.timestamp() + hours * HOUR
        await n.s.control("outage", provider=provider, seconds=hours * HOUR)
        assert await running is Exit.DONE
        during = [each for each in await n.asked(before) if each["at"] < end and each["fault"]]
        assert 5 < len(during) <= most(n, hours * HOUR)
        assert "the provider does not answer" in n.said
        assert "the provider answers again" in n.said
        await n.all_is_well()


async def test_F41_without_keys_an_outage_costs_hardly_a_question(tmp_path: Path) -> None:
    """It was away from the start, so an order had to find out: whether that one was taken, only a person can tell. (On
    a busy machine a second one goes before the look after the first has come back.)"""
    async with night(tmp_path, "happyhorse", speed=1200, render=MINUTE) as n:
        await n.s.control("outage", provider="happyhorse", seconds=0.5 * HOUR)
        assert await n.run() is Exit.PERSON_NEEDED
        assert sorted(await n.state()) in (["held"] * held + ["succeeded"] * (6 - held) for held in (1, 2))
        orders = [each for each in await n.asked() if each["point"] == "submit"]
        assert len(orders) == n.jobs, "none was ordered twice"
        assert "runner jobs --state held" in n.said
        await n.bill_agrees()


@pytest.mark.parametrize("when", ["from the start", "in the midst"])
async def test_F01_a_network_that_is_gone_for_an_hour_costs_nothing(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    exchange = Line._exchange

    async def counted(*given: Any) -> Any:
        nonlocal tried
        tried += 1
        return await exchange(*given)

    async with night(tmp_path, "happyhorse", speed=1200, render=20 * MINUTE) as n, cable(n.s, "happyhorse") as way:
        if when == "from the start":
            await way.pull()
        running = n.start()
        if when == "in the midst":
            await in_the_midst(n, 3)
            await way.pull()
        monkeypatch.setattr(Line, "_exchange", counted)
        gone = n.wall.timestamp()
        await until(lambda: n.wall.timestamp() > gone + HOUR and tried > FIRST)  # a busy machine begins late
        assert tried <= most(n, n.wall.timestamp() - gone)
        await way.plug()
        assert await running is Exit.DONE
        assert "the provider does not answer" in n.said
        await n.all_is_well()


@pytest.mark.parametrize("provider", ["happyhorse", "seedance2ai"])
async def test_F44_credits_that_are_topped_up_at_three_in_the_morning(tmp_path: Path, provider: str) -> None:
    """One tells its balance, the other does not: there an order is the probe, refused and not charged."""
    async with night(tmp_path, provider, speed=1800, render=10 * MINUTE) as n:
        account = {"provider": provider, "key": n.s.sandbox.keys[provider]}
        running = n.start()
        before = await in_the_midst(n, 2)
        await n.s.control("credits", balance="0", **account)
        empty = n.wall.timestamp()
        await until(lambda: n.wall.timestamp() > empty + 1.5 * HOUR)
        assert not running.done()
        ordered = n.ordered()
        refused = [each for each in await n.asked(before) if each["point"] in ("submit", "credits")]
        assert 3 < len(refused) < 14, "30 s, doubling to a quarter of an hour; one order goes at once"
        await n.s.control("credits", balance="1000", **account)
        assert await running is Exit.DONE
        assert ordered < n.jobs
        assert "orders are paused" in n.said
        assert "top up its credits; it goes on by itself" in n.said
        assert "orders are taken again" in n.said
        await n.all_is_well()


async def test_F44_without_waiting_it_is_told_at_once(tmp_path: Path) -> None:
    async with night(tmp_path, "seedance2ai", jobs=2) as n:
        account = {"provider": "seedance2ai", "key": n.s.sandbox.keys["seedance2ai"]}
        await n.s.control("credits", balance="0", **account)
        assert await n.run(wait=False) is Exit.PAUSED
        assert await n.state() == ["queued"] * 2
        assert [job.standing.attempts for job in await n.s.jobs()] == [0, 0]
        assert "paused by credits" in n.said


@pytest.mark.parametrize("provider", ["seedance2ai", "happyhorse"])
async def test_F42_a_key_that_is_rotated_in_the_night(tmp_path: Path, provider: str) -> None:
    """Revoked in the midst, the account is stopped, and its tasks are kept; with the account's new key all of them are
    followed to their end, and the rest is ordered."""
    async with night(tmp_path, provider, render=20 * MINUTE) as n:
        key = n.s.sandbox.keys[provider]
        running = n.start()
        await in_the_midst(n, 4)
        await n.s.control("keys", provider=provider, key=key, revoked=True)
        assert await running is Exit.PAUSED
        assert sorted(await n.state()) == ["queued"] * 2 + ["running"] * 4
        assert "the account is stopped" in n.said
        assert f"{provider} is stopped" in n.said
        assert key not in n.said
        refused = [each for each in await n.asked() if each["status"] in (401, 403)]
        assert len(refused) <= n.concurrency
        await n.s.control("keys", provider=provider, key=key, revoked=False)
        async with liar(n.s, provider, aliases={OTHER_KEY: key}) as seen:
            assert await n.run(key=OTHER_KEY) is Exit.DONE
            assert {said.asked["Authorization"] for said in seen.seen} == {f"Bearer {OTHER_KEY}"}
        await n.all_is_well()


@pytest.mark.parametrize("provider", ["seedance2ai", "happyhorse"])
async def test_F72_with_another_accounts_key_nothing_is_ordered(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that it does not know stop the account; open questions are a person's. With the right key all goes on."""
    monkeypatch.setattr(runs, "PATIENCE", 0.0)
    async with night(tmp_path, provider, render=20 * MINUTE) as n:
        await n.s.fault(provider, "stuck", when="submit")
        running = n.start()
        await until(lambda: n.ordered() >= 1)
        await n.s.fault(provider, "hang", when="submit")
        while (await n.s.control("faults"))["queue"]:  # noqa: ASYNC110  # until the sandbox has it
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        assert await running is Exit.INTERRUPTED
        before = await n.state()
        assert before.count("unknown") == 1
        assert "running" in before
        seen, ordered = int((await n.asked())[-1]["seq"]), n.ordered()
        assert await n.run(key=OTHER_KEY) is Exit.PERSON_NEEDED
        became = {"unknown": "held", "downloading": "succeeded"}  # a file is fetched without any key
        assert await n.state() == [became.get(state, state) for state in before]
        assert [each for each in await n.asked(seen) if each["point"] == "submit"] == []
        assert n.ordered() == ordered
        assert f"{provider} is stopped: tasks in flight were paid with another key" in n.said
        stuck = n.s.tasks(provider)[0]["id"]
        await n.s.control("finish", provider=provider, task_id=stuck, outcome="completed")
        assert await n.run() is Exit.PERSON_NEEDED
        assert sorted(await n.state()) in (["held"] * held + ["succeeded"] * (6 - held) for held in (1, 2))
        assert [job.standing.attempts for job in await n.s.jobs()] == [1] * 6
        assert n.ordered() == n.jobs
