"""One YAML file makes a whole provider: plan, run, lost answers, files and bill, by the program itself over HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import samples
from manifests import yaml_of
from shop import KEY, KEY_HEADER, PRICE, Shop, shop
from torture.commands import Commands, Ended

CLIP = {"provider": "corner-shop", "model": "clip"}
ENVIRONMENT = {"CORNER_SHOP_API_KEY": KEY}


def commands(folder: Path, **more: str) -> Commands:
    return Commands(folder, {**ENVIRONMENT, **more})


async def run(here: Commands, *arguments: str) -> Ended:
    """A command, while the shop of this very process answers it."""
    return await asyncio.to_thread(here.run, *arguments)


async def told(here: Commands, *arguments: str) -> Any:
    return await asyncio.to_thread(here.json, *arguments)


def order(folder: Path, **jobs: Any) -> str:
    """A manifest with these jobs; each says what is different from a plain clip."""
    path = folder / "shots.yaml"
    path.write_text(yaml_of({name: {**CLIP, **job} for name, job in jobs.items()}))
    return str(path)


def states(jobs: list[dict[str, Any]]) -> dict[str, str]:
    return {job["job"]: job["state"] for job in jobs}


async def test_a_whole_night_by_one_file(tmp_path: Path) -> None:
    async with shop() as made:
        described = made.describe(tmp_path)
        (tmp_path / "start.png").write_bytes(samples.png())
        manifest = order(
            tmp_path,
            short={"prompt": "a hat", "duration": 2},
            long={"prompt": "a coat", "references": {"first_frame": "start.png"}, "size": "LARGE"},
            rude={"prompt": "a rude gesture"},
            broken={"prompt": "what breaks"},
        )
        here = commands(tmp_path, RUNNER_PROVIDERS=str(described))

        plan = await told(here, "plan", manifest)
        assert [job["estimated"] for job in plan["jobs"]] == ["6", "15", "15", "15"]
        assert made.posted == []
        assert not (tmp_path / "runner.db").exists()

        ended = await run(here, "run", manifest, "--yes", "--speed", "60")
        assert ended.code == 1, ended.said()
        jobs = await told(here, "jobs")
        assert states(jobs) == {"short": "succeeded", "long": "succeeded", "rude": "failed", "broken": "failed"}
        kinds = {job["job"]: job["error"] and (job["error"]["kind"], job["error"]["code"]) for job in jobs}
        assert kinds["rude"] == ("moderated", "rude")
        assert kinds["broken"] == ("task_failed", "oven")
        check_files(jobs)
        check_bodies(made)
        assert made.uploads == [samples.png()]

        [account] = (await told(here, "credits"))["accounts"]
        assert account == {"provider": "corner-shop", "account": "corner-shop", "charged": "36", "refunded": "15",
                           "net": str(made.paid), "unsettled": "0"}  # fmt: skip

        again = await run(here, "run", manifest)
        assert again.code == 1, "two of them failed"
        assert len(made.posted) == 4


def check_files(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        assert len(job["outputs"]) == (job["state"] == "succeeded")
        for output in job["outputs"]:
            assert Path(output["path"]).read_bytes() == samples.mp4()


def check_bodies(made: Shop) -> None:
    bodies = {json.loads(content)["wish"]["text"]: json.loads(content) for _, content in made.posted}
    assert bodies["a hat"] == {"product": "clip", "channel": "api", "wish": {"text": "a hat", "seconds": "2"}}
    wish = {"text": "a coat", "size": "large", "start": "https://attic.example/1.png"}
    assert bodies["a coat"] == {"product": "clip", "channel": "api", "wish": wish}


async def test_an_answer_lost_where_a_key_is_honoured_is_asked_for_again(tmp_path: Path) -> None:
    async with shop(keyed=True) as made:
        made.lost["a hat"] = 2
        here = commands(tmp_path)
        flags = ("--providers", str(made.describe(tmp_path)))
        ended = await run(here, "run", order(tmp_path, hat={"prompt": "a hat"}), "--yes", "--speed", "60", *flags)
        assert ended.code == 0, ended.said()
        assert len(made.orders) == 1
        assert len(made.posted) == 3
        [posted] = set(made.posted)
        [job] = await told(here, "jobs", *flags)
        assert posted[0] == job["idempotency_key"]
        assert (job["state"], job["attempts"]) == ("succeeded", 1)
        assert job["credits"] == {"estimated": "15", "charged": str(5 * PRICE), "refunded": "0"}
        assert "effectively once within an hour" in ended.err


async def test_an_answer_lost_where_there_is_a_list_is_looked_up(tmp_path: Path) -> None:
    async with shop() as made:
        made.lost["a hat"] = 1
        here = commands(tmp_path, RUNNER_PROVIDERS=str(made.describe(tmp_path, history=True)))
        manifest = order(tmp_path, hat={"prompt": "a hat"}, coat={"prompt": "a coat"})
        ended = await run(here, "run", manifest, "--yes", "--speed", "60")
        assert ended.code == 0, ended.said()
        assert sorted(order.prompt for order in made.orders.values()) == ["a coat", "a hat"]
        assert [key for key, _ in made.posted] == [None, None]
        jobs = await told(here, "jobs")
        assert states(jobs) == {"hat": "succeeded", "coat": "succeeded"}
        tickets = {order.prompt: order.ticket for order in made.orders.values()}
        assert {job["job"]: job["task_id"] for job in jobs} == {"hat": tickets["a hat"], "coat": tickets["a coat"]}
        assert "adopted where exactly one task can be it" in ended.err


async def test_an_answer_lost_where_there_is_neither_is_held_for_a_person(tmp_path: Path) -> None:
    async with shop() as made:
        made.lost["a hat"] = 1
        described = str(made.describe(tmp_path))
        here = commands(tmp_path)
        manifest = order(tmp_path, hat={"prompt": "a hat"})
        ended = await run(here, "run", manifest, "--yes", "--speed", "60", "--providers", described)
        assert ended.code == 4, ended.said()
        assert len(made.posted) == 1
        [job] = await told(here, "jobs")
        assert job["state"] == "held"

        without = await run(here, "resolve", str(job["id"]), "--adopt", "T001")
        assert without.code == 2
        assert "--providers" in without.err
        wrong = await run(here, "resolve", str(job["id"]), "--adopt", "T999", "--providers", described)
        assert wrong.code != 0
        adopted = await run(here, "resolve", str(job["id"]), "--adopt", "T001", "--providers", described)
        assert adopted.code == 0, adopted.said()
        ended = await run(here, "run", "--speed", "60", "--providers", described)
        assert ended.code == 0, ended.said()
        assert len(made.posted) == 1
        check_files(await told(here, "jobs"))


async def test_a_queue_without_the_description_leaves_its_jobs_alone_and_says_so(tmp_path: Path) -> None:
    async with shop() as made:
        described = str(made.describe(tmp_path))
        here = commands(tmp_path)
        manifest = order(tmp_path, hat={"prompt": "a hat"})
        budget = await run(here, "run", manifest, "--yes", "--max-credits", "1", "--providers", described)
        assert budget.code == 6, budget.said()

        ended = await run(here, "run")
        assert ended.code == 5, ended.said()
        assert 'corner-shop: 1 unfinished job is left alone: the provider "corner-shop" is not known here' in ended.err
        assert states(await told(here, "jobs")) == {"hat": "queued"}
        assert (await run(here, "status")).code == 0
        assert (await run(here, "show", "1")).code == 0
        unknown = await run(here, "plan", manifest)
        assert unknown.code == 2
        assert "--providers FILE" in unknown.err
        assert made.posted == []


async def test_no_rehearsal_without_a_pretend_provider(tmp_path: Path) -> None:
    async with shop() as made:
        described = made.describe(tmp_path)
        manifest = order(tmp_path, hat={"prompt": "a hat"})
        before = sorted(tmp_path.iterdir())
        ended = await run(Commands(tmp_path, {}), "rehearse", manifest, "--providers", str(described))
        assert ended.code == 2
        assert "no pretend provider for corner-shop" in ended.err
        assert sorted(path for path in tmp_path.iterdir() if path.name != "said") == before


# --- what a kill, and an edit of the description after it, must not make of an open question


async def killed_on_the_wire(folder: Path, made: Shop, **how: Any) -> tuple[Commands, str]:
    """A run that dies when its order has arrived, before the answer came."""
    here = commands(folder)
    manifest = order(folder, hat={"prompt": "a hat"})
    words = ("run", manifest, "--yes", "--speed", "60", "--providers", str(made.describe(folder, **how)))
    died = await asyncio.to_thread(lambda: here.over(here.start(*words, RUNNER_FAILPOINT="request-sent:2")))
    assert died.code == 137, died.said()  # (the first request is the program's own trial of the brink, to itself)
    return here, manifest


async def test_a_crash_where_nothing_can_be_looked_up_ends_with_a_person(tmp_path: Path) -> None:
    async with shop() as made:
        here, manifest = await killed_on_the_wire(tmp_path, made)
        ended = await run(here, "run", manifest, "--speed", "60", "--providers", str(tmp_path / "shop.yaml"))
        assert ended.code == 4, ended.said()
        [job] = await told(here, "jobs")
        assert job["state"] == "held"
        assert len(made.posted) == 1


@pytest.mark.parametrize("edit", ["no key any more", "a key after all", "another header", "another address"])
async def test_an_open_question_is_not_asked_again_in_another_way(edit: str, tmp_path: Path) -> None:
    """Under another header, or elsewhere, the provider would take the same order for a new one."""
    async with shop(keyed=edit != "a key after all") as made:
        here, manifest = await killed_on_the_wire(tmp_path, made)
        made.keyed = edit != "no key any more"
        path = made.describe(tmp_path)
        said = path.read_text()
        path.write_text(
            {
                "another header": said.replace(KEY_HEADER, "X-Other"),
                "another address": said.replace("127.0.0.1", "localhost"),
            }.get(edit, said)
        )
        ended = await run(here, "run", manifest, "--speed", "60", "--providers", str(path))
        assert ended.code == 4, ended.said()
        [job] = await told(here, "jobs")
        assert job["state"] == "held"
        assert len(made.posted) == 1


async def test_what_is_running_survives_an_edit_of_the_description(tmp_path: Path) -> None:
    async with shop(keyed=True) as made:
        path = made.describe(tmp_path)
        here = commands(tmp_path, RUNNER_PROVIDERS=str(path))
        manifest = order(tmp_path, hat={"prompt": "a hat"}, coat={"prompt": "a coat"})
        died = await asyncio.to_thread(
            lambda: here.over(here.start("run", manifest, "--yes", "--speed", "60", RUNNER_FAILPOINT="part-opened"))
        )
        assert died.code == 137, died.said()
        path.write_text(path.read_text().replace(KEY_HEADER, "X-Other"))
        ended = await run(here, "run", manifest, "--speed", "60")
        assert ended.code == 0, ended.said()
        assert len(made.orders) == 2
        check_files(await told(here, "jobs"))
