"""The pretend providers in a process of their own, to be judged by, restarted, and asked through their control door."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture.nursery import AVAILABLE, Process, nursery

STOP_SECONDS = 10.0
# Below the range from which systems take ports for outgoing connections: while the providers are down, the program
# under test must not be able to connect to itself.
PORTS = range(20_000, 32_000)


@dataclass
class Providers:
    """One sandbox over its whole life: state, ports and clock stay the same through every restart.

    `options` are further ones of `python -m runner.sandbox`. Times are wall seconds unless they are said to be scaled.
    """

    folder: Path
    speed: float
    anchor: float
    seed: str
    options: tuple[str, ...] = ()
    faults: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    restarts: int = 0
    _process: Process | None = None
    _ports: tuple[int, int] | None = None

    def start(self, faults: str | None = None) -> None:
        """Returns when it answers. `faults` replaces what goes wrong by itself from now on."""
        self.faults = self.faults if faults is None else faults
        self._ports = self._ports or _two_free_ports(self.seed)
        log = (self.folder / "sandbox.log").open("ab")
        with log:
            reading, writing = os.pipe()
            self._process = _started(self._arguments(), writing, log.fileno())
            os.close(writing)
        with open(reading) as said:
            self.about = self._ready(said.readline())

    def _arguments(self) -> list[str]:
        assert self._ports is not None
        given = {
            "--state": self.folder / "sandbox.db", "--speed": self.speed, "--anchor": self.anchor, "--seed": self.seed,
            "--port": self._ports[0], "--media-port": self._ports[1], "--faults": self.faults,
        }  # fmt: skip
        return [*(str(part) for pair in given.items() for part in pair), "--fast-disk", *self.options]

    def _ready(self, line: str) -> Mapping[str, Any]:
        if not line:
            raise RuntimeError(f"the sandbox did not start:\n{(self.folder / 'sandbox.log').read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self, number: signal.Signals = signal.SIGKILL, *, down: float = 0.0, faults: str | None = None) -> None:
        """Ends it as abruptly as `number` does, leaves it down for a while, and starts it on the same ports."""
        self.stop(number)
        time.sleep(down)
        self.restarts += 1
        self.start(faults)

    # -- the control door -------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        return self._ask(path, "GET", None)

    def post(self, path: str, **body: Any) -> Any:
        return self._ask(path, "POST", json.dumps(body).encode())

    def _ask(self, path: str, method: str, body: bytes | None) -> Any:
        request = urllib.request.Request(f"{self.about['control']}/{path}", data=body, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode()}") from None

    def ledger(self) -> Any:
        return self.get("ledger")

    def observed(self) -> Any:
        return self.get("observed")

    def requests(self, after: int = 0) -> Any:
        """The requests that were seen, oldest first, from behind the `after`-th."""
        return self.get(f"requests?limit=1000000&after={after}")["requests"]

    def last_request(self, after: int = 0) -> int:
        """The number of the newest request, or `after` if none has come since that one."""
        found = self.requests(after)
        return int(found[-1]["seq"]) if found else after

    def tasks(self) -> int:
        """How many tasks were ordered, whatever became of them."""
        providers = self.ledger()["providers"].values()
        return sum(len(account["tasks"]) for provider in providers for account in provider["accounts"].values())

    def fault(self, name: str, provider: str, **more: Any) -> None:
        """The next request that matches meets this fault."""
        self.post("faults", name=name, provider=provider, **more)


@contextmanager
def serving(providers: Providers, faults: str | None = None) -> Iterator[Providers]:
    providers.start(faults)
    try:
        yield providers
    finally:
        providers.stop()


def _started(arguments: Sequence[str], out: int, err: int) -> Process:
    if AVAILABLE:
        return nursery().start("sandbox", arguments, Path.cwd(), dict(os.environ), out, err)
    command = [sys.executable, "-m", "runner.sandbox", *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


def _two_free_ports(seed: str) -> tuple[int, int]:
    drawn = random.Random(f"{seed}:{time.monotonic_ns()}")
    found: list[int] = []
    while len(found) < 2:
        port = drawn.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found[0], found[1]
