"""Outputs coming in: from a result URL to a verified file under its name, through any crash.

`fetch_output` makes one try and says, as a value, what to do next. `sidecar` writes the facts beside an output.
`hindrance` and `free_bytes` look beforehand whether there is a place for it.
"""

from runner.downloads.fetch import fetch_output, give_up
from runner.downloads.outcomes import (
    DiskTrouble,
    FreshUrl,
    Later,
    Obstacle,
    Outcome,
    Published,
    Refused,
    Wanted,
)
from runner.downloads.room import free_bytes, hindrance
from runner.downloads.sidecars import sidecar

__all__ = [
    "DiskTrouble",
    "FreshUrl",
    "Later",
    "Obstacle",
    "Outcome",
    "Published",
    "Refused",
    "Wanted",
    "fetch_output",
    "free_bytes",
    "give_up",
    "hindrance",
    "sidecar",
]
