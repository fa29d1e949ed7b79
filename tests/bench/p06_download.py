"""P6: a large file to the disk, hashed, checked and fsynced, against curl, which does none of that; what it costs; and
what travels again after the connection broke in the middle.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.client.fetching import Fetcher
from runner.clock import Clock
from runner.downloads import Later, Published, Wanted, fetch_output
from tests.bench.children import get, provider
from tests.bench.measure import children_cpu, rounds_of
from tests.bench.provider import write_video
from tests.bench.results import Goal, Line, Spread, at_least, at_most, ratio, spreads
from tests.bench.sizes import MB, Size


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of the wall, of all CPU, and of the loop's own thread."""

    wall: float
    cpu: float
    loop: float = 0.0


def measure(size: Size, rounds: int) -> Sequence[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        big = folder / "big.mp4"
        write_video(big, size.download_bytes)
        length = big.stat().st_size
        with provider(big=big) as url:
            again = asyncio.run(_after_a_cut(url, folder, length))
            variants = {"runner": lambda: asyncio.run(_fetched(f"{url}/big", folder))}
            if shutil.which("curl"):
                variants["curl"] = lambda: _curled(f"{url}/big", folder)
            took = rounds_of(variants, rounds)
    loop = Spread(tuple(1000 * one.loop / (length / MB) for one in took["runner"]), "ms")
    return [
        *_against_curl(took, length),
        Line("P6", "… time of the loop per MB", loop, at_most(1)),
        Line("P6", "… bytes that travelled after a cut in the middle, of those missing", Spread((again,), "×"),
             at_most(1.01)),
    ]  # fmt: skip


def _against_curl(took: dict[str, list[Took]], length: int) -> Sequence[Line]:
    rates = {name: [length / MB / one.wall for one in each] for name, each in took.items()}
    raw = spreads("MB/s", rates)
    what, cpu_goal = f"download of {length / MB:.0f} MB, hashed and fsynced, against curl", at_most(2)
    if "curl" not in took:
        return [Line("P6", what, Spread(tuple(rates["runner"]), "MB/s"), _unjudged(0.9), raw, "curl is not installed")]
    cpu = {name: [one.cpu for one in each] for name, each in took.items()}
    return [
        ratio("P6", what, rates["runner"], rates["curl"], at_least(0.9), raw),
        ratio("P6", "… CPU against curl", cpu["runner"], cpu["curl"], cpu_goal, spreads("s", cpu)),
    ]


def _unjudged(value: float) -> Goal:
    return Goal(value, at_least=True, judged=False)


async def _fetched(url: str, folder: Path) -> Took:
    wall, cpu, loop = time.perf_counter(), time.process_time(), time.thread_time()
    async with Fetcher(allow_private=True) as fetcher:
        outcome = await fetch_output(fetcher, Clock(), _wanted(url, folder))
    took = Took(time.perf_counter() - wall, time.process_time() - cpu, time.thread_time() - loop)
    if not isinstance(outcome, Published):
        raise RuntimeError(f"the download ended as {outcome}")
    outcome.path.unlink()
    return took


def _wanted(url: str, folder: Path) -> Wanted:
    return Wanted(url, folder, "out/film.mp4", "task-1")


def _curled(url: str, folder: Path) -> Took:
    target = folder / "curl.mp4"
    wall, cpu = time.perf_counter(), children_cpu()
    subprocess.run(["curl", "-sS", "--fail", "--noproxy", "*", "-o", str(target), url], check=True)
    took = Took(time.perf_counter() - wall, children_cpu() - cpu)
    target.unlink()
    return took


async def _after_a_cut(url: str, folder: Path, length: int) -> float:
    """The server breaks off in the middle; the next try must ask for the rest alone."""
    get(f"{url}/reset")
    want = _wanted(f"{url}/big?cut={length // 2}", folder)
    async with Fetcher(allow_private=True) as fetcher:
        first = await fetch_output(fetcher, Clock(), want)
        sent = get(f"{url}/counted")["bytes"]
        second = await fetch_output(fetcher, Clock(), want)
    if not isinstance(first, Later) or not isinstance(second, Published):
        raise RuntimeError(f"the two tries ended as {first} and {second}")
    second.path.unlink()
    return float((get(f"{url}/counted")["bytes"] - sent) / (length - first.received))
