"""F01–F07: nobody there, nobody who answers, nobody of that name, nobody who proves who he is. Nothing is ever sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import certificates

from runner.settings import variable
from torture.manifests import PROVIDERS
from torture.random_kills import peace
from torture.scenarios.listeners import LOCAL, Listener, crooked_names, listening, refusing, silent
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import clips, states, steps, stopped, tries
from torture.tally import Tally
from torture.trial import Trial
from torture.waiting import PATIENCE

CLIPS = 3
ENOUGH = 30
MOST_RUNS = 12
PAUSED = 5
HASTE = 400.0
OTHERS = ("seegen",)  # accounts that are well while the others are not
A_ROUND = 12  # so many orders that could not be sent, in a run that would never end by itself


Place = Callable[[Path], AbstractContextManager[Listener]]


@dataclass(frozen=True)
class Astray:
    """Where the accounts are sent instead. `base` may name the {port} of who is `there`. `stops`: time does not mend
    it, so a person is asked; else the orders go again and again. `trusted` is a certificate that the program believes.
    `own_time`: its host is not on loopback, so time cannot be faster. At least `enough` orders are tried."""

    number: str
    base: str
    stops: bool
    there: Place
    trusted: str | None = None
    own_time: bool = False
    enough: int = ENOUGH


def _nobody(folder: Path) -> AbstractContextManager[Listener]:
    return refusing()


def _silence(folder: Path) -> AbstractContextManager[Listener]:
    return silent()


def _somebody(host: str, folder: Path) -> AbstractContextManager[Listener]:
    return listening(host)


def _cutter(folder: Path) -> AbstractContextManager[Listener]:
    return listening(cuts=True)


def _with(certificate: str, host: str, folder: Path) -> AbstractContextManager[Listener]:
    return listening(host, certificates.server_side(folder, certificate))


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
    with way.there(here.folder) as there:
        base = way.base.format(port=there.port)
        environment = {**names, **_trusted(here.folder, way), **{variable(n, "BASE_URL"): base for n in PROVIDERS}}
        count = 0
        for _ in range(MOST_RUNS):
            count += _one_run(here, told, way, environment)
            if count >= way.enough:
                break
    expect(told, way.number, count >= way.enough, f"{base}: only {count} orders were tried")
    expect(told, way.number, there.heard == 0, f"{base}: {there.heard} bytes arrived there")
    expect(told, way.number, set(states(here)) == {"queued"}, f"{base}: {states(here)}")
    expect(told, way.number, here.sandbox.tasks() == 0, "something was ordered")
    told.fired[way.number] += count


def _trusted(folder: Path, way: Astray) -> dict[str, str]:
    if way.trusted is None:
        return {}
    (folder / "trusted.pem").write_text(way.trusted)
    return {"TRUSTED": str(folder / "trusted.pem")}


def _one_run(here: Trial, told: Tally, way: Astray, environment: Mapping[str, str]) -> int:
    """How many orders it has put back because they could not be sent."""
    before = steps(here, "put_back") if Path(here.queue).exists() else 0
    running = here.commands.start(*(_at_leisure(here) if way.own_time else here.arguments), "-v", **environment)
    if way.stops:
        ended = here.commands.over(running)
        expect(told, way.number, ended.code == PAUSED, f"not stopped: {ended.said()}")
        expect(told, way.number, "is stopped" in ended.err, f"it does not say why: {ended.said()}")
    else:
        while running.said().count("put_back") < min(way.enough, A_ROUND) and running.age() < PATIENCE:
            if not running.lives(0.1):
                break
        expect(told, way.number, running.lives(0.0), f"it did not wait: {running.said()[-500:]}")
        stopped(here, running, way.number, told)
    expect(told, way.number, not [each for each in tries(here) if each.brink], "the brink was passed")
    return steps(here, "put_back") - before


def _at_leisure(here: Trial) -> list[str]:
    """The arguments of a run that takes its time as it comes."""
    return [each for each in here.arguments if each not in ("--speed", f"{here.speed:g}")]


def _other_lanes_run_on(folder: Path, seed: str) -> Tally:
    """F03 at all but one account: that one's jobs are done meanwhile, the others wait for a person."""
    with staged(folder, seed, PROVIDERS, jobs=clips(CLIPS)) as (here, told):
        lost = {variable(n, "BASE_URL"): "https://nowhere.crooked.test" for n in PROVIDERS if n not in OTHERS}
        ended = here.commands.run(*_at_leisure(here), **crooked_names(folder), **lost)
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
        running = here.commands.start(*_at_leisure(here), **crooked_names(folder), **lost)
        expect(told, "F04", running.lives(18.0), running.said())  # the connect deadline of ten seconds, and more
        stopped(here, running, "F04", told)
        told.fired["F04"] += steps(here, "put_back")
        expect(told, "F04", steps(here, "put_back") >= 2, "no lookup was given up at its deadline")
        expect(told, "F04", not [each for each in tries(here) if each.brink], "the brink was passed")
        peace(here, told)
    return told


GOOD, EXPIRED = certificates.GOOD, certificates.EXPIRED
REFUSED = (Astray("F01", f"http://{LOCAL}:{{port}}", False, _nobody),)
AWAY = (Astray("F01", "https://later.crooked.test", False, _nobody, own_time=True, enough=3),)
SILENT = (Astray("F02", f"http://{LOCAL}:{{port}}", False, _silence, enough=2),)
NAMELESS = (Astray("F03", "https://nowhere.crooked.test", True, _nobody, own_time=True),)
PRIVATE = (
    Astray("F05", "https://127-0-0-1.crooked.test:{port}", True, partial(_somebody, LOCAL), own_time=True, enough=10),
    Astray("F05", "https://loop6.crooked.test:{port}", True, partial(_somebody, "::1"), own_time=True, enough=10),
    Astray("F05", "https://169-254-169-254.crooked.test:{port}", True, _nobody, own_time=True, enough=10),
)
UNPROVEN = (
    Astray("F06", "https://localhost:{port}", True, partial(_with, EXPIRED, LOCAL), EXPIRED, enough=10),
    Astray("F06", "https://127.0.0.2:{port}", True, partial(_with, GOOD, "127.0.0.2"), GOOD, enough=10),
    Astray("F06", f"https://{LOCAL}:{{port}}", True, partial(_with, GOOD, LOCAL), enough=10),
)
CUT = (Astray("F07", f"https://{LOCAL}:{{port}}", False, _cutter),)

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
