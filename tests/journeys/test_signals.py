"""Ctrl-C and SIGTERM: soon over, with the code that says so, and the next run goes on where this one stopped."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from torture.commands import Ended, Running
from torture.judge import judge
from torture.manifests import PROVIDERS
from torture.trial import Trial, trial
from torture.waiting import until

PROMISED = 10.0  # seconds that what is on the wire is awaited
MARGIN = 6.0  # to tidy up, on a machine that is busy with something else
AT_ONCE = 1.0
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
MOMENTS = 30
HANDS = 3


@contextmanager
def hanging(folder: Path) -> Iterator[tuple[Trial, Running]]:
    """A run whose first order at happyhorse was charged and gets no answer: for 24 s, if nobody interrupts it."""
    with trial(folder, ("happyhorse",), seed="hang", speed=5, render=5) as here:
        here.orders.grow({"hh-video": 3})
        here.sandbox.fault("hang", "happyhorse", when="submit")
        running = here.start()
        until(lambda: here.sandbox.tasks() == 1, "the order that gets no answer")
        yield here, running


def ends(here: Trial, running: Running, number: signal.Signals) -> Ended:
    """The signal, and what came of it; `seconds` from the signal on."""
    before = running.age()
    running.send(number)
    ended = here.commands.over(running)
    return Ended(ended.arguments, ended.code, ended.out, ended.err, ended.seconds - before)


def test_the_first_signal_ends_within_ten_seconds_even_if_an_answer_hangs(tmp_path: Path) -> None:
    with hanging(tmp_path) as (here, running):
        ended = ends(here, running, signal.SIGINT)
        assert ended.code == 130, ended.said()
        assert PROMISED / 2 < ended.seconds < PROMISED + MARGIN, "what is on the wire is awaited, but not for ever"
        assert here.sandbox.tasks() == 1, "something new was ordered after the signal"
        _goes_on(here)


@pytest.mark.parametrize("number", CODES)
def test_the_second_signal_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with hanging(tmp_path) as (here, running):
        running.send(number)
        until(lambda: "stopping" in running.said(), "the word that it is stopping")
        ended = ends(here, running, number)
        assert ended.code == CODES[number], ended.said()
        assert ended.seconds < AT_ONCE
        _goes_on(here)


def _goes_on(here: Trial) -> None:
    """The same command again: the order whose answer nobody heard is found, and nothing is ordered twice."""
    last = here.run()
    evidence = here.evidence(last)
    assert judge(evidence).clean, str(judge(evidence))
    assert [job.state for job in evidence.jobs] == ["succeeded"] * 3
    assert len(evidence.tasks) == 3


@pytest.mark.parametrize("number", CODES)
def test_with_nothing_on_the_wire_it_ends_quickly(tmp_path: Path, number: signal.Signals) -> None:
    with trial(tmp_path, ("seedance2ai",), seed="calm", speed=5, render=36000) as here:
        here.orders.grow({"sd-video": 2})
        running = here.start()
        until(lambda: here.sandbox.tasks() == 2, "its orders")
        ended = ends(here, running, number)
        assert ended.code == CODES[number], ended.said()
        assert ended.seconds < MARGIN
        assert [job.state for job in here.jobs()] == ["running"] * 2


@pytest.mark.timeout(600)
def test_ctrl_c_in_the_midst_of_the_database_never_hangs(tmp_path: Path) -> None:
    """Thirty moments, in runs that write to their queue all the time."""
    with ThreadPoolExecutor(HANDS) as hands:
        list(hands.map(lambda number: _interrupted_often(tmp_path / str(number), number), range(HANDS)))


def _interrupted_often(folder: Path, number: int) -> None:
    drawn = random.Random(f"moments {number}")
    with trial(folder, PROVIDERS, seed=f"db{number}", speed=120, render=40) as here:
        for _ in range(MOMENTS // HANDS):
            here.orders.grow({"hh-video": 1, "sd-video": 4, "sd-batch": 2})
            running = here.start()
            before = len(here.sandbox.requests())
            until(lambda: len(here.sandbox.requests()) > before or not running.lives(0), "work")  # noqa: B023
            running.lives(drawn.uniform(0.0, 0.6))
            interrupted = running.process.poll() is None
            ended = ends(here, running, signal.SIGINT)
            assert ended.seconds < PROMISED + MARGIN
            assert ended.code == 130 if interrupted else ended.code in (0, 4), ended.said()
            assert "Traceback" not in ended.err
        evidence = here.evidence(here.run())
        assert judge(evidence).clean, str(judge(evidence))


def test_a_closed_terminal_is_a_sigterm(tmp_path: Path) -> None:
    with trial(tmp_path, ("seedance2ai",), seed="hup", speed=5, render=36000) as here:
        here.orders.grow({"sd-video": 1})
        running = here.start()
        until(lambda: here.sandbox.tasks() == 1, "its order")
        os.killpg(running.process.pid, signal.SIGHUP)
        ended = here.commands.over(running)
        assert ended.code == 143, ended.said()
        assert "Traceback" not in ended.err
