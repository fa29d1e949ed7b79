"""A dozen kills at random moments while the providers misbehave; ./scripts/torture does hundreds, and thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture.manifests import PROVIDERS
from torture.random_kills import Plan, random_kills

KILLS = 12


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_paid_twice(tmp_path: Path) -> None:
    told = random_kills(tmp_path, Plan("suite", KILLS, 24, PROVIDERS, speed=100.0, mean=0.5))
    assert told.clean, "\n".join(told.findings)
    assert told.kills.total() >= KILLS
    assert sum(told.fired.values()) - told.fired["F22"] >= KILLS, "without faults it would prove nothing"
    for name in PROVIDERS:
        assert told.accounts[name].states["succeeded"] >= 3, name
