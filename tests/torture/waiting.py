"""Waiting for what nobody reports: a process elsewhere has done something that only looking shows."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0  # wall seconds; how busy the machine is must not matter


def until(question: Callable[[], object], what: str) -> None:
    """Returns when the question is answered with yes. Raises AssertionError, naming `what`, when it never is."""
    deadline = time.monotonic() + PATIENCE
    while not question():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.02)
