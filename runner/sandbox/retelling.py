"""Answers in which one thing is not so: another task's id, an odd progress, a status spelt differently. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

STATUS = ("status", "taskStatus")
ODD_PROGRESS = {"137": 137, "-1": -1, "null": None, "text": "nearly done"}


def of_another(payload: Any, mine: str, other: str) -> Any:
    """The same, but speaking of another task."""
    return json.loads(json.dumps(payload).replace(mine, other))


def with_progress(payload: Any, value: Any) -> Any:
    """The same, but with this progress beside every status, also where the dialect tells none."""
    return _changed(payload, lambda said, name: said.update(progress=value))


def respelled(payload: Any) -> Any:
    """The same, but a status that is a number comes as text, and one that is a word in the other case."""

    def respell(said: dict[str, Any], name: str) -> None:
        word = said[name]
        said[name] = word.swapcase() if isinstance(word, str) else str(word)

    return _changed(payload, respell)


def _changed(payload: Any, change: Callable[[dict[str, Any], str], None]) -> Any:
    copy = json.loads(json.dumps(payload))
    for said, name in list(_statuses(copy)):
        change(said, name)
    return copy


def _statuses(payload: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every object of the payload that tells a status, and under which name."""
    if isinstance(payload, dict):
        yield from ((payload, name) for name in STATUS if name in payload)
    children = payload.values() if isinstance(payload, dict) else payload if isinstance(payload, list) else ()
    for child in children:
        yield from _statuses(child)
