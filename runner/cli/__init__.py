"""The command line: one file per command, and the one place where things are put together."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (design.md section 10). `argv` defaults to the process's own."""
    try:
        from runner.cli.calling import call

        return call(argv)
    except KeyboardInterrupt:  # while it was still being imported
        return 130
