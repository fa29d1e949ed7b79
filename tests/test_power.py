"""A loss of power, as the torture test plays it, takes what was never synced and nothing else; and our queue withstands
one from its first commit on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from torture.power import Power

WRITING = """
import os

def sync(name):
    descriptor = os.open(name, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

def write(name, text):
    with open(name, "w") as file:
        file.write(text)

write("synced", "all of it")
sync("synced")
write("empty", "never synced")
os.mkdir("inner")
write("inner/file", "twice")
os.link("inner/file", "inner/also")
sync("inner/file")
sync("inner")
write("moved", "moved")
sync("moved")
sync(".")
os.rename("moved", "elsewhere")
with open("synced", "a") as file:
    file.write(", and more")
write("old", "new")
write("later", "its folder was synced before")
sync("later")
"""

OPENING = """
import asyncio, os, signal, sys
from runner.clock import Clock
from runner.store import open_store

async def main():
    async with open_store(sys.argv[1], Clock(), own=True):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_only_what_was_synced_is_left(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "before").mkdir(parents=True)
    (root / "old").write_text("old")
    with Power(tmp_path / "power", (root,)).loss() as environment:
        subprocess.run([sys.executable, "-c", WRITING], check=True, cwd=root, env={**os.environ, **environment})
    left = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert left == {
        "synced": "all of it", "empty": "", "inner/file": "twice", "inner/also": "twice", "moved": "moved",
        "old": "old",
    }  # fmt: skip
    assert (root / "inner" / "file").samefile(root / "inner" / "also")
    assert (root / "before").is_dir()


def test_K7_a_queue_in_a_new_folder_is_durable_from_its_first_commit(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    queue = root / "new" / "and inner" / "queue.db"
    with Power(tmp_path / "power", (root,)).loss() as environment:
        command = [sys.executable, "-c", OPENING, str(queue)]
        ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    with closing(sqlite3.connect(queue)) as connection:
        assert connection.execute("SELECT count(*) FROM workers").fetchone() == (1,)
