"""A 429 that means "too many tasks at once" (SeeGen): orders wait for a task of ours to end; nothing else does."""

from __future__ import annotations

from pathlib import Path

from scene import scene, states

from runner.engine import Exit

CLIPS = 6


async def test_orders_wait_for_a_slot_and_polls_do_not(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=60.0, concurrency={"seegen": 2}) as s:
        s.concurrency = 4
        for n in range(CLIPS):
            s.ask("seegen", f"clip {n}", duration=5)
        assert await s.run() is Exit.DONE
        assert states(await s.jobs()) == ["succeeded"] * CLIPS
        assert len(s.tasks("seegen")) == CLIPS
        assert all(job.standing.attempts == 1 for job in await s.jobs()), "a refused order is no attempt"
        requests = (await s.control("requests?limit=10000"))["requests"]
        refused = [n for n, each in enumerate(requests) if each["status"] == 429]
        polled = [n for n, each in enumerate(requests) if each["path"].endswith("queryTask")]
        assert refused, "the provider had no more slots"
        assert any(n > refused[0] for n in polled), "tasks go on being asked for"
        assert len(refused) < 3 * CLIPS, "no hot circle of orders"


async def test_others_may_hold_all_the_slots(tmp_path: Path) -> None:
    """None of ours is running: the wait grows by itself, and ends when the others have gone."""
    async with scene(tmp_path, speed=120.0) as s:
        s.ask("seegen", "patient", duration=5)
        await s.fault("seegen", "rate_limited", when="submit", times=4)
        assert await s.run() is Exit.DONE
        assert len(s.tasks("seegen")) == 1
