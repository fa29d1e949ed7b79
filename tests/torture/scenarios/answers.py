"""Answers that are late, endless, elsewhere or in pieces: each strikes so often at every provider, then there is peace.

What the judge demands of all of them: no order doubled, none lost. What a fault demands besides stands in its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torture.manifests import PROVIDERS
from torture.random_kills import peace
from torture.scenarios.listeners import LOCAL, listening
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import SETTLED, clips, errors, fired, states, tries, watched
from torture.tally import Tally
from torture.trial import Trial

TIMES = 6
LEISURE = 20.0  # slow enough for six runs within the hour in which keys are remembered, also on a busy machine
DEADLINE = 120.0  # scaled seconds: the total one of a paid request
UNSEARCHABLE = ("seedhorse-video", "seegen")  # neither a key nor a history: what was not answered stays so
POLL_POINTS = {"happyhorse": "list"}  # where tasks are asked for together


@dataclass(frozen=True)
class Strike:
    """The next `times` requests of each provider `at` such a point meet the fault. `given`: its parameters.
    `deadline`: no try may be given up before it. `names`: at these providers only."""

    number: str
    fault: str
    at: str
    given: Mapping[str, Any] = field(default_factory=dict)
    times: int = TIMES
    deadline: bool = False
    names: tuple[str, ...] = PROVIDERS


def play(strikes: tuple[Strike, ...], jobs: int, speed: float, folder: Path, seed: str) -> Tally:
    with staged(folder, seed, PROVIDERS, jobs=clips(jobs), speed=speed) as (here, told):
        for strike in strikes:
            for provider in strike.names:
                point = POLL_POINTS.get(provider, "poll") if strike.at == "poll" else strike.at
                here.sandbox.fault(strike.fault, provider, when=point, times=strike.times, **strike.given)
        number = strikes[0].number
        ended = watched(here, here.start(), number, told)
        expect(told, number, ended.code in SETTLED, ended.said())
        for strike in strikes:
            _check(here, told, strike)
        peace(here, told)
    return told


def _check(here: Trial, told: Tally, strike: Strike) -> None:
    count = fired(here).get(strike.fault, 0)
    expect(told, strike.number, count >= len(strike.names), f"{strike.fault} fired only {count} times")
    if not strike.deadline:
        return
    unanswered = [each for each in tries(here) if each.outcome == "no_answer" and each.brink and each.answered]
    expect(told, strike.number, len(unanswered) >= len(UNSEARCHABLE), f"{len(unanswered)} tries without an answer")
    for each in unanswered:
        waited = (each.answered or 0.0) - (each.brink or 0.0)
        text = f"job {each.job_id} was given up after {waited:.0f} s"
        expect(told, strike.number, DEADLINE <= waited <= SLOW / 2, text)


# -- redirects --------------------------------------------------------------------------------------------------------


def redirected(number: str, statuses: tuple[int, ...], folder: Path, seed: str) -> Tally:
    """Each run's first order is sent elsewhere: the account stops, elsewhere hears nothing, a resume is no double."""
    jobs = clips(len(statuses) + 2)
    with staged(folder, seed, PROVIDERS, jobs=jobs, speed=LEISURE) as (here, told), listening() as there:
        for status in statuses:
            for provider in PROVIDERS:
                where = f"http://{LOCAL}:{there.port}/elsewhere"
                here.sandbox.fault("redirect", provider, when="submit", status=status, location=where)
            ended = here.run()
            expect(told, number, ended.code in (4, 5), f"{status}: not stopped: {ended.said()}")
            expect(told, number, ended.err.count("is stopped") >= len(PROVIDERS), f"{status}: {ended.said()}")
        expect(told, number, there.met == 0, f"elsewhere was asked {there.met} times")
        peace(here, told)
        expect(told, number, there.met == 0, f"elsewhere was asked {there.met} times in the end")
    return told


def led_in_circles(folder: Path, seed: str) -> Tally:
    """At most five hops, tried again; where it goes on for ever a person is asked, and pays nothing for another try."""
    with staged(folder, seed, PROVIDERS, jobs=clips(TIMES), speed=300.0) as (here, told):
        for provider in PROVIDERS:
            here.sandbox.fault("loop", provider, when="download", times=TIMES if provider != "seegen" else 100_000)
        ended = here.run()
        expect(told, "F25", ended.code == 4, ended.said())
        expect(told, "F25", errors(here) == {"download_failed": TIMES}, f"held: {errors(here)}")
        for path, hops in _hops(here).items():
            expect(told, "F25", hops <= 5, f"{hops} hops: {path}")
        _fetched_after_all(here, told, "F25")
    return told


def _hops(here: Trial) -> Mapping[str, int]:
    """The longest row of hops behind one download, by where it began."""
    rows: dict[str, int] = {}
    longest: dict[str, int] = {}
    for each in here.sandbox.requests():
        path = each["path"]
        if each["point"] == "download":
            rows[path] = 0
        elif path.startswith("/loop/"):
            name = path.removeprefix("/loop/0").removeprefix("/loop/1")
            rows[name] = rows.get(name, 0) + 1
            longest[name] = max(longest.get(name, 0), rows[name])
    return longest


NOWHERE = ("file:///etc/passwd", "ftp://example.com/x.mp4", "http://10.0.0.1/x.mp4", "https://169.254.169.254/x")


def led_outside(folder: Path, seed: str) -> Tally:
    """A download is sent to a file, a private address, another scheme: nobody goes there, and a person is asked."""
    with staged(folder, seed, PROVIDERS, jobs=clips(len(NOWHERE) + 2)) as (here, told):
        for provider in PROVIDERS:
            for number in range(2 * (len(NOWHERE) + 2)):  # thumbnails are sent there too
                where = NOWHERE[number % len(NOWHERE)]
                here.sandbox.fault("redirect", provider, when="download", status=302, location=where)
        ended = here.run()
        expect(told, "F26", ended.code == 4, ended.said())
        wanted = len(PROVIDERS) * (len(NOWHERE) + 2)
        expect(told, "F26", errors(here) == {"download_failed": wanted}, f"held: {errors(here)}")
        _fetched_after_all(here, told, "F26")
    return told


def _fetched_after_all(here: Trial, told: Tally, number: str) -> None:
    """`runner retry` of what is held: files are fetched, and nothing is ordered."""
    here.sandbox.restart(faults="")
    held = [str(job.id) for job in here.jobs() if job.state == "held"]
    before = here.sandbox.tasks()
    retried = here.commands.run("retry", *held, "--db", here.queue)
    expect(told, number, retried.code == 0, retried.said())
    peace(here, told)
    expect(told, number, set(states(here)) == {"succeeded"}, f"after a retry: {states(here)}")
    expect(told, number, here.sandbox.tasks() == before, "the retry ordered something")


SLOW = 2000.0  # scaled seconds: longer than any deadline, also those that are not below two of the wall
LATE = tuple(
    Strike("F16", "latency", at, {"seconds": seconds}, times=3)
    for at in ("submit", "poll", "download")
    for seconds in (0.5, 7.0, 15.0, 29.0)
)
BIG = 16 << 20
HEADERS = {"part": "headers", "seconds": SLOW}
BODY = {"part": "body", "seconds": SLOW}


def _each(name: str, *strikes: Strike, jobs: int = TIMES) -> Scenario:
    return Scenario(name, (strikes[0].number,), partial(play, strikes, jobs, 100.0))


SCENARIOS = (
    _each("f11-no-answer", Strike("F11", "hang", "submit", times=1, deadline=True), jobs=2),
    _each("f12-headers-trickle", Strike("F12", "slow_body", "submit", HEADERS, 1, deadline=True), jobs=2),
    _each("f13-body-trickles", Strike("F13", "slow_body", "submit", BODY, 1, deadline=True), jobs=2),
    _each("f15-half-open", Strike("F15", "hang", "poll", times=2), jobs=2),
    _each("f16-latency", *LATE),
    Scenario("f23-redirects", ("F23",), partial(redirected, "F23", (301, 302, 303) * 2)),
    Scenario("f24-other-origin", ("F24",), partial(redirected, "F24", (307, 308) * 3)),
    Scenario("f25-circles", ("F25",), led_in_circles),
    Scenario("f26-outside", ("F26",), led_outside),
    _each("f34-gzip-bomb", Strike("F34", "huge_body", "submit", {"gzip": True})),
    _each("f35-json-without-end", Strike("F35", "huge_body", "submit", {"bytes": BIG})),
    _each("f36-headers", *(Strike("F36", "many_headers", "submit", {"how": how}, 3) for how in ("many", "long"))),
)
