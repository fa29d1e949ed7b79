"""References as written → pinned: which of them are files, and what is in those."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from runner.errors import InputError
from runner.expand.keys import Pinned
from runner.providers.description import Fault, Provider, Reference
from runner.references import LocalFile, check_local, inspect, locate, placeholder

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters at least: `C:` is a drive
REMEMBERED = 10_000  # files and faults; beyond that the oldest go


class Inputs:
    """Pins references of one manifest. `files` are the local ones met, by path: what will leave this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[Path, LocalFile] = {}
        self._known: dict[tuple[str, str], LocalFile | Fault] = {}

    def pin(self, role: str, written: str, review: bool, provider: Provider) -> Pinned | Fault:
        """The reference with its content, or what is wrong with it as a file. URLs are checked with the request."""
        if is_url(written):
            if "://" not in written:
                message = f"{written.split(':')[0]}: is not read here"
                return Fault("B63", f"references.{role}", message, "write a plain path (./ before a name with a colon)")
            return Pinned(Reference(role, written, None, review))
        found = self._file(written, role)
        fault = found if isinstance(found, Fault) else None
        if isinstance(found, LocalFile):
            reference = Reference(role, placeholder(found.sha256, found.media_type), written, review)
            fault = check_local(found, reference, provider)
            if fault is None:
                self.files[found.path] = found
                return Pinned(reference, found.sha256)
        return fault or Fault("B52", f"references.{role}", "this file cannot be read")

    def _file(self, written: str, role: str) -> LocalFile | Fault:
        known = self._known.get((written, role))
        if known is None:
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            known = self._known[written, role] = _look(written, role, self._folder)
        return known


def is_url(written: str) -> bool:
    """Whether an entry is meant as a URL: anything with a scheme. All else is a path."""
    return _SCHEME.match(written) is not None


def _look(written: str, role: str, folder: Path) -> LocalFile | Fault:
    field = f"references.{role}"
    if not written.strip():
        return Fault("B52", field, f"{field} is empty", "write a path or a URL, or leave it out")
    if "\0" in written:
        return Fault("B26", field, "a path holds no NUL", "remove it")
    try:
        return inspect(locate(written, folder))
    except InputError as error:
        return Fault(error.problems[0].code, field, error.message, error.hint)


