"""Processes beside this one: a provider to ask, and measures that need a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0  # seconds that a server has to end


def in_child(module: str, function: str, **arguments: Any) -> dict[str, Any]:
    """What `function(**arguments)` of a module of this package returns, run in a fresh process; with `peak_mb`."""
    command = [sys.executable, "-m", "tests.bench.child", module, function, json.dumps(arguments, default=str)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{module}.{function} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def server(*command: str) -> Iterator[dict[str, Any]]:
    """A server that says in one line of JSON on stdout that it is ready; that line. It ends with the block."""
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{command[0]} did not start")
        yield json.loads(line)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def provider(*, polls: int = 1, media_bytes: int = 20_000, big: Path | None = None) -> Iterator[str]:
    """The base URL of a `tests.bench.provider` whose tasks are complete at the `polls`-th poll (0: never)."""
    options = ["--polls", str(polls), "--media-bytes", str(media_bytes), *(["--big", str(big)] if big else [])]
    with server("tests.bench.provider", *options) as ready:
        yield ready["base_url"]


@contextmanager
def sandbox(*, speed: float, render: float, seed: str = "7", media_bytes: int = 64_000) -> Iterator[dict[str, Any]]:
    """The pretend providers in a process of their own: what they say when they are ready."""
    options = ("--speed", str(speed), "--render", str(render), "--seed", seed, "--media-bytes", str(media_bytes),
               "--credits", "10000000", "--fast-disk")  # fmt: skip
    with server("runner.sandbox", *options) as ready:
        yield ready


def get(url: str) -> Any:
    """A JSON answer."""
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 (a server of our own)
        return json.load(answer)


def runner_command(*arguments: str) -> Sequence[str]:
    """The command line, started as its console script starts it."""
    return [sys.executable, "-c", "import sys; from runner.cli import main; sys.exit(main())", *arguments]
