"""Bad input that no manifest alone can show: the place where a run stands, its command line, its queue. Told before
anything is paid, and in data too; signed URLs, by every way in which stores write their end."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_manifest_bad import call, empty_queue, watching

from runner.downloads import hindrance
from runner.manifest.findings import KEPT
from runner.references import expiry, half_spent, signed

MANIFEST = """\
version: 1
batch: night
budget: {seedance2ai: 12000}
jobs:
  clip: {provider: seedance2ai, model: seedance, prompt: a neon alley}
outputs: {dir: out}
"""
KEY = "sk-a-key-for-this-test-0001"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest, and an account whose key is at hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDANCE2AI_API_KEY", KEY)
    monkeypatch.delenv("RUNNER_DB", raising=False)
    (tmp_path / "m.yaml").write_text(MANIFEST)
    return tmp_path


def refused(words: str, code: int) -> tuple[str, list[dict[str, Any]]]:
    """What is said and what a script gets, of a command that must end with this code, ask nobody and leave no trace."""
    before = sorted(Path.cwd().rglob("*"))
    with watching() as addresses:
        ended, out, err = call(words.split())
    assert ended == code, err
    assert addresses == []
    assert "Traceback" not in err
    assert sorted(Path.cwd().rglob("*")) == before
    return err, json.loads(out)["problems"] if out else []


# B77: outputs without a place


def test_B77_a_folder_that_nothing_can_be_written_to(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whom tests are run does not matter: who may do everything is asked here as if he might not."""
    (here / "out").mkdir()
    can = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != here / "out" and can(path, mode))
    err, [problem] = refused("plan m.yaml --json", 2)
    assert f"{here / 'out'} cannot be written to: permission denied" in err
    assert (problem["code"], problem["line"], problem["col"]) == ("B77", 6, 16)
    assert "B77" in refused("run m.yaml --yes", 2)[0]
    assert not (here / "runner.db").exists()


def test_B77_what_is_not_there_yet_will_be_made(tmp_path: Path) -> None:
    assert hindrance(tmp_path / "not" / "yet", ("out",)) is None
    (tmp_path / "file").touch()
    assert hindrance(tmp_path / "file" / "below", ("out",)) == f"{tmp_path / 'file'} is a file, not a folder"
    assert "name too long" in str(hindrance(tmp_path, ("a" * 300,))).lower()


def test_B78_no_more_are_told_than_anybody_reads(here: Path) -> None:
    """A table of a million rows may meet a folder with as many files."""
    (here / "out").mkdir()
    for n in range(KEPT + 5):
        (here / "out" / f"{n}.mp4").touch()
    (here / "t.csv").write_text("shot\n" + "".join(f"{n}\n" for n in range(KEPT + 5)))
    job = '{provider: seedance2ai, model: seedance, prompt: "scene ${shot}", rows: t.csv}'
    text = MANIFEST[: MANIFEST.index("  clip")] + f"  clip: {job}\noutputs: {{dir: out, name: '${{shot}}.${{ext}}'}}\n"
    (here / "m.yaml").write_text(text)
    err, problems = refused("plan m.yaml --json", 2)
    assert len(problems) == KEPT
    assert f"m.yaml: {KEPT:,} problems or more" in err
    assert f"+{KEPT - 50} more" in err


# B65: signed URLs


ENDS = datetime(2026, 1, 1, 12, tzinfo=UTC)
SIGNED = {
    "Amazon": "X-Amz-Date=20260101T110000Z&X-Amz-Expires=3600&X-Amz-Signature=0",
    "Google": "X-Goog-Date=20260101T110000Z&X-Goog-Expires=3600&X-Goog-Signature=0",
    "Aliyun": "x-oss-date=20260101T110000Z&x-oss-expires=3600&x-oss-signature=0",
    "Aliyun, before": f"Expires={ENDS.timestamp():.0f}&OSSAccessKeyId=x&Signature=0",
    "Volcengine": "X-Tos-Date=20260101T110000Z&X-Tos-Expires=3600&X-Tos-Signature=0",
    "Tencent": f"q-sign-time=1;{ENDS.timestamp():.0f}&q-signature=0",
    "Azure": "se=2026-01-01T12%3A00%3A00Z&sig=0",
    "Azure, by the minute": "se=2026-01-01T12:00Z&sig=0",
}


@pytest.mark.parametrize("store", SIGNED)
def test_B65_the_end_of_a_signed_url(store: str) -> None:
    assert expiry(f"https://bucket.example.com/a.png?{SIGNED[store]}") == ENDS


@pytest.mark.parametrize(
    "query",
    ["", "Expires=1767268800", "se=2026-01-01", "X-Amz-Date=20260101T110000Z", "Expires=999999999999&Signature=0",
     "Expires=²&Signature=0", "X-Amz-Date=99990101T000000Z&X-Amz-Expires=999999999999", "Expires=-1&Signature=0",
     "&".join(f"a{n}=1" for n in range(200)), "se=2026-13-01T00:00:00Z&sig=0", "q-sign-time=1&q-signature=0"],
)  # fmt: skip
def test_B65_a_url_that_does_not_say_so_has_no_end(query: str) -> None:
    assert expiry(f"https://bucket.example.com/a.png?{query}") is None


def test_a_signed_url_is_half_spent_when_less_than_half_of_its_time_is_left() -> None:
    url, since = f"https://bucket.example.com/a.png?{SIGNED['Amazon']}", ENDS - timedelta(hours=1)
    assert not half_spent(url, since, ENDS - timedelta(minutes=30))
    assert half_spent(url, since, ENDS - timedelta(minutes=29))
    assert half_spent(url, since, ENDS + timedelta(days=1))
    assert not half_spent("https://bucket.example.com/a.png", since, ENDS + timedelta(days=1))
    assert not half_spent(url, ENDS - timedelta(seconds=59), ENDS), "a new one would not be good for longer"
    assert not half_spent(url, ENDS + timedelta(hours=1), ENDS + timedelta(days=1)), "their clock is not ours"


def test_an_address_that_thousands_of_jobs_name_is_looked_into_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    fields = signed._fields
    monkeypatch.setattr(signed, "_fields", lambda url: looked.append(url) or fields(url))
    for _ in range(1_000):
        assert expiry("https://bucket.example.com/named-often.png") is None
    assert len(looked) == 1


# B85: the command line against the manifest


@pytest.mark.parametrize(("words", "holds"), [("500", "500"), ("seedance2ai=20000", "12000")])
def test_B85_both_are_told_and_which_of_them_holds(words: str, holds: str, here: Path) -> None:
    err, _ = refused(f"run m.yaml --max-credits {words}", 2)
    cap = words.rpartition("=")[2]
    said = f"B85 --max-credits says {cap} for seedance2ai, its budget 12000: the lower one holds, {holds}"
    assert f"warning: m.yaml:3:23: {said}" in err
    assert "and nobody to ask" in err, "it is told before anybody is asked to pay"
    assert KEY not in err


def test_B85_nothing_is_said_where_they_agree(here: Path) -> None:
    assert "B85" not in refused("run m.yaml --max-credits 12000", 2)[0]
    assert "B85" not in refused("run m.yaml", 2)[0]


# B89 and B90: what stands where the queue should be


def notebook(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE notes (line TEXT)")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:3000] = b"\xa5" * 2900
    path.write_bytes(content)


NO_QUEUES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "another database": (notebook, "B89", "it holds other tables: notes"),
    "a newer queue": (newer, "B90", "schema 9999, which is newer than this program"),
    "a damaged queue": (damaged, "B90", "runner doctor --salvage"),
}


@pytest.mark.parametrize("words", ["plan m.yaml --json", "status --json", "run m.yaml --yes"])
@pytest.mark.parametrize("what", NO_QUEUES)
def test_B89_B90_what_is_no_queue_for_us_is_named_and_left_alone(what: str, words: str, here: Path) -> None:
    spoil, code, said = NO_QUEUES[what]
    if spoil is not notebook:
        with empty_queue() as queue:
            queue.rename(here / "runner.db")
    spoil(here / "runner.db")
    before = (here / "runner.db").read_bytes()
    err, problems = refused(words, 7)
    assert said in err
    assert [problem["code"] for problem in problems] == [code] * ("--json" in words)
    assert (here / "runner.db").read_bytes() == before
