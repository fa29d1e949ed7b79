"""Where the queue is: --db, RUNNER_DB, and what becomes of a file or a database there that is no queue of ours."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import asyncpg
from postgres import private_cluster
from sqlalchemy import make_url
from torture.commands import Commands, Ended

from cli.kit import side_by_side
from cli.museum import Museum

READ, DECIDE, RUN = ("status",), ("retry", "1"), ("run",)  # the three ways in which a queue is opened
PASSWORD = "Zq8-Hidden-Word"
MANIFEST = """\
version: 1
batch: alley
jobs:
  clip: {provider: seedance2ai, model: seedance, prompt: a neon alley}
"""


def digests(folder: Path) -> dict[str, str]:
    """Of every file there, but for what the commands said."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.parent.name != "said"}


def refused(commands: Commands, *words: tuple[str, ...], code: int = 7) -> list[Ended]:
    """All of them with this exit code and one clear error."""
    ended = side_by_side(commands, words)
    for each in ended:
        assert each.code == code, each.said()
        assert each.out == ""
        assert each.err.startswith("error: ")
        assert "Traceback" not in each.err
    return ended


def prose(path: Path) -> None:
    path.write_text("version: 1\nbatch: night\n" * 100)


def short(path: Path) -> None:
    path.write_text("hi")


def picture(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))


def notebook(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE notes (line TEXT)")


STRANGERS: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "prose": (prose, 'it begins with "version:"'),
    "short": (short, 'it begins with "hi"'),
    "picture.png": (picture, "PNG"),
    "notebook.sqlite": (notebook, "it holds other tables: notes"),
    "folder": (Path.mkdir, "is not a regular file"),
}


def test_B89_what_is_no_queue_is_named_and_left_alone(tmp_path: Path) -> None:
    """Nothing is put beside it either: not even a lock."""
    for name, (make, _) in STRANGERS.items():
        make(tmp_path / name)
    before = digests(tmp_path)
    asked = [(way, name) for name in STRANGERS for way in (READ, RUN)] + [(DECIDE, "folder"), (DECIDE, "prose")]
    told = refused(Commands(tmp_path, {}), *((*way, "--db", name) for way, name in asked))
    for ended, (_, name) in zip(told, asked, strict=True):
        assert str(tmp_path / name) in ended.err
        assert STRANGERS[name][1] in ended.err
    assert digests(tmp_path) == before


def test_B90_a_queue_of_a_newer_program_is_left_alone(museum: Museum, tmp_path: Path) -> None:
    queue = museum.copy(tmp_path / "newer.db")
    with closing(sqlite3.connect(queue)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = digests(tmp_path)
    for ended in refused(Commands(tmp_path, {"RUNNER_DB": str(queue)}), READ, DECIDE, RUN):
        assert "schema 9999, which is newer than this program" in ended.err
        assert "install the newer runner" in ended.err
    assert digests(tmp_path) == before


def test_without_a_queue_nothing_is_made(tmp_path: Path) -> None:
    """A misspelt place must not look like an empty queue, nor the wrong folder like the end of the work."""
    for ended in refused(Commands(tmp_path, {}), READ, ("jobs",), DECIDE, ("resolve", "1"), RUN):
        assert f"there is no queue at {tmp_path / 'runner.db'}" in ended.err
        assert "run a manifest first, or name the queue: --db" in ended.err
    assert digests(tmp_path) == {}


def test_an_empty_file_is_no_queue_yet(tmp_path: Path) -> None:
    (tmp_path / "runner.db").touch()
    for ended in refused(Commands(tmp_path, {}), READ, RUN):
        assert "there is no queue at" in ended.err
    assert (tmp_path / "runner.db").stat().st_size == 0


def test_a_plan_needs_no_queue_and_makes_none(tmp_path: Path) -> None:
    (tmp_path / "alley.yaml").write_text(MANIFEST)
    ended = Commands(tmp_path, {}).run("plan", "alley.yaml")
    assert ended.code == 0, ended.said()
    assert "1 new, 0 kept, 0 gone" in ended.err
    assert [*map(Path, digests(tmp_path))] == [tmp_path / "alley.yaml"]


def test_the_queue_is_named_by_db_else_by_the_environment(museum: Museum, tmp_path: Path) -> None:
    given, named = museum.copy(), tmp_path / "named.db"
    commands = Commands(tmp_path, {"RUNNER_DB": str(named)})
    museum.copy(named)
    by_environment, by_option, nowhere = side_by_side(
        commands, [("jobs", "--json"), ("jobs", "--json", "--db", str(given)), ("status", "--db", "elsewhere.db")]
    )
    assert by_environment.code == by_option.code == 0
    assert by_environment.out == by_option.out != "[]\n"
    assert f"there is no queue at {tmp_path / 'elsewhere.db'}" in nowhere.err


WRONG = {
    "nothing": ("", "is empty"),
    "an engine that is none of ours": (f"mysql://me:{PASSWORD}@127.0.0.1/queue", "'mysql' is no engine of ours"),
    "a port that is no number": (f"postgresql://me:{PASSWORD}@127.0.0.1:five/queue", "neither a path nor"),
}


def test_what_names_no_place_is_refused_without_its_password(tmp_path: Path) -> None:
    told = refused(Commands(tmp_path, {}), *(("status", "--db", db) for db, _ in WRONG.values()), code=2)
    for ended, (_, words) in zip(told, WRONG.values(), strict=True):
        assert words in ended.err
        assert PASSWORD not in ended.err
    assert digests(tmp_path) == {}


def test_a_wrong_password_is_told_and_not_shown(tmp_path: Path) -> None:
    """On a server that asks for one. The right one opens the door: there is no queue behind it yet."""
    with private_cluster() as server:
        asyncio.run(_guarded(server))
        url = make_url(server).set(username="guarded", password=PASSWORD)
        wrong, right = url.set(password=f"{PASSWORD}-not"), url
        urls = [each.render_as_string(hide_password=False) for each in (wrong, right)]
        nowhere = f"postgresql://guarded:{PASSWORD}@127.0.0.1:9/queue"
        log = ("-vv", "--log-file", "all.log")
        told = refused(Commands(tmp_path, {}), *(("status", "--db", each, *log) for each in [*urls, nowhere]),
                       (*RUN, "--db", urls[0], *log))  # fmt: skip
    at_wrong, at_right, at_nowhere, at_work = told
    for ended in (at_wrong, at_work):
        assert "password authentication failed" in ended.err
        assert "check the URL given with --db or RUNNER_DB" in ended.err
    assert "there is no queue at the database 'postgres'" in at_right.err
    assert "cannot be reached" in at_nowhere.err
    assert PASSWORD not in "".join(each.err for each in told)
    assert PASSWORD not in (tmp_path / "all.log").read_text()


async def _guarded(server: str) -> None:
    """From now on this server wants the password of one of its users."""
    rules = Path(make_url(server).query["host"]) / "data" / "pg_hba.conf"
    rules.write_text(f"local all guarded scram-sha-256\n{rules.read_text()}")
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
