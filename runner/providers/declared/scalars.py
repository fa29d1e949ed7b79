"""Single values of a file of providers: each checked by itself, refused with a number of the catalogue and a hint."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from runner import settings
from runner.ledger import MICRO
from runner.limits import Window, parse_window
from runner.manifest.scalars import Bare, read_scalar
from runner.media import known_extension
from runner.problems import quoted

TASK_ID = "{task_id}"
LARGEST = 10**20  # of a number in a description: seeds have up to twenty digits, nothing else comes near
MOST_CREDITS = 10**12
ADDRESS = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%{}-]+)+/?")
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
OURS = (
    "accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type",
    "cookie", "expect", "host", "proxy-authorization", "te", "transfer-encoding", "upgrade", "user-agent",
)  # fmt: skip


def refuse(code: str, message: str, hint: str = "") -> NoReturn:
    """Raises what `complaints` turns into a problem of this code."""
    raise PydanticCustomError(code, "{message}", {"message": message, "hint": hint})


def _listed(value: Any) -> Any:
    """One value where several may stand."""
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


def _one_or_many(of: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [of, {"type": "array", "items": of}]})


def _dotted(text: str) -> str:
    if text != "." and not all(text.split(".")):
        refuse("B40", f"{quoted(text)} is no path", "write keys with dots between them: data.video_id; . is all of it")
    return text


def _address(text: str) -> str:
    """A path below the base address, `{task_id}` being the only thing in it that changes."""
    bare = text.replace(TASK_ID, "")
    if "{" in bare or "}" in bare:
        refuse("B27", f"{quoted(text)} holds braces", "only {task_id} is filled in; write everything else out")
    if not ADDRESS.fullmatch(text) or any(part in (".", "..") for part in text.split("/")):
        refuse("B60", f"{quoted(text)} is no path of an address", "write for example /api/v1/generate, without ? or #")
    return text


def _order_address(text: str) -> str:
    if TASK_ID in _address(text):
        refuse("B27", "there is no task id before a task is ordered", "write the path out")
    return text


def _base_url(text: str) -> str:
    if wrong := settings.flaw(text):
        refuse("B61" if "http:" in wrong else "B60", f"base_url is {wrong}", "write https://host")
    if urlsplit(text).path.rstrip("/").endswith(settings.PREFIX):
        refuse("B60", "base_url ends with /api/v1", "leave that out here, and begin the paths with it")
    return text


def _header(text: str) -> str:
    if not HEADER.fullmatch(text):
        refuse("B40", f"{quoted(text)} cannot name a header", "for example Idempotency-Key")
    if text.lower() in OURS:
        refuse("B40", f"{quoted(text)} is set by runner itself", "name the header that takes the idempotency key")
    return text


def _window(value: Any) -> Window:
    window = parse_window(value) if isinstance(value, str) and len(value) <= 40 else None
    if window is None:
        refuse("B82", f"{quoted(value)} is no rate limit", "write for example 60/minute, 5/s or 100/10s")
    return window


def _number(value: Any) -> int | Decimal:
    """Also as text: `"2.5"`."""
    bare = read_scalar(value) if isinstance(value, str) else None
    found = bare.value if isinstance(bare, Bare) else value
    if isinstance(found, bool) or not isinstance(found, int | Decimal):
        refuse("B40", f"{_shown(value)} is not a number", "for example 5")
    if not -LARGEST <= found <= LARGEST:
        refuse("B40", "a number of so many digits is a mistake", "write a smaller one")
    return found


def _credits(value: Any) -> Decimal:
    amount = Decimal(_number(value))
    if not 0 <= amount <= MOST_CREDITS:
        refuse("B40", f"{_shown(value)} is no price", "write credits, 0 or more")
    if amount != amount.quantize(MICRO):
        refuse("B40", f"{_shown(value)} has more than six decimal places", "credits are counted in millionths")
    return amount


def _scalar(value: Any) -> str | int | Decimal | bool:
    if isinstance(value, bool | str):
        return value
    if not isinstance(value, int | Decimal):
        refuse("B40", f"{_shown(value)} is not one value", "write a text, a number, true or false")
    return _number(value)


def _word(value: Any) -> str:
    """A code or a status as an answer may hold it: 2 and "2" are the same."""
    if isinstance(value, str) and 0 < len(value) <= 64:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return str(value)
    refuse("B40", f"{_shown(value)} is no word of an answer", "write the text or the number as the provider sends it")


def _extension(text: str) -> str:
    if not known_extension(text):
        refuse("B40", f"{quoted(text)} is no type of file that is known here", "for example mp4, png, jpg or webp")
    return text


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str | int | Decimal) else "a list or a mapping"


TEXT_OR_NUMBER: dict[str, Any] = {"type": ["string", "integer"]}
TEXT: dict[str, Any] = {"type": "string"}

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Note = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
Dotted = Annotated[Name, AfterValidator(_dotted)]
Paths = Annotated[tuple[Dotted, ...], Field(strict=False), BeforeValidator(_listed), _one_or_many(TEXT)]
Names = Annotated[tuple[Name, ...], Field(strict=False), BeforeValidator(_listed), _one_or_many(TEXT)]
Code = Annotated[str, PlainValidator(_word), WithJsonSchema(TEXT_OR_NUMBER)]
Codes = Annotated[tuple[Code, ...], Field(strict=False), BeforeValidator(_listed), _one_or_many(TEXT_OR_NUMBER)]
Address = Annotated[Name, AfterValidator(_address)]
OrderAddress = Annotated[Name, AfterValidator(_order_address)]
BaseUrl = Annotated[Name, AfterValidator(_base_url)]
Header = Annotated[Name, AfterValidator(_header)]
Extension = Annotated[Name, AfterValidator(_extension)]
Limit = Annotated[Window, PlainValidator(_window), WithJsonSchema({**TEXT, "examples": ["60/minute", "5/s"]})]
Limits = Annotated[tuple[Limit, ...], Field(strict=False), BeforeValidator(_listed), _one_or_many(TEXT)]
Number = Annotated[int | Decimal, PlainValidator(_number), WithJsonSchema({"type": ["number", "string"]})]
Credits = Annotated[Decimal, PlainValidator(_credits), WithJsonSchema({"type": ["number", "string"], "minimum": 0})]
Scalar = Annotated[
    str | int | Decimal | bool, PlainValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
