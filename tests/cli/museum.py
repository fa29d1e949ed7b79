"""A queue with a job in every state that a queue can hold, each brought there by runs against the pretend providers.

    portraits   face, hand     held: an answer got lost; its files could not be had
    alley       storm, crowd   failed, with a refund still awaited; failed, moderated and refunded
                film, pair     succeeded, with one file and with two
                triptych       partial: the provider made two of three pictures
                epic, saga     queued beyond the budget; the same, and cancelled by a person
    river       river          running: a task that never ends and is past its timeout
    fog         fog            unknown: the run was killed with its order on the wire, and came back without the key
    half        half           downloading: the run was killed in the midst of the file
    brink       brink          submitting: the run was killed with its order on the wire

Accounts whose jobs are not to move any more have no key in the later runs. The state `waiting` needs another job's
output, which no manifest of this version can ask for: `waiting` writes it into a copy.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from anyio.from_thread import start_blocking_portal
from liar import Said, liar
from torture.commands import Ended

from cli.kit import Place, Sandboxes, place, rows

ACCOUNTS = {
    "happyhorse": "happyhorse", "seedance2ai": "seedance2ai", "slow": "seedance2ai", "fog": "happyhorse",
    "half": "seedance2ai", "brink": "seedance2ai",
}  # fmt: skip
PORTRAITS = """\
version: 1
batch: portraits
jobs:
  face: {provider: happyhorse, model: nano-banana-2, prompt: a face in the rain}
  hand: {provider: seedance2ai, model: nano-banana-pro, prompt: a hand on a window}
"""
ALLEY = """\
version: 1
batch: alley
budget: {happyhorse: 100}
providers: {happyhorse: {concurrency: 1}}
defaults: {provider: happyhorse, model: doubao-seedance-1-5-pro, duration: 5}
jobs:
  storm: {prompt: "a storm (sandbox:failed)", priority: 10}
  film:
    rows: [{shot: "01", seconds: 5, motion: "slow dolly, neon"}]
    prompt: "${motion}"
    duration: "${seconds}"
  crowd: {prompt: "a crowd (sandbox:moderated)"}
  triptych: {provider: seedance2ai, model: gpt-image-2, prompt: three doors, size: 1K, aspect_ratio: "16:9", count: 3}
  pair: {provider: seedance2ai, model: gpt-image-2, prompt: two doors, size: 1K, aspect_ratio: "16:9", count: 2}
  epic: {model: doubao-seedance-2-0, prompt: an epic, duration: 15}
  saga: {model: doubao-seedance-2-0, prompt: a saga, duration: 15}
"""
RIVER = """\
version: 1
batch: river
providers: {slow: {uses: seedance2ai, timeout: 20}}
jobs:
  river: {provider: slow, model: seedance, prompt: a slow river}
"""
ONE_PICTURE = """\
version: 1
batch: $name
providers: {$name: {uses: $provider}}
jobs:
  $name: {provider: $name, model: $model, prompt: $prompt}
"""


@dataclass
class Museum:
    """`queue` is left as it is: whoever decides or runs does so on a copy. `ended` are the runs, by batch."""

    place: Place
    ended: dict[str, Ended] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def queue(self) -> Path:
        return self.place.queue

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """The id of each job, by its name."""
        return dict(rows(self.queue, "SELECT name, id FROM jobs"))

    @cached_property
    def by_state(self) -> Mapping[str, int]:
        """A job in each state. (Of those with several, the one that a person can do least about.)"""
        shown = ("epic", "brink", "fog", "river", "half", "film", "triptych", "crowd", "saga", "face")
        known = dict(rows(self.queue, "SELECT name, state FROM jobs"))
        return {known[name]: self.ids[name] for name in shown}

    def copy(self, to: Path | None = None) -> Path:
        """A queue of one's own with the same jobs. Nobody has the original open while it is copied."""
        copied = to or self.place.folder / f"copy-{next(self._numbers)}.db"
        for end in ("", "-wal"):
            if (original := Path(f"{self.queue}{end}")).exists():
                shutil.copyfile(original, f"{copied}{end}")
        return copied

    def waiting(self, job: str) -> Path:
        """A copy in which a queued job waits for another's output."""
        copied = self.copy()
        with closing(sqlite3.connect(copied)) as connection, connection:
            connection.execute("UPDATE jobs SET state = 'waiting' WHERE name = ?", (job,))
        return copied


@contextmanager
def museum(folder: Path) -> Iterator[Museum]:
    with place(folder, ACCOUNTS, seed="museum", render=8) as here:
        made = Museum(here)
        _portraits(made)
        _alley(made)
        _river(made)
        _killed(made)
        assert made.ids.keys() >= {"face", "brink"}  # looked at once, what the killed runs left in the WAL is folded in
        yield made


def _portraits(made: Museum) -> None:
    here = made.place
    here.sandbox.fault("lost_answer", "happyhorse", when="submit")
    here.sandbox.fault("gone", "seedance2ai", when="download", times=6)
    made.ended["portraits"] = here.run(here.write("portraits.yaml", PORTRAITS))


def _alley(made: Museum) -> None:
    here = made.place
    here.sandbox.fault("late_refund", "happyhorse", when="submit", seconds=1e7)
    with one_picture_less(here.sandbox.about["base_urls"]) as address:
        manifest = here.write("alley.yaml", ALLEY)
        made.ended["alley"] = here.run(manifest, SEEDANCE2AI_BASE_URL=address)
    [(saga,)] = rows(here.queue, "SELECT id FROM jobs WHERE name = 'saga'")
    made.ended["cancel"] = here.commands.run("cancel", str(saga))


def _river(made: Museum) -> None:
    here = made.place
    here.sandbox.fault("stuck", "seedance2ai", when="submit")
    made.ended["river"] = here.run(here.write("river.yaml", RIVER), **here.only("slow"))


def _killed(made: Museum) -> None:
    """A run asks itself first whether it sees its own bytes leave: the second request that is sent is the order."""
    here, fog = made.place, {"provider": "happyhorse", "model": "doubao-seedance-1-5-pro"}
    image = {"provider": "seedance2ai", "model": "nano-banana-pro"}
    _kill(made, "fog", "request-sent:2", prompt="lost in the fog", **fog)
    made.ended["bare"] = here.run(**here.only())
    _kill(made, "half", "first-chunk:1", prompt="half a picture", **image)
    _kill(made, "brink", "request-sent:2", prompt="on the brink", **image)


def _kill(made: Museum, name: str, where: str, **more: str) -> None:
    here = made.place
    text = ONE_PICTURE
    for word, value in {"name": name, **more}.items():
        text = text.replace(f"${word}", value)
    ended = here.run(here.write(f"{name}.yaml", text), RUNNER_FAILPOINT=where, **here.only(name))
    assert ended.code == 137, ended.said()
    made.ended[name] = ended


@contextmanager
def one_picture_less(addresses: Mapping[str, str]) -> Iterator[str]:
    """An address of seedance2ai where a task of three pictures ends with two: of the third it has only the reason."""
    scene: Any = SimpleNamespace(sandbox=Sandboxes(addresses))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(liar(scene, "seedance2ai", _one_less)):
        yield scene.sandbox.base_urls["seedance2ai"]


def _one_less(said: Said) -> Said | None:
    told = json.loads(said.body)
    pictures = (told.get("output") or {}).get("images") or []
    if len(pictures) < 3:
        return None
    told["output"]["images"] = [*pictures[:2], {"url": None, "error": "the third door did not open"}]
    return replace(said, body=json.dumps(told).encode())
