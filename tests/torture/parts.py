"""The torture in parts: each is a process of its own, with a seed and a folder of its own, and ends in one tally.

What a part found is kept beside the others', so a torture that was interrupted goes on with the parts it lacks.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torture.catalogue import FAULTS, numbers
from torture.judge import Finding
from torture.tally import Tally, as_data, from_data

LONGEST = 1800.0  # wall seconds of one part
PAUSE = 0.1
PATIENCE = 20.0  # seconds for a part that is told to end
Alive = tuple["Part", subprocess.Popen[bytes], float]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """What holds for a whole torture. Its parts draw from `seed` and their own names."""

    seed: str
    providers: tuple[str, ...]
    speed: float | None = None

    def words(self) -> list[str]:
        speed = [] if self.speed is None else ["--speed", f"{self.speed:g}"]
        return ["--seed", self.seed, *speed, *(f"--provider={name}" for name in self.providers)]


@dataclass(frozen=True)
class Part:
    """`fires`: the numbers of faults it is there for, so that they can be asked for by number."""

    name: str
    play: Callable[[Path, Setting], Tally]
    fires: tuple[str, ...] = ()


def play(part: Part, folder: Path, setting: Setting) -> Tally:
    """One part, here and now. An exception of ours is a finding too: what could not be judged was not clean."""
    began = time.monotonic()
    try:
        told = part.play(folder / part.name, setting)
    except Exception as error:
        told = Tally(seeds=[setting.seed])
        told.find(Finding("broken", f"{part.name}: {type(error).__name__}: {error}"))
    if told.clean and told.idle:
        told.find(Finding("idle", f"{part.name} has killed, fired, done and tried nothing"))
    told.seconds = time.monotonic() - began
    result = _result(folder, part)
    result.parent.mkdir(parents=True, exist_ok=True)
    result.with_suffix(".new").write_text(json.dumps(as_data(told)))
    result.with_suffix(".new").replace(result)
    return told


def _result(folder: Path, part: Part) -> Path:
    return folder / "parts" / f"{part.name}.json"


def known(folder: Path, part: Part) -> Tally | None:
    """What this part found earlier, if it came to its end."""
    path = _result(folder, part)
    return from_data(json.loads(path.read_text())) if path.exists() else None


def play_all(parts: Sequence[Part], folder: Path, setting: Setting, at_once: int, say: Say) -> Mapping[str, Tally]:
    """Each part that is not known yet in a process of its own, so many side by side; the tallies of all, by name."""
    waiting = [part for part in parts if known(folder, part) is None]
    alive: dict[str, Alive] = {}
    done = len(parts) - len(waiting)
    try:
        while waiting or alive:
            while waiting and len(alive) < at_once:
                part = waiting.pop(0)
                alive[part.name] = (part, _start(part, folder, setting), time.monotonic())
            time.sleep(PAUSE)
            for part, process, began in list(alive.values()):
                if process.poll() is None and time.monotonic() - began < LONGEST:
                    continue
                process.kill()
                process.wait()
                del alive[part.name]
                done += 1
                say(f"{done}/{len(parts)} {part.name}: {_outcome(folder, part)} in {time.monotonic() - began:.0f} s")
    finally:
        _end([process for _, process, _ in alive.values()])
    return {part.name: known(folder, part) or _nothing(part) for part in parts}


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Parts that were interrupted clear away what they started; one that does not is killed."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(part: Part, folder: Path, setting: Setting) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "torture", *setting.words(), "--folder", str(folder), "--only", part.name]
    with (folder / f"{part.name}.log").open("wb") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _outcome(folder: Path, part: Part) -> str:
    told = known(folder, part)
    if told is None:
        return "BROKEN OFF"
    what = f"{told.kills.total()} kills, {told.jobs} jobs, {_firings(told)} faults"
    return f"{what}, {'clean' if told.clean else f'{len(told.findings)} FINDINGS'}"


def _firings(told: Tally) -> int:
    return sum(count for label, count in told.fired.items() if numbers(label))


def _nothing(part: Part) -> Tally:
    told = Tally()
    told.find(Finding("broken", f"{part.name} left no result; its log stands beside the others"))
    return told


def chosen(parts: Sequence[Part], names: Sequence[str], faults: Sequence[str]) -> Iterator[Part]:
    """Those with one of these names (or beginnings of names), or that fire one of these faults; all, for neither."""
    for part in parts:
        by_name = any(part.name == name or part.name.startswith(f"{name}-") for name in names)
        if by_name or set(faults) & set(part.fires) or not (names or faults):
            yield part


def is_fault(number: str) -> bool:
    return number in FAULTS
