"""Local files: found below the folders that a person allows, judged by their first bytes, and never decoded.

A file is opened without waiting (a FIFO would wait for ever) and without following a link, and judged after opening:
nobody can swap it, or a folder on the way to it, for something else in between.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from runner import media
from runner.errors import InputError, Problem
from runner.files import Descriptor, InTheWay, open_without_links
from runner.media import UNKNOWN, Measures
from runner.problems import quoted

CHUNK = 1 << 20  # bytes
LARGEST = 1 << 30  # bytes: the documents speak of at most 200 MB; what is larger is not even looked at
EXTENSIONS = {known.media_type: known.extension for known in media.INPUTS}
COPY_IT = "copy the file into it"
AGAIN = "run the same command again"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local input: `path` has no links in it, `sha256` in hex, `media_type` by its first bytes, `size` in bytes,
    `measures` as far as its headers tell."""

    path: Path
    sha256: str
    media_type: str
    size: int
    measures: Measures = UNKNOWN

    @property
    def extension(self) -> str:
        """That of its type, without the dot, whatever its name says."""
        return EXTENSIONS[self.media_type]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A local file that leaves this machine, and the accounts that get it, by name."""

    file: LocalFile
    accounts: tuple[str, ...]


def root_of(folder: Path) -> Path:
    """A folder whose files a person allows to leave this machine: absolute, its links resolved once and for all.

    Raises `InputError` for what is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"--allow-files {folder}: not a folder", "name a folder whose files may be uploaded")
    return folder.resolve()


def locate(written: str, folder: Path, roots: Sequence[Path] | None = None, hint: str = COPY_IT) -> Path:
    """The file that a path of a manifest in `folder` names, links resolved.

    Raises `InputError` (B59) for one outside `roots` (absolute, without links; `folder` alone where none are given):
    what leaves this machine must lie where the person meant it to (reliability.md T10).
    """
    try:
        resolved = (folder / written).resolve()
        allowed = [folder.resolve()] if roots is None else roots
        str(resolved).encode()
    except UnicodeEncodeError:
        _refuse("B52", f"{quoted(written)} leads to a name that is no text", "rename the file or its folder")
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no system knows
        _refuse("B52", f"{quoted(written)} leads nowhere", "check its links")
    if not any(resolved.is_relative_to(root) for root in allowed):
        by_link = resolved != Path(os.path.normpath(folder.resolve() / written))
        target = f", to {quoted(resolved)}" if by_link else ""
        _refuse("B59", f"{quoted(written)} leads out of the manifest's folder{target}", hint)
    return resolved


def inspect(path: Path) -> LocalFile:
    """Hash, type and measures of a regular file, remembered until it changes. `path` is one that `locate` gave.

    Raises `InputError` with one problem: B52 not there, B53 a folder, B02 no regular file, B03 unreadable or changing,
    B54 empty, B55 larger than any provider takes, B56 no image, video or audio that any takes, B59 by now behind a
    link.
    """
    try:
        found = path.stat()
        if os.path.realpath(path) != str(path):
            _refuse_link(path)
    except FileNotFoundError:
        _refuse("B52", f"{quoted(path)} is not there", "check the path: it is relative to the manifest's folder")
    except OSError as error:
        _refuse("B03", f"{quoted(path)} cannot be read: {error.strerror}")
    _refuse_odd(path, found)
    return _inspect(path, _identity(found))


def content_of(file: LocalFile) -> bytes:
    """The content that `inspect` saw, whole. Raises `InputError` where the file is another by now: nothing but what was
    looked at ever leaves."""
    with _opened(file.path) as (descriptor, _):
        content = Descriptor(descriptor, file.size).read(0, file.size + 1)
    if len(content) != file.size or hashlib.sha256(content).hexdigest() != file.sha256:
        _refuse("B03", f"{quoted(file.path)} has changed since it was looked at", AGAIN)
    return content


def placeholder(sha256: str, media_type: str) -> str:
    """Stands for the URL of a local file that no provider hosts yet: the same for the same content, and never anyone's
    (RFC 2606 reserves `.invalid`)."""
    return f"https://unhosted.invalid/{sha256}.{EXTENSIONS[media_type]}"


Identity = tuple[int, ...]


def _identity(state: os.stat_result) -> Identity:
    """What changes when a file, or what a path names, does."""
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=100_000)
def _inspect(path: Path, _known: Identity) -> LocalFile:
    with _opened(path) as (descriptor, found):
        source = Descriptor(descriptor, found.st_size)
        kind = media.sniff_input(source.read(0, media.HEAD))
        digest, size = _digest(source)
        if not size:
            _refuse("B54", f"{quoted(path)} is empty")
        if kind is None:
            known = ", ".join(sorted(EXTENSIONS.values()))
            _refuse("B56", f"{quoted(path)} is no image, video or audio, whatever its name says", f"known: {known}")
        measures = media.measure(kind, source)
        if size != found.st_size or _identity(os.fstat(descriptor)) != _identity(found):
            _refuse("B03", f"{quoted(path)} changed while it was being read", AGAIN)
    return LocalFile(path, digest, kind.media_type, size, measures)


def _digest(source: Descriptor) -> tuple[str, int]:
    """Hash and length of what is there, to just beyond the length it had when it was opened: more is no longer it."""
    digest, size = hashlib.sha256(), 0
    while size <= source.size and (chunk := source.read(size, CHUNK)):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of a regular file and its state. Raises `InputError` for anything else."""
    descriptor = -1
    try:
        descriptor = open_without_links(path)
        found = os.fstat(descriptor)
        _refuse_odd(path, found)
        yield descriptor, found
    except InTheWay:
        _refuse_link(path)
    except OSError as error:
        _refuse("B03", f"{quoted(path)} cannot be read: {error.strerror}")
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _refuse_odd(path: Path, state: os.stat_result) -> None:
    if stat.S_ISDIR(state.st_mode):
        _refuse("B53", f"{quoted(path)} is a folder", "name one file in it")
    if not stat.S_ISREG(state.st_mode):
        _refuse("B02", f"{quoted(path)} is not a regular file", "name a file")
    if state.st_size > LARGEST:
        message = f"{quoted(path)} has {state.st_size:,} bytes; no provider takes more than {LARGEST:,}"
        _refuse("B55", message, "make it smaller")


def _refuse_link(path: Path) -> NoReturn:
    _refuse("B59", f"{quoted(path)} stands behind a link that was not there before", AGAIN)


def _refuse(code: str, message: str, hint: str = "") -> NoReturn:
    raise InputError(message, hint, (Problem(code, message, hint),))
