"""What every test may ask for: a PostgreSQL server, and an empty database on it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from hypothesis import settings
from postgres import fresh_database, private_cluster
from torture.power import playable

# A loss of power is played by a small library in C: not where nothing compiles it.
collect_ignore = [] if playable() else ["test_power.py"]

# How long one example takes says something about the machine and who else is using it, not about the property.
settings.register_profile("runner", deadline=None, print_blob=True)
settings.load_profile("runner")

# Only the command line opens a log; code that a test calls directly says nothing.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """DSN of a PostgreSQL's maintenance database, for a user who may create databases.

    `RUNNER_TEST_POSTGRES` (a DSN) names the server to use; otherwise a private one is started, once per test process.
    `RUNNER_TEST_POSTGRES_FSYNC=1` makes the private one durable, which is slower.
    """
    if given := os.environ.get("RUNNER_TEST_POSTGRES"):
        yield given
        return
    with private_cluster(fsync=os.environ.get("RUNNER_TEST_POSTGRES_FSYNC") == "1") as dsn:
        yield dsn


@pytest.fixture
async def postgres_database(postgres_url: str) -> AsyncIterator[str]:
    """`postgresql+asyncpg://…` of an empty database of the test's own, dropped afterwards."""
    async with fresh_database(postgres_url) as url:
        yield url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the documents' lines came to (tests/test_documents.py), as a table."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    told = {value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "document"}
    if not told:
        return
    terminalreporter.section("the providers' documents")
    for line in sorted(told):
        provider, kind, what, came_to = line.split("|")
        terminalreporter.write_line(f"{provider:15} {kind:8} {what[:60]:60} {came_to}")
