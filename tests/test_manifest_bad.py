"""Bad manifests, each in a folder of its own under `bad/`: what a person and a script are told, to the letter.

A folder is named after the number of its case in the catalogue of bad input and holds the manifest, the files it names,
`expected.txt` (what is said on stderr) and `expected.json` (what `--json` prints). Four notes may lie beside them:

    words.txt         what stands after `runner`, if it is not `plan manifest.yaml`
    hero.png.bytes    how many bytes hero.png shall have, padded with zeros
    pipe.yaml.fifo    pipe.yaml shall be a FIFO, which git cannot keep
    before.yaml       what the queue was asked for before

Where the name ends in `-accepted` the command goes through, with what it then says as a warning, if anything. All of
them run in a folder with a queue in it, on a disk with 1 GB free, at noon of 2026-01-01; none may touch the queue, add
a file, or look for an address.

`python tests/test_manifest_bad.py` writes what is told now over what was expected; the difference is then for a person
to judge. Cases that speak of the providers in `picky.py` are read with these.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from picky import PICKY, PROUD

from runner.cli import main
from runner.cli.assembly import NewJobs, Order, read_order
from runner.clock import Clock
from runner.providers import declare
from runner.store import open_store
from runner.store.enqueue import AccountSettings, NewBatch, enqueue, save_accounts

BAD = Path(__file__).parent / "bad"
CASES = sorted(folder for folder in BAD.iterdir() if folder.is_dir())
NOTES = ("expected.txt", "expected.json", "words.txt")
SECRETS = ("hunter2", "4eC39HqLyjWDarjtT1", "abc123def456ghi789jkl")
# Cases without a problem of their number to show: accepted as they are, or told in other words than as a problem.
UNSAID = ("B06", "B07", "B80", "B81", "B84", "B87")
EXITS = {"B89": 7}  # all others: 2
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FREE = 1_000_000_000  # bytes
ADDRESSES = frozenset({
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
    "socket.sendto", "socket.sendmsg",
})  # fmt: skip

_watched: list[list[str]] = []  # those who are told of every address that is looked for, while they watch


def _hook(event: str, _arguments: tuple[Any, ...]) -> None:
    if _watched and event in ADDRESSES:
        for watcher in _watched:
            watcher.append(event)


sys.addaudithook(_hook)


@contextmanager
def watching() -> Iterator[list[str]]:
    seen: list[str] = []
    _watched.append(seen)
    try:
        yield seen
    finally:
        _watched.remove(seen)


class Noon(Clock):
    def timestamp(self) -> float:
        return NOON.timestamp()


class Room(NamedTuple):
    free: int


@dataclass(frozen=True)
class Told:
    """What came of a case: exit code, what was said as text and as data, addresses looked for, files before and
    after."""

    code: int
    text: str
    data: str
    addresses: list[str]
    before: dict[str, str]
    after: dict[str, str]

    @property
    def problems(self) -> list[dict[str, Any]]:
        answer = json.loads(self.data)
        found: list[dict[str, Any]] = answer["problems"] if "problems" in answer else answer["warnings"]
        return found


def accepted(case: Path) -> bool:
    return case.name.endswith("-accepted")


def tell(case: Path, folder: Path, queue: Path) -> Told:
    """Runs the case in a folder of its own, as someone who stands in it would."""
    prepare(case, folder, queue)
    before = digests(folder)
    words_file = case / "words.txt"
    words = words_file.read_text().split() if words_file.exists() else ["plan", "manifest.yaml"]
    home = os.getcwd()
    with pytest.MonkeyPatch.context() as patch, watching() as addresses:
        patch.setattr("runner.cli.plan.Clock", Noon)
        patch.setattr(shutil, "disk_usage", lambda _: Room(FREE))
        for name in [name for name in os.environ if name.startswith("RUNNER_")]:
            patch.delenv(name)
        declare([PICKY, PROUD] if speaks_of_picky(case) else [])
        os.chdir(folder)
        try:
            code, out, err = call([*words, "--json"])
            text = err if code else "".join(call(words)[1:])
        finally:
            os.chdir(home)
            declare()
    place = str(folder.resolve())
    return Told(code, text.replace(place, "FOLDER"), out.replace(place, "FOLDER"), addresses, before, digests(folder))


def call(words: list[str]) -> tuple[int, str, str]:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    out_and_err = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return code, *out_and_err


def prepare(case: Path, folder: Path, queue: Path) -> None:
    shutil.copytree(case, folder, symlinks=True, ignore=shutil.ignore_patterns(*NOTES))
    for note in [*folder.rglob("*.bytes")]:
        os.truncate(note.with_suffix(""), int(note.read_text()))
    for note in [*folder.rglob("*.fifo")]:
        os.mkfifo(note.with_suffix(""))
    shutil.copyfile(queue, folder / "runner.db")
    if (folder / "before.yaml").exists():
        asyncio.run(ask_before(read_order(folder / "before.yaml"), folder / "runner.db"))


async def ask_before(order: Order, queue: Path) -> None:
    manifest = order.manifest
    batch = NewBatch(manifest.batch, str(manifest.folder), str(manifest.folder), "", manifest.sha256, {})
    entries = [manifest.account(name) for name in sorted(order.survey.accounts_used())]
    accounts = [
        AccountSettings(each.name, each.uses, "", each.concurrency, (), each.poll_interval, each.timeout, False)
        for each in entries
    ]
    async with open_store(str(queue), Clock(), own=True) as store:
        await store.write(save_accounts, accounts)
        await store.write(enqueue, NOON, batch, NewJobs(order))


def speaks_of_picky(case: Path) -> bool:
    manifest = case / "manifest.yaml"
    text = manifest.read_bytes() if manifest.is_file() else b""
    return b"picky" in text or b"proud" in text


def digests(folder: Path) -> dict[str, str]:
    """Of every file below; no process has any of them open."""
    return {str(path.relative_to(folder)): _digest(path) for path in folder.rglob("*")}


def _digest(path: Path) -> str:
    """Of a very large one, which is nothing but a hole, the time at which it was last written."""
    if not path.is_file():
        return "no file"
    state = path.stat()
    return str(state.st_mtime_ns) if state.st_size > 100_000_000 else hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def empty_queue() -> Iterator[Path]:
    async def make(path: Path) -> None:
        async with open_store(str(path), Clock(), own=True):
            pass

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "runner.db")
        asyncio.run(make(path))
        yield path


@pytest.fixture(scope="module")
def queue() -> Iterator[Path]:
    with empty_queue() as path:
        yield path


def test_there_are_cases() -> None:
    assert len(CASES) > 120


def test_the_watch_is_not_blind() -> None:
    import socket

    with watching() as addresses, socket.socket() as one:
        one.bind(("127.0.0.1", 0))
    assert addresses == ["socket.bind"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_manifest(case: Path, tmp_path: Path, queue: Path) -> None:
    told = tell(case, tmp_path / "case", queue)

    assert told.text == (case / "expected.txt").read_text()
    assert told.data == (case / "expected.json").read_text()
    assert told.code == (0 if accepted(case) else EXITS.get(case.name[:3], 2))
    assert told.after == told.before, "queue and files are as they were, to the byte"
    assert told.addresses == []
    assert case.name[:3] in {problem["code"] for problem in told.problems} or case.name.startswith(UNSAID)
    assert not any(secret in told.text + told.data for secret in SECRETS)
    for problem in told.problems:
        assert_a_place_that_exists(problem, tmp_path / "case")


def assert_a_place_that_exists(problem: dict[str, Any], folder: Path) -> None:
    assert list(problem) == ["code", "file", "line", "col", "endcol", "msg", "help"]
    if problem["file"] is None or not (folder / problem["file"]).is_file():
        assert problem["line"] in (None, 1)
        return
    lines = re.split(r"\r\n|\r|\n", (folder / problem["file"]).read_bytes().decode("utf-8-sig", "replace"))
    assert 1 <= problem["line"] <= len(lines)
    assert 1 <= problem["col"] <= len(lines[problem["line"] - 1]) + 1
    assert problem["endcol"] is None or problem["endcol"] > problem["col"]


def rewrite() -> None:
    with empty_queue() as queue:
        for case in CASES:
            with tempfile.TemporaryDirectory() as temporary:
                told = tell(case, Path(temporary) / "case", queue)
                (case / "expected.txt").write_text(told.text)
                (case / "expected.json").write_text(told.data)


if __name__ == "__main__":
    rewrite()
