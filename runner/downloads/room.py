"""Whether there is a place for what is to come: looked at before anything is paid for. Nothing is made or written."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def hindrance(root: Path, folders: tuple[str, ...]) -> str | None:
    """Why no output can be published in the folder below `root` that these names lead to; None where it can.

    What is not there yet will be made. A link is never followed below `root`, as `files.Folder` has it.
    """
    place = _standing(root)
    try:
        for part in folders if place == root else ():
            inner = place / part
            state = inner.lstat()
            if stat.S_ISLNK(state.st_mode):
                return f"{inner} is a link, and outputs are never written through one"
            if not stat.S_ISDIR(state.st_mode):
                return f"{inner} is a file, not a folder"
            place = inner
    except FileNotFoundError:
        pass
    except OSError as error:
        return f"{root.joinpath(*folders)}: {error.strerror}"
    return _not_writable(place)


def free_bytes(root: Path) -> int | None:
    """How much fits on the disk that holds `root`, for whoever is no administrator; None where nobody tells."""
    try:
        return shutil.disk_usage(_standing(root)).free
    except OSError:
        return None


def _standing(root: Path) -> Path:
    """`root`, or the first folder above it that is there."""
    return next((place for place in (root, *root.parents) if place.exists()), root)


def _not_writable(place: Path) -> str | None:
    if not place.is_dir():
        return f"{place} is a file, not a folder"
    if os.access(place, os.W_OK | os.X_OK):
        return None
    read_only = hasattr(os, "statvfs") and os.statvfs(place).f_flag & os.ST_RDONLY
    return f"{place} cannot be written to: {'read-only file system' if read_only else 'permission denied'}"
