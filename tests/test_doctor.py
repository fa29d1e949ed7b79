"""`runner doctor`: every finding with its verdict and what to do; no key shown, nothing paid, nothing changed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from store.kit import HandClock, fill, order, set_running, step, take, take_submissions, work_of
from store.kit import settings as account

from runner.cli.accounts import Member, mark_of
from runner.cli.app import Common
from runner.cli.checkup.outputs import look_at
from runner.cli.doctor import doctor
from runner.clock import Clock
from runner.errors import ErrorKind
from runner.health.outputs import Stands
from runner.jobs import Event, Failure, OutputRow, State
from runner.manifest import ProviderEntry
from runner.sandbox import Options, Sandbox, serve
from runner.settings import Credentials, Secret
from runner.store import Store, commits, facts, open_store
from runner.store import accounts as account_rows
from runner.store.checkup import PublishedFile

KEY = "canary-key-0123456789-abcdef"
NAMES = ("happyhorse", "seedance2ai", "seedhorse", "seedhorse-video", "seegen")
MANIFEST = """\
version: 1
batch: alley
jobs:
  clip: {provider: seedance2ai, model: seedance, prompt: a neon alley}
"""
Told = Mapping[tuple[str, str], Mapping[str, str]]


@dataclass
class Bed:
    """A folder with a queue to be, and providers to ask."""

    folder: Path
    sandbox: Sandbox
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    @property
    def queue(self) -> Path:
        return self.folder / "runner.db"

    def set_key(self, name: str, key: str = KEY, base: str | None = None) -> None:
        capitals = name.upper().replace("-", "_")
        self.patch.setenv(f"{capitals}_API_KEY", key)
        self.patch.setenv(f"{capitals}_BASE_URL", base or self.sandbox.base_urls[name])

    async def asked(self, *manifest: Path, **options: Any) -> tuple[int, Told, str]:
        """The exit code, the checks by (kind, subject), and all that was printed."""
        self.capsys.readouterr()
        code = await doctor(*manifest, json=True, common=Common(db=str(self.queue)), **options)
        printed = self.capsys.readouterr()
        told = json.loads(printed.out)
        assert list(told) == ["checks"]
        for check in told["checks"]:
            assert list(check) == ["check", "subject", "verdict", "found", "advice"]
        return code, {(c["check"], c["subject"]): c for c in told["checks"]}, printed.out + printed.err

    async def fault(self, provider: str, name: str, **more: Any) -> None:
        async with httpx.AsyncClient() as client:
            body = {"provider": provider, "name": name, "times": 1, **more}
            (await client.post(f"{self.sandbox.control}/faults", json=body)).raise_for_status()


@pytest.fixture
async def bed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Bed]:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_BASE_URL"))]:
        monkeypatch.delenv(name)
    async with serve(Options(seed="doctor", fast_disk=True)) as sandbox:
        yield Bed(tmp_path, sandbox, monkeypatch, capsys)


# --- keys and providers


async def test_every_account_is_asked_one_unpaid_question_and_no_key_is_shown(bed: Bed) -> None:
    for name in NAMES:
        bed.set_key(name)
    code, told, printed = await bed.asked()
    assert code == 0
    for name in NAMES:
        assert {told[kind, name]["verdict"] for kind in ("key", "answer", "clock")} == {"ok"}
    for name in ("happyhorse", "seegen"):
        assert "balance: 100000 credits" in told["answer", name]["found"]
    assert told["queue", str(bed.queue)]["found"].startswith("there is none yet")
    assert not any(KEY[at : at + 8] in printed for at in range(len(KEY) - 7))
    ledger = bed.sandbox.ledger()["providers"]
    assert [one for each in ledger.values() for one in each["accounts"].values() if one["tasks"]] == []
    assert list(bed.folder.iterdir()) == []


async def test_as_text_it_is_a_line_each(bed: Bed) -> None:
    bed.set_key("seegen")
    assert await doctor(common=Common(db=str(bed.queue))) == 0
    lines = bed.capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok ") and "balance: 100000 credits" in line for line in lines)
    assert lines[-1] == "all is well" or "0 in trouble" in lines[-1]


async def test_refused_absent_and_malformed_keys_are_told_apart(bed: Bed) -> None:
    bed.set_key("seegen")
    await bed.fault("seegen", "unauthorized", when="credits")
    bed.set_key("happyhorse", base="http://127.0.0.1:9")
    code, told, _ = await bed.asked()
    assert code == 5
    assert "it refuses the key" in told["answer", "seegen"]["found"]
    assert "SEEGEN_API_KEY" in told["answer", "seegen"]["advice"]
    assert "it cannot be reached" in told["answer", "happyhorse"]["found"]
    assert "goes on by itself" in told["answer", "happyhorse"]["advice"]
    bed.set_key("happyhorse", base="https://10.0.0.1")
    _, told, _ = await bed.asked()
    assert "it may not be spoken to" in told["answer", "happyhorse"]["found"]
    assert "stops this account" in told["answer", "happyhorse"]["advice"]
    bed.set_key("happyhorse", base="http://127.0.0.1:9")
    (bed.folder / "m.yaml").write_text(MANIFEST)
    bed.set_key("seedhorse", "“curly-quoted-canary”")
    code, told, printed = await bed.asked(bed.folder / "m.yaml")
    assert code == 2, "2 goes before 5"
    assert "SEEDANCE2AI_API_KEY is not set" in told["key", "seedance2ai"]["found"]
    assert "is no key" in told["key", "seedhorse"]["found"]
    assert "canary”" not in printed
    assert ("answer", "seedhorse") not in told


async def test_without_any_key_it_says_how_to_set_one(bed: Bed) -> None:
    code, told, _ = await bed.asked()
    assert code == 0
    assert "SEEGEN_API_KEY" in told["key", "accounts"]["advice"]


# --- the queue


def own_order(n: int, name: str = "seedance2ai") -> Any:
    spec = json.dumps({"fields": {"prompt": f"shot {n}"}, "params": {}, "references": []})
    return replace(order(n, name), spec=spec)


async def test_the_key_of_another_account_is_noticed_and_questions_count(bed: Bed) -> None:
    bed.set_key("seegen")
    bed.set_key("happyhorse")
    entry = ProviderEntry("seegen", "seegen")
    member = Member(entry, Credentials("seegen", "seegen", Secret(KEY), bed.sandbox.base_urls["seegen"], True))
    async with open_store(str(bed.queue), Clock(), own=True) as store:
        own = mark_of(member, await store.read(facts.salt))
        accounts = [replace(account("seegen", provider="seegen"), fingerprint=own),
                    account("happyhorse", provider="happyhorse", windows=[(4, 600)])]  # fmt: skip
        await fill(store, [], accounts=accounts)
    for left in (1, 0):
        code, told, _ = await bed.asked()
        assert code == 0
        assert told["fingerprint", "seegen"]["verdict"] == "ok"
        assert told["fingerprint", "happyhorse"]["verdict"] == "warning"
        assert told["answer", "happyhorse"]["verdict"] == "ok", left
    _, told, _ = await bed.asked()
    assert told["answer", "happyhorse"]["found"].startswith("it was not asked: account happyhorse is at its request")


async def fill_with_trouble(store: Store) -> None:
    """Job 1 held, job 2 an open question, job 3 past its timeout, job 4 failed; and the account stopped."""
    await fill(store, [own_order(n) for n in range(1, 5)], accounts=[account("seedance2ai")])
    now = store.clock.now()
    lost = Failure(ErrorKind.UNKNOWN_SUBMISSION, "lost", "the answer got lost")
    running = {"task_id": "task-3", "accepted_at": now - timedelta(hours=7), "status": "generating"}
    ways: Mapping[int, tuple[Event, State, Mapping[str, Any]]] = {
        1: (Event.ANSWER_LOST, State.UNKNOWN, {"failure": lost}),
        2: (Event.ANSWER_LOST, State.UNKNOWN, {"failure": lost}),
        3: (Event.ACCEPTED, State.RUNNING, running),
        4: (Event.REFUSED, State.FAILED, {"failure": Failure(ErrorKind.INVALID_REQUEST, "bad", "refused")}),
    }
    for claimed in await take_submissions(store, 4, "seedance2ai"):
        event, to, more = ways[claimed.job_id]
        work = await work_of(store, claimed.job_id)
        await store.record(step(event, work, to, claimed.lease, now, **more))
    await store.record(step(Event.NOT_FOUND, await work_of(store, 1), State.HELD, None, now, failure=lost))
    await store.write(account_rows.stop, "seedance2ai", "the key was refused")


async def test_what_is_held_is_told_with_why_and_what_to_do(bed: Bed) -> None:
    bed.set_key("seedance2ai")
    async with open_store(str(bed.queue), Clock(), own=True) as store:
        await fill_with_trouble(store)
        code, told, _ = await bed.asked()  # beside a runner at work
    assert code == 4
    check = told["held", "job 1 (night/clip)"]
    assert "the answer got lost" in check["found"]
    for command in ("runner resolve 1 --adopt", "runner resolve 1 --resubmit", "runner resolve 1 --abandon"):
        assert command in check["advice"]
    assert "task-3 is past its timeout" in told["overdue", "job 3 (night/clip)"]["found"]
    assert told["unknown", "jobs"]["found"].startswith("1 unknown")
    assert told["failed", "jobs"]["found"].startswith("1 failed")
    assert (told["account", "seedance2ai"]["verdict"], told["integrity", str(bed.queue)]["verdict"]) == (
        "trouble",
        "ok",
    )


async def test_F95_B90_a_newer_queue_is_told_by_its_versions(bed: Bed) -> None:
    async with open_store(str(bed.queue), HandClock(), own=True):
        pass
    with closing(sqlite3.connect(bed.queue)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    code, told, _ = await bed.asked()
    assert code == 7
    assert "schema 9999, which is newer than this program" in told["queue", str(bed.queue)]["found"]
    assert "install the newer runner" in told["queue", str(bed.queue)]["advice"]


async def test_F94_commits_that_are_missing_are_told(bed: Bed) -> None:
    async with open_store(str(bed.queue), HandClock(), own=True) as store:
        made = (await store.read(facts.created_at)).isoformat()
    commits.note_of(bed.queue).write_text(f"{999:>10} {made}\n")
    code, told, _ = await bed.asked()
    assert code == 7
    assert "has lost its last commits" in told["queue", str(bed.queue)]["found"]
    assert "runner.db-wal" in told["queue", str(bed.queue)]["advice"]


async def test_F94_B90_a_damaged_queue_is_told_and_salvaged(bed: Bed) -> None:
    async with open_store(str(bed.queue), HandClock(), own=True) as store:
        await fill(store, [own_order(n) for n in range(1, 40)], accounts=[account("seedance2ai", concurrency=39)])
        await set_running(store, 39, "seedance2ai")
    with bed.queue.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\xff" * 4096)
    code, told, _ = await bed.asked()
    assert code == 7
    broken = [check for check in told.values() if check["verdict"] == "trouble"]
    assert all("runner doctor --salvage" in check["advice"] for check in broken)
    assert broken
    code = await doctor(salvage=True, json=True, common=Common(db=str(bed.queue)))
    salvaged = json.loads(bed.capsys.readouterr().out)
    assert code == (7 if salvaged["unread"] else 0)
    assert {"seedance2ai"} == {one["account"] for one in salvaged["orders"]}
    assert len({one["task_id"] for one in salvaged["orders"]}) > 20
    assert await doctor(salvage=True, common=Common(db=str(bed.queue))) == code
    assert "task-1 " in bed.capsys.readouterr().out


async def test_T7_of_keys_that_others_can_read_it_says_what_to_do(bed: Bed) -> None:
    """And not what to do about something else."""
    (bed.folder / ".env").write_text(f"SEEGEN_API_KEY={KEY}\nSEEGEN_BASE_URL={bed.sandbox.base_urls['seegen']}\n")
    (bed.folder / ".env").chmod(0o644)
    check = (await bed.asked())[1]["key", "seegen"]
    assert (check["verdict"], check["advice"]) == ("warning", "")
    assert check["found"].endswith("chmod 600 .env")


async def test_a_queue_that_cannot_be_made_is_trouble(bed: Bed) -> None:
    (bed.folder / "file").write_text("mine")
    bed.capsys.readouterr()
    code = await doctor(json=True, common=Common(db=str(bed.folder / "file" / "runner.db")))
    told = {check["check"]: check["verdict"] for check in json.loads(bed.capsys.readouterr().out)["checks"]}
    assert (code, told["writable"]) == (7, "trouble")


async def test_T7_a_queue_that_others_can_read_is_in_doubt(bed: Bed) -> None:
    async with open_store(str(bed.queue), HandClock(), own=True):
        pass
    assert (await bed.asked())[1]["mode", str(bed.queue)]["verdict"] == "ok"
    bed.queue.chmod(0o644)
    check = (await bed.asked())[1]["mode", str(bed.queue)]
    assert (check["verdict"], check["advice"]) == ("warning", f"chmod 600 {bed.queue}")


async def test_a_queue_on_postgresql_is_examined_as_far_as_it_goes(bed: Bed, postgres_database: str) -> None:
    async with open_store(postgres_database, HandClock(), own=True):
        pass
    code = await doctor(json=True, common=Common(db=postgres_database))
    told = {check["check"]: check for check in json.loads(bed.capsys.readouterr().out)["checks"]}
    assert code == 0
    assert told["server"]["found"].startswith("PostgreSQL 1")
    assert {"schema", "durability"} <= told.keys()
    assert told.keys().isdisjoint({"integrity", "mode", "sqlite", "place"})


# --- files


def test_F98_what_stands_in_place_of_an_output_is_never_followed(tmp_path: Path) -> None:
    root, secret = tmp_path / "link-to-root", tmp_path / "secret"
    (tmp_path / "root" / "out").mkdir(parents=True)
    root.symlink_to(tmp_path / "root")  # the person's own word
    secret.mkdir()
    (secret / "a.mp4").write_bytes(b"secret")
    path = root / "out" / "a.mp4"
    assert look_at(path, root).what is Stands.NOTHING
    path.write_bytes(b"film")
    found = look_at(path, root)
    assert (found.what, found.size, found.sha256) == (Stands.FILE, 4, sha256(b"film").hexdigest())
    path.unlink()
    path.symlink_to(secret / "a.mp4")
    assert look_at(path, root).what is Stands.ANOTHER
    path.unlink()
    (root / "out").rmdir()
    (root / "out").symlink_to(secret)
    assert look_at(path, root).what is Stands.ANOTHER
    (root / "out").unlink()
    os.mkfifo(root / "out")
    assert look_at(root / "out", root).what is Stands.ANOTHER


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".kept"))
    path.symlink_to(path.with_suffix(".kept"))


HARMS: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "kept.mp4": (lambda _: None, ""),
    "gone.mp4": (Path.unlink, "the file is gone"),
    "edited.mp4": (edit, "other bytes"),
    "grown.mp4": (grow, "bytes instead of"),
    "linked.mp4": (replace_by_link, "was not followed"),
}


async def test_F94_verifying_a_damaged_queue_comes_to_an_end(bed: Bed) -> None:
    """Damage may lead from a page of its index back to the same one."""
    async with open_store(str(bed.queue), HandClock(), own=True):
        pass
    file = PublishedFile(1, str(bed.folder / "gone.mp4"), str(bed.folder), 1, "0", 1, "night/clip", None)
    bed.patch.setattr("runner.store.checkup.published_after", lambda *_: [file])
    code, told, _ = await bed.asked(verify=True)
    assert code == 7
    assert "not all were looked at" in told["outputs", "all"]["found"]
    assert "--salvage" in told["outputs", "all"]["advice"]


async def test_F98_deleted_edited_and_replaced_outputs_are_reported(bed: Bed) -> None:
    async with open_store(str(bed.queue), HandClock(), own=True) as store:
        await fill(store, [own_order(n) for n in range(1, 6)], accounts=[account("seedance2ai")])
        await set_running(store, 5, "seedance2ai")
        for job, name in enumerate(HARMS, 1):
            await publish(store, job, bed.folder / name)
    assert (await bed.asked(verify=True))[0] == 0
    for name, (harm, _) in HARMS.items():
        harm(bed.folder / name)
    code, told, _ = await bed.asked(verify=True)
    assert code == 7
    for job, (name, (_, words)) in enumerate(HARMS.items(), 1):
        check = told.get(("output", str(bed.folder / name)))
        assert (check is None) is (words == "")
        if check is not None:
            assert words in check["found"]
            assert f"task-{job}" in check["advice"]
    assert told["outputs", "all"]["found"] == "1 files are as they were fetched"
    assert ("outputs", "all") not in (await bed.asked())[1], "files are read on demand only"


async def publish(store: Store, job: int, path: Path) -> None:
    """The job's task has ended, and its file is fetched."""
    content = f"film {job}".encode()
    path.write_bytes(content)
    store.clock.move(60)  # type: ignore[attr-defined]
    work = await work_of(store, job)
    file = OutputRow(0, None, False, str(path), len(content), sha256(content).hexdigest(), "video/mp4")
    now = store.clock.now()
    await store.record(step(Event.FINISHED, work, State.DOWNLOADING, None, now, outputs=(replace(file, path=None),)))
    [claimed] = (await take(store, "seedance2ai", downloads=1)).downloads
    work = await work_of(store, claimed.job_id)
    await store.record(step(Event.COMPLETED, work, State.SUCCEEDED, claimed.lease, now, outputs=(file,)))
