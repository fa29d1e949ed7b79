"""Twenty-five kills at random moments while the providers misbehave; ./scripts/torture does two hundred."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture.manifests import PROVIDERS
from torture.random_kills import Plan, random_kills

KILLS = 25


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_paid_twice(tmp_path: Path) -> None:
    outcome = random_kills(tmp_path, Plan("suite", KILLS, 24, PROVIDERS, speed=60.0, mean=0.5))
    told = figures(outcome)
    assert outcome.clean, f"{table(told)}\nagain: ./scripts/torture --seed suite --kills {KILLS} --speed 60"
    assert sum(outcome.kills.values()) >= KILLS
    _it_was_hard_enough(outcome)


def _it_was_hard_enough(outcome: Outcome) -> None:
    """The same kills without faults, or without work, would prove nothing."""
    assert outcome.evidence is not None
    fired = outcome.evidence.fired
    assert sum(fired.values()) >= KILLS // 3, fired  # how many fit between the kills depends on the machine
    assert any(name in fired for name in ("lost_answer", "late_accept", "error_after_charge", "truncated"))
    for account in PROVIDERS:
        done = [job for job in outcome.evidence.jobs if job.account == account and job.state == "succeeded"]
        assert len(done) >= 5, account
