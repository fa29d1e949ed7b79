"""Decisions while a runner owns the queue: they are written at once, and it acts on them (design.md section 6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from torture.commands import Ended, Running
from torture.waiting import until

from cli.kit import Place, place, rows, states

# One account whose only slot is taken by a task that ends when the test says so, and one on which things went wrong.
MANIFEST = """\
version: 1
batch: gate
providers: {happyhorse: {concurrency: 1}, seedance2ai: {concurrency: 8}}
defaults: {provider: happyhorse, model: doubao-seedance-1-5-pro, duration: 5}
jobs:
  face: {model: nano-banana-2, prompt: a face at the gate, priority: 3}
  hand: {model: nano-banana-2, prompt: a hand at the gate, priority: 3}
  guard: {prompt: the guard, priority: 2}
  cart: {prompt: a cart}
  cow: {prompt: a cow}
  thief: {provider: seedance2ai, model: seedance, prompt: "a thief (sandbox:moderated)"}
  foot: {provider: seedance2ai, model: nano-banana-pro, prompt: a foot at the gate}
"""


@dataclass
class Gate:
    """`running` is at work, with the guard's task in its way."""

    place: Place
    running: Running

    def job(self, name: str) -> int:
        [(job,)] = rows(self.place.queue, "SELECT id FROM jobs WHERE name = ?", name)
        return int(job)

    def state(self, name: str) -> str:
        return states(self.place.queue)[self.job(name)]

    def becomes(self, name: str, state: str) -> None:
        until(lambda: self.state(name) == state, f"{name} to be {state}, which is {self.state(name)}")

    def decide(self, command: str, name: str, *words: str) -> Ended:
        ended = self.place.commands.run(command, str(self.job(name)), *words)
        assert ended.code == 0, ended.said()
        return ended

    def orders(self, prompt: str) -> list[str]:
        """The ids of the tasks with this prompt, oldest first."""
        tasks = [*self.place.tasks("happyhorse"), *self.place.tasks("seedance2ai")]
        return [task["id"] for task in tasks if task["prompt"].startswith(prompt)]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """Two answers were lost, one picture was moderated, one cannot be fetched, and the guard stands in the gate."""
    accounts = {"happyhorse": "happyhorse", "seedance2ai": "seedance2ai"}
    with place(tmp_path_factory.mktemp("gate"), accounts, seed="gate", render=8) as here:
        here.sandbox.fault("lost_answer", "happyhorse", when="submit", times=2)
        for _ in ("face", "hand", "guard"):
            here.sandbox.fault("stuck", "happyhorse", when="submit")
        here.sandbox.fault("gone", "seedance2ai", when="download", times=6)
        made = Gate(here, here.start(here.write("gate.yaml", MANIFEST)))
        until(lambda: len(made.orders("the guard")) == 1, "the guard's order")
        for name, state in {"face": "held", "hand": "held", "guard": "running"}.items():
            made.becomes(name, state)
        made.becomes("thief", "failed")
        made.becomes("foot", "held")
        yield made
        made.running.process.kill()
        made.running.process.wait()


def test_the_queue_has_one_owner_and_everybody_else_may_read(gate: Gate) -> None:
    second, status, jobs = gate.place.together(
        ("run", gate.place.folder / "gate.yaml", "--yes", "--speed", "30"), ("status",), ("jobs", "--state", "held")
    )
    assert second.code == 8, second.said()
    assert re.search(rf"\b{gate.running.process.pid}\b", second.err), second.said()
    assert "3 held" in status.out
    assert "a face at the gate" not in jobs.out
    assert "gate/face" in jobs.out
    assert gate.running.process.poll() is None


def test_what_is_decided_meanwhile_is_done(gate: Gate) -> None:
    """One scene, because it is one run: it ends by itself once the guard has gone."""
    assert gate.decide("cancel", "cart").out == f"job {gate.job('cart')} (gate/cart): queued → cancelled\n"

    gate.decide("retry", "thief")
    until(lambda: len(gate.orders("a thief")) == 2, "the thief to be ordered anew")
    gate.becomes("thief", "failed")

    [face] = gate.orders("a face at the gate")
    gate.decide("resolve", "face", "--adopt", face)
    gate.place.finish("happyhorse", face)
    gate.becomes("face", "succeeded")

    gate.decide("resolve", "foot", "--abandon")
    gate.decide("resolve", "hand", "--resubmit")
    assert len(gate.orders("a hand at the gate")) == 1, "the guard is still in its way"
    [guard] = gate.orders("the guard")
    gate.place.finish("happyhorse", guard)
    until(lambda: len(gate.orders("a hand at the gate")) == 2, "the hand to be ordered again")

    ended = gate.place.commands.over(gate.running)
    assert ended.code == 1, "of all that is left only the thief has failed: " + ended.said()
    found = {name: gate.state(name) for name in ("face", "hand", "guard", "cart", "cow", "thief", "foot")}
    assert found == {
        "face": "succeeded", "hand": "succeeded", "guard": "succeeded", "cart": "cancelled", "cow": "succeeded",
        "thief": "failed", "foot": "cancelled",
    }  # fmt: skip
    assert gate.orders("a cart") == [], "it was cancelled before it was ordered"
    assert len(gate.orders("a face")) == len(gate.orders("the guard")) == len(gate.orders("a cow")) == 1
    for name in ("face", "hand", "guard", "cow"):
        [path] = [p for (p,) in rows(gate.place.queue, "SELECT path FROM outputs WHERE job_id = ?", gate.job(name))]
        assert Path(gate.place.folder, path).stat().st_size > 0
