"""The long form: inputs by the million, judged by one child after the other, until so many or so long.

Exit codes: 0 nothing was found · 1 something was (its numbers are printed) · 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.judge import few_jobs, judged, prepare
from fuzz.mangle import made

EACH = 2_000  # inputs of one child
STUCK = 900.0  # seconds of the wall for them all: a child that waits for something uses no CPU


@dataclass
class Tally:
    """`inputs` judged; `found`: the numbers of those of which came what must not, and what."""

    read: int = 0
    refused: int = 0
    peak_mib: int = 0
    found: dict[int, str] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        return self.read + self.refused + len(self.found)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    seed = chosen.seed or secrets.token_hex(4)
    if chosen.only is not None:
        return _only(seed, chosen.only)
    tally = Tally()
    for first in range(chosen.first, chosen.first + chosen.inputs, EACH):
        for found in judge(tally, seed, first, min(first + EACH, chosen.first + chosen.inputs)):
            print(f"input {found} of seed {seed}: {tally.found[found]}", flush=True)
        if chosen.seconds is not None and _cpu() >= chosen.seconds:
            break
    print(
        f"seed {seed}: {tally.inputs:,} inputs, {tally.read:,} read, {tally.refused:,} refused, "
        f"{len(tally.found)} wrong; {_cpu():,.0f} s of CPU, at most {tally.peak_mib} MiB"
    )
    return 1 if tally.found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--inputs", type=int, default=1_000_000, help="how many (a million)")
    add("--seconds", type=float, help="or for so many seconds of CPU")
    add("--first", type=int, default=0, help="the number of the first of them")
    add("--seed", help="what decides all of them; drawn where it is not given")
    add("--only", type=int, metavar="N", help="show input N and judge it here")
    return parser


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def judge(tally: Tally, seed: str, first: int, stop: int) -> Iterator[int]:
    """Has these inputs judged in processes of their own, and gives the numbers of those with which something is wrong.
    A process that its limits have ended is followed by another one, behind the input that it was at."""
    while first < stop:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            words = [sys.executable, "-m", "fuzz.child", seed, str(first), str(stop), folder]
            code, said = _finished(words)
            number = int(Path(folder, "at").read_text())  # a child that did not even begin is no finding
        for line in said:
            yield from _noted(tally, line)
        if code == 0:
            return
        tally.found[number] = _ended(code)
        tally.refused += max(0, number - first - sum(first <= n < number for n in tally.found))
        yield number
        first = number + 1


def _finished(words: Sequence[str]) -> tuple[int, list[dict[str, Any]]]:
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as child:
        try:
            out, _ = child.communicate(timeout=STUCK)
        except subprocess.TimeoutExpired:
            child.kill()
            out, _ = child.communicate()
    return child.returncode, [json.loads(line) for line in out.splitlines()]


def environment() -> dict[str, str]:
    """That of a child: it finds this package, and what this process finds."""
    here = str(Path(__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])}


def _noted(tally: Tally, line: dict[str, Any]) -> Iterator[int]:
    if "number" in line:
        tally.found[line["number"]] = line["what"]
        yield line["number"]
        return
    tally.read += line["read"]
    tally.refused += line["refused"]
    tally.peak_mib = max(tally.peak_mib, line["peak_mib"])


def _ended(code: int) -> str:
    """Why a child did not reach its end."""
    if code == -signal.SIGPROF:
        return "it took more than 2 s of CPU"
    if code == -signal.SIGKILL:
        return "it never came to its end"
    return f"the process ended with {code}"


def _only(seed: str, number: int) -> int:
    given = made(seed, number)
    for name, content in (("manifest.yaml", given.manifest), *given.files.items()):
        print(f"--- {name} ({len(content):,} bytes)\n{content[:3_000].decode('utf-8', 'backslashreplace')}")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        few_jobs()
        print(f"--- {judged(given, Path(folder))} problems")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
