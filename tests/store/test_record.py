"""Recording: a change holds only where its job is believed to be; then all that it causes is written, once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from decimal import Decimal

import pytest

from runner.errors import ErrorKind, Fenced, LocalError, Taken
from runner.exchange import Accepted, Action, Phase, Report
from runner.jobs import Answer, Change, Event, Failure, OutputRow, State
from runner.ledger import Entry, EntryKind
from runner.lifecycle import deciding
from runner.store import Store, open_store
from runner.store.changes import attempts, events, jobs, ledger, outputs
from runner.store.pen import CROWD
from runner.store.work import outputs_of, peek
from runner.verdicts.submission import Unanswered, after_submission, never_resent
from store.kit import (
    ACCOUNT,
    T0,
    HandClock,
    accept,
    answer,
    done,
    fill,
    job_row,
    mark_brink,
    order,
    outcome,
    polled,
    published,
    refusal,
    rows,
    seconds,
    set_downloading,
    set_running,
    settings,
    state_of,
    step,
    submission,
    take,
    take_submissions,
    told,
    work_of,
)

# From the believed state, under the believed lease


async def test_an_accepted_order_writes_everything_it_causes(store: Store) -> None:
    await fill(store)
    [claimed] = await take_submissions(store)
    await accept(store, claimed, "task-7", charged="9.5")
    work = await work_of(store, claimed.job_id)
    assert (work.standing.state, work.standing.task_id, work.lease) == (State.RUNNING, "task-7", None)
    assert (work.charged, work.refunded) == (Decimal("9.5"), 0)
    attempt = work.attempt
    assert attempt is not None
    assert (attempt.outcome, attempt.bill.reserved, attempt.bill.charged) == ("accepted", 0, Decimal("9.5"))
    assert [(r.kind, r.amount, r.source) for r in await rows(store, ledger)] == [
        ("estimated", 10, "plan"),
        ("estimated", -10, "released"),
        ("charged", Decimal("9.5"), "submit"),
    ]
    assert await told(store, work.id) == ["claimed", "accepted"]
    assert (await job_row(store, work.id)).owner is None


@pytest.mark.parametrize("wrong", ["state", "lease", "no lease", "job"])
async def test_what_does_not_hold_causes_nothing(store: Store, clock: HandClock, wrong: str) -> None:
    await fill(store)
    await set_running(store)
    clock.move(60)
    [claimed] = (await take(store, polls=1)).polls
    before = [await rows(store, table) for table in (jobs, attempts, ledger, events, outputs)]
    change = await polled(store, claimed, done("task-1", used="8"))
    match wrong:
        case "state":
            failed = replace(change.standing, state=State.QUEUED)
            change = replace(change, event=Event.GIVEN_LEAVE, source=State.UNKNOWN, standing=failed)
        case "lease":
            change = replace(change, lease=claimed.lease + 2)
        case "no lease":
            change = replace(change, lease=None)
        case "job":
            change = replace(change, job_id=claimed.job_id + 1000)
    with pytest.raises(Fenced):
        await store.record(change)
    assert [await rows(store, table) for table in (jobs, attempts, ledger, events, outputs)] == before


async def test_the_same_change_cannot_happen_twice(store: Store, clock: HandClock) -> None:
    await fill(store)
    await set_running(store)
    clock.move(60)
    [claimed] = (await take(store, polls=1)).polls
    change = await polled(store, claimed, done(f"task-{claimed.job_id}", used="8"))
    found = await asyncio.gather(*(outcome(store.record(change)) for _ in range(5)))
    assert sum(isinstance(f, Fenced) for f in found) == 4
    assert [r.kind for r in await rows(store, ledger)] == ["estimated", "estimated", "charged", "refunded"]
    assert (await told(store, claimed.job_id)).count("finished") == 1


async def test_two_events_of_one_step_are_one(store: Store, clock: HandClock) -> None:
    await fill(store)
    [claimed] = await take_submissions(store)
    await mark_brink(store, claimed)
    clock.move(1)
    sub = replace(await submission(store, claimed, keyed=False, lookable=False), now=clock.now())
    await store.record(*after_submission(sub, Unanswered("silence")))
    assert await state_of(store, claimed.job_id) is State.HELD
    assert await told(store, claimed.job_id) == ["claimed", "answer_lost", "not_found"]


async def test_a_step_whose_first_change_does_not_hold_stops_there(store: Store, clock: HandClock) -> None:
    """Its second change could hold by chance: somebody else has made the job `unknown` in the meantime."""
    await fill(store)
    [claimed] = await take_submissions(store)
    await mark_brink(store, claimed)
    late = never_resent(await submission(store, claimed), "key_window", "too late")
    await answer(store, claimed, Unanswered("silence"))
    assert await state_of(store, claimed.job_id) is State.UNKNOWN
    with pytest.raises(Fenced):
        await store.record(*late)
    assert await state_of(store, claimed.job_id) is State.UNKNOWN
    assert await told(store, claimed.job_id) == ["claimed", "answer_lost"]


async def test_news_that_moves_nothing_leaves_no_history_unless_it_says_something(store: Store) -> None:
    await fill(store)
    [job] = await set_running(store)
    work = await work_of(store, job)
    quiet = step(Event.POLLED, work, State.RUNNING, None, T0, progress=12.5)
    await store.record(quiet)
    await store.record(replace(quiet, data={"unrecognised_status": "moonlit"}))
    assert await told(store, job) == ["claimed", "accepted", "polled"]
    assert json.loads((await rows(store, events))[-1].data) == {"unrecognised_status": "moonlit"}
    assert (await work_of(store, job)).standing.progress == 12.5


async def test_every_part_of_a_standing_comes_back_as_it_was_written(store: Store) -> None:
    await fill(store)
    [job] = await set_running(store)
    work = await work_of(store, job)
    full = replace(
        work.standing, due_at=T0 + seconds(1.000001), errors=3, attempts=2, generation=5, looks=2, task_id="t:7.x-y",
        status="läuft 🎬", progress=99.25, failure=Failure(ErrorKind.TIMEOUT, "c'ode", 'say "no"\n\\end'),
        accepted_at=T0 - seconds(0.5), finished_at=T0, unsettled=True, settle_at=T0 + seconds(60), settle_asks=2,
    )  # fmt: skip
    change = replace(step(Event.POLLED, work, State.RUNNING, None, T0), standing=full)
    await store.record(change)
    assert (await work_of(store, job)).standing == full
    await store.record(replace(change, standing=replace(work.standing, failure=None, progress=None)))
    assert (await work_of(store, job)).standing == replace(work.standing, failure=None, progress=None)


@pytest.mark.parametrize("text", ["a\x00b", "half \ud800 a sign", "\udfff", "\x1b[2J\x07", "'; DROP TABLE jobs; --"])
async def test_no_text_of_a_provider_can_keep_a_change_from_being_written(store: Store, text: str) -> None:
    """A task that was paid for must be followed, whatever its provider calls its status."""
    await fill(store)
    [claimed] = await take_submissions(store)
    await mark_brink(store, claimed)
    sub = await submission(store, claimed)
    failure = Failure(ErrorKind.BAD_RESPONSE, text, text)
    [change] = after_submission(sub, Accepted("task-1"))
    standing = replace(change.standing, status=text, failure=failure)
    told_so = Answer(sub.attempt_id, "accepted", T0, text, text, "task-1")
    await store.record(replace(change, standing=standing, answer=told_so, data={"why": text}))
    work = await work_of(store, claimed.job_id)
    assert work.standing.state is State.RUNNING
    assert work.standing.status is not None
    assert all(sign in work.standing.status for sign in text if sign.isalpha() and sign.isascii())


# One task belongs to one job


async def test_a_task_id_that_another_job_owns_is_refused(store: Store) -> None:
    await fill(store, 2)
    first, second = await take_submissions(store)
    await accept(store, first, "task-1")
    with pytest.raises(Taken):
        await accept(store, second, "task-1")
    assert await state_of(store, second.job_id) is State.SUBMITTING
    await accept(store, second, "task-2")


async def test_the_same_task_id_of_another_account_is_another_task(store: Store) -> None:
    await fill(store, [order(1, "one"), order(2, "two")], accounts=[settings("one"), settings("two")])
    for account in ("one", "two"):
        [claimed] = await take_submissions(store, account=account)
        await accept(store, claimed, "task-1")


@pytest.mark.parametrize("at_fault", [0, 4, 7])
async def test_only_the_one_at_fault_hears_of_it(store: Store, at_fault: int) -> None:
    """Its companions in the same crowd commit, with everything they cause, exactly once."""
    await fill(store, 9, accounts=[settings(concurrency=9)])
    owner, *claims = await take_submissions(store)
    await accept(store, owner, "taken")
    names = [f"task-{n}" for n in range(8)]
    names[at_fault] = "taken"
    for claimed in claims:
        await mark_brink(store, claimed)
    steps = [
        after_submission(await submission(store, claimed), Accepted(name, Decimal(9)))
        for claimed, name in zip(claims, names, strict=True)
    ]
    found = await asyncio.gather(*(outcome(store.record(*made)) for made in steps))
    assert [isinstance(f, Taken) for f in found] == [n == at_fault for n in range(8)]
    states = [await state_of(store, claimed.job_id) for claimed in claims]
    assert [s is State.SUBMITTING for s in states] == [n == at_fault for n in range(8)]
    charged = [r.job_id for r in await rows(store, ledger, ledger.c.kind == "charged")]
    assert sorted(charged) == sorted(c.job_id for n, c in enumerate(claims) if n != at_fault)


async def test_the_message_of_a_refusal_holds_no_value_of_the_row(store: Store) -> None:
    await fill(store, 2)
    first, second = await take_submissions(store)
    await accept(store, first, "task-1")
    with pytest.raises(Taken) as refused:
        await accept(store, second, "task-1")
    assert "shot" not in str(refused.value)
    assert "prompt" not in str(refused.value)


async def test_a_crowd_larger_than_one_commit_is_written_whole(store: Store) -> None:
    many = CROWD + 100
    await fill(store, many)
    works = await store.read(peek, T0, ACCOUNT, many, None)
    gone = [step(Event.CANCELLED, work, State.CANCELLED, None, T0) for work in works]
    await asyncio.gather(*(store.record(change) for change in gone))
    assert {row.state for row in await rows(store, jobs)} == {"cancelled"}
    assert len(await rows(store, events)) == many


async def test_a_function_that_fails_fails_alone(store: Store) -> None:
    await fill(store)
    [claimed] = await take_submissions(store)
    await mark_brink(store, claimed)
    made = after_submission(await submission(store, claimed), Accepted("task-1"))

    def broken(connection: object) -> None:
        raise ZeroDivisionError("a bug")

    found = await asyncio.gather(
        outcome(store.write(broken)), outcome(store.record(*made)), outcome(store.write(lambda _: 42))
    )
    assert (type(found[0]), found[1:]) == (ZeroDivisionError, [None, 42])
    assert await state_of(store, claimed.job_id) is State.RUNNING


async def test_a_closed_queue_takes_nothing_more(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store)
    with pytest.raises(LocalError, match="closed"):
        await store.write(lambda _: None)


async def test_what_was_handed_over_before_the_end_is_written(db: str, clock: HandClock) -> None:
    async with open_store(db, clock, own=True) as store:
        await fill(store)
        [claimed] = await take_submissions(store)
        await mark_brink(store, claimed)
        made = after_submission(await submission(store, claimed), Accepted("task-1"))
        writing = asyncio.create_task(store.record(*made))
        await asyncio.sleep(0)
    await writing
    async with open_store(db, clock, own=True) as store:
        assert await state_of(store, claimed.job_id) is State.RUNNING


async def test_an_amount_is_exact_to_the_millionth(store: Store) -> None:
    await fill(store)
    [job] = await set_running(store)
    work = await work_of(store, job)
    amount = Decimal("123456789012.345678")
    entries = tuple(Entry(EntryKind.CHARGED, amount, "status") for _ in range(3))
    await store.record(replace(step(Event.POLLED, work, State.RUNNING, None, T0), entries=entries))
    assert (await work_of(store, job)).charged == 3 * amount


# Outputs


async def test_a_completed_task_names_the_files_that_are_wanted(store: Store) -> None:
    await fill(store)
    [job] = await set_running(store)
    await set_downloading(store, job, "https://cdn.example/1?sig=a", "https://cdn.example/2?sig=b")
    found = await store.read(outputs_of, job)
    assert found == [OutputRow(0, "https://cdn.example/1?sig=a"), OutputRow(1, "https://cdn.example/2?sig=b")]


@pytest.mark.parametrize("adopted", ["another task", "its own"])
async def test_the_files_of_a_task_are_not_wanted_of_another_one(store: Store, adopted: str) -> None:
    await fill(store)
    [job] = await set_running(store)
    await set_downloading(store, job, "https://cdn.example/1?sig=a", "https://cdn.example/2?sig=b")
    [claimed] = (await take(store, downloads=1)).downloads
    work = await work_of(store, job)
    await store.record(step(Event.DOWNLOAD_FAILED, work, State.HELD, claimed.lease, store.clock.now()))
    held, known = await work_of(store, job), await store.read(outputs_of, job)
    task = "task-9" if adopted == "another task" else work.standing.task_id
    assert task is not None
    change = deciding.adopt(held, task, done(task), known, store.clock.now())
    assert isinstance(change, Change)
    await store.record(change)
    left = [row.url for row in await store.read(outputs_of, job) if row.url]
    assert len(left) == (0 if adopted == "another task" else 2)


async def test_a_complete_render_that_a_person_gives_its_own_task_again_stays_complete(store: Store) -> None:
    """Whatever its provider says of it later: it was paid for, and is never `failed`."""
    await fill(store)
    [job] = await set_running(store)
    await set_downloading(store, job)
    [claimed] = (await take(store, downloads=1)).downloads
    work = await work_of(store, job)
    await store.record(step(Event.DOWNLOAD_FAILED, work, State.HELD, claimed.lease, store.clock.now()))
    held, task = await work_of(store, job), work.standing.task_id
    assert task is not None
    change = deciding.adopt(held, task, done(task), [], store.clock.now())
    assert isinstance(change, Change)
    await store.record(change)
    [asked] = (await take(store, polls=1)).polls
    assert (await polled(store, asked, Report(task, Phase.FAILED, "failed"))).standing.state is State.HELD


async def test_a_published_file_keeps_its_place_and_loses_its_url(store: Store, clock: HandClock) -> None:
    await fill(store)
    [job] = await set_running(store)
    await set_downloading(store, job, "https://cdn.example/1?sig=a", "https://cdn.example/2?sig=b")
    [claimed] = (await take(store, downloads=1)).downloads
    work = await work_of(store, job)
    expired = step(Event.URL_EXPIRED, work, State.RUNNING, claimed.lease, clock.now(), outputs=(published(0),))
    await store.record(expired)
    assert await store.read(outputs_of, job) == [published(0), OutputRow(1, "https://cdn.example/2?sig=b")]
    await set_downloading(store, job, "https://cdn.example/1?sig=NEW", "https://cdn.example/2?sig=NEW")
    assert await store.read(outputs_of, job) == [published(0), OutputRow(1, "https://cdn.example/2?sig=NEW")]
    assert [row.published_at for row in await rows(store, outputs)] == [T0 + seconds(60), None]


async def test_a_refused_change_publishes_nothing(store: Store) -> None:
    await fill(store)
    [job] = await set_running(store)
    await set_downloading(store, job)
    work = await work_of(store, job)
    with pytest.raises(Fenced):
        await store.record(step(Event.COMPLETED, work, State.SUCCEEDED, 77, T0, outputs=(published(0),)))
    assert [row.path for row in await store.read(outputs_of, job)] == [None]


async def test_a_put_back_job_is_submitted_anew_with_its_own_attempt(store: Store, clock: HandClock) -> None:
    await fill(store)
    [first] = await take_submissions(store)
    await answer(store, first, refusal(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS))
    clock.move(60)
    [second] = await take_submissions(store)
    made = await rows(store, attempts)
    assert [row.generation for row in made] == [1, 2]
    assert made[0].idempotency_key != made[1].idempotency_key
    work = await work_of(store, second.job_id)
    assert work.attempt is not None
    assert (work.attempt.id, work.standing.attempts) == (made[1].id, 1)
    assert [(row.reserved, row.outcome) for row in made] == [(0, "credits"), (10, None)]
