"""Whatever a manifest, a table or an input holds, it is read or refused in words of the catalogue: no traceback, no
long wait, no memory without bound. This is the short form; `fuzz/__init__.py` tells how to start the long one, of a
million inputs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.__main__ import Tally, environment, judge
from fuzz.judge import judged, prepare
from fuzz.mangle import Input, made
from fuzz.seeds import FILMED, LOCAL, PIECES, RICH, TABLES, manifests
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import InputError, Problem
from runner.expand import orders, survey
from runner.manifest import read_manifest
from runner.manifest.findings import KEPT
from runner.problems import render
from runner.providers import registry

INPUTS = int(os.environ.get("RUNNER_FUZZ", "700"))
EDITS = st.lists(
    st.tuples(st.integers(0, 2_000), st.integers(0, 30), st.one_of(st.sampled_from(PIECES), st.text(max_size=4))),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made_here:
        prepare(Path(made_here))
        yield Path(made_here)


def mutated(text: str, edits: list[tuple[int, int, str]]) -> bytes:
    for at, removed, piece in edits:
        at %= len(text) + 1
        text = text[:at] + piece + text[at + removed :]
    return text.encode("utf-8", "surrogatepass")


def test_mangled_inputs_within_2_s_and_200_mib() -> None:
    """In a process that the system holds to these limits."""
    tally = Tally()
    wrong = [tally.found[number] for number in judge(tally, "suite", 0, INPUTS)]
    assert not wrong, "\n".join(wrong)
    assert tally.inputs == INPUTS
    assert min(tally.read, tally.refused) > INPUTS // 20, "both kinds are tried"


# Found by hypothesis, what is wrong is shrunk to the least of its kind.


@settings(max_examples=INPUTS // 7)
@given(st.sampled_from(manifests()), EDITS)
def test_mutated_manifests_are_read_or_refused(folder: Path, seed: str, edits: list[tuple[int, int, str]]) -> None:
    judged(Input(mutated(seed, edits), {}), folder)


@settings(max_examples=INPUTS // 14)
@given(st.sampled_from(sorted(TABLES)), EDITS)
def test_mutated_tables_are_read_or_refused(folder: Path, name: str, edits: list[tuple[int, int, str]]) -> None:
    judged(Input(RICH.encode(), {name: mutated(TABLES[name].decode(), edits)}), folder)


@settings(max_examples=INPUTS // 20)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(folder: Path, data: bytes) -> None:
    judged(Input(data, {}), folder)
    judged(Input(RICH.encode(), {"t.csv": data}), folder)
    judged(Input(FILMED.encode(), dict.fromkeys(("a.png", "v.mp4"), data)), folder)


def test_the_seeds_themselves_are_good(folder: Path) -> None:
    assert judged(Input(LOCAL.encode(), {}), folder) == 0
    path = folder / "manifest.yaml"
    path.write_text(RICH)
    manifest = read_manifest(path)
    assert sum(1 for _ in orders(manifest, registry(), survey(manifest, registry()))) == 2 * 3 * 2 + 2 + 2


def test_an_input_is_made_again_by_its_number() -> None:
    assert made("night", 4711) == made("night", 4711) != made("night", 4712)


# What it found, kept: each of these once took as long as the square of its length.


CLIP = 'version: 1\nbatch: night\njobs:\n  clip: {provider: seedance2ai, model: seedance, prompt: "'
KEY = "sk-sd_abcdefghij0123456789"
MANY = "budget: {" + ", ".join(f"a{n}: 1" for n in range(5_000)) + "}\n"
ONCE_SLOW = {
    "mistakes in one long line": CLIP + 'a"' + ", prompt: a" * 30_000 + "}\n",
    "control characters": "\0" * 1_000_000,
    "dollars": CLIP + "$" * 1_000_000 + '"}\n',
    "beginnings of keys": CLIP + "sk_" * 300_000 + '"}\n',
    "keys in comments": f'{CLIP}a"}}\n' + f"# {KEY}\n" * 5_000 + MANY,
}


@pytest.mark.parametrize("what", ONCE_SLOW)
def test_what_once_was_slow_is_told_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(ONCE_SLOW[what])
    started = time.process_time()
    problems = problems_of(path)
    told = render(problems)
    assert time.process_time() - started < 2
    assert len(problems) <= KEPT
    assert told.count(": B") >= min(len(problems), 50)


def problems_of(path: Path) -> tuple[Problem, ...]:
    try:
        read_manifest(path)
    except InputError as error:
        return error.problems
    return ()


# The limits are the system's, and it means them.


def ended(way: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A child whose second input does this instead of being judged."""
    lines = [
        "import sys, fuzz.child as child; from pathlib import Path",
        "child.SECONDS, right, seen = 0.3, child.judged, []",
        "def judged(given, folder):",
        "    seen.append(1)",
        f"    if len(seen) == 3: {way}",
        "    return right(given, folder)",
        f"child.judged = judged; child.main('limits', 0, 4, Path({str(folder)!r}))",
    ]
    words = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("way", "code", "said"),
    [
        ("\n        while True: pass", -signal.SIGPROF, ""),
        ("bytearray(200 << 20)", 0, "MemoryError"),
        ("__import__('socket').socket().bind(('127.0.0.1', 0))", 0, "a manifest caused socket."),
    ],
    ids=["time", "memory", "addresses"],
)
def test_the_limits_are_real(way: str, code: int, said: str, tmp_path: Path) -> None:
    done = ended(way, tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stdout
    assert int((tmp_path / "at").read_text()) == (3 if code == 0 else 1)
