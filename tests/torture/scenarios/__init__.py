"""Trouble that does not come by itself, each kind staged on purpose, by number of the catalogue (torture/catalogue.py)."""

from __future__ import annotations

from torture.scenarios.scene import Scenario

SCENARIOS: tuple[Scenario, ...] = ()
