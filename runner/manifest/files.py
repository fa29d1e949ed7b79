"""The one door through which a manifest's bytes come in."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from runner.errors import InputError, Place, Problem
from runner.manifest.document import MANIFEST, MAX_BYTES, Words, read_document
from runner.manifest.grammar import VERSION
from runner.manifest.model import Manifest
from runner.manifest.places import Source
from runner.manifest.reader import read_content
from runner.problems import nearest, quoted, refused


def read_manifest(path: Path) -> Manifest:
    """Reads and checks a manifest, whole. Its tables and references are not looked at yet (`expand.survey` does).

    Raises InputError with every problem and its place; nothing is written, nothing is sent.
    """
    data = read_bytes(path)
    document = read_document(decode(data, str(path)), str(path))
    content = read_content(document)
    return Manifest(
        path=path,
        folder=path.absolute().parent,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        source=document.source,
        version=VERSION,
        batch=content.batch,
        jobs=content.jobs,
        outputs=content.outputs,
        budget=content.budget,
        providers=content.providers,
        defaults=content.defaults,
    )


def read_bytes(path: Path, words: Words = MANIFEST) -> bytes:
    """At most MAX_BYTES, else InputError (B01–B03, B19). Opened without waiting, so that a pipe or a device is refused
    rather than read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise _refuse(path, "B01", f"not found: {path}", _similar(path)) from None
    except OSError as error:
        raise _refuse(path, "B03", f"cannot be read: {error.strerror}: {path}", "") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _refuse(path, "B02", f"not a regular file: {path}", "name a .yaml file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        size = f"{status.st_size / 1_048_576:,.1f} MiB"
        most = f"{MAX_BYTES // 1_048_576} MiB {words.noun} may have"
        raise _refuse(path, "B19", f"{size} are more than the {most}", words.long)
    return data


def decode(data: bytes, name: str) -> str:
    """UTF-8, with or without a byte order mark; else InputError (B26)."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = Source(data[: error.start].decode("utf-8-sig", "replace"), name)
        place = before.at(len(before.text))
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        message = "this is UTF-16, not UTF-8" if wide else f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise refused(name, [Problem("B26", message, "save the file as UTF-8", place)]) from None


def _refuse(path: Path, code: str, message: str, hint: str) -> InputError:
    return refused(str(path), [Problem(code, message, hint, Place(str(path), 1, 1))])


def _similar(path: Path) -> str:
    """What lies in the same folder under a similar name."""
    try:
        names = sorted(entry.name for entry in os.scandir(path.parent) if entry.is_file())
    except OSError:
        return f"the folder {path.parent} cannot be read"
    near = nearest(path.name, names)
    manifests = [name for name in names if name.endswith((".yaml", ".yml"))]
    if near:
        return f"did you mean {quoted(path.parent / near)}?"
    return f"YAML files there: {', '.join(manifests[:5])}" if manifests else "there is no .yaml file in that folder"
