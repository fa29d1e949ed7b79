"""The judge of the torture test finds each crime in evidence that was clean before, and nothing in clean evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from torture.commands import Ended
from torture.counts import at_once
from torture.evidence import Evidence, File, Job, Output, Seen, Step, Stop, Task, Try
from torture.judge import RULES, judge
from torture.manifests import Limits

HORSE, SEED, WORDED = "happyhorse", "seedance2ai", "seedhorse"
ON_DISK, OTHER = Path("renders/a.mp4"), Path("renders/b.mp4")
JOBS = (
    Job(1, "k1", HORSE, "succeeded", "vid_1", None, 1, "one", None, None, 60.0, Decimal(25), Decimal(25), Decimal(0),
        (Output(ON_DISK, 10, "aa"),)),
    Job(2, "k2", HORSE, "failed", "vid_2", None, 1, "two", "task_failed", None, 60.0, Decimal(25), Decimal(25),
        Decimal(25)),
    Job(3, "k3", HORSE, "held", None, None, 1, "three", "unknown_submission", None, 60.0, Decimal(25), None, None),
    Job(4, "k4", SEED, "succeeded", "sd2_1", "key4", 1, "take", None, None, 60.0, None, Decimal(30), Decimal(0),
        (Output(OTHER, 20, "bb"),)),
    Job(5, "k5", SEED, "failed", "sd2_2", "key5", 1, "take", "moderated", None, 60.0, None, Decimal(0), Decimal(0)),
)  # fmt: skip
TASKS = (
    Task("vid_1", HORSE, "one", None, Decimal(25), Decimal(25), "completed", True, 1),
    Task("vid_2", HORSE, "two", None, Decimal(25), Decimal(0), "failed", True, 1),
    Task("vid_3", HORSE, "three", None, Decimal(25), Decimal(25), "completed", True, 1),
    Task("sd2_1", SEED, "take", "key4", Decimal(30), Decimal(30), "completed", True, 1),
    Task("sd2_2", SEED, "take", "key5", Decimal(30), Decimal(0), "moderated", True, 1),
)
WAY = (("claimed", "queued", "submitting"), ("accepted", "submitting", "running"))
END = {
    "succeeded": (("finished", "running", "downloading"), ("completed", "downloading", "succeeded")),
    "failed": (("task_failed", "running", "failed"),),
}
LOST = (WAY[0], ("answer_lost", "submitting", "unknown"), ("not_found", "unknown", "held"))
STEPS = tuple(Step(job.id, *step) for job in JOBS for step in (LOST if job.state == "held" else WAY + END[job.state]))
KEYS = frozenset({(SEED, "key4"), (SEED, "key5")})
SAID = """\
happyhorse: 1 succeeded, 1 failed, 1 held
seedance2ai: 1 succeeded, 1 failed
  farm, happyhorse: 50 charged, 25 refunded, 25 not settled yet
  farm, seedance2ai: 30 charged, 0 refunded
"""
CLEAN = Evidence(
    wanted=Counter((job.account, job.line) for job in JOBS),
    jobs=JOBS,
    tasks=TASKS,
    steps=STEPS,
    tries=tuple(Try(job.id, job.account, job.idempotency_key, "accepted", None, 1.0, 2.0) for job in JOBS),
    sent=KEYS,
    submits={HORSE: 3, SEED: 2},
    files=(File(ON_DISK, 10, "aa", "vid_1", 0, whole=True), File(OTHER, 20, "bb", "sd2_1", 0, whole=True)),
    sidecars=(Path("renders/a.mp4.json"), Path("renders/b.mp4.json")),
    strays=(),
    seen={HORSE: Seen(4, 60, 0), SEED: Seen(2, 30, 0)},
    limits={HORSE: Limits(4, 60), SEED: Limits(6, 240)},
    net={HORSE: Decimal(25), SEED: Decimal(30)},
    unsettled={HORSE: Decimal(25), SEED: Decimal(0)},
    remarks=(),
    ended=(Ended(("run",), 137, "", "", 1.0), Ended(("run",), 4, "", "held", 1.0)),
    last=Ended(("run",), 4, "", SAID, 1.0),
    asked=frozenset({(HORSE, "vid_1"), (HORSE, "vid_2"), (SEED, "sd2_1"), (SEED, "sd2_2")}),
    stops=(Stop(15, 9.0, 143), Stop(2, 1.5, 130, again=1.0), Stop(15, 0.5, 0)),
)


def job(number: int, **changes: object) -> Evidence:
    return replace(CLEAN, jobs=tuple(replace(each, **changes) if each.id == number else each for each in JOBS))


def task(name: str, **changes: object) -> Evidence:
    return replace(CLEAN, tasks=tuple(replace(each, **changes) if each.id == name else each for each in TASKS))


NARROW = {HORSE: Limits(1, 60), SEED: Limits(6, 240)}


def at_work(*names: str) -> Evidence:
    """These tasks at one time."""
    times = dict.fromkeys(names, (10.0, 20.0))
    tasks = (
        replace(each, began=times[each.id][0], over=times[each.id][1]) if each.id in times else each for each in TASKS
    )
    return replace(CLEAN, tasks=tuple(tasks))


def another_key(outcome: str | None, brink: float | None) -> Evidence:
    """The job's first order went out under another key, and this became of it."""
    return replace(CLEAN, tries=(Try(4, SEED, "key0", outcome, None, brink, None), *CLEAN.tries))


def said(what: str, instead: str) -> Evidence:
    return replace(CLEAN, last=Ended(("run",), 4, "", SAID.replace(what, instead), 1.0))


def more(bought: Task) -> Evidence:
    return replace(CLEAN, tasks=(*TASKS, bought))


def first_file(**changes: object) -> Evidence:
    return replace(CLEAN, files=(replace(CLEAN.files[0], **changes), *CLEAN.files[1:]))


def step(*steps: Step) -> Evidence:
    return replace(CLEAN, steps=(*STEPS, *steps))


def ended(code: int, err: str = "") -> Evidence:
    return replace(CLEAN, ended=(*CLEAN.ended, Ended(("run",), code, "", err, 1.0)))


def stopped(seconds: float, code: int, again: float | None = None) -> Evidence:
    return replace(CLEAN, stops=(*CLEAN.stops, Stop(15, seconds, code, again)))


CRIMES: dict[str, tuple[str, Callable[[], Evidence]]] = {
    "a second task for one job": ("doubles", lambda: more(replace(TASKS[0], id="vid_9"))),
    "a third task for two takes": ("doubles", lambda: more(replace(TASKS[3], id="sd2_9", idempotency_key="key9"))),
    "two tasks under one key": ("doubles", lambda: task("sd2_2", idempotency_key="key4")),
    "a double that failed and was refunded": ("doubles", lambda: more(replace(TASKS[1], id="vid_9"))),
    "a task nobody asked for": ("lost", lambda: more(replace(TASKS[0], id="vid_9", prompt="nobody's"))),
    "a bought task whose job failed without it": ("lost", lambda: job(2, task_id=None)),
    "a bought task whose job was cancelled": ("lost", lambda: job(3, state="cancelled")),
    "a held job with another task": ("lost", lambda: job(3, task_id="vid_1")),
    "a task with another prompt": ("wrong_adoptions", lambda: job(2, line="something else")),
    "a task that was never made": ("wrong_adoptions", lambda: job(1, task_id="vid_0")),
    "a task that came under another key": ("wrong_adoptions", lambda: job(4, idempotency_key="key9")),
    "two jobs with one task": ("twins", lambda: job(2, task_id="vid_1")),
    "two jobs with one key": ("twins", lambda: job(5, idempotency_key="key4")),
    "a refund that is not booked": ("job_bills", lambda: job(2, refunded=Decimal(0))),
    "a bill for nothing": ("job_bills", lambda: job(3, charged=Decimal(25), refunded=Decimal(0))),
    "a held job that may owe more than its price": ("open_bills", lambda: task("vid_3", charged=Decimal(26))),
    "a sum that is a millionth off": (
        "ledger_difference", lambda: replace(CLEAN, net={**CLEAN.net, SEED: Decimal("30.000001")})),
    "an account without any bill": ("ledger_difference", lambda: replace(CLEAN, net={HORSE: Decimal(25)})),
    "a refund that is still awaited": (
        "ledger_difference", lambda: replace(CLEAN, unsettled={**CLEAN.unsettled, SEED: Decimal(1)})),
    "a completed render that is failed": ("fates", lambda: task("vid_2", outcome="completed", net=Decimal(25))),
    "a failed render that succeeded": ("fates", lambda: task("vid_1", outcome="failed")),
    "a success out of nothing": ("fates", lambda: job(1, task_id=None)),
    "a failure called moderated": ("fates", lambda: task("sd2_2", outcome="failed")),
    "a missing file": ("published", lambda: replace(CLEAN, files=CLEAN.files[1:])),
    "a file of another hash": ("published", lambda: first_file(sha256="cc")),
    "a file of another task": ("published", lambda: first_file(task_id="x")),
    "a file nobody has": (
        "published", lambda: replace(CLEAN, files=(*CLEAN.files, File(Path("c.mp4"), 1, "c", whole=True)))),
    "a missing sidecar": ("published", lambda: replace(CLEAN, sidecars=CLEAN.sidecars[1:])),
    "a success with one file of two": ("complete", lambda: task("vid_1", outputs=2)),
    "a file cut short": ("complete", lambda: first_file(whole=False)),
    "a part left behind": ("complete", lambda: replace(CLEAN, strays=(Path("renders/.x.part"),))),
    "one task too many at once, beside a held job's": ("limits", lambda: replace(CLEAN, seen={HORSE: Seen(6, 60, 0)})),
    "one request too many in a minute": ("limits", lambda: replace(CLEAN, seen={HORSE: Seen(4, 61, 0)})),
    "a leaked key": ("leaks", lambda: replace(CLEAN, remarks=("leaks: key_in_query",))),
    "a key in the log": ("canary", lambda: replace(CLEAN, hits=("all.log: b'sk_live_7Qz/'",))),
    "a user's file that was written over": ("strangers", lambda: replace(CLEAN, touched=("yours.txt is changed",))),
    "a step that no table knows": ("edges", lambda: step(Step(3, "accepted", "held", "running"))),
    "a step from where it was not": ("edges", lambda: step(Step(1, "retried", "failed", "queued"))),
    "a step after the end": ("edges", lambda: step(Step(1, "claimed", "succeeded", "submitting"))),
    "a log that ends elsewhere": ("edges", lambda: replace(CLEAN, steps=STEPS[:-1])),
    "a job without a log": ("edges", lambda: replace(CLEAN, steps=tuple(s for s in STEPS if s.job_id != 1))),
    "a job that still runs": ("endings", lambda: job(1, state="running")),
    "an exit code that hides a held job": ("endings", lambda: replace(CLEAN, last=Ended(("run",), 1, "", SAID, 1.0))),
    "a keyed question left to a person": (
        "open_keys", lambda: job(4, state="held", error="unknown_submission", outputs=())),
    "a completed render that is cancelled": (
        "fates", lambda: replace(job(2, state="cancelled"), tasks=task("vid_2", outcome="completed").tasks)),
    "a failed render that is cancelled": ("fates", lambda: job(2, state="cancelled")),
    "a cancelled render that failed": ("fates", lambda: replace(
        job(2, account=WORDED), tasks=task("vid_2", outcome="cancelled", account=WORDED).tasks)),
    "a coroutine that nobody awaited": ("messages", lambda: ended(0, "coroutine 'x' was never awaited")),
    "a traceback": ("messages", lambda: ended(3, "Traceback (most recent call last):\n")),
    "an internal error": ("messages", lambda: ended(3)),
    "a crash by another signal": ("messages", lambda: ended(139)),
    "a held job whose task was asked about": (
        "forgotten", lambda: replace(CLEAN, asked=CLEAN.asked | {(HORSE, "vid_3")})),
    "a stop that takes its time": ("stops", lambda: stopped(12.5, 143)),
    "a second signal that is not heeded": ("stops", lambda: stopped(4.5, 143, again=1.0)),
    "a job that is not there": ("missing", lambda: replace(CLEAN, jobs=JOBS[1:])),
    "a job that nobody asked for": ("missing", lambda: replace(CLEAN, wanted=Counter(CLEAN.wanted.keys()))),
    "one task of a job too many at once": ("slots", lambda: replace(at_work("vid_1", "vid_2"), limits=NARROW)),
    "an order under a key that no job has": (
        "strange_keys", lambda: replace(CLEAN, sent=KEYS | {(SEED, "key9")})),
    "another key while a question is open": ("strange_keys", lambda: another_key("no_answer", 1.0)),
    "another key after a crash past the brink": ("strange_keys", lambda: another_key(None, 1.0)),
    "a summary that counts a job less": ("summary", lambda: said(", 1 failed, 1 held", ", 1 held")),
    "a summary that tells another bill": ("summary", lambda: said("30 charged", "29.5 charged")),
    "no summary": ("summary", lambda: said(SAID, "all done\n")),
    "a stop that had to be killed": ("stops", lambda: stopped(1.0, 137)),
}  # fmt: skip


def test_clean_evidence_is_innocent() -> None:
    assert judge(CLEAN).clean, str(judge(CLEAN))


@pytest.mark.parametrize("name", CRIMES)
def test_the_judge_finds(name: str) -> None:
    rule, evidence = CRIMES[name]
    verdict = judge(evidence())
    assert verdict.count(rule) >= 1, f"{rule} saw nothing; others did: {verdict}"


def test_a_key_that_was_sent_again_for_an_hour_may_be_left_to_a_person() -> None:
    asked = job(4, state="held", error="unknown_submission", code="key_window", changed=3602.0, outputs=())
    assert judge(asked).count("open_keys") == 0
    early = tuple(replace(each, changed=3600.0) for each in asked.jobs)
    assert judge(replace(asked, jobs=early)).count("open_keys") == 1, "it is the order's age that counts, not the job's"


def test_what_ends_as_another_begins_is_one_at_a_time() -> None:
    tasks = [replace(TASKS[0], began=float(at), over=at + 1.0) for at in range(3)]
    assert at_once(tasks) == 1
    assert at_once([*tasks, replace(TASKS[0], began=0.5, over=1.5)]) == 2


def test_a_key_may_change_after_a_definitive_no_or_where_nothing_was_sent() -> None:
    for outcome, brink in (("refused", 1.0), ("not_sent", None), (None, None)):
        assert judge(another_key(outcome, brink)).clean


def test_a_run_whose_database_is_away_at_its_end_says_so_instead_of_a_bill() -> None:
    away = SAID[: SAID.index("  farm")] + "what was spent is in the queue, which cannot be read now: it is away\n"
    assert judge(said(SAID, away)).count("summary") == 0


def test_where_there_is_no_word_for_it_a_cancelled_render_has_failed() -> None:
    assert judge(task("vid_2", outcome="cancelled")).count("fates") == 0


def test_what_was_not_made_may_be_missing_and_nothing_else() -> None:
    """Of three pictures the provider made two: both must be there, with their own numbers."""

    def partly(*numbers: int) -> Evidence:
        outputs = tuple(Output(Path(f"{nth}.png"), 1, "x") for nth in range(len(numbers)))
        files = (
            File(each.path, 1, "x", "vid_1", number, whole=True) for each, number in zip(outputs, numbers, strict=True)
        )
        sidecars = tuple(each.path.with_name(f"{each.path.name}.json") for each in outputs)
        told = job(1, state="partial", outputs=outputs)
        tasks = task("vid_1", outputs=3, missing=1).tasks
        return replace(told, tasks=tasks, files=(*files, CLEAN.files[1]), sidecars=(*sidecars, CLEAN.sidecars[1]))

    assert [judge(partly(0, 2)).count(rule) for rule in ("published", "complete")] == [0, 0]
    assert judge(partly(0, 0)).count("published") == 1, "one of them twice"
    assert judge(partly(2)).count("complete") == 1, "one that was made is not there"


def test_what_one_held_job_keeps_excuses_no_other() -> None:
    """Its own output, the thumbnail of it, and their notes."""
    held = replace(job(1, state="held", error="download_failed"), strays=tuple(Path(f".{n}.part") for n in range(2)))
    assert judge(held).count("complete") == 0
    assert judge(replace(held, strays=(*held.strays, Path(".x.part")))).count("complete") == 1


def test_a_charge_above_the_price_excuses_half_as_much_again() -> None:
    dear = replace(task("vid_3", charged=Decimal("37.5")), fired={"overcharged@submit": 1})
    assert judge(dear).count("open_bills") == 0
    assert judge(replace(task("vid_3", charged=Decimal(38)), fired=dear.fired)).count("open_bills") == 1


def test_every_rule_is_tried() -> None:
    assert {rule for rule, _ in CRIMES.values()} == set(RULES)
