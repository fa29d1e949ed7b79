"""Every exit code of design.md section 10, each from a situation that a user gets into, and which one wins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from torture.commands import Ended

from cli.kit import Place, content, place, side_by_side, states
from cli.museum import Museum

HAPPYHORSE = {"provider": "happyhorse", "model": "doubao-seedance-1-5-pro", "duration": 5}
SEEDANCE = {"provider": "seedance2ai", "model": "nano-banana-pro"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    accounts = {"happyhorse": "happyhorse", "seedance2ai": "seedance2ai"}
    with place(tmp_path_factory.mktemp("codes"), accounts, seed="codes", render=4) as made:
        yield made


def manifest(here: Place, batch: str, jobs: dict[str, object], **top: object) -> Path:
    return here.write(f"{batch}.yaml", json.dumps({"version": 1, "batch": batch, **top, "jobs": jobs}))


def run(here: Place, batch: str, jobs: dict[str, object], *options: str, **top: object) -> Ended:
    """A batch in a queue of its own."""
    return here.run(manifest(here, batch, jobs, **top), "--db", f"{batch}.db", *options)


def test_0_all_done_and_1_some_failed(here: Place) -> None:
    good = {"cat": {**SEEDANCE, "prompt": "a cat"}}
    assert run(here, "good", good).code == 0
    again = run(here, "good", good)
    assert again.code == 0, "it speaks of the jobs as they stand, earlier runs included"
    assert len([task for task in here.tasks("seedance2ai") if task["prompt"] == "a cat"]) == 1
    bad = run(here, "bad", {**good, "dog": {**SEEDANCE, "prompt": "a dog (sandbox:moderated)"}})
    assert bad.code == 1, bad.said()
    assert "finished; some jobs failed or are partial (exit 1)" in bad.err


def test_2_nothing_was_submitted(here: Place) -> None:
    """A key that is missing or malformed, nobody to ask, a wrong word: told before the queue is made."""
    ordered, asked = here.sandbox.tasks(), here.sandbox.last_request()
    good = str(manifest(here, "two", {"cat": {**SEEDANCE, "prompt": "a cat"}}))
    wrong = str(manifest(here, "wrong", {"cat": {**SEEDANCE, "prompt": "a cat", "duration": "long"}}))
    speed = ("--speed", "30")
    elsewhere = here.commands.start("run", good, "--yes", *speed, SEEDANCE2AI_BASE_URL="https://example.com")
    commands = {
        "nobody to ask": ("run", good, *speed),
        "a mistake in the manifest": ("run", wrong, "--yes", *speed),
        "no manifest": ("run", "nowhere.yaml", "--yes", *speed),
        "an unknown account": ("run", good, "--yes", *speed, "--max-credits", "seedance3ai=5"),
        "no amount": ("run", good, "--yes", *speed, "--max-credits", "lots"),
        "no time": ("run", good, "--yes", *speed, "--until", "25:00"),
        "an unknown option": ("run", good, "--yse"),
    }
    told = dict(zip(commands, side_by_side(here.commands, commands.values()), strict=True))
    told["a faster clock for strangers"] = here.commands.over(elsewhere)
    told["no key"] = here.run(good, SEEDANCE2AI_API_KEY="")
    told["a malformed key"] = here.run(good, SEEDANCE2AI_API_KEY="short")
    words = {
        "nobody to ask": "add --yes", "a mistake in the manifest": "wrong.yaml:1:", "no manifest": "nowhere.yaml",
        "an unknown account": 'did you mean \'seedance2ai\'?', "no amount": "not an amount of credits",
        "no time": "not a time of day", "an unknown option": "Did you mean --yes?",
        "a faster clock for strangers": "--speed is for sandboxes", "no key": "SEEDANCE2AI_API_KEY",
        "a malformed key": "keys have 8 to 512",
    }  # fmt: skip
    for name, ended in told.items():
        assert ended.code == 2, f"{name}: {ended.said()}"
        assert words[name] in ended.err, f"{name}: {ended.said()}"
        assert ended.out == ""
    assert not here.queue.exists()
    assert (here.sandbox.tasks(), here.sandbox.last_request(asked)) == (ordered, asked)


def test_4_a_person_is_needed(museum: Museum) -> None:
    """An answer and files that got lost; a task that is overdue."""
    assert museum.ended["portraits"].code == museum.ended["river"].code == 4
    assert "a person is needed" in museum.ended["river"].err


def test_5_paused_and_the_same_command_goes_on(here: Place) -> None:
    key = here.keys["seedance2ai"]
    jobs = {"fox": {**SEEDANCE, "prompt": "a fox"}}
    here.sandbox.post("credits", provider="seedance2ai", key=key, balance="0")
    empty = run(here, "poor", jobs, "--no-wait")
    assert empty.code == 5, empty.said()
    here.sandbox.post("credits", provider="seedance2ai", key=key, balance="1000")
    here.sandbox.post("keys", provider="seedance2ai", key=key, revoked=True)
    revoked = run(here, "poor", jobs)
    here.sandbox.post("keys", provider="seedance2ai", key=key, revoked=False)
    assert revoked.code == 5, revoked.said()
    assert "seedance2ai is stopped" in revoked.err
    assert run(here, "poor", jobs).code == 0
    assert len([task for task in here.tasks("seedance2ai") if task["prompt"] == "a fox"]) == 1


def test_6_a_limit_and_beyond_it_the_same_command_goes_on(here: Place) -> None:
    jobs = {"owl": {**HAPPYHORSE, "prompt": "an owl"}}
    capped = run(here, "capped", jobs, "--max-credits", "happyhorse=24")
    assert capped.code == 6, capped.said()
    late = here.run(manifest(here, "late", jobs), "--db", "late.db", "--until", _in_two_minutes(),
                    RUNNER_ANCHOR=repr(here.sandbox.anchor - 3600))  # fmt: skip
    assert late.code == 6, late.said()
    assert here.tasks("happyhorse") == []
    assert run(here, "capped", jobs).code == 0


def _in_two_minutes() -> str:
    """By the wall's clock. That of the run goes thirty times as fast, and has for an hour."""
    return f"{datetime.now() + timedelta(minutes=2):%H:%M}"


def test_7_this_machine_is_in_the_way(here: Place) -> None:
    ended = side_by_side(here.commands, [
        ("status", "--db", "nowhere/runner.db"), ("providers", "--log-file", "nowhere/all.log"),
        ("run", "--db", str(here.folder)),
    ])  # fmt: skip
    assert [each.code for each in ended] == [7, 7, 7], [each.said() for each in ended]


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


def test_5_wins_over_6_and_1(here: Place) -> None:
    """A refused key on one account, a failed job and one beyond the budget on the other."""
    jobs = {
        "elk": {**HAPPYHORSE, "prompt": "an elk (sandbox:failed)"},
        "ram": {**HAPPYHORSE, "prompt": "a ram", "duration": 12},
        "ant": {**SEEDANCE, "prompt": "an ant"},
    }
    key = here.keys["seedance2ai"]
    here.sandbox.post("keys", provider="seedance2ai", key=key, revoked=True)
    ended = run(here, "three", jobs, budget={"happyhorse": 30})
    here.sandbox.post("keys", provider="seedance2ai", key=key, revoked=False)
    assert ended.code == 5, ended.said()
    assert [*states(here.folder / "three.db").values()] == ["failed", "queued", "queued"]


def test_2_wins_over_what_the_queue_holds(museum: Museum) -> None:
    """A mistake in the manifest, with held jobs in the queue: nothing is looked at but the manifest."""
    queue = museum.copy()
    before = content(queue)
    ended = museum.place.run(museum.place.write("mistaken.yaml", "version: 1\nbatch: alley\n"), "--db", queue)
    assert ended.code == 2, ended.said()
    assert content(queue) == before
