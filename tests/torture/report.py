"""The report: what was done and what the judge counted, as one JSON and one table. No figure that is not counted."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torture.catalogue import FAULTS, numbered
from torture.judge import RULES
from torture.tally import CRIMES, Account, Tally, bound, percentile

ENOUGH = 30  # times that a fault which takes under a second of scaled time is to fire in a full run


def figures(told: Tally, *, commit: str, seconds: float) -> dict[str, Any]:
    """All that is known, as JSON values. `seconds`: of the wall, from the first part to the last."""
    fired = numbered(told.fired)
    return {
        "commit": commit, "seconds": round(seconds, 1), "work_seconds": round(told.seconds, 1), "seeds": told.seeds,
        "jobs": told.jobs, "submits": sum(account.submits for account in told.accounts.values()),
        "tasks": sum(account.tasks for account in told.accounts.values()),
        "kills": dict(sorted(told.kills.items())), "killed": told.kills.total(),
        "crimes": {name: told.found[name] for name in CRIMES},
        "bound": f"{100 * bound(told.kills.total()):.2g} %",
        "found": {rule: told.found[rule] for rule in dict.fromkeys((*RULES, *told.found))},
        "providers": {name: _account(account) for name, account in sorted(told.accounts.items())},
        "faults": {number: count for number, count in fired.counts.items() if count},
        "unfired": fired.unfired, "seldom": fired.seldom(ENOUGH), "labels": dict(sorted(told.fired.items())),
        "done": dict(sorted(told.done.items())), "recovery_seconds": _times(told.recoveries),
        "ending_seconds": _times(told.endings),
        "mutants": _mutants_told(told.mutants),
        "findings": told.findings, "clean": told.clean,
    }  # fmt: skip


def _mutants_told(mutants: Mapping[str, bool]) -> dict[str, str]:
    return {name: "caught" if caught else "SURVIVED" for name, caught in sorted(mutants.items(), key=_nth)}


def _nth(mutant: tuple[str, bool]) -> int:
    return int(mutant[0][1:])


def _account(account: Account) -> dict[str, Any]:
    return {
        "jobs": account.jobs, "submits": account.submits, "tasks": account.tasks,
        "states": dict(sorted(account.states.items())),
        "held": dict(account.held), "held_and_charged": account.charged,
        "net": str(account.net), "net_of_provider": str(account.theirs), "of_it_open": str(account.open),
        "difference": str(account.net - (account.theirs - account.open)),
        "in_flight": list(account.in_flight), "per_minute": list(account.per_minute),
    }  # fmt: skip


def _times(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    longest = {"99 in 100": round(percentile(seconds, 0.99), 2), "longest": round(max(seconds), 2)}
    return {"count": len(seconds), "median": round(statistics.median(seconds), 2), **longest}


HEAD = f"{'':16}{'jobs':>7}{'tasks':>7}{'held':>7}{'charged':>9}{'at once':>10}{'in 60 s':>10}{'difference':>12}   ends"


def table(told: Mapping[str, Any]) -> str:
    """The same for a person."""
    return "\n".join(_lines(told))


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    kills = ", ".join(f"{count} {name}" for name, count in told["kills"].items())
    yield f"{told['killed']} kills ({kills or 'none'}), {told['jobs']} jobs"
    yield f"in {told['seconds']} s, commit {told['commit']}"
    if told["providers"]:
        yield HEAD
    for name, each in told["providers"].items():
        yield f"{name:16}{each['jobs']:7}{each['tasks']:7}{_row(each)}"
    yield ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in told["crimes"].items())
    if told["killed"] and not any(told["crimes"].values()):
        yield f"none in {told['killed']} kills: with 95 % certainty less than {told['bound']} of them"
    yield from _faults(told)
    if told["recovery_seconds"]:
        yield f"from a start after a crash to the next request: {_said(told['recovery_seconds'])}"
    if told["ending_seconds"]:
        yield f"from a polite signal to the end: {_said(told['ending_seconds'])}"
    if told["done"]:
        yield "also: " + ", ".join(f"{name} {count}" for name, count in told["done"].items() if count)
    if told["mutants"]:
        yield _mutants(told["mutants"])
    yield from told["findings"]
    yield "clean" if told["clean"] else "NOT CLEAN"


def _row(each: Mapping[str, Any]) -> str:
    at_once, minute = ("/".join(map(str, each[name])) for name in ("in_flight", "per_minute"))
    ends = ", ".join(f"{count} {state}" for state, count in each["states"].items())
    held = each["states"].get("held", 0)
    return f"{held:7}{each['held_and_charged']:9}{at_once:>10}{minute:>10}{each['difference']:>12}   {ends}"


def _faults(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"faults fired: {sum(told['faults'].values())}, {len(told['faults'])} of the {len(FAULTS)} of the catalogue"
    yield "  " + " ".join(f"{number}:{count}" for number, count in told["faults"].items())
    if told["unfired"]:
        yield f"  never fired: {' '.join(told['unfired'])}"
    if told["seldom"]:
        yield f"  fired less than {ENOUGH} times though quick: {' '.join(told['seldom'])}"


def _said(times: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in times.items()) + " (s)"


def _mutants(mutants: Mapping[str, str]) -> str:
    ends = Counter(mutants.values())
    survived = [name for name, end in mutants.items() if end != "caught"]
    return f"mutants caught: {ends['caught']} of {len(mutants)}" + (
        f"; SURVIVED: {' '.join(survived)}" if survived else ""
    )


def as_json(told: Mapping[str, Any]) -> str:
    return json.dumps(told, indent=2, ensure_ascii=False)
