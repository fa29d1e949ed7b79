"""The sandbox as a server: its state outlives SIGKILL, its ledger is the sum of its rows, its time runs on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_client import KEY, OTHER_KEY, client_of, task_id, until

from runner.sandbox import BadOptions, Options, StateUnusable, fingerprint, serve
from runner.sandbox.credits import micros, number, text
from runner.sandbox.windows import Window


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
        async with httpx.AsyncClient(trust_env=False) as http:
            yield process, about, http
    finally:
        if process.poll() is None:
            await asyncio.to_thread(stopped, process, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


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
            assert set(about["base_urls"]) == set(about["keys"]) == {"happyhorse", "seedance2ai"}
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
            await until(lambda before=before: enough(answered, before + 150))
            process.kill()
            await asyncio.gather(*workers, return_exceptions=True)
    async with serve(Options(state=state)) as sandbox:
        ledger = sandbox.ledger(entries=True)
        tasks = ledger["providers"]["seedance2ai"]["accounts"][fingerprint(KEY)]["tasks"]
        assert answered <= {task["id"] for task in tasks}
        assert len(tasks) - len(answered) <= 32, "more was booked than can have been on the wire"
        assert {entry["task_id"] for entry in ledger["entries"]} == {task["id"] for task in tasks}
        assert ledger["charged"] == str(30 * len(tasks))


async def test_a_restarted_sandbox_goes_on_where_it_was(tmp_path: Path) -> None:
    arguments = ("--state", str(tmp_path / "state.db"), "--speed", "50")
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
        async with serve(options) as sandbox, httpx.AsyncClient(trust_env=False) as http:
            statuses.append((await order(http, sandbox.about(), 1)).status_code)
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "only listens on loopback"),  # noqa: S104
        (("--host", "example.com"), "only listens on loopback"),
        (("--faults", "sunshine=1"), "there is no fault 'sunshine'"),
        (("--speed", "0"), "must be above 0"),
        (("--rate-limit", "seedance2ai"), "is not PROVIDER=N"),
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
    async with serve(Options(host=host)) as sandbox, httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(sandbox.control + "/state")).status_code == 200


def test_options_refuse_what_cannot_be() -> None:
    for wrong in ({"host": "10.0.0.1"}, {"credits": Decimal(-1)}, {"render": 0}, {"media_bytes": (2, 1)}):
        with pytest.raises(BadOptions):
            Options(**wrong)


# -- the ledger ----------------------------------------------------------------------------------------------------


async def test_the_ledger_is_the_sum_of_its_rows_at_every_level() -> None:
    async with client_of("happyhorse") as client:
        for number in range(6):
            task = await client.ordered({"prompt": f"cat {number}", "duration": number + 0.5 if number else 5})
            if number % 2:
                await client.finish(task, "failed")
        client.key = OTHER_KEY
        await client.ordered()
        client.provider = "seedance2ai"
        await client.ordered()
        ledger = await client.control("ledger?entries=1")
        levels = [ledger, *ledger["providers"].values()]
        levels += [account for provider in ledger["providers"].values() for account in provider["accounts"].values()]
        for level in levels:
            assert Decimal(level["charged"]) - Decimal(level["refunded"]) == Decimal(level["net"])
        tasks = [task for level in levels for task in level.get("tasks", ())]
        for name, kind in (("charged", "charged"), ("refunded", "refunded")):
            rows = sum(Decimal(entry["credits"]) for entry in ledger["entries"] if entry["kind"] == kind)
            assert rows == Decimal(ledger[name]) == sum(Decimal(task[name]) for task in tasks)
        for level in levels:
            if "balance" in level:
                assert Decimal(100000) - Decimal(level["net"]) == Decimal(level["balance"])
        assert (
            client.sandbox.ledger(provider="happyhorse", tasks=False)["charged"]
            == ledger["providers"]["happyhorse"]["charged"]
        )


STORM = (
    "lost_request@submit=0.1,lost_answer@submit=0.1,error_after_charge=0.1,late_accept=0.1:seconds=5,truncated@submit=0.1,"
    "task_failed=0.1,moderated=0.1,late_refund=0.1:seconds=30,hidden=0.1"
)


@pytest.mark.parametrize("provider", ["seedance2ai", "happyhorse"])
async def test_the_books_hold_through_a_storm(provider: str) -> None:
    """300 orders, 30 at a time, while most goes wrong: the books agree with themselves and with every answer."""
    options: dict[str, Any] = {"speed": 200, "render": 20, "rate_limits": {provider: 0}, "faults": STORM}
    async with client_of(provider, **options) as client:
        accepted, numbers = set[str](), iter(range(300))

        async def pour() -> None:
            for number in numbers:
                for _ in range(4):  # as a client that knows only keys would
                    with suppress(httpx.TransportError, ValueError):
                        answer = await client.order({"prompt": f"cat {number}"}, key=f"order-{number}")
                        if answer.status_code == 200:
                            accepted.add(task_id(answer.json()))
                            break

        await asyncio.gather(*(pour() for _ in range(30)))
        await client.sandbox.clock.sleep(300)
        books, observed = client.books(), client.sandbox.observed()
        tasks = {task["id"]: task for task in books["tasks"]}
        assert accepted <= set(tasks)
        assert len(observed["faults_fired"]) == 9
        assert all(task["charged"] == {"seedance2ai": "30", "happyhorse": "25"}[provider] for task in tasks.values())
        assert all(
            task["refunded"] == ("0" if task["state"] == "completed" else task["charged"]) for task in tasks.values()
        )
        assert Decimal(books["net"]) == sum(Decimal(task["net"]) for task in tasks.values())
        assert Decimal(books["balance"]) == 100000 - Decimal(books["net"])
        (account,) = observed["accounts"][provider].values()
        assert account["in_flight"] == 0
        prompts = Counter(task["prompt"] for task in tasks.values())
        if provider == "seedance2ai":
            assert set(prompts.values()) == {1}, "a key was charged twice"
        else:
            assert max(prompts.values()) > 1, "without keys, a resend is another order"
        assert observed["violations"] == []


async def test_the_ledger_cannot_be_rewritten(tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    async with serve(Options(state=str(state))) as sandbox, httpx.AsyncClient(trust_env=False) as http:
        task = task_id((await order(http, sandbox.about(), 1)).json())
    with sqlite3.connect(state) as db:
        for statement in ("UPDATE ledger SET credits = 0", "DELETE FROM ledger"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                db.execute(statement)
        again = "INSERT INTO ledger SELECT NULL, at, provider, account, task_id, kind, credits, reason FROM ledger"
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            db.execute(again)
        assert db.execute("SELECT task_id, credits FROM ledger").fetchall() == [(task, 30_000_000)]
    db.close()


async def test_the_state_holds_no_key(tmp_path: Path) -> None:
    canary = "sk-canary-0123456789abcdef"
    async with client_of("happyhorse", state=str(tmp_path / "state.db")) as client:
        client.key = canary
        await client.ordered()
        await client.ask("GET", f"/api/v1/credits?api_key={canary}")
        await client.http.get(f"{client.sandbox.media}/x?{canary}", headers={"Authorization": canary})
        assert len(client.sandbox.observed()["leaks"]) == 3
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert canary.encode() not in left
    assert fingerprint(canary).encode() in left


async def test_the_same_seed_gives_the_same_tasks_and_ends() -> None:
    seen = []
    for seed in ("7", "7", "8"):
        async with client_of("happyhorse", seed=seed, speed=0.0001) as client:
            for number in range(5):
                await client.ordered({"prompt": f"cat {number}"})
            tasks = client.books()["tasks"]
            seen.append([(task["id"], round(task["finishes_at"] - task["created_at"], 3)) for task in tasks])
    assert seen[0] == seen[1] != seen[2]
    assert len(set(seen[0])) == 5


async def test_renders_take_about_as_long_as_said_and_images_a_quarter() -> None:
    async with client_of("seedance2ai", render=100, speed=0.001) as client:
        image = {"prompt": "a cat", "type": "text-to-image"}
        for _ in range(40):
            await client.ordered()
            await client.ordered(image, path="/api/v1/image/nano-banana-pro")
        spans: dict[str, list[float]] = {"video": [], "image": []}
        for task in client.books()["tasks"]:
            spans[task["kind"]].append(task["finishes_at"] - task["created_at"])
        medians = {kind: sorted(values)[20] for kind, values in spans.items()}
        assert 80 < medians["video"] < 125
        assert 20 < medians["image"] < 32


# -- time, requests, orders ----------------------------------------------------------------------------------------


async def test_every_answer_carries_the_sandboxs_time() -> None:
    async with client_of("happyhorse", speed=5, anchor=1_000_000_000.0) as client:
        for url in (client.sandbox.control + "/state", client.sandbox.media, client.sandbox.base_urls["happyhorse"]):
            told = parsedate_to_datetime((await client.http.get(url)).headers["Date"]).timestamp()
            assert abs(told - client.sandbox.clock.now()) < 60
        assert client.sandbox.clock.now() > 4_000_000_000


async def test_the_journal_tells_every_request() -> None:
    async with client_of("seedance2ai") as client:
        task = await client.ordered(key="order-1")
        await client.fault("lost_answer")
        with pytest.raises(httpx.TransportError):
            await client.order(key="order-2")
        await client.http.get((await client.finish(task))["output"]["video_url"])
        seen = (await client.control("requests"))["requests"]
        assert [(each["point"], each["status"], each["fault"]) for each in seen] == [
            ("submit", 200, None),
            ("submit", None, "lost_answer"),
            ("poll", 200, None),
            ("download", 200, None),
        ]
        assert [each["idempotency_key"] for each in seen] == ["order-1", "order-2", None, None]
        assert seen[0]["account"] == fingerprint(KEY)
        assert seen[0]["task_id"] == task
        assert len(seen[0]["body_sha256"]) == 64
        assert [each["seq"] for each in (await client.control("requests?after=2&limit=1"))["requests"]] == [3]


async def test_the_most_tasks_and_requests_at_once_are_remembered() -> None:
    async with client_of("happyhorse", speed=0.001) as client:
        tasks = [await client.ordered() for _ in range(4)]
        for task in tasks[:3]:
            await client.finish(task)
        await client.ordered()
        observed = (await client.control("observed"))["accounts"]["happyhorse"][fingerprint(KEY)]
        assert observed == {"in_flight": 2, "max_in_flight": 4, "max_requests_60s": 8, "rate_limited": 0}


async def test_equal_bodies_under_several_keys_are_counted() -> None:
    async with client_of("seedance2ai") as client:
        for key in ("order-1", "order-2", "order-1"):
            await client.ordered(key=key)
        await client.ordered({"prompt": "a dog"}, key="order-3")
        observed = client.sandbox.observed()
        assert (observed["bodies_with_several_keys"], observed["bodies_bought_again"]) == (1, 1)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("faults", {"name": "sunshine"}, "there is no fault"),
        ("faults", {"name": "lost_answer", "when": "download"}, "cannot strike at"),
        ("faults", {"name": "lost_answer", "provider": "nobody"}, "provider must be"),
        ("faults", {"name": "lost_answer", "times": 0}, "times must be"),
        ("faults", {"name": "lost_answer", "seconds": 5}, "has no parameter"),
        ("outage", {"provider": "happyhorse"}, "seconds must be"),
        ("credits", {"provider": "happyhorse", "key": "short", "balance": "1"}, "key must be"),
        ("credits", {"provider": "happyhorse", "key": KEY, "balance": "lots"}, "not an amount"),
        ("credits", {"provider": "happyhorse", "key": KEY, "balance": "-1"}, "must not be negative"),
        ("finish", {"provider": "happyhorse", "task_id": "vid_1"}, "no such task"),
        ("keys", {"provider": "happyhorse"}, "key must be"),
    ],
)
async def test_bad_orders_at_the_control_door_are_refused(path: str, body: dict[str, Any], said: str) -> None:
    async with client_of("happyhorse") as client:
        answer = await client.http.post(f"{client.sandbox.control}/{path}", json=body)
        assert answer.status_code == 400
        assert said in answer.json()["error"]


async def test_queued_faults_can_be_looked_at_and_forgotten() -> None:
    async with client_of("happyhorse") as client:
        await client.fault("lost_answer", times=3)
        (queued,) = (await client.control("faults"))["queue"]
        assert (queued["name"], queued["when"], queued["times"]) == ("lost_answer", ["submit"], 3)
        await client.http.delete(client.sandbox.control + "/faults")
        await client.ordered()


@given(st.decimals(min_value=0, max_value=10**9, places=6))
def test_credits_survive_the_way_in_and_out(amount: Decimal) -> None:
    assert Decimal(text(micros(amount))) == amount
    assert Decimal(str(number(micros(amount)))) == amount


@pytest.mark.parametrize("amount", ["1.0000001", "x", "", "nan", "inf"])
def test_credits_that_are_none_are_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="credits"):
        micros(amount)


@given(st.lists(st.floats(0, 300), max_size=60), st.integers(1, 10))
def test_no_window_ever_admits_more_than_its_limit(moments: list[float], limit: int) -> None:
    window, admitted = Window(), []
    for moment in sorted(moments):
        if window.admit(moment, limit).admitted:
            admitted.append(moment)
    for end in admitted:
        assert sum(end - 60 < moment <= end for moment in admitted) <= limit


def test_it_imports_nothing_else_of_this_project() -> None:
    code = "import sys, runner.sandbox.__main__; import json; print(json.dumps([n for n in sys.modules if n.startswith('runner.')]))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert all(name.startswith("runner.sandbox") for name in json.loads(told.stdout))
