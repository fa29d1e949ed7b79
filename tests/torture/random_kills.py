"""Kills at random moments, again and again, on one queue, while the providers misbehave; then peace, and the judge."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torture import evidence
from torture.catalogue import of_signal
from torture.commands import Ended, Running
from torture.evidence import Stop
from torture.judge import Finding, judge
from torture.kills import Kill, Meddling, meddling, schedule
from torture.manifests import shares
from torture.tally import Tally
from torture.trial import Trial, trial

# Each request, task or file meets one of these so often. What stops an account for good (a redirect, a refused key) or
# never ends (a stuck task) is left to tests of its own: here everything must come to an end without a person.
FAULTS = {
    "lost_request@submit": 0.04, "lost_answer@submit": 0.06, "late_accept": "0.04:seconds=20",
    "error_before_charge@submit": 0.02, "error_after_charge@submit": 0.04, "truncated@submit": 0.02,
    "empty_200@submit": 0.01, "html_502@submit": 0.01, "bad_encoding@submit": 0.01, "hang@submit": 0.005,
    "rate_limited@submit": 0.02, "unavailable@submit": 0.02, "slow_body@submit": "0.01:seconds=10",
    "lost_request@poll": 0.02, "lost_answer@poll": 0.02, "poll_500": 0.03, "rate_limited@poll": 0.01,
    "unknown_status@poll": "0.03:seconds=10:status=moonlit", "wrong_task@poll": 0.01, "poll_404": 0.005,
    "truncated@poll": 0.01,
    "lost_request@list": 0.02, "stale_list": "0.05:seconds=10", "lost_answer@list": 0.02, "lost_answer@upload": 0.1,
    "lost_request@credits": 0.1,
    "task_failed": 0.04, "moderated": 0.02, "late_refund": "0.04:seconds=40", "hidden": "0.04:seconds=20",
    "overcharged": 0.02,
    "reset_download": 0.12, "expired_url": 0.04, "short_media": 0.03, "cut_media": 0.03, "html_media": 0.02,
    "empty_media": 0.02, "corrupt_media": 0.02, "changed_etag": 0.03, "ignore_range": 0.1, "wrong_range": 0.1,
    "latency@submit": "0.01:seconds=10", "latency@poll": "0.01:seconds=10", "one_byte_segments": 0.02,
    "closes_idle@poll": 0.05, "early_hints": 0.02, "many_headers@poll": 0.01, "many_headers@submit": "0.005:how=long",
    "odd_progress": 0.03, "respelled_status": 0.02, "huge_body@poll": "0.005:gzip=true", "huge_body@list": 0.005,
    "huge_body@submit": "0.005:bytes=8000000", "truncated@submit:how=length": 0.01,
    "lost_request@submit:how=reset": 0.01, "error_before_charge@submit:status=200": 0.01,
    "hang@poll": 0.003, "partial": 0.02, "cancelled": 0.02,
    "rate_limited@submit:retry_after=5": 0.003, "rate_limited@poll:retry_after=x": 0.003,
    "rate_limited@poll:retry_after=date:20": 0.003, "endless": 0.004,
    "long_media": 0.03, "wrong_type": 0.02, "evil_name": 0.05,
    "lost_request@download": 0.02, "unavailable@download": 0.02, "slow_download": "0.02:seconds=20",
}  # fmt: skip
HEARD = 1.0  # wall seconds in which a signal is heard, on a machine that is busy with something else
KILLED = 128 + signal.SIGKILL
NO_REQUEST = 6.0  # wall seconds after which a run counts as being at work without one: paused, or limits are reached
MEMORY, FILES = 400 << 20, 200  # what a run may take at its highest: bytes, open files (I15)
Say = Callable[[str], None]


def spelled(faults: Mapping[str, float | str]) -> str:
    """As the sandbox wants them: `name@point=chance:parameter=value`; here the parameters may stand with the name."""
    parted = [(*name.partition(":"), chance) for name, chance in faults.items()]
    return ",".join(f"{name}={chance}{colon}{parameters}" for name, colon, parameters, chance in parted)


@dataclass(frozen=True)
class Plan:
    """`jobs` at the start, and as many again whenever they have all come to an end before the kills have."""

    seed: str
    kills: int
    jobs: int
    providers: tuple[str, ...]
    speed: float = 30.0
    render: float = 45.0
    mean: float = 1.0
    faults: str = field(default_factory=lambda: spelled(FAULTS))
    meddle: bool = True


def random_kills(folder: Path, plan: Plan, say: Say = lambda text: None) -> Tally:
    told, began = Tally(seeds=[plan.seed]), time.monotonic()
    setting = trial(folder, plan.providers, seed=plan.seed, speed=plan.speed, render=plan.render, faults=plan.faults)
    with setting as here:
        here.orders.grow(shares(plan.jobs, plan.providers))
        _kill_and_go_on(here, plan, told, say)
        peace(here, told)
    told.seconds = time.monotonic() - began
    return told


def peace(here: Trial, told: Tally) -> None:
    """Now without faults, to the end; then the judge, and one more run that has nothing to do."""
    last = here.finish()
    found = here.evidence(last)
    told.judged(found, judge(found))
    _again(here, told, last)


def _kill_and_go_on(here: Trial, plan: Plan, told: Tally, say: Say) -> None:
    torn, meddle = Torn(here.renders), meddling(plan.seed, plan.providers)
    for kill in itertools.islice(schedule(plan.seed, plan.mean), plan.kills):
        if plan.meddle:
            _meddle(here, plan, next(meddle), told)
        one_kill(here, plan, kill, told)
        look(torn, told)
        if told.kills.total() % 20 == 0:
            say(f"{told.kills.total()} kills, {here.orders.jobs} jobs, {len(told.findings)} findings")


def look(torn: Torn, told: Tally) -> None:
    """At what stands in the output folder right after a kill."""
    for path in torn.new():
        told.find(Finding("torn", f"{path} after {told.kills.total()} kills"))


def one_kill(here: Trial, plan: Plan, kill: Kill, told: Tally) -> None:
    """Runs until the moment has come. What is finished before, or just then, is given more to do."""
    while not _killed(here, plan, kill, told):
        here.orders.grow(shares(plan.jobs, plan.providers))


def _killed(here: Trial, plan: Plan, kill: Kill, told: Tally) -> bool:
    running = _reached(here, kill, told)
    if not running.lives(kill.after):
        ended = here.commands.over(running)
        if ended.code not in (0, 1, 4):
            told.find(Finding("stopped", ended.said()))
        return False
    for text in too_big(running):
        told.find(Finding("too_big", text))
    struck, last = time.monotonic(), here.sandbox.last_request() if kill.number is not signal.SIGKILL else 0
    twice = _strike(running, kill)
    ended = here.commands.over(running)
    if kill.number is not signal.SIGKILL:
        for text in ordered_since(here, last, struck):
            told.find(Finding("ordered", f"{text} after {kill.number.name}"))
    return _note(here, ended, kill if twice else replace(kill, again=None), time.monotonic() - struck, told)


def _reached(here: Trial, kill: Kill, told: Tally) -> Running:
    """A run that has come as far as the kill counts from: to its start, or to a request (none may come for a while)."""
    asked, crashed = here.sandbox.last_request(), any(each.code == KILLED for each in here.commands.ended[-1:])
    running = here.start(anew=kill.early)
    told.fired["F22"] += 1  # every environment names proxies
    while not kill.early and running.age() < NO_REQUEST and running.lives(0.02):
        if here.sandbox.last_request(asked) > asked:
            told.recoveries += [running.age()] * crashed
            break
    return running


def too_big(running: Running) -> Iterator[str]:
    """Where /proc tells it."""
    try:
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        files = len(os.listdir(f"/proc/{running.process.pid}/fd"))
    except OSError:
        return
    words = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    peak = int(words.get("VmHWM", "0 kB").split()[0]) << 10
    if peak > MEMORY:
        yield f"{peak} bytes of memory"
    if files > FILES:
        yield f"{files} open files"


def _strike(running: Running, kill: Kill) -> bool:
    """The child's own process group, and nobody else's; by its id, which is not reused while we have not waited.
    Whether it was struck twice: it may have ended before."""
    os.killpg(running.process.pid, kill.number)
    if kill.again is None or not running.lives(kill.again):
        return False
    os.killpg(running.process.pid, kill.number)
    return True


def ordered_since(here: Trial, last: int, struck: float) -> Iterator[str]:
    """The orders that came after a polite signal, when what was on the wire then must have arrived: none may (F100)."""
    for each in here.sandbox.requests(last):
        if each["point"] == "submit" and each["monotonic"] > struck + HEARD:
            yield f"something was ordered {each['monotonic'] - struck:.1f} s"


def landed(ended: Ended, number: int) -> bool:
    """Whether it is the signal that has ended it: it may have come to its end by itself right then."""
    return ended.code == 128 + number


def _note(here: Trial, ended: Ended, kill: Kill, took: float, told: Tally) -> bool:
    """Whether it was a kill: a signal that came too late is none. (How the run ended is judged all the same.)"""
    if kill.number is not signal.SIGKILL:
        here.stops.append(Stop(kill.number, took, ended.code, kill.again))
    if not landed(ended, kill.number):
        return False
    name = kill.number.name + ("+" + kill.number.name if kill.again is not None else "")
    told.kills[name] += 1
    told.fired[of_signal(name)] += 1
    if kill.number is not signal.SIGKILL:
        told.endings.append(took)
    return True


def _meddle(here: Trial, plan: Plan, meddled: Meddling, told: Tally) -> None:
    told.done[MEDDLED[meddled.what]] += meddled.what != "nothing"
    wall = meddled.seconds / here.speed
    match meddled.what:
        case "restart":
            here.sandbox.restart(down=min(wall, 0.5))
        case "outage":
            here.sandbox.post("outage", provider=meddled.provider, seconds=meddled.seconds)
        case "credits":
            _let_credits_run_out(here, plan, meddled, told)


MEDDLED = {"nothing": "quiet", "restart": "providers killed", "outage": "outages", "credits": "credits ran out"}


def _let_credits_run_out(here: Trial, plan: Plan, meddled: Meddling, told: Tally) -> None:
    """No credits for a while, during which one more run is killed; then there are plenty again."""
    account = {"provider": meddled.provider, "key": here.keys[meddled.provider]}
    here.sandbox.post("credits", **account, balance="0")
    one_kill(here, plan, Kill(signal.SIGKILL, plan.mean), told)
    here.sandbox.post("credits", **account, balance="100000")


def _again(here: Trial, told: Tally, last: Ended) -> None:
    """Everything is over: one more run says the same, asks for nothing that costs, and writes nothing (I18)."""
    before, last_request = _standing(here), here.sandbox.last_request()
    again = here.run()
    if again.code != last.code:
        told.find(Finding("again", f"{again.code} after {last.code}: {again.said()}"))
    orders = [each for each in here.sandbox.requests(last_request) if each["point"] == "submit"]
    if orders:
        told.find(Finding("again", f"it sent {len(orders)} orders"))
    after = _standing(here)
    for what, stood in before.items():
        if after[what] != stood:
            told.find(Finding("again", f"{what} changed: {_difference(stood, after[what])}"))


def _standing(here: Trial) -> Mapping[str, Any]:
    """All that a run which has nothing to do leaves as it is: both sides' books, and every file."""
    ledger = here.sandbox.ledger()
    files = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in here.renders.rglob("*")}
    theirs = {name: ledger[name] for name in ("charged", "refunded")} | {"tasks": here.sandbox.tasks()}
    return {**evidence.books(here.queue), "the providers' ledger": theirs, "the output folder": files}


def _difference(before: Any, after: Any) -> str:
    """The first of each side that the other has not."""
    first, second = ([*each.items()] if isinstance(each, dict) else each for each in (before, after))
    gone, new = ([each for each in one if each not in other][:2] for one, other in ((first, second), (second, first)))
    return f"{gone} became {new}"


class Torn:
    """Looks at what stands in the output folder right after a kill; a file that was whole once is not read again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole: set[tuple[Path, int, int]] = set()

    def new(self) -> Sequence[Path]:
        """The files that should not be there as they are."""
        paths = [*self._new(evidence.published(self._folder)), *self._new(evidence.sidecars(self._folder))]
        bad = [path for path in paths if not evidence.is_whole(path)]
        self._whole |= {_mark(path) for path in paths if path not in bad}
        return bad

    def _new(self, paths: Sequence[Path]) -> list[Path]:
        return [path for path in paths if _mark(path) not in self._whole]


def _mark(path: Path) -> tuple[Path, int, int]:
    state = path.stat()
    return path, state.st_ino, state.st_size
