"""What may come of an input: jobs, or problems of the catalogue with places. Anything else is raised."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fuzz.mangle import Input
from fuzz.seeds import FILES
from runner import plan
from runner.errors import InputError
from runner.expand import passes
from runner.problems import as_json, render

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MOST_JOBS = 2_000
CODE = re.compile(r"B\d\d")


def few_jobs() -> None:
    """In this process a manifest may have 2,000 jobs."""
    passes.MOST_JOBS = MOST_JOBS


def prepare(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


def judged(given: Input, folder: Path) -> int:
    """How many problems an input has, 0 for a good one. AssertionError, or whatever else was raised, for what must not
    be. `folder` holds the files, and does again afterwards."""
    for name, content in given.files.items():
        (folder / name).write_bytes(content)
    path = folder / "manifest.yaml"
    path.write_bytes(given.manifest)
    try:
        planned(path)
    except InputError as error:
        assert_in_order(error)
        return len(error.problems)
    finally:
        for name in given.files:
            (folder / name).write_bytes(FILES[name])
    return 0


def planned(path: Path) -> None:
    manifest, surveyed = plan.read(path)
    assert surveyed.jobs > 0
    assert sum(1 for _ in plan.orders_of(manifest, surveyed)) == surveyed.jobs
    made = _at_once(plan.make(manifest, surveyed, None, path.parent, NOON))
    assert made.new == surveyed.jobs
    assert_all_can_be_told([*made.warnings])


def _at_once(work: Coroutine[Any, Any, plan.Plan]) -> plan.Plan:
    """What comes of work that waits for nothing: without a queue a plan has nobody to wait for."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("a plan without a queue waits for something")


def assert_in_order(error: InputError) -> None:
    assert error.problems, error.message
    assert error.message.strip()
    assert_all_can_be_told([*error.problems])


def assert_all_can_be_told(problems: list[Any]) -> None:
    text = render(problems)
    assert "Traceback" not in text
    assert text.isprintable() or not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    for problem in as_json(problems):
        assert CODE.fullmatch(problem["code"]), problem
        assert problem["msg"].strip()
        assert problem["line"] is None or problem["line"] >= 1 <= problem["col"], problem
