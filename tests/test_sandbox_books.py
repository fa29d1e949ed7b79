"""The judge is beyond doubt: ledger, balances, observations and time agree, also through a storm of faults."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_client import KEY, OTHER_KEY, PROVIDERS, client_of, task_id

from runner.sandbox import fingerprint
from runner.sandbox.credits import micros, number, text
from runner.sandbox.windows import Window


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


@pytest.mark.parametrize("provider", PROVIDERS)
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
                        if answer.status_code == 200 and answer.json().get("ok", True):
                            accepted.add(task_id(answer.json()))
                            break

        await asyncio.gather(*(pour() for _ in range(30)))
        await client.sandbox.clock.sleep(60)  # for what is accepted later
        client.sandbox.clock.leap(1000)
        books, observed = client.books(), client.sandbox.observed()
        tasks = {task["id"]: task for task in books["tasks"]}
        assert accepted <= set(tasks)
        assert len(observed["faults_fired"]) == 9
        assert all(task["charged"] == client.cost() for task in tasks.values())
        back = {"completed": "0", "failed": client.cost() if client.way.refunds else "0"}
        assert all(task["refunded"] == back[task["state"]] for task in tasks.values())
        assert Decimal(books["net"]) == sum(Decimal(task["net"]) for task in tasks.values())
        assert Decimal(books["balance"]) == 100000 - Decimal(books["net"])
        (account,) = observed["accounts"][provider].values()
        assert account["in_flight"] == 0
        prompts = Counter(task["prompt"] for task in tasks.values())
        if client.way.key_header:
            assert set(prompts.values()) == {1}, "a key was charged twice"
        else:
            assert max(prompts.values()) > 1, "without keys, a resend is another order"
        assert observed["violations"] == []


async def test_the_ledger_cannot_be_rewritten(tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    async with client_of("seedance2ai", state=str(state)) as client:
        task = await client.ordered()
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


async def test_time_can_leap() -> None:
    async with client_of("happyhorse") as client:
        task = await client.ordered()
        before = client.sandbox.clock.now()
        assert (await client.control("leap", {"seconds": 3600}))["now"] >= before + 3600
        assert (await client.status(task))["status"] == "completed"


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
        assert observed["keys_with_several_requests"] == 0
        await client.fault("lost_request")
        with pytest.raises(httpx.TransportError):
            await client.order({"prompt": "a bird"}, key="order-3")
        assert client.sandbox.observed()["keys_with_several_requests"] == 1


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("faults", {"name": "sunshine"}, "there is no fault"),
        ("faults", {"name": "lost_answer", "when": "download"}, "cannot strike at"),
        ("faults", {"name": "lost_answer", "provider": "nobody"}, "provider must be"),
        ("faults", {"name": "lost_answer", "times": 0}, "times must be"),
        ("faults", {"name": "lost_answer", "seconds": 5}, "has no parameter"),
        ("outage", {"provider": "happyhorse"}, "seconds must be"),
        ("leap", {"seconds": -1}, "seconds must be"),
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
