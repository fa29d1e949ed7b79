"""Which jobs a person means: by id, by key, or by the unique beginning of a key."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runner.errors import InputError, Problem
from runner.problems import quoted
from runner.store import Store
from runner.store.queries import find_job
from runner.store.work import Work

ID = re.compile(r"[0-9]{1,18}")  # what fits into 64 bits
KEY = re.compile(r"(?=.*[a-f])[0-9a-f]{1,64}")
HINT = "a JOB is an id, a key, or the unique beginning of a key; see: runner jobs"
LISTED = 10  # `find_job` gives no more


async def find_one(store: Store, name: str) -> Work:
    """The job of that name. Raises InputError if there is none, or more than one."""
    [work] = await find_all(store, [name])
    return work


async def find_all(store: Store, names: Sequence[str]) -> list[Work]:
    """The jobs of these names, each once, in the order given. Raises one InputError for all names that fail."""
    found: dict[int, Work] = {}
    problems: list[Problem] = []
    for name in names:
        match await _candidates(store, name):
            case [work]:
                found.setdefault(work.id, work)
            case candidates:
                problems.append(_unclear(name, candidates))
    if problems:
        raise InputError(problems[0].message, problems[0].hint, tuple(problems))
    return list(found.values())


async def _candidates(store: Store, name: str) -> list[Work]:
    wanted = name.strip().lower()
    if ID.fullmatch(wanted) or KEY.fullmatch(wanted):
        return await store.read(find_job, wanted)
    return []


def _unclear(name: str, candidates: Sequence[Work]) -> Problem:
    if not candidates:
        return Problem("", f"there is no job {quoted(name)}", HINT)
    number = f"{len(candidates)} or more" if len(candidates) >= LISTED else str(len(candidates))
    which = ", ".join(f"{work.id} ({work.batch}/{work.name}, key {work.key[:16]}…)" for work in candidates)
    return Problem("", f"{quoted(name)} may be any of {number} jobs", f"which one? {which}")


__all__ = ["find_all", "find_one"]
