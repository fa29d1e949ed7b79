"""One queue and all that belongs to it: orders, providers, runs; and what is left behind when they are over."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from runner.sandbox import fingerprint
from runner.settings import variable
from torture import evidence
from torture.canary import KEYS, Canary, hits
from torture.commands import HOME, Commands, Ended, Running
from torture.evidence import SIZES, Evidence, Stop
from torture.judge import open_questions
from torture.manifests import Limits, Orders
from torture.power import Power
from torture.providers import Providers, serving

LIMITS = {
    "happyhorse": Limits(4, 60),
    "seedance2ai": Limits(6, 240),
    "seedhorse": Limits(5, 240),
    "seedhorse-video": Limits(4, 240),
    "seegen": Limits(5, 240),
}
LARGEST = 4_000_000  # bytes of an output, so that an endless one comes to an end (F83)
NOBODY = "http://127.0.0.1:9"  # a proxy that the environment names, and that is not to be asked (F22)
YOURS = "a file of the user's own, among the renders\n"
OVER = frozenset({0, 1, 4})  # exit codes of a run in which nothing can move by itself any more
ROUNDS = 5  # runs without faults in which everything must come to its end
SETTLING = 70.0  # scaled seconds between two runs while a refund is still awaited


@dataclass
class Trial:
    """`speed` divides every wait of both sides. `queue` is a file below `folder`, or a database's URL."""

    folder: Path
    seed: str
    speed: float
    orders: Orders
    sandbox: Providers
    commands: Commands
    queue: str
    keys: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    stops: list[Stop] = field(default_factory=list)

    @property
    def renders(self) -> Path:
        return self.orders.folder / "renders"

    @property
    def arguments(self) -> tuple[str, ...]:
        given = ("run", str(self.orders.manifest), "--yes", "--speed", f"{self.speed:g}")
        return (*given, "--no-progress", "--db", self.queue, *self.flags)

    @property
    def power(self) -> Power:
        """Of the queue's folder, which must be its own, and of the orders'."""
        return Power(self.folder / "power", (Path(self.queue).parent, self.orders.folder))

    def start(self, *, anew: bool = False, **more: str) -> Running:
        return self.commands.start(*self.arguments, anew=anew, **more)

    def run(self, **more: str) -> Ended:
        return self.commands.run(*self.arguments, **more)

    def finish(self) -> Ended:
        """Runs on, with nothing going wrong any more, until nothing moves by itself; returns the last run."""
        self.sandbox.restart(faults="")
        return self.run_out()

    def run_out(self) -> Ended:
        """Runs until nothing moves by itself and no refund is awaited any more; returns the last run."""
        last = self.run()
        for _ in range(ROUNDS):
            if last.code in OVER and not self._awaits_refunds():
                break
            time.sleep(SETTLING / self.speed)
            last = self.run()
        return last

    def _awaits_refunds(self) -> bool:
        jobs = self.jobs()
        return any(Decimal(each["unsettled"]) > open_questions(jobs, each["account"]) for each in self.credits())

    def credits(self) -> Sequence[Mapping[str, str]]:
        found: Sequence[Mapping[str, str]] = self.commands.json("credits", "--db", self.queue)["accounts"]
        return found

    def jobs(self) -> list[evidence.Job]:
        return evidence.jobs(self.commands.json("jobs", "--db", self.queue))

    def evidence(self, last: Ended | None, read: evidence.Read = evidence.rows) -> Evidence:
        """To be gathered when no run is alive. `read` gives rows of the queue."""
        owners = {fingerprint(key): account for account, key in self.keys.items()}
        observed, credits, requests = self.sandbox.observed(), self.credits(), self.sandbox.requests()
        return Evidence(
            wanted=self.orders.wanted(),
            jobs=self.jobs(),
            tasks=evidence.tasks(self.sandbox.ledger(), owners),
            steps=evidence.steps(self.queue, read),
            tries=evidence.tries(self.queue, read),
            sent=evidence.sent(requests, owners),
            submits=evidence.submits(requests, owners),
            files=[evidence.file(path) for path in evidence.published(self.renders)],
            sidecars=evidence.sidecars(self.renders),
            strays=evidence.parts(self.renders),
            seen=evidence.seen(observed, owners),
            limits={account: self.orders.limits[account] for account in self.keys},
            net={account["account"]: Decimal(account["net"]) for account in credits},
            unsettled={account["account"]: Decimal(account["unsettled"]) for account in credits},
            remarks=evidence.remarks(observed),
            ended=tuple(self.commands.ended),
            last=last,
            asked=evidence.asked(requests, owners),
            stops=tuple(self.stops),
            fired=observed["faults_fired_at"],
            hits=hits(self.folder, [Canary(key) for key in self.keys.values()]),
            touched=list(self._touched()),
        )

    @property
    def _yours(self) -> Path:
        return self.renders / "yours.txt"

    def settle_in(self) -> None:
        """What stands there before the first run."""
        self.renders.mkdir(parents=True)
        self._yours.write_text(YOURS)

    def _touched(self) -> Iterator[str]:
        if not self._yours.exists() or self._yours.read_text() != YOURS:
            yield f"{self._yours} is not as it was"
        if _tls_log(self.folder).exists():
            yield f"{_tls_log(self.folder)} was written"
        for astray in (Path(HOME["HOME"]), *(path for path in self.orders.folder.iterdir() if not self._belongs(path))):
            if astray.exists():
                yield f"{astray} was written"

    def _belongs(self, path: Path) -> bool:
        """Whether it may stand beside the manifest: what is asked for, and the output folder."""
        return path == self.renders or path.suffix in (".yaml", ".csv") or path.name in ("hero.png", "blocked")


def _tls_log(folder: Path) -> Path:
    return folder / "tls-keys.log"


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def trial(
    folder: Path,
    names: Sequence[str],
    *,
    seed: str,
    speed: float,
    render: float,
    faults: str = "",
    queue: str | None = None,
    limits: Mapping[str, Limits] = LIMITS,
    keys: Mapping[str, str] = KEYS,
    flags: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
) -> Iterator[Trial]:
    """A trial with its providers up; no order is placed yet. `render`: the median of a video, in scaled seconds.

    `options` are further ones of the sandbox, `flags` of every run. The environment names proxies and a log of TLS
    keys, which must mean nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    anchor = time.time()
    sizes = ("--media-bytes", f"{SIZES[0]}-{SIZES[1]}", "--render", f"{render:g}")
    sandbox = Providers(folder, speed, anchor, seed, (*sizes, *options))
    with serving(sandbox, faults):
        mine = {name: keys[name] for name in names}
        environment = {"RUNNER_ANCHOR": repr(anchor), "SSLKEYLOGFILE": str(_tls_log(folder))}
        environment["TMPDIR"] = str(_made(folder / "tmp"))  # so that it is searched for keys, too
        environment["RUNNER_LARGEST_FILE"] = str(LARGEST)
        environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"), NOBODY)
        for name, key in mine.items():
            environment[variable(name, "API_KEY")] = key
            environment[variable(name, "BASE_URL")] = sandbox.about["base_urls"][name]
        orders = Orders(folder / "orders", f"torture-{seed}", limits)
        commands = Commands(folder, environment)
        here = Trial(folder, seed, speed, orders, sandbox, commands, queue or str(folder / "queue.db"), mine, flags)
        here.settle_in()
        try:
            yield here
        finally:
            commands.close()
