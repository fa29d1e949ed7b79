"""Where a queue file may lie: SQLite's locks and its WAL are only safe on a local disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

from runner.errors import LocalError, NotOurs

NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ncpfs",
        "glusterfs",
        "ceph",
        "fuse.sshfs",
        "fuse.davfs2",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
    ]
)


MOUNTS = Path("/proc/self/mountinfo")
ESCAPED = re.compile(rb"\\([0-7]{3})")  # spaces and such; all other bytes of a name stand there as they are
MEMORY = frozenset(["tmpfs", "ramfs"])
# Folders that a service copies elsewhere: by the names it gives them, and by what it leaves in them.
SYNCED_NAMES = {
    "dropbox": "Dropbox", "onedrive": "OneDrive", "google drive": "Google Drive", "googledrive": "Google Drive",
    "icloud drive": "iCloud", "iclouddrive": "iCloud", "mobile documents": "iCloud", "cloudstorage": "A cloud service",
    "nextcloud": "Nextcloud", "owncloud": "ownCloud", "box sync": "Box", "pclouddrive": "pCloud", "megasync": "MEGA",
    "seafile": "Seafile", "yandex.disk": "Yandex Disk", "syncthing": "Syncthing",
}  # fmt: skip
SYNCED_MARKS = {".dropbox": "Dropbox", ".dropbox.cache": "Dropbox", ".stfolder": "Syncthing"}


def synced(folder: Path) -> str | None:
    """The service that keeps `folder` in step with other places, by name; None where nothing tells of one."""
    target = folder.expanduser().absolute()
    for part in (part.casefold() for part in {*target.parts, *target.resolve().parts}):
        name = next((known for known in SYNCED_NAMES if part == known or part.startswith(f"{known} - ")), None)
        if name is not None:
            return SYNCED_NAMES[name]
    above = (target.resolve(), *target.resolve().parents)
    return next((name for at in above for mark, name in SYNCED_MARKS.items() if (at / mark).exists()), None)


def doubts(queue: Path) -> list[str]:
    """What does not keep anybody from working on this queue, but should be known."""
    found = [f"{name} keeps its folder in step with other places" for name in filter(None, [synced(queue.parent)])]
    if queue.exists() and queue.stat().st_mode & 0o077:
        found.append("others on this machine may read it")
    return found


def check(queue: Path) -> None:
    """Raises LocalError where the queue would lie on a network file system, or cannot be opened at all."""
    check_file(queue)
    kind = file_system(queue.parent)
    if kind in NETWORK:
        raise LocalError(f"{queue} lies on a network file system ({kind}), where locks cannot be trusted",
                         "put the queue on a local disk with --db, or use PostgreSQL")  # fmt: skip


def check_file(queue: Path) -> None:
    """Raises LocalError for what stands there and is no file, or none of ours to read: SQLite is not even asked."""
    if queue.exists() and not queue.is_file():
        raise NotOurs(f"{queue} is not a regular file", "name another place with --db")
    if queue.exists() and not os.access(queue, os.R_OK):
        raise LocalError(f"{queue} cannot be read: permission denied", "mend its permissions, or name another: --db")


def is_filled(queue: Path) -> bool:
    """Whether something stands there that is not a queue yet to be made (an empty file is)."""
    return queue.exists() and (not queue.is_file() or queue.stat().st_size > 0)


def file_system(folder: Path) -> str | None:
    """The kind of file system that holds `folder` (Linux); None where it cannot be told."""
    try:
        lines = MOUNTS.read_bytes().removesuffix(b"\n").split(b"\n")
    except OSError:
        return None
    target = folder.resolve()
    best, kind = -1, None
    for line in lines:
        head, _, tail = line.partition(b" - ")
        mount = Path(os.fsdecode(ESCAPED.sub(_unescaped, head.split(b" ")[4])))
        if (target == mount or mount in target.parents) and len(mount.parts) >= best:
            best, kind = len(mount.parts), tail.split(b" ")[0].decode()
    return kind


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])


BALLAST = 1 << 20  # bytes


def keep_ballast(queue: Path) -> None:
    """Keeps a little disk space beside the queue, to be given back when the disk is full and a task id must be stored.

    Raises LocalError where not even that is left: then nothing should be paid for.
    """
    try:
        with os.fdopen(os.open(_ballast(queue), os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            if os.fstat(file.fileno()).st_size < BALLAST:
                file.write(os.urandom(BALLAST))  # nothing that a file system could store in less
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise LocalError(f"there is no room left beside {queue}: {error.strerror}", "make room on this disk") from None


def drop_ballast(queue: Path) -> None:
    _ballast(queue).unlink(missing_ok=True)


def _ballast(queue: Path) -> Path:
    return queue.with_name(queue.name + ".ballast")
