"""Local files from a manifest to a provider: what the plan lists, what it allows, and that nothing else ever leaves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import samples
from liar import Said, liar
from manifests import yaml_of
from scene import Scene, scene, states
from test_endings import settings_of
from test_open_questions import ahead
from torture.commands import Commands, Ended

from runner import references
from runner.cli.assembly import RunOptions, plan_against, prepared, read_order
from runner.engine import Exit
from runner.jobs import Change
from runner.lifecycle import deciding, hosting
from runner.store import open_store

VIDEO = {"provider": "happyhorse", "model": "doubao-seedance-2-0", "duration": 5}
STILL = {"provider": "happyhorse", "model": "nano-banana-2"}
PICTURE, OTHER = samples.png(300), samples.png(301)


def write(folder: Path, *sources: str, **top: Any) -> Path:
    """A manifest with a job for each source, which is its first frame."""
    jobs = {
        f"job{n}": {**VIDEO, "prompt": f"scene {n}", "references": {"first_frame": source}}
        for n, source in enumerate(sources)
    }
    path = folder / "m.yaml"
    path.write_text(yaml_of(jobs, **top))
    return path


def put(path: Path, content: bytes = PICTURE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- what the plan tells


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    folder = tmp_path / "work"
    folder.mkdir()
    return Commands(folder, {})


def leaving(ended: Ended) -> list[str]:
    return [line for line in ended.err.splitlines() if "this machine" in line]


def test_T10_plan_lists_every_file_that_leaves_as_data(commands: Commands) -> None:
    here = commands.folder
    put(here / "a.png")
    put(here / "stills" / "b.jpg", samples.jpeg())
    still = {**STILL, "prompt": "a still"}
    jobs = {
        "clip": {**VIDEO, "prompt": "a clip", "references": {"first_frame": "stills/b.jpg"}},
        "one": {**still, "references": {"images": ["a.png", "./stills/../a.png"]}},
        "two": {**still, "provider": "horse-b", "references": {"images": ["a.png", "https://example.com/a.png"]}},
    }
    (here / "m.yaml").write_text(yaml_of(jobs, providers={"horse-b": {"uses": "happyhorse"}}))
    told = commands.json("plan", "m.yaml")
    assert list(told) == ["batch", "jobs", "totals", "files", "warnings"]
    first, second = told["files"]
    assert first == {
        "path": str(here / "a.png"), "media_type": "image/png", "bytes": len(PICTURE),
        "sha256": references.inspect(here / "a.png").sha256, "accounts": ["happyhorse", "horse-b"],
    }  # fmt: skip
    assert (second["path"], second["media_type"]) == (str(here / "stills" / "b.jpg"), "image/jpeg")
    assert second["accounts"] == ["happyhorse"]


def test_plan_lists_twenty_files_for_a_person_and_all_as_data(commands: Commands) -> None:
    names = [f"{n:02}.png" for n in range(25)]
    for n, name in enumerate(names):
        put(commands.folder / name, samples.png(300 + n))
    write(commands.folder, *names)
    listed = leaving(commands.run("plan", "m.yaml"))
    assert len(listed) == 21
    assert f"{commands.folder / '00.png'} (image/png, {len(PICTURE)} bytes) to happyhorse" in listed[0]
    assert "+5 more" in listed[-1]
    assert [Path(file["path"]).name for file in commands.json("plan", "m.yaml")["files"]] == names


def test_plan_without_local_files_lists_none(commands: Commands) -> None:
    write(commands.folder, "https://example.com/a.png")
    assert commands.json("plan", "m.yaml")["files"] == []
    assert leaving(commands.run("plan", "m.yaml")) == []


def test_T16_names_of_files_do_not_steer_a_terminal(commands: Commands) -> None:
    put(commands.folder / "evil\x1b[31m\x07[bold].png")
    (commands.folder / "a.png").symlink_to("evil\x1b[31m\x07[bold].png")
    write(commands.folder, "a.png")
    ended = commands.run("plan", "m.yaml")
    [line] = leaving(ended)
    assert "\\u{1b}[31m\\u{7}[bold].png" in line
    assert "\x1b" not in ended.err
    assert commands.json("plan", "m.yaml")["files"][0]["path"].endswith("evil\x1b[31m\x07[bold].png")


# --- what a person allows


def test_T10_only_the_command_line_allows_a_folder(commands: Commands) -> None:
    shared = commands.folder.parent / "shared"
    put(shared / "a.png")
    put(commands.folder.parent / "more" / "b.png")
    write(commands.folder, "../shared/a.png", "../more/b.png")
    refused = commands.run("plan", "m.yaml")
    assert (refused.code, refused.err.count("B59")) == (2, 2)
    assert "--allow-files" in refused.err
    half = commands.run("plan", "m.yaml", "--allow-files", str(shared), RUNNER_ALLOW_FILES="..")
    assert (half.code, half.err.count("B59")) == (2, 1)
    told = commands.json("plan", "m.yaml", "--allow-files", "../shared", "--allow-files", "../more")
    assert [Path(file["path"]).name for file in told["files"]] == ["b.png", "a.png"]


def test_allow_files_must_be_a_folder_and_needs_a_manifest(commands: Commands) -> None:
    write(commands.folder, "https://example.com/a.png")
    for command in ("plan", "run", "rehearse"):
        refused = commands.run(command, "m.yaml", "--allow-files", "nowhere")
        assert (refused.code, "nowhere: not a folder" in refused.err) == (2, True)
    refused = commands.run("run", "--allow-files", ".")
    assert (refused.code, "goes with a manifest" in refused.err) == (2, True)
    assert {path.name for path in commands.folder.iterdir()} == {"m.yaml", "said"}


def test_a_rehearsal_uploads_from_an_allowed_folder(commands: Commands) -> None:
    put(commands.folder.parent / "shared" / "a.png")
    write(commands.folder, "../shared/a.png")
    assert commands.run("rehearse", "m.yaml").code == 2
    ended = commands.run("rehearse", "m.yaml", "--allow-files", "../shared", "--speed", "300", "--no-progress")
    assert ended.code == 0, ended.said()
    assert len(leaving(ended)) == 1


# --- what really leaves


async def uploads(s: Scene) -> int:
    """How many files the provider got."""
    return len([r for r in (await s.control("requests"))["requests"] if r["path"].endswith("/upload")])


def options_of(s: Scene) -> RunOptions:
    return RunOptions(s.db, settings_of(s, "happyhorse"))


async def queued(s: Scene, manifest: Path, allowed: Sequence[Path] = ()) -> None:
    """Its jobs are in the queue, and nothing was done about them yet."""
    async with prepared(read_order(manifest, allowed), options_of(s), s.clock):
        pass


async def run_queued(s: Scene) -> Exit:
    """`runner run` without a manifest."""
    async with prepared(None, options_of(s), s.clock) as engine:
        return await engine.run()


async def files_planned(s: Scene, manifest: Path) -> list[str]:
    plan = await plan_against(read_order(manifest), s.db, s.clock, manifest.parent)
    return [each.file.path.name for each in plan.files]


async def test_what_is_hosted_or_paid_for_does_not_leave_again(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.png", OTHER)
    async with scene(tmp_path) as s:
        assert await files_planned(s, write(tmp_path, "a.png")) == ["a.png"]
        await queued(s, tmp_path / "m.yaml")
        assert await files_planned(s, tmp_path / "m.yaml") == ["a.png"]
        assert await run_queued(s) is Exit.DONE
        assert await files_planned(s, tmp_path / "m.yaml") == []
        assert await files_planned(s, write(tmp_path, "a.png", "a.png", "b.png")) == ["b.png"]


async def test_a_queue_sends_what_its_plan_allowed(tmp_path: Path) -> None:
    work, shared = tmp_path / "work", tmp_path / "shared"
    put(work / "a.png")
    put(shared / "b.png", OTHER)
    (work / "c.png").symlink_to(shared / "b.png")
    async with scene(tmp_path) as s:
        await queued(s, write(work, "a.png", "../shared/b.png", "c.png"), [shared])
        assert await run_queued(s) is Exit.DONE
        assert await uploads(s) == 2, "once per content"


def swap_folder(work: Path, target: Path) -> None:
    (work / "in").rename(work / "was")
    (work / "in").symlink_to(target)


def swap_file(work: Path, target: Path) -> None:
    (work / "in" / "a.png").unlink()
    (work / "in" / "a.png").symlink_to(target / "a.png")


def move_and_link(work: Path, target: Path) -> None:
    """The very same file, but outside."""
    shutil.rmtree(target)
    (work / "in").rename(target)
    (work / "in").symlink_to(target)


def swap_root(work: Path, target: Path) -> None:
    """The manifest's own folder becomes a link to what looks just like it."""
    shutil.rmtree(target)
    shutil.copytree(work, target)
    work.rename(work.with_name("was"))
    work.symlink_to(target)


def change(work: Path, _target: Path) -> None:
    before = (work / "in" / "a.png").stat()
    put(work / "in" / "a.png", OTHER[: len(PICTURE)])
    os.utime(work / "in" / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(work: Path, _target: Path) -> None:
    (work / "in" / "a.png").unlink()


def pipe(work: Path, _target: Path) -> None:
    (work / "in" / "a.png").unlink()
    os.mkfifo(work / "in" / "a.png")


SWAPS = (swap_folder, swap_file, move_and_link, swap_root, change, remove, pipe)


@pytest.mark.parametrize(
    ("swap", "content"), [*((swap, PICTURE) for swap in SWAPS), (swap_folder, OTHER), (swap_file, OTHER)]
)
async def test_T10_a_swap_between_plan_and_submission_sends_nothing(
    tmp_path: Path, swap: Callable[[Path, Path], None], content: bytes
) -> None:
    work, secret = tmp_path / "work", tmp_path / "secret"
    put(work / "in" / "a.png")
    put(secret / "a.png", content)
    async with scene(tmp_path) as s:
        await queued(s, write(work, "in/a.png"))
        swap(work, secret)
        assert await run_queued(s) is Exit.SOME_FAILED
        [job] = await s.jobs()
        assert job.standing.failure is not None
        assert (job.standing.failure.kind, job.standing.attempts) == ("invalid_request", 0)
        assert await uploads(s) == 0
        assert s.tasks("happyhorse") == []


@pytest.mark.parametrize("swap", [swap_folder, swap_file, swap_root])
async def test_T10_an_allowed_folder_swapped_for_a_link_allows_nothing(
    tmp_path: Path, swap: Callable[[Path, Path], None]
) -> None:
    shared, secret = tmp_path / "shared", tmp_path / "secret"
    put(tmp_path / "work" / "x.png")
    put(shared / "in" / "a.png")
    put(secret / "a.png")
    async with scene(tmp_path) as s:
        await queued(s, write(tmp_path / "work", "../shared/in/a.png"), [shared])
        swap(shared, secret)
        assert await run_queued(s) is Exit.SOME_FAILED
        assert await uploads(s) == 0


@pytest.mark.parametrize("swap", SWAPS)
async def test_T10_a_swap_at_the_last_moment_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path, Path], None]
) -> None:
    """After the file was found unchanged, and before its bytes are read."""
    work, secret = tmp_path / "work", tmp_path / "secret"
    put(work / "in" / "a.png")
    put(secret / "a.png")
    really = references.content_of

    def swapped(file: references.LocalFile) -> bytes:
        swap(work, secret)
        return really(file)

    async with scene(tmp_path) as s:
        await queued(s, write(work, "in/a.png"))
        monkeypatch.setattr(hosting.references, "content_of", swapped)
        assert await run_queued(s) is Exit.SOME_FAILED
        [job] = await s.jobs()
        assert job.standing.failure is not None
        assert job.standing.failure.code == "reference_changed"
        assert await uploads(s) == 0


async def test_the_same_content_is_found_where_it_lies_now(tmp_path: Path) -> None:
    """Renamed, in a folder that moved, and planned anew: still the same jobs."""
    work = tmp_path / "work"
    put(work / "a.png")
    put(work / "b.png", OTHER)
    async with scene(tmp_path) as s:
        await queued(s, write(work, "a.png", "b.png"))
        before = [job.key for job in await s.jobs()]
        work.rename(tmp_path / "moved")
        (tmp_path / "moved" / "b.png").rename(tmp_path / "moved" / "c.png")
        async with prepared(read_order(write(tmp_path / "moved", "a.png", "c.png")), options_of(s), s.clock) as engine:
            assert await engine.run() is Exit.DONE
        assert [job.key for job in await s.jobs()] == before
        assert await uploads(s) == 2


async def test_what_failed_for_its_file_is_mended_by_planning_anew(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    async with scene(tmp_path) as s:
        await queued(s, write(tmp_path, "a.png"))
        (tmp_path / "a.png").rename(tmp_path / "b.png")
        assert await run_queued(s) is Exit.SOME_FAILED
        await queued(s, write(tmp_path, "b.png"))
        [job] = await s.jobs()
        async with open_store(s.db, s.clock) as store:
            again = deciding.retry(job, [], s.clock.now())
            assert isinstance(again, Change)
            await store.record(again)
        assert await run_queued(s) is Exit.DONE
        assert states(await s.jobs()) == ["succeeded"]


@pytest.mark.parametrize("inside", [True, False])
async def test_jobs_of_an_older_queue_are_held_to_the_manifests_folder(tmp_path: Path, inside: bool) -> None:
    """They do not know where their file was found, only how it was written."""
    put(tmp_path / "work" / "a.png")
    put(tmp_path / "secret" / "a.png")
    if not inside:
        (tmp_path / "work" / "a.png").unlink()
        (tmp_path / "work" / "a.png").symlink_to(tmp_path / "secret" / "a.png")
    async with scene(tmp_path / "work") as s:
        s.ask("happyhorse", "old", duration=5, files={"first_frame": put(tmp_path / "work" / "b.png")})
        spec = json.loads(s.orders[0].spec)
        [reference] = spec["references"]
        del reference["file"]
        reference["path"] = "a.png"
        s.orders[0] = replace(s.orders[0], spec=json.dumps(spec))
        assert await s.run() is (Exit.DONE if inside else Exit.SOME_FAILED)
        assert await uploads(s) == int(inside)


@pytest.mark.parametrize(("later", "times"), [(1000, 1), (2000, 2), (9000, 2)])
async def test_a_url_that_runs_out_is_had_anew_before_it_does(tmp_path: Path, later: float, times: int) -> None:
    """How long the URL of an upload is good for is not documented; where it is a signed one it says so itself."""
    given: list[str] = []

    def signing(said: Said) -> Said | None:
        if not said.path.endswith("/upload"):
            return None
        signed = f"X-Amz-Date={s.clock.now():%Y%m%dT%H%M%SZ}&X-Amz-Expires=3600&X-Amz-Signature=0"
        given.append(f"{json.loads(said.body)['data']['url']}?{signed}")
        return replace(said, body=json.dumps({"data": {"url": given[-1]}, "error": None}).encode())

    async with scene(tmp_path) as s:
        picture = put(tmp_path / "a.png")
        s.ask("happyhorse", "now", duration=5, files={"first_frame": picture})
        async with liar(s, "happyhorse", signing):
            assert await s.run() is Exit.DONE
            s.ask("happyhorse", "later", duration=5, files={"first_frame": picture})
            s.clock = ahead(s.clock, later)
            assert await s.run() is Exit.DONE
        [_, job] = await s.jobs()
        assert job.attempt is not None
        assert (len(given), json.loads(job.attempt.body)["image_url"]) == (times, given[-1])
