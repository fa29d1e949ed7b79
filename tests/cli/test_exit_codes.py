"""Every exit code of design.md section 10, each from a situation that a user gets into, and which one wins."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from torture.commands import PROGRAM, Ended

from cli.kit import Place, content, place, states
from cli.museum import Museum

HAPPYHORSE = {"provider": "happyhorse", "model": "doubao-seedance-1-5-pro", "duration": 5}
SEEDANCE = {"provider": "seedance2ai", "model": "nano-banana-pro"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """`poor` and `shut` are accounts of seedance2ai that things happen to; none of the scenes below minds another."""
    accounts = {"happyhorse": "happyhorse", "seedance2ai": "seedance2ai", "poor": "seedance2ai", "shut": "seedance2ai"}
    with place(tmp_path_factory.mktemp("codes"), accounts, seed="codes", render=4) as made:
        yield made


@pytest.fixture(scope="module")
def told(here: Place) -> dict[str, list[Ended]]:
    """What the runs of each scene ended with, one after the other; the scenes are played side by side."""
    here.sandbox.post("keys", provider="seedance2ai", key=here.keys["shut"], revoked=True)
    return here.each({name: lambda scene=scene: scene(here) for name, scene in SCENES.items()})


def run(here: Place, batch: str, jobs: Mapping[str, object], *options: str, **top: object) -> Ended:
    """A batch in a queue of its own."""
    text = json.dumps({"version": 1, "batch": batch, **top, "jobs": jobs})
    return here.run(here.write(f"{batch}.yaml", text), "--db", f"{batch}.db", *options)


def _good(here: Place) -> list[Ended]:
    jobs = {"cat": {**SEEDANCE, "prompt": "a cat"}}
    return [run(here, "good", jobs), run(here, "good", jobs)]


def _bad(here: Place) -> list[Ended]:
    jobs = {"dog": {**SEEDANCE, "prompt": "a dog (sandbox:moderated)"}, "hen": {**SEEDANCE, "prompt": "a hen"}}
    return [run(here, "bad", jobs)]


def _poor(here: Place) -> list[Ended]:
    """No credits, then a top-up."""
    jobs = {"fox": {**SEEDANCE, "provider": "poor", "prompt": "a fox"}}
    account = {"provider": "seedance2ai", "key": here.keys["poor"]}
    here.sandbox.post("credits", balance="0", **account)
    empty = run(here, "poor", jobs, "--no-wait", providers={"poor": {"uses": "seedance2ai"}})
    here.sandbox.post("credits", balance="1000", **account)
    return [empty, run(here, "poor", jobs, providers={"poor": {"uses": "seedance2ai"}})]


def _capped(here: Place) -> list[Ended]:
    """A cap, then none."""
    jobs = {"owl": {**HAPPYHORSE, "prompt": "an owl"}}
    return [run(here, "capped", jobs, "--max-credits", "happyhorse=24"), run(here, "capped", jobs)]


def _late(here: Place) -> list[Ended]:
    """Two minutes from now by the wall's clock. That of the run goes thirty times as fast, and has for an hour."""
    soon = f"{datetime.now() + timedelta(minutes=2):%H:%M}"
    here.write(
        "late.yaml", json.dumps({"version": 1, "batch": "late", "jobs": {"bat": {**SEEDANCE, "prompt": "a bat"}}})
    )
    return [here.run("late.yaml", "--db", "late.db", "--until", soon, RUNNER_ANCHOR=repr(here.sandbox.anchor - 3600))]


def _shut(here: Place) -> list[Ended]:
    """A refused key on one account; a failed job, and one beyond the budget, on the other."""
    jobs = {
        "elk": {**HAPPYHORSE, "prompt": "an elk (sandbox:failed)"},
        "ram": {**HAPPYHORSE, "prompt": "a ram", "duration": 12},
        "ant": {**SEEDANCE, "provider": "shut", "prompt": "an ant"},
    }
    return [run(here, "shut", jobs, budget={"happyhorse": 30}, providers={"shut": {"uses": "seedance2ai"}})]


SCENES: Mapping[str, Callable[[Place], list[Ended]]] = {
    "good": _good, "bad": _bad, "poor": _poor, "capped": _capped, "late": _late, "shut": _shut,
}  # fmt: skip


def orders(here: Place, prompt: str) -> int:
    return sum(task["prompt"] == prompt for name in ("happyhorse", "seedance2ai") for task in here.tasks(name))


def test_0_all_done(here: Place, told: Mapping[str, list[Ended]]) -> None:
    """It speaks of the jobs as they stand, earlier runs included."""
    assert [each.code for each in told["good"]] == [0, 0], told["good"][0].said()
    assert orders(here, "a cat") == 1


def test_1_finished_and_some_failed(told: Mapping[str, list[Ended]]) -> None:
    [bad] = told["bad"]
    assert bad.code == 1, bad.said()
    assert "finished; some jobs failed or are partial (exit 1)" in bad.err


def test_2_nothing_was_submitted(here: Place) -> None:
    """A key that is missing or malformed, nobody to ask, a wrong word: told before the queue is made."""
    good = {"version": 1, "batch": "two", "jobs": {"cow": {**SEEDANCE, "prompt": "a cow"}}}
    here.write("two.yaml", json.dumps(good))
    here.write("wrong.yaml", json.dumps({**good, "jobs": {"cow": {**SEEDANCE, "prompt": "a cow", "duration": 5}}}))
    paid = ("run", "two.yaml", "--yes")
    commands: Mapping[str, tuple[tuple[str, ...], dict[str, str], str]] = {
        "nobody to ask": (("run", "two.yaml"), {}, "add --yes"),
        "a mistake in the manifest": (("run", "wrong.yaml", "--yes"), {}, "wrong.yaml:1:"),
        "no manifest": (("run", "tow.yaml", "--yes"), {}, "two.yaml"),
        "an unknown account": ((*paid, "--max-credits", "seedance3ai=5"), {}, "did you mean 'seedance2ai'?"),
        "no time": ((*paid, "--until", "25:00"), {}, "not a time of day"),
        "a faster clock for strangers": (
            (*paid, "--speed", "9"), {"SEEDANCE2AI_BASE_URL": "https://example.com"}, "--speed is for sandboxes"),
        "no key": (paid, {"SEEDANCE2AI_API_KEY": ""}, "SEEDANCE2AI_API_KEY"),
        "a malformed key": (paid, {"SEEDANCE2AI_API_KEY": "short"}, "keys have 8 to 512"),
    }  # fmt: skip
    told = here.each({name: lambda words=words, more=more: here.commands.run(*words, **more)
                      for name, (words, more, _) in commands.items()})  # fmt: skip
    for name, ended in told.items():
        assert ended.code == 2, f"{name}: {ended.said()}"
        assert commands[name][2] in ended.err, f"{name}: {ended.said()}"
        assert ended.out == ""
    assert not here.queue.exists()
    assert orders(here, "a cow") == 0


def test_4_a_person_is_needed(museum: Museum) -> None:
    """An answer and files that got lost; a task that is overdue."""
    assert museum.ended["portraits"].code == museum.ended["river"].code == 4
    assert "a person is needed" in museum.ended["river"].err


def test_5_paused_and_the_same_command_goes_on(here: Place, told: Mapping[str, list[Ended]]) -> None:
    empty, topped_up = told["poor"]
    assert empty.code == 5, empty.said()
    assert "paused by credits" in empty.err
    assert topped_up.code == 0, topped_up.said()
    assert orders(here, "a fox") == 1


def test_6_a_limit_and_beyond_it_the_same_command_goes_on(here: Place, told: Mapping[str, list[Ended]]) -> None:
    [late], (capped, free) = told["late"], told["capped"]
    assert capped.code == 6, capped.said()
    assert late.code == 6, late.said()
    assert free.code == 0, free.said()
    assert (orders(here, "a bat"), orders(here, "an owl")) == (0, 1)


def test_7_this_machine_is_in_the_way(here: Place) -> None:
    log, results = here.each({
        "log": lambda: here.commands.run("providers", "--log-file", "nowhere/all.log"),
        "results": lambda: _into_a_full_disk(here),
    }).values()  # fmt: skip
    assert log.code == 7, log.said()
    assert "the log file nowhere/all.log cannot be written" in log.err
    assert results == (7, "error: the results cannot be written: No space left on device\n")


def _into_a_full_disk(here: Place) -> tuple[int, str]:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([PROGRAM, "schema"], cwd=here.folder, stdout=full, stderr=subprocess.PIPE, check=False)
    return done.returncode, done.stderr.decode()


def test_F110_what_nobody_can_be_told_changes_no_code(tmp_path: Path) -> None:
    """stderr on a full disk: the run goes to its end, and an error keeps its code."""
    job = {**SEEDANCE, "prompt": "a cat"}
    (tmp_path / "cat.yaml").write_text(json.dumps({"version": 1, "batch": "cat", "jobs": {"cat": job}}))
    with Path("/dev/full").open("wb") as full:
        codes = [
            subprocess.run([PROGRAM, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=full, check=False).returncode
            for words in (["rehearse", "cat.yaml"], ["status"], ["no-such-command"])
        ]
    assert codes == [0, 7, 2]
    assert list(tmp_path.rglob("*.png"))


def test_2_without_any_standard_input_nobody_is_asked(here: Place) -> None:
    """As under some supervisors: not even the terminal's file is there."""
    job = {**SEEDANCE, "prompt": "a gnu"}
    path = here.write("gnu.yaml", json.dumps({"version": 1, "batch": "gnu", "jobs": {"gnu": job}}))
    script = 'exec "$0" run "$1" --db gnu.db <&-'
    env = {**os.environ, "SEEDANCE2AI_API_KEY": here.keys["seedance2ai"]}
    done = subprocess.run(["sh", "-c", script, PROGRAM, path], cwd=here.folder, env=env, stderr=subprocess.PIPE,
                          check=False)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert b"nobody to ask" in done.stderr


# 3, a bug, and 8, another runner, stand in test_bugs.py and test_at_work.py.


def test_4_wins_over_5_6_and_1(museum: Museum) -> None:
    """Held and overdue jobs; accounts without a key; a job beyond the budget; failed ones."""
    bare = museum.ended["bare"]
    assert bare.code == 4
    for word in ("held", "running", "unknown", "queued", "failed"):
        assert word in bare.err


def test_6_wins_over_1(museum: Museum) -> None:
    assert museum.ended["alley"].code == 6
    assert "2 failed, 2 queued" in museum.ended["alley"].err


def test_5_wins_over_6_and_1(here: Place, told: Mapping[str, list[Ended]]) -> None:
    [shut] = told["shut"]
    assert shut.code == 5, shut.said()
    assert "shut is stopped" in shut.err
    assert [*states(here.folder / "shut.db").values()] == ["failed", "queued", "queued"]


def test_2_wins_over_what_the_queue_holds(museum: Museum) -> None:
    """A mistake in the manifest, with held jobs in the queue: nothing is looked at but the manifest."""
    queue = museum.copy()
    before = content(queue)
    ended = museum.place.run(museum.place.write("mistaken.yaml", "version: 1\nbatch: alley\n"), "--db", queue)
    assert ended.code == 2, ended.said()
    assert content(queue) == before
