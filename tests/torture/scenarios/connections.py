"""F01–F07: nobody there, nobody who answers, nobody of that name, nobody who proves who he is. Nothing is ever sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import certificates

from runner.settings import variable
from torture.manifests import PROVIDERS
from torture.random_kills import peace
from torture.scenarios.listeners import LOCAL, Listener, crooked_names, listening, refusing, silent
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import clips, states, steps, stopped, tries
from torture.tally import Tally
from torture.trial import Trial
from torture.waiting import until

CLIPS = 3
ENOUGH = 30
MOST_RUNS = 12
PAUSED = 5
HASTE = 400.0
OTHERS = ("seegen",)  # accounts that are well while the others are not
LANGUID = 4.0  # wall seconds of a run that would never end by itself


@dataclass(frozen=True)
class Astray:
    """Where the accounts are sent instead. `base` may name a {port}. `stops`: time does not mend it, so a person is
    asked; else the orders go again and again. `own_time`: its host is not on loopback, so time cannot be faster."""

    number: str
    base: str
    stops: bool
    there: Any = None
    environment: Mapping[str, str] = ()  # type: ignore[assignment]
    own_time: bool = False
    enough: int = ENOUGH
    seconds: float = LANGUID


@contextmanager
def _expired(folder: Path, certificate: str, host: str) -> Iterator[Listener]:
    with listening(host, certificates.server_side(folder, certificate)) as there:
        yield there


def play(ways: tuple[Astray, ...], folder: Path, seed: str) -> Tally:
    """Each way with orders at every provider; then the right addresses, and all of it is done."""
    with staged(folder, seed, PROVIDERS, jobs=clips(CLIPS), speed=HASTE) as (here, told):
        for way in ways:
            _led_astray(here, told, way)
        peace(here, told)
        expect(told, ways[0].number, set(states(here)) == {"succeeded"}, f"in the end: {states(here)}")
        attempts = {job.attempts for job in here.jobs()}
        expect(told, ways[0].number, attempts == {1}, f"it was charged to the jobs' attempts: {attempts}")
    return told


def _led_astray(here: Trial, told: Tally, way: Astray) -> None:
    names = crooked_names(here.folder)
    with ExitStack() as stack:
        there = stack.enter_context(way.there(here.folder)) if way.there else None
        port = there.port if isinstance(there, Listener) else there
        base = way.base.format(port=port)
        environment = {**names, **_trusted(here.folder, way), **{variable(n, "BASE_URL"): base for n in PROVIDERS}}
        count = 0
        for _ in range(MOST_RUNS):
            count += _one_run(here, told, way, environment)
            if count >= way.enough:
                break
        heard = there.heard if isinstance(there, Listener) else 0
    expect(told, way.number, count >= way.enough, f"{base}: only {count} orders were tried")
    expect(told, way.number, heard == 0, f"{base}: {heard} bytes arrived there")
    expect(told, way.number, set(states(here)) == {"queued"}, f"{base}: {states(here)}")
    expect(told, way.number, here.sandbox.tasks() == 0, "something was ordered")
    told.fired[way.number] += count


def _trusted(folder: Path, way: Astray) -> dict[str, str]:
    """The certificates that the program is to trust in this run, as a file."""
    found = dict(way.environment)
    if "TRUSTED" in found:
        (folder / "trusted.pem").write_text(found["TRUSTED"])
        found["TRUSTED"] = str(folder / "trusted.pem")
    return found


def _one_run(here: Trial, told: Tally, way: Astray, environment: Mapping[str, str]) -> int:
    """How many orders it has put back because they could not be sent."""
    before = steps(here, "put_back") if Path(here.queue).exists() else 0
    arguments = [each for each in here.arguments if not way.own_time or each not in ("--speed", f"{here.speed:g}")]
    running = here.commands.start(*arguments, **environment)
    if way.stops:
        ended = here.commands.over(running)
        expect(told, way.number, ended.code == PAUSED, f"not stopped: {ended.said()}")
        expect(told, way.number, "is stopped" in ended.err, f"it does not say why: {ended.said()}")
    else:
        until(lambda: Path(here.queue).exists() or not running.lives(0.0), "a queue")
        expect(told, way.number, running.lives(way.seconds), f"it did not wait: {running.said()[-500:]}")
        stopped(here, running, way.number, told)
    expect(told, way.number, not [each for each in tries(here) if each.brink], "the brink was passed")
    return steps(here, "put_back") - before


def _other_lanes_run_on(folder: Path, seed: str) -> Tally:
    """F03 at all but one account: that one's jobs are done meanwhile, the others wait for a person."""
    with staged(folder, seed, PROVIDERS, jobs=clips(CLIPS)) as (here, told):
        arguments = [each for each in here.arguments if each not in ("--speed", f"{here.speed:g}")]
        lost = {variable(n, "BASE_URL"): "https://nowhere.crooked.test" for n in PROVIDERS if n not in OTHERS}
        ended = here.commands.run(*arguments, **crooked_names(folder), **lost)
        expect(told, "F03", ended.code == PAUSED, ended.said())
        done = {name: states(here, name) for name in PROVIDERS}
        expect(told, "F03", set(done["seegen"]) == {"succeeded"}, f"the other lane did not run on: {done}")
        told.fired["F03"] += steps(here, "put_back")
        peace(here, told)
    return told


def _resolver_hangs(folder: Path, seed: str) -> Tally:
    """The question is given up at its deadline, and the process ends although the resolver does not."""
    with staged(folder, seed, ("happyhorse", "seedance2ai"), jobs=clips(2, ("happyhorse", "seedance2ai"))) as (
        here,
        told,
    ):
        base = "https://hangs.crooked.test"
        lost = {variable(name, "BASE_URL"): base for name in here.keys}
        arguments = [each for each in here.arguments if each not in ("--speed", f"{here.speed:g}")]
        running = here.commands.start(*arguments, **crooked_names(folder), **lost)
        expect(told, "F04", running.lives(18.0), running.said())  # the connect deadline of ten seconds, and more
        stopped(here, running, "F04", told)
        told.fired["F04"] += steps(here, "put_back")
        expect(told, "F04", steps(here, "put_back") >= 2, "no lookup was given up at its deadline")
        expect(told, "F04", not [each for each in tries(here) if each.brink], "the brink was passed")
        peace(here, told)
    return told


def _tls(certificate: str, host: str, folder: Path) -> Any:
    return _expired(folder, certificate, host)


def _alone(make: Any, folder: Path) -> Any:
    """A place that needs no folder."""
    return make()


REFUSED = (Astray("F01", f"http://{LOCAL}:{{port}}", stops=False, there=partial(_alone, refusing)),)
SILENT = (Astray("F02", f"http://{LOCAL}:{{port}}", stops=False, there=partial(_alone, silent), enough=2, seconds=8.0),)
NAMELESS = (Astray("F03", "https://nowhere.crooked.test", stops=True, own_time=True, enough=ENOUGH - 12),)
AWAY = (Astray("F01", "https://later.crooked.test", stops=False, own_time=True, enough=3, seconds=5.0),)
PRIVATE = tuple(
    Astray("F05", f"https://{name}.crooked.test:{{port}}", stops=True, own_time=True, enough=10, there=there)
    for name, there in (
        ("127-0-0-1", partial(_alone, listening)),
        ("loop6", partial(_alone, partial(listening, "::1"))),
        ("169-254-169-254", partial(_alone, refusing)),
    )
)
GOOD, EXPIRED = certificates.GOOD, certificates.EXPIRED
UNPROVEN = (
    Astray("F06", "https://localhost:{port}", True, partial(_tls, EXPIRED, LOCAL), {"TRUSTED": EXPIRED}, enough=10),
    Astray("F06", "https://127.0.0.2:{port}", True, partial(_tls, GOOD, "127.0.0.2"), {"TRUSTED": GOOD}, enough=10),
    Astray("F06", f"https://{LOCAL}:{{port}}", True, partial(_tls, GOOD, LOCAL), enough=10),
)
CUT = (Astray("F07", f"https://{LOCAL}:{{port}}", stops=False, there=partial(_alone, partial(listening, cuts=True))),)

SCENARIOS = (
    Scenario("f01-refused", ("F01",), partial(play, REFUSED), quick=True),
    Scenario("f01-away", ("F01",), partial(play, AWAY)),
    Scenario("f02-silent", ("F02",), partial(play, SILENT)),
    Scenario("f03-no-such-host", ("F03",), partial(play, NAMELESS)),
    Scenario("f03-other-lanes", ("F03",), _other_lanes_run_on),
    Scenario("f04-resolver-hangs", ("F04",), _resolver_hangs),
    Scenario("f05-private-addresses", ("F05",), partial(play, PRIVATE)),
    Scenario("f06-certificates", ("F06",), partial(play, UNPROVEN)),
    Scenario("f07-handshake-cut", ("F07",), partial(play, CUT)),
)
