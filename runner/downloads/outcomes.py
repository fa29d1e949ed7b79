"""What is wanted, and how it may end: sorted by what to do next."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

from runner.media import Kind

CAP = 8 << 30  # bytes (reliability.md F83)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output to fetch.

    `path` is where it goes below `root`, with `/` between folders and the expected extension; where the bytes turn out
    to be another type, the extension follows them. `facts`, if given, are written beside it as `<output>.json` before
    the output counts as published: they also let a file be recognised as this output when no row tells of it.
    """

    url: str = field(repr=False)
    root: Path
    path: str
    task_id: str
    index: int = 0
    kinds: frozenset[Kind] = frozenset(Kind)
    cap: int = CAP
    resume: bool = True
    facts: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def folders(self) -> tuple[str, ...]:
        return tuple(self.path.split("/")[:-1])

    @property
    def name(self) -> str:
        return self.path.split("/")[-1]

    @property
    def part_name(self) -> str:
        """Derived from the task, the output and its place, so that every later try finds it and no other job does."""
        text = "\0".join((self.task_id, str(self.index), self.path))
        return f".{sha256(text.encode()).hexdigest()[:24]}.part"


@dataclass(frozen=True, slots=True)
class Published:
    """It is there: whole, durable, under `path`. `adopted` says that it already was, from a try that was cut short.

    `path` may differ from the one wanted: by its extension, by a `-2` where a file that is not this output stood in
    its place, and by a shorter name where the file system takes no longer one.
    """

    path: Path
    bytes: int
    sha256: str
    media_type: str
    extension: str
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class FreshUrl:
    """Ask the task for a fresh URL and try again, a few times: the old one has expired, or what it gives is no whole
    file of the kind. `status` is the HTTP status where that was the reason."""

    why: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """Try the same again later: the network or the server was in the way. What arrived is kept where it can be used.

    `wait` is in seconds, None where the server named no time. `received` counts the bytes this try has gained.
    """

    why: str
    wait: float | None = None
    received: int = 0


class Obstacle(StrEnum):
    UNSAFE_URL = "unsafe_url"  # leads where we do not go
    TOO_LARGE = "too_large"
    UNSAFE_PATH = "unsafe_path"  # a link, a file or a device stands in the way of our folders
    TAKEN = "taken"  # files that are not this output stand under every name it may have


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be had this way, however often it is tried: a person is needed. The task id stays."""

    reason: Obstacle
    why: str


@dataclass(frozen=True, slots=True)
class DiskTrouble:
    """This machine is in the way. What arrived is kept."""

    errno: int
    why: str

    @property
    def full(self) -> bool:
        """No room (or no quota) is left: no other download will fare better now."""
        return self.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


Outcome = Published | FreshUrl | Later | Refused | DiskTrouble
