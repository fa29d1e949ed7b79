"""Whether a job's output could be published where it belongs. A render without a place would be paid for in vain."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

from runner.downloads import hindrance
from runner.expand import Order
from runner.manifest.findings import Findings
from runner.manifest.places import Spot

REMEMBERED = 10_000  # folders


class Places:
    """Looks at the places of outputs below `root`, each folder once, and notes what is wrong with them."""

    def __init__(self, root: Path, found: Findings) -> None:
        self._root, self._found = root, found
        self._hindrance = lru_cache(REMEMBERED)(lambda folders: hindrance(root, folders))

    def check(self, order: Order, *, new: bool) -> None:
        """Notes a folder that nothing can be written to (B77), and a file that is not ours where the output of a `new`
        job would stand (B78)."""
        *folders, _ = order.output.split("/")
        if wrong := self._hindrance(tuple(folders)):
            hint = "mend that, or choose another folder: outputs.dir and outputs.name"
            self._found.add("B77", f"no output can be written: {wrong}", hint, ("outputs", "dir"))
        elif new and os.path.lexists(self._root / order.output):
            self._note_taken(order)

    def _note_taken(self, order: Order) -> None:
        if _is_output_of(self._root / order.output, order.key):
            message = f"{order.output} is this very render: it was paid for, but not for this batch in this queue"
            hint = (
                "use the queue it was made with (--db), or that batch's name, or move the file away to have it "
                "rendered and paid again"
            )
        else:
            message = f"{order.output} exists and is not a file of this queue"
            hint = "move it away, or choose another name under outputs:"
        if isinstance(order.where, Spot):
            self._found.add("B78", message, hint, order.where)
        else:
            self._found.add_at("B78", message, hint, order.where, None)


def _is_output_of(path: Path, key: str) -> bool:
    """Whether the sidecar beside a file says that it is the output of this very job."""
    try:
        return bool(json.loads(path.with_name(path.name + ".json").read_text())["key"] == key)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
