"""Paid requests whose answer got lost, or came at a bad moment: never paid twice, and never forgotten."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from liar import Lie, Said, liar
from scene import Scene, scene, states, until
from structlog.testing import CapturingLogger

from runner.clock import Clock
from runner.engine import Engine, Exit
from runner.engine import lane as lanes
from runner.engine import run as runs
from runner.errors import InternalError, LocalError, NotSent
from runner.exchange import Accepted
from runner.jobs import Change, Event, Standing, State
from runner.ledger import Bill
from runner.lifecycle import accepting, deciding, hosting, looking, submitting
from runner.lifecycle import desk as desks
from runner.lifecycle.deciding import Declined
from runner.lifecycle.desk import Desk
from runner.store import Store, open_store, place
from runner.store.brink import Brink
from runner.store.work import Work
from runner.verdicts.submission import CONFLICT_WINDOW, Submission, beyond_key_window

NOW = datetime(2026, 11, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)
MEDIA = Path(__file__).parent.parent / "runner" / "sandbox" / "media"


def ahead(clock: Clock, seconds: float) -> Clock:
    """The same clock, set forward (or back)."""
    return Clock(clock.speed, clock.anchor - seconds / (clock.speed - 1))


def at_the_queue(s: Scene, statement: str) -> None:
    """What another process does to the queue meanwhile."""
    connection = sqlite3.connect(s.db, isolation_level=None, timeout=5)
    connection.execute(statement)
    connection.close()


async def cut_off(s: Scene, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends while the provider has accepted an order and says nothing: its answer never comes."""
    monkeypatch.setattr(runs, "PATIENCE", 0.0)
    await s.fault(provider, "hang", when="submit")
    await stopped_when(s, lambda: bool(s.tasks(provider)))
    assert states(await s.jobs()) == ["unknown"]


async def stopped_when(s: Scene, condition: Callable[[], bool]) -> None:
    async with s.engine() as engine:
        work = asyncio.create_task(engine.run())
        await until(condition)
        engine.stop.set()
        await work


# R11


@pytest.mark.parametrize(
    ("provider", "meanwhile"), [("seedance2ai", "unknown"), ("happyhorse", "unknown"), ("happyhorse", "held")]
)
async def test_an_answer_that_comes_after_the_lease_is_gone_settles_the_question(
    tmp_path: Path, provider: str, meanwhile: str
) -> None:
    """Others took us for dead, and the order for an open question: only we know the answer."""
    async with scene(tmp_path) as s:
        s.ask(provider, "slept too long")
        async with liar(s, provider, taken_over(s, meanwhile)) as proxy:
            assert await s.run() is Exit.DONE
        [job], [task] = await s.jobs(), s.tasks(provider)
        assert job.standing.task_id == task["id"]
        assert proxy.count("POST") == 1 or provider == "seedance2ai", "where there are keys it may be asked once more"
        assert job.charged - job.refunded == s.net(provider)


async def test_an_answer_whose_job_was_decided_without_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = CapturingLogger()
    monkeypatch.setattr(accepting, "log", told)
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "given up", model="nano-banana-2")
        async with liar(s, "happyhorse", taken_over(s, "cancelled")):
            await s.run()
        [task] = s.tasks("happyhorse")
        assert states(await s.jobs()) == ["cancelled"]
    [call] = told.calls
    assert (call.method_name, call.kwargs["task_id"]) == ("error", task["id"])


def taken_over(s: Scene, state: str) -> Lie:
    """While the first order is answered its job comes into this state, and nobody's lease."""
    orders: list[Said] = []

    def lie(said: Said) -> Said | None:
        if said.method == "POST" and not orders:
            orders.append(said)
            statement = f"UPDATE jobs SET state = '{state}', lease = NULL, owner = NULL WHERE state = 'submitting'"
            at_the_queue(s, statement)
        return None

    return lie


# R12


async def test_a_job_that_a_person_cancels_while_it_is_prepared_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "frame.png"
    picture.write_bytes(next(iter(sorted(MEDIA.glob("*.png")))).read_bytes())
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "its file is gone", duration=5, files={"first_frame": picture})
        s.ask("happyhorse", "goes on", duration=5)
        picture.unlink()
        inspect = hosting.references.inspect

        def meanwhile(path: Path) -> Any:
            at_the_queue(s, "UPDATE jobs SET state = 'cancelled' WHERE id = 1 AND state = 'queued'")
            return inspect(path)

        monkeypatch.setattr(hosting.references, "inspect", meanwhile)
        assert await s.run() is Exit.DONE
        assert states(await s.jobs()) == ["cancelled", "succeeded"]


async def test_two_that_hold_the_same_open_question_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "paid with the first key", duration=5)
        await cut_off(s, "happyhorse", monkeypatch)
        seen = await s.jobs()
        monkeypatch.setattr(looking, "unknowns", lambda *_: seen)  # both have read it before either has held it
        s.keys["happyhorse"] = "another-key"
        async with s.engine() as engine:
            [lane] = engine.lanes
            await looking.hold_foreign(lane.desk)
            await looking.hold_foreign(lane.desk)
        assert states(await s.jobs()) == ["held"]


# R13


@pytest.mark.parametrize("provider", ["seedance2ai", "happyhorse"])
async def test_an_open_question_of_another_key_is_never_resent_nor_looked_for(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as s:
        s.ask(provider, "whose account is it", duration=5)
        await cut_off(s, provider, monkeypatch)

        async def too_early(_: Desk) -> None:
            """The lane starts while the job is still under another worker's lease."""

        monkeypatch.setattr(looking, "hold_foreign", too_early)
        s.keys[provider] = s.sandbox.keys[provider] + "-other"
        async with liar(s, provider) as proxy:
            assert await s.run() is Exit.PERSON_NEEDED
        assert proxy.count("POST") == 0
        [job] = await s.jobs()
        assert (job.standing.state, job.standing.looks) == (State.HELD, 0)
        assert len(s.tasks(provider)) == 1


async def test_tasks_of_another_key_that_others_follow_to_their_end_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane has begun to wait for their word on its key when the last of them ends in another worker's hands."""
    begin = looking.hold_foreign

    async def begin_too_early(desk: Desk) -> None:
        await begin(desk)
        assert not desk.trusted
        at_the_queue(s, "UPDATE jobs SET state = 'failed', finished_at = updated_at WHERE state = 'running'")

    async with scene(tmp_path, render=600) as s:
        s.ask("seedance2ai", "paid with the key of yesterday")
        await stopped_when(s, lambda: bool(s.tasks("seedance2ai")))
        at_the_queue(s, "UPDATE attempts SET fingerprint = 'of yesterday'")
        monkeypatch.setattr(looking, "hold_foreign", begin_too_early)
        s.ask("seedance2ai", "to be paid with the key of today")
        async with asyncio.timeout(20):
            assert await s.run() is Exit.SOME_FAILED
        assert states(await s.jobs()) == ["failed", "succeeded"]


# R17, R18


def question(now: datetime, outcome: str = "no_answer", answered_at: datetime | None = None) -> Submission:
    """A request that left at NOW and has no definitive answer; the provider keeps keys for an hour."""
    standing = Standing(State.SUBMITTING, NOW, attempts=1)
    return Submission(
        1, 1, standing, 1, Bill(), outcome, NOW, answered_at, True, False, HOUR, timedelta(seconds=5), None, now
    )


def test_a_question_from_the_future_has_no_known_age() -> None:
    assert beyond_key_window(question(NOW - timedelta(seconds=1)))
    assert beyond_key_window(question(NOW - timedelta(days=1)))
    assert not beyond_key_window(question(NOW))
    assert not beyond_key_window(question(NOW + HOUR))
    assert beyond_key_window(question(NOW + HOUR + timedelta(seconds=1)))


@given(st.integers(0, 120), st.integers(0, 300))
@example(1, 91)
@example(50, 100)
@example(50, 111)
def test_a_conflict_proves_the_key_for_one_window_more(said: int, asked: int) -> None:
    answered_at, now = NOW + timedelta(minutes=said), NOW + timedelta(minutes=asked)
    sub = question(now, "conflict", answered_at)
    alive = now <= NOW + HOUR or (now <= answered_at + HOUR and now <= NOW + CONFLICT_WINDOW)
    assert beyond_key_window(sub) is not alive


async def test_a_clock_that_was_set_back_sends_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(tmp_path) as s:
        right = s.clock
        s.ask("seedance2ai", "one lighthouse")
        s.clock = ahead(right, 86_400)
        await cut_off(s, "seedance2ai", monkeypatch)
        s.clock = right
        at_the_queue(s, "UPDATE jobs SET due_at = 0")  # the longest outage, without the wait
        async with liar(s, "seedance2ai") as proxy:
            assert await s.run() is Exit.PERSON_NEEDED
        assert proxy.count("POST") == 0
        assert states(await s.jobs()) == ["held"]


async def test_an_old_conflict_does_not_stretch_the_key_window(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "one lighthouse")
        lie, posts = first_broken_then_conflict()
        async with liar(s, "seedance2ai", lie) as proxy:
            await stopped_when(s, lambda: len(posts) == 2)
            [job] = await s.jobs()
            assert job.attempt is not None
            assert (job.standing.state, job.attempt.outcome) == (State.UNKNOWN, "conflict")
            before = proxy.count("POST")
            s.clock = ahead(s.clock, 5400)
            assert await s.run() is Exit.PERSON_NEEDED
            assert proxy.count("POST") == before
        assert states(await s.jobs()) == ["held"]


def first_broken_then_conflict() -> tuple[Lie, list[Said]]:
    posts: list[Said] = []

    def lie(said: Said) -> Said | None:
        if said.method != "POST":
            return None
        posts.append(said)
        status, code = (500, "internal_error") if len(posts) == 1 else (409, "idempotency_conflict")
        return replace(said, status=status, body=b'{"error":{"code":"%s","message":"x"}}' % code.encode())

    return lie, posts


# R19


async def test_a_retry_waits_for_the_refund_of_the_failed_task(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "fails, refunded late", duration=5)
        await s.fault("happyhorse", "late_refund", when="submit", seconds=3000)
        assert await s.run() is Exit.SOME_FAILED
        [job] = await s.jobs()
        assert job.charged - job.refunded == 38
        answer = deciding.retry(job, [], s.clock.now())
        assert isinstance(answer, Declined)
        assert answer.later
        asked_out = replace(job, standing=replace(job.standing, settle_at=None))
        taken = deciding.retry(asked_out, [], s.clock.now())
        assert isinstance(taken, Change), "when nobody asks for it any more it need not be waited for"
        assert Decimal(taken.data["not_refunded"]) == 38


# R20


@pytest.mark.parametrize("seconds", [600, -600])
async def test_the_first_look_after_a_start_knows_the_providers_clock(
    tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as s:
        s.clock = ahead(s.clock, seconds)
        s.ask("happyhorse", "findable", duration=5)
        await cut_off(s, "happyhorse", monkeypatch)
        s.clock = ahead(s.clock, 1200)  # twenty minutes later the first look is also the last
        assert await s.run() is Exit.DONE
        [job], [task] = await s.jobs(), s.tasks("happyhorse")
        assert job.standing.task_id == task["id"]


async def test_a_task_told_by_a_call_is_waited_for_while_it_cannot_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that gets no answer is no look: not even where it would have been the last one."""
    refused: list[Said] = []

    def busy(said: Said) -> Said | None:
        if "queryTask" not in said.path or len(refused) >= 3:
            return None
        refused.append(said)
        return replace(said, status=503, body=b"")

    async with scene(tmp_path) as s:
        s.callback_url = "http://127.0.0.1:9/nobody"
        s.ask("seegen", "called back", duration=5)
        await cut_off(s, "seegen", monkeypatch)
        [task] = s.tasks("seegen")
        at_the_queue(s, f"UPDATE attempts SET hint = '{task['id']}'")
        s.clock = ahead(s.clock, 1200)  # the first look is also the last
        async with liar(s, "seegen", busy):
            assert await s.run() is Exit.DONE
        assert len(refused) == 3
        assert (await s.jobs())[0].standing.task_id == task["id"]


async def test_a_task_is_not_given_to_one_question_while_it_may_be_anothers(tmp_path: Path) -> None:
    """The two are not due at the same time, and the list tells nothing but their one prompt."""
    lists: list[Said] = []

    def terse(said: Said) -> Said | None:
        if "/videos?" not in said.path:
            return None
        lists.append(said)
        data = json.loads(said.body)
        entries = data["data"]["videos"]
        shown = ("video_id", "id", "prompt", "created_at", "status")
        terse = [{name: entry[name] for name in shown if name in entry} for entry in entries]
        data["data"]["videos"] = terse if len(lists) > 2 else []  # it lags, too
        return replace(said, body=json.dumps(data).encode())

    async with scene(tmp_path) as s:
        s.ask("happyhorse", "the same words", duration=5)
        s.ask("happyhorse", "the same words", duration=10)
        await s.fault("happyhorse", "lost_request", when="submit")
        await s.fault("happyhorse", "lost_answer", when="submit")
        async with liar(s, "happyhorse", terse):
            assert await s.run() is Exit.PERSON_NEEDED
        [task], [short, _] = s.tasks("happyhorse"), await s.jobs()
        assert len(lists) > 2
        assert short.standing.task_id != task["id"]


async def test_a_task_of_an_order_that_was_tried_anew_answers_no_other_question(tmp_path: Path) -> None:
    """Two takes of one render: the first order never arrives, the task of the second fails and is ordered once more."""
    async with scene(tmp_path, render=1) as s:
        for order, ends in (("lost_request", State.UNKNOWN), ("task_failed", State.FAILED)):
            s.ask("happyhorse", "the same words", duration=5)
            await s.fault("happyhorse", order, when="submit")
            async with s.engine() as engine:
                work = asyncio.create_task(engine.run())
                await until(lambda state=ends, seen=engine: any(tally.of(state) for tally in seen.tallies))
                engine.stop.set()
                await work
        [failed] = s.tasks("happyhorse")
        async with open_store(s.db, s.clock) as store:
            change = deciding.retry((await s.jobs())[1], [], s.clock.now())
            assert isinstance(change, Change)
            await store.record(change)
        await s.run()
        [lost, anew] = await s.jobs()
        assert (lost.standing.state, lost.standing.task_id) == (State.HELD, None)
        assert (anew.standing.state, anew.standing.task_id == failed["id"]) == (State.SUCCEEDED, False)


# R22


@pytest.mark.parametrize("times", [1, 3])
async def test_the_id_of_a_paid_task_is_stored_when_there_is_room_again(tmp_path: Path, times: int) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "a still", model="nano-banana-2")
        async with s.engine() as engine:
            tried = disk_full(engine, times)
            assert await engine.run() is Exit.DONE
            assert not place._ballast(Path(s.db)).exists(), "its room was given back"
        assert len(tried) == times + 1
        [job], [task] = await s.jobs(), s.tasks("happyhorse")
        assert job.standing.task_id == task["id"]


@pytest.mark.parametrize("end", ["time", "signal"])
async def test_the_id_of_a_paid_task_is_told_where_it_cannot_be_stored(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again and again, until that is given up, or the process has to end."""
    if end == "time":
        monkeypatch.setattr(accepting, "SAVE_SECONDS", 0.0)
    else:
        monkeypatch.setattr(runs, "PATIENCE", 0.5)
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "a still", model="nano-banana-2")
        async with s.engine() as engine:
            tried = disk_full(engine, 1000)
            running = asyncio.create_task(engine.run())
            await until(lambda: len(tried) > 1)
            if end == "signal":
                engine.stop.set()
            with pytest.raises(LocalError) as said:
                await running
        [task] = s.tasks("happyhorse")
        assert task["id"] in said.value.message
        assert f"--adopt {task['id']}" in (said.value.hint or "")


async def test_the_id_of_a_paid_task_is_told_even_if_its_account_cannot_be_written_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the same full disk keeps from the account's row must not cut short the saving of the id."""
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "a still", model="nano-banana-2")

        async def full(*_: object) -> None:
            raise LocalError("the disk is full", "make room")

        monkeypatch.setattr(submitting, "_move_account", full)
        async with s.engine() as engine:
            disk_full(engine, 1000)
            monkeypatch.setattr(accepting, "SAVE_SECONDS", 0.0)
            with pytest.raises(LocalError) as said:
                await engine.run()
        [task] = s.tasks("happyhorse")
        assert f"--adopt {task['id']}" in (said.value.hint or "")


async def test_the_id_of_a_paid_task_is_told_whatever_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a bug of ours, which no waiting mends."""
    said = CapturingLogger()
    monkeypatch.setattr(accepting, "log", said)

    def broken(*_: object) -> None:
        raise InternalError("a row that cannot be")

    monkeypatch.setattr(accepting, "after_submission", broken)
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "a still", model="nano-banana-2")
        with pytest.raises(InternalError):
            await s.run()
        [task] = s.tasks("happyhorse")
        assert [call.kwargs["task_id"] for call in said.calls] == [task["id"]]


def disk_full(engine: Engine, times: int) -> list[Change]:
    """The next `times` tries to record an accepted order fail as a full disk does; the list is of all tries."""
    record, tried = engine.store.record, []

    async def full(*changes: Change, **how: bool) -> None:
        if any(change.event is Event.ACCEPTED for change in changes):
            tried.append(changes[0])
            if len(tried) <= times:
                raise LocalError("the disk is full", "make room")
        await record(*changes, **how)

    engine.store.record = full  # type: ignore[method-assign]
    return tried


# R23


async def test_that_too_many_answers_were_lost_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account is closed for ten minutes: a person would wonder why nothing is ordered any more."""
    said = CapturingLogger()
    monkeypatch.setattr(lanes, "log", said)
    async with scene(tmp_path, speed=1200) as s:
        s.concurrency = 9
        for n in range(4):
            s.ask("happyhorse", f"unheard of {n}", duration=5)
        await s.fault("happyhorse", "lost_answer", when="submit", times=3)
        assert await s.run() is Exit.DONE
    assert [call.kwargs["why"] for call in said.calls] == ["3 answers were lost within 10 min"]


async def test_a_brink_that_this_machine_cannot_note_in_time_is_no_silence_of_the_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full for a while, say: the orders are put back, and neither paused nor is the provider blamed."""
    note, late = Store.mark_brink, [True] * 4
    said = CapturingLogger()
    monkeypatch.setattr(desks, "log", said)

    async def too_late(self: Store, brink: Brink) -> None:
        if late:
            late.pop()
            raise NotSent("it took too long to note that it was to be sent")
        await note(self, brink)

    monkeypatch.setattr(Store, "mark_brink", too_late)
    async with scene(tmp_path) as s:
        for n in range(4):
            s.ask("seedance2ai", f"in good time {n}")
        assert await s.run() is Exit.DONE
        assert not late
        assert not {call.args[0] for call in said.calls} & {"the provider does not answer", "orders are paused"}


async def test_nothing_is_paid_for_after_the_first_signal(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "a still", model="nano-banana-2")
        async with s.engine() as engine:
            [lane] = engine.lanes
            read, stopped = engine.store.read, False

            async def slow_disk(function: Callable[..., Any], *args: Any) -> Any:
                nonlocal stopped
                found = await read(function, *args)
                if function is lanes.load and args[0] and not stopped:
                    stopped = True
                    engine.stop.set()
                    await until(lambda: lane.stopping)
                return found

            engine.store.read = slow_disk  # type: ignore[method-assign]
            await engine.run()
        assert stopped
        assert s.tasks("happyhorse") == []
        assert states(await s.jobs()) == ["queued"], "what was claimed is given back"
        assert (await s.run(), len(s.tasks("happyhorse"))) == (Exit.DONE, 1)


# R27


async def test_an_answer_is_recorded_even_if_its_task_is_cancelled_in_that_very_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    pay = submitting._pay

    async def cancelled_then(desk: Desk, work: Work, claim: Any) -> Any:
        answers.append(await pay(desk, work, claim))
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return answers[-1]

    monkeypatch.setattr(submitting, "_pay", cancelled_then)
    async with scene(tmp_path, render=600) as s:
        s.ask("happyhorse", "a still", model="nano-banana-2")
        await stopped_when(s, lambda: bool(answers))
        [job] = await s.jobs()
        assert isinstance(answers[0], Accepted)
        assert (job.standing.state, job.standing.task_id) == (State.RUNNING, answers[0].task_id)
