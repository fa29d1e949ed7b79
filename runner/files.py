"""Files below a folder, reached without following a link.

Every folder is held open and everything in it is named relative to it, so nobody can lead a write elsewhere by swapping
a folder for a link (reliability.md T13). New folders are for their owner alone (0700), new files too (0600). Where a
system cannot name files relative to an open folder (Windows), paths are used and links looked for first.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

RELATIVE = {os.open, os.mkdir, os.link, os.unlink, os.rename, os.stat} <= os.supports_dir_fd
UNSUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK})
NO_LINKS = UNSUPPORTED | {errno.EPERM, errno.EMLINK}
NOT_FOLLOWED: dict[str, Any] = {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}
PLAIN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | PLAIN  # never waits: a pipe would, for ever
PASSING = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | PLAIN  # a folder on the way elsewhere

if sys.platform != "win32":
    import fcntl


class InTheWay(OSError):
    """Something stands where a folder or file of ours should be: a link, a device, a file in place of a folder."""


def open_without_links(path: Path) -> int:
    """A descriptor of what lies at an absolute path, for reading, without waiting and without following a link anywhere
    on the way; who opened it must look at what it is.

    InTheWay where a link, or a file in place of a folder, stands on the way; else OSError as the system raises it.
    """
    try:
        return _opened_step_by_step(path) if RELATIVE else _opened_and_compared(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise InTheWay(error.errno, "a link, or no folder, on the way", str(path)) from None
        raise


def _opened_step_by_step(path: Path) -> int:
    folder = os.open(path.anchor, PASSING)
    try:
        for part in path.parts[1:-1]:
            inner = os.open(part, PASSING, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(path.name or ".", READING, dir_fd=folder)
    finally:
        os.close(folder)


def _opened_and_compared(path: Path) -> int:
    descriptor = os.open(path, READING)
    if path.resolve() != path or not os.path.samestat(os.fstat(descriptor), path.stat()):
        os.close(descriptor)
        raise InTheWay(errno.ELOOP, "a link on the way", str(path))
    return descriptor


class Descriptor:
    """An open file of `size` bytes, to be read anywhere in it (a `media.Source`). It is not closed by this."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        return os.read(self._descriptor, length)


class Folder:
    """An open folder. Every `name` is one path component; OSError as the system raises it."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def below(cls, root: Path, parts: Sequence[str]) -> Self:
        """`root / parts…`, made where missing. `root` itself may be reached through links: it is the person's own word.

        InTheWay where a part is no name of a folder, or stands there as something else.
        """
        make_private(root)
        folder = cls(root, os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if RELATIVE else None)
        try:
            for part in parts:
                inner = folder._inner(part)
                folder.close()
                folder = inner
        except BaseException:
            folder.close()
            raise
        return folder

    def _inner(self, part: str) -> Self:
        check_name(part)
        with suppress(FileExistsError):
            os.mkdir(self._at(part), 0o700, **self._relative())
            self.sync()
        state = self.state(part)
        if state is None or not stat.S_ISDIR(state.st_mode):
            raise InTheWay(errno.ENOTDIR, "not a folder of its own (a link or a file)", str(self.path / part))
        if not RELATIVE:
            return type(self)(self.path / part, None)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return type(self)(self.path / part, os.open(part, flags, dir_fd=self._descriptor))
        except NotADirectoryError:  # Swapped for a link since we looked.
            raise InTheWay(errno.ENOTDIR, "a link where a folder should be", str(self.path / part)) from None

    def _at(self, name: str) -> str:
        return name if RELATIVE else str(self.path / name)

    def _relative(self) -> dict[str, Any]:
        return {"dir_fd": self._descriptor} if RELATIVE else {}

    def _both(self) -> dict[str, Any]:
        return {"src_dir_fd": self._descriptor, "dst_dir_fd": self._descriptor} if RELATIVE else {}

    def state(self, name: str) -> os.stat_result | None:
        """What stands under this name, links not followed; None where nothing does."""
        try:
            return os.stat(self._at(name), follow_symlinks=False, **self._relative())
        except FileNotFoundError:
            return None

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a plain file; InTheWay where a link or anything else stands."""
        try:
            if not RELATIVE and (found := self.state(name)) and stat.S_ISLNK(found.st_mode):
                raise InTheWay(errno.ELOOP, "a link", str(self.path / name))
            descriptor = os.open(self._at(name), flags | PLAIN, 0o600, **self._relative())
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise InTheWay(error.errno, "not a plain file", str(self.path / name)) from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InTheWay(errno.EINVAL, "not a plain file", str(self.path / name))
        return descriptor

    def publish(self, part: str, name: str) -> None:
        """Gives a finished file a second name, never overwriting: FileExistsError where something stands.

        On file systems without hard links the file is renamed instead, after a look.
        """
        try:
            os.link(self._at(part), self._at(name), **NOT_FOLLOWED, **self._both())
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if self.state(name) is not None:
                raise FileExistsError(errno.EEXIST, "something stands there", name) from None
            self._rename(part, name)

    def _rename(self, old: str, new: str) -> None:
        os.replace(self._at(old), self._at(new), **self._both())

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._at(name), **self._relative())

    def read(self, name: str, most: int) -> bytes | None:
        """A small plain file's bytes; None where there is none, or it is larger than `most`."""
        try:
            descriptor = self.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except (FileNotFoundError, InTheWay):
            return None
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(most + 1)
        return content if len(content) <= most else None

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """Writes or replaces a small file: after a kill at any moment it is whole, old or new; after a loss of power,
        too, if it is to be `durable`."""
        fresh = _fresh(name)
        self.remove(fresh)
        descriptor = self.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    flush(file.fileno())
            self._rename(fresh, name)
        except BaseException:
            self.remove(fresh)
            raise

    def remove_written(self, name: str) -> None:
        """Removes what `write` wrote, and what a crash within it may have left."""
        self.remove(_fresh(name))
        self.remove(name)

    def sync(self) -> None:
        """Makes the names in this folder durable, where the file system can do that on demand."""
        if self._descriptor is not None:
            try:
                flush(self._descriptor)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def make_private(root: Path) -> None:
    """Makes a folder, and those above it that are missing, for their owner alone (0700), and durably: a file that is
    synced below it outlives a loss of power."""
    if not root.is_dir():
        make_private(root.parent)
        with suppress(FileExistsError):
            root.mkdir(mode=0o700)
        if RELATIVE:
            parent = Folder(root.parent, os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            try:
                parent.sync()
            finally:
                parent.close()


def _fresh(name: str) -> str:
    return f".{sha256(name.encode()).hexdigest()[:20]}.new"


def check_name(part: str) -> None:
    """InTheWay for what cannot be one component of a path."""
    if part in ("", ".", "..") or any(sign in part for sign in ("/", "\0", os.sep, os.altsep or "/")):
        raise InTheWay(errno.EINVAL, "not a name of a file or folder", part)


def flush(descriptor: int) -> None:
    """Everything written is on the disk, also where a plain fsync only hands it to the drive (macOS)."""
    if sys.platform == "darwin":
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def lock(descriptor: int) -> bool:
    """Takes the file, until the descriptor is closed; False where somebody else has it. Some systems know no locks:
    there everybody gets it."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    return True


def fitting(stem: str, tail: str, most: int) -> str:
    """`stem + tail`, or as much of the stem as fits into `most` bytes, with a mark that keeps such names apart."""
    if len((stem + tail).encode()) <= most:
        return stem + tail
    mark = "~" + sha256(stem.encode()).hexdigest()[:8] + tail
    return stem.encode()[: max(0, most - len(mark.encode()))].decode(errors="ignore") + mark
