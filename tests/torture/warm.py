"""Commands that only read, without the second that a process needs to start: one process has imported the program, and
forks for each command. What the command sees is what it would see anyway: its arguments, its environment, its folder.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


def call(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], out: Path, err: Path) -> int:
    """Runs `runner …` in `folder` with just this environment; returns its exit code."""
    order = {
        "arguments": arguments,
        "folder": str(folder),
        "environment": environment,
        "out": str(out),
        "err": str(err),
    }
    return _server().call(order)


class _Server:
    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-m", "torture.warm"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self._one_at_a_time = threading.Lock()
        atexit.register(self._close)

    def call(self, order: Mapping[str, Any]) -> int:
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        with self._one_at_a_time:
            asking.write(json.dumps(order) + "\n")
            asking.flush()
            return int(answering.readline())

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()


@cache
def _server() -> _Server:
    return _Server()


def _serve() -> None:
    """Answers each line of stdin with an exit code on stdout, until stdin ends."""
    import runner.cli.calling
    import runner.cli.credits
    import runner.cli.jobs  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _be_the_command(order)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _be_the_command(order: Mapping[str, Any]) -> None:
    from runner.cli import main

    code = 3
    try:
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, number)
            os.close(file)
        code = main(order["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
