"""When a run is over, and what it says: pure, from counts (design.md section 10, "When `run` ends")."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from runner.jobs import IN_FLIGHT, SETTLED, State


class Exit(IntEnum):
    """Exit codes; where several apply, the order of PRECEDENCE decides."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    INTERNAL = 3
    PERSON_NEEDED = 4
    PAUSED = 5
    LIMIT = 6
    LOCAL = 7
    OWNED = 8
    INTERRUPTED = 130
    TERMINATED = 143


PRECEDENCE = (
    Exit.INTERNAL,
    Exit.LOCAL,
    Exit.OWNED,
    Exit.USAGE,
    Exit.PERSON_NEEDED,
    Exit.PAUSED,
    Exit.LIMIT,
    Exit.SOME_FAILED,
)


@dataclass(frozen=True, slots=True)
class Tally:
    """The jobs of one account that a run is about, by state; `overdue` of the running ones are past their timeout,
    `stopped_model` of the queued ones ask for a model that the account may not use. Cancelled by the provider counts as
    failed; by a person or an edit it does not. `stuck` of the downloading ones have found no place on this machine for
    a long time. `occupied`: slots of the account that overdue tasks hold, those of other batches too; `unasked` of them
    may have ended by now, since nobody has heard of them after a sleep or an outage: they are asked first."""

    account: str
    states: Mapping[State, int]
    overdue: int = 0
    concurrency: int = 1_000_000
    stopped_model: int = 0
    cancelled_by_provider: int = 0
    stuck: int = 0
    occupied: int = 0
    unasked: int = 0

    @property
    def full(self) -> bool:
        """Every slot is held by a task that nobody waits for."""
        return max(self.overdue, self.occupied) - self.unasked >= self.concurrency

    def of(self, *states: State) -> int:
        return sum(self.states.get(state, 0) for state in states)


@dataclass(frozen=True, slots=True)
class Hindrances:
    """What keeps accounts from going on: `stopped` ones need a person; `lacking` ones have no key in this run, so
    nothing of theirs moves; `paused` ones are out of credits or service; `beyond_budget` ones can afford no further job
    for now; `time_is_up` for all new submissions."""

    lacking: Collection[str] = ()
    stopped: Collection[str] = ()
    paused: Collection[str] = ()
    beyond_budget: Collection[str] = ()
    time_is_up: bool = False
    wait: bool = True


def moving(tallies: Sequence[Tally], hindered: Hindrances) -> int:
    """How many jobs can still move by themselves. 0 ends the run."""
    return sum(_moving(tally, hindered) for tally in tallies)


def _moving(tally: Tally, hindered: Hindrances) -> int:
    if tally.account in hindered.lacking:
        return 0
    downloads = tally.of(State.DOWNLOADING) - tally.stuck
    if tally.account in hindered.stopped:
        return downloads
    followed = tally.of(State.SUBMITTING, State.RUNNING) - max(0, tally.overdue - tally.unasked)
    asked = tally.of(State.UNKNOWN)
    waiting = tally.of(State.QUEUED, State.WAITING) - tally.stopped_model
    paused = not hindered.wait and tally.account in hindered.paused
    broke = tally.account in hindered.beyond_budget and tally.of(*IN_FLIGHT) == tally.overdue
    if hindered.time_is_up or paused or broke or tally.full:
        waiting = 0
    return downloads + followed + waiting + (0 if paused else asked)


def verdict(tallies: Sequence[Tally], hindered: Hindrances) -> Exit:
    """The exit code of a run that is over: it speaks of the jobs as they stand, earlier runs included."""
    found = {code for tally in tallies for code in _codes(tally, hindered)}
    return next((code for code in PRECEDENCE if code in found), Exit.DONE)


def _codes(tally: Tally, hindered: Hindrances) -> set[Exit]:
    codes: set[Exit] = set()
    if tally.of(State.HELD) or tally.overdue:
        codes.add(Exit.PERSON_NEEDED)
    if tally.of(State.FAILED, State.PARTIAL) or tally.cancelled_by_provider:
        codes.add(Exit.SOME_FAILED)
    if tally.stuck:
        codes.add(Exit.LOCAL)
    unfinished = sum(n for state, n in tally.states.items() if state not in SETTLED) - tally.overdue - tally.stuck
    if unfinished:
        codes.add(_reason(tally, hindered))
    return codes


def _reason(tally: Tally, hindered: Hindrances) -> Exit:
    elsewhere = {*hindered.stopped, *hindered.lacking, *hindered.paused}
    if tally.account in elsewhere or tally.stopped_model:
        return Exit.PAUSED
    return Exit.PERSON_NEEDED if tally.full else Exit.LIMIT
