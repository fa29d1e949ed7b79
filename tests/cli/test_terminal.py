"""A run on a terminal: it shows the plan and asks, and its progress stays off stdout."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread

import pytest
from torture.commands import HOME, LONGEST, PROGRAM
from torture.waiting import until

from cli.kit import SPEED, Place, place, states

MANIFEST = """\
version: 1
batch: stage
jobs:
  singer: {provider: seedance2ai, model: seedance, prompt: a singer}
  dancer: {provider: seedance2ai, model: seedance, prompt: a dancer}
"""
DRAWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what moves the cursor and sets colours


@dataclass
class Terminal:
    """A command whose stdin and stderr are a terminal; its stdout is a file, as behind `> results`."""

    process: subprocess.Popen[bytes]
    out: Path
    _typing: int
    shown: bytearray = field(default_factory=bytearray)

    def text(self) -> str:
        return DRAWN.sub("", self.shown.decode(errors="replace"))

    def type(self, line: str) -> None:
        os.write(self._typing, f"{line}\n".encode())

    def read_on(self) -> None:
        while piece := self._piece():
            self.shown += piece

    def _piece(self) -> bytes:
        try:
            return os.read(self._typing, 4096)
        except OSError:  # how Linux tells that the last one at the other side has gone
            return b""


@contextmanager
def terminal(here: Place, *words: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    out = Path(mkdtemp(prefix="stdout-", dir=here.folder), "results")
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    with out.open("wb") as results:
        process = subprocess.Popen(
            [PROGRAM, *words], cwd=here.folder, env={**environment, **HOME, **here.commands.environment},
            stdin=theirs, stdout=results, stderr=theirs, start_new_session=True,
        )  # fmt: skip
    os.close(theirs)
    made = Terminal(process, out, ours)
    reader = Thread(target=made.read_on)
    reader.start()
    try:
        yield made
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("stage"), {"seedance2ai": "seedance2ai"}, seed="stage") as made:
        yield made


@contextmanager
def asked(here: Place, batch: str, queue: str) -> Iterator[Terminal]:
    """A run that has shown its plan and waits for an answer."""
    here.write(f"{batch}.yaml", MANIFEST.replace("stage", batch))
    with terminal(here, "run", f"{batch}.yaml", "--speed", f"{SPEED:g}", "--db", queue) as shown:
        until(lambda: "pay for 2 new jobs? [y/N]" in shown.text(), "the question")
        assert f"batch {batch}: 2 new, 0 kept, 0 gone" in shown.text()
        assert "2 jobs to pay, 2 without a known price" in shown.text()
        yield shown


@pytest.fixture(scope="module")
def paid(here: Place) -> Terminal:
    """The run that somebody said yes to, once it is over. Its tasks end when its progress has been seen."""
    for _ in range(2):
        here.sandbox.fault("stuck", "seedance2ai", when="submit")
    with asked(here, "stage", "runner.db") as shown:
        shown.type("y")
        until(lambda: here.sandbox.tasks() == 2, "its orders")
        until(lambda: re.search(r"account +queued +in flight", shown.text()), "its progress")
        for task in here.tasks("seedance2ai"):
            here.finish("seedance2ai", task["id"])
        assert shown.process.wait(LONGEST) == 0
        until(lambda: "all done (exit 0)" in shown.text(), "the last word")
    return shown


def test_yes_pays_and_the_progress_stays_off_stdout(here: Place, paid: Terminal) -> None:
    assert b"\x1b[" in paid.shown, "it was not drawn"
    assert paid.out.read_bytes() == b""
    assert [*states(here.queue).values()] == ["succeeded", "succeeded"]


@pytest.mark.parametrize("answer", ["n", ""])
def test_no_is_the_answer_unless_somebody_says_yes(here: Place, answer: str) -> None:
    requests = here.sandbox.last_request()
    with asked(here, "unpaid", "unpaid.db") as shown:
        shown.type(answer)
        assert shown.process.wait(LONGEST) == 2
        until(lambda: "nothing was submitted" in shown.text(), "the last word")
    assert here.sandbox.last_request(requests) == requests
    assert not (here.folder / "unpaid.db").exists()
    assert shown.out.read_bytes() == b""


def test_with_nothing_new_nobody_is_asked(here: Place, paid: Terminal) -> None:
    with terminal(here, "run", "stage.yaml", "--speed", f"{SPEED:g}", "--no-progress") as shown:
        assert shown.process.wait(LONGEST) == 0
        until(lambda: "all done (exit 0)" in shown.text(), "the last word")
    assert "pay for" not in shown.text()
    assert here.sandbox.tasks() == 2


def test_what_a_script_reads_is_the_same_with_a_terminal_beside_it(here: Place, paid: Terminal) -> None:
    with terminal(here, "jobs", "--json", "-vv") as shown:
        assert shown.process.wait(LONGEST) == 0
    assert shown.out.read_text() == here.commands.run("jobs", "--json").out
