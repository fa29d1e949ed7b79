"""The report: what was done and what the judge counted, as one JSON and one table. No figure that is not counted."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from torture.evidence import Evidence
from torture.judge import RULES
from torture.random_kills import Outcome

HEADLINE = ("doubles", "lost", "wrong_adoptions", "ledger_difference")


def figures(outcome: Outcome) -> dict[str, Any]:
    """All that is known about one torture, as JSON values."""
    evidence, verdict = outcome.evidence, outcome.verdict
    assert evidence is not None
    assert verdict is not None
    plan = outcome.plan
    return {
        "seed": plan.seed, "speed": plan.speed, "jobs": len(evidence.jobs), "seconds": round(outcome.seconds, 1),
        "kills": dict(outcome.kills), "meddled": dict(outcome.meddled), "endings": _endings(outcome.endings),
        "providers": {account: _provider(evidence, account) for account in sorted(evidence.limits)},
        "faults_fired": dict(sorted(evidence.fired.items())),
        "found": {rule: verdict.count(rule) for rule in RULES},
        "findings": [str(finding) for finding in (*outcome.findings, *verdict.findings)],
        "clean": outcome.clean,
    }  # fmt: skip


def _provider(evidence: Evidence, account: str) -> dict[str, Any]:
    jobs = [job for job in evidence.jobs if job.account == account]
    tasks = [task for task in evidence.tasks if task.account == account]
    seen, allowed = evidence.seen.get(account), evidence.limits[account]
    return {
        "jobs": len(jobs), "tasks": len(tasks), "states": dict(Counter(job.state for job in jobs)),
        "held": _held(evidence, account),
        "net": str(evidence.net.get(account, Decimal(0))), "net_of_provider": str(sum(t.net for t in tasks)),
        "in_flight": [seen.in_flight if seen else 0, allowed.concurrency],
        "per_minute": [seen.per_minute if seen else 0, allowed.per_minute],
    }  # fmt: skip


def _held(evidence: Evidence, account: str) -> dict[str, int]:
    """The held jobs, by what they would be told: `charged` ones were bought all the same."""
    owned = {job.task_id for job in evidence.jobs if job.task_id}
    open_lines = Counter(task.prompt for task in evidence.tasks if task.account == account and task.id not in owned)
    held = [job for job in evidence.jobs if job.account == account and job.state == "held"]
    counts: Counter[str] = Counter()
    for job in held:
        counts[job.error or "?"] += 1
        if job.task_id is None and open_lines[job.line]:
            open_lines[job.line] -= 1
            counts["charged, task unknown"] += 1
    return dict(counts)


def _endings(seconds: Sequence[float]) -> dict[str, float]:
    """How long runs took to end after their first signal."""
    if not seconds:
        return {}
    return {"median": round(statistics.median(seconds), 2), "longest": round(max(seconds), 2)}


def table(told: Mapping[str, Any]) -> str:
    """The same for a person."""
    kills = ", ".join(f"{count} {name}" for name, count in sorted(told["kills"].items()))
    lines = [f"kills: {sum(told['kills'].values())} ({kills}) in {told['seconds']} s; seed {told['seed']}"]
    lines += [f"{'':14}{'jobs':>7}{'tasks':>7}{'at once':>10}{'in 60 s':>10}   ends"]
    for account, each in told["providers"].items():
        ends = ", ".join(f"{count} {state}" for state, count in sorted(each["states"].items()))
        at_once, minute = ("/".join(map(str, each[name])) for name in ("in_flight", "per_minute"))
        lines.append(f"{account:14}{each['jobs']:7}{each['tasks']:7}{at_once:>10}{minute:>10}   {ends}")
    faults = told["faults_fired"]
    lines.append(f"faults fired: {sum(faults.values())} of {len(faults)} kinds")
    lines.append(", ".join(f"{name.replace('_', ' ')} {told['found'][name]}" for name in HEADLINE))
    return "\n".join([*lines, *told["findings"], "clean" if told["clean"] else "NOT CLEAN"])


def as_json(told: Mapping[str, Any]) -> str:
    return json.dumps(told, indent=2, ensure_ascii=False)
