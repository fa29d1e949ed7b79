"""The verdicts: what an answer means for a job, for every sequence of answers that can come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.errors import ErrorKind
from runner.exchange import Accepted, Action, Listed, Phase, Refusal, Report, ResultFile
from runner.jobs import TERMINAL, THUMBNAILS, Change, Event, Failure, Standing, State
from runner.ledger import Bill, EntryKind, as_text, reserve
from runner.verdicts.looking import TOLERANCE, Question, identify, tells_our_time
from runner.verdicts.polling import (
    EMPTY_TIMES,
    NOT_CHARGED,
    NOT_FOUND_TIMES,
    OVERDUE_EVERY,
    SETTLE_AFTER,
    Poll,
    after_poll,
    after_settling,
    no_news,
    overdue,
)
from runner.verdicts.submission import (
    KEEP_KEY,
    LOOK_AFTER,
    Outcome,
    Submission,
    Unanswered,
    Unsent,
    after_submission,
    beyond_key_window,
    idempotency_key,
    never_resent,
    next_look,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PRICE = Decimal(10)
HOUR = timedelta(hours=1)
KINDS = {
    Action.FAIL: ErrorKind.INVALID_REQUEST,
    Action.LATER: ErrorKind.RATE_LIMITED,
    Action.SLOT: ErrorKind.RATE_LIMITED,
    Action.CREDITS: ErrorKind.INSUFFICIENT_CREDITS,
    Action.STOP: ErrorKind.UNAUTHORIZED,
    Action.STOP_MODEL: ErrorKind.UNAUTHORIZED,
    Action.AMBIGUOUS: ErrorKind.UNAVAILABLE,
    Action.CONFLICT: ErrorKind.BAD_RESPONSE,
    Action.NOT_FOUND: ErrorKind.NOT_FOUND,
}
DEFINITIVE = frozenset(KINDS) - {Action.AMBIGUOUS, Action.CONFLICT, Action.NOT_FOUND}


def refused(action: Action, wait: float | None = None) -> Refusal:
    return Refusal(action, KINDS[action], action.value, f"told to {action.value}", wait=wait)


# Submissions: one job, from its first claim to wherever it ends, against a provider that may do anything


@dataclass
class Try:
    """One intent: its generation, whether it passed the brink, and whether all of its requests were answered."""

    generation: int
    sent: bool = False
    open: bool = False


@dataclass
class Journey:
    """A job as the store would keep it, and the truth about what its provider accepted."""

    keyed: bool
    lookable: bool
    standing: Standing = field(default_factory=lambda: Standing(State.QUEUED, NOW))
    now: datetime = NOW
    bill: Bill = field(default_factory=Bill)
    outcome: str | None = None
    brink_at: datetime | None = None
    answered_at: datetime | None = None
    tries: list[Try] = field(default_factory=list)
    accepted: set[Any] = field(default_factory=set)

    def claim(self) -> None:
        """queued → submitting: a new attempt, paid for by a reservation."""
        standing = self.standing
        self.standing = replace(standing, state=State.SUBMITTING, attempts=standing.attempts + 1)
        self.bill, self.outcome = Bill().after(reserve(PRICE)), None
        self.brink_at = self.answered_at = None
        self.tries.append(Try(standing.generation))

    def resend(self) -> None:
        """unknown → submitting: the same attempt."""
        self.standing = replace(self.standing, state=State.SUBMITTING)

    def ask(self, outcome: Outcome, *, arrives: bool) -> None:
        """One request, its answer, and whether the provider took it (`arrives` decides where the answer does not)."""
        sub = self.submission()
        if beyond_key_window(sub):
            self.apply(never_resent(sub, "key_window", "too late"))
            return
        if not isinstance(outcome, Unsent):
            self.brink_at = self.brink_at or self.now
            self.tries[-1].sent = True
            self._provider(outcome, arrives)
        self.apply(after_submission(replace(sub, brink_at=self.brink_at), outcome))

    def _provider(self, outcome: Outcome, arrives: bool) -> None:
        """A truthful provider: no to a first request means no; to a resend it says nothing of the first."""
        key = self.standing.generation if self.keyed else object()
        known = self.keyed and key in self.accepted
        definitive = isinstance(outcome, Accepted) or (isinstance(outcome, Refusal) and outcome.action in DEFINITIVE)
        if isinstance(outcome, Accepted) or (not definitive and arrives and not known):
            self.accepted.add(key)
        current = self.tries[-1]
        current.open = not isinstance(outcome, Accepted) and (current.open or not definitive)

    def submission(self) -> Submission:
        return Submission(
            1, 77, self.standing, 5, self.bill, self.outcome, self.brink_at, self.answered_at, self.keyed,
            self.lookable, HOUR, timedelta(seconds=5), None, self.now,
        )  # fmt: skip

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            assert change.source is self.standing.state
            assert change.lease == (77 if self.standing.state is State.SUBMITTING else None)
            before, self.standing = self.standing, change.standing
            self.bill = self.bill.after(change.entries)
            if change.answer is not None:
                self.outcome, self.answered_at = change.answer.outcome, change.answer.answered_at
            self.check(before)

    def check(self, before: Standing) -> None:
        state, current = self.standing.state, self.tries[-1]
        if state in (State.QUEUED, State.FAILED):
            assert not current.open, "nothing may be sent anew while an earlier try may have been accepted"
            assert self.bill.reserved == 0
            assert self.standing.attempts == 0, "what was not accepted was not paid"
        if state in (State.UNKNOWN, State.HELD):
            assert self.bill.reserved == PRICE, "what may be owed stays reserved"
            assert self.standing.attempts == 1
        if self.standing.generation != before.generation:
            assert self.standing.generation == before.generation + 1
            assert current.sent, "a new key needs an answer; what was never sent keeps its own"
            assert not current.open
        if state is State.RUNNING:
            assert (self.standing.attempts, self.standing.errors) == (1, 0)
        assert self.standing.due_at >= self.now


actions = st.sampled_from(sorted(KINDS)).map(refused)
outcomes = st.one_of(
    st.builds(Accepted, st.just("task-1"), st.none() | st.just(PRICE)),
    st.just(Unsent("refused")),
    st.just(Unanswered("silence")),
    actions,
)
rounds = st.lists(st.tuples(outcomes, st.booleans(), st.integers(0, 1800)), min_size=1, max_size=12)


@given(st.booleans(), st.booleans(), rounds)
def test_no_sequence_of_answers_pays_twice(
    keyed: bool, lookable: bool, answers: list[tuple[Outcome, bool, int]]
) -> None:
    """Every outcome of every request, with keys and without: the invariants stand in `Journey.check`."""
    job = Journey(keyed, lookable)
    for said, arrives, pause in answers:
        job.now += timedelta(seconds=pause)
        if job.standing.state is State.QUEUED:
            job.claim()
        elif job.standing.state is State.UNKNOWN and keyed:
            job.resend()
        else:
            break
        job.ask(said, arrives=arrives)
    assert len(job.accepted) <= 1
    if job.accepted:
        assert job.standing.state in (State.RUNNING, State.UNKNOWN, State.HELD), "what was accepted is never forgotten"
    if not keyed:
        assert sum(1 for made in job.tries if made.open) <= 1


@given(st.booleans(), st.booleans(), outcomes)
def test_one_answer_alone(keyed: bool, lookable: bool, said: Outcome) -> None:
    job = Journey(keyed, lookable)
    job.claim()
    job.ask(said, arrives=True)
    match said:
        case Accepted():
            expected = {State.RUNNING}
        case Unsent():
            expected = {State.QUEUED}
        case Refusal(action=Action.FAIL):
            expected = {State.FAILED}
        case Refusal(action=Action.CONFLICT):
            expected = {State.HELD}
        case Refusal(action=action) if action in DEFINITIVE:
            expected = {State.QUEUED}
        case _:
            expected = {State.UNKNOWN} if keyed or lookable else {State.HELD}
    assert {job.standing.state} == expected


@given(st.lists(outcomes, min_size=1, max_size=6))
def test_an_open_question_keeps_its_key_its_bytes_and_its_evidence(answers: list[Outcome]) -> None:
    """Whatever a resend is told: accepted ends it, a refusal for good is a person's business, all else asks again."""
    job = Journey(keyed=True, lookable=False)
    job.claim()
    job.ask(Unanswered("silence"), arrives=True)
    for said in answers:
        job.resend()
        job.ask(said, arrives=False)
        assert (job.standing.generation, len(job.tries), job.standing.attempts) == (1, 1, 1)
        match said:
            case Accepted():
                assert job.standing.state is State.RUNNING
                return
            case Refusal(action=Action.FAIL):
                assert job.standing.state is State.HELD
                assert job.standing.failure is not None
                assert said.message in job.standing.failure.message
                return
            case _:
                assert job.standing.state is State.UNKNOWN
                assert job.outcome in ("no_answer", "ambiguous", "conflict")


@pytest.mark.parametrize("action", sorted(DEFINITIVE - {Action.FAIL}))
@pytest.mark.parametrize("keyed", [True, False])
def test_which_rejections_keep_the_key(action: Action, keyed: bool) -> None:
    """With keys, 429 and "busy" answers keep it, since a key may cache any other error; without keys none does."""
    job = Journey(keyed, lookable=False)
    job.claim()
    job.ask(refused(action), arrives=False)
    assert job.standing.generation == (1 if keyed and action in KEEP_KEY else 2)


def test_a_request_that_never_left_waits_a_little_longer_each_time() -> None:
    job = Journey(keyed=False, lookable=True)
    waits = []
    for _ in range(6):
        job.claim()
        job.ask(Unsent("no route to host"), arrives=False)
        waits.append((job.standing.due_at - job.now).total_seconds())
    assert waits == [5, 10, 20, 40, 60, 60]
    assert job.standing.generation == 1


@pytest.mark.parametrize(
    ("asked_before", "minute", "window"),
    [
        ("no_answer", 2, 60),
        ("crash", 2, 60),
        ("ambiguous", 50, 60),
        ("conflict", 0, 60),
        ("conflict", 30, 90),
        ("conflict", 60, 120),
        ("conflict", 110, 120),
    ],
)
def test_beyond_the_key_window_nothing_is_sent_again(asked_before: str, minute: int, window: int) -> None:
    """An hour from the brink; a 409 proves the key alive when it is said, which prolongs it, up to two hours."""
    job = Journey(keyed=True, lookable=False)
    job.claim()
    job.outcome, job.brink_at, job.answered_at = asked_before, NOW, NOW + timedelta(minutes=minute)
    job.now = NOW + timedelta(minutes=window)
    assert not beyond_key_window(job.submission())
    job.now += timedelta(microseconds=1)
    sub = job.submission()
    assert beyond_key_window(sub)
    first, second = never_resent(sub, "key_window", "too late")
    assert (first.event, second.event) == (Event.ANSWER_LOST, Event.NOT_FOUND)
    assert second.standing.state is State.HELD
    assert first.entries == second.entries == ()


def test_a_question_from_the_future_has_no_known_age() -> None:
    """The clock was set back: how long ago it was asked, nobody can tell."""
    job = Journey(keyed=True, lookable=False)
    job.claim()
    job.outcome, job.brink_at, job.now = "no_answer", NOW, NOW - timedelta(microseconds=1)
    assert beyond_key_window(job.submission())


def test_a_first_request_is_within_any_window() -> None:
    job = Journey(keyed=True, lookable=False)
    job.claim()
    job.now = NOW + timedelta(days=9)
    assert not beyond_key_window(job.submission())


@given(st.text(), st.text(), st.integers(1, 10**6))
def test_a_key_says_batch_job_and_generation_and_nothing_else(batch: str, key: str, generation: int) -> None:
    made = idempotency_key(batch, key, generation)
    assert made == idempotency_key(batch, key, generation)
    assert len(made) == 40
    assert made.isalnum()
    assert made != idempotency_key(batch, key, generation + 1)
    assert made != idempotency_key(batch, key + "x", generation)
    assert made != idempotency_key(batch + "x", key, generation)


@given(st.integers(0, 3600))
def test_looks_are_made_at_once_after_a_minute_and_after_a_quarter_of_an_hour(age: int) -> None:
    at = next_look(NOW, NOW + timedelta(seconds=age))
    expected = next((pause for pause in (60, 900) if pause > age), None)
    assert at == (None if expected is None else NOW + timedelta(seconds=expected))
    assert LOOK_AFTER[0] == timedelta(0)


# Polls


def asked(
    standing: Standing | None = None, *, bill: Bill | None = None, priced: Decimal | None = PRICE, now: datetime = NOW
) -> Poll:
    running = Standing(State.RUNNING, NOW, attempts=1, task_id="task-1", accepted_at=NOW)
    return Poll(
        1, 77, standing or running, bill or Bill(PRICE), priced, timedelta(seconds=5), timedelta(hours=6), 3, now
    )  # fmt: skip


def said(phase: Phase, **more: Any) -> Report:
    return Report("task-1", phase, phase.value, **more)


DONE = said(Phase.DONE, files=(ResultFile("https://a", 0), ResultFile("https://b", 1, thumbnail=True)), used=PRICE)

money = st.none() | st.decimals(0, 50, places=2)
reports = st.builds(
    Report,
    task_id=st.just("task-1"),
    phase=st.sampled_from(Phase),
    status=st.text(max_size=5),
    recognised=st.booleans(),
    progress=st.none() | st.floats(0, 100),
    files=st.lists(st.builds(ResultFile, st.just("https://a"), st.integers(0, 3), st.booleans()), max_size=3).map(
        tuple
    ),
    missing=st.lists(st.just("moderated"), max_size=2).map(tuple),
    used=money,
    charged=money,
    refunded=money,
    error=st.none() | actions,
)
standings = st.builds(
    Standing,
    state=st.just(State.RUNNING),
    due_at=st.just(NOW),
    errors=st.integers(0, 5),
    attempts=st.just(1),
    task_id=st.just("task-1"),
    failure=st.none() | st.sampled_from(["empty", "404"]).map(lambda code: Failure(ErrorKind.NOT_FOUND, code, "")),
    accepted_at=st.just(NOW) | st.just(NOW - timedelta(days=1)),
    finished_at=st.none() | st.just(NOW),
)


@given(standings, reports | actions, money)
def test_whatever_a_provider_says_of_a_task_the_job_and_its_bill_stay_sound(
    standing: Standing, answer: Report | Refusal, priced: Decimal | None
) -> None:
    poll = asked(standing, priced=priced)
    change = after_poll(poll, answer)
    after, bill = change.standing, poll.bill.after(change.entries)
    assert (change.source, change.lease, change.request) == (State.RUNNING, 77, 3)
    assert 0 <= bill.refunded <= bill.charged
    assert bill.reserved >= 0
    if after.state is State.RUNNING:
        assert after.due_at > NOW, "nothing is asked twice at once"
        assert bill == poll.bill, "no money moves while the task goes on"
        assert after.task_id == "task-1"
    if after.state is State.DOWNLOADING:
        assert change.outputs
        free = isinstance(answer, Report) and Decimal(0) in (answer.used, answer.charged)  # so the provider says
        assert bill.charged or bill.reserved or after.unsettled or not priced or free
    if standing.finished_at is not None:
        assert after.state is not State.FAILED, "a completed render is never failed"
        assert after.state is not State.QUEUED, "… and never bought again by itself"
        assert after.state is not State.CANCELLED
    if after.state is State.QUEUED:
        assert bill.charged == bill.refunded, "only what is free goes again by itself"
        assert (after.task_id, after.attempts, after.generation) == (None, 0, standing.generation + 1)
    if isinstance(answer, Refusal):
        assert bill == poll.bill, "a refusal to answer says nothing of money"
        assert after.state in (State.RUNNING, State.HELD)


def test_a_completed_task_is_fetched() -> None:
    change = after_poll(asked(), DONE)
    assert (change.event, change.standing.state) == (Event.FINISHED, State.DOWNLOADING)
    assert [(o.index, o.url, o.thumbnail) for o in change.outputs] == [
        (0, "https://a", False),
        (THUMBNAILS + 1, "https://b", True),
    ]
    assert not change.standing.unsettled


def test_an_unknown_status_means_still_going_and_is_told_once() -> None:
    odd = replace(said(Phase.GOING), status="moonlit", recognised=False)
    first = after_poll(asked(), odd)
    assert (first.event, first.standing.status, dict(first.data)) == (
        Event.POLLED,
        "moonlit",
        {"unrecognised_status": "moonlit"},
    )
    assert dict(after_poll(asked(first.standing), odd).data) == {}


def test_a_task_past_its_timeout_is_asked_hourly_and_never_given_up() -> None:
    late = asked(now=NOW + timedelta(hours=6, seconds=1))
    assert overdue(late.standing, late.timeout, late.now)
    change = after_poll(late, said(Phase.GOING))
    assert (change.standing.state, change.standing.due_at) == (State.RUNNING, late.now + OVERDUE_EVERY)
    on_time = asked(now=NOW + timedelta(hours=6))
    assert after_poll(on_time, said(Phase.GOING)).standing.due_at == on_time.now + timedelta(seconds=5)


@pytest.mark.parametrize(
    ("ordered", "told"), [(1, None), (2, "1 of 2 outputs did not come"), (4, "3 of 4 outputs did not come")]
)
def test_F55_fewer_outputs_than_ordered_are_not_all_of_them(ordered: int, told: str | None) -> None:
    """A provider may complete a task with fewer, and say no word about the others."""
    change = after_poll(replace(asked(), asked=ordered), DONE)
    assert change.standing.state is State.DOWNLOADING
    assert (change.standing.failure and change.standing.failure.message) == told


def test_a_missing_task_is_believed_lost_after_three_times_over_a_minute() -> None:
    poll, began = asked(), NOW
    for n in range(1, NOT_FOUND_TIMES + 1):
        change = after_poll(poll, refused(Action.NOT_FOUND))
        assert change.standing.state is (State.HELD if n == NOT_FOUND_TIMES else State.RUNNING)
        poll = asked(change.standing, now=change.standing.due_at)
    assert poll.now - began >= timedelta(seconds=60)
    assert change.event is Event.TASK_LOST
    assert change.standing.task_id == "task-1"


@pytest.mark.parametrize("between", [said(Phase.GOING), refused(Action.LATER)])
def test_an_answer_in_between_starts_the_count_anew(between: Report | Refusal) -> None:
    standing = asked().standing
    for answer in (refused(Action.NOT_FOUND), refused(Action.NOT_FOUND), between, refused(Action.NOT_FOUND)):
        standing = after_poll(asked(standing), answer).standing
    assert (standing.state, standing.errors) == (State.RUNNING, 1)


def test_an_outage_while_it_was_rendered_counts_for_no_try_to_fetch_it() -> None:
    """Else the first hiccup of a download after such a night would hold the job for a person."""
    standing = Standing(State.RUNNING, NOW, errors=45, attempts=1, task_id="task-1", accepted_at=NOW)
    assert after_poll(asked(standing), DONE).standing.errors == 0
    fetched = replace(standing, errors=16, finished_at=NOW)
    assert after_poll(asked(fetched), DONE).standing.errors == 16, "tries to fetch it do count, over all its addresses"


def test_a_completed_task_without_files_is_held_and_paid() -> None:
    poll = asked()
    for n in range(1, EMPTY_TIMES + 2):
        change = after_poll(poll, said(Phase.DONE, used=PRICE))
        assert change.standing.state is (State.HELD if n > EMPTY_TIMES else State.RUNNING)
        poll = replace(asked(change.standing), bill=poll.bill.after(change.entries))
    assert poll.bill == Bill(charged=PRICE)


def test_no_answer_means_ask_later_and_later() -> None:
    standing, waits = asked().standing, []
    for _ in range(6):
        change = no_news(asked(standing), Failure(ErrorKind.NETWORK, "no_answer", ""))
        standing = change.standing
        waits.append((standing.due_at - NOW).total_seconds())
    assert waits == [5, 10, 20, 40, 60, 60]
    assert (change.event, standing.state) == (Event.POLLED, State.RUNNING)
    assert no_news(asked(), Failure(ErrorKind.NETWORK, "", ""), wait=300.0).standing.due_at == NOW + timedelta(
        minutes=5
    )


def test_questions_without_an_answer_are_no_fruitless_tries_to_fetch() -> None:
    """A complete task is asked for a fresh URL while its provider is away for an hour: its files have all their tries
    left."""
    complete = after_poll(asked(), DONE).standing
    standing = replace(complete, state=State.RUNNING, errors=8)
    for _ in range(60):
        change = no_news(asked(standing), Failure(ErrorKind.NETWORK, "no_answer", ""))
        standing = change.standing
        assert standing.due_at - NOW == timedelta(minutes=1)
    assert after_poll(asked(standing), DONE).standing.errors == 8


@pytest.mark.parametrize("action", sorted(NOT_CHARGED))
def test_a_task_refused_for_want_of_credits_or_service_and_free_is_queued_again(action: Action) -> None:
    """Its documented price is not booked for what was never made. It counts as free only if the provider says so."""
    silent = after_poll(asked(), said(Phase.FAILED, error=refused(action)))
    assert (silent.event, silent.standing.state) == (Event.TASK_FAILED, State.FAILED)
    change = after_poll(asked(), said(Phase.FAILED, error=refused(action), used=Decimal(0)))
    assert (change.event, change.standing.state) == (Event.TASK_REFUSED, State.QUEUED)
    assert asked().bill.after(change.entries) == Bill()
    assert change.standing.due_at > NOW


@pytest.mark.parametrize(
    ("bill", "figures"),
    [
        (Bill(charged=PRICE), {}),
        (Bill(PRICE), {"used": PRICE}),
        (Bill(PRICE), {"charged": PRICE, "refunded": Decimal(4)}),
    ],
    ids=["deducted at the submission", "used", "not all refunded"],
)
def test_a_refused_task_that_was_charged_is_not_bought_again(bill: Bill, figures: dict[str, Decimal]) -> None:
    refused_task = said(Phase.FAILED, error=refused(Action.CREDITS), **figures)
    change = after_poll(asked(bill=bill), refused_task)
    assert (change.event, change.standing.unsettled) == (Event.TASK_FAILED, True)


def test_a_refused_task_of_which_only_no_refund_is_told_is_not_bought_again() -> None:
    """That nothing came back does not say that nothing was taken."""
    silent = after_poll(asked(), said(Phase.FAILED, error=refused(Action.CREDITS), refunded=Decimal(0)))
    assert (silent.event, asked().bill.after(silent.entries).charged) == (Event.TASK_FAILED, PRICE)
    told = said(Phase.FAILED, error=refused(Action.CREDITS), charged=Decimal(0), refunded=Decimal(0))
    assert after_poll(asked(), told).event is Event.TASK_REFUSED


def test_a_failed_task_is_charged_until_a_refund_is_seen() -> None:
    change = after_poll(asked(), said(Phase.FAILED))
    assert asked().bill.after(change.entries) == Bill(charged=PRICE)
    assert (change.standing.unsettled, change.standing.settle_at) == (True, NOW + SETTLE_AFTER[0])
    assert change.standing.generation == 2


def test_a_render_of_unknown_cost_keeps_its_reservation() -> None:
    files = (ResultFile("https://a", 0),)
    change = after_poll(asked(priced=None), said(Phase.DONE, files=files))
    assert change.entries == ()
    assert (change.standing.unsettled, change.standing.settle_at) == (True, NOW + SETTLE_AFTER[0])


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.CANCELLED])
def test_a_completed_render_that_its_provider_takes_back_is_held(phase: Phase) -> None:
    """downloading → running for a fresh URL, and then the task "has failed"."""
    complete = after_poll(asked(), DONE).standing
    again = replace(complete, state=State.RUNNING)
    change = after_poll(asked(again, bill=Bill(charged=PRICE)), said(phase, used=Decimal(0)))
    assert (change.event, change.standing.state) == (Event.TASK_LOST, State.HELD)
    assert [(e.kind, e.amount) for e in change.entries] == [(EntryKind.REFUNDED, PRICE)]


# The final cost


def ended(state: State, **more: Any) -> Standing:
    return Standing(state, NOW, attempts=1, task_id="task-1", unsettled=True, settle_at=NOW, **more)


def test_the_final_cost_is_asked_three_times_and_then_stands() -> None:
    standing, bill, waits = ended(State.FAILED), Bill(charged=PRICE), []
    for _ in SETTLE_AFTER:
        change = after_settling(asked(standing, bill=bill), said(Phase.FAILED, used=PRICE))
        standing, bill = change.standing, bill.after(change.entries)
        waits.append(None if standing.settle_at is None else standing.settle_at - NOW)
    assert waits == [SETTLE_AFTER[1], SETTLE_AFTER[2], None]
    assert (standing.unsettled, bill) == (False, Bill(charged=PRICE))


def test_a_late_refund_is_recorded_and_ends_the_asking() -> None:
    change = after_settling(asked(ended(State.FAILED), bill=Bill(charged=PRICE)), said(Phase.FAILED, used=Decimal(0)))
    assert (change.standing.unsettled, change.standing.settle_at) == (False, None)
    assert [(e.kind, e.amount) for e in change.entries] == [(EntryKind.REFUNDED, PRICE)]
    assert dict(change.data) == {"refunded": str(PRICE)}


def test_F57_a_refund_that_is_not_the_charge_is_recorded_as_seen_and_flagged_in_the_end() -> None:
    half, told, standing, bill = PRICE / 2, list[dict[str, Any]](), ended(State.FAILED), Bill(charged=PRICE)
    for _ in SETTLE_AFTER:
        poll = replace(asked(standing, bill=bill), promised=True)
        change = after_settling(poll, said(Phase.FAILED, used=half))
        standing, bill = change.standing, bill.after(change.entries)
        told.append(dict(change.data))
    assert told == [{"refunded": as_text(half)}, {}, {"not_refunded": as_text(half)}]
    assert (standing.unsettled, bill) == (False, Bill(charged=PRICE, refunded=half))


ENDED = (Phase.DONE, Phase.FAILED, Phase.CANCELLED)


@pytest.mark.parametrize("answer", [said(Phase.GOING, used=PRICE), Refusal(Action.LATER, ErrorKind.NETWORK, "", "")])
def test_F56_what_is_no_answer_does_not_use_up_the_questions_for_a_refund(answer: Report | Refusal) -> None:
    """Seen: three questions met a lost answer, a broken one and "in review"; the refund was never booked."""
    poll = asked(ended(State.FAILED, settle_asks=2), bill=Bill(charged=PRICE))
    change = after_settling(poll, answer)
    assert (change.standing.settle_asks, change.entries) == (2, ())
    assert change.standing.settle_at == NOW + timedelta(hours=1)
    refunded = after_settling(replace(poll, standing=change.standing), said(Phase.FAILED, used=Decimal(0)))
    assert not refunded.standing.unsettled
    assert poll.bill.after(refunded.entries).refunded == PRICE


@given(st.sampled_from(sorted(TERMINAL)), reports | actions, st.integers(0, 4), st.booleans())
@example(State.CANCELLED, Report("task-1", Phase.DONE, "completed"), 2, False)  # what is reserved is not settled
def test_asking_for_the_final_cost_moves_no_job(
    state: State, answer: Report | Refusal, asks: int, charged: bool
) -> None:
    poll = asked(
        ended(State(state), settle_asks=asks), bill=Bill(charged=PRICE) if charged else Bill(PRICE), priced=None
    )
    change = after_settling(poll, answer)
    bill = poll.bill.after(change.entries)
    counts = answer.phase in ENDED if isinstance(answer, Report) else answer.action is Action.NOT_FOUND
    assert (change.event, change.standing.state, change.standing.settle_asks) == (Event.SETTLED, state, asks + counts)
    assert 0 <= bill.refunded <= bill.charged
    if isinstance(answer, Refusal):
        assert change.entries == ()
        assert change.standing.unsettled
    if not change.standing.unsettled:
        assert bill.reserved == 0
        assert change.standing.settle_at is None


# Looking for a lost answer in a history

PROMPTS = ("a cat", "a dog")


def body(prompt: str, **fields: Any) -> str:
    return json.dumps({"prompt": prompt, "model": "sd2", **fields})


def task(name: str, prompt: str | None, at: float | None, **facts: Any) -> Listed:
    created = None if at is None else NOW + timedelta(seconds=at)
    return Listed(name, prompt, created, Report(name, Phase.GOING, "going"), facts)


def found(questions: Sequence[Question], tasks: Sequence[Listed]) -> dict[int, str]:
    known = identify(questions, tasks, lambda one, other: one == other)
    return {job: listed.task_id for job, listed in known.items()}


def question(job: int, prompt: str = "a cat", at: float = 0, **fields: Any) -> Question:
    return Question(job, body(prompt, **fields), NOW + timedelta(seconds=at))


bodies = st.sampled_from([body("a cat"), body("a cat", duration=5), body("a dog"), body("a dog", duration=10)])
questions = st.lists(st.tuples(bodies, st.integers(0, 30)), max_size=5).map(
    lambda made: [Question(n, text, NOW + timedelta(seconds=at)) for n, (text, at) in enumerate(made)]
)
histories = st.lists(
    st.tuples(
        st.sampled_from([*PROMPTS, "a bird", None]),
        st.none() | st.integers(-30, 60),
        st.sampled_from([{}, {"duration": "5s"}, {"duration": 10}, {"model": "sd2"}, {"model": "other"}]),
    ),
    max_size=7,
).map(lambda made: [task(f"t{n}", prompt, at, **facts) for n, (prompt, at, facts) in enumerate(made)])


def may_be(asked_for: Question, listed: Listed) -> bool:
    """Whether nothing that the history says contradicts that this task is the answer to this question."""
    wanted = json.loads(asked_for.body)
    if listed.prompt != wanted["prompt"] or listed.created_at is None:
        return False
    if listed.created_at < asked_for.since - TOLERANCE or listed.facts.get("model", "sd2") != "sd2":
        return False
    told = listed.facts.get("duration")
    return told is None or "duration" not in wanted or str(told).rstrip("s") == str(wanted["duration"])


@given(questions, histories)
def test_only_certain_tasks_are_adopted(open_questions: list[Question], history: list[Listed]) -> None:
    adopted = identify(open_questions, history, lambda one, other: one == other)
    taken = [listed.task_id for listed in adopted.values()]
    assert len(taken) == len(set(taken)), "one task, one job"
    by_id = {q.job_id: q for q in open_questions}
    for job, listed in adopted.items():
        mine = by_id[job]
        assert listed in history
        assert may_be(mine, listed)
        rivals = [q for q in open_questions if q.body != mine.body and may_be(q, listed)]
        assert rivals == [], "another question could own it"
        equals = [q for q in open_questions if q.body == mine.body]
        candidates = {t.task_id for t in history if any(may_be(q, t) for q in equals)}
        assert candidates <= set(taken), "a task that nobody could explain would make any choice a guess"


@given(st.lists(st.tuples(st.sampled_from(PROMPTS), st.integers(0, 5)), min_size=1, max_size=6), st.randoms())
def test_when_every_task_arrived_and_nobody_else_asked_all_are_found(made: list[tuple[str, int]], chance: Any) -> None:
    """Equal requests are interchangeable; each gets one of the equal tasks."""
    open_questions = [question(n, prompt, at) for n, (prompt, at) in enumerate(made)]
    history = [task(f"t{n}", prompt, at + 1) for n, (prompt, at) in enumerate(made)]
    history.append(task("old", "a cat", -60))
    history.append(task("foreign", "a bird", 3))
    chance.shuffle(history)
    adopted = identify(open_questions, history, lambda one, other: one == other)
    assert set(adopted) == {q.job_id for q in open_questions}
    for n, (prompt, _) in enumerate(made):
        assert adopted[n].prompt == prompt


def test_a_task_that_is_not_there_is_not_found() -> None:
    assert found([question(1)], []) == {}
    assert found([], [task("t", "a cat", 1)]) == {}


def test_two_candidates_for_one_question_are_none() -> None:
    assert found([question(1)], [task("t1", "a cat", 1), task("t2", "a cat", 2)]) == {}


def test_two_candidates_for_the_older_of_two_equal_questions_are_none() -> None:
    """Neither can be the younger one's: so at least one of them is not ours."""
    both = [question(1, at=0), question(2, at=60)]
    assert found(both, [task("t1", "a cat", 1), task("t2", "a cat", 2)]) == {}
    assert found(both, [task("t1", "a cat", 1), task("t2", "a cat", 61)]) == {1: "t1", 2: "t2"}
    assert found(both, [task("t1", "a cat", 61)]) == {1: "t1"}


@pytest.mark.parametrize(
    ("fields", "facts", "ours"),
    [
        ({"duration": 5}, {"duration": "5s"}, True),
        ({"duration": 5}, {"duration": "15"}, False),
        ({"duration": 5}, {"duration": Decimal("5.0")}, True),
        ({"duration": 7.5}, {"duration": "7.50s"}, True),
        ({"duration": 5}, {"duration": "short"}, False),
        ({"image_url": "https://a/cats"}, {"image_url": "https://a/cat"}, False),
        ({"image_url": "https://a/cat"}, {"image_url": "https://a/cat"}, True),
        ({}, {"image_url": "https://a/cat"}, True),
        ({"resolution": "720p"}, {"resolution": "1080p"}, False),
        ({"resolution": "720p"}, {"resolution": "720P"}, True),
        ({"image_url": "https://a/cat"}, {"image_url": "https://a/CAT"}, False),
        ({"aspect_ratio": "16:9"}, {}, True),
        ({}, {"model": "another"}, False),
    ],
)
def test_a_fact_that_contradicts_excludes(fields: dict[str, Any], facts: dict[str, Any], ours: bool) -> None:
    assert found([question(1, **fields)], [task("t", "a cat", 1, **facts)]) == ({1: "t"} if ours else {})


def test_what_was_not_sent_is_what_the_provider_takes_for_it() -> None:
    silent = replace(question(1), assumed={"duration": 5})
    assert found([silent], [task("t", "a cat", 1, duration=10)]) == {}
    assert found([silent], [task("t", "a cat", 1, duration="5s")]) == {1: "t"}
    said = replace(question(1, duration=10), assumed={"duration": 5})
    assert found([said], [task("t", "a cat", 1, duration=10)]) == {1: "t"}


def test_where_a_history_may_not_show_such_tasks_only_the_model_tells_one() -> None:
    unlisted = replace(question(1), listed=False)
    assert found([unlisted], [task("t", "a cat", 1)]) == {}
    assert found([unlisted], [task("t", "a cat", 1, model="sd2")]) == {1: "t"}
    assert found([unlisted, question(2, duration=5)], [task("t", "a cat", 1)]) == {2: "t"}


@pytest.mark.parametrize(("at", "ours"), [(None, True), (-86_400, True), (5, True), (5.000001, False)])
def test_a_history_of_times_to_come_does_not_tell_our_time(at: float | None, ours: bool) -> None:
    assert tells_our_time([task("old", "a cat", -1), task("t", "a dog", at)], NOW) is ours


def test_a_prompt_is_found_where_the_order_has_it() -> None:
    """Some providers want their fields in an object of their own, and call the prompt something else."""
    nested = json.dumps({"model": "sd2", "wish": {"text": "a cat", "duration": 5}})
    asked = Question(1, nested, NOW, "wish", "text")
    assert found([asked], [task("t", "a cat", 1)]) == {1: "t"}
    assert found([asked], [task("t", "a dog", 1)]) == {}
    assert found([asked], [task("t", "a cat", 1, duration=10)]) == {}
    assert found([asked], [task("t", "a cat", 1, model="another")]) == {}
    assert found([Question(1, nested, NOW, "elsewhere", "text")], [task("t", "a cat", 1)]) == {}


@pytest.mark.parametrize(("at", "ours"), [(-5, True), (-5.000001, False), (0, True), (86_400, True), (None, False)])
def test_a_task_from_before_our_brink_is_somebody_elses(at: float | None, ours: bool) -> None:
    assert found([question(1)], [task("t", "a cat", at)]) == ({1: "t"} if ours else {})


@pytest.mark.parametrize("promised", [True, False])
def test_a_cost_that_no_answer_tells_stays_open_only_where_a_refund_is_promised(promised: bool) -> None:
    standing, bill = ended(State.FAILED), Bill(charged=PRICE)
    for _ in SETTLE_AFTER:
        poll = replace(asked(standing, bill=bill), promised=promised)
        standing = after_settling(poll, said(Phase.FAILED)).standing
    assert (standing.unsettled, standing.settle_at) == (promised, None)
