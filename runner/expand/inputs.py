"""References as written → pinned: which of them are files, what is in those, and who may get them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from runner.errors import InputError
from runner.expand.keys import Pinned
from runner.problems import quoted
from runner.providers.compose import Composed
from runner.providers.description import Fault, Provider, Reference
from runner.providers.values import check_url
from runner.references import LocalFile, Outgoing, check_local, inspect, locate, placeholder

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters at least: `C:` is a drive
REMEMBERED = 10_000  # paths
ALLOW = "copy the file into it, or allow the folder it is in: --allow-files DIR"

Placed = tuple[str, Pinned]  # with its role, and which of that role's entries it is ("images.0")


def stand_in(role: str) -> Pinned:
    """For a reference that is refused, so that the rest of its request can still be checked."""
    return Pinned(Reference(role, "https://unhosted.invalid/refused"))


class Inputs:
    """Pins references of one manifest, whose files lie below `roots`, and notes who gets which of them."""

    def __init__(self, folder: Path, roots: Sequence[Path], registry: Mapping[str, Provider]) -> None:
        self._registry = registry
        self._takers: dict[LocalFile, set[str]] = {}
        self._file = lru_cache(REMEMBERED)(partial(_look, folder=folder, roots=roots))

    def outgoing(self) -> tuple[Outgoing, ...]:
        """The files that accounts get, in the order of their paths."""
        found = sorted(self._takers.items(), key=lambda taken: taken[0].path)
        return tuple(Outgoing(file, tuple(sorted(accounts))) for file, accounts in found)

    def pin(self, place: str, written: str, review: bool, provider: Provider) -> Pinned | Fault:
        """The reference with its content, or what is wrong with it.

        `place` is its role, and which of that role's entries it is where there may be several ("images.0").
        """
        role = place.partition(".")[0]
        if is_url(written):
            fault = _check_url(role, written, provider)
            return Pinned(Reference(role, written, None, review)) if fault is None else _at(place, fault)
        found = self._file(written)
        if isinstance(found, Fault):
            return _at(place, found)
        reference = Reference(role, placeholder(found.sha256, found.media_type), written, review)
        return Pinned(reference, found.sha256, str(found.path))

    def give(self, local: Iterable[Placed], account: str, provider: Provider, composed: Composed) -> Iterator[Fault]:
        """What is wrong with giving these files to that account for this request; the others are noted as its own."""
        for place, pinned in local:
            found = self._file(pinned.reference.path)
            if isinstance(found, Fault):  # gone since it was pinned
                yield _at(place, found)
                continue
            slot = composed.slots.get(pinned.reference.role)
            demands = slot.demands if slot is not None else None
            faults = check_local(found, pinned.reference, provider, composed.model, demands, self._registry)
            yield from (_at(place, fault) for fault in faults)
            if not faults:
                self._takers.setdefault(found, set()).add(account)


def is_url(written: str) -> bool:
    """Whether an entry is meant as a URL: anything with a scheme. All else is a path."""
    return _SCHEME.match(written) is not None


def _at(place: str, fault: Fault) -> Fault:
    return replace(fault, field=f"references.{place}")


def _check_url(role: str, written: str, provider: Provider) -> Fault | None:
    if "://" in written:
        return check_url(written, f"references.{role}", provider.url_schemes)
    message = f"{written.split(':')[0]}: is not read here"
    return Fault("B63", role, message, "write a plain path (with ./ before a name that holds a colon)")


def _look(written: str, folder: Path, roots: Sequence[Path]) -> LocalFile | Fault:
    if not written.strip():
        return Fault("B52", "", "this reference is empty", "write a path or a URL, or leave it out")
    try:
        return inspect(locate(written, folder, roots, ALLOW))
    except InputError as error:
        name = quoted(written)
        message = error.message if name in error.message else f"{name}: {error.message}"
        return Fault(error.problems[0].code, "", message, error.hint)
