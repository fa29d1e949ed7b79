"""Trouble that does not come by itself: each kind is staged on purpose, by its number in torture/catalogue.py."""

from __future__ import annotations

from torture.scenarios import databases
from torture.scenarios.scene import Scenario

SCENARIOS: tuple[Scenario, ...] = (*databases.SCENARIOS,)
