"""A local file against those who are to take it: first what the model's document demands, then what its provider hosts.

What a file's headers do not tell is not held against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, Decimal

from runner.ledger import as_text
from runner.problems import quoted
from runner.providers.description import Demands, Fault, Hosting, Provider, Reference
from runner.references.local import LocalFile

ROLE_TYPES = {
    "images": "image/",
    "first_frame": "image/",
    "last_frame": "image/",
    "videos": "video/",
    "audios": "audio/",
}
ON_THE_WEB = "put it on the web and write its https URL"


def check_local(
    file: LocalFile,
    reference: Reference,
    provider: Provider,
    model: str,
    demands: Demands | None,
    registry: Mapping[str, Provider],
) -> list[Fault]:
    """What is wrong with giving this file to this model: B56 its type, B55 its size, B57 its pixels, its ratio or how
    long it lasts; then B56 that the provider hosts no such files, with those of the registry that do."""
    check = _Check(file, f"references.{reference.role}", quoted(reference.path or file.path))
    if not file.media_type.startswith(ROLE_TYPES[reference.role]):
        said = f"is {file.media_type}, which {reference.role} cannot be"
        return [check.fault("B56", said, f"write it under {_role_for(file)}")]
    faults = list(check.unmet(demands, f"{provider.name} {model}")) if demands is not None else []
    hosting = _hosting(provider, reference.role)
    if hosting is None:
        return [*faults, _not_hosted(check, reference.role, provider, registry)]
    return faults or list(check.unmet(_limits(hosting), provider.name, f", or {ON_THE_WEB}"))


def _role_for(file: LocalFile) -> str:
    return next(role for role, begins in ROLE_TYPES.items() if file.media_type.startswith(begins))


def _hosting(provider: Provider, role: str) -> Hosting | None:
    return provider.hosting if provider.hosting is not None and role in provider.hosting.roles else None


def _limits(hosting: Hosting) -> Demands:
    return Demands(hosting.media_types, hosting.max_bytes)


def _not_hosted(check: _Check, role: str, provider: Provider, registry: Mapping[str, Provider]) -> Fault:
    hosts = [
        other.name
        for other in registry.values()
        if (hosting := _hosting(other, role)) is not None and not list(check.unmet(_limits(hosting), other.name))
    ]
    instead = f", or choose a provider that hosts it: {', '.join(hosts)}" if hosts else ""
    return check.fault("B56", f"is a local file, and {provider.name} hosts none for {role}", ON_THE_WEB + instead)


class _Check:
    """One file in one role, and what can be wrong with it."""

    def __init__(self, file: LocalFile, field: str, name: str) -> None:
        self.file, self._field, self._name = file, field, name

    def fault(self, code: str, said: str, hint: str = "") -> Fault:
        return Fault(code, self._field, f"{self._name} {said}", hint)

    def unmet(self, demands: Demands, who: str, way_out: str = "") -> Iterator[Fault]:
        """The demands of `who` that the file does not meet, with what to do about it: mend the file, or the way out."""
        file = self.file
        if demands.media_types and file.media_type not in demands.media_types:
            said = f"is {file.media_type}; {who} takes {', '.join(demands.media_types)}"
            yield self.fault("B56", said, f"convert it{way_out}")
        if demands.max_bytes is not None and file.size > demands.max_bytes:
            said = f"has {file.size:,} bytes; {who} takes at most {demands.max_bytes:,}"
            yield self.fault("B55", said, f"make it smaller{way_out}")
        yield from self._unmet_by_pixels(demands, who)
        seconds = file.measures.seconds
        if demands.max_seconds is not None and seconds is not None and seconds > demands.max_seconds:
            most = as_text(demands.max_seconds)
            yield self.fault("B57", f"lasts {as_text(seconds)} seconds; {who} takes at most {most}", "cut it")

    def _unmet_by_pixels(self, demands: Demands, who: str) -> Iterator[Fault]:
        width, height = self.file.measures.width, self.file.measures.height
        if width is None or height is None:
            return
        short, long = sorted((width, height))
        has = f"is {width}×{height} pixels"
        if demands.min_side is not None and short < demands.min_side:
            needed = f"{who} needs at least {demands.min_side} on the shorter side"
            yield self.fault("B57", f"{has}; {needed}", "give it a larger picture")
        if demands.max_ratio is not None and long > demands.max_ratio * short:
            most = as_text(demands.max_ratio)
            ratio = as_text((Decimal(long) / short).quantize(Decimal("0.01"), ROUND_CEILING))
            yield self.fault("B57", f"{has}, {ratio}:1; {who} takes at most {most}:1, upright or across", "crop it")
