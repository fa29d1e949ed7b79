"""Two workers whose database restarts, breaks off at their commits, or goes on while one of them is stopped: nothing is
paid twice, nothing is lost, and the bill is the providers' own. `./scripts/torture` does more of it (postgres-…)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from postgres import cluster
from torture.judge import judge
from torture.scenarios import databases
from torture.scenarios.databases import ask, fall_silent, two_workers
from torture.trial import trial
from torture.waiting import until


@pytest.mark.timeout(300)
def test_the_server_restarts_in_the_middle_of_the_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "RESTARTS", 1)
    told = databases._restarts(tmp_path, "away")
    assert told.clean, "\n".join(told.findings)
    said = [path.read_text() for path in (tmp_path / "said").glob("*.err")]
    waited = [text for text in said if "the database does not answer" in text]
    assert len(waited) == 2
    assert all(text.count("the database answers again") == 1 for text in waited)


@pytest.mark.timeout(300)
def test_a_worker_is_stopped_until_others_take_it_for_dead(tmp_path: Path) -> None:
    told = databases._stopped(tmp_path, "stopped")
    assert told.clean, "\n".join(told.findings)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_worker_that_waits_for_its_database(tmp_path: Path, number: signal.Signals) -> None:
    with (
        cluster() as server,
        trial(tmp_path, ("seedance2ai",), seed="waits", speed=5, render=60, queue=server.dsn) as here,
    ):
        here.orders.grow({"sd-video": 3})
        with two_workers(here, server.dsn) as [running]:
            until(lambda: len(ask(server.dsn, "SELECT 1 FROM jobs WHERE state = 'running'")) == 3, "its orders")
            server.stop()
            until(lambda: "does not answer" in running.said(), "the word that it waits")
            before = running.age()
            running.send(number)
            ended = here.commands.over(running)
        assert ended.code == 128 + number, ended.said()
        assert ended.seconds - before < 16, "ten seconds, on a machine that is busy with something else"
        assert "Traceback" not in ended.err, ended.said()
        server.start()
        fall_silent(server.dsn, running.process.pid)
        last = here.run()
        evidence = here.evidence(last, ask)
        assert judge(evidence).clean, f"{judge(evidence)}\n{last.said()}"
        assert [job.state for job in evidence.jobs] == ["succeeded"] * 3
