"""Looking into a history that tells less, or something else, than we would like: nobody else's task is adopted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from liar import Lie, Said, liar
from scene import Scene, scene, until

from runner.engine import Exit
from runner.exchange import Listed, Phase, Report, ResultFile
from runner.jobs import State
from runner.lifecycle import following
from runner.store.work import Work

Entry = dict[str, Any]
Retold = Callable[[Entry], Entry]
NOW = datetime(2026, 11, 21, tzinfo=UTC)
TERSE = ("id", "prompt", "created_at", "status")


async def bought_elsewhere(s: Scene, **body: Any) -> str:
    """A video that somebody orders on the same account, not through us."""
    url = f"{s.sandbox.base_urls['happyhorse']}/api/v1/generate"
    async with httpx.AsyncClient() as client:
        answer = await client.post(url, json=body, headers={"Authorization": f"Bearer {s.sandbox.keys['happyhorse']}"})
    return str(answer.json()["data"]["video_id"])


def told_as(retold: Retold, ready: Callable[[], bool] = lambda: True) -> Lie:
    """Every entry of the history is told in another way; until it is `ready` there is none."""

    def lie(said: Said) -> Said | None:
        if "/videos?" not in said.path:
            return None
        if not ready():
            return replace(said, status=502, body=b"")
        data = json.loads(said.body)
        data["data"]["videos"] = [retold(entry) for entry in data["data"]["videos"]]
        return replace(said, body=json.dumps(data).encode())

    return lie


async def lost_beside(s: Scene, retold: Retold, **other: Any) -> tuple[Work, str, Exit]:
    """Our order never arrives; before the first look another one is bought. What became of our job, and the other."""
    bought: list[str] = []
    await s.fault("happyhorse", "lost_request", when="submit")
    async with liar(s, "happyhorse", told_as(retold, lambda: bool(bought))) as proxy:
        running = asyncio.create_task(s.run())
        await until(lambda: proxy.count("GET", "/videos?") > 0)
        bought.append(await bought_elsewhere(s, **other))
        ended = await running
    [job] = await s.jobs()
    return job, bought[0], ended


def terse(entry: Entry) -> Entry:
    return {name: entry[name] for name in TERSE}


def by_local_time(entry: Entry) -> Entry:
    """Without a zone, eight hours ahead of UTC: as seedhorse tells it in its document."""
    there = datetime.fromisoformat(entry["created_at"]) + timedelta(hours=8)
    return {**entry, "created_at": there.replace(tzinfo=None).isoformat()}


async def test_times_from_another_zone_are_no_times(tmp_path: Path) -> None:
    """Seen: with times eight hours ahead, a task that was bought before our order passed for its answer."""
    async with scene(tmp_path) as s:
        await bought_elsewhere(s, prompt="the same words", duration=5, model="doubao-seedance-2-0")
        await s.clock.sleep(600)
        s.ask("happyhorse", "the same words", duration=5)
        await s.fault("happyhorse", "lost_request", when="submit")
        async with liar(s, "happyhorse", told_as(by_local_time)):
            assert await s.run() is Exit.PERSON_NEEDED
        [job] = await s.jobs()
        assert (job.standing.state, job.standing.task_id) == (State.HELD, None)


async def test_a_video_in_the_list_is_not_the_image_that_was_ordered(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.leave = True
        s.ask("happyhorse", "the same words", model="nano-banana-2")
        job, _, ended = await lost_beside(s, terse, prompt="the same words")
        assert (job.standing.state, job.standing.task_id, ended) == (State.HELD, None, Exit.PERSON_NEEDED)


async def test_what_was_not_ordered_is_what_the_document_says(tmp_path: Path) -> None:
    """Its default is 5 seconds: a video of 10 is somebody else's, whatever its words."""
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "the same words")
        job, _, ended = await lost_beside(s, dict, prompt="the same words", duration=10, model="doubao-seedance-2-0")
        assert (job.standing.state, job.standing.task_id, ended) == (State.HELD, None, Exit.PERSON_NEEDED)


async def test_a_length_in_another_form_is_the_same_length(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "the same words", duration=5)
        other = {"prompt": "the same words", "duration": 5, "model": "doubao-seedance-2-0"}
        job, task_id, ended = await lost_beside(s, lambda entry: {**entry, "duration": 5.0}, **other)
        assert (job.standing.task_id, ended) == (task_id, Exit.DONE)


def test_a_fresh_url_is_asked_of_the_task_and_not_of_a_list_that_may_tell_the_old_one() -> None:
    """Seen: a list that kept telling the URL that had run out, until a finished video was held."""
    report = Report("17", Phase.DONE, "completed", files=(ResultFile("https://cdn.example/old", 0),), used=Decimal(38))
    listed = {"17": Listed("17", None, None, report)}
    desk: Any = SimpleNamespace()
    ended, going = (SimpleNamespace(task_id="17", finished_at=at) for at in (NOW, None))
    work: Any = SimpleNamespace(id=1, standing=going)
    assert following._told(desk, work, listed) is report
    work.standing = ended
    assert following._told(desk, work, listed) is None


async def test_a_list_that_begins_with_the_oldest_is_read_to_its_end(tmp_path: Path) -> None:
    """In what order `GET /videos` lists is not documented."""
    newest: list[Entry] = []

    def oldest_first(said: Said) -> Said | None:
        if "/videos?" not in said.path:
            return None
        data = json.loads(said.body)
        if "page=1&" in said.path:
            newest[:] = data["data"]["videos"]
            data["data"]["videos"] = [before(number) for number in range(50)]
        elif "page=2&" in said.path:
            data["data"]["videos"] = newest
        return replace(said, body=json.dumps(data).encode())

    async with scene(tmp_path) as s:
        s.ask("happyhorse", "on the second page", duration=5)
        await s.fault("happyhorse", "lost_answer", when="submit")
        async with liar(s, "happyhorse", oldest_first):
            assert await s.run() is Exit.DONE
        [job], [task] = await s.jobs(), s.tasks("happyhorse")
        assert job.standing.task_id == task["id"]


def before(number: int) -> Entry:
    at = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=number)
    return {"id": f"vid_{number}", "prompt": "long ago", "status": "completed", "created_at": at.isoformat()}
