"""What people and scripts read: exact, in order, page by page, and all of it from one moment."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, func, select
from sqlalchemy.util import await_only

from runner.errors import ErrorKind, LocalError
from runner.exchange import Action
from runner.jobs import Event, Failure, State
from runner.ledger import Entry, EntryKind
from runner.store import Store, accounts, open_store, read_store
from runner.store.changes import jobs
from runner.store.queries import (
    PAGE,
    batch_id,
    counts,
    find_job,
    history,
    known_states,
    last_durations,
    outputs_of_many,
    page_after,
    standings,
    stream,
    sums,
    tries,
    unsettled,
)
from runner.store.work import foreign_tasks, load, owned_task_ids, unknowns
from runner.verdicts.submission import Unanswered
from store.kit import (
    ACCOUNT,
    T0,
    HandClock,
    accept,
    answer,
    fill,
    order,
    published,
    refusal,
    rows,
    seconds,
    set_downloading,
    set_running,
    settings,
    step,
    take,
    take_submissions,
    work_of,
)

HOUR = timedelta(hours=1)
BOTH = [settings("one", concurrency=9), settings("two", concurrency=9)]


async def spread(store: Store) -> None:
    """Two batches on two accounts, in a few states."""
    await fill(store, [order(n, "one" if n < 4 else "two") for n in range(1, 7)], accounts=BOTH, name="first")
    await fill(store, [order(n, "one") for n in range(4, 9)], accounts=BOTH, name="second")
    await set_running(store, 2, "one")
    [claimed] = await take_submissions(store, 1, "two")
    await answer(store, claimed, refusal(Action.FAIL, ErrorKind.INVALID_REQUEST))


async def test_counts_and_sums_per_batch_and_account(store: Store) -> None:
    await spread(store)
    found = {(c.batch, c.account, c.state): (c.jobs, c.estimated) for c in await store.read(counts)}
    assert found == {
        ("first", "one", State.QUEUED): (1, 10),
        ("first", "one", State.RUNNING): (2, 20),
        ("first", "two", State.FAILED): (1, 10),
        ("first", "two", State.QUEUED): (2, 20),
        ("second", "one", State.QUEUED): (5, 50),
    }
    assert [(c.batch, c.jobs) for c in await store.read(counts, "second")] == [("second", 5)]
    assert await store.read(counts, "third") == []
    assert {(s.batch, s.account): (s.reserved, s.charged, s.refunded) for s in await store.read(sums)} == {
        ("first", "one"): (20, 0, 0),
        ("first", "two"): (0, 0, 0),
        ("second", "one"): (0, 0, 0),
    }


async def test_a_count_of_unpriced_jobs_is_no_amount(store: Store) -> None:
    await fill(store, [order(1, price=None), order(2, price="0.000001")])
    [found] = await store.read(counts)
    assert (found.jobs, found.estimated) == (2, Decimal("0.000001"))


async def test_what_is_unsettled_is_what_is_still_charged(store: Store) -> None:
    await fill(store, 3)
    for job, refund in zip(await set_running(store), ("0", "4", "10"), strict=True):
        work = await work_of(store, job)
        entries = (Entry(EntryKind.CHARGED, Decimal(10), "price"), Entry(EntryKind.REFUNDED, Decimal(refund), "status"))
        ended = step(Event.TASK_FAILED, work, State.FAILED, None, T0, unsettled=refund != "10")
        await store.record(replace(ended, entries=entries))
    assert await store.read(unsettled) == {ACCOUNT: Decimal(16)}


async def test_a_stream_gives_every_job_once_in_order(store: Store) -> None:
    many = 2 * PAGE + 3
    await fill(store, many)

    def keys(connection: Connection) -> list[str]:
        return [work.key for work in stream(connection)]

    found = await store.read(keys)
    assert found == [order(n).key for n in range(1, many + 1)]
    assert await store.read(keys_of_states, [State.RUNNING]) == []


def keys_of_states(connection: Connection, states: list[State]) -> list[str]:
    return [work.key for work in stream(connection, states=states)]


async def test_a_stream_chooses_by_batch_state_and_account(store: Store) -> None:
    await spread(store)

    def chosen(connection: Connection, **choice: object) -> list[tuple[str, str]]:
        return [(w.batch, w.key[:4]) for w in stream(connection, **choice)]  # type: ignore[arg-type]

    def second(connection: Connection) -> list[tuple[str, str]]:
        return chosen(connection, batch="second")

    def two(connection: Connection) -> list[tuple[str, str]]:
        return chosen(connection, account="two")

    def running(connection: Connection) -> list[tuple[str, str]]:
        return chosen(connection, states=[State.RUNNING, State.FAILED], batch="first")

    assert await store.read(second) == [("second", f"{n:04x}") for n in range(4, 9)]
    assert await store.read(two) == [("first", f"{n:04x}") for n in range(4, 7)]
    assert await store.read(running) == [("first", "0001"), ("first", "0002"), ("first", "0004")]


async def test_pages_follow_one_another(store: Store) -> None:
    await fill(store, PAGE + 2)
    first = await store.read(page_after, 0, "night", (), None)
    second = await store.read(page_after, first[-1].id, "night", (), None)
    assert (len(first), len(second)) == (PAGE, 2)
    assert await store.read(page_after, second[-1].id, "night", (), None) == []
    assert await store.read(page_after, 0, "another", (), None) == []
    assert await store.read(page_after, 0, None, [State.HELD], None) == []


async def test_streaming_many_costs_no_more_memory_than_streaming_few(store: Store) -> None:
    await fill(store, 3 * PAGE)

    def count(connection: Connection, most: int) -> int:
        return sum(1 for _, _ in zip(range(most), stream(connection), strict=False))

    peaks = []
    for most in (PAGE, PAGE, 3 * PAGE):
        tracemalloc.start()
        assert await store.read(count, most) == most
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 2.2 * peaks[1]


# JOB: an id, a key, or a unique beginning


async def found(store: Store, name: str) -> list[str]:
    return [work.key[:6] for work in await store.read(find_job, name)]


async def test_a_job_is_found_by_its_id_its_key_or_a_beginning(store: Store) -> None:
    one, two = replace(order(1), key="abc1" + "0" * 48), replace(order(2), key="abd2" + "f" * 48)
    await fill(store, [one, two])
    ids = [row.id for row in await rows(store, jobs)]
    assert await found(store, str(ids[1])) == ["abd2ff"]
    assert await found(store, one.key) == ["abc100"]
    assert await found(store, "abd") == ["abd2ff"]
    assert await found(store, "ab") == ["abc100", "abd2ff"]


@pytest.mark.parametrize(
    "name",
    ["abe", "z", "ABC1", "abc1%", "_", "abc1" + "0" * 48 + "0", "-1", "0", "9" * 30, "٣", "1e3", "' OR 1=1 --"],
)
async def test_what_is_no_job_finds_nothing(store: Store, name: str) -> None:
    await fill(store, [replace(order(1), key="abc1" + "0" * 48)])
    assert await found(store, name) == []


async def test_nothing_at_all_means_no_job(store: Store) -> None:
    await fill(store, 2)
    assert await found(store, "") == []


async def test_the_beginning_of_a_key_may_look_like_a_number(store: Store) -> None:
    digits = replace(order(1), key="7" * 52)
    await fill(store, [digits])
    assert await found(store, "7" * 10) == ["777777"]
    assert await found(store, "7" * 40) == ["777777"]


async def test_the_same_key_in_two_batches_is_two_jobs(store: Store) -> None:
    await fill(store, 1, name="one")
    await fill(store, 1, name="two")
    assert len(await store.read(find_job, order(1).key)) == 2


# The story of one job, and of an account


async def test_the_history_and_the_tries_of_a_job(store: Store, clock: HandClock) -> None:
    await fill(store, 1)
    [first] = await take_submissions(store)
    await answer(store, first, refusal(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS))
    clock.move(60)
    [second] = await take_submissions(store)
    await accept(store, second, "task-1")
    lines = await store.read(history, first.job_id)
    assert [(line.event, line.source, line.target) for line in lines] == [
        ("claimed", "queued", "submitting"),
        ("put_back", "submitting", "queued"),
        ("claimed", "queued", "submitting"),
        ("accepted", "submitting", "running"),
    ]
    assert [line.at for line in lines] == [T0, T0, T0 + seconds(60), T0 + seconds(60)]
    made = await store.read(tries, first.job_id)
    assert [(row.outcome, row.task_id) for row in made] == [("credits", None), ("accepted", "task-1")]
    assert await store.read(history, first.job_id + 1000) == []


async def test_published_outputs_are_told_without_thumbnails_and_wishes(store: Store) -> None:
    await fill(store, 2)
    first, second = await set_running(store)
    for job in (first, second):
        await set_downloading(store, job, "https://a", "https://b", "https://c")
    for claimed in (await take(store, downloads=1)).downloads:
        work = await work_of(store, claimed.job_id)
        files = (published(1), replace(published(0), thumbnail=False), replace(published(3), thumbnail=True))
        await store.record(step(Event.POSTPONED, work, State.DOWNLOADING, claimed.lease, T0, outputs=files))
    made = await store.read(outputs_of_many, [first, second])
    assert {job: [row.number for row in files] for job, files in made.items()} == {first: [0, 1]}


async def test_how_long_tasks_took(store: Store) -> None:
    await fill(store, 3)
    for n, job in enumerate(await set_running(store), start=1):
        work = await work_of(store, job)
        ended = step(Event.TASK_FAILED, work, State.FAILED, None, T0, accepted_at=T0, finished_at=T0 + seconds(n))
        await store.record(ended)
    assert await store.read(last_durations, ACCOUNT) == [3.0, 2.0, 1.0]
    assert await store.read(last_durations, ACCOUNT, 1) == [3.0]
    assert await store.read(last_durations, "another") == []


async def test_where_the_jobs_of_a_run_stand(store: Store, clock: HandClock) -> None:
    await spread(store)
    first = await store.read(batch_id, "first")
    assert await store.read(batch_id, "third") is None
    found = {s.account: s for s in await store.read(standings, clock.now(), [first], HOUR)}
    assert found["one"].states == {State.QUEUED: 1, State.RUNNING: 2}
    assert found["two"].states == {State.QUEUED: 2, State.FAILED: 1}
    whole = {s.account: s for s in await store.read(standings, clock.now(), None, HOUR)}
    assert whole["one"].states == {State.QUEUED: 6, State.RUNNING: 2}
    assert (whole["one"].overdue, whole["one"].stopped_model, whole["one"].cancelled_by_provider) == (0, 0, 0)


async def test_what_keeps_a_run_from_going_on_is_counted(store: Store, clock: HandClock) -> None:
    await fill(store, 4)
    await set_running(store, 2)
    await store.write(accounts.stop_model, ACCOUNT, "sd2")
    clock.move(timedelta(hours=6).total_seconds() + 1)
    work = await work_of(store, (await rows(store, jobs))[0].id)
    gone = replace(
        work.standing, state=State.CANCELLED, failure=Failure(ErrorKind.CANCELLED, "cancelled", "by the provider")
    )
    await store.record(replace(step(Event.TASK_CANCELLED, work, State.CANCELLED, None, clock.now()), standing=gone))
    [found] = await store.read(standings, clock.now(), None, HOUR)
    assert (found.overdue, found.stopped_model, found.cancelled_by_provider) == (1, 2, 1)
    assert await store.read(standings, clock.now(), [], HOUR) == []


async def test_known_states_of_a_plan(store: Store) -> None:
    await spread(store)
    keys = [order(n).key for n in range(1, 20)]
    found = await store.read(known_states, "first", keys)
    assert {key[:4]: (known.state, known.unpaid) for key, known in found.items()} == {
        "0001": (State.RUNNING, False),
        "0002": (State.RUNNING, False),
        "0003": (State.QUEUED, True),
        "0004": (State.FAILED, False),
        "0005": (State.QUEUED, True),
        "0006": (State.QUEUED, True),
    }
    assert await store.read(known_states, "third", keys) == {}


async def test_open_questions_owned_tasks_and_foreign_keys(store: Store) -> None:
    await fill(store, 3)
    await set_running(store, 1)
    [lost] = await take_submissions(store, 1)
    await answer(store, lost, Unanswered("silence"))
    [running] = [row for row in await rows(store, jobs) if row.state == "running"]
    assert [work.id for work in await store.read(unknowns, ACCOUNT)] == [lost.job_id]
    assert await store.read(unknowns, "another") == []
    assert await store.read(owned_task_ids, ACCOUNT, [running.task_id, "task-x"]) == {running.task_id}
    assert await store.read(owned_task_ids, "another", [running.task_id]) == set()
    assert await store.read(foreign_tasks, ACCOUNT, "fingerprint") == 0
    assert await store.read(foreign_tasks, ACCOUNT, "another key") == 1
    assert await store.read(load, []) == {}


# One moment, and nothing but reading


async def test_a_read_sees_one_moment(store: Store) -> None:
    """Two questions of one read get answers from before or after a commit, never one of each."""
    await fill(store, 1)

    def twice(connection: Connection) -> tuple[int, int]:
        count = select(func.count()).select_from(jobs)
        before = connection.execute(count).scalar_one()
        await_only(fill(store, 5))
        return before, connection.execute(count).scalar_one()

    assert await store.read(twice) == (1, 1)
    assert len(await rows(store, jobs)) == 5


async def test_a_read_cannot_write(store: Store) -> None:
    await fill(store, 1)

    def spoil(connection: Connection) -> None:
        connection.execute(jobs.update().values(state="failed"))

    with pytest.raises(LocalError, match="cannot be read"):
        await store.read(spoil)
    assert [row.state for row in await rows(store, jobs)] == ["queued"]


async def test_a_reading_store_writes_nothing(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store, 1)
    async with read_store(db, clock) as reader:
        assert len(await rows(reader, jobs)) == 1
        with pytest.raises(LocalError, match="for reading only"):
            await reader.write(lambda _: None)
