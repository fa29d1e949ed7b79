"""One written value at a time: read as its field wants it, or refused with the limit it breaks.

Values come from YAML with their types, or as text from tables and axes; text in a number or boolean field is read as a
YAML 1.2 core scalar (design.md section 9). Numbers are exact: `int` where whole, else `Decimal`, never a binary float.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from runner.problems import nearest, quoted
from runner.providers.description import Fault, Field, Scalar

LONGEST_NUMBER = 40  # digits; longer ones are mistakes, and costly ones
CODES = {"duration": "B41", "count": "B44", "seed": "B45", "prompt": "B39"}
TWINS = {"jpg": "jpeg", "jpeg": "jpg"}
ASSET = "asset"  # the scheme of what a provider has registered
NEVER_PUBLIC = (".localhost", ".local", ".internal")


@dataclass(frozen=True, slots=True)
class Entry:
    """A field, ready for reading: the common name it is kept under (empty for a field reached by `params:` only), and
    every folded spelling of its choices with what is sent and what is kept."""

    field: Field
    common: str
    spellings: Mapping[str, tuple[Scalar, Scalar]]

    @classmethod
    def of(cls, field: Field, common: str) -> Entry:
        return cls(field, common, dict(_spellings(field)))

    @property
    def code(self) -> str:
        return CODES.get(self.common, "B42")


def _spellings(field: Field) -> Iterable[tuple[str, tuple[Scalar, Scalar]]]:
    texts = [choice for choice in field.choices if isinstance(choice, str)]
    for choice in texts:
        if TWINS.get(choice.casefold()) not in texts and choice.casefold() in TWINS:
            yield TWINS[choice.casefold()], (choice, choice)
    for spelling, native in field.translate.items():
        yield spelling.casefold(), (native, spelling)
    for choice in texts:
        yield choice.casefold(), (choice, choice)


def read(entry: Entry, written: Any, where: str, label: str) -> tuple[Any, Any] | Fault:
    """What is sent (before `write`) and what is kept as the normalised common value; or what is wrong with it.

    `where` is the name the person wrote, `label` names provider and model in messages.
    """
    if entry.field.kind == "text":
        return _text(entry, written, where, label)
    if entry.field.kind in ("url", "urls"):
        return _urls(entry.field, written, where, label)
    if entry.field.kind == "boolean":
        return _boolean(written, where)
    return _number(entry, written, where, label)


def as_written(field: Field, value: Any) -> Any:
    """A value in the form in which the provider wants it in the body."""
    if field.write == "plain":
        return value
    text = "true" if value is True else "false" if value is False else str(value)
    return f"{text}s" if field.write == "seconds" else text


def exact(value: Any) -> Any:
    """A YAML value with every binary float in it made an exact number: for what is passed on unread.

    Raises `ValueError` (its text goes on from the field's name) for what JSON cannot hold.
    """
    if isinstance(value, float | Decimal):
        number = Decimal(repr(value)) if isinstance(value, float) else value
        if not number.is_finite():
            raise ValueError("is not a finite number")
        return _settled(number)
    if isinstance(value, Mapping):
        return {str(key): exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [exact(item) for item in value]
    if isinstance(value, int) and value.bit_length() > 1024:
        raise ValueError("is a number of very many digits")
    if value is None or isinstance(value, str | int):
        return value
    raise ValueError(f"holds a {type(value).__name__}, which a request cannot")


def _text(entry: Entry, written: Any, where: str, label: str) -> tuple[Any, Any] | Fault:
    if entry.spellings:
        found = entry.spellings.get(written.strip().casefold()) if isinstance(written, str) else None
        if found is not None:
            return found
        if entry.field.choices and written is not None and not isinstance(written, bool):
            return not_allowed(entry, written, where, label)
    if not isinstance(written, str):
        return _not_text(written, where)
    bare = written.strip()
    if not bare:
        code = "B38" if entry.common == "prompt" else "B40"
        return Fault(code, where, f"{where} is empty", "write it, or leave it out")
    if not _within(entry.field, len(bare), len(written)):
        length = f"{where} has {len(written):,} characters"
        return Fault(entry.code, where, f"{length}, outside {_bounds(entry.field)} for {label}")
    return written, written


def _not_text(written: Any, where: str) -> Fault:
    if written is None or isinstance(written, bool):
        meaning = "nothing" if written is None else "true" if written else "false"
        return Fault("B20", where, f"{where} is read as {meaning}, but must be text", "quote it")
    if isinstance(written, int | float | Decimal):
        return Fault("B22", where, f"{where} is read as the number {_shown(written)}, but must be text", "quote it")
    return Fault("B40", where, f"{where} must be text, not {_sort(written)}")


def _boolean(written: Any, where: str) -> tuple[Any, Any] | Fault:
    value = _scalar(written)[0] if isinstance(written, str) else written
    if isinstance(value, bool):
        return value, value
    return Fault("B40", where, f"{where} must be true or false, not {_shown(written)}", "write true or false")


def _number(entry: Entry, written: Any, where: str, label: str) -> tuple[Any, Any] | Fault:
    field = entry.field
    value = _from_text(written, field, where) if isinstance(written, str) else written
    if isinstance(value, Fault):
        return value
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, Decimal):
        if not value.is_finite():
            return Fault("B24", where, f"{where} is not a finite number")
        value = _settled(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or _is_endless(value):
        return _not_a_number(field, written, where)
    if field.kind == "integer" and not isinstance(value, int):
        return Fault("B40", where, f"{where} must be a whole number, not {_shown(written)}")
    if (field.choices and value not in field.choices) or not _within(field, value, value):
        return not_allowed(entry, written, where, label)
    return value, value


def _from_text(text: str, field: Field, where: str) -> int | Decimal | Fault:
    value, kind = _scalar(text.strip().removesuffix("s" if field.write == "seconds" else field.unit))
    if kind == "infinite":
        return Fault("B24", where, f"{where} is not a finite number")
    if kind == "exponent":
        return Fault("B23", where, f"{where} {_shown(text)} has an exponent", "write the number out")
    if value is None or isinstance(value, bool):
        return _not_a_number(field, text, where)
    return value


def _scalar(text: str) -> tuple[int | Decimal | bool | None, str]:
    """What YAML 1.2 makes of a text: its value, None where that is no number and no boolean, and its kind."""
    from runner.manifest.scalars import Bare, read_scalar  # here: whoever brings text from tables has it loaded anyway

    bare = read_scalar(text.strip())
    return (bare.value, bare.kind.value) if isinstance(bare, Bare) else (None, "text")


def _not_a_number(field: Field, written: Any, where: str) -> Fault:
    wanted = "a whole number" if field.kind == "integer" else "a number"
    example = field.default if field.default is not None else field.low if field.low is not None else 5
    return Fault("B40", where, f"{where} must be {wanted}, not {_shown(written)}", f"for example {example}")


def _settled(value: Decimal) -> int | Decimal:
    """`int` where it is whole, else without trailing zeros, so that 5, 5.0 and "5.00" are one value."""
    if _is_endless(value):
        return value
    return int(value) if value == value.to_integral_value() else value.normalize()


def _is_endless(value: int | Decimal) -> bool:
    digits = value.adjusted() if isinstance(value, Decimal) else value.bit_length() // 3
    return abs(digits) > LONGEST_NUMBER


def _urls(field: Field, written: Any, where: str, label: str) -> tuple[Any, Any] | Fault:
    many = field.kind == "urls"
    urls = written if many else [written]
    if not isinstance(urls, list | tuple) or not all(isinstance(url, str) for url in urls):
        return Fault("B40", where, f"{where} must be {'a list of URLs' if many else 'a URL'}, not {_shown(written)}")
    for url in urls:
        fault = check_url(url, where, field.schemes)
        if fault is not None:
            return fault
    if many and not _within(field, len(urls), len(urls)):
        return Fault("B46", where, f"{where} has {len(urls)} URLs, outside {_bounds(field)} for {label}")
    value = list(urls) if many else written
    return value, value


@lru_cache(maxsize=4096)
def check_url(url: str, where: str, schemes: tuple[str, ...]) -> Fault | None:
    """What is wrong with a URL that a provider is to read; None where nothing is (B31, B49, B60–B63)."""
    scheme, colon, rest = url.partition("://")
    if not colon or not rest or any(ord(character) <= 32 or ord(character) == 127 for character in url):
        return Fault("B60", where, f"{where} is not a URL", f"write {schemes[0]}://…")
    scheme = scheme.lower()
    if scheme not in schemes and schemes == (ASSET,):
        message = f"{where} must hold {ASSET}:// URIs, not {scheme}:"
        return Fault("B49", where, message, "write it under references: it is registered there before it is sent")
    if scheme == "http" and "http" not in schemes:
        return Fault("B61", where, f"{where} begins with http:, but providers read https: only", "use https")
    if scheme not in schemes:
        message = f"{where} begins with {scheme}:, which is not read here"
        return Fault("B63", where, message, "use https, or a plain path")
    return _check_host(url, where) if scheme == "https" else None


def _check_host(url: str, where: str) -> Fault | None:
    try:
        parts = urlsplit(url)
        host, secret, _port = (parts.hostname or "").rstrip("."), parts.username or parts.password, parts.port
    except ValueError:
        return Fault("B60", where, f"{where} is not a URL", "check host and port")
    if secret:
        return Fault("B31", where, f"{where} holds a user name or password", "use a URL without one")
    if not host:
        return Fault("B60", where, f"{where} has no host")
    if _is_private(host):
        return Fault("B62", where, f"{where} is on {host}, which the provider cannot reach", "use a public URL")
    return None


def _is_private(host: str) -> bool:
    if host == "localhost" or host.endswith(NEVER_PUBLIC):
        return True
    try:
        return not ip_address(host).is_global
    except ValueError:  # names, and the odd spellings of addresses that some resolvers read: 2130706433, 0x7f.1
        return re.fullmatch(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*", host) is not None


def not_allowed(entry: Entry, written: Any, where: str, label: str) -> Fault:
    """The fault of a value outside its choices or range: it names both."""
    field = entry.field
    if field.choices:
        message = f"{where} {_shown(written)} is not allowed for {label}: {listed(field)}"
        return Fault(entry.code, where, message, _meant(field, written))
    hint = f"use {_bounds(field)}, or choose a model that allows it (see: runner providers)"
    return Fault(entry.code, where, f"{where} {_shown(written)} is outside {_bounds(field)} for {label}", hint)


def listed(field: Field) -> str:
    """The allowed values as a person may write them: "720p or 1080p", "4–15"."""
    names = [_plain(choice) for choice in (*field.translate, *field.choices)]
    if not names:
        return _bounds(field) if field.low is not None or field.high is not None else field.kind
    return " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _meant(field: Field, written: Any) -> str:
    names = [_plain(choice) for choice in (*field.translate, *field.choices)]
    near = nearest(_plain(written), names)
    return f"did you mean {near}?" if near else f"use {listed(field)}"


def _within(field: Field, least: int | Decimal, most: int | Decimal) -> bool:
    return (field.low is None or least >= field.low) and (field.high is None or most <= field.high)


def _bounds(field: Field) -> str:
    if field.low is None or field.high is None:
        return f"at least {field.low:,}" if field.low is not None else f"at most {field.high:,}"
    return f"{field.low:,}–{field.high:,}"


def _plain(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value, 40)
    if isinstance(value, float) and not math.isfinite(value):
        return "an endless number"
    if isinstance(value, int) and _is_endless(value):
        return "a number of very many digits"
    return _plain(value)[:40] if isinstance(value, int | float | Decimal) else _sort(value)


def _sort(value: Any) -> str:
    return "nothing" if value is None else "a mapping" if isinstance(value, Mapping) else "a list"
