"""A loss of power, played: what a run never synced is gone, its files and their names alike.

    power = Power(folder / "power", (queue.parent, orders.folder))
    with power.loss() as environment:           all that is there now is on the disk
        here.run(**environment, …)              a run that is killed, or ends
    …                                           the folders are as that run had last synced them

A small library is preloaded into the run (`power_cut.c`: what it remembers, and what it takes for lost), so this needs
Linux and a C compiler. What the run wrote since its last sync is lost, all of it: the worst that may happen, which no
file system makes as bad.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("power_cut.c")
KEY_SIZE = 96


def compiler() -> str | None:
    """What compiles C here, if anything does."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def playable() -> bool:
    """Whether power can be cut on this machine."""
    return sys.platform == "linux" and compiler() is not None


@dataclass
class Power:
    """The power of the `roots`: folders that no other process writes to meanwhile. `memory` is a folder of our own."""

    memory: Path
    roots: Sequence[Path]
    _keys: dict[Path, str] = field(default_factory=dict)

    @contextmanager
    def loss(self) -> Iterator[Mapping[str, str]]:
        """Cuts the power at the end of the block; until then the runs that get this environment may sync."""
        self.on()
        yield {"LD_PRELOAD": str(_library()), "POWER_MEMORY": str(self.memory)}
        self.cut()

    def on(self) -> None:
        """Everything that is in the folders now is durable."""
        shutil.rmtree(self.memory, ignore_errors=True)
        self.memory.mkdir(parents=True)
        for root in self.roots:
            self._keys[root] = self._remember(root)
            for path in root.rglob("*"):
                if path.is_dir() or path.is_file():
                    self._remember(path)

    def cut(self) -> None:
        """Once every run is dead: what they had not synced is gone."""
        made: dict[str, Path] = {}
        for root in self.roots:
            for path in root.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._make(root, self._keys[root], made)

    def _make(self, folder: Path, key: str, made: dict[str, Path]) -> None:
        for kind, inner, name in self._names(key):
            path = folder / name
            if kind == "d":
                path.mkdir(mode=0o700)
                self._make(path, inner, made)
            elif inner in made:  # a second name of one file
                os.link(made[inner], path)
            else:
                made[inner] = path
                path.touch(mode=0o600)
                if (self.memory / inner).exists():
                    shutil.copyfile(self.memory / inner, path)

    def _names(self, key: str) -> Iterator[tuple[str, str, str]]:
        """What stood in a folder when it was synced; nothing where it never was."""
        listed = self.memory / f"{key}.dir"
        for entry in listed.read_bytes().split(b"\0")[:-1] if listed.exists() else ():
            kind, inner, name = os.fsdecode(entry).split(" ", 2)
            yield kind, inner, name

    def _remember(self, path: Path) -> str:
        key = ctypes.create_string_buffer(KEY_SIZE)
        if _functions().power_remember(os.fsencode(path), os.fsencode(self.memory), key) != 0:
            raise OSError(f"{path} cannot be remembered")
        return key.value.decode()


@cache
def _library() -> Path:
    """Compiled once for each process, into a folder that is never in the way."""
    chosen = compiler()
    if chosen is None:
        raise RuntimeError("no C compiler: power cannot be cut here")
    made = Path(tempfile.mkdtemp(prefix="power-")) / "power_cut.so"
    subprocess.run([chosen, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", made, SOURCE], check=True)
    return made


@cache
def _functions() -> Any:
    return ctypes.CDLL(str(_library()))
