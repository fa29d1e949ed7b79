"""What was done and what was found, as counts that add up: a tally for each part of the torture, one for all of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from torture.evidence import Evidence
from torture.judge import Finding, Verdict
from torture.manifests import Limits

COUNTED = ("partial", "files compared with their hashes")  # of every trial that is judged
CRIMES = ("doubles", "lost", "wrong_adoptions", "ledger_difference", "canary")


@dataclass
class Account:
    """What became of one account's jobs. `submits` are the orders that arrived, `tasks` those that were accepted.
    `held` counts by reason, `charged` those that were bought all the same."""

    jobs: int = 0
    submits: int = 0
    tasks: int = 0
    states: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    charged: int = 0
    net: Decimal = Decimal(0)
    theirs: Decimal = Decimal(0)
    open: Decimal = Decimal(0)
    in_flight: tuple[int, int] = (0, 0)
    per_minute: tuple[int, int] = (0, 0)


@dataclass
class Tally:
    """`fired` counts faults by their label or number (torture/catalogue.py), `found` findings by the rule that made
    them. Seconds are of the wall; `recoveries` are from the start after a crash to the first request."""

    seeds: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    recoveries: list[float] = field(default_factory=list)
    endings: list[float] = field(default_factory=list)
    mutants: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.findings and all(self.mutants.values())

    @property
    def idle(self) -> bool:
        """Nothing was killed, no fault fired, nothing else done, no mutant tried: who finds nothing then, has not
        looked. (That files were compared is nothing by itself.)"""
        done = sum(count for what, count in self.done.items() if what not in COUNTED)
        return not (self.kills.total() or self.fired.total() or done or self.mutants)

    @property
    def jobs(self) -> int:
        return sum(account.jobs for account in self.accounts.values())

    def find(self, finding: Finding) -> None:
        self.found[finding.kind] += 1
        self.findings.append(str(finding))

    def judged(self, evidence: Evidence, verdict: Verdict) -> None:
        """Adds what one trial left behind."""
        for finding in verdict.findings:
            self.find(finding)
        self.fired.update(evidence.fired)
        partial, compared = COUNTED
        self.done[partial] += sum(job.state == "partial" for job in evidence.jobs)
        self.done[compared] += sum(len(job.outputs) for job in evidence.jobs)
        for name, allowed in evidence.limits.items():
            _add(self.accounts.setdefault(name, Account()), _account(evidence, name, allowed))

    def add(self, other: Tally) -> None:
        self.seeds += other.seeds
        for mine, more in (
            (self.kills, other.kills), (self.fired, other.fired), (self.done, other.done), (self.found, other.found)
        ):  # fmt: skip
            mine.update(more)
        self.findings += other.findings
        self.recoveries += other.recoveries
        self.endings += other.endings
        self.mutants |= other.mutants
        self.seconds += other.seconds
        for name, account in other.accounts.items():
            _add(self.accounts.setdefault(name, Account()), account)


def total(tallies: Iterable[Tally]) -> Tally:
    whole = Tally()
    for each in tallies:
        whole.add(each)
    return whole


def _account(evidence: Evidence, name: str, allowed: Limits) -> Account:
    jobs = [job for job in evidence.jobs if job.account == name]
    tasks = [task for task in evidence.tasks if task.account == name]
    owned = {job.task_id for job in jobs if job.task_id}
    nobodys = [task for task in tasks if task.id not in owned]
    held = [job for job in jobs if job.state == "held"]
    lines = Counter(task.prompt for task in nobodys if task.charged > 0)
    asking = Counter(job.line for job in held if job.task_id is None)
    seen = evidence.seen.get(name)
    return Account(
        jobs=len(jobs),
        submits=evidence.submits.get(name, 0),
        tasks=len(tasks),
        states=Counter(job.state for job in jobs),
        held=Counter(job.error or "?" for job in held),
        charged=(lines & asking).total() + sum(job.task_id is not None for job in held),
        net=evidence.net.get(name, Decimal(0)),
        theirs=sum((task.net for task in tasks), Decimal(0)),
        open=sum((task.net for task in nobodys), Decimal(0)),
        in_flight=(seen.in_flight if seen else 0, allowed.concurrency),
        per_minute=(seen.per_minute if seen else 0, allowed.per_minute),
    )


def _add(mine: Account, other: Account) -> None:
    """Sums; of what was seen against a limit, the pair that came nearest to it."""
    for name in ("jobs", "submits", "tasks", "charged", "net", "theirs", "open"):
        setattr(mine, name, getattr(mine, name) + getattr(other, name))
    mine.states.update(other.states)
    mine.held.update(other.held)
    mine.in_flight = max(mine.in_flight, other.in_flight, key=_share)
    mine.per_minute = max(mine.per_minute, other.per_minute, key=_share)


def _share(pair: tuple[int, int]) -> float:
    return pair[0] / pair[1] if pair[1] else 0.0


# -- as JSON and back -------------------------------------------------------------------------------------------------


def as_data(tally: Tally) -> dict[str, Any]:
    """JSON values; amounts are decimal strings."""
    accounts = {name: _plain(account) for name, account in tally.accounts.items()}
    return {**_plain(tally), "accounts": accounts}


def _plain(each: Tally | Account) -> dict[str, Any]:
    """Not `dataclasses.asdict`: that makes a Counter of a Counter's pairs."""
    return {name: _value(value) for name, value in vars(each).items()}


def _value(value: Any) -> Any:
    match value:
        case Decimal():
            return str(value)
        case Counter():
            return dict(value)
    return value


def from_data(data: Mapping[str, Any]) -> Tally:
    counters = {name: Counter(data[name]) for name in ("kills", "fired", "done", "found")}
    accounts = {name: _account_from(account) for name, account in data["accounts"].items()}
    return Tally(**{**data, **counters, "accounts": accounts})


def _account_from(data: Mapping[str, Any]) -> Account:
    amounts = {name: Decimal(data[name]) for name in ("net", "theirs", "open")}
    counters = {name: Counter(data[name]) for name in ("states", "held")}
    pairs = {name: (data[name][0], data[name][1]) for name in ("in_flight", "per_minute")}
    return Account(**{**data, **amounts, **counters, **pairs})


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed. ValueError for no values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def bound(trials: int) -> float:
    """With none found in so many trials: the share that is not exceeded, with 95 % certainty (3/n)."""
    return 3.0 / trials if trials else 1.0
