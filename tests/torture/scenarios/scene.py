"""What scenarios share: each stages one kind of trouble on purpose, plays it to its end, and lets the judge look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.judge import Finding
from torture.manifests import few
from torture.tally import Tally
from torture.trial import Trial, trial

SPEED, RENDER = 100.0, 20.0


@dataclass(frozen=True)
class Scenario:
    """`play` gets a folder of its own and a seed. `numbers`: the faults that it fires, each at least once. `quick`:
    short enough, and telling enough, for each push."""

    name: str
    numbers: tuple[str, ...]
    play: Callable[[Path, str], Tally]
    quick: bool = False


@contextmanager
def staged(
    folder: Path,
    seed: str,
    names: Sequence[str],
    *,
    jobs: dict[str, int] | None = None,
    speed: float = SPEED,
    **more: Any,
) -> Iterator[tuple[Trial, Tally]]:
    """A trial with a few jobs at each of these providers (or `jobs`: rows by kind), and the tally to count into."""
    told, began = Tally(seeds=[seed]), time.monotonic()
    with trial(folder, names, seed=seed, speed=speed, render=more.pop("render", RENDER), **more) as here:
        here.orders.grow(few(names) if jobs is None else jobs)
        yield here, told
    told.seconds = time.monotonic() - began


def expect(told: Tally, number: str, truth: object, text: str) -> None:
    """A finding of the fault's own name unless it is true."""
    if not truth:
        told.find(Finding(number, text))
