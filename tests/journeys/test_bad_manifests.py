"""A manifest with an error: one clear answer and exit 2; the queue is the same to the byte, no socket is opened.

Here by whole processes, with the key of an account and its provider at hand; `test_manifest_bad.py` has every case."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torture.commands import Ended
from torture.trial import Trial, trial

GOOD = """\
version: 1
batch: neon
jobs:
  clip: {provider: seedance2ai, model: seedance, prompt: a neon alley}
"""
# What is changed in the good one, and the place and the word that the answer must name.
BAD = {
    "a tab": (GOOD.replace("  clip", "\tclip"), "use spaces"),
    "a duration out of range": (GOOD.replace("alley}", "alley, duration: 30}"), "30"),
    "two equal jobs": (GOOD + "  clop: {provider: seedance2ai, model: seedance, prompt: a neon alley}\n", "takes"),
    "an address of its own": (GOOD + "providers: {seedance2ai: {base_url: 'https://example.com'}}\n", "base_url"),
    "no manifest": ("", "jobs"),
}
# Tells of every address that is looked up, bound or connected to; imported by Python before anything else.
WATCH = """
import os, sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(event + "\\n")
sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Ended, str]]]:
    """What `run` says to each of them, with a queue that holds a finished batch; and what it did with sockets."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    with trial(folder, ("seedance2ai",), seed="bad", speed=100, render=20) as here:
        here.orders.grow({"sd-video": 1})
        assert here.run().code == 0
        before, asked = digest(here), here.sandbox.requests()
        with ThreadPoolExecutor(3) as hands:
            told = dict(zip(BAD, hands.map(lambda name: _answer(here, name), BAD), strict=True))
        assert digest(here) == before, "the queue was touched"
        assert here.sandbox.requests() == asked
        _the_watch_sees(here)
        yield told


def _answer(here: Trial, name: str) -> tuple[Ended, str]:
    manifest = here.folder / f"{name.replace(' ', '-')}.yaml"
    manifest.write_text(BAD[name][0])
    return watched(here, manifest)


def watched(here: Trial, manifest: Path) -> tuple[Ended, str]:
    told = manifest.with_suffix(".sockets")
    path = os.pathsep.join([str(here.folder / "watch"), *sys.path])
    running = here.commands.start(
        "run", str(manifest), "--yes", "--speed", "100", "--db", here.queue, PYTHONPATH=path, WATCHED=str(told)
    )
    return running.wait(), told.read_text() if told.exists() else ""


def digest(here: Trial) -> dict[str, str]:
    """Of the queue and all that stands beside it; nobody has it open now."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(here.folder.glob("queue.db*"))}


def _the_watch_sees(here: Trial) -> None:
    """A good one opens sockets: the same watch, and it is not blind."""
    good = here.folder / "good.yaml"
    good.write_text(GOOD)
    ended, sockets = watched(here, good)
    assert ended.code == 0, ended.said()
    assert "socket.connect" in sockets


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_with_one_clear_answer(name: str, answers: dict[str, tuple[Ended, str]]) -> None:
    ended, sockets = answers[name]
    assert ended.code == 2, ended.said()
    assert BAD[name][1] in ended.err
    assert "error" in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert sockets == ""
