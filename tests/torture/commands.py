"""The program under test, as a user starts it: by its command, in an environment of its own, known by its exit code."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture.nursery import AVAILABLE, Process, nursery

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
    process: Process
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
    may share it. `anew`: every start is that of a user's own command, Python and all; otherwise it comes from the
    nursery, unless the modules that it is to import are other ones.
    """

    folder: Path
    environment: Mapping[str, str]
    ended: list[Ended] = field(default_factory=list)
    anew: bool = False
    _alive: list[Process] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def start(self, *arguments: str, anew: bool = False, under: Sequence[str] = (), **more: str) -> Running:
        """`more` are further environment variables, `under` the words of a command that starts ours."""
        number = next(self._numbers)
        said = self.folder / "said"
        said.mkdir(exist_ok=True)
        out, err = said / f"{number:04}.out", said / f"{number:04}.err"
        own = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        environment = {**own, **HOME, **self.environment, **more}
        changed = "LD_PRELOAD" in more or environment.get("PYTHONPATH") != own.get("PYTHONPATH")
        if changed:  # it may import our libraries before the program can say that their keys are not to be logged
            environment["SSLKEYLOGFILE"] = ""
        forked = AVAILABLE and not (anew or self.anew or changed or under)
        with out.open("wb") as stdout, err.open("wb") as stderr:
            streams = stdout.fileno(), stderr.fileno()
            process = (
                nursery().start("runner", arguments, self.folder, environment, *streams) if forked
                else _anew([*under, str(PROGRAM), *arguments], self.folder, environment, *streams)
            )  # fmt: skip
        self._alive.append(process)
        return Running(arguments, process, out, err, time.monotonic())

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
        """What `runner … --json` prints. Raises RuntimeError where it fails or prints no JSON."""
        ended = self.run(*arguments, "--json")
        if ended.code != 0:
            raise RuntimeError(ended.said())
        try:
            return json.loads(ended.out)
        except ValueError:
            raise RuntimeError(f"no JSON: {ended.out[:300]!r}\n{ended.said()}") from None


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def _anew(command: Sequence[str], folder: Path, environment: Mapping[str, str], out: int, err: int) -> Process:
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )
