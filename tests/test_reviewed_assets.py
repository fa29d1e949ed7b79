"""SeeGen's reviewed assets, through whole runs: registered once, judged before anything is paid for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from scene import Scene, scene, states, until

from runner.engine import Exit
from runner.errors import ErrorKind
from runner.jobs import State

MOTION = {"role": "videos", "url": "https://example.com/motion-5s.mp4"}
FACE = {"role": "images", "url": "https://example.com/face.jpg", "review": True}
REFUSED = {"role": "images", "url": "https://example.com/sandbox:refused.jpg", "review": True}
SLOW = {"role": "images", "url": "https://example.com/sandbox:slow.jpg", "review": True}
STUCK = {"role": "images", "url": "https://example.com/sandbox:stuck.jpg", "review": True}


async def uploads(s: Scene) -> dict[str, int]:
    found: dict[str, dict[str, int]] = (await s.control("observed"))["asset_uploads"]
    return found.get("seegen", {})


async def test_an_asset_is_registered_once_for_all_jobs_that_use_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        for n in range(6):
            s.ask("seegen", f"clip {n}", urls=[FACE, MOTION], duration=5)
        assert await s.run() is Exit.DONE
        assert await uploads(s) == {FACE["url"]: 1, MOTION["url"]: 1}
        assert s.net("seegen") == 6 * (5 + 5) * 30, "the video's five seconds are billed as measured"
        assert all(job.charged == 300 for job in await s.jobs())


async def test_nothing_is_paid_for_before_all_are_judged(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("seegen", "needs no asset", duration=5)
        s.ask("seegen", "its picture takes a while", urls=[SLOW], duration=5)
        assert await s.run() is Exit.DONE
        asked = [each["path"] for each in (await s.control("requests?limit=1000"))["requests"]]
        orders = [n for n, path in enumerate(asked) if path.endswith("createTask")]
        reviews = [n for n, path in enumerate(asked) if "/assets/" in path]
        assert len(orders) == 2
        assert len(reviews) >= 2, "handed over, and asked for"
        assert min(orders) > max(reviews), "an order went out while a picture was under review"


async def test_a_refused_reference_refuses_its_jobs_and_no_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("seegen", "refused", urls=[REFUSED], duration=5)
        s.ask("seegen", "refused as well", urls=[REFUSED], duration=6)
        s.ask("seegen", "not refused", urls=[FACE], duration=5)
        assert await s.run() is Exit.SOME_FAILED
        assert states(await s.jobs()) == ["failed", "failed", "succeeded"]
        for job in (await s.jobs())[:2]:
            assert job.standing.failure is not None
            assert job.standing.failure.kind is ErrorKind.MODERATED
            assert job.standing.attempts == 0
        assert s.net("seegen") == 200
        assert (await uploads(s))[REFUSED["url"]] == 1


@pytest.mark.parametrize("fault", ["lost_answer", "error_after_charge", "lost_request", "error_before_charge"])
async def test_an_upload_whose_answer_got_lost_is_looked_for_before_it_is_made_again(
    tmp_path: Path, fault: str
) -> None:
    async with scene(tmp_path) as s:
        s.ask("seegen", "lost and found", urls=[FACE], duration=5)
        await s.fault("seegen", fault, when="upload")
        assert await s.run() is Exit.DONE
        assert (await uploads(s))[FACE["url"]] == 1


async def test_a_review_that_never_ends_holds_up_only_its_own_jobs(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=3600.0) as s:
        s.ask("seegen", "its picture is never judged", urls=[STUCK], duration=5)
        s.ask("seegen", "goes on", duration=5)
        assert await s.run() is Exit.SOME_FAILED
        assert states(await s.jobs()) == ["failed", "succeeded"]
        failure = (await s.jobs())[0].standing.failure
        assert failure is not None
        assert (failure.kind, failure.code) == (ErrorKind.TIMEOUT, "review")


async def test_a_crash_in_the_middle_of_a_review_registers_nothing_twice(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=60.0) as s:
        s.ask("seegen", "crash", urls=[SLOW], duration=5)
        async with s.engine() as engine:
            work = asyncio.create_task(engine.run())
            await until(lambda: s.sandbox.observed()["asset_uploads"].get("seegen"))
            engine.stop.set()
            await work
        assert await s.run() is Exit.DONE
        assert (await uploads(s))[SLOW["url"]] == 1
        assert [job.standing.state for job in await s.jobs()] == [State.SUCCEEDED]


async def test_an_upscale_takes_its_source_as_it_is(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("seegen", "", model="upscale", resolution="4k", urls=[{**MOTION, "url": "https://example.com/a-8s.mp4"}])
        assert await s.run() is Exit.DONE
        assert await uploads(s) == {}
        assert s.net("seegen") == 400
        [job] = await s.jobs()
        assert (job.charged, job.standing.unsettled) == (400, False)
