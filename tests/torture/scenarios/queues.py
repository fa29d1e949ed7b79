"""The queue's own file and its clock: locked by others, damaged, of a later version, full of held jobs, time jumps."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from torture.commands import Running
from torture.manifests import PROVIDERS
from torture.random_kills import peace
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import SETTLED, clips, ends_with, states, stopped, tries
from torture.tally import Tally
from torture.trial import Trial
from torture.waiting import until

LOCAL = 7
LOCKS, LOCKED = 4, 3.0  # how often, and for how many wall seconds
FRAME, HEADER = 24, 32  # bytes: of a WAL before each page, and before all of them
DAMAGES = 30
WHOLE = ("queue", "integrity")  # what the doctor calls it
CROWD = 10_000
HOUR = 3600.0
JUMPS = (1.0, -1.0, 3.0, -2.0, 5.0, -7.0)  # hours

# -- locked by somebody else ------------------------------------------------------------------------------------------

LOCKER = """
import sqlite3, sys
queue = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for line in sys.stdin:
    queue.execute("BEGIN IMMEDIATE" if line.strip() == "lock" else "ROLLBACK")
    print("done", flush=True)
"""


def locked(folder: Path, seed: str) -> Tally:
    """F92: another program locks the queue for some seconds, again and again: nothing is sent without its brink."""
    with staged(folder, seed, PROVIDERS, jobs=clips(12), speed=30.0) as (here, told):
        running = here.start()
        until(lambda: here.sandbox.tasks() > 0, "the first order")
        command = [sys.executable, "-c", LOCKER, here.queue]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as locker:
            for _ in range(LOCKS):
                if not running.lives(0.5):
                    break
                _tell(locker, "lock")
                _nothing_is_sent(here, told, running)
                _tell(locker, "let go")
        ended = here.commands.over(running)
        expect(told, "F92", ended.code == 0, ended.said())
        _brinks(here, told)
        peace(here, told)
    return told


def _tell(locker: subprocess.Popen[str], word: str) -> None:
    assert locker.stdin is not None
    assert locker.stdout is not None
    locker.stdin.write(f"{word}\n")
    locker.stdin.flush()
    locker.stdout.readline()


def _nothing_is_sent(here: Trial, told: Tally, running: Running) -> None:
    """While the lock lasts: what was past its brink has half a second to arrive, then none may come."""
    time.sleep(0.5)
    sent = _orders_sent(here)
    lives = running.lives(LOCKED)
    expect(told, "F92", _orders_sent(here) == sent, "something was ordered while nothing could be committed")
    told.fired["F92"] += lives


def _orders_sent(here: Trial) -> int:
    return sum(each["point"] == "submit" for each in here.sandbox.requests(0))


def _brinks(here: Trial, told: Tally) -> None:
    committed, sent = sum(each.brink is not None for each in tries(here)), _orders_sent(here)
    expect(told, "F92", sent <= committed, f"{sent} orders were sent, {committed} brinks are in the queue")


# -- damaged ----------------------------------------------------------------------------------------------------------


def damaged(folder: Path, seed: str) -> Tally:
    """F94: copies of a queue whose process was killed, each damaged otherwise: none is worked on, what can be read of
    it is listed, and the queue itself goes on as if nothing had been."""
    with staged(folder, seed, PROVIDERS, jobs=clips(4), render=600.0) as (here, told):
        running = here.start()
        until(lambda: here.sandbox.tasks() >= 3 * len(PROVIDERS) or not running.lives(0), "some tasks")
        running.lives(0.5)
        running.send(signal.SIGKILL)
        here.commands.over(running)
        told.kills["SIGKILL"] += 1
        wal = Path(f"{here.queue}-wal")
        expect(told, "F94", wal.exists() and wal.stat().st_size > HEADER, "it was killed, and left no WAL")
        last = here.sandbox.last_request()
        for nth, (name, damage) in enumerate(_damages(Path(here.queue), random.Random(seed))):
            copy = _copy(Path(here.queue), folder / "copies" / f"{nth:02}")
            damage(copy)
            _is_refused(here, told, name, copy)
            if nth % 3 == 0 or nth >= DAMAGES:
                _is_known(here, told, name, copy)
        expect(told, "F94", not _ordered_since(here, last), "something was ordered")
        peace(here, told)
    return told


Damage = Callable[[Path], None]


def _damages(queue: Path, drawn: random.Random) -> Iterator[tuple[str, Damage]]:
    """Names and what does it: to the file of the queue (its WAL written back first), or to the WAL."""
    with closing(sqlite3.connect(_checkpointed(_copy(queue, queue.parent / "copies" / "plain")))) as connection:
        roots = connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()
        [(page,)] = connection.execute("PRAGMA page_size").fetchall()
    for name, root in roots[:DAMAGES]:
        noise = drawn.randbytes(page)
        yield f"the first page of {name}", lambda copy, at=(root - 1) * page, noise=noise: _overwrite(copy, at, noise)
    yield "its header cut", lambda copy: _cut(_checkpointed(copy), 50)
    yield "cut in a page", lambda copy: _cut(_checkpointed(copy), page * 3 + 100)
    yield "nothing left of it", lambda copy: _cut(_checkpointed(copy), 0)
    yield "emptied beside its WAL", lambda copy: _cut(copy, 0)
    whole = (Path(f"{queue}-wal").stat().st_size - HEADER) // (FRAME + page)
    for frames in (1, whole // 2, whole // 3):
        at = HEADER + frames * (FRAME + page)
        yield f"its WAL cut after {frames} frames", lambda copy, at=at: _cut(_wal(copy), at)
        yield f"its WAL cut in frame {frames}", lambda copy, at=at: _cut(_wal(copy), at + 700)
    yield "its WAL's header cut", lambda copy: _cut(_wal(copy), 10)
    yield "its WAL deleted", lambda copy: _wal(copy).unlink()


def _copy(queue: Path, folder: Path) -> Path:
    """From outside, while no process has it open; with what belongs to it."""
    folder.mkdir(parents=True)
    for suffix in ("", "-wal", ".commits"):
        shutil.copy(f"{queue}{suffix}", folder)
    return folder / queue.name


def _checkpointed(copy: Path) -> Path:
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return copy


def _overwrite(copy: Path, at: int, noise: bytes) -> None:
    with _checkpointed(copy).open("r+b") as file:
        file.seek(at)
        file.write(noise)


def _cut(file: Path, size: int) -> None:
    with file.open("r+b") as opened:
        opened.truncate(size)


def _wal(copy: Path) -> Path:
    return Path(f"{copy}-wal")


def _is_refused(here: Trial, told: Tally, name: str, copy: Path) -> None:
    last = here.sandbox.last_request()
    ended = here.commands.run(*(str(copy) if word == here.queue else word for word in here.arguments))
    told.fired["F94"] += 1
    ends_with(here, told, "F94", ended, LOCAL)
    expect(told, "F94", here.sandbox.last_request(last) == last, f"{name}: something was asked for")


def _is_known(here: Trial, told: Tally, name: str, copy: Path) -> None:
    """The doctor names the damage (its other troubles do not count), and lists the tasks if it can read any table."""
    ended = here.commands.run("doctor", "--json", "--db", str(copy))
    checks = json.loads(ended.out)["checks"] if ended.out else []
    named = any(each["check"] in WHOLE and each["verdict"] == "trouble" for each in checks)
    expect(told, "F94", named, f"{name}: the doctor sees nothing: {ended.said()}")
    ends_with(here, told, "F94", ended, LOCAL)
    ended = here.commands.run("doctor", "--salvage", "--json", "--db", str(copy))
    ends_with(here, told, "F94", ended, 0, LOCAL)
    tasks = ended.out.count('"task_id": "')
    told.done["task ids salvaged"] += tasks
    expect(told, "F94", tasks or not name.startswith("the first page of"), f"{name}: no task is listed")


def _ordered_since(here: Trial, last: int) -> bool:
    return any(each["point"] == "submit" for each in here.sandbox.requests(last))


# -- of a later version -----------------------------------------------------------------------------------------------


def of_a_later_version(folder: Path, seed: str) -> Tally:
    """F95: a queue that a later program has migrated is left as it is, to the byte, by every command."""
    with staged(folder, seed, PROVIDERS, jobs=clips(1)) as (here, told):
        here.run()
        later = folder / "later" / "queue.db"
        later.parent.mkdir()
        shutil.copy(_checkpointed(Path(here.queue)), later)
        _statement(later, "UPDATE alembic_version SET version_num = '9001'")
        _checkpointed(later)
        before, last = _sum(later), here.sandbox.tasks()
        run = [str(later) if word == here.queue else word for word in here.arguments]
        for command in (("status",), ("jobs",), ("credits",), ("show", "1"), ("doctor",), None) * 5:
            ended = here.commands.run(*(run if command is None else (*command, "--db", str(later))))
            told.fired["F95"] += 1
            ends_with(here, told, "F95", ended, LOCAL)
            expect(told, "F95", _sum(later) == before, f"it was written to: {ended.said()}")
        expect(told, "F95", here.sandbox.tasks() == last, "something was ordered")
        peace(here, told)
    return told


def _statement(queue: Path, *statements: str) -> None:
    """From outside, while no process has it open."""
    with closing(sqlite3.connect(queue)) as connection, connection:
        for each in statements:
            connection.execute(each)


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# -- time jumps -------------------------------------------------------------------------------------------------------


def jumps(folder: Path, seed: str) -> Tally:
    """F106: between two runs the wall clock is set hours forward, or back; the providers' own clock goes on evenly."""
    with staged(folder, seed, PROVIDERS, jobs=clips(3)) as (here, told):
        anchor = float(here.commands.environment["RUNNER_ANCHOR"])
        drawn = random.Random(seed)
        for hours in JUMPS:
            here.orders.grow(clips(1))
            tasks = here.sandbox.tasks()
            # Time that runs N times faster than the wall since an anchor is put forward by putting the anchor back.
            running = here.start(RUNNER_ANCHOR=repr(anchor - hours * HOUR / (here.speed - 1)))
            _until_ordered(here, running, tasks)
            expect(told, "F106", here.sandbox.tasks() > tasks, f"{hours} h off: nothing ordered: {running.said()}")
            running.lives(drawn.uniform(0.1, 1.0))
            told.fired["F106"] += 1
            if running.process.poll() is None:
                stopped(here, running, "F106", told)
            else:
                ended = here.commands.over(running)
                expect(told, "F106", ended.code in SETTLED, ended.said())
        peace(here, told)
        expect(told, "F106", set(states(here)) == {"succeeded"}, f"{states(here)}")
    return told


def _until_ordered(here: Trial, running: Running, tasks: int) -> None:
    until(lambda: here.sandbox.tasks() > tasks or not running.lives(0), "an order")


# -- ten thousand held jobs -------------------------------------------------------------------------------------------

HOLD = """INSERT INTO events (at, job_id, event, source, target, data)
SELECT created_at, id, '{event}', '{source}', '{target}', '{{}}' FROM jobs WHERE state = 'queued' ORDER BY id"""
WAY = (("claimed", "queued", "submitting"), ("answer_lost", "submitting", "unknown"), ("not_found", "unknown", "held"))
HELD = """UPDATE jobs SET state = 'held', error_kind = 'unknown_submission', error_code = 'no_answer',
error_message = 'nobody knows', finished_at = created_at WHERE state = 'queued'"""


def many_held(folder: Path, seed: str) -> Tally:
    """F111: ten thousand jobs wait for a person; those that come after them are ordered all the same, and at once."""
    with staged(folder, seed, ("happyhorse",), jobs={"hh-video": CROWD}) as (here, told):
        empty = _seconds_of_status(here, told)
        here.flags = ("--max-credits", "happyhorse=1")
        ended = here.run()
        expect(told, "F111", here.sandbox.tasks() == 0, ended.said())
        _statement(Path(here.queue), *(HOLD.format(event=e, source=s, target=t) for e, s, t in WAY), HELD)
        here.flags = ()
        here.orders.grow({"hh-full": 2, "hh-image": 2, "hh-upload": 2})
        before = time.monotonic()
        ended = here.run()
        told.fired["F111"] += 1
        told.done["seconds of a run with 10 000 held jobs"] += round(time.monotonic() - before)
        expect(told, "F111", ended.code == 4, ended.said())
        expect(told, "F111", states(here) == {"held": CROWD, "succeeded": 6}, f"{states(here)}")
        full = _seconds_of_status(here, told)
        expect(told, "F111", full <= 3 * empty + 1.0, f"status took {full:.1f} s, of an empty queue {empty:.1f} s")
        peace(here, told)
    return told


def _seconds_of_status(here: Trial, told: Tally) -> float:
    """The best of three."""
    ends = [here.commands.run("status", "--db", here.queue) for _ in range(3)]
    for ended in ends:
        ends_with(here, told, "F111", ended, 0, 4, LOCAL)
    return min(ended.seconds for ended in ends)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("f92-locked", ("F92",), locked),
    Scenario("f94-damaged", ("F94",), damaged, quick=True),
    Scenario("f95-later-version", ("F95",), of_a_later_version),
    Scenario("f106-jumps", ("F106",), jumps),
    Scenario("f111-many-held", ("F111",), many_held),
)
