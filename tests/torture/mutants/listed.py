"""The eighteen mutants of reliability.md section 1.5: what is broken, in which setting, which rule must see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torture.manifests import Limits
from torture.mutants.plays import (
    Play,
    a_decision,
    a_look,
    dies,
    dies_twice,
    is_stopped,
    is_stopped_in_the_midst,
    loses_power,
    runs,
    runs_beside,
)
from torture.trial import LIMITS

HORSE, SEED, SEEGEN = "happyhorse", "seedance2ai", "seegen"


@dataclass(frozen=True)
class Setting:
    """Where a mutant is tried: orders by kind at one provider, and what goes wrong there. `render` in scaled seconds.

    `faults` are exact orders for the provider's next requests; `with_hiccup`: the queue's disk stands still once, in
    the midst of a transaction; `power`: it is cut, which not every machine can play.
    """

    provider: str
    orders: Mapping[str, int]
    play: Play
    faults: tuple[Mapping[str, Any], ...] = ()
    limits: Limits | None = None
    speed: float = 60.0
    render: float = 20.0
    with_hiccup: bool = False
    power: bool = False

    def allowed(self) -> Mapping[str, Limits]:
        return {**LIMITS, self.provider: self.limits or LIMITS[self.provider]}


@dataclass(frozen=True)
class Mutant:
    """`crimes` are the rules of which one must find it. `patch` stands in `patches`."""

    number: str
    name: str
    setting: Setting
    crimes: tuple[str, ...]

    @property
    def patch(self) -> str:
        return self.number.lower()


def _at(point: str, name: str, **more: Any) -> Mapping[str, Any]:
    return {"when": point, "name": name, **more}


REDIRECT = _at("submit", "redirect", status=307, location="/happyhorse/api/v1/generate")
LOST = _at("submit", "lost_answer")

_ALL = (
    Mutant("M1", "the task id is committed after the download",
           Setting(SEEGEN, {"sg-video": 1}, partial(dies, at="answer-read:3", again=False)), ("forgotten",)),
    Mutant("M2", "no intent is on disk before the first byte leaves",
           Setting(HORSE, {"hh-video": 2}, partial(dies, at="answer-read:1")), ("doubles",)),
    Mutant("M3", "a retry has a new key",
           Setting(SEED, {"sd-video": 1}, runs, (LOST,)), ("doubles",)),
    Mutant("M4", "synchronous=NORMAL: a commit may be lost with the power",
           Setting(HORSE, {"hh-video": 1}, partial(loses_power, at="answer-read:1"), power=True), ("doubles",)),
    Mutant("M5", "an order follows redirects",
           Setting(HORSE, {"hh-video": 1}, runs, (REDIRECT,)), ("doubles",)),
    Mutant("M6", "a 5xx is tried again where there are no keys",
           Setting(HORSE, {"hh-video": 1}, runs, (_at("submit", "error_after_charge", status=500),)), ("doubles",)),
    Mutant("M7", "a 409 leads to a new key",
           Setting(SEED, {"sd-video": 1}, runs, (_at("submit", "late_accept", seconds=60),), render=200.0),
           ("doubles",)),
    Mutant("M8", "a download is written to its final path",
           Setting(SEED, {"sd-video": 1}, partial(dies, at="first-chunk:1", again=False),
                   (_at("download", "reset_download"),)), ("torn",)),
    Mutant("M9", "the length of a download is not checked",
           Setting(SEED, {"sd-video": 1}, runs, (_at("download", "short_media"),)), ("complete",)),
    Mutant("M10", "no fsync before a file gets its name",
           Setting(SEED, {"sd-video": 1}, partial(loses_power, again=False), power=True), ("published",)),
    Mutant("M11", "every start begins with a full bucket of requests",
           Setting(SEED, {"sd-video": 6}, partial(dies_twice, at="answer-read:6"), limits=Limits(6, 10), speed=2.0),
           ("limits",)),
    Mutant("M12", "orders whose answer got lost keep no slot",
           Setting(SEED, {"sd-video": 4}, runs, ({**LOST, "times": 3},), Limits(2, 240), speed=10.0), ("limits",)),
    Mutant("M13", "requests are logged with their Authorization",
           Setting(SEED, {"sd-video": 1}, runs), ("canary",)),
    Mutant("M14", "any task is accepted as one's own",
           Setting(HORSE, {"hh-video": 2}, runs, (_at("submit", "lost_request"), LOST), speed=300.0),
           ("wrong_adoptions",)),
    Mutant("M15", "the first signal is not heard",
           Setting(SEED, {"sd-video": 1}, is_stopped, speed=5.0, render=200.0), ("stops",)),
    Mutant("M16", "writes are cut short by cancellation",
           Setting(SEED, {"sd-video": 1}, is_stopped_in_the_midst, with_hiccup=True), ("edges",)),
    Mutant("M17", "transactions begin deferred",
           Setting(SEED, {"sd-video": 4}, partial(runs_beside, other=a_decision), speed=20.0, render=40.0),
           ("messages",)),
    Mutant("M18", "the queue's file is opened to be hashed",
           Setting(HORSE, {"hh-video": 4}, partial(runs_beside, other=a_look, at="request-sent:4"),
                   limits=Limits(1, 60)), ("doubles", "messages")),
)  # fmt: skip
MUTANTS: Mapping[str, Mutant] = {mutant.number: mutant for mutant in _ALL}
