"""The one table of what may follow what, against the table of the design."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.jobs import (
    IN_FLIGHT,
    QUIET,
    SETTLED,
    TERMINAL,
    TRANSITIONS,
    UNPAID,
    Change,
    Event,
    Standing,
    State,
    diagram,
    target,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)

# Design, section 4, "States": from | to. `succeeded` and `partial` are ends: nothing leads on.
DESIGN = {
    "waiting": {"queued", "cancelled"},
    "queued": {"submitting", "failed", "cancelled"},
    "submitting": {"running", "unknown", "queued", "failed"},
    "unknown": {"submitting", "running", "held", "queued"},
    "running": {"downloading", "failed", "cancelled", "held", "queued"},
    "downloading": {"succeeded", "partial", "running", "held"},
    "held": {"running", "downloading", "queued", "cancelled"},
    "failed": {"queued"},
    "cancelled": {"queued"},
}

# Edges that only a person's word opens (the same table, "a person", "retry", "asked for again").
BY_A_PERSON = {
    ("unknown", "queued"),
    ("held", "running"),
    ("held", "downloading"),
    ("held", "queued"),
    ("held", "cancelled"),
    ("failed", "queued"),
    ("cancelled", "queued"),
    ("waiting", "cancelled"),
    ("queued", "cancelled"),
}

states = st.sampled_from(State)
happenings = st.sampled_from(Event)


def edges() -> set[tuple[str, str]]:
    """Every way of the table that moves a job."""
    moves = ((source, to) for ways in TRANSITIONS.values() for source, to in ways.items())
    return {(source.value, to.value) for source, to in moves if source is not to}


def test_the_table_has_exactly_the_edges_of_the_design() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for source, to in edges():
        found[source].add(to)
    assert found == DESIGN


def test_every_state_and_every_event_has_its_place() -> None:
    assert {State(name) for edge in edges() for name in edge} == set(State)
    assert set(TRANSITIONS) == set(Event)


def test_the_states_are_sorted_by_whether_we_may_have_paid() -> None:
    assert {"succeeded", "partial", "failed", "cancelled"} == TERMINAL
    assert {"held"} == SETTLED - TERMINAL
    assert {"submitting", "unknown", "running"} == IN_FLIGHT
    assert {"waiting", "queued"} == UNPAID
    assert not UNPAID & IN_FLIGHT
    assert not IN_FLIGHT & SETTLED


def test_what_may_have_been_paid_comes_back_to_the_queue_only_through_an_answer_or_a_person() -> None:
    """`submitting → queued` needs a proof, `running → queued` the provider's word; `unknown` has no way of its own."""
    to_queue = {source for source, to in edges() if to == "queued"}
    assert to_queue - UNPAID == {"submitting", "running", "unknown", "held", "failed", "cancelled"}
    proof = {("submitting", "queued"), ("running", "queued")}
    for state in ("unknown", "held", "downloading", "succeeded", "partial"):
        resends_aside = BY_A_PERSON | proof
        assert "queued" not in reachable(state, without=resends_aside)


def test_nothing_leads_on_from_a_finished_render() -> None:
    assert reachable("succeeded", without=set()) == {"succeeded"}
    assert reachable("partial", without=set()) == {"partial"}


def test_every_job_can_end() -> None:
    for state in State:
        assert reachable(state.value, without=set()) & {s.value for s in TERMINAL}


def reachable(start: str, *, without: set[tuple[str, str]]) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for source, to in edges() - without:
            if source == here and to not in seen:
                seen.add(to)
                waiting.append(to)
    return seen


def test_each_event_leads_from_a_state_to_one_state_only() -> None:
    by_edge = defaultdict(list)
    for event, ways in TRANSITIONS.items():
        for source, to in ways.items():
            by_edge[source, to].append(event)
    twice = {edge: names for edge, names in by_edge.items() if len(names) > 1 and edge[0] is not edge[1]}
    assert twice == {}, "two events for one edge: the history could not tell them apart"


def test_quiet_events_move_nothing() -> None:
    for event in QUIET:
        assert all(source is to for source, to in TRANSITIONS[event].items())


@given(happenings, states)
def test_the_target_is_that_of_the_table(event: Event, source: State) -> None:
    if source in TRANSITIONS[event]:
        assert target(event, source) is TRANSITIONS[event][source]
    else:
        with pytest.raises(ValueError, match="no transition"):
            target(event, source)


@given(happenings, states, states)
def test_a_change_that_the_table_does_not_know_cannot_be_made(event: Event, source: State, to: State) -> None:
    standing = Standing(to, NOW)
    if TRANSITIONS[event].get(source) is to:
        change = Change(event, 1, source, None, NOW, standing)
        assert replace(change, lease=5).standing.state is to
    else:
        with pytest.raises(ValueError, match=r"no transition|does not lead"):
            Change(event, 1, source, None, NOW, standing)


def test_the_diagram_says_what_the_table_says() -> None:
    first, *lines = diagram().splitlines()
    assert first == "stateDiagram-v2"
    drawn = [re.fullmatch(r"    (\[\*\]|\w+) --> (\w+): (\w+)", line) for line in lines]
    assert all(drawn)
    told = {(m[1], m[2], m[3]) for m in drawn if m}
    starts = {("[*]", "queued", "enqueued"), ("[*]", "waiting", "enqueued")}
    moves = {
        (source.value, to.value, event.value)
        for event, ways in TRANSITIONS.items()
        for source, to in ways.items()
        if source is not to
    }
    assert told == starts | moves
    assert len(lines) == len(told)
