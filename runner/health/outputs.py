"""Published files, as they stand now, against what was recorded when they were fetched."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.health.checks import Check, trouble
from runner.health.machine import LOCAL


class Stands(StrEnum):
    """What stands at the path of an output."""

    FILE = "a file"
    NOTHING = "nothing"
    ANOTHER = "a link, or something that is no file"
    UNREADABLE = "a file that cannot be read"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One output as the queue knows it: its job (as people know it), the provider's task, size (bytes) and sha256."""

    path: str
    job_id: int
    job: str
    task_id: str | None
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What was found; of a file its size and sha256."""

    what: Stands
    size: int | None = None
    sha256: str | None = None


def output(recorded: Recorded, standing: Standing) -> Check | None:
    """None for a file that is as it was fetched."""
    if (found := _difference(recorded, standing)) is None:
        return None
    if standing.what is Stands.UNREADABLE:
        return trouble("output", recorded.path, found, "mend its permissions", LOCAL)
    task = f"task {recorded.task_id}" if recorded.task_id else "its task"
    advice = (
        f"if that was not you: job {recorded.job_id} ({recorded.job}) is done, so runner does not fetch it again; take "
        f"the file of {task} from the provider's web site, or a copy of your own, or order another take"
    )
    return trouble("output", recorded.path, found, advice, LOCAL)


def _difference(recorded: Recorded, standing: Standing) -> str | None:
    match standing.what:
        case Stands.NOTHING:
            return "the file is gone"
        case Stands.ANOTHER:
            return "a link, or something that is no file, stands in its place; it was not followed"
        case Stands.UNREADABLE:
            return "it cannot be read"
    if standing.size != recorded.size:
        return f"changed since it was fetched: {standing.size} bytes instead of {recorded.size}"
    if standing.sha256 != recorded.sha256:
        return "changed since it was fetched: other bytes, of the same number"
    return None
