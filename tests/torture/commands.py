"""The program under test, as a user starts it: by its command, in an environment of its own, known by its exit code."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture import warm

PROGRAM = Path(sys.executable).with_name("runner")
HOME = {"HOME": "/nonexistent", "LANG": "C.UTF-8"}
LONGEST = 300.0  # wall seconds after which a run that should have ended is a finding by itself


@dataclass(frozen=True)
class Ended:
    """A command that is over. `code` as a shell tells it: 137 where SIGKILL ended it, 143 for SIGTERM."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    def said(self) -> str:
        return f"`runner {' '.join(self.arguments)}` ended with {self.code}:\n{self.err[-3000:]}"


@dataclass
class Running:
    """A command under way, in a process group of its own."""

    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    began: float

    def send(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, timeout: float = LONGEST) -> Ended:
        """Raises TimeoutError, after killing it, where it does not end."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"still running after {timeout} s: {self.err.read_text()[-3000:]}") from None
        seconds = time.monotonic() - self.began
        return Ended(self.arguments, code if code >= 0 else 128 - code, _text(self.out), _text(self.err), seconds)

    def age(self) -> float:
        """Wall seconds since its start."""
        return time.monotonic() - self.began

    def lives(self, seconds: float) -> bool:
        """Waits so long; whether it still runs."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def said(self) -> str:
        return _text(self.err)


@dataclass
class Commands:
    """Starts `runner …` in `folder`; what each one prints is kept in `folder/said`.

    `environment` is all of its environment but PATH and PYTHONPATH: nothing else of the tester's own comes in. Threads
    may share it.
    """

    folder: Path
    environment: Mapping[str, str]
    ended: list[Ended] = field(default_factory=list)
    _alive: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def start(self, *arguments: str, **more: str) -> Running:
        """`more` are further environment variables."""
        out, err = self._said()
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [PROGRAM, *arguments], cwd=self.folder, env={**self._environment(), **more},
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True,
            )  # fmt: skip
        self._alive.append(process)
        return Running(arguments, process, out, err, time.monotonic())

    def _said(self) -> tuple[Path, Path]:
        """Where the next command's words go."""
        number, said = next(self._numbers), self.folder / "said"
        said.mkdir(exist_ok=True)
        return said / f"{number:04}.out", said / f"{number:04}.err"

    def _environment(self) -> dict[str, str]:
        own = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        return {**own, **HOME, **self.environment}

    def close(self) -> None:
        """Ends what a test that failed in the middle left running."""
        for process in self._alive:
            if process.poll() is None:
                process.kill()
                process.wait()

    def run(self, *arguments: str, **more: str) -> Ended:
        return self.over(self.start(*arguments, **more))

    def over(self, running: Running) -> Ended:
        """Waits for its end and remembers it for the judge."""
        ended = running.wait()
        self.ended.append(ended)
        return ended

    def json(self, *arguments: str) -> Any:
        """What `runner … --json` prints, a command that only reads. Raises RuntimeError where it fails or prints no
        JSON."""
        ended = self._read(*arguments, "--json")
        if ended.code != 0:
            raise RuntimeError(ended.said())
        try:
            return json.loads(ended.out)
        except ValueError:
            raise RuntimeError(f"no JSON: {ended.out[:300]!r}\n{ended.said()}") from None

    def _read(self, *arguments: str) -> Ended:
        began, (out, err) = time.monotonic(), self._said()
        code = warm.call(arguments, self.folder, self._environment(), out, err)
        ended = Ended(arguments, code, _text(out), _text(err), time.monotonic() - began)
        self.ended.append(ended)
        return ended


def _text(path: Path) -> str:
    return path.read_text(errors="replace")
