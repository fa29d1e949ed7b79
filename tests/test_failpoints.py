"""Fail points: silent unless armed, deadly when reached, and every name known."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import runner
from runner import failpoints

PACKAGE = Path(runner.__file__).parent
SCRIPT = """
from runner.failpoints import reached
for n in range(5):
    reached("before-fsync")
    reached("after-link")
    print(n, flush=True)
"""


def lived(wish: str | None) -> tuple[int, int]:
    """Exit code, and how many rounds the script came through."""
    env = {name: value for name, value in os.environ.items() if name != "RUNNER_FAILPOINT"}
    env |= {"RUNNER_FAILPOINT": wish} if wish is not None else {}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False)
    return done.returncode, len(done.stdout.split())


@pytest.mark.parametrize(("wish", "rounds"), [("before-fsync", 0), ("after-link", 0), ("after-link:3", 2)])
def test_a_place_that_is_armed_kills_at_once(wish: str, rounds: int) -> None:
    assert lived(wish) == (-signal.SIGKILL, rounds)


@pytest.mark.parametrize("wish", [None, "", "before-fsync:9", "after-unlink"])
def test_every_other_place_is_passed(wish: str | None) -> None:
    assert lived(wish) == (0, 5)


def test_a_name_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lived("after-lnk") == (1, 0)
    monkeypatch.setattr(failpoints, "_armed", failpoints._Armed("after-link"))
    with pytest.raises(ValueError, match="no such fail point"):
        failpoints.reached("after-lnk")


def test_the_names_are_those_of_the_places() -> None:
    found = {name for path in PACKAGE.rglob("*.py") for name in reached_in(path)}
    assert found == failpoints.NAMES


def reached_in(path: Path) -> set[str]:
    """The names in `reached("…")`; a name that is not written out would escape the sweep."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    calls = [call for call in calls if (getattr(call.func, "id", None) or getattr(call.func, "attr", "")) == "reached"]
    for call in calls:
        [argument] = call.args
        assert isinstance(argument, ast.Constant), f"{path.name}:{call.lineno}"
    return {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
