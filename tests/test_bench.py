"""The bench in its shortest form: every figure can be taken, and the report says what it promises. Never how fast."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from bench.results import Goal, Line, Spread, at_least, at_most, ratio, table

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(300)  # it lasts half a minute on a machine of its own
FIGURES = [f"P{number}" for number in range(1, 11)]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run from elsewhere: the script finds its own place."""
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def report() -> Mapping[str, Any]:
    done = bench("--tiny", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def test_every_figure_of_the_list_is_taken_and_judged(report: Mapping[str, Any]) -> None:
    lines: Sequence[Mapping[str, Any]] = report["lines"]
    assert list(dict.fromkeys(line["figure"] for line in lines)) == FIGURES
    for figure in FIGURES:
        judged = [line for line in lines if line["figure"] == figure and line["met"] is not None]
        assert judged, f"{figure} is held against no goal"


def test_every_line_holds_its_medians_with_what_they_were_made_of(report: Mapping[str, Any]) -> None:
    for line in report["lines"]:
        for spread in (line["value"], *line["raw"].values()):
            numbers = [spread["least"], spread["median"], spread["most"]]
            assert all(math.isfinite(number) for number in numbers), line
            assert numbers == sorted(numbers), line
        if line["goal"] is not None and line["met"] is not None:
            [(way, goal)] = line["goal"].items()
            value = line["value"]["median"]
            assert line["met"] is (value >= goal if way == "at_least" else value <= goal), line


def test_only_what_the_machine_cannot_do_is_missing(report: Mapping[str, Any]) -> None:
    """Ratios against something measured in the same run: each names it among its raw figures, or in a line before."""
    by_figure = {figure: [line for line in report["lines"] if line["figure"] == figure] for figure in FIGURES}
    peers = {"P1": {"runner", "plain httpx", "same stack", "huey", "persist-queue"}, "P2": {"record", "raw", "ORM"},
             "P3": {"runner", "raw", "CSafeLoader"}, "P7": {"full", "empty"}, "P8": {"import httpx", "many", "few"},
             "P10": {"runner", "same stack"}}  # fmt: skip
    for figure, names in peers.items():
        assert names <= {name for line in by_figure[figure] for name in line["raw"]}
    assert report["size"] == "tiny"
    assert set(report["load"]) == set(FIGURES)


def test_the_options_choose_and_refuse() -> None:
    done = bench("--tiny", "--rounds", "1", "--only", "p6")
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines() if line.startswith("P")} == {"P6"}
    wrong = bench("--only", "P99")
    assert wrong.returncode == 2
    assert "P99" in wrong.stderr


def test_the_script_is_there_and_starts_the_bench() -> None:
    script = ROOT / "scripts" / "bench"
    assert os.access(script, os.X_OK)
    shown = subprocess.run([script, "--help"], cwd="/", capture_output=True, text=True, check=True)
    assert "--full" in shown.stdout


def test_a_line_is_judged_by_its_median() -> None:
    line = ratio("P0", "this against that", [8.0, 9.0, 30.0], [1.0, 1.0, 1.0], at_least(8), {})
    assert (line.value.median, line.met) == (9.0, True)
    assert Line("P0", "memory", Spread((121.0,), "MB"), at_most(120)).met is False
    assert Line("P0", "too small a size", Spread((2.0,)), at_most(1, judged=False)).met is None
    assert Line("P0", "no goal", Spread((2.0,))).met is None
    assert str(Goal(0.5, at_least=True)) == "≥ 0.50"


def test_the_table_shows_every_line_with_its_spread_and_verdict() -> None:
    lines = [
        ratio("P1", "one", [2.0, 4.0], [1.0, 1.0], at_least(8), {"raw": Spread((1.0, 3.0), "s")}),
        Line("P2", "another", Spread((3.0,), "ms"), at_most(10), note="said below"),
    ]
    shown = table(lines)
    assert "3.00 × (2.00–4.00)" in shown
    assert "NOT MET" in shown
    assert "raw 2.00 s (1.00–3.00)" in shown
    assert "said below" in shown
    assert shown.splitlines()[-2].split()[-1] == "met"
