"""What can happen to the process: many at once, many in a row, stopped, hung up, short of memory, not heard."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

from torture.commands import Ended
from torture.judge import GRACE, Finding
from torture.manifests import PROVIDERS, Limits, shares
from torture.random_kills import Torn, landed, look, ordered_since, peace
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import SETTLED, clips, ends_with, patched, states, submissions
from torture.tally import Tally
from torture.trial import Trial
from torture.waiting import until

CROWD, STORM, STOPS, HANGUPS, DEAF = 100, 60, 36, 40, 30
OWNED, KILLED, HUNG_UP = 8, 137, 143  # hung up is told to end
AFTERWARDS = 129  # it had said how it ended, and was hung up on its way out
FIVE_MINUTES = 300.0
SLOW = 15.0  # speed: seven starts on a busy machine must not outlast the hour for which a key is remembered
LITTLE_MEMORY = 256 << 20  # bytes of address space


def a_hundred_at_once(folder: Path, seed: str) -> Tally:
    """F96: exactly one runs, the others exit 8 and name it."""
    with staged(folder, seed, ("seedance2ai",), jobs=clips(2, ("seedance2ai",)), speed=10.0, render=36000.0) as (
        here,
        told,
    ):
        crowd = [here.start() for _ in range(CROWD)]
        until(lambda: sum(each.process.poll() is not None for each in crowd) == CROWD - 1, "all but one to give up")
        until(lambda: here.sandbox.tasks() == 2, "its orders")
        [winner] = [each for each in crowd if each.process.poll() is None]
        for each in crowd:
            if each is not winner:
                _gives_way(here, told, here.commands.over(each), winner.process.pid)
        winner.send(signal.SIGKILL)
        here.commands.over(winner)
        told.kills["SIGKILL"] += 1
        told.fired["F96"] += CROWD
        for task in next(iter(here.sandbox.ledger()["providers"]["seedance2ai"]["accounts"].values()))["tasks"]:
            here.sandbox.post("finish", provider="seedance2ai", task_id=task["id"])
        peace(here, told)
        expect(told, "F96", here.sandbox.tasks() == 2, f"{here.sandbox.tasks()} tasks")
    return told


def _gives_way(here: Trial, told: Tally, ended: Ended, owner: int) -> None:
    ends_with(here, told, "F96", ended, OWNED)
    expect(told, "F96", re.search(rf"\b{owner}\b|just starting", ended.err), ended.said())


def storm(folder: Path, seed: str) -> Tally:
    """F112, K5: sixty starts, each killed within a second; no window of requests is ever exceeded. It is narrow, and
    holds a dozen of the starts: what each may ask for depends on what the others have asked for."""
    drawn = random.Random(seed)
    narrow = {name: Limits(4, 12) for name in PROVIDERS}
    with staged(folder, seed, PROVIDERS, jobs=shares(30, PROVIDERS), speed=10.0, limits=narrow) as (here, told):
        torn = Torn(here.renders)
        for _ in range(STORM):
            running = here.start()
            running.lives(drawn.uniform(0.05, 0.9))
            running.send(signal.SIGKILL)
            struck = landed(here.commands.over(running), signal.SIGKILL)
            told.kills["SIGKILL"] += struck
            told.fired["F104"] += struck
            told.fired["F112"] += 1
            look(torn, told)
        peace(here, told)
    return told


def stops(folder: Path, seed: str) -> Tally:
    """F105, K6: stopped for five minutes and continued, again and again; sometimes the providers were gone."""
    drawn = random.Random(seed)
    with staged(folder, seed, PROVIDERS, jobs=shares(80, PROVIDERS), speed=300.0) as (here, told):
        running = here.start()
        for _ in range(STOPS):
            if not running.lives(drawn.uniform(0.1, 0.6)):
                _as_it_should(told, here.commands.over(running).code, running.said())
                here.orders.grow(shares(20, PROVIDERS))
                running = here.start()
                continue
            running.send(signal.SIGSTOP)
            told.fired["F105"] += 1
            if drawn.random() < 0.2:
                here.sandbox.restart()
            time.sleep(FIVE_MINUTES / here.speed)
            running.send(signal.SIGCONT)
        _as_it_should(told, here.commands.over(running).code, running.said())
        peace(here, told)
    return told


def _as_it_should(told: Tally, code: int, said: str) -> None:
    if code not in SETTLED:
        told.find(Finding("stopped", f"ended with {code}: {said[-2000:]}"))


def hung_up(folder: Path, seed: str) -> Tally:
    """F103: the terminal is closed. As SIGTERM: nothing new is sent, what is on the wire is awaited."""
    drawn = random.Random(seed)
    with staged(folder, seed, PROVIDERS, jobs=shares(60, PROVIDERS)) as (here, told):
        for _ in range(HANGUPS):
            before = here.sandbox.last_request()
            running = here.start()
            while running.lives(0.05) and here.sandbox.last_request(before) == before and running.age() < 5:
                pass
            running.lives(drawn.uniform(0.0, 0.5))
            if running.process.poll() is None:
                struck, last = time.monotonic(), here.sandbox.last_request(before)
                os.killpg(running.process.pid, signal.SIGHUP)
                ended = here.commands.over(running)
                for text in ordered_since(here, last, struck):
                    expect(told, "F103", False, text)
                told.kills["SIGHUP"] += 1
                told.fired["F103"] += 1
                told.endings.append(time.monotonic() - struck)
                expect(told, "F103", ended.code in (HUNG_UP, AFTERWARDS, *SETTLED), ended.said())
                expect(told, "F103", time.monotonic() - struck <= GRACE, f"took {time.monotonic() - struck:.1f} s")
            else:
                here.commands.over(running)
                here.orders.grow(shares(30, PROVIDERS))
        peace(here, told)
    return told


NOBODY_READS = """
import os
nobody, pipe = os.pipe()
os.close(nobody)
os.dup2(pipe, 1)
os.dup2(pipe, 2)
"""


def not_heard(folder: Path, seed: str) -> Tally:
    """F110: nobody reads what is printed, or the log is on a full disk; the work goes on and the exit code is right."""
    with staged(folder, seed, PROVIDERS, jobs=clips(2)) as (here, told):
        for nth in range(DEAF):
            if nth % 5 == 0:
                ended = here.commands.run(*here.arguments, "-vv", "--log-file", "/dev/full")
            else:
                ended = here.run(**patched(folder, NOBODY_READS))
            told.fired["F110"] += 1
            expect(told, "F110", ended.code in SETTLED, ended.said())
        expect(told, "F110", set(states(here)) == {"succeeded"}, f"{states(here)}")
        peace(here, told)
    return told


LITTLE = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, ({LITTLE_MEMORY}, {LITTLE_MEMORY}))
"""


def little_memory(folder: Path, seed: str) -> Tally:
    """F108: 256 MiB of address space: it works, or ends with one clear line; the next run goes on."""
    with staged(folder, seed, PROVIDERS, jobs=clips(3)) as (here, told):
        for _ in range(3):
            ended = here.run(**patched(folder, LITTLE))
            told.fired["F108"] += 1
            ends_with(here, told, "F108", ended, 3, 7, *SETTLED)
        peace(here, told)
    return told


ANOTHER_BODY = """
from runner.lifecycle import submitting
honest = submitting.stamped
def upgraded(composed, marks):
    body = honest(composed, marks)
    return body.replace(b'{', b'{ ', 1)
submitting.stamped = upgraded
"""


def upgraded(folder: Path, seed: str) -> Tally:
    """F113: a newer program would make other bytes of the same job: what was frozen is what is sent again."""
    keyed = ("seedance2ai", "seedhorse")
    with staged(folder, seed, keyed, jobs=clips(6, keyed), speed=SLOW) as (here, told):
        for provider in keyed:
            here.sandbox.fault("lost_answer", provider, when="submit", times=3)
        for _ in range(6):
            ended = here.run(RUNNER_FAILPOINT="request-sent:1")
            told.kills["SIGKILL"] += ended.code == KILLED
            told.fired["F113"] += ended.code == KILLED
        here.run(**patched(folder, ANOTHER_BODY))
        for provider in keyed:
            bodies: dict[str, set[str]] = {}
            for each in submissions(here, provider):
                bodies.setdefault(each["idempotency_key"], set()).add(each["body_sha256"])
            expect(told, "F113", all(len(each) == 1 for each in bodies.values()), f"{provider}: {bodies}")
        peace(here, told)
    return told


def edited(folder: Path, seed: str) -> Tally:
    """F114: the manifest has changed when the run goes on: what was begun stays as it was, what is new needs a yes."""
    with staged(folder, seed, PROVIDERS, jobs=clips(4)) as (here, told):
        for nth in range(5):
            ended = here.run(RUNNER_FAILPOINT=f"answer-read:{nth + 2}")
            told.kills["SIGKILL"] += ended.code == KILLED
            before = here.sandbox.tasks()
            here.orders.grow(clips(1))
            asked = here.commands.run(*(word for word in here.arguments if word != "--yes"))
            told.fired["F114"] += 1
            ends_with(here, told, "F114", asked, 2)
            expect(told, "F114", "new" in asked.err, asked.said())
            expect(told, "F114", here.sandbox.tasks() == before, "something was ordered without a yes")
        peace(here, told)
        expect(told, "F114", len(here.jobs()) == 9 * len(PROVIDERS), f"{len(here.jobs())} jobs")
    return told


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("k5-storm", ("F112", "F104"), storm, quick=True),
    Scenario("k6-stops", ("F105",), stops, quick=True),
    Scenario("f96-crowd", ("F96",), a_hundred_at_once),
    Scenario("f103-hung-up", ("F103",), hung_up),
    Scenario("f108-little-memory", ("F108",), little_memory),
    Scenario("f110-not-heard", ("F110",), not_heard),
    Scenario("f113-upgraded", ("F113",), upgraded),
    Scenario("f114-edited", ("F114",), edited),
)
