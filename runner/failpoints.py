"""Places where a test may kill this process, to see that a `kill -9` there loses nothing.

`RUNNER_FAILPOINT=name` kills at the first time the place is reached, `RUNNER_FAILPOINT=name:3` at the third. Without
the variable a place costs one comparison with None.
"""

from __future__ import annotations

import os
import signal

NAMES = frozenset(
    {
        # the database (store)
        "before-migration-commit",
        "before-commit",
        "after-commit",
        # a submission (client)
        "before-brink",
        "after-brink",
        "request-sent",
        "answer-read",
        # an output (downloads)
        "part-opened",
        "first-chunk",
        "before-fsync",
        "after-fsync",
        "after-link",
        "after-sidecar",
        "after-unlink",
    }
)


class _Armed:
    """The place to die at, and how often it may still be passed."""

    def __init__(self, wish: str) -> None:
        self.name, _, times = wish.partition(":")
        self.left = int(times or 1)
        _known(self.name)

    def passed(self, name: str) -> None:
        _known(name)
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                _die()


def _known(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"no such fail point: {name!r}; there are {', '.join(sorted(NAMES))}")


def _die() -> None:
    # Windows has no SIGKILL; there SIGTERM ends a process just as abruptly.
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


_armed = _Armed(os.environ["RUNNER_FAILPOINT"]) if os.environ.get("RUNNER_FAILPOINT") else None


def reached(name: str) -> None:
    """Kills this very process if `RUNNER_FAILPOINT` names this place. ValueError for an unknown name, while armed."""
    if _armed is not None:
        _armed.passed(name)
