"""What can go wrong on request: the names, where each can strike, its parameters, and who is struck. Pure.

Faults come from two places: rates (`lost_answer=0.05`, drawn from the seed and the number of the request, so that the
same requests in the same order meet the same faults) and a queue of exact orders, which goes first. A request meets at
most one fault of the wire and one of fate.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from .tasks import REVIEW_SECONDS, Fate

Point = Literal["submit", "poll", "list", "upload", "credits", "download", "callback", "other"]
Where = Literal["before", "instead", "after", "view", "fate", "file", "callback"]

API: tuple[Point, ...] = ("submit", "poll", "list", "upload", "credits")
POINTS: tuple[Point, ...] = (*API, "download")
ANYWHERE = POINTS


class BadFault(ValueError):
    """An order for a fault that cannot be; its text is for a person."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`where`: before anything is processed · instead of processing · after it · in what is looked at · in the task's
    fate · in the file sent · in the callback. The first of `points` is meant where an exact order names none.
    """

    where: Where
    points: tuple[Point, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ranged_only: bool = False  # strikes only requests with a Range header


SUBMIT: tuple[Point, ...] = ("submit",)
DOWNLOAD: tuple[Point, ...] = ("download",)
CALLBACK: tuple[Point, ...] = ("callback",)
CATALOGUE: Mapping[str, Kind] = {
    # The wire, before anything is processed.
    "lost_request": Kind("before", ANYWHERE, {"how": "close"}),
    "late_accept": Kind("before", SUBMIT, {"seconds": 30.0, "how": "close"}),
    # A refusal instead of processing; nothing is charged.
    "error_before_charge": Kind("instead", API, {"status": None, "code": None}),
    "unavailable": Kind("instead", ANYWHERE, {"status": None, "retry_after": None}),
    "rate_limited": Kind("instead", ANYWHERE, {"retry_after": None, "seconds": 5.0}),
    "unauthorized": Kind("instead", API, {}),
    "poll_404": Kind("instead", ("poll",), {}),
    "poll_500": Kind("instead", ("poll", "list"), {"status": None}),
    # Processed and charged; then the answer goes wrong.
    "lost_answer": Kind("after", API, {"how": "reset"}),
    "error_after_charge": Kind("after", API, {"status": None, "code": None}),
    "hang": Kind("after", ANYWHERE, {"processed": True}),
    "redirect": Kind("after", ANYWHERE, {"status": 303, "location": None}),
    "truncated": Kind("after", API, {"how": "close"}),
    "empty_200": Kind("after", API, {"status": 200}),
    "html_502": Kind("after", API, {"status": 502, "processed": True}),
    "bad_encoding": Kind("after", API, {"how": "utf8"}),
    "huge_body": Kind("after", API, {"bytes": 64 << 20, "gzip": False}),
    "slow_body": Kind("after", API, {"seconds": 30.0, "part": "body"}),
    # The answer is whole and true, but comes in an unusual way.
    "latency": Kind("after", ANYWHERE, {"seconds": 5.0}),
    "one_byte_segments": Kind("after", ANYWHERE, {}),
    "early_hints": Kind("after", ANYWHERE, {}),
    "many_headers": Kind("after", ANYWHERE, {"how": "many"}),
    "closes_idle": Kind("after", ANYWHERE, {}),  # fires when a request meets the closed connection
    # The answer is whole, but one thing in it is not so.
    "wrong_task": Kind("after", ("poll", "submit"), {}),
    "odd_progress": Kind("after", ("poll", "list"), {"value": None}),
    "respelled_status": Kind("after", ("poll", "list"), {}),
    # What is looked at is out of date.
    "stale_list": Kind("view", ("list",), {"seconds": 30.0}),
    "late_output": Kind("view", ("poll",), {}),
    "unknown_status": Kind("view", ("poll", "submit"), {"status": "in_review", "seconds": 30.0}),
    # The fate of a task.
    "task_failed": Kind("fate", SUBMIT, {"refund": None}),
    "moderated": Kind("fate", SUBMIT, {"as": "failure", "refund": None}),
    "cancelled": Kind("fate", SUBMIT, {"refund": None}),
    "late_refund": Kind("fate", SUBMIT, {"seconds": 60.0, "refund": None}),
    "partial": Kind("fate", SUBMIT, {"missing": 1}),
    "review": Kind("fate", SUBMIT, {"seconds": REVIEW_SECONDS}),
    "hidden": Kind("fate", SUBMIT, {"seconds": 30.0}),
    "stuck": Kind("fate", SUBMIT, {}),
    "no_output": Kind("fate", SUBMIT, {}),
    "overcharged": Kind("fate", SUBMIT, {"factor": "1.5"}),
    # The file.
    "reset_download": Kind("file", DOWNLOAD, {"after": None, "how": "reset"}),
    "expired_url": Kind("file", DOWNLOAD, {}),
    "gone": Kind("file", DOWNLOAD, {}),
    "ignore_range": Kind("file", DOWNLOAD, {}, ranged_only=True),
    "wrong_range": Kind("file", DOWNLOAD, {"shift": 1}, ranged_only=True),
    "changed_etag": Kind("file", DOWNLOAD, {}),
    "html_media": Kind("file", DOWNLOAD, {}),
    "short_media": Kind("file", DOWNLOAD, {"missing": 1000}),
    "cut_media": Kind("file", DOWNLOAD, {"missing": 1000}),
    "empty_media": Kind("file", DOWNLOAD, {}),
    "corrupt_media": Kind("file", DOWNLOAD, {}),
    "slow_download": Kind("file", DOWNLOAD, {"seconds": 30.0}),
    "long_media": Kind("file", DOWNLOAD, {"extra": 1000}),
    "endless": Kind("file", DOWNLOAD, {}),
    "loop": Kind("file", DOWNLOAD, {}),
    "wrong_type": Kind("file", DOWNLOAD, {"type": "text/html"}),
    "evil_name": Kind("file", DOWNLOAD, {}),
    # The callback.
    "callback_lost": Kind("callback", CALLBACK, {}),
    "callback_late": Kind("callback", CALLBACK, {"seconds": 30.0}),
    "callback_twice": Kind("callback", CALLBACK, {}),
    "callback_forged": Kind("callback", CALLBACK, {"how": "task"}),
}
CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "how": {
        "bad_encoding": ("utf8", "bom", "utf16"),
        "truncated": ("close", "length"),
        "callback_forged": ("task", "result"),
        "many_headers": ("many", "long"),
        "": ("close", "reset"),
    },
    "as": {"": ("failure", "refusal")},
    "part": {"": ("body", "headers")},
    "value": {"": ("137", "-1", "null", "text")},
}
PARAMETER = re.compile(r":(?=[a-z_]+=)")  # begins a parameter; other colons belong to a value


@dataclass(frozen=True, slots=True)
class Fault:
    """`given`: the parameters that were named in its order, as they are told in its label."""

    name: str
    parameters: Mapping[str, Any]
    given: tuple[str, ...] = ()
    outage: bool = False

    @property
    def where(self) -> Where:
        return CATALOGUE[self.name].where

    def seconds(self) -> float:
        return float(self.parameters["seconds"])

    def label(self, point: Point) -> str:
        """`name@point`, then `:parameter=value` for each that was given, sorted. Of an outage: `outage@point`, and its
        fault as a parameter `name`."""
        given = [f":{each}" for each in sorted(self.given)]
        return "".join([f"{'outage' if self.outage else self.name}@{point}", *given])


@dataclass(frozen=True, slots=True)
class Struck:
    """What one request meets: `wire` at the connection, the answer, the view or the file; `fate` in the task."""

    point: Point
    wire: Fault | None = None
    fate: Fault | None = None

    @property
    def name(self) -> str | None:
        return "+".join(fault.name for fault in (self.wire, self.fate) if fault) or None

    @property
    def labels(self) -> list[str]:
        return [fault.label(self.point) for fault in (self.wire, self.fate) if fault]


@dataclass(slots=True)
class Order:
    """The next `times` requests that match meet `fault`. None matches every provider; `points` are never empty."""

    fault: Fault
    points: tuple[Point, ...]
    provider: str | None = None
    times: int = 1

    def matches(self, provider: str, point: Point, ranged: bool) -> bool:
        kind = CATALOGUE[self.fault.name]
        return (
            self.times > 0
            and point in self.points
            and self.provider in (None, provider)
            and (ranged or not kind.ranged_only)
        )


@dataclass(frozen=True, slots=True)
class Rate:
    """Each matching request meets the order's fault with this probability."""

    order: Order
    probability: float


def make_fault(name: str, parameters: Mapping[str, Any]) -> Fault:
    """The fault with its parameters filled in. Raises BadFault for names and values that cannot be."""
    kind = CATALOGUE.get(name)
    if kind is None:
        raise BadFault(f"there is no fault {name!r}; known: {', '.join(sorted(CATALOGUE))}")
    unknown = sorted(set(parameters) - set(kind.parameters))
    if unknown:
        raise BadFault(f"fault {name} has no parameter {unknown[0]!r}; known: {', '.join(kind.parameters) or 'none'}")
    given = {key: _value(name, key, value, kind.parameters[key]) for key, value in parameters.items()}
    return Fault(name, {**kind.parameters, **given}, tuple(f"{key}={_told(value)}" for key, value in given.items()))


def make_outage(name: str | None, parameters: Mapping[str, Any]) -> Fault:
    """The fault that every request meets while an outage lasts, "unavailable" by default. Raises BadFault."""
    fault = make_fault(name or "unavailable", parameters)
    return replace(fault, outage=True, given=(*fault.given, *([f"name={name}"] if name else [])))


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _value(fault: str, key: str, value: Any, default: Any) -> Any:
    try:
        if key in CHOICES:
            allowed = CHOICES[key].get(fault, CHOICES[key].get("", ()))
            if value not in allowed:
                raise ValueError
            return value
        if key in ("refund", "factor"):
            share = Decimal(str(value))
            if not 0 <= share <= (1 if key == "refund" else 1000):
                raise ValueError
            return str(share)
        if isinstance(default, bool):
            return {"true": True, "false": False}[str(value).lower()]
        if isinstance(default, int) or (default is None and key in ("after", "status")):
            return int(value)
        return float(value) if isinstance(default, float) else str(value)
    except (ValueError, KeyError, TypeError, InvalidOperation):
        raise BadFault(f"fault {fault}: {value!r} is not a value for {key}") from None


def make_order(
    name: str, parameters: Mapping[str, Any], *, provider: str | None = None, when: str | None = None, times: int = 1
) -> Order:
    """An exact order; without `when` it strikes at the fault's own first point. Raises BadFault."""
    fault = make_fault(name, parameters)
    points = CATALOGUE[name].points
    if when is not None and when not in points:
        raise BadFault(f"fault {name} cannot strike at {when!r}; it can at: {', '.join(points)}")
    return Order(fault, tuple(each for each in points[:1] if when is None) or (_point(when),), provider, times)


def _point(name: str | None) -> Point:
    return next(point for point in (*POINTS, *CALLBACK) if point == name)


def parse_rates(text: str) -> tuple[Rate, ...]:
    """`[provider.]name[@when]=probability[:parameter=value…]`, separated by commas; without `when` at all its points.

    Raises BadFault.
    """
    return tuple(_rate(part.strip()) for part in text.split(",") if part.strip())


def _rate(text: str) -> Rate:
    head, *rest = PARAMETER.split(text)
    target, equals, chance = head.partition("=")
    provider, dot, name_when = target.rpartition(".")
    name, at, when = name_when.partition("@")
    try:
        probability = float(chance)
    except ValueError:
        probability = -1.0
    if not equals or not 0.0 <= probability <= 1.0:
        raise BadFault(f"{text!r} is not [provider.]name[@when]=probability[:parameter=value…]")
    parameters = dict(pair.partition("=")[::2] for pair in rest)
    order = make_order(name, parameters, provider=provider if dot else None, when=when if at else None)
    return Rate(order if at else replace(order, points=CATALOGUE[name].points), probability)


class Faults:
    """Who is struck next. `strike` is called once a request, in the order of arrival."""

    def __init__(self, seed: str, rates: Iterable[Rate] = ()) -> None:
        self._seed, self._rates = seed, tuple(rates)
        self.queue: list[Order] = []
        self.outages: dict[str, tuple[float, Fault]] = {}

    def strike(self, provider: str, point: Point, number: int, *, now: float, ranged: bool = False) -> Struck:
        until, outage = self.outages.get(provider, (0.0, None))
        if outage is not None and now < until and point in CATALOGUE[outage.name].points:
            return Struck(point, wire=outage)
        found = [self._find(fate, provider, point, number, ranged) for fate in (False, True)]
        return Struck(point, wire=found[0], fate=found[1])

    def _find(self, fate: bool, provider: str, point: Point, number: int, ranged: bool) -> Fault | None:
        for order in self.queue:
            if _is_fate(order.fault, point) is fate and order.matches(provider, point, ranged):
                order.times -= 1
                self.queue = [each for each in self.queue if each.times > 0]
                return order.fault
        chance = self._chance(number, fate) if self._rates else 1.0
        for rate in self._rates:
            if _is_fate(rate.order.fault, point) is fate and rate.order.matches(provider, point, ranged):
                if chance < rate.probability:
                    return rate.order.fault
                chance -= rate.probability
        return None

    def _chance(self, number: int, fate: bool) -> float:
        digest = hashlib.sha256(f"{self._seed}:{number}:{fate}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


def _is_fate(fault: Fault, point: Point) -> bool:
    return fault.where == "fate" or (fault.name == "unknown_status" and point == "submit")


def fate_of(fault: Fault | None) -> Fate:
    """What the fault makes of the task it strikes."""
    if fault is None:
        return Fate()
    given = fault.parameters
    refund = Decimal(given["refund"]) if given.get("refund") is not None else None
    match fault.name:
        case "task_failed":
            return Fate(outcome="failed", refund=refund)
        case "moderated":
            return Fate(outcome="moderated", refund=refund, refused=given["as"] == "refusal")
        case "cancelled":
            return Fate(outcome="cancelled", refund=refund)
        case "partial":
            return Fate(missing=given["missing"])
        case "review":
            return Fate(review_for=fault.seconds())
        case "late_refund":
            return Fate(outcome="failed", refund=refund, refund_after=fault.seconds())
        case "hidden":
            return Fate(hidden_for=fault.seconds())
        case "unknown_status":
            return Fate(odd_status=given["status"], odd_for=fault.seconds())
        case "stuck":
            return Fate(stuck=True)
        case "no_output":
            return Fate(no_output=True)
        case _:
            return Fate(price_factor=Decimal(given["factor"]))
