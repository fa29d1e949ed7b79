"""Scalars of the YAML 1.2 core schema: what a bare word in a manifest is, and what a table's text means to a number.

`16:9`, `yes` and `2026-11-20` are text there; `true`, `null` and numbers are not. The schema's own patterns are
yamlcore's. Numbers become `int` or `Decimal`, never float.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from yamlcore import CCoreLoader

LONGEST_NUMBER = 64  # characters; a longer row of digits is text
_PREFIX = "tag:yaml.org,2002:"
_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = CCoreLoader.yaml_implicit_resolvers


class Kind(StrEnum):
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "true or false"
    NULL = "nothing"
    EXPONENT = "exponent"  # 1e3: text in YAML 1.1, a number in 1.2, so refused (B23)
    INFINITE = "infinite"  # .inf, .nan (B24)


@dataclass(frozen=True, slots=True)
class Bare:
    """An unquoted scalar that is not text: its kind, its value, and the text as it stands in the file.

    `value` is None for the kinds that have none. Rows and axes take the text, number fields the value.
    """

    text: str
    kind: Kind
    value: int | Decimal | bool | None = None


@lru_cache(maxsize=4096)
def read_scalar(text: str) -> Bare | str:
    """What the core schema makes of a bare scalar: a `Bare`, or the text itself."""
    if len(text) > LONGEST_NUMBER:
        return text
    for tag, pattern in _RESOLVERS.get(text[:1], ()):
        if pattern.match(text) and not text.endswith("\n"):
            return _READERS[tag.removeprefix(_PREFIX)](text)
    return text


def may_be_bare(text: str) -> bool:
    """Whether the first character leaves a choice; most text is settled by it."""
    return text[:1] in _RESOLVERS


def _boolean(text: str) -> Bare:
    return Bare(text, Kind.BOOLEAN, text.lower() == "true")


def _null(text: str) -> Bare:
    return Bare(text, Kind.NULL)


def _integer(text: str) -> Bare:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return Bare(text, Kind.INTEGER, int(text[2:] if base != 10 else text, base))


def _number(text: str) -> Bare:
    lowered = text.lower()
    if lowered.endswith(("inf", "nan")):
        return Bare(text, Kind.INFINITE)
    return Bare(text, Kind.EXPONENT) if "e" in lowered else Bare(text, Kind.NUMBER, Decimal(text))


_READERS = {"bool": _boolean, "null": _null, "int": _integer, "float": _number}
