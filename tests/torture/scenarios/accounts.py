"""What happens to whole accounts: service away, keys revoked and replaced, credits gone, budgets, a stranger's key."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from runner.sandbox import fingerprint
from runner.settings import variable
from torture.canary import Canary, hits
from torture.manifests import PROVIDERS
from torture.random_kills import peace
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import SETTLED, clips, fired, peace_but, states, submissions, tries
from torture.tally import Tally
from torture.trial import Trial
from torture.waiting import until

HALF_AN_HOUR, PROBE, BURST = 1800.0, 30.0, 10.0  # scaled seconds
PAUSED, LIMIT, KILLED = 5, 6, 137
PLENTY = "100000"


def away_for_half_an_hour(folder: Path, seed: str) -> Tally:
    """503 to everything: hardly anything is asked meanwhile, no job fails, none is ordered twice."""
    with staged(folder, seed, PROVIDERS, jobs=clips(4), speed=300.0) as (here, told):
        for provider in PROVIDERS:
            here.sandbox.post("outage", provider=provider, seconds=HALF_AN_HOUR)
        began = here.sandbox.get("state")["now"]
        ended = here.run()
        expect(told, "F41", ended.code in (0, 4), ended.said())
        expect(told, "F41", set(states(here)) <= {"succeeded", "held"}, f"{states(here)}")
        expect(told, "F41", {job.attempts for job in here.jobs()} == {1}, "a job has spent attempts")
        for provider in PROVIDERS:
            probes = [each["at"] for each in submissions(here, provider) if each["at"] < began + HALF_AN_HOUR]
            bursts = [at for at, before in zip(probes, [-PROBE, *probes], strict=False) if at - before > BURST]
            near = [at for at, before in zip(bursts[1:], bursts, strict=False) if at - before < PROBE - 1]
            expect(told, "F41", 0 < len(bursts) <= HALF_AN_HOUR / PROBE and not near, f"{provider}: {probes}")
        peace(here, told)
    return told


def key_replaced(folder: Path, seed: str) -> Tally:
    """A revoked key stops its account; its tasks are kept, and go on with the next key of the same account."""
    with staged(folder, seed, PROVIDERS, jobs=clips(5), render=300.0) as (here, told):
        running = here.start()
        until(lambda: _all_have_tasks(here), "a task at every provider")
        for provider, key in here.keys.items():
            here.sandbox.post("keys", provider=provider, key=key, revoked=True)
        ended = here.commands.over(running)
        expect(told, "F42", ended.code == PAUSED, ended.said())
        expect(told, "F42", not states(here)["failed"] and not states(here)["held"], f"{states(here)}")
        expect(told, "F42", states(here)["running"] >= len(PROVIDERS), f"not kept: {states(here)}")
        told.fired["F42"] += ended.err.count("is stopped")
        fresh = {provider: f"{key[::-1]}-next" for provider, key in here.keys.items()}
        for provider, key in fresh.items():
            here.sandbox.post("keys", provider=provider, key=key, same_as=here.keys[provider])
        here.commands.environment = {**here.commands.environment, **_keys(fresh)}
        peace(here, told)
        expect(told, "F42", set(states(here)) == {"succeeded"}, f"in the end: {states(here)}")
        for hit in hits(folder, [Canary(key) for key in fresh.values()]):
            expect(told, "F42", False, f"the next key stands in {hit}")
    return told


def _all_have_tasks(here: Trial) -> bool:
    providers = here.sandbox.ledger()["providers"]
    return all(
        any(a["tasks"] for a in providers.get(name, {"accounts": {}})["accounts"].values()) for name in here.keys
    )


def _keys(keys: Mapping[str, str]) -> dict[str, str]:
    return {variable(provider, "API_KEY"): key for provider, key in keys.items()}


def three_kinds_of_403(folder: Path, seed: str) -> Tally:
    """happyhorse says 403 for want of credits (a pause), of paid access (one model stops), or just so (a stop)."""
    name, each = "happyhorse", 10
    with staged(folder, seed, (name,), jobs={"hh-video": 2, "hh-full": 1}, speed=1000.0) as (here, told):
        account = {"provider": name, "key": here.keys[name]}
        here.sandbox.post("credits", **account, paid_access=False)
        for times in (each, *[0] * (each - 1)):
            if times:
                _refuse(here, "insufficient_credits", times)
            ended = here.run()
            expect(told, "F43", ended.code == PAUSED, f"without paid access: {ended.said()}")
            expect(told, "F43", states(here) == {"succeeded": 2, "queued": 1}, f"{states(here)}")
        here.sandbox.post("credits", **account, paid_access=True)
        for _ in range(each):
            _refuse(here, "forbidden", 1)
            ended = here.run()
            expect(told, "F43", ended.code == PAUSED and "is stopped" in ended.err, f"bare: {ended.said()}")
        told.fired["F43"] += sum(each["status"] == 403 for each in submissions(here, name))
        expect(told, "F43", told.fired["F43"] >= 3 * each, f"{told.fired['F43']} refusals")
        peace(here, told)
        expect(told, "F43", states(here) == {"succeeded": 3}, f"in the end: {states(here)}")
    return told


def _refuse(here: Trial, code: str, times: int) -> None:
    here.sandbox.fault("error_before_charge", "happyhorse", when="submit", times=times, status=403, code=code)


def credits_run_out(folder: Path, seed: str) -> Tally:
    """The run waits, and goes on by itself when there are credits again: each job is charged once."""
    jobs = 4
    with staged(folder, seed, PROVIDERS, jobs=clips(jobs), speed=300.0) as (here, told):
        prices = _prices(here)
        for provider, key in here.keys.items():
            here.sandbox.post("credits", provider=provider, key=key, balance=str(prices[provider] * 2))
        running = here.start()
        until(
            lambda: here.sandbox.tasks() >= 2 * len(PROVIDERS) or not running.lives(0), "the last credits to be spent"
        )
        expect(told, "F44", running.lives(5.0), running.said())
        expect(told, "F44", here.sandbox.tasks() == 2 * len(PROVIDERS), f"{here.sandbox.tasks()} tasks")
        for provider, key in here.keys.items():
            here.sandbox.post("credits", provider=provider, key=key, balance=PLENTY)
        ended = here.commands.over(running)
        expect(told, "F44", ended.code == 0, ended.said())
        told.fired["F44"] += len(PROVIDERS)
        peace(here, told)
        expect(told, "F44", here.sandbox.tasks() == jobs * len(PROVIDERS), f"{here.sandbox.tasks()} tasks")
    return told


def _prices(here: Trial) -> dict[str, Decimal]:
    """What one clip costs, by the providers' own ledger: a trial of its own order at each."""
    with staged(here.folder / "prices", here.seed, tuple(here.keys), jobs=clips(1, tuple(here.keys)), speed=1000.0) as (
        other,
        _,
    ):
        other.run()
        return {job.account: job.charged or Decimal(0) for job in other.jobs()}


def somebody_elses_key(folder: Path, seed: str) -> Tally:
    """Tasks and open questions of one account, and the key of another: it orders nothing, and decides nothing."""
    with staged(folder, seed, PROVIDERS, jobs=clips(1), render=1500.0) as (here, told):
        running = here.start()
        until(lambda: _all_have_tasks(here), "a task at every provider")
        running.lives(1.0)  # their ids reach the queue
        running.send(signal.SIGTERM)
        here.commands.over(running)
        here.orders.grow(clips(2))
        for provider in PROVIDERS:
            here.sandbox.fault("hang", provider, when="submit")
        running = here.start()
        until(
            lambda: fired(here).get("hang", 0) >= len(PROVIDERS) or not running.lives(0), "an order that hangs at each"
        )
        running.send(signal.SIGKILL)
        here.commands.over(running)
        open_ones = sum(each.brink is not None and each.outcome is None for each in tries(here))
        others = {provider: f"{key[::-1]}-other" for provider, key in here.keys.items()}
        last = here.sandbox.last_request()
        ended = here.run(**_keys(others))
        expect(told, "F72", ended.code in (4, PAUSED), ended.said())
        names = {fingerprint(key) for key in others.values()}
        theirs = [each for each in here.sandbox.requests(last) if each["account"] in names]
        expect(told, "F72", not [each for each in theirs if each["point"] == "submit"], "it has ordered something")
        expect(told, "F72", states(here)["held"] == open_ones > 0, f"{open_ones} open questions, {states(here)}")
        expect(told, "F72", not states(here)["failed"], f"{states(here)}")
        told.fired["F72"] += len(PROVIDERS)
        peace_but(here, told, "open_keys")
    return told


def never_beyond_the_budget(folder: Path, seed: str) -> Tally:
    """Answers get lost, runs are killed: what might have been charged counts as charged, so no budget is ever passed
    (I20). One budget stands in the manifest, the others are flags."""
    names, allowed = ("happyhorse", "seedance2ai", "seedhorse-video"), 4
    with staged(folder, seed, names, jobs=clips(10, names)) as (here, told):
        caps = {name: price * allowed for name, price in _prices(here).items()}
        manifest = here.orders.manifest
        manifest.write_text(f"{manifest.read_text()}budget: {{happyhorse: {caps['happyhorse']}}}\n")
        given = [f"{name}={cap}" for name, cap in caps.items() if name != "happyhorse"]
        here.flags = tuple(word for cap in given for word in ("--max-credits", cap))
        for name in names:
            here.sandbox.fault("lost_answer", name, when="submit", times=2)
            here.sandbox.fault("late_accept", name, when="submit", seconds=20)
        running = here.start()
        until(lambda: here.sandbox.tasks() >= len(names) or not running.lives(0), "some tasks")
        running.send(signal.SIGKILL)
        here.commands.over(running)
        for _ in range(2):
            ended = here.run()
            expect(told, "I20", ended.code in (4, LIMIT), ended.said())
            time.sleep(30 / here.speed)  # what was accepted late is charged by now
            for name, cap in caps.items():
                charged = Decimal(here.sandbox.ledger()["providers"][name]["charged"])
                expect(told, "I20", 0 < charged <= cap, f"{name} has charged {charged} of {cap}")
        ended = here.run()
        expect(told, "I20", states(here)["queued"] > 0, f"{states(here)}")
        here.flags = ()
        manifest.write_text(manifest.read_text().split("budget:")[0])
        peace(here, told)
        expect(told, "I20", here.run().code in SETTLED, "it does not come to its end without a budget")
    return told


SCENARIOS = (
    Scenario("f41-away", ("F41",), away_for_half_an_hour),
    Scenario("f42-key-replaced", ("F42",), key_replaced),
    Scenario("f43-three-kinds-of-403", ("F43",), three_kinds_of_403),
    Scenario("f44-credits-run-out", ("F44",), credits_run_out),
    Scenario("f72-somebody-elses-key", ("F72",), somebody_elses_key, quick=True),
    Scenario("i20-budget", (), never_beyond_the_budget, quick=True),
)
