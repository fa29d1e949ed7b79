"""Which parts there are, and which of them make a quick, an ordinary and a full torture."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from runner.sandbox.faults import CATALOGUE
from torture.catalogue import numbered, numbers
from torture.judge import Finding
from torture.model import model
from torture.mutants.catching import catch, control, untried
from torture.mutants.listed import MUTANTS
from torture.parts import Part, Setting, chosen
from torture.power import playable
from torture.random_kills import FAULTS, Plan, random_kills
from torture.scenarios import SCENARIOS
from torture.scenarios.scene import Scenario
from torture.scenarios.syscalls import NO_STRACE
from torture.sweep import chain, crashes_in_recovery, pairs, points, sweep, tally
from torture.tally import Tally

SPEED = 60.0
SOAKS, SOAK_KILLS, SOAK_JOBS = 15, 100, 60  # of a full torture: K4
STEPS, MODELS = 100_000, 16
PAIR_SHARES = 13  # parts into which K3 is cut
AT_DOWNLOADS = {name for name, kind in CATALOGUE.items() if kind.points == ("download",)}
MILD = "lost_answer@submit=0.05,late_accept=0.03:seconds=20,reset_download=0.1,poll_500=0.03,task_failed=0.03"


def soak(name: str, kills: int, jobs: int = SOAK_JOBS) -> Part:
    """K4: kills at random moments, providers that misbehave, are killed, go away, and run out of credits (K8)."""
    fires = {each for name, chance in FAULTS.items() for each in numbers(_label(name, str(chance)))}
    always = ("F22", "F100", "F101", "F102", "F104")
    return Part(f"k4-{name}", partial(_soak, kills, jobs), (*sorted(fires), *always))


def _label(name: str, chance: str) -> str:
    """As what it fires is counted; a fault that is not told where strikes at least once where it strikes at all."""
    where = "" if "@" in name else "@download" if name in AT_DOWNLOADS else "@submit"
    return f"{name}{where}{chance[chance.index(':') :] if ':' in chance else ''}"


def _soak(kills: int, jobs: int, folder: Path, setting: Setting) -> Tally:
    seed = _seed(folder, setting)
    plan = Plan(seed, kills, jobs, setting.providers, setting.speed or SPEED, mean=0.5)
    return random_kills(folder, plan, lambda text: print(text, flush=True))


def _sweep(name: str, folder: Path, setting: Setting) -> Tally:
    case = chain(_seed(folder, setting), name, setting.providers, speed=setting.speed or SPEED)
    return tally(sweep(folder, case))


def _dark(name: str, folder: Path, setting: Setting) -> Tally:
    """K7: the power is lost at a fail point, and what was never synced with it."""
    if not playable():
        return Tally(done=Counter({"power was not lost: no Linux or no C compiler": 1}))
    case = chain(_seed(folder, setting), name, setting.providers, (1, 2, 5, 13), setting.speed or SPEED)
    told = tally(sweep(folder, replace(case, power=True)))
    told.done["losses of power"] += told.kills["SIGKILL"]
    return told


def _model(steps: int, folder: Path, setting: Setting) -> Tally:
    """Stories of one account, in virtual time; every step is judged."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    told, seed = Tally(seeds=[setting.seed]), _seed(folder, setting)
    try:
        made = model(steps, seed)
    except AssertionError as broken:
        told.find(Finding("model", str(broken)))
        return told
    told.done["steps of the model"], told.done["stories of the model"] = made["steps"], made["stories"]
    return told


def _mutant(number: str, folder: Path, setting: Setting) -> Tally:
    """The broken runner must be found guilty, and the honest one innocent in its place."""
    told, seed = Tally(seeds=[setting.seed]), _seed(folder, setting)
    if why := untried(number):
        return Tally(done=Counter({f"{number} was not tried: {why}": 1}))
    told.mutants[number] = catch(number, folder / "broken", seed).caught
    honest = control(number, folder / "honest", seed)
    if honest.caught:
        told.find(Finding("control", honest.story))
    return told


def _pairs(share: int, folder: Path, setting: Setting) -> Tally:
    seed, speed = _seed(folder, setting), setting.speed or SPEED
    every = pairs(setting.seed, share, PAIR_SHARES)
    return crashes_in_recovery(folder, seed, every, setting.providers, speed=speed, faults=MILD)


def _scenario(scenario: Scenario, folder: Path, setting: Setting) -> Tally:
    """Who is there for a fault, and never fired it, has proved nothing of it."""
    told = scenario.play(folder, _seed(folder, setting))
    fired = numbered(told.fired).counts
    for number in scenario.numbers if NO_STRACE not in told.done else ():
        if not fired[number]:
            told.find(Finding(number, f"{scenario.name} never fired it"))
    return told


def _seed(folder: Path, setting: Setting) -> str:
    return f"{setting.seed}-{folder.name}"


def every_part() -> list[Part]:
    """What a full torture is made of, the longest first."""
    return [
        *(soak(f"{number:02}", SOAK_KILLS) for number in range(1, SOAKS + 1)),
        *(Part(f"k3-{share:02}", partial(_pairs, share), ("F104",)) for share in range(PAIR_SHARES)),
        *(Part(f"k2-{name}", partial(_sweep, name), ("F104",)) for name in points()),
        *(Part(f"model-{number:02}", partial(_model, STEPS // MODELS)) for number in range(MODELS)),
        *(Part(f"k7-{name}", partial(_dark, name), ("F104",)) for name in points()),
        *(Part(f"mutant-{number.lower()}", partial(_mutant, number)) for number in MUTANTS),
        *(Part(each.name, partial(_scenario, each), each.numbers) for each in SCENARIOS),
    ]


QUICK = ("k3-00", "k2-after-brink", "k2-answer-read", "k2-after-link")
USUAL = ("k4-01", "k4-02", "k3-00", "k3-01", "k2")


def quick_parts() -> list[Part]:
    """A few of each kind: at most six minutes on two cores."""
    return [soak("quick", 40, 24), *_named(QUICK), *_quick_scenarios()]


def usual_parts() -> list[Part]:
    """More of the same: a quarter of an hour."""
    return [*_named(USUAL), *_quick_scenarios()]


def _named(names: Sequence[str]) -> Iterator[Part]:
    return chosen(every_part(), names, ())


def _quick_scenarios() -> Iterator[Part]:
    quick = [each.name for each in SCENARIOS if each.quick]
    return _named(quick) if quick else iter(())
