"""`runner run --callback-url`: a lost answer is found because the provider calls back, whatever else it calls."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torture.judge import judge
from torture.trial import Trial, trial

CLIPS = 3


@contextmanager
def called_back(folder: Path, *flags: str, speed: float = 60.0) -> Iterator[Trial]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = ("--callback-url", f"http://127.0.0.1:{port}/hooks", *flags)
    with trial(folder, ("seegen",), seed="called-back", speed=speed, render=30, flags=given) as here:
        here.orders.grow({"sg-video": CLIPS})
        yield here


def deliveries(here: Trial) -> list[dict[str, object]]:
    found: list[dict[str, object]] = here.sandbox.get("callbacks")["callbacks"]
    return found


def test_a_lost_answer_is_found_by_the_call(tmp_path: Path) -> None:
    with called_back(tmp_path) as here:
        here.sandbox.fault("lost_answer", "seegen", when="submit")
        last = here.run()
        assert last.code == 0, last.said()
        assert [job.state for job in here.jobs()] == ["succeeded"] * CLIPS
        assert judge(here.evidence(last)).clean
        assert here.sandbox.tasks() == CLIPS


def test_without_the_call_a_person_is_asked(tmp_path: Path) -> None:
    with called_back(tmp_path, speed=600.0) as here:
        here.sandbox.fault("lost_answer", "seegen", when="submit")
        here.sandbox.fault("callback_lost", "seegen", times=100)
        last = here.run()
        assert last.code == 4, last.said()
        assert sorted(job.state for job in here.jobs()) == ["held", "succeeded", "succeeded"]
        assert judge(here.evidence(last)).clean
        assert here.sandbox.tasks() == CLIPS


@pytest.mark.parametrize(
    ("fault", "more"),
    [
        ("callback_twice", {}),
        ("callback_late", {}),
        ("callback_forged", {"how": "task"}),
        ("callback_forged", {"how": "result"}),
    ],
)
def test_t20_a_call_is_only_a_hint(tmp_path: Path, fault: str, more: dict[str, str]) -> None:
    with called_back(tmp_path) as here:
        here.sandbox.fault("lost_answer", "seegen", when="submit")
        here.sandbox.fault(fault, "seegen", times=10, **more)
        last = here.run()
        assert last.code in (0, 4), last.said()  # a true call may come after the last look
        assert judge(here.evidence(last)).clean
        assert here.sandbox.tasks() == CLIPS
        assert here.sandbox.observed()["faults_fired"].get(fault), f"nothing was {fault}: {deliveries(here)}"


def test_an_address_that_nobody_could_call_is_refused(tmp_path: Path) -> None:
    with called_back(tmp_path) as here:
        ended = here.commands.run(*here.arguments[:-2], "--callback-url", "http://example.com/hooks")
        assert ended.code == 2, ended.said()
        assert "--callback-url" in ended.err
        assert not Path(here.queue).exists()
