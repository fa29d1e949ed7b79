"""Starts the program without the second that Python needs to import it: a process that has imported everything forks
a child for each start. What the child does from there on is what a process that was started by its command would do:
it is a process of its own, in its own process group and session, with the environment, folder and streams it is given.

Not for who looks at the start itself: a forked child has the command line of the nursery in /proc. Nothing may have
been opened and no thread started at the time of the fork; the program promises that of its imports.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

LONGEST_MESSAGE = 1 << 20
AVAILABLE = hasattr(os, "pidfd_open")  # elsewhere a process is started anew each time


class Process(Protocol):
    """What is asked of a process that runs: a part of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class Child:
    """A forked process. It stays a zombie until its end was seen here, so its id is nobody else's before that."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self._nursery, self._handle, self._lock = nursery, os.pidfd_open(pid), threading.Lock()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and self._is_over(timeout):
                self.returncode = self._nursery.bury(self.pid)
                os.close(self._handle)
            return self.returncode

    def _is_over(self, timeout: float | None) -> bool:
        looking = select.poll()
        looking.register(self._handle, select.POLLIN)
        return bool(looking.poll(None if timeout is None else timeout * 1000))

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The parent of what is started, reached through a socket. Threads may share it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "torture.nursery", str(theirs.fileno())], env=environment, cwd="/",
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self._socket, self._lock = ours, threading.Lock()

    def start(
        self, entry: str, words: Sequence[str], folder: Path, environment: Mapping[str, str], out: int, err: int
    ) -> Child:
        """`out` and `err` are open files of ours, which the child gets for its own."""
        told = self._ask({"entry": entry, "words": words, "folder": str(folder), "environment": environment}, out, err)
        return Child(self, told["pid"])

    def bury(self, pid: int) -> int:
        """The exit code of a child that has ended, negative for a signal; its id may be given away from now on."""
        return int(self._ask({"bury": pid})["code"])

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def _ask(self, message: Mapping[str, Any], *files: int) -> Mapping[str, Any]:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(message).encode()], files)
            answer: Mapping[str, Any] = json.loads(self._socket.recv(LONGEST_MESSAGE))
        return answer


_nursery: Nursery | None = None
_opening = threading.Lock()


def nursery() -> Nursery:
    """The one of this process, opened when it is first needed."""
    global _nursery
    with _opening:
        if _nursery is None:
            _nursery = Nursery()
            atexit.register(_nursery.close)
        return _nursery


# -- in the nursery ---------------------------------------------------------------------------------------------------


def _serve(door: socket.socket) -> Callable[[], int] | None:
    """Answers until nobody asks any more. In a child, returns what the child is to do."""
    children: set[int] = set()
    while True:
        message, files, _, _ = socket.recv_fds(door, LONGEST_MESSAGE, 2)
        if not message:
            break
        asked = json.loads(message)
        if "bury" in asked:
            children.discard(asked["bury"])
            _, status = os.waitpid(asked["bury"], 0)
            door.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())
            continue
        pid = os.fork()
        if pid == 0:
            door.close()
            return _born(asked, files)
        children.add(pid)
        for each in files:
            os.close(each)
        door.send(json.dumps({"pid": pid}).encode())
    for each in children:  # who asked for them is gone
        os.kill(each, signal.SIGKILL)
    return None


def _born(asked: Mapping[str, Any], files: Sequence[int]) -> Callable[[], int]:
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number, each in enumerate((os.open(os.devnull, os.O_RDONLY), *files)):
        os.dup2(each, number)
        if each > 2:
            os.close(each)
    random.seed()
    sys.argv = [asked["entry"], *asked["words"]]
    return _runner if asked["entry"] == "runner" else _sandbox


def _runner() -> int:
    from runner import cli, failpoints

    importlib.reload(failpoints)  # it reads the environment when it is imported
    return cli.main()


def _sandbox() -> int:
    from runner.sandbox import __main__

    return __main__.main()


def _import_everything() -> None:
    import runner
    import runner.sandbox.__main__

    for module in pkgutil.walk_packages(runner.__path__, "runner."):
        if ".migrations" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def main() -> int:
    door = socket.socket(fileno=int(sys.argv[1]))
    _import_everything()
    todo = _serve(door)
    return todo() if todo else 0


if __name__ == "__main__":
    sys.exit(main())
