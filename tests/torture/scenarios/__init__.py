"""Trouble that does not come by itself: each kind is staged on purpose, by its number in torture/catalogue.py."""

from __future__ import annotations

from torture.scenarios import (
    accounts,
    answers,
    callbacks,
    connections,
    databases,
    disk,
    meanings,
    processes,
    queues,
    syscalls,
)
from torture.scenarios.scene import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *connections.SCENARIOS,
    *answers.SCENARIOS,
    *meanings.SCENARIOS,
    *accounts.SCENARIOS,
    *callbacks.SCENARIOS,
    *databases.SCENARIOS,
    *processes.SCENARIOS,
    *syscalls.SCENARIOS,
    *disk.SCENARIOS,
    *queues.SCENARIOS,
)
