"""Manifest → jobs: deterministic, keyed by content, as a stream (design.md section 9).

`survey` checks every cell and counts; `orders` hands the jobs out. Neither keeps them: a million rows cost the memory
of a thousand.
"""

from __future__ import annotations

from runner.expand.keys import KEY_VERSION, Pinned, parse_spec
from runner.expand.order import Order
from runner.expand.passes import AccountTotals, Survey, orders, survey

__all__ = ["KEY_VERSION", "AccountTotals", "Order", "Pinned", "Survey", "orders", "parse_spec", "survey"]
