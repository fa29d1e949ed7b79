"""The command: which figures, how large, how often; the table, or JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.store.place import file_system
from tests.bench.measure import quiet
from tests.bench.results import Line, table
from tests.bench.sizes import FULL, TINY, USUAL

FIGURES = {
    "P1": "p01_journey", "P2": "p02_changes", "P3": "p03_enqueue", "P4": "p04_night", "P5": "p05_publish",
    "P6": "p06_download", "P7": "p07_resume", "P8": "p08_start", "P9": "p09_crowd", "P10": "p10_overhead",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Exits 0 when every figure could be taken, whether its goal is met or not."""
    chosen = _options(arguments)
    quiet()
    size = FULL if chosen.full else TINY if chosen.tiny else USUAL
    began = time.monotonic()
    lines, loads = [], {}
    for figure in chosen.only:
        loads[figure] = os.getloadavg()[0]
        print(f"bench: {figure} (load {loads[figure]:.1f})", file=sys.stderr, flush=True)
        lines += importlib.import_module(f"tests.bench.{FIGURES[figure]}").measure(size, chosen.rounds)
    about = {**_machine(), "size": size.name, "rounds": chosen.rounds, "seconds": time.monotonic() - began,
             "load": loads}  # fmt: skip
    _show(lines, about, as_json=chosen.json)
    return 0


def _show(lines: list[Line], about: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**about, "lines": [line.as_json() for line in lines]}, indent=1))
        return
    print(table(lines))
    load = ", ".join(f"{figure} {load:.1f}" for figure, load in about["load"].items())
    how = f"size {about['size']}, {about['rounds']} rounds, {about['seconds']:.0f} s"
    print(f"\n{how}; {about['machine']}; load: {load}")


def _machine() -> dict[str, str]:
    disk = file_system(Path(tempfile.gettempdir())) or "unknown file system"
    return {
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {disk}"
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures runner against its goals: ratios, each within one run."
    )
    parser.add_argument("--only", type=_figures, default=list(FIGURES), metavar="P2,P6", help="these figures alone")
    parser.add_argument("--rounds", type=_rounds, default=3, help="how often each variant is measured (3)")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("--full", action="store_true", help="a million jobs, half a gigabyte: takes an hour or two")
    how_much.add_argument("--tiny", action="store_true", help="only shows that every figure can be taken")
    return parser.parse_args(arguments)


def _figures(text: str) -> list[str]:
    names = [name.strip().upper() for name in text.split(",")]
    if unknown := [name for name in names if name not in FIGURES]:
        raise argparse.ArgumentTypeError(f"no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    return names


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("must be a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
