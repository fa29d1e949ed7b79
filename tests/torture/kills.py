"""When and how a run is killed, drawn from a seed; and what is done about the providers meanwhile."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass

START = 1.2  # wall seconds that a run needs, about, before it does anything
SHARES = ((signal.SIGKILL, 0.7), (signal.SIGTERM, 0.2), (signal.SIGINT, 0.1))


@dataclass(frozen=True)
class Kill:
    """`after` wall seconds: of its start where it is `early`, else of the first request it makes.

    `again`: the same signal once more, so many seconds later.
    """

    number: signal.Signals
    after: float
    early: bool = False
    again: float | None = None


def schedule(seed: str, mean: float) -> Iterator[Kill]:
    """Kills without end. Most come while the run is at work, `mean` seconds into it; some while it still starts."""
    drawn = random.Random(f"kills:{seed}")
    while True:
        number = drawn.choices([each for each, _ in SHARES], [share for _, share in SHARES])[0]
        early = number is signal.SIGKILL and drawn.random() < 0.15  # Python itself hears no polite one so soon
        after = drawn.uniform(0.02, START) if early else drawn.expovariate(1 / mean)
        again = drawn.uniform(0.02, 0.3) if number is not signal.SIGKILL and drawn.random() < 0.3 else None
        yield Kill(number, after, early, again)


@dataclass(frozen=True)
class Meddling:
    """What happens to the providers between two kills: "nothing", "restart", "outage" or "credits" (scaled seconds)."""

    what: str
    provider: str
    seconds: float = 0.0


def meddling(seed: str, providers: tuple[str, ...]) -> Iterator[Meddling]:
    drawn = random.Random(f"meddling:{seed}")
    while True:
        what = drawn.choices(("nothing", "restart", "outage", "credits"), (0.86, 0.06, 0.05, 0.03))[0]
        yield Meddling(what, drawn.choice(providers), drawn.uniform(5.0, 60.0))
