"""Whole runs against providers that do wrong in the ways of the fault catalogue: what the runner makes of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from scene import VIDEO, Scene, scene, states, until

from runner.cli.assembly import RunOptions, prepared, read_order
from runner.cli.run import _largest_file
from runner.engine import Exit
from runner.errors import InputError
from runner.jobs import Change, State
from runner.lifecycle import deciding
from runner.settings import Settings
from runner.store import open_store
from runner.store.work import outputs_of


def at(s: Scene) -> Mapping[str, int]:
    """What fired, by label."""
    fired: Mapping[str, int] = s.sandbox.observed()["faults_fired_at"]
    return fired


async def spent(s: Scene) -> dict[str, Decimal]:
    """By the queue's own ledger, per account."""
    net: defaultdict[str, Decimal] = defaultdict(Decimal)
    for work in await s.jobs():
        net[work.account] += work.charged - work.refunded
    return dict(net)


async def causes(s: Scene) -> dict[str, tuple[str, str]]:
    """Per account: the state of its last job, and the code of its failure."""
    return {w.account: (w.standing.state.value, w.standing.failure.code if w.standing.failure else "")
            for w in await s.jobs()}  # fmt: skip


def files(s: Scene) -> list[str]:
    """All that lies below the folder, but the queue."""
    paths = [path for path in s.folder.rglob("*") if path.is_file() and not path.name.startswith("runner.db")]
    return sorted(str(path.relative_to(s.folder)) for path in paths)


async def test_F14_F16_F18_F30_F47_F49_F85_what_is_only_unusual_changes_nothing(tmp_path: Path) -> None:
    """Late, in single bytes, behind hints, on a connection that is gone, with a strange progress, status, type or
    name: the results and the bill are those of a day without faults."""
    submits = dict(zip(VIDEO, ["latency", "one_byte_segments", "early_hints", "closes_idle", "latency"], strict=True))
    downloads = ["evil_name", "wrong_type", "one_byte_segments", "early_hints", "latency"]
    polls = ["closes_idle", "early_hints", "respelled_status", "one_byte_segments", "odd_progress"]
    async with scene(tmp_path, speed=240, render=1_000_000) as s:
        for (provider, submit), download in zip(submits.items(), downloads, strict=True):
            s.ask(provider, "as on any day")
            await s.fault(provider, submit, when="submit")
            await s.fault(provider, download, when="download")
            for poll in polls:
                await s.fault(provider, poll, when="poll")
        running = asyncio.create_task(s.run())
        await until(lambda: sum(at(s).get(f"{name}@poll", 0) for name in polls) == len(polls) * len(VIDEO))
        for provider in VIDEO:
            [task] = s.tasks(provider)
            await s.control("finish", provider=provider, task_id=task["id"])
        assert await running is Exit.DONE
        works = await s.jobs()
        assert [(w.standing.state, w.standing.attempts) for w in works] == [(State.SUCCEEDED, 1)] * 5
        assert await spent(s) == {provider: s.net(provider) for provider in VIDEO}
        assert files(s) == sorted(f"out/{p}-{n}.mp4{more}" for n, p in enumerate(VIDEO) for more in ("", ".json"))
        fired = at(s)
        assert {name: fired.get(f"{name}@poll") for name in polls} == dict.fromkeys(polls, 5)
        assert "closes_idle@submit" not in fired, "an order has a connection of its own: nobody can meet a closed one"
        assert {label for label in fired if "@download" in label} == {f"{name}@download" for name in downloads}
        assert s.sandbox.observed()["violations"] == s.sandbox.observed()["leaks"] == []


async def test_F36_too_many_headers_are_no_answer(tmp_path: Path) -> None:
    """To an order: an open question, looked into and never bought again. To anything else: asked again."""
    async with scene(tmp_path, speed=240) as s:
        for provider, how in zip(VIDEO, ["many", "long", "many", "long", "many"], strict=True):
            s.ask(provider, "a head without end")
            for when in ("submit", "poll", "download"):
                await s.fault(provider, "many_headers", when=when, how=how)
        assert await s.run() is Exit.PERSON_NEEDED
        found = await causes(s)
        held = {"seedhorse-video", "seegen"}  # neither a key nor a history
        assert found == {p: ("held", "no_answer") if p in held else ("succeeded", "") for p in VIDEO}
        assert [len(s.tasks(provider)) for provider in VIDEO] == [1] * 5
        assert at(s) == {
            "many_headers@submit:how=many": 3, "many_headers@submit:how=long": 2,
            "many_headers@poll:how=many": 2, "many_headers@poll:how=long": 1,
            "many_headers@download:how=many": 2, "many_headers@download:how=long": 1,
        }  # fmt: skip


async def test_F25_F79_F82_circles_wrong_lengths_and_wrong_bytes_are_tried_again(tmp_path: Path) -> None:
    wrong = {"happyhorse": ["loop"], "seegen": ["long_media", "short_media"], "seedance2ai": ["cut_media"]}
    async with scene(tmp_path, speed=240) as s:
        await s.fault("seedance2ai", "corrupt_media", when="download", checksum=True)
        for provider, faults in wrong.items():
            s.ask(provider, "at last")
            for fault in faults:
                await s.fault(provider, fault, when="download")
        assert await s.run() is Exit.DONE
        assert [len(s.tasks(provider)) for provider in wrong] == [1, 1, 1]
        names = {f"{name}@download" for faults in wrong.values() for name in faults}
        assert set(at(s)) == names | {"corrupt_media@download:checksum=true"}
        hops = [each for each in s.sandbox.reports.requests()["requests"] if each["path"].startswith("/loop/")]
        assert len(hops) == 5


async def test_F26_a_download_is_not_led_astray(tmp_path: Path) -> None:
    targets = ["file:///etc/passwd", "ftp://127.0.0.1/x", "https://169.254.169.254/latest"]
    async with scene(tmp_path, speed=240) as s:
        for provider, target in zip(VIDEO, targets, strict=False):
            s.ask(provider, "nothing to see there")
            await s.fault(provider, "redirect", when="download", location=target, status=302)
        assert await s.run() is Exit.PERSON_NEEDED
        assert set((await causes(s)).values()) == {("held", "download_failed")}
        assert set(at(s)) == {f"redirect@download:location={target}:status=302" for target in targets}
        assert files(s) == []


async def test_F83_a_file_without_end_ends_at_the_cap(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=240) as s:
        await s.fault("seedance2ai", "endless", when="download")
        manifest = tmp_path / "m.yaml"
        manifest.write_text(
            "{version: 1, batch: b, jobs: {a: {provider: seedance2ai, model: seedance, prompt: for ever}}}"
        )
        keys = {
            "SEEDANCE2AI_API_KEY": s.sandbox.keys["seedance2ai"],
            "SEEDANCE2AI_BASE_URL": s.sandbox.base_urls["seedance2ai"],
        }
        options = RunOptions(s.db, Settings.read(tmp_path, keys), speed=240, largest_file=_largest_file("2000000"))
        async with prepared(read_order(manifest), options, s.clock) as engine:
            assert await engine.run() is Exit.PERSON_NEEDED
        [work] = await s.jobs()
        assert work.standing.failure is not None
        assert "more than the 2000000 bytes allowed" in work.standing.failure.message
        assert (states([work]), files(s), at(s)) == (["held"], ["m.yaml"], {"endless@download": 1})


async def test_F83_one_file_that_cannot_be_had_does_not_keep_the_others_from_coming(tmp_path: Path) -> None:
    """The first of two has no end, and the second comes late: it is waited for, and the first not asked for again."""
    async with scene(tmp_path, speed=240) as s:
        s.ask("seedhorse", "two of them", model="Imagen Nano Banana 2", count=2)
        await s.fault("seedhorse", "endless", when="download")
        await s.fault("seedhorse", "unavailable", when="download", times=2, status=503)
        async with s.engine() as engine:
            engine.lanes[0].desk.largest_file = 2_000_000
            assert await engine.run() is Exit.PERSON_NEEDED
        [work] = await s.jobs()
        assert work.standing.failure is not None
        assert "more than the 2000000 bytes allowed" in work.standing.failure.message
        assert at(s)["endless@download"] == 1
        assert [Path(name).stem for name in files(s) if not name.endswith(".json")] == ["seedhorse-0-2"]


async def test_a_part_of_what_was_ordered_stays_a_part_after_a_person_had_it_fetched(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=240) as s:
        s.ask("seedhorse", "three of them", model="Imagen Nano Banana 2", count=3)
        await s.fault("seedhorse", "partial", when="submit")
        async with s.engine() as engine:
            engine.lanes[0].desk.largest_file = 10
            assert await engine.run() is Exit.PERSON_NEEDED
        async with open_store(s.db, s.clock) as store:
            [work] = await s.jobs()
            change = deciding.retry(work, await store.read(outputs_of, work.id), s.clock.now())
            assert isinstance(change, Change)
            await store.record(change)
        assert await s.run() is Exit.SOME_FAILED
        assert await causes(s) == {"seedhorse": ("partial", "partial")}
        assert len([name for name in files(s) if not name.endswith(".json")]) == 2


@pytest.mark.parametrize(("text", "most"), [(None, None), ("", None), ("2000000", 2_000_000)])
def test_how_large_a_file_may_be(text: str | None, most: int | None) -> None:
    assert _largest_file(text) == most


@pytest.mark.parametrize("text", ["0", "-1", "2 GB", "1e9", "9" * 16])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a number of bytes"):
        _largest_file(text)


async def test_F38_a_refusal_under_200_is_of_the_class_of_its_code(tmp_path: Path) -> None:
    codes = {"happyhorse": "insufficient_credits", "seedance2ai": "invalid_request", "seedhorse": "50015"}
    async with scene(tmp_path, speed=240) as s:
        for provider, code in codes.items():
            s.ask(provider, "yes and no")
            await s.fault(provider, "error_before_charge", status=200, code=code)
        assert await s.run() is Exit.SOME_FAILED
        assert await causes(s) == {
            "happyhorse": ("succeeded", ""),  # waited for credits
            "seedance2ai": ("failed", "invalid_request"),
            "seedhorse": ("failed", "50015"),
        }
        assert set(at(s)) == {f"error_before_charge@submit:code={code}:status=200" for code in codes.values()}


async def test_F51_a_task_that_is_anothers_already_is_not_taken(tmp_path: Path) -> None:
    """The first order's task is its own: it had the id before the second was sent. The second waits for a person."""
    async with scene(tmp_path, speed=240) as s:
        for provider in ("seedance2ai", "seegen"):
            for number in range(2):
                s.ask(provider, f"twin {number}")
            await s.fault(provider, "same_id", times=2)
        assert await s.run() is Exit.PERSON_NEEDED
        works: list[Any] = await s.jobs()
        for provider in ("seedance2ai", "seegen"):
            mine = [work for work in works if work.account == provider]
            assert sorted(states(mine)) == ["held", "succeeded"]
            [held] = [work for work in mine if work.standing.state is State.HELD]
            assert (held.standing.failure.code, held.standing.task_id) == ("twin_task", None)
            assert len(s.tasks(provider)) == 2
