"""Inputs going out: what a local file is, and whether a provider would host it.

A file is judged by its first bytes and never decoded. It is opened without waiting (a FIFO would wait for ever) and
judged after opening, so that it cannot be swapped for something else in between.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NoReturn

from runner import media
from runner.errors import InputError, Problem
from runner.problems import quoted
from runner.providers.description import Fault, Hosting, Provider, Reference

CHUNK = 1 << 20  # bytes
BMP = "image/bmp"  # an input at SeeGen; no provider renders it, so `media` does not know it
EXTENSIONS = {m.media_type: m.extension for m in media.ALL} | {BMP: "bmp"}
ROLE_TYPES = {
    "images": "image/",
    "first_frame": "image/",
    "last_frame": "image/",
    "videos": "video/",
    "audios": "audio/",
}


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local input: `sha256` in hex, `media_type` by its first bytes, `size` in bytes."""

    path: Path
    sha256: str
    media_type: str
    size: int


def locate(written: str, folder: Path, roots: Sequence[Path] = ()) -> Path:
    """The file that a path of a manifest in `folder` names, links resolved.

    Raises `InputError` (B59) for one outside `folder` and `roots`: what leaves this machine must lie where the person
    meant it to (reliability.md T10).
    """
    try:
        resolved = (folder / written).resolve()
    except (OSError, RuntimeError):  # links in a circle
        _refuse("B52", f"{quoted(written)} leads nowhere", "check its links")
    allowed = [root.resolve() for root in (folder, *roots)]
    if not any(resolved.is_relative_to(root) for root in allowed):
        _refuse("B59", f"{quoted(written)} leads out of the manifest's folder", "copy the file into it")
    return resolved


def inspect(path: Path) -> LocalFile:
    """Hash and type of a regular file, remembered until it changes.

    Raises `InputError` with one problem: B52 not there, B53 a folder, B02 no regular file, B03 unreadable, B54 empty,
    B56 no image, video or audio that any provider takes.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        _refuse("B52", f"{quoted(path)} is not there", "check the path: it is relative to the manifest's folder")
    except OSError as error:
        _refuse("B03", f"{quoted(path)} cannot be read: {error.strerror}")
    _refuse_irregular(path, found.st_mode)
    return _inspect(path, found.st_mtime_ns, found.st_size)


def placeholder(sha256: str, media_type: str) -> str:
    """Stands for the URL of a local file that no provider hosts yet: the same for the same content, and never anyone's
    (RFC 2606 reserves `.invalid`)."""
    return f"https://unhosted.invalid/{sha256}.{EXTENSIONS[media_type]}"


def check_local(file: LocalFile, reference: Reference, provider: Provider) -> Fault | None:
    """What is wrong with giving this file in this role to this provider: B56 its type, B55 its size or that the
    provider hosts nothing; None where nothing is."""
    field = f"references.{reference.role}"
    name = quoted(reference.path or file.path)
    if not file.media_type.startswith(ROLE_TYPES[reference.role]):
        return Fault("B56", field, f"{name} is {file.media_type}, which {reference.role} cannot be")
    if provider.hosting is None or reference.role not in provider.hosting.roles:
        message = f"{name} is a local file, and {provider.name} hosts none for {reference.role}"
        return Fault("B56", field, message, "put it on the web and write its https URL")
    return _check_hosting(file, provider.hosting, field, f"{name}", provider.name)


def _check_hosting(file: LocalFile, hosting: Hosting, field: str, name: str, provider: str) -> Fault | None:
    if file.media_type not in hosting.media_types:
        allowed = ", ".join(hosting.media_types)
        return Fault("B56", field, f"{name} is {file.media_type}; {provider} takes {allowed}", "convert it")
    if file.size > hosting.max_bytes:
        message = f"{name} has {file.size:,} bytes; {provider} takes at most {hosting.max_bytes:,}"
        return Fault("B55", field, message, "make it smaller, or put it on the web and write its https URL")
    return None


@lru_cache(maxsize=100_000)
def _inspect(path: Path, _mtime_ns: int, _size: int) -> LocalFile:
    try:
        with _opened(path) as file:
            head = file.read(media.HEAD)
            digest = hashlib.sha256(head)
            size = len(head)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        _refuse("B03", f"{quoted(path)} cannot be read: {error.strerror}")
    if not size:
        _refuse("B54", f"{quoted(path)} is empty")
    media_type = _media_type(head)
    if media_type is None:
        known = ", ".join(sorted(EXTENSIONS.values()))
        _refuse("B56", f"{quoted(path)} is no image, video or audio, whatever its name says", f"known: {known}")
    return LocalFile(path, digest.hexdigest(), media_type, size)


def _opened(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _refuse_irregular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except InputError:
        os.close(descriptor)
        raise


def _refuse_irregular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        _refuse("B53", f"{quoted(path)} is a folder", "name one file in it")
    if not stat.S_ISREG(mode):
        _refuse("B02", f"{quoted(path)} is not a regular file", "name a file")


def _media_type(head: bytes) -> str | None:
    if head.startswith(b"BM") and len(head) >= 26:
        return BMP
    found = media.sniff(head)
    return found.media_type if found else None


def _refuse(code: str, message: str, hint: str = "") -> NoReturn:
    raise InputError(message, hint, (Problem(code, message, hint),))
