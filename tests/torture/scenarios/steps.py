"""What the scenarios of the network do again and again: run into trouble, look what the queue says, and be judged."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from torture import evidence
from torture.commands import Ended, Running
from torture.evidence import Try
from torture.judge import GRACE, Verdict, judge
from torture.manifests import PROVIDERS
from torture.random_kills import too_big
from torture.scenarios.scene import expect
from torture.tally import Tally
from torture.trial import Trial

CLIPS = {
    "happyhorse": "hh-video", "seedance2ai": "sd-video", "seedhorse": "sh-video", "seedhorse-video": "sv-video",
    "seegen": "sg-video",
}  # fmt: skip
SETTLED = frozenset({0, 1, 4})


def clips(count: int, names: Sequence[str] = PROVIDERS) -> dict[str, int]:
    """So many plain videos at each."""
    return {CLIPS[name]: count for name in names}


def tries(here: Trial) -> list[Try]:
    """To be asked when no run is alive."""
    return evidence.tries(here.queue)


def steps(here: Trial, event: str) -> int:
    """How often the log of the queue names this event."""
    with closing(sqlite3.connect(here.queue)) as connection:
        connection.execute("PRAGMA query_only = ON")
        return int(connection.execute("SELECT count(*) FROM events WHERE event = ?", (event,)).fetchone()[0])


def states(here: Trial, account: str | None = None) -> Counter[str]:
    return Counter(job.state for job in here.jobs() if account in (None, job.account))


def errors(here: Trial) -> Counter[str | None]:
    return Counter(job.error for job in here.jobs() if job.state == "held")


def stopped(here: Trial, running: Running, number: str, told: Tally) -> Ended:
    """SIGTERM, and its end: within ten seconds (I17)."""
    before = running.age()
    running.send(signal.SIGTERM)
    ended = here.commands.over(running)
    took = ended.seconds - before
    expect(told, number, took <= GRACE, f"SIGTERM took {took:.1f} s: {ended.said()}")
    return ended


def watched(here: Trial, running: Running, number: str, told: Tally) -> Ended:
    """To its end, with an eye on its memory and its open files (I15)."""
    large: list[str] = []
    while running.lives(0.2):
        large = large or list(too_big(running))
    for text in large:
        expect(told, number, False, text)
    return here.commands.over(running)


def peace_but(here: Trial, told: Tally, *expected: str) -> Verdict:
    """The end and the judge as in `peace`, where the judge is to find something: `expected` names those rules.
    Returns what was found under these."""
    found = here.evidence(here.finish())
    verdict = judge(found)
    told.judged(found, Verdict(tuple(each for each in verdict.findings if each.kind not in expected)))
    return Verdict(tuple(each for each in verdict.findings if each.kind in expected))


def fired(here: Trial) -> Mapping[str, int]:
    """So far, by name."""
    counts: Mapping[str, int] = here.sandbox.observed()["faults_fired"]
    return counts


def submissions(here: Trial, provider: str, after: int = 0) -> list[Mapping[str, Any]]:
    """The paid requests that this provider has seen, oldest first."""
    requests = here.sandbox.requests(after)
    return [each for each in requests if each["provider"] == provider and each["point"] == "submit"]


def ends_with(here: Trial, told: Tally, number: str, ended: Ended, *codes: int) -> None:
    """A run that could not be in order ends with one of these, and says why without a traceback."""
    right = ended.code in codes and "Traceback" not in ended.err + ended.out
    expect(told, number, right, ended.said())
    if right:
        here.commands.ended.remove(ended)  # it is judged


def patched(folder: Path, code: str) -> dict[str, str]:
    """The environment in which the program meets this code as it starts."""
    place = folder / f"patch-{hashlib.sha256(code.encode()).hexdigest()[:12]}"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(place), *(path for path in sys.path if path)])}
