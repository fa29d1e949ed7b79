"""Kills at random moments, again and again, on one queue, while the providers misbehave; then peace, and the judge."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torture import evidence
from torture.commands import Ended, Running
from torture.evidence import Evidence
from torture.judge import AT_ONCE, GRACE, Finding, Verdict, judge
from torture.kills import Kill, Meddling, meddling, schedule
from torture.manifests import shares
from torture.trial import Trial, trial

# Each request, task or file meets one of these so often. What stops an account for good (a redirect, a refused key) or
# never ends (a stuck task) is left to tests of its own: here everything must come to an end without a person.
FAULTS = {
    "lost_request@submit": 0.04, "lost_answer@submit": 0.06, "late_accept": "0.04:seconds=20",
    "error_before_charge@submit": 0.02, "error_after_charge@submit": 0.04, "truncated@submit": 0.02,
    "empty_200@submit": 0.01, "html_502@submit": 0.01, "bad_encoding@submit": 0.01, "hang@submit": 0.005,
    "rate_limited@submit": 0.02, "unavailable@submit": 0.02, "slow_body@submit": "0.01:seconds=10",
    "lost_request@poll": 0.02, "lost_answer@poll": 0.02, "poll_500": 0.03, "rate_limited@poll": 0.01,
    "unknown_status@poll": "0.03:seconds=10", "wrong_task@poll": 0.01, "poll_404": 0.005, "truncated@poll": 0.01,
    "lost_request@list": 0.02, "stale_list": "0.05:seconds=10", "lost_answer@list": 0.02, "lost_answer@upload": 0.1,
    "lost_request@credits": 0.1,
    "task_failed": 0.04, "moderated": 0.02, "late_refund": "0.04:seconds=40", "hidden": "0.04:seconds=20",
    "overcharged": 0.02,
    "reset_download": 0.12, "expired_url": 0.04, "short_media": 0.03, "cut_media": 0.03, "html_media": 0.02,
    "empty_media": 0.02, "corrupt_media": 0.02, "changed_etag": 0.03, "ignore_range": 0.1, "wrong_range": 0.1,
    "lost_request@download": 0.02, "unavailable@download": 0.02, "slow_download": "0.02:seconds=20",
}  # fmt: skip
NO_REQUEST = 6.0  # wall seconds after which a run counts as being at work without one: paused, or limits are reached
Say = Callable[[str], None]


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
    faults: str = ",".join(f"{name}={chance}" for name, chance in FAULTS.items())
    meddle: bool = True


@dataclass
class Outcome:
    """What happened. `findings` are those made on the way; the judge's are in `verdict`."""

    plan: Plan
    kills: Counter[str] = field(default_factory=Counter)
    meddled: Counter[str] = field(default_factory=Counter)
    endings: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    evidence: Evidence | None = None
    verdict: Verdict | None = None
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.findings and self.verdict is not None and self.verdict.clean

    def story(self) -> str:
        return "\n".join([*map(str, self.findings), str(self.verdict)])


def random_kills(folder: Path, plan: Plan, say: Say = lambda text: None) -> Outcome:
    outcome, began = Outcome(plan), time.monotonic()
    setting = trial(folder, plan.providers, seed=plan.seed, speed=plan.speed, render=plan.render, faults=plan.faults)
    with setting as here:
        here.orders.grow(shares(plan.jobs, plan.providers))
        _kill_and_go_on(here, outcome, say)
        say(f"{plan.kills} kills done; now without faults, to the end")
        last = here.finish()
        outcome.evidence = here.evidence(last)
        outcome.verdict = judge(outcome.evidence)
        _again(here, outcome, last)
    outcome.seconds = time.monotonic() - began
    return outcome


def _kill_and_go_on(here: Trial, outcome: Outcome, say: Say) -> None:
    plan, torn = outcome.plan, Torn(here.renders)
    meddle = meddling(plan.seed, plan.providers)
    for kill in itertools.islice(schedule(plan.seed, plan.mean), plan.kills):
        if plan.meddle:
            _meddle(here, next(meddle), outcome)
        _one_kill(here, kill, outcome)
        killed = sum(outcome.kills.values())
        outcome.findings += [Finding("torn", f"{path} after {killed} kills") for path in torn.new()]
        if killed % 20 == 0:
            say(f"{killed} kills, {here.orders.jobs} jobs, {len(outcome.findings)} findings")


def _one_kill(here: Trial, kill: Kill, outcome: Outcome) -> None:
    """Runs until the moment has come. What is finished before is given more to do."""
    running = _reached(here, kill)
    while not running.lives(kill.after):
        ended = here.commands.over(running)
        if ended.code not in (0, 1, 4):
            outcome.findings.append(Finding("stopped", ended.said()))
        here.orders.grow(shares(outcome.plan.jobs, outcome.plan.providers))
        running = _reached(here, kill)
    struck = time.monotonic()
    _strike(running, kill)
    ended = here.commands.over(running)
    _note(ended, kill, time.monotonic() - struck, outcome)


def _reached(here: Trial, kill: Kill) -> Running:
    """A run that has come as far as the kill counts from: to its start, or to a request (none may come for a while)."""
    asked = here.sandbox.last_request()
    running = here.start()
    while not kill.early and running.age() < NO_REQUEST and running.lives(0.05):
        if here.sandbox.last_request(asked) > asked:
            break
    return running


def _strike(running: Running, kill: Kill) -> None:
    """The child's own process group, and nobody else's; by its id, which is not reused while we have not waited."""
    os.killpg(running.process.pid, kill.number)
    if kill.again is not None and running.lives(kill.again):
        os.killpg(running.process.pid, kill.number)


def _note(ended: Ended, kill: Kill, took: float, outcome: Outcome) -> None:
    name = kill.number.name + ("+" + kill.number.name if kill.again is not None else "")
    outcome.kills[name] += 1
    if kill.number is signal.SIGKILL:
        return
    outcome.endings.append(took)
    if took > (GRACE if kill.again is None else kill.again + AT_ONCE):
        outcome.findings.append(Finding("slow", f"{name} took {took:.1f} s: {ended.said()}"))
    if ended.code not in (128 + kill.number, 0, 1, 4):
        outcome.findings.append(Finding("code", f"{name}: {ended.said()}"))


def _meddle(here: Trial, meddled: Meddling, outcome: Outcome) -> None:
    outcome.meddled[meddled.what] += 1
    wall = meddled.seconds / here.speed
    match meddled.what:
        case "restart":
            here.sandbox.restart(down=min(wall, 0.5))
        case "outage":
            here.sandbox.post("outage", provider=meddled.provider, seconds=meddled.seconds)
        case "credits":
            _let_credits_run_out(here, meddled, outcome)


def _let_credits_run_out(here: Trial, meddled: Meddling, outcome: Outcome) -> None:
    """No credits for a while, during which one more run is killed; then there are plenty again."""
    account = {"provider": meddled.provider, "key": here.keys[meddled.provider]}
    here.sandbox.post("credits", **account, balance="0")
    _one_kill(here, Kill(signal.SIGKILL, 1.0), outcome)
    here.sandbox.post("credits", **account, balance="100000")


def _again(here: Trial, outcome: Outcome, last: Ended) -> None:
    """Everything is over: one more run says the same, orders nothing and costs nothing."""
    before = here.sandbox.ledger()
    again = here.run()
    after = here.sandbox.ledger()
    if again.code != last.code:
        outcome.findings.append(Finding("again", f"{again.code} after {last.code}: {again.said()}"))
    if (before["charged"], before["refunded"]) != (after["charged"], after["refunded"]):
        outcome.findings.append(Finding("again", f"it cost something: {before['net']} before, {after['net']} after"))


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
