"""The disk and the places on it: full in a download, not to be written, not safe, too few files open, outputs gone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

from runner.store.place import NETWORK, SYNCED_NAMES
from torture.commands import Ended
from torture.evidence import parts
from torture.manifests import PROVIDERS
from torture.random_kills import peace
from torture.scenarios.scene import Scenario, expect, staged
from torture.scenarios.steps import SETTLED, clips, ends_with, patched, states
from torture.tally import Tally
from torture.trial import Trial
from torture.waiting import until

USAGE, LOCAL = 2, 7
CLOCKS = (
    5  # what the doctor ends with where nothing else is wrong: the providers' clock runs faster than this machine's
)
BAD_PLACES = 36
FEW_FILES = (8, 12, 16, 20, 26, 32)  # open files that a process may have
PATIENCE = 8.0  # wall seconds
LONG = "長" * 108  # 324 bytes: more than any file system takes as one name
TAMPERED = 35

FULL = """
import errno
from runner.downloads import parts
honest = parts.Part.write
def full(self, pieces):
    honest(self, [pieces[0][:1000]])
    with open({struck!r}, "a") as file:
        file.write(self._name + "\\n")
    raise OSError(errno.ENOSPC, "No space left on device")
parts.Part.write = full
"""


def full_in_a_download(folder: Path, seed: str) -> Tally:
    """F87: what has come of a file stays, its lane waits, and tasks are asked for as before; room comes with the next
    run, and nothing was ordered twice."""
    struck = folder / "struck"
    with staged(folder, seed, PROVIDERS, jobs=clips(4), render=60.0) as (here, told):
        struck.touch()
        running = here.start(**patched(folder, FULL.format(struck=str(struck))))
        until(lambda: struck.read_text() or not running.lives(0), "a disk that is full")
        polled = _asked(here, "poll") + _asked(here, "list")
        until(lambda: _tasks_hit(struck) >= 2 * len(PROVIDERS) or not running.lives(0), "every lane to meet it")
        expect(told, "F87", _asked(here, "poll") + _asked(here, "list") > polled, "nothing was asked for any more")
        running.send(signal.SIGTERM)
        ended = here.commands.over(running)
        expect(told, "F87", ended.code == 128 + signal.SIGTERM, ended.said())
        told.fired["F87"] += len(struck.read_text().splitlines())
        expect(told, "F87", any(each.stat().st_size >= 1000 for each in parts(here.renders)), "no part was kept")
        expect(told, "F87", not states(here)["held"] + states(here)["failed"], f"{states(here)}")
        _lanes_wait(told, here, struck)
        peace(here, told)
        expect(told, "F87", set(states(here)) == {"succeeded"}, f"{states(here)}")
        expect(told, "F87", all(job.attempts == 1 for job in here.jobs()), "something was ordered twice")
    return told


def _asked(here: Trial, point: str) -> int:
    return sum(each["point"] == point for each in here.sandbox.requests(0))


def _tasks_hit(struck: Path) -> int:
    return len(set(struck.read_text().splitlines()))


def _lanes_wait(told: Tally, here: Trial, struck: Path) -> None:
    """Whoever met it says so, but for those that had no time to."""
    hit, noted = _tasks_hit(struck), sum(job.error == "download_failed" for job in here.jobs())
    expect(told, "F87", noted * 2 >= hit, f"{hit} files met it, {noted} jobs say so")


# -- places that cannot be written, or are not safe -------------------------------------------------------------------


def no_place(folder: Path, seed: str) -> Tally:
    """F90: each is told before the first request, with 7, or 2 where the words themselves are wrong."""
    with staged(folder, seed, PROVIDERS, jobs=clips(1)) as (here, told):
        before = here.sandbox.last_request()
        for words, codes in islice(cycle(list(_places(here))), BAD_PLACES):
            ended = here.commands.run(*words)
            told.fired["F90"] += 1
            expect(told, "F90", ended.err.startswith("error: ") or "\nerror: " in ended.err, ended.said())
            ends_with(here, told, "F90", ended, *codes)
        expect(told, "F90", here.sandbox.last_request(before) == before, "something was asked for")
        peace(here, told)
    return told


def _places(here: Trial) -> Iterator[tuple[Sequence[str], tuple[int, ...]]]:
    """Command lines, and the exit codes that are right for them."""
    file, text = here.folder / "a-file", here.folder / "text.db"
    for each in (file, here.orders.folder / "blocked"):
        each.write_text("in the way\n")
    text.write_text("no database at all\n" * 100)
    for queue in (file / "queue.db", here.folder / "said", "/dev/null", text):
        yield _with(here, queue), (LOCAL,)
        yield ("status", "--db", str(queue)), (LOCAL,)
    yield _with(here, ""), (USAGE,)
    for log in (here.folder / "no" / "such" / "log", here.folder, file / "log"):
        yield (*here.arguments, "--log-file", str(log)), (LOCAL,)
    for where in ("blocked", "blocked/below"):
        manifest = here.orders.folder / f"{where.replace('/', '-')}.yaml"
        manifest.write_text(here.orders.manifest.read_text().replace("dir: renders/${batch}", f"dir: {where}"))
        yield _with(here, here.folder / "blocked.db", manifest), (LOCAL, USAGE)


def _with(here: Trial, queue: Path | str, manifest: Path | None = None) -> list[str]:
    """A run with another queue, and perhaps another manifest."""
    others = {here.queue: str(queue), str(here.orders.manifest): str(manifest or here.orders.manifest)}
    return [others.get(word, word) for word in here.arguments]


ON_A_SHARE = """
from runner.store import place
place.file_system = lambda folder: {kind!r}
"""


def unsafe_places(folder: Path, seed: str) -> Tally:
    """F97: on a network file system nothing is made and nothing ordered; of a synced folder the doctor warns."""
    with staged(folder, seed, PROVIDERS, jobs=clips(1)) as (here, told):
        before = here.sandbox.last_request()
        shared = here.folder / "share"
        shared.mkdir()
        for kind in sorted(NETWORK):
            words = _with(here, shared / "queue.db")
            ended = here.commands.run(*words, **patched(folder, ON_A_SHARE.format(kind=kind)))
            told.fired["F97"] += 1
            expect(told, "F97", kind in ended.err, ended.said())
            ends_with(here, told, "F97", ended, LOCAL)
            expect(told, "F97", not list(shared.iterdir()), f"{list(shared.iterdir())} was made")
        expect(told, "F97", here.sandbox.last_request(before) == before, "something was asked for")
        for name in SYNCED_NAMES:
            _in_a_synced_folder(here, told, here.folder / "home" / name.title() / "work")
        peace(here, told)
    return told


def _in_a_synced_folder(here: Trial, told: Tally, place: Path) -> None:
    place.mkdir(parents=True)
    ended = here.commands.run("doctor", "--json", "--db", str(place / "queue.db"))
    told.fired["F97"] += 1
    ends_with(here, told, "F97", ended, 0, CLOCKS)
    checks = json.loads(ended.out)["checks"]
    warned = [each for each in checks if each["check"] == "place" and each["verdict"] == "warning"]
    expect(told, "F97", warned and "in step" in warned[0]["found"], f"{place}: {checks}")


# -- too few open files, names too long -------------------------------------------------------------------------------

FEW = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({few}, {few}))
"""


def few_files_long_names(folder: Path, seed: str) -> Tally:
    """F91: no more files can be opened, in the end not even the queue; and names that no file system takes."""
    with staged(folder, seed, PROVIDERS, jobs=clips(3)) as (here, told):
        manifest = here.orders.manifest
        manifest.write_text(manifest.read_text().replace('"${job}/${key}', f'"${{job}}/{LONG}-${{key}}'))
        for few in FEW_FILES:
            running = here.start(**patched(folder, FEW.format(few=few)))
            told.fired["F91"] += 1
            if running.lives(PATIENCE):  # for files that it may not open it waits, as for room on a disk
                running.send(signal.SIGTERM)
            _is_classified(here, told, here.commands.over(running))
        peace(here, told)
        expect(told, "F91", set(states(here)) == {"succeeded"}, f"{states(here)}")
        names = [output.path.name for job in here.jobs() for output in job.outputs]
        told.fired["F91"] += len(names)
        expect(told, "F91", all(len(name.encode()) <= 255 and name.startswith("長長") for name in names), f"{names}")
    return told


def _is_classified(here: Trial, told: Tally, ended: Ended) -> None:
    """An end with a reason; or one before Python had opened even its own files."""
    if "runner" in ended.err:
        ends_with(here, told, "F91", ended, LOCAL, 128 + signal.SIGTERM, *SETTLED)
    else:
        here.commands.ended.remove(ended)


# -- outputs that are no longer what was fetched ----------------------------------------------------------------------


def tampered(folder: Path, seed: str) -> Tally:
    """F98: deleted, edited, and replaced by a link to a file of the user's own: each is named, and none written to."""
    with staged(folder, seed, PROVIDERS, jobs=clips(TAMPERED // len(PROVIDERS))) as (here, told):
        here.finish()
        private = folder / "private.txt"
        private.write_text("a file of the user's own, elsewhere\n")
        outputs = [output.path for job in here.jobs() for output in job.outputs]
        honest = {path: path.read_bytes() for path in outputs}
        for nth, path in enumerate(outputs):
            _tamper(path, nth, private)
            told.fired["F98"] += 1
        _are_named(here, told, outputs)
        tasks = here.sandbox.tasks()
        ended = here.run()
        expect(told, "F98", ended.code == 0 and here.sandbox.tasks() == tasks, ended.said())
        expect(told, "F98", private.read_text().startswith("a file of the user's own"), "the link was written through")
        expect(told, "F98", all(path.is_symlink() for path in outputs[2::3]), "a link was replaced")
        for path, content in honest.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        peace(here, told)
    return told


def _tamper(path: Path, nth: int, private: Path) -> None:
    match nth % 3:
        case 0:
            path.unlink()
        case 1:
            path.write_bytes(path.read_bytes()[::-1])
        case _:
            path.unlink()
            os.symlink(private, path)


def _are_named(here: Trial, told: Tally, outputs: Sequence[Path]) -> None:
    ended = here.commands.run("doctor", "--verify", "--json", "--db", here.queue)
    ends_with(here, told, "F98", ended, LOCAL)
    for path in outputs:
        expect(told, "F98", str(path) in ended.out, f"the doctor does not name {path}")


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("f87-full-in-a-download", ("F87",), full_in_a_download),
    Scenario("f90-no-place", ("F90",), no_place),
    Scenario("f91-few-files-long-names", ("F91",), few_files_long_names),
    Scenario("f97-unsafe-places", ("F97",), unsafe_places),
    Scenario("f98-tampered", ("F98",), tampered, quick=True),
)
