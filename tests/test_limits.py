"""Limits as arithmetic: windows that no sequence of requests outruns, and waits that grow as they should."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.limits import (
    Breaker,
    Window,
    backoff,
    list_every,
    next_room,
    parse_window,
    poll_every,
    probe_pause,
    room,
    share,
    slot_pause,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

windows = st.lists(st.builds(Window, st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=3)
ages = st.one_of(st.none(), st.integers(-1, 8_000))  # milliseconds since the answer; None: on the wire


def moments(found: list[int | None]) -> list[datetime | None]:
    return [None if age is None else NOW - timedelta(milliseconds=age) for age in found]


# What fits


def test_without_windows_nothing_is_limited() -> None:
    assert room([], [None] * 99, NOW) is None
    assert next_room([], [None], NOW) is None


def test_an_answered_request_counts_exactly_as_long_as_its_window() -> None:
    window = [Window(1, 60)]
    end = NOW - timedelta(seconds=60)
    assert room(window, [end], NOW) == 1
    assert room(window, [end + MICROSECOND], NOW) == 0


def test_a_request_on_the_wire_counts_whatever_its_age() -> None:
    assert room([Window(3, 1)], [None, None], NOW) == 1


@given(windows, st.lists(ages, max_size=12))
def test_room_is_what_the_tightest_window_leaves(limits: list[Window], found: list[int | None]) -> None:
    ends = moments(found)
    left = room(limits, ends, NOW)
    counted = [
        sum(1 for end in ends if end is None or (NOW - end).total_seconds() < window.seconds) for window in limits
    ]
    free = min(window.limit - n for window, n in zip(limits, counted, strict=True))
    assert left == max(0, free)


# The earliest moment


@given(windows, st.lists(ages, max_size=12))
def test_the_next_room_is_the_earliest_moment_with_room(limits: list[Window], found: list[int | None]) -> None:
    """As far as answered requests tell: one on the wire may be answered any time, and until then it counts."""
    ends = moments(found)
    at = next_room(limits, ends, NOW)
    if at is None:
        wire = sum(1 for end in ends if end is None)
        assert room(limits, ends, NOW) or any(wire >= window.limit for window in limits)
        return
    assert at > NOW
    assert room(limits, ends, at - MICROSECOND) == 0
    tellable = [w for w in limits if sum(1 for end in ends if end is None) < w.limit]
    assert room(tellable, ends, at)


@given(windows, st.lists(st.integers(0, 8_000), max_size=12))
def test_when_all_are_answered_waiting_for_it_is_enough(limits: list[Window], found: list[int]) -> None:
    ends = moments(list(found))
    at = next_room(limits, ends, NOW)
    assert room(limits, ends, at or NOW)


# The promise: the provider never counts more than the limit, wherever its window begins


@given(
    st.lists(st.builds(Window, st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=2),
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 100)), min_size=1, max_size=25),
)
def test_no_window_of_the_provider_ever_sees_more_than_its_limit(
    limits: list[Window], wishes: list[tuple[int, int, int]]
) -> None:
    """Requests are made as soon as there is room. Each takes a while, and arrives somewhere between its start and its
    answer; the provider counts arrivals in half-open windows that may begin at any arrival."""
    sent: list[tuple[int, int, int]] = []  # start, arrival, answer, in milliseconds
    clock = 0
    for pause, lasts, percent in wishes:
        clock = first_room(limits, sent, clock + pause)
        sent.append((clock, clock + lasts * percent // 100, clock + lasts))
    arrivals = sorted(arrival for _, arrival, _ in sent)
    for window in limits:
        for begin in arrivals:
            inside = [a for a in arrivals if begin <= a < begin + window.seconds * 1000]
            assert len(inside) <= window.limit


def first_room(limits: list[Window], sent: list[tuple[int, int, int]], clock: int) -> int:
    """Waits as the engine does: until there is room by what has been answered by then."""
    while True:
        ends = [at(answered) if answered <= clock else None for _, _, answered in sent]
        if room(limits, ends, at(clock)):
            return clock
        told = next_room(limits, ends, at(clock))
        coming = [answered for _, _, answered in sent if answered > clock]
        waits = [*coming, *([] if told is None else [int((told - NOW).total_seconds() * 1000 + 0.5)])]
        assert waits, "no room, and nothing to wait for"
        clock = min(waits)


def at(milliseconds: int) -> datetime:
    return NOW + timedelta(milliseconds=milliseconds)


# Windows as people write them


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("60/minute", Window(60, 60)),
        ("60/min", Window(60, 60)),
        ("5/s", Window(5, 1)),
        ("5/second", Window(5, 1)),
        ("100/10s", Window(100, 10)),
        ("1000 / hour", Window(1000, 3600)),
        (" 3/day ", Window(3, 86400)),
        ("7/minutes", Window(7, 60)),
    ],
)
def test_a_window_is_read_as_it_is_meant(text: str, window: Window) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize(
    "text",
    [
        "",
        "60",
        "0/minute",
        "60/0s",
        "-1/s",
        "1.5/s",
        "60/fortnight",
        "60/minute/hour",
        "60 per minute",
        "5/ms",
        "5/10",
        "5/hs",
    ],
)
def test_what_is_no_window_is_none(text: str) -> None:
    assert parse_window(text) is None


@given(st.integers(1, 10_000), st.integers(1, 100_000))
def test_a_window_is_printed_as_it_can_be_read(limit: int, seconds: int) -> None:
    window = Window(limit, seconds)
    assert parse_window(str(window)) == window


# Waits


def test_backoff_doubles_up_to_its_cap() -> None:
    assert [backoff(n) for n in range(1, 7)] == [5, 10, 20, 40, 60, 60]
    assert [probe_pause(n) for n in range(1, 8)] == [30, 60, 120, 240, 480, 900, 900]
    assert [slot_pause(n) for n in range(1, 7)] == [15, 30, 60, 120, 240, 300]


@given(st.integers(-5, 10**9), st.floats(0, 1, exclude_max=True))
def test_backoff_is_never_below_its_first_step_nor_far_above_its_cap(errors: int, spread: float) -> None:
    assert 5.0 <= backoff(errors, spread=spread) <= 60.0 * 1.25
    assert backoff(errors, spread=spread) <= backoff(errors + 1, spread=spread)


def test_polls_leave_room_for_submissions() -> None:
    assert poll_every(5.0, 3, [], 8) == 5.0
    assert poll_every(5.0, 3, [Window(60, 60)], 8) == 5.0
    assert poll_every(5.0, 52, [Window(60, 60)], 8) == 60.0
    assert poll_every(5.0, 10, [Window(4, 60)], 8) == 600.0


@given(st.integers(1, 500), st.integers(1, 100), st.integers(1, 120), st.integers(0, 20))
def test_at_that_pace_polls_fit_their_share_of_the_window(tasks: int, limit: int, seconds: int, kept: int) -> None:
    pace = poll_every(1.0, tasks, [Window(limit, seconds)], kept)
    assert tasks * seconds / pace <= max(1, limit - kept) + 1e-9


def test_F03_an_unknown_host_is_hopeless_only_where_it_has_never_answered() -> None:
    now = datetime(2026, 11, 27, tzinfo=UTC)
    never, before = Breaker(), Breaker()
    before.heard(now, answered=True)
    for breaker in (never, before):
        for _ in range(3):
            assert not breaker.hopeless(3)
            breaker.heard(now, answered=False)
    assert never.hopeless(3)
    assert not before.hopeless(3), "without a network some systems say so of every name"
    assert before.hopeless(1), "an address or a certificate that is wrong"
    assert not never.hopeless(None)


def test_lists_go_as_often_as_tasks_are_polled_where_there_is_room() -> None:
    assert list_every(5.0, 1, []) == 5.0
    assert list_every(5.0, 1, [Window(60, 60)]) == 5.0
    assert list_every(5.0, 1, [Window(6, 60)]) == 30.0


@given(st.floats(1, 60), st.integers(1, 2), windows)
def test_lists_take_a_third_of_a_window_at_most(poll_interval: float, pages: int, limits: list[Window]) -> None:
    every = list_every(poll_interval, pages, limits)
    assert every >= poll_interval
    assert all(pages * window.seconds / every <= window.limit / 3 + 1e-9 for window in limits)


def test_a_share_is_a_third_of_the_smallest_window() -> None:
    assert share([]) is None
    assert share([Window(60, 60), Window(7, 1)]) == 2
    assert share([Window(2, 60)]) == 0
