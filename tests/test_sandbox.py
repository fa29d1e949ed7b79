"""The sandbox as a server: options checked, state that outlives SIGKILL, no answer that is not kept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sandbox_client import KEY, PROVIDERS, Client, client_of, http_client, task_id, until

from runner.sandbox import BadOptions, Options, StateUnusable, fingerprint, serve
from runner.sandbox.pen import Pen


def started(*arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A sandbox in a process of its own, ready."""
    command = [sys.executable, "-m", "runner.sandbox", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return process, json.loads(line)


def stopped(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(how)
    _, errors = process.communicate(timeout=10)
    return process.returncode, errors


@asynccontextmanager
async def separate(*arguments: str) -> AsyncIterator[tuple[subprocess.Popen[str], dict[str, Any], httpx.AsyncClient]]:
    process, about = await asyncio.to_thread(started, *arguments)
    try:
        async with http_client() as http:
            yield process, about, http
    finally:
        if process.poll() is None:
            await asyncio.to_thread(stopped, process, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def accounts(ledger: dict[str, Any]) -> list[dict[str, Any]]:
    return [account for provider in ledger["providers"].values() for account in provider["accounts"].values()]


async def order_on_and_on(client: Client, answered: list[str]) -> None:
    for each in range(500):
        answered.append(await client.ordered({"prompt": f"cat {each} " + "x" * 5000}))


async def enough(things: Collection[object], number: int) -> bool:
    return len(things) >= number


async def order(http: httpx.AsyncClient, about: dict[str, Any], number: int, key: str = KEY) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": f"order-{number}"}
    url = about["base_urls"]["seedance2ai"] + "/api/v1/video/seedance"
    return await http.post(url, json={"prompt": f"cat {number}"}, headers=headers)


# -- as a process --------------------------------------------------------------------------------------------------


async def test_it_says_that_it_is_ready_and_stops_on_a_signal() -> None:
    for how in (signal.SIGTERM, signal.SIGINT):
        async with separate("--seed", "7", "--speed", "60") as (process, about, http):
            assert set(about["base_urls"]) == set(about["keys"]) == set(PROVIDERS)
            answer = await order(http, about, 1, about["keys"]["seedance2ai"])
            assert answer.status_code == 200
            state = (await http.get(about["control"] + "/state")).json()
            assert (state["speed"], state["seed"], state["pid"]) == (60, "7", process.pid)
            assert await asyncio.to_thread(stopped, process, how) == (0, "")


async def test_what_was_answered_outlives_sigkill(tmp_path: Path) -> None:
    """Kills while submissions pour in: whatever answer left is in the books, whatever is in the books is whole."""
    state, answered = str(tmp_path / "state.db"), set[str]()
    for round_number in range(2):
        async with separate("--state", state, "--seed", "7", "--rate-limit", "seedance2ai=0") as (process, about, http):
            numbers = iter(range(round_number * 10**6, (round_number + 1) * 10**6))
            before = len(answered)

            async def pour(http=http, about=about, numbers=numbers) -> None:  # type: ignore[no-untyped-def]
                for number in numbers:
                    answered.add(task_id((await order(http, about, number)).json()))

            workers = [asyncio.create_task(pour()) for _ in range(16)]
            await until(partial(enough, answered, before + 150))
            process.kill()
            await asyncio.gather(*workers, return_exceptions=True)
    async with serve(Options(state=state)) as sandbox:
        ledger = sandbox.ledger(entries=True)
        tasks = ledger["providers"]["seedance2ai"]["accounts"][fingerprint(KEY)]["tasks"]
        assert answered <= {task["id"] for task in tasks}
        assert len(tasks) - len(answered) <= 32, "more was booked than can have been on the wire"
        assert {entry["task_id"] for entry in ledger["entries"]} == {task["id"] for task in tasks}
        assert ledger["charged"] == str(30 * len(tasks))


async def test_no_answer_leaves_before_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    committed: list[float] = []
    commit = Pen._commit

    def later(pen: Pen) -> None:
        asyncio.get_running_loop().call_later(0.2, at_last, pen)

    def at_last(pen: Pen) -> None:
        commit(pen)
        committed.append(time.monotonic())

    async with client_of("seedance2ai") as client:
        with monkeypatch.context() as patched:
            patched.setattr(Pen, "_commit", later)
            first = await asyncio.gather(client.order(key="order-1"), client.order(key="order-1"), client.order())
            answered = time.monotonic()
            assert committed
            assert committed[0] <= answered
            assert {answer.status_code for answer in first} == {200}
            await asyncio.sleep(0.3)  # a flush of the journal may still be on its way


@pytest.mark.parametrize("where", ["write", "commit"])
async def test_what_cannot_be_written_is_neither_answered_nor_charged(where: str, tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    async with client_of("seedance2ai", state=state, fast_disk=True) as client:
        kept = await client.ordered()
        database = client.sandbox.reports.desk.books._pen._db
        if where == "write":
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            database.execute(f"PRAGMA max_page_count={pages}")
        else:
            database.set_authorizer(
                lambda action, name, *_: int(action == sqlite3.SQLITE_TRANSACTION and name == "COMMIT")
            )
        answered = [kept]
        with pytest.raises(httpx.TransportError):
            await order_on_and_on(client, answered)
        for path in ("order", "control"):
            with pytest.raises(httpx.TransportError):
                await (client.order() if path == "order" else client.control("ledger"))
        assert client.sandbox.failed.is_set()
        database.set_authorizer(None)
    async with serve(Options(state=state)) as again:
        tasks = [task["id"] for account in accounts(again.ledger()) for task in account["tasks"]]
        assert tasks == answered
        assert len(tasks) == 1 or where == "write"


async def test_a_restarted_sandbox_goes_on_where_it_was(tmp_path: Path) -> None:
    arguments = ("--state", str(tmp_path / "state.db"), "--speed", "2")
    async with separate(*arguments) as (process, about, http):
        first = (await order(http, about, 1)).json()
        process.kill()
    async with separate(*arguments) as (_, again, http):
        assert (again["anchor"], again["seed"], again["keys"]) == (about["anchor"], about["seed"], about["keys"])
        assert (await order(http, again, 1)).json()["id"] == first["id"], "the key was forgotten"
        second = (await order(http, again, 2)).json()
        assert second["id"] != first["id"]
        observed = (await http.get(again["control"] + "/observed")).json()
        (account,) = observed["accounts"]["seedance2ai"].values()
        assert account["max_in_flight"] == 2
        assert account["max_requests_60s"] >= 2


async def test_a_restarted_sandbox_still_knows_the_last_minute(tmp_path: Path) -> None:
    options = Options(state=str(tmp_path / "state.db"), rate_limits={"seedance2ai": 2})
    statuses: list[int] = []
    for _ in range(3):
        async with serve(options) as sandbox, http_client() as http:
            statuses.append((await order(http, sandbox.about(), 1)).status_code)
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "only listens on loopback"),  # noqa: S104
        (("--host", "example.com"), "only listens on loopback"),
        (("--faults", "sunshine=1"), "there is no fault 'sunshine'"),
        (("--speed", "0"), "must be above 0"),
        (("--port", "99999"), "must be from 0 to 65535"),
        (("--rate-limit", "seedance2ai"), "is not PROVIDER=N"),
        (("--error-status", "seedhorse=42"), "must be from 200 to 599"),
        (("--media-bytes", "9-5"), "a least and a most"),
        (("--state", "/dev/null/state.db"), "cannot be used"),
    ],
)
def test_bad_options_are_one_clear_line_and_exit_2(arguments: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "runner.sandbox", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


async def test_a_state_has_one_owner_and_must_be_one(tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    async with serve(Options(state=state)):
        with pytest.raises(StateUnusable, match="locked"):
            await serve(Options(state=state)).__aenter__()
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE jobs (id INTEGER)")
    other.close()
    with sqlite3.connect(state) as older:
        older.execute("PRAGMA user_version = 1")
    older.close()
    with pytest.raises(StateUnusable, match="another version of this sandbox"):
        await serve(Options(state=state)).__aenter__()
    with pytest.raises(StateUnusable, match="not the state of this sandbox"):
        await serve(Options(state=str(tmp_path / "other.db"))).__aenter__()


async def test_a_taken_port_is_an_os_error(tmp_path: Path) -> None:
    async with serve() as sandbox:
        port = httpx.URL(sandbox.control).port
        with pytest.raises(OSError, match="in use"):
            await serve(Options(port=port or 0)).__aenter__()


async def test_both_ports_can_be_chosen() -> None:
    async with serve() as sandbox:
        ports = [httpx.URL(url).port or 0 for url in (sandbox.control, sandbox.media)]
    async with serve(Options(port=ports[0], media_port=ports[1])) as again:
        assert (again.control, again.media) == (sandbox.control, sandbox.media)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
async def test_every_loopback_address_will_do(host: str) -> None:
    async with serve(Options(host=host)) as sandbox, http_client() as http:
        assert (await http.get(sandbox.control + "/state")).status_code == 200


def test_options_refuse_what_cannot_be() -> None:
    wrongs: list[dict[str, Any]] = [{"error_statuses": {"seedhorse": 42}}, {"media_port": 1 << 16}]
    for wrong in (*wrongs, {"host": "10.0.0.1"}, {"credits": Decimal(-1)}, {"render": 0}, {"media_bytes": (2, 1)}):
        with pytest.raises(BadOptions):
            Options(**wrong)


def test_it_imports_nothing_else_of_this_project() -> None:
    code = "import json, sys, runner.sandbox.__main__; print(json.dumps(sorted(sys.modules)))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    ours = [name for name in json.loads(told.stdout) if name.startswith("runner.")]
    assert ours
    assert all(name.startswith("runner.sandbox") for name in ours)
