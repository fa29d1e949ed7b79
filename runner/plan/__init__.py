"""What a manifest would do and cost, against what the queue already holds. No network, and nothing is written.

`read` checks a manifest whole, `make` compares it with the queue: what is new, kept and gone, what it costs, what
stands in the way of its outputs, and what a person should know before anything is paid.
"""

from runner.plan.making import (
    GONE,
    KEPT,
    NEW,
    Bill,
    Line,
    Plan,
    first_gone,
    gone,
    lines,
    make,
    orders_of,
    read,
)

__all__ = [
    "GONE",
    "KEPT",
    "NEW",
    "Bill",
    "Line",
    "Plan",
    "first_gone",
    "gone",
    "lines",
    "make",
    "orders_of",
    "read",
]
