"""What is done to a runner so that its crime comes to light. Each play leaves a queue that no run works on."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torture.commands import Ended, Running
from torture.evidence import Stop
from torture.judge import GRACE, Finding
from torture.random_kills import Torn
from torture.trial import Trial
from torture.waiting import until

TESTS = Path(__file__).parents[2]


@dataclass
class Stage:
    """A trial whose runs are broken by the patches in `folder/patch`. `found`: what was seen on the way."""

    here: Trial
    patches: Sequence[str]
    found: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        place = self.here.folder / "patch"
        place.mkdir()
        calls = "".join(f"patches.{name}()\n" for name in self.patches)
        (place / "sitecustomize.py").write_text(f"from torture.mutants import patches\n{calls}")
        self.path = f"{place}{os.pathsep}{TESTS}"
        self.torn = Torn(self.here.renders)

    def start(self, **more: str) -> Running:
        return self.here.start(PYTHONPATH=self.path, **more)

    def run(self, **more: str) -> Ended:
        return self.over(self.start(**more))

    def over(self, running: Running) -> Ended:
        ended = self.here.commands.over(running)
        self.found += [Finding("torn", f"{path} after {ended.code}") for path in self.torn.new()]
        return ended

    def stop(self, running: Running, number: signal.Signals) -> Ended:
        """The signal, and its end; a run that does not heed it is killed when its grace is over."""
        before = running.age()
        running.send(number)
        if running.lives(GRACE):
            running.send(signal.SIGKILL)
        ended = self.over(running)
        self.here.stops.append(Stop(number, ended.seconds - before, ended.code))
        return ended


Play = Callable[[Stage], None]


def runs(stage: Stage) -> None:
    stage.run()


def dies(stage: Stage, *, at: str, again: bool = True) -> None:
    """A run is killed at a fail point; another one goes on."""
    stage.run(RUNNER_FAILPOINT=at)
    if again:
        stage.run()


def dies_twice(stage: Stage, *, at: str) -> None:
    for _ in range(2):
        stage.run(RUNNER_FAILPOINT=at)


def loses_power(stage: Stage, *, at: str | None = None, again: bool = True) -> None:
    """The machine goes dark when the run reaches a fail point, or right after it has ended."""
    with stage.here.power.loss() as environment:
        stage.run(**environment, **({"RUNNER_FAILPOINT": at} if at else {}))
    if again:
        stage.run()


def is_stopped(stage: Stage) -> None:
    """While nothing is on the wire, and its render takes for ever."""
    running = stage.start()
    until(lambda: stage.here.sandbox.tasks() == stage.here.orders.jobs, "its orders")
    stage.stop(running, signal.SIGTERM)


def is_stopped_in_the_midst(stage: Stage) -> None:
    """While it records something, on a disk that has the hiccups."""
    running = stage.start()
    until((stage.here.folder / "hiccup").exists, "the hiccup")
    stage.stop(running, signal.SIGTERM)


def runs_beside(stage: Stage, *, other: Callable[[str], None], at: str | None = None) -> None:
    """While it works, somebody else comes to the queue, again and again. With `at` it is killed there, and goes on."""
    running = stage.start(**({"RUNNER_FAILPOINT": at} if at else {}))
    until(lambda: stage.here.sandbox.tasks() > 0 or not running.lives(0), "its first order")
    with _repeated(partial(other, stage.here.queue)):
        stage.over(running)
    if at:
        stage.run()


def a_decision(queue: str) -> None:
    """A short transaction, as `runner cancel` and `retry` make them: what it changes, nobody leans on."""
    with closing(sqlite3.connect(queue, isolation_level=None, timeout=60)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        for _ in range(50):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE batches SET updated_at = updated_at + 1")
            connection.execute("COMMIT")
            time.sleep(0.002)


def a_look(queue: str) -> None:
    """Somebody reads the queue, as `runner status` does, and closes it."""
    with closing(sqlite3.connect(queue, timeout=60)) as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM jobs").fetchone()
    time.sleep(0.01)


@contextmanager
def _repeated(step: Callable[[], None]) -> Iterator[None]:
    """Does it again and again, in a thread, until the block is left."""
    enough = threading.Event()

    def again() -> None:
        while not enough.is_set():
            step()

    doing = threading.Thread(target=again)
    doing.start()
    try:
        yield
    finally:
        enough.set()
        doing.join()
