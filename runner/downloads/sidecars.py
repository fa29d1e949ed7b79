"""`<output>.json`: what an output was made of, beside it. Also the proof of whose it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.files import Folder

LIMIT = 1 << 20  # bytes; what is larger was not written by us


def sidecar(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes `facts` as `<path>.json`, whole or not at all, replacing an earlier one of the same task and output.

    The facts must tell `task_id` and `output` (KeyError): they say whose sidecar it is. A file of that name that is not
    ours is the person's: it stays, and nothing is written. No secret and no signed URL may be among the facts: what the
    caller gives is what is written. OSError as the system raises it.
    """
    folder = Folder.below(path.parent, ())
    try:
        write(folder, path.name, facts)
        folder.sync()
    finally:
        folder.close()


def write(folder: Folder, output: str, facts: Mapping[str, Any]) -> None:
    """`sidecar` in a folder held open."""
    name = f"{output}.json"
    if _same_owner(read(folder, output), facts) or folder.state(name) is None:
        folder.write(name, (json.dumps(facts, ensure_ascii=False, indent=2, default=str) + "\n").encode())


def read(folder: Folder, output: str) -> Mapping[str, Any]:
    """What the sidecar of this output says; nothing where there is none that could be ours."""
    raw = folder.read(f"{output}.json", LIMIT)
    try:
        found = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _same_owner(found: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return all(key in found and found[key] == facts[key] for key in ("task_id", "output"))
