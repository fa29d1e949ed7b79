"""A small language for the parameter tables of the documents: each row a field, checked as the document says."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


class Invalid(ValueError):
    """A parameter the document does not allow; its text goes into the provider's error message.

    `problem` is what the dialect's `codes` may tell apart, where its document does.
    """

    def __init__(self, message: str, problem: str = "invalid") -> None:
        super().__init__(message)
        self.problem = problem


Check = Callable[[str, Any, str], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """`check(name, value, own_media)` returns the value or raises Invalid; `default` stands where it is absent."""

    name: str
    check: Check
    required: bool = False
    default: Any = None


def read(table: Sequence[Field], body: Any, own_media: str, *, strict: bool) -> dict[str, Any]:
    """The values of `body` with the defaults filled in. `strict` refuses fields the table does not name.

    `own_media` is the sandbox's own media origin: the one http address that counts as public. Raises Invalid.
    """
    if not isinstance(body, Mapping):
        raise Invalid("the body must be a JSON object")
    unknown = [name for name in body if name not in {field.name for field in table}]
    if strict and unknown:
        raise Invalid(f"unsupported field: {unknown[0]}")
    return {field.name: _one(field, body, own_media) for field in table}


def _one(field: Field, body: Mapping[str, Any], own_media: str) -> Any:
    if body.get(field.name) is None:
        if field.required or field.name in body:
            raise Invalid(f"{field.name} is required" if field.required else f"{field.name} must not be null")
        return field.default
    return field.check(field.name, body[field.name], own_media)


def text(low: int = 0, high: int | None = None) -> Check:
    def check(name: str, value: Any, _: str) -> str:
        if not isinstance(value, str):
            raise Invalid(f"{name} must be a string")
        if len(value.strip()) < low or (high is not None and len(value) > high):
            raise Invalid(f"{name} must have {low}–{high} characters" if high else f"{name} must not be empty")
        return value

    return check


def one_of(*allowed: str) -> Check:
    def check(name: str, value: Any, _: str) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise Invalid(f"{name} must be one of: {', '.join(allowed)}")
        return value

    return check


def like(pattern: str, example: str) -> Check:
    def check(name: str, value: Any, _: str) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise Invalid(f"{name} must look like {example}")
        return value

    return check


def told(problem: str, form: Check, check: Check) -> Check:
    """A value of the right `form` that `check` refuses is that `problem`; one of the wrong form is only invalid."""

    def checked(name: str, value: Any, own_media: str) -> Any:
        form(name, value, own_media)
        try:
            return check(name, value, own_media)
        except Invalid as invalid:
            raise Invalid(f"{invalid}", problem) from None

    return checked


def boolean(name: str, value: Any, _: str) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"{name} must be true or false")
    return value


def integer(low: int, high: int) -> Check:
    def check(name: str, value: Any, _: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Invalid(f"{name} must be an integer from {low} to {high}")
        return value

    return check


def number(low: float, high: float) -> Check:
    def check(name: str, value: Any, _: str) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Invalid(f"{name} must be a number from {low:g} to {high:g}")
        return value

    return check


def url(name: str, value: Any, own_media: str) -> str:
    """A public https address, or one of the sandbox's own media."""
    if not isinstance(value, str):
        raise Invalid(f"{name} must be a URL")
    if value.startswith(own_media + "/"):
        return value
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
    except ValueError:
        raise Invalid(f"{name} is not a URL") from None
    if parts.scheme != "https" or not _public(host):
        raise Invalid(f"{name} must be a public https URL")
    return value


def _public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal"))


def urls(low: int, high: int | None) -> Check:
    def check(name: str, value: Any, own_media: str) -> list[str]:
        if not isinstance(value, list) or not low <= len(value) or (high is not None and len(value) > high):
            span = f"{low}–{high}" if high is not None else f"at least {low}"
            raise Invalid(f"{name} must be a list of {span} URLs")
        return [url(name, each, own_media) for each in value]

    return check
