"""Whether all is well, decided from facts that somebody else has gathered: pure, one verdict and one advice each.

checks      what a check is                  accounts    keys, answers, balances, clocks
machine     the disk, the place, SQLite      outputs     files against what is recorded of them
"""

from runner.health.checks import Check, Verdict, ok, trouble, warning

__all__ = ["Check", "Verdict", "ok", "trouble", "warning"]
