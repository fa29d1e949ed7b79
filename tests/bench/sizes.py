"""How much is measured: `tiny` only shows that the figures can be taken, `full` is what the goals speak of."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Size:
    """Counts of things; `seconds` of the wall; `speed` of the sandbox's clock; bytes where it says so."""

    name: str
    journey_jobs: int
    change_seconds: float
    table_rows: int
    hold_seconds: float
    yaml_entries: int
    night_tasks: int
    night_speed: float
    window_jobs: int
    publish_tasks: int
    publish_speed: float
    download_bytes: int
    resume_queued: int
    resume_running: int
    starts: int
    status_jobs: int
    crowds: tuple[int, ...]
    crowd_seconds: float
    overhead_jobs: int


TINY = Size(
    name="tiny", journey_jobs=12, change_seconds=0.1, table_rows=300, hold_seconds=0.3, yaml_entries=200,
    night_tasks=8, night_speed=400.0, window_jobs=6, publish_tasks=4, publish_speed=200.0, download_bytes=2 * MB,
    resume_queued=200, resume_running=20, starts=1, status_jobs=200, crowds=(50,), crowd_seconds=0.3, overhead_jobs=8,
)  # fmt: skip
USUAL = Size(
    name="usual", journey_jobs=600, change_seconds=3.0, table_rows=100_000, hold_seconds=2.0, yaml_entries=10_000,
    night_tasks=200, night_speed=40.0, window_jobs=200, publish_tasks=30, publish_speed=5.0, download_bytes=128 * MB,
    resume_queued=100_000, resume_running=1000, starts=3, status_jobs=100_000, crowds=(10_000,), crowd_seconds=10.0,
    overhead_jobs=300,
)  # fmt: skip
FULL = Size(
    name="full", journey_jobs=3000, change_seconds=10.0, table_rows=1_000_000, hold_seconds=2.0, yaml_entries=10_000,
    night_tasks=1000, night_speed=30.0, window_jobs=300, publish_tasks=60, publish_speed=5.0,
    download_bytes=500 * MB, resume_queued=1_000_000, resume_running=1000, starts=3, status_jobs=1_000_000,
    crowds=(10_000, 100_000), crowd_seconds=20.0, overhead_jobs=1000,
)  # fmt: skip
