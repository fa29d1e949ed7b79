"""Editing a manifest and running it again: what is new is added, what is paid stays, what is gone and unpaid is
cancelled, and the difference is shown first (design.md section 9)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from torture.commands import Ended

from cli.kit import rows
from cli.museum import ALLEY, Museum

EPIC = "  epic: {model: doubao-seedance-2-0, prompt: an epic, duration: 15}\n"
PAIR = ALLEY[ALLEY.index("  pair:") : ALLEY.index("  epic:")]
SIGN = "  sign: {provider: seedance2ai, model: nano-banana-pro, prompt: a neon sign}\n"
EDITED = ALLEY.replace(EPIC, "").replace(PAIR, "") + SIGN  # one gone that is unpaid, one gone that is paid, one new


@dataclass
class Edited:
    """The museum's alley, edited and run again, then put back as it was and planned."""

    museum: Museum
    queue: Path
    before: dict[str, tuple[object, ...]]
    ordered: int
    run: Ended
    after: dict[str, tuple[object, ...]]
    ordered_after: int
    back: Ended


def jobs(queue: Path) -> dict[str, tuple[object, ...]]:
    """State, task and last change of every job of the alley, by its name."""
    found = rows(
        queue, "SELECT jobs.name, state, task_id, jobs.updated_at FROM jobs JOIN batches ON batches.id = batch_id"
        " WHERE batches.name = 'alley'"
    )  # fmt: skip
    return {name: tuple(facts) for name, *facts in found}


@pytest.fixture(scope="module")
def edited(museum: Museum) -> Edited:
    here, queue = museum.place, museum.copy()
    manifest, db = here.folder / "alley.yaml", ("--db", str(queue))
    before, ordered = jobs(queue), here.sandbox.tasks()
    manifest.write_text(EDITED)
    run = here.run(manifest, *db, **here.only("happyhorse", "seedance2ai"))
    after, ordered_after = jobs(queue), here.sandbox.tasks()
    manifest.write_text(ALLEY)
    back = here.commands.run("plan", str(manifest), *db)
    return Edited(museum, queue, before, ordered, run, after, ordered_after, back)


def test_B87_the_difference_is_shown_first(edited: Edited) -> None:
    said = edited.run.err
    assert "batch alley: 1 new, 5 kept, 2 gone" in said
    epic, pair = edited.museum.ids["epic"], edited.museum.ids["pair"]
    assert f"gone: job {epic} (alley/epic) is queued and will be cancelled" in said
    assert f"gone: job {pair} (alley/pair) is succeeded and stays as it is" in said
    assert said.index("gone: job") < said.index("happyhorse: 1 cancelled"), "only then how it ended"


def test_what_is_new_is_ordered_once(edited: Edited) -> None:
    assert edited.after["sign"][0] == "succeeded", edited.run.said()
    assert edited.ordered_after == edited.ordered + 1


def test_what_is_gone_and_unpaid_is_cancelled(edited: Edited) -> None:
    assert edited.before["epic"][0] == "queued"
    assert edited.after["epic"][0] == "cancelled"


def test_B87_what_is_gone_and_paid_stays_with_its_files(edited: Edited) -> None:
    assert edited.after["pair"] == edited.before["pair"]
    pair = edited.museum.ids["pair"]
    paths = [path for (path,) in rows(edited.queue, "SELECT path FROM outputs WHERE job_id = ?", pair)]
    assert len(paths) == 2
    assert all((edited.museum.place.folder / path).is_file() for path in paths)


def test_what_is_kept_is_left_alone(edited: Edited) -> None:
    for name in ("film", "crowd", "triptych"):
        assert edited.after[name] == edited.before[name]


def test_what_a_person_cancelled_is_queued_again_by_a_manifest_that_asks_for_it(edited: Edited) -> None:
    """As `runner cancel` says when it cancels."""
    assert (edited.before["saga"][0], edited.after["saga"][0]) == ("cancelled", "queued")
    assert "1 of the kept ones were cancelled unpaid, and are asked for again" in edited.run.err


def test_put_back_it_asks_again_for_what_was_never_paid(edited: Edited) -> None:
    assert "batch alley: 0 new, 7 kept, 1 gone" in edited.back.err
    assert "1 of the kept ones were cancelled unpaid, and are asked for again" in edited.back.err
    [gone] = [line for line in edited.back.out.splitlines() if line.startswith("gone")]
    assert "a-neon-sign" in gone
