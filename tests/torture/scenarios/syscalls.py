"""K1: a run is killed at its n-th system call of a kind, n drawn anew each time, all on one queue. And F86, F88: from
the n-th write on, the queue's disk is full. An outsider does it (strace): nothing in the program knows."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torture.commands import Ended
from torture.manifests import PROVIDERS, few
from torture.random_kills import Torn, look, peace
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import SETTLED, ends_with
from torture.tally import Tally
from torture.trial import Trial

# Of each kind, the names that systems have for it.
CALLS = {
    "fdatasync": "fdatasync", "pwrite": "pwrite64", "ftruncate": "ftruncate", "link": "link,linkat,rename,renameat",
    "unlink": "unlink,unlinkat", "open": "openat", "connect": "connect", "send": "sendto,sendmsg",
    "receive": "recvfrom,recvmsg",
}  # fmt: skip
KILLS, FILLS = 22, 12
KILLED, LOCAL = 137, 7
FULL_DISK = ("F86", "F88")
NO_STRACE = "system calls were not traced: no strace"
FULL = re.compile(r"disk|space|database", re.IGNORECASE)


def killed_at(kind: str, folder: Path, seed: str) -> Tally:
    with staged(folder, seed, PROVIDERS) as (here, told):
        if not _can_trace(told):
            return told
        drawn, torn = random.Random(seed), Torn(here.renders)
        most = _counted(here, CALLS[kind])
        told.done[f"{kind} calls of one run"] += most
        here.orders.grow(few(PROVIDERS))
        for _ in range(KILLS):
            n = drawn.randint(1, max(1, most))
            ended = _traced(here, CALLS[kind], f"signal=SIGKILL:when={n}")
            look(torn, told)
            if ended.code == KILLED:
                told.kills["SIGKILL"] += 1
                told.fired["F104"] += 1
            elif ended.code in SETTLED:
                here.orders.grow(few(PROVIDERS))
                most = max(1, most * 2 // 3)  # a recovery makes fewer of them than a whole run
        peace(here, told)
    return told


def disk_is_full(folder: Path, seed: str) -> Tally:
    """Nothing is sent without its brink on disk; a task id that cannot be stored is told; the next run finds it all."""
    with staged(folder, seed, PROVIDERS) as (here, told):
        if not _can_trace(told):
            return told
        drawn = random.Random(seed)
        most = _counted(here, CALLS["pwrite"])
        for _ in range(FILLS):
            here.orders.grow(few(PROVIDERS))
            before = _bought(here)
            ended = _traced(here, CALLS["pwrite"], f"error=ENOSPC:when={drawn.randint(20, most)}+", "--no-wait")
            if ended.code in SETTLED:
                continue
            unstored = _bought(here) - before - {job.task_id for job in here.jobs()}
            told.fired["F88" if unstored else "F86"] += 1
            for each in unstored:
                expect(told, "F88", each in ended.err, f"task {each} is neither stored nor told: {ended.said()}")
            ends_with(here, told, "F86", ended, LOCAL)
            expect(told, "F86", FULL.search(ended.err), ended.said())
        peace(here, told)
    return told


def _bought(here: Trial) -> set[str]:
    """The ids of all tasks."""
    providers = here.sandbox.ledger()["providers"].values()
    return {task["id"] for each in providers for account in each["accounts"].values() for task in account["tasks"]}


def _counted(here: Trial, calls: str) -> int:
    """How many of these a whole run makes."""
    file = here.folder / "calls"
    running = here.commands.start(
        *here.arguments, under=["strace", "-f", "-qq", "-o", str(file), "-e", f"trace={calls}"]
    )
    here.commands.over(running)
    return sum("(" in line for line in file.read_text(errors="replace").splitlines())


def _traced(here: Trial, calls: str, what: str, *more: str) -> Ended:
    """A run with something injected into each of these calls (they count for themselves)."""
    inject = [word for each in calls.split(",") for word in ("-e", f"inject={each}:{what}")]
    under = ["strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", *inject]
    return here.commands.over(here.commands.start(*here.arguments, *more, under=under))


def _can_trace(told: Tally) -> bool:
    """Where there is no strace, that is counted, and the report shows what has not fired."""
    missing = shutil.which("strace") is None
    told.done.update([NO_STRACE] * missing)
    return not missing


def _scenario(kind: str) -> Scenario:
    play: Callable[[Path, str], Tally] = partial(killed_at, kind)
    return Scenario(f"k1-{kind}", ("F104",), play)


SCENARIOS: tuple[Scenario, ...] = (
    *(_scenario(kind) for kind in CALLS),
    Scenario("f86-disk-full", FULL_DISK, disk_is_full),
)
