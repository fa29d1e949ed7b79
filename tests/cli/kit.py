"""What these tests share: a folder with pretend providers up, and commands started in it, one or several at a time."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torture.commands import HOME, Commands, Ended, Running
from torture.providers import Providers, serving

SPEED = 30.0  # every wait of both sides is divided by this; a deadline of the network is then 4 s or 2 s
HANDS = 3  # commands started side by side
GOLDEN = Path(__file__).parent / "golden"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")  # RFC 3339 in UTC, as design.md section 10 has it
TASK = re.compile(r"\b(?:sd2|vid|img)_\w+")
LOCAL_TIME = re.compile(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d")  # as people are told a moment

K = TypeVar("K")
V = TypeVar("V")


@dataclass
class Place:
    """A working folder. `queue` is the queue that `run` works on; `keys` are those in the environment, by account."""

    folder: Path
    sandbox: Providers
    commands: Commands
    keys: Mapping[str, str]
    queue: Path = field(init=False)

    def __post_init__(self) -> None:
        self.queue = self.folder / "runner.db"  # what --db says without being told

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *arguments: str | Path, **more: str) -> Running:
        """`runner run …` against the sandbox, without asking anybody."""
        given = ("run", *map(str, arguments), "--yes", "--no-progress", "--speed", f"{SPEED:g}")
        return self.commands.start(*given, **more)

    def run(self, *arguments: str | Path, **more: str) -> Ended:
        return self.commands.over(self.start(*arguments, **more))

    def only(self, *accounts: str) -> dict[str, str]:
        """The environment with no other keys than those of these accounts."""
        return {variable(name): "" for name in self.keys if name not in accounts}

    def together(self, *commands: Sequence[str | Path], **more: str) -> list[Ended]:
        """Several commands side by side."""
        return side_by_side(self.commands, commands, **more)

    def each(self, works: Mapping[K, Callable[[], V]]) -> dict[K, V]:
        """What each of these gives, all of them side by side."""
        with ThreadPoolExecutor(HANDS) as hands:
            return dict(zip(works, hands.map(lambda work: work(), works.values()), strict=True))

    def tasks(self, provider: str) -> list[Mapping[str, Any]]:
        """What was ordered there, by the provider's own ledger, oldest first."""
        accounts = self.sandbox.ledger()["providers"].get(provider, {"accounts": {}})["accounts"].values()
        return sorted((task for account in accounts for task in account["tasks"]), key=lambda each: each["created_at"])

    def finish(self, provider: str, task_id: str, outcome: str = "completed") -> None:
        """Ends a task that would otherwise go on."""
        self.sandbox.post("finish", provider=provider, task_id=task_id, outcome=outcome)


def side_by_side(commands: Commands, words: Iterable[Sequence[str | Path]], **more: str) -> list[Ended]:
    """Several commands in no order: none of them may depend on another."""
    with ThreadPoolExecutor(HANDS) as hands:
        return list(hands.map(lambda each: commands.run(*map(str, each), **more), words))


ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
from runner.cli import main
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def in_one_process(commands: Commands, words: Sequence[Sequence[str]]) -> list[Ended]:
    """Many small commands through the program's entry, in a single process: most of a small one is its start."""
    own = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER], cwd=commands.folder, env={**own, **HOME, **commands.environment},
        input=json.dumps(words), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [Ended(tuple(each), *line, 0.0) for each, line in zip(words, lines, strict=True)]


@dataclass(frozen=True)
class Sandboxes:
    """Where the providers are, for who stands before them."""

    base_urls: Mapping[str, str]


def variable(account: str) -> str:
    return f"{account.upper()}_API_KEY"


@contextmanager
def place(folder: Path, accounts: Mapping[str, str], *, seed: str, render: float = 20.0) -> Iterator[Place]:
    """A place whose accounts (name → provider) all have keys, and providers that render a video in `render` seconds of
    their faster time, typically."""
    folder.mkdir(parents=True, exist_ok=True)
    anchor = time.time()
    sandbox = Providers(folder, SPEED, anchor, seed, ("--media-bytes", "20000-60000", "--render", f"{render:g}"))
    with serving(sandbox):
        keys = {name: f"{sandbox.about['keys'][provider]}-{name}" for name, provider in accounts.items()}
        environment = {variable(name): key for name, key in keys.items()}
        environment |= {f"{name.upper()}_BASE_URL": url for name, url in sandbox.about["base_urls"].items()}
        environment["RUNNER_ANCHOR"] = repr(anchor)
        yield Place(folder, sandbox, Commands(folder, environment), keys)


# -- the queue, seen from outside -------------------------------------------------------------------------------------


def rows(queue: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What a queue holds. Nothing is written."""
    with closing(sqlite3.connect(queue)) as connection:
        connection.execute("PRAGMA query_only = ON")
        return connection.execute(query, values).fetchall()


def states(queue: Path) -> dict[int, str]:
    return dict(rows(queue, "SELECT id, state FROM jobs ORDER BY id"))


def content(queue: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that the queue holds but its log of requests: a question that was asked counts in its window."""
    names = [name for (name,) in rows(queue, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return {name: rows(queue, f"SELECT * FROM {name}") for name in names if name not in ("requests", "sqlite_sequence")}


# -- what was printed -------------------------------------------------------------------------------------------------


def parsed(ended: Ended) -> Any:
    """The one JSON value that stands on stdout, and nothing beside it."""
    assert "Traceback" not in ended.err, ended.said()
    return json.loads(ended.out)


def golden(name: str, value: Any) -> None:
    """Compares with the file of that name, order of fields included. RUNNER_TEST_GOLDEN=write writes it instead: then
    the difference is to be read before it is committed."""
    path = GOLDEN / f"{name}.json"
    told = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("RUNNER_TEST_GOLDEN") == "write":
        path.write_text(told, encoding="utf-8")
    assert told.splitlines() == path.read_text(encoding="utf-8").splitlines()


def normal(value: Any, folder: Path) -> Any:
    """The same without what differs from run to run: times, ids of tasks, folders, and the bytes of a render."""
    match value:
        case dict():
            return {name: _normal_field(name, item, folder) for name, item in value.items()}
        case list():
            return [normal(item, folder) for item in value]
        case str() if TIME.fullmatch(value):
            return "<time>"
        case str():
            told = TASK.sub("<task>", value.replace(str(folder), "<folder>"))
            return LOCAL_TIME.sub("<local time>", told)
    return value


def _normal_field(name: str, value: Any, folder: Path) -> Any:
    if name in ("bytes", "sha256") and value is not None:
        return f"<{name}>"
    return normal(value, folder)
