"""Who goes next: lanes, due jobs, stop signals, and when a run is over."""

from runner.engine.ending import Exit
from runner.engine.lane import Lane
from runner.engine.run import Engine, until_next

__all__ = ["Engine", "Exit", "Lane", "until_next"]
